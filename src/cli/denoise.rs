//! `residua denoise`: the rows of a file without the noise of their sensors; beside a signal that is known, how much of it was taken off.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::csv::{CsvArgs, CsvRecords, read_features, rewrite};
use super::scoring::{self, Subject, is_kept};
use crate::detector::{Detector, Verdict};
use crate::model::{ADOPT_AFTER, AlarmBudget, Cloud, Model};
use crate::record::Table;
use crate::service::load;

/// Records that moving averages are over; the best of them counts.
const AVERAGES: [usize; 5] = [2, 3, 5, 9, 17];
/// Numbers that principal components are fitted to, about; of more rows, evenly spaced ones. Some copies are held at a time.
const NUMBERS_MAX: usize = 4_000_000;
/// Inputs, for them.
const PRINCIPAL_MAX: usize = 1_024;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Write the file here, as CSV, with the sensors' values cleaned, and what is missing filled in
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The same rows without noise, where they are known: shows the signal-to-noise ratio before and after, and of a moving average and of principal
    /// components
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
}

/// # Errors
/// Unreadable file or model, a file with none of the model's features, output not writable; a truth of other rows.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let model = Arc::new(load(&args.subject.model)?);
    let (CsvRecords { table: records, .. }, absent) = read_features(&args.subject.csv, (None, false), model.schema())?;
    let mut detector = scoring::detector(&model, AlarmBudget::default(), ADOPT_AFTER);
    let mut clean: Vec<Option<Vec<f64>>> = vec![None; records.rows()];
    let mut seen = Seen::default();
    let width = model.layer_sizes().last().map_or(1, |sizes| sizes[0]);
    let room = NUMBERS_MAX / width.max(1);
    scoring::score(&records, 0, &mut detector, &mut |detector, index, row, verdict| {
        if matches!(verdict, Verdict::Scored { .. }) {
            clean[row] = detector.clean(index);
            if args.truth.is_some() && is_kept(row, records.rows(), room) {
                seen.take(detector, index, row);
            }
        }
        Ok(())
    })?;
    rewrite(&args.subject.csv, &args.out, (model.schema(), &absent), &clean)?;
    if !absent.is_empty() {
        writeln!(out, "not in the file, so not cleaned: {}", absent.join(", "))?;
    }
    let cleaned = clean.iter().flatten().count();
    writeln!(
        out,
        "{} rows: {cleaned} cleaned, {} as they were (their series too new, or without a value)",
        records.rows(),
        records.rows() - cleaned
    )?;
    if let Some(truth) = &args.truth {
        let known = CsvArgs { file: truth.clone(), ..args.subject.csv.clone() };
        let (CsvRecords { table: truth, .. }, _) = read_features(&known, (None, false), model.schema())?;
        ensure!(
            truth.rows() == records.rows(),
            "--truth {}: {} rows, expected the {} of {}",
            known.file.display(),
            truth.rows(),
            records.rows(),
            args.subject.csv.file.display()
        );
        compare(&model, &truth, &records, &clean, &seen, out)?;
    }
    Ok(())
}

/// What the network that decides saw, of the rows that were cleaned: row after row, and their numbers.
#[derive(Default)]
struct Seen {
    inputs: Vec<f32>,
    rows: Vec<usize>,
}

impl Seen {
    fn take(&mut self, detector: &Detector, index: usize, row: usize) {
        let last = detector.model().roles().count() - 1;
        if let Some(input) = detector.input(last, index) {
            self.inputs.extend_from_slice(input);
            self.rows.push(row);
        }
    }
}

/// Power of a signal, and of what is off it.
#[derive(Clone, Copy, Default)]
struct Power {
    signal: f64,
    noise: f64,
}

