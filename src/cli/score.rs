//! `residua score`: every row of a file as a model sees it, with what it makes of each sensor.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::csv::{CsvRecords, read_features};
use super::learn::AlarmArgs;
use super::scores::{Row, Sheet};
use super::scoring::Subject;
use super::{drift, scoring};
use crate::detector::Verdict;
use crate::service::load;

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Write to this file, as Parquet if its name ends in .parquet, else as CSV, for every row: row, time (if the file has one), series, verdict, score, incident, and of a scored one for each sensor what was rebuilt less what
    /// was observed, in its own unit, and the latent values
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    alarms: AlarmArgs,
    /// Records after which a shift that stays is what is normal
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    adopt_after: u64,
}

/// How many rows there were of each kind.
#[derive(Default)]
struct Counts {
    scored: usize,
    flagged: usize,
    warming: usize,
}

/// # Errors
/// Unreadable file or model, a file with none of the model's features, output not writable.
pub fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    let model = Arc::new(load(&args.subject.model)?);
    let (CsvRecords { table: records, times, .. }, absent) =
        read_features(&args.subject.csv, (None, true), model.schema())?;
    let mut detector = scoring::detector(&model, args.alarms.alarms, args.adopt_after);
    let written = || format!("write {}", args.out.display());
    let mut sheet =
        Sheet::create(&args.out, !times.is_empty(), detector.names(), model.code_width()).with_context(written)?;
    // Rows without any value are not shown to the detector, and are written all the same.
    let mut next = 0;
    let mut counts = Counts::default();
    let blank = |row: usize, verdict: &'static str| {
        let (time, series) = (times.get(row).map(AsRef::as_ref), records.name_of(row));
        Row { row, time, series, verdict, ..Row::default() }
    };
    let incidents = scoring::score(&records, 0, &mut detector, &mut |detector, index, row, verdict| {
        for empty in next..row {
            sheet.write(blank(empty, "empty"))?;
        }
        next = row + 1;
        let Verdict::Scored { score, flagged, incident } = verdict else {
            counts.warming += 1;
            return sheet.write(blank(row, "warming"));
        };
        counts.scored += 1;
        counts.flagged += usize::from(flagged);
        let rebuilt = detector.rebuilt(index).unwrap_or_default();
        // What is missing has no residual.
        let residuals = rebuilt.iter().zip(records.row(row)).map(|(rebuilt, observed)| rebuilt - observed).collect();
        sheet.write(Row {
            score: Some(score),
            incident: incident.map(|start| start.0),
            residuals,
            latent: detector.code(index).unwrap_or_default(),
            ..blank(row, if flagged { "anomaly" } else { "normal" })
        })
    });
    let incidents = incidents.with_context(written)?;
    for empty in next..records.rows() {
        sheet.write(blank(empty, "empty")).with_context(written)?;
    }
    sheet.finish().with_context(written)?;
    if !absent.is_empty() {
        writeln!(out, "not in the file, so missing in every row: {}", absent.join(", "))?;
    }
    let Counts { scored, flagged, warming } = counts;
    let empty = records.rows() - scored - warming;
    writeln!(
        out,
        "{} rows: {scored} scored, {warming} warming, {empty} without a value; {flagged} flagged, incidents: {}",
        records.rows(),
        incidents.len()
    )?;
    Ok(drift::tell(&model, &detector.drifts(), out)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;
    use crate::cli::csv::CsvArgs;
    use crate::cli::train_file;
    use crate::model::testing::plane;

    /// Scores a file by a model of 600 rows of four sensors.
    fn scored(folder: &Path, text: &str) -> Result<(String, Vec<Vec<String>>)> {
        let said = score(folder, text, "scores.csv")?;
        let mut sheet = ::csv::ReaderBuilder::new().has_headers(false).from_path(folder.join("scores.csv"))?;
        let cells = sheet.records().map(|row| Ok(row?.iter().map(str::to_owned).collect())).collect::<Result<_>>()?;
        Ok((said, cells))
    }

    fn score(folder: &Path, text: &str, out: &str) -> Result<String> {
        let place = |name: &str| folder.join(name);
        let row = |row: &[f64]| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let rows: Vec<String> = plane(1, 600, 4, 2).chunks_exact(4).map(row).collect();
        std::fs::write(place("train.csv"), format!("a,b,c,d\n{}\n", rows.join("\n")))?;
        std::fs::write(place("new.csv"), text)?;
        let csv = |name: &str| CsvArgs { file: place(name), ..CsvArgs::default() };
        let mut said = Vec::new();
        train_file::run(&train_file::FileArgs::new(csv("train.csv"), place("m.safetensors")), &mut said)?;
        said.clear();
        let args = Args {
            subject: Subject { csv: csv("new.csv"), model: place("m.safetensors") },
            out: place(out),
            alarms: AlarmArgs::default(),
            adopt_after: 400,
        };
        run(&args, &mut said)?;
        Ok(String::from_utf8(said)?)
    }

    #[test]
    fn every_row_has_its_verdict_residuals_and_latent_values() {
        let folder = tempfile::tempdir().unwrap();
        // Columns in another order, one more that is no number, a row without values, one with a gap, and a strange one.
        let mut text = "note,d,c,b,a\n".to_owned();
        for (i, r) in plane(1, 600, 4, 2).chunks_exact(4).take(50).enumerate() {
            text += &match i {
                10 => "x,,,,\n".to_owned(),
                20 => format!("x,{},,{},{}\n", r[3], r[1], r[0]),
                30 => format!("x,{},{},{},{}\n", r[3], r[2], r[1] + 500.0, r[0]),
                _ => format!("x,{},{},{},{}\n", r[3], r[2], r[1], r[0]),
            };
        }
        let (said, cells) = scored(folder.path(), &text).unwrap();
        assert!(said.contains("50 rows: 49 scored, 0 warming, 1 without a value; 1 flagged"), "{said}");
        let width = cells[0].len();
        assert_eq!(
            cells[0][..9],
            ["row", "series", "verdict", "score", "incident", "residual.a", "residual.b", "residual.c", "residual.d"]
        );
        assert!(width > 9 && cells[0][9..].iter().enumerate().all(|(unit, name)| *name == format!("latent.{unit}")));
        assert_eq!(cells.len(), 51);
        assert!(cells[11][2] == "empty" && cells[11][3..].iter().all(String::is_empty), "{:?}", cells[11]);
        assert!(cells[21][2] == "normal" && cells[21][7].is_empty() && !cells[21][6].is_empty(), "{:?}", cells[21]);
        let strange = &cells[31];
        assert!(strange[2] == "anomaly" && strange[3].parse::<f64>().unwrap() > 1.0, "{strange:?}");
        // Rebuilt less observed: far below what was observed.
        assert!(strange[6].parse::<f64>().unwrap() < -100.0, "{strange:?}");
        for row in cells[1..].iter().filter(|row| row[2] == "normal") {
            assert!(row[9..].iter().all(|v| v.parse::<f32>().unwrap().is_finite()), "{row:?}");
        }
    }

    #[test]
    fn parquet_has_what_csv_has() {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        use parquet::record::Field;
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<String> = plane(2, 100, 4, 2)
            .chunks_exact(4)
            .enumerate()
            .map(|(i, r)| match i {
                7 => ",,,,12:07".to_owned(),
                9 => format!("{},,{},{},", r[0], r[2], r[3] + 900.0),
                _ => format!("{},{},{},{},12:{i:02}", r[0], r[1], r[2], r[3]),
            })
            .collect();
        let text = format!("a,b,c,d,Timestamp\n{}\n", rows.join("\n"));
        let (said, cells) = scored(folder.path(), &text).unwrap();
        assert_eq!(cells[0][..4], ["row", "time", "series", "verdict"]);
        let time = |row: usize| cells[row + 1][1].as_str();
        assert_eq!([time(7), time(9), time(10)], ["12:07", "", "12:10"]);
        assert_eq!(score(folder.path(), &text, "scores.parquet").unwrap(), said);
        let file = File::open(folder.path().join("scores.parquet")).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 100);
        let mut count = 0;
        for (row, cells) in reader.get_row_iter(None).unwrap().zip(&cells[1..]) {
            let row = row.unwrap();
            let row: Vec<(&String, &Field)> = row.get_column_iter().collect();
            assert_eq!(row.len(), cells.len());
            for ((name, field), cell) in row.into_iter().zip(cells) {
                let text = match field {
                    Field::Null => String::new(),
                    Field::Str(text) => text.clone(),
                    Field::Long(v) => v.to_string(),
                    Field::Double(v) => v.to_string(),
                    Field::Float(v) => v.to_string(),
                    other => panic!("{name}: {other}"),
                };
                assert_eq!(text, *cell, "{name}");
                count += usize::from(!cell.is_empty());
            }
        }
        assert!(count > 700, "{count} cells");
    }

    #[test]
    fn features_that_a_file_lacks_are_named_and_a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (said, _) = scored(folder.path(), "a,b,c\n1,2,3\n").unwrap();
        assert!(said.contains("not in the file, so missing in every row: d\n"), "{said}");
        let error = format!("{:#}", scored(folder.path(), "x,y\n1,2\n").unwrap_err());
        assert!(error.contains("expected a, b, c, d") && error.contains("the header has x, y"), "{error}");
    }
}
