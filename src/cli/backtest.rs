//! `residua backtest`: learn from the first rows of a file, score the others with the detector of the daemon.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::csv::{CsvArgs, file_name, read};
use super::drift;
use super::incidents;
use super::learn::{AlarmArgs, ModelArgs, learn, told};
use super::quality::{Alarms, Quality, quality};
use super::report::{Chart, Subject};
use super::scoring;
use crate::detector::Verdict;
use crate::model::TrainingSource;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    csv: CsvArgs,
    /// Learn from the first N rows
    #[arg(long, value_name = "N")]
    train_rows: usize,
    /// Column of 0 and 1 (anomaly): print how well the scores agree with it; never used otherwise
    #[arg(long, value_name = "COL")]
    label: Option<String>,
    /// Write row, score and flagged of every later row to this CSV file; rows count from 0
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the incidents of the later rows to this CSV file
    #[arg(long, value_name = "FILE")]
    incidents: Option<PathBuf>,
    /// Draw scores, sensors and incidents as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    alarms: AlarmArgs,
    /// Records after which a shift that stays is what is normal
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    adopt_after: u64,
    #[command(flatten)]
    model: ModelArgs,
}

/// One scored row; one that is warming, or holds no value, scores 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scored {
    score: f64,
    flagged: bool,
}

/// # Errors
/// Unreadable file, too few rows to learn from, output not writable.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let records = read(&args.csv, (args.label.as_deref(), true))?;
    let rows = records.table.rows();
    ensure!(
        args.train_rows < rows,
        "learn from {} rows of {}: expected fewer than its {rows}",
        args.train_rows,
        args.csv.file.display()
    );
    let training = records.table.with_values(args.train_rows);
    let source = TrainingSource::File { name: file_name(&args.csv.file), rows: training.rows() };
    let model = Arc::new(learn(&training, &args.model, source)?);
    let mut detector = scoring::detector(&model, args.alarms.alarms, args.adopt_after);
    let names = detector.names().to_vec();
    let mut chart = args.report.as_ref().map(|_| Chart::new(args.train_rows..rows, names.len()));
    let mut scored = vec![Scored::default(); rows];
    let incidents =
        scoring::score(&records.table, args.train_rows, &mut detector, &mut |detector, index, row, verdict| {
            if let Verdict::Scored { score, flagged, .. } = verdict {
                scored[row] = Scored { score, flagged };
            }
            if let Some(chart) = &mut chart {
                let Scored { score, flagged } = scored[row];
                let labelled = records.labels.get(row).copied().unwrap_or(false);
                chart.add(row, score, flagged, labelled, &detector.off(index).unwrap_or_default());
            }
            Ok(())
        })?;
    let judged = &scored[args.train_rows..];
    write_scores(&args.out, args.train_rows, judged).with_context(|| format!("write {}", args.out.display()))?;
    if let Some(path) = &args.incidents {
        incidents::write(path, &incidents, &records.times)?;
    }
    let flagged = judged.iter().filter(|s| s.flagged).count();
    let learned = told(&model, &args.alarms.alarms, "rows");
    writeln!(out, "{learned}")?;
    writeln!(out, "{flagged} of {} later rows flagged, incidents: {}", judged.len(), incidents.len())?;
    let quality = args.label.as_ref().map(|_| agreement(&records.labels[args.train_rows..], judged));
    let (count, rows) = match (&quality, model.ordered()) {
        (Some(quality), true) => (quality.incidents.false_ones, quality.normal),
        (Some(quality), false) => (quality.false_flags, quality.normal),
        (None, true) => (incidents.len(), judged.len()),
        (None, false) => (flagged, judged.len()),
    };
    let (accepted, labelled) = (args.alarms.alarms, quality.is_some());
    let alarms = Alarms { accepted, incidents: model.ordered(), labelled, count, rows };
    writeln!(out, "{alarms}")?;
    drift::tell(&model, &detector.drifts(), out)?;
    if let Some(quality) = &quality {
        let anomalies = records.labels[args.train_rows..].iter().filter(|l| **l).count();
        writeln!(out, "labelled anomalies  {anomalies}")?;
        for (name, value) in quality.figures() {
            writeln!(out, "{name:<19} {value:.4}")?;
        }
    }
    if let (Some(path), Some(chart)) = (&args.report, chart) {
        let page = chart.page(&Subject {
            file: &file_name(&args.csv.file),
            learned: &learned,
            alarms,
            sensors: &names,
            times: &records.times,
            quality: quality.as_ref(),
            incidents: &incidents,
        })?;
        std::fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn write_scores(path: &Path, first_row: usize, scored: &[Scored]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "row,score,flagged")?;
    for (row, Scored { score, flagged }) in (first_row..).zip(scored) {
        writeln!(file, "{row},{score},{}", u8::from(*flagged))?;
    }
    Ok(file.flush()?)
}