impl Power {
    fn decibels(self) -> Option<f64> {
        (self.signal > 0.0 && self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

/// Ratios of signal to noise: sensor by sensor, and of all together in the sensors' scales.
fn compare(
    model: &Model,
    truth: &Table,
    noisy: &Table,
    clean: &[Option<Vec<f64>>],
    seen: &Seen,
    out: &mut impl Write,
) -> Result<()> {
    let features = model.schema().len();
    let mean = |j: usize| {
        let (sum, n) = seen.rows.iter().map(|&row| truth.row(row)[j]).filter(|v| !v.is_nan()).fold((0.0, 0.0), add);
        sum / f64::max(n, 1.0)
    };
    let means: Vec<f64> = (0..features).map(mean).collect();
    let powers = |value: &dyn Fn(usize, usize) -> f64| -> Vec<Power> {
        let of = |j: usize| {
            let mut power = Power::default();
            for (at, &row) in seen.rows.iter().enumerate() {
                let (signal, value) = (truth.row(row)[j], value(at, j));
                if !signal.is_nan() && !noisy.row(row)[j].is_nan() && !value.is_nan() {
                    power.signal += (signal - means[j]).powi(2);
                    power.noise += (value - signal).powi(2);
                }
            }
            power
        };
        (0..features).map(of).collect()
    };
    let averages = AVERAGES.map(|width| {
        let average = moving_average(noisy, width);
        (width, powers(&|at, j| average[seen.rows[at] * features + j]))
    });
    // By its total, seen afterwards: a favour to them.
    let best = averages.into_iter().max_by(|a, b| total(&a.1).total_cmp(&total(&b.1)));
    let (width, averaged) = best.unwrap_or((0, vec![Power::default(); features]));
    let code = model.code_widths().last().copied().unwrap_or(0);
    let inputs = model.layer_sizes().last().map_or(0, |sizes| sizes[0]);
    let code = code.min(inputs);
    let principal = principal(model, seen, inputs, code)?;
    let ours = |at: usize, j: usize| clean[seen.rows[at]].as_ref().map_or(f64::NAN, |row| row[j]);
    let all = [
        powers(&|at, j| noisy.row(seen.rows[at])[j]),
        powers(&ours),
        averaged,
        powers(&|at, j| {
            principal[at * features + j].map_or(f64::NAN, |scaled| model.in_own_unit(j, scaled).unwrap_or(f64::NAN))
        }),
    ];
    let name_width = model.schema().names().map(str::len).max().unwrap_or(0).max(11);
    let names = ["before", "after", &format!("average of {width}"), &format!("{code} components")].map(str::to_owned);
    writeln!(out, "signal-to-noise ratio in dB, over {} rows:", seen.rows.len())?;
    let line = |name: &str, cells: &[String]| {
        let cells = cells.iter().zip(&names).map(|(cell, head)| format!("{cell:>width$}", width = head.len().max(6)));
        format!("  {name:<name_width$}  {}", cells.collect::<Vec<_>>().join("  "))
    };
    writeln!(out, "{}", line("", &names))?;
    let shown = |decibels: Option<f64>| decibels.map_or("-".to_owned(), |d| format!("{d:.1}"));
    for (j, name) in model.schema().names().enumerate() {
        let cells: Vec<String> = all.iter().map(|powers| shown(powers[j].decibels())).collect();
        writeln!(out, "{}", line(name, &cells))?;
    }
    let cells: Vec<String> = all.iter().map(|powers| shown(Some(total(powers)).filter(|d| d.is_finite()))).collect();
    writeln!(out, "{}", line("all sensors", &cells))?;
    Ok(())
}

fn add((sum, n): (f64, f64), value: f64) -> (f64, f64) {
    (sum + value, n + 1.0)
}

/// Of all sensors, each with a signal of the same power.
fn total(powers: &[Power]) -> f64 {
    let relative: Vec<f64> = powers.iter().filter(|p| p.signal > 0.0).map(|p| p.noise / p.signal).collect();
    10.0 * (relative.len() as f64 / relative.iter().sum::<f64>()).log10()
}

/// Of each series the mean of its last `width` values as far as they are present; rows x features, NaN where none is.
fn moving_average(table: &Table, width: usize) -> Vec<f64> {
    let features = table.schema.len();
    let mut last: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut out = Vec::with_capacity(table.values.len());
    for row in 0..table.rows() {
        let rows = last.entry(table.series[row]).or_default();
        rows.push(row);
        if rows.len() > width {
            rows.remove(0);
        }
        for j in 0..features {
            let present = rows.iter().map(|&row| table.row(row)[j]).filter(|v| !v.is_nan());
            let (sum, n) = present.fold((0.0, 0.0), add);
            out.push(sum / n);
        }
    }
    out
}

/// What principal components of what the network sees make of the newest record, fitted to these very rows (a favour to them): scaled, rows x
/// features. None where series have scales of their own, or there are so many inputs that it would take too long.
fn principal(model: &Model, seen: &Seen, inputs: usize, code: usize) -> Result<Vec<Option<f32>>> {
    let features = model.schema().len();
    if inputs > PRINCIPAL_MAX {
        return Ok(vec![None; seen.rows.len() * features]);
    }
    let cloud =
        Cloud::new(inputs, seen.inputs.clone()).context("compare with principal components: no row is cleaned")?;
    let all: Vec<usize> = (0..cloud.rows()).collect();
    let rebuilt = cloud.principal(&all, code)?.rebuilt;
    let known = model.scaled_apart().is_none();
    Ok(rebuilt
        .rows()
        .into_iter()
        .flat_map(|row| row.to_vec().split_off(inputs - features))
        .map(|v| known.then_some(v))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::train_file;
    use crate::model::testing::noise;

    /// 1,200 rows of six sensors that follow two slow numbers, with noise of their own and without.
    fn plant(folder: &Path) -> (String, String) {
        let (drive, random) = (noise(1, 2_400), noise(2, 7_200));
        let (mut noisy, mut truth) = ("note,a,b,c,d,e,f\n".to_owned(), "note,a,b,c,d,e,f\n".to_owned());
        let mut state = [0.0f64; 2];
        for (step, random) in drive.chunks_exact(2).zip(random.chunks_exact(6)) {
            state.iter_mut().zip(step).for_each(|(s, step)| *s = 0.95 * *s + step);
            let signal: Vec<f64> =
                (0..6).map(|j| 100.0 + state[0] * f64::from(j + 1) + state[1] * f64::from(6 - j)).collect();
            let row = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
            let with: Vec<f64> = signal.iter().zip(random).map(|(s, r)| s + 4.0 * r).collect();
            truth += &format!("x,{}\n", row(&signal));
            noisy += &format!("x,{}\n", row(&with));
        }
        std::fs::write(folder.join("noisy.csv"), &noisy).unwrap();
        std::fs::write(folder.join("truth.csv"), &truth).unwrap();
        (noisy, truth)
    }

    fn denoised(folder: &Path, change: impl Fn(&mut Args)) -> Result<(String, String)> {
        let csv = CsvArgs { file: folder.join("noisy.csv"), ignore: vec!["note".to_owned()], ..CsvArgs::default() };
        train_file::run(&train_file::FileArgs::new(csv.clone(), folder.join("m.safetensors")), &mut Vec::new())?;
        let mut args = Args {
            subject: Subject { csv, model: folder.join("m.safetensors") },
            out: folder.join("clean.csv"),
            truth: Some(folder.join("truth.csv")),
        };
        change(&mut args);
        let mut said = Vec::new();
        run(&args, &mut said)?;
        Ok((String::from_utf8(said)?, std::fs::read_to_string(&args.out)?))
    }

    #[test]
    fn noise_is_taken_off_more_than_by_an_average_and_what_is_no_sensor_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (noisy, _) = plant(folder.path());
        let (said, clean) = denoised(folder.path(), |_| {}).unwrap();
        let all = said.lines().find(|line| line.contains("all sensors")).unwrap();
        let ratios: Vec<f64> = all.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [before, after, average, components] = ratios[..] else { panic!("{said}") };
        assert!(after > before + 1.5 && after > average + 1.5 && components > before, "{said}");
        let (before, after): (Vec<&str>, Vec<&str>) = (noisy.lines().collect(), clean.lines().collect());
        assert_eq!((before.len(), before[0]), (after.len(), after[0]));
        assert_eq!(before[1..5], after[1..5], "their series is too new");
        assert!(after[5..].iter().all(|line| line.starts_with("x,")) && before[5] != after[5]);
        assert!(said.contains("1200 rows: 1196 cleaned, 4 as they were"), "{said}");
    }

    #[test]
    fn a_missing_value_is_filled_in_and_a_fault_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (noisy, _) = plant(folder.path());
        let rows: Vec<String> = noisy.lines().map(str::to_owned).collect();
        let changed = |at: usize, column: usize, cell: &str| {
            let mut cells: Vec<&str> = rows[at].split(',').collect();
            cells[column] = cell;
            cells.join(",")
        };
        let mut text = rows.clone();
        text[100] = changed(100, 3, "");
        text[200] = changed(200, 2, "5000.125");
        std::fs::write(folder.path().join("new.csv"), text.join("\n")).unwrap();
        let new = folder.path().join("new.csv");
        let (said, clean) = denoised(folder.path(), |args| {
            (args.truth, args.subject.csv.file) = (None, new.clone());
        })
        .unwrap();
        assert!(!said.contains("dB"), "{said}");
        let cell = |at: usize, column: usize| clean.lines().nth(at).unwrap().split(',').nth(column).unwrap().to_owned();
        let (was, filled) = (rows[100].split(',').nth(3).unwrap().parse::<f64>().unwrap(), cell(100, 3).parse::<f64>());
        assert!((filled.unwrap() - was).abs() < 25.0, "{} {was}", cell(100, 3));
        assert_eq!(cell(200, 2), "5000.125", "what no noise is stays as it is");
        // A sensor that is left out is none of its business.
        let (said, clean) = denoised(folder.path(), |args| {
            (args.truth, args.subject.csv.file) = (None, new.clone());
            args.subject.csv.ignore.push("c".to_owned());
        })
        .unwrap();
        assert!(said.contains("not cleaned: c\n"), "{said}");
        let third =
            |text: &str| text.lines().map(|line| line.split(',').nth(3).unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(third(&clean), third(&text.join("\n")));
    }

    #[test]
    fn other_rows_are_no_truth_and_a_file_is_not_written_over_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (_, truth) = plant(folder.path());
        let short: Vec<&str> = truth.lines().take(10).collect();
        std::fs::write(folder.path().join("short.csv"), short.join("\n")).unwrap();
        let shorter = folder.path().join("short.csv");
        let error = denoised(folder.path(), |args| args.truth = Some(shorter.clone())).unwrap_err().to_string();
        assert!(error.contains("short.csv: 9 rows, expected the 1200 of"), "{error}");
        let error = denoised(folder.path(), |args| args.out = args.subject.csv.file.clone()).unwrap_err().to_string();
        assert!(error.contains("expected another file"), "{error}");
    }
}