fn agreement(labels: &[bool], judged: &[Scored]) -> Quality {
    let scores: Vec<f64> = judged.iter().map(|s| s.score).collect();
    let flags: Vec<bool> = judged.iter().map(|s| s.flagged).collect();
    quality(labels, &scores, &flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::plane;

    fn backtest(label: Option<&str>, train_rows: usize) -> Result<(String, String)> {
        let folder = tempfile::tempdir()?;
        let (file, out) = (folder.path().join("plant.csv"), folder.path().join("scores.csv"));
        let mut text = "timestamp,machine,a,b,c,d,label\n".to_owned();
        for (i, row) in plane(1, 900, 4, 1).chunks_exact(4).enumerate() {
            // A new machine appears late; anomalies are in its place's first sensor.
            let (machine, anomaly) = (if i < 880 { ["x", "y"][i % 2] } else { "new" }, i >= 600 && i % 50 < 3);
            let a = row[0] + if anomaly { 20.0 } else { 0.0 };
            text += &format!("{i},{machine},{a},{},{},{},{}\n", row[1], row[2], row[3], u8::from(anomaly));
        }
        std::fs::write(&file, text)?;
        let csv = CsvArgs {
            file,
            ignore: if label.is_none() { vec!["label".to_owned()] } else { vec![] },
            series: Some("machine".to_owned()),
            timestamp: None,
            missing: vec![],
        };
        let (alarms, model) = (AlarmArgs::default(), ModelArgs::default());
        let adopt_after = 400;
        let (incidents, report) = (Some(folder.path().join("i.csv")), Some(folder.path().join("r.html")));
        let label = label.map(str::to_owned);
        let args = Args { csv, train_rows, label, out: out.clone(), incidents, report, alarms, adopt_after, model };
        let mut said = Vec::new();
        run(&args, &mut said)?;
        Ok((String::from_utf8(said)?, std::fs::read_to_string(out)?))
    }

    #[test]
    fn every_later_row_gets_a_score_and_labels_a_report() {
        let (said, scores) = backtest(Some("label"), 600).unwrap();
        let lines: Vec<&str> = scores.lines().collect();
        assert_eq!((lines.len(), lines[0]), (301, "row,score,flagged"));
        let rows: Vec<usize> = lines[1..].iter().map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
        assert_eq!(rows, (600..900).collect::<Vec<_>>());
        assert!(lines[1..].iter().all(|l| l.split(',').nth(1).unwrap().parse::<f64>().unwrap().is_finite()));
        assert!(said.contains("labelled anomalies  18"), "{said}");
        assert!(said.contains("ROC-AUC             1.0000"), "{said}");
    }

    #[test]
    fn incidents_are_those_of_the_later_rows_and_the_report_shows_them() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let mut text = "a,b,c,d,label\n".to_owned();
        for (i, row) in plane(1, 900, 4, 1).chunks_exact(4).enumerate() {
            let anomaly = (700..720).contains(&i);
            let a = row[0] + if anomaly { 20.0 } else { 0.0 };
            text += &format!("{a},{},{},{},{}\n", row[1], row[2], row[3], u8::from(anomaly));
        }
        std::fs::write(place("x.csv"), text).unwrap();
        let args = Args {
            csv: CsvArgs { file: place("x.csv"), ..CsvArgs::default() },
            train_rows: 600,
            label: Some("label".to_owned()),
            out: place("out.csv"),
            incidents: Some(place("incidents.csv")),
            report: Some(place("report.html")),
            alarms: AlarmArgs::default(),
            adopt_after: 400,
            model: ModelArgs::default(),
        };
        let mut said = Vec::new();
        run(&args, &mut said).unwrap();
        let incidents = std::fs::read_to_string(place("incidents.csv")).unwrap();
        let lines: Vec<Vec<&str>> = incidents.lines().map(|l| l.split(',').collect()).collect();
        assert_eq!(lines[0], ["series", "start_row", "end_row", "flagged", "peak_score", "peak_row", "sensors"]);
        // Once there are anomalies, up to half of what is flagged may be false.
        assert!((2..12).contains(&lines.len()), "{incidents}");
        let row = |text: &str| text.parse::<u64>().unwrap();
        let fault = lines[1..].iter().find(|l| row(l[1]) <= 700 && row(l[2]) >= 719).unwrap();
        assert!(row(fault[1]) >= 600 && row(fault[3]) >= 20 && fault[6].starts_with("a 0."), "{incidents}");
        let page = std::fs::read_to_string(place("report.html")).unwrap();
        assert!(
            page.contains(&format!("{} to {}", fault[1], fault[2]))
                && page.contains("incident F1")
                && page.matches("<svg").count() == 2
        );
        let said = String::from_utf8(said).unwrap();
        let flagged: usize = said.lines().nth(1).and_then(|l| l.split_once(' ')).unwrap().0.parse().unwrap();
        // As many false ones as true, and two standard deviations more.
        assert!((20..50).contains(&flagged) && said.contains("of 300 later rows flagged, incidents: "), "{said}");
    }

    #[test]
    fn labels_are_never_learned_from() {
        let (_, with) = backtest(Some("label"), 600).unwrap();
        let (said, without) = backtest(None, 600).unwrap();
        assert_eq!(with, without);
        assert!(!said.contains("ROC-AUC"));
    }

    #[test]
    fn rows_without_a_value_are_neither_learned_from_nor_scored() {
        let folder = tempfile::tempdir().unwrap();
        let (file, out) = (folder.path().join("gaps.csv"), folder.path().join("scores.csv"));
        let backtest = |empty: &str| {
            let rows = plane(1, 500, 2, 1);
            let with =
                |i: usize| format!("{},{}\n{}", rows[2 * i], rows[2 * i + 1], if i % 5 == 4 { empty } else { "" });
            std::fs::write(&file, format!("a,b\n{}", (0..500).map(with).collect::<String>())).unwrap();
            let csv = CsvArgs { file: file.clone(), ..CsvArgs::default() };
            let train_rows = if empty.is_empty() { 300 } else { 360 };
            let (alarms, model) = (AlarmArgs::default(), ModelArgs::default());
            let (mut said, adopt_after) = (Vec::new(), 400);
            let (label, incidents, report) = (None, None, None);
            let args = Args { csv, train_rows, label, out: out.clone(), incidents, report, alarms, adopt_after, model };
            run(&args, &mut said).unwrap();
            let scores = std::fs::read_to_string(&out).unwrap();
            let scores: Vec<String> = scores.lines().skip(1).map(|l| l.split_once(',').unwrap().1.to_owned()).collect();
            (String::from_utf8(said).unwrap(), scores)
        };
        let ((said, plain), (said_too, with_gaps)) = (backtest(""), backtest(",\n"));
        assert_eq!(said.lines().next(), said_too.lines().next());
        assert_eq!((plain.len(), with_gaps.len()), (200, 240));
        let (empty, scored): (Vec<_>, Vec<_>) = with_gaps.into_iter().enumerate().partition(|(i, _)| i % 6 == 5);
        assert!(empty.iter().all(|(_, line)| line == "0,0"), "{empty:?}");
        assert_eq!(scored.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), plain);
    }

    #[test]
    fn too_many_training_rows_are_refused() {
        let error = backtest(None, 900).unwrap_err().to_string();
        assert!(error.contains("expected fewer than its 900"), "{error}");
    }
}
