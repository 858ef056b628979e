//! Sensor records from a CSV file, plain or gzip: the columns a user named, the others features.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};

use ::csv::{ReaderBuilder, StringRecord};
use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

use crate::record::{Schema, Table, number_of_cell};

/// A column of this name (in any case) is the time and never a feature.
const TIMESTAMP: &str = "timestamp";
/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Which file, and what its columns mean.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CsvArgs {
    /// CSV file with a header, plain or gzip; one record per row, in time order
    pub file: PathBuf,
    /// Leave this column out (repeatable)
    #[arg(long, value_name = "COL")]
    pub ignore: Vec<String>,
    /// Column that names the series of a record; without it all rows are one series
    #[arg(long, value_name = "COL")]
    pub series: Option<String>,
    /// Column with the time, which is no feature; by default the one called "timestamp"
    #[arg(long, value_name = "COL")]
    pub timestamp: Option<String>,
    /// Number that stands for no value, such as -9999 (repeatable)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub missing: Vec<f64>,
}

/// A file's records, in its order.
pub struct CsvRecords {
    pub table: Table,
    /// One per row, empty without a label column.
    pub labels: Vec<bool>,
    /// The time of each row as the file has it; empty without such a column, and unless asked for.
    pub times: Vec<Box<str>>,
}

/// Reads the whole file. `label`: a column of 0 and 1 (anomaly) that is no feature. `timed`: with the times of the rows.
///
/// # Errors
/// The file cannot be read, a named column does not exist, or a cell is no number; with line and column.
pub fn read(args: &CsvArgs, (label, timed): (Option<&str>, bool)) -> Result<CsvRecords> {
    let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    parse(file, args, (label, timed), None).with_context(|| format!("read {}", args.file.display()))
}

/// Reads the features of a model, whatever their order, and no other column. Those that the file lacks are missing in every row; their names come
/// second. `label`, `timed`: as for `read`.
///
/// # Errors
/// As `read`, or if it has none of them.
pub fn read_features(
    args: &CsvArgs,
    (label, timed): (Option<&str>, bool),
    schema: &Schema,
) -> Result<(CsvRecords, Vec<String>)> {
    let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    let found =
        parse(file, args, (label, timed), Some(schema)).with_context(|| format!("read {}", args.file.display()))?;
    let CsvRecords { table: found, labels, times } = found;
    let places: Vec<Option<usize>> =
        schema.names().map(|name| found.schema.names().position(|other| other == name)).collect();
    let absent = schema.names().zip(&places).filter(|(_, place)| place.is_none());
    let absent = absent.map(|(name, _)| name.to_owned()).collect();
    let values = (0..found.rows()).flat_map(|row| {
        let row = found.row(row);
        places.iter().map(move |place| place.map_or(f64::NAN, |at| row[at]))
    });
    let table = Table { values: values.collect(), schema: schema.clone(), ..found };
    Ok((CsvRecords { table, labels, times }, absent))
}

/// Writes the file again, as plain CSV, with the features of the schema as `values` have them (by row, in the schema's order; None, NaN: as they were); but not
/// those that are named as absent.
///
/// # Errors
/// The file cannot be read again, or `to` not be written.
pub fn rewrite(
    args: &CsvArgs,
    to: &Path,
    (schema, absent): (&Schema, &[String]),
    values: &[Option<Vec<f64>>],
) -> Result<()> {
    let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    let mut reader = ReaderBuilder::new().from_reader(unzipped(file)?);
    let written = || format!("write {}", to.display());
    // Both are the same file's: read as it is written, nothing of it would be left.
    let (from, into) = (args.file.canonicalize(), to.canonicalize());
    if from.is_ok_and(|from| into.is_ok_and(|into| from == into)) {
        bail!("{}: expected another file than the one that is read", written());
    }
    let mut writer = ::csv::Writer::from_writer(BufWriter::new(File::create(to).with_context(written)?));
    let header = reader.headers()?.clone();
    writer.write_record(&header).with_context(written)?;
    // What was left out when it was read is as absent as what is not there.
    let place = |column: &str| schema.names().position(|name| name == column && !absent.iter().any(|a| a == column));
    let places: Vec<Option<usize>> = header.iter().map(place).collect();
    let mut row = StringRecord::new();
    for values in values {
        if !reader.read_record(&mut row)? {
            bail!("read {} again: it has fewer rows than before", args.file.display());
        }
        let value = |place: &Option<usize>| values.as_ref()?.get((*place)?).filter(|value| !value.is_nan());
        let cells = row.iter().zip(&places).map(|(cell, place)| match value(place) {
            Some(value) => Cow::Owned(value.to_string()),
            None => Cow::Borrowed(cell),
        });
        for cell in cells {
            writer.write_field(cell.as_ref()).with_context(written)?;
        }
        writer.write_record(None::<&[u8]>).with_context(written)?;
    }
    writer.flush().with_context(written)
}

/// What is in a file, plain or gzip.
fn unzipped(source: impl Read + 'static) -> Result<Box<dyn Read>> {
    let mut source = BufReader::new(source);
    let zipped = source.fill_buf()?.starts_with(&GZIP);
    Ok(if zipped { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) })
}

/// Name of a file without its folders, as it goes into a model.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What each column is.
struct Columns {
    /// (column, name)
    features: Vec<(usize, String)>,
    series: Option<usize>,
    label: Option<usize>,
    time: Option<usize>,
}

fn parse(
    source: impl Read + 'static,
    args: &CsvArgs,
    (label, timed): (Option<&str>, bool),
    wanted: Option<&Schema>,
) -> Result<CsvRecords> {
    let mut reader = ReaderBuilder::new().from_reader(unzipped(source)?);
    let columns = columns(reader.headers()?, args, label, wanted)?;
    let names = columns.features.iter().map(|(_, name)| name.parse());
    let schema = Schema::new(names.collect::<Result<_, _>>()?)?;
    let mut table = Table { schema, values: Vec::new(), series: Vec::new(), names: Vec::new() };
    let (mut labels, mut times) = (Vec::new(), Vec::new());
    let mut known = std::collections::HashMap::new();
    let mut row = StringRecord::new();
    while reader.read_record(&mut row)? {
        for (column, name) in &columns.features {
            let value = number(&row, *column, name)?;
            table.values.push(if args.missing.contains(&value) { f64::NAN } else { value });
        }
        if let Some(column) = columns.label {
            let name = label.unwrap_or_default();
            labels.push(label_of(&row, column, name)?);
        }
        let name = columns.series.map_or("", |column| row.get(column).unwrap_or_default());
        let index = match known.get(name) {
            Some(&index) => index,
            None => {
                let index = u32::try_from(table.names.len())?;
                known.insert(name.to_owned(), index);
                table.names.push(name.to_owned());
                index
            }
        };
        table.series.push(index);
        times.extend(columns.time.filter(|_| timed).map(|column| row.get(column).unwrap_or_default().into()));
    }
    Ok(CsvRecords { table, labels, times })
}

fn columns(header: &StringRecord, args: &CsvArgs, label: Option<&str>, wanted: Option<&Schema>) -> Result<Columns> {
    let position = |name: &str| {
        header.iter().position(|h| h == name).with_context(|| {
            format!("find column {name:?}: the header has {}", header.iter().collect::<Vec<_>>().join(", "))
        })
    };
    for name in args.ignore.iter().chain(&args.timestamp) {
        position(name)?;
    }
    let series = args.series.as_deref().map(position).transpose()?;
    let label = label.map(position).transpose()?;
    let is_feature = |&(column, name): &(usize, &str)| {
        Some(column) != series
            && Some(column) != label
            && !args.ignore.iter().chain(&args.timestamp).any(|other| other == name)
            && wanted
                .map_or(!name.eq_ignore_ascii_case(TIMESTAMP), |schema| schema.names().any(|feature| feature == name))
    };
    let features: Vec<(usize, String)> =
        header.iter().enumerate().filter(is_feature).map(|(column, name)| (column, name.to_owned())).collect();
    if let Some(schema) = wanted.filter(|_| features.is_empty()) {
        let listed = |names: Vec<String>| names.join(", ");
        bail!(
            "find features of the model: expected {}, the header has {}",
            listed(schema.names().map(str::to_owned).collect()),
            listed(header.iter().map(str::to_owned).collect())
        );
    }
    if features.is_empty() {
        bail!("find features: every column is ignored, or the time, series or label");
    }
    let is_time = |&(column, name): &(usize, &str)| {
        Some(column) != series
            && Some(column) != label
            && args.timestamp.as_ref().map_or_else(
                || name.eq_ignore_ascii_case(TIMESTAMP) && !args.ignore.iter().any(|ignored| ignored == name),
                |time| name == time,
            )
            && !features.iter().any(|(feature, _)| *feature == column)
    };
    let time = header.iter().enumerate().find(is_time).map(|(column, _)| column);
    Ok(Columns { features, series, label, time })
}

/// Whether a row is labelled an anomaly.
fn label_of(row: &StringRecord, column: usize, name: &str) -> Result<bool> {
    match number(row, column, name)? {
        0.0 => Ok(false),
        1.0 => Ok(true),
        _ => {
            let line = row.position().map_or(0, |p| p.line());
            bail!("read line {line}: label {name:?} is {:?}, expected 0 or 1", row.get(column).unwrap_or_default())
        }
    }
}

/// A cell as a number: empty or NaN is missing, true and false are 1 and 0 as in JSON records.
fn number(row: &StringRecord, column: usize, name: &str) -> Result<f64> {
    let cell = row.get(column).unwrap_or_default().trim();
    match number_of_cell(cell) {
        Some(value) if !value.is_infinite() => Ok(value),
        _ => {
            let line = row.position().map_or(0, ::csv::Position::line);
            bail!(
                "line {line}, column {name:?}: expected a number, got {cell:?} (leave the column out: --ignore {name:?})"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn args(ignore: &[&str], series: Option<&str>, timestamp: Option<&str>) -> CsvArgs {
        CsvArgs {
            file: PathBuf::from("x.csv"),
            ignore: ignore.iter().map(ToString::to_string).collect(),
            series: series.map(str::to_owned),
            timestamp: timestamp.map(str::to_owned),
            missing: vec![],
        }
    }

    const PLANT: &str = "Timestamp,pump,flow,valve,label\n1,a,1.5,true,0\n2,b,,false,1\n3,a,NaN,1e3,0\n";

    fn bytes(text: &str) -> std::io::Cursor<Vec<u8>> {
        std::io::Cursor::new(text.as_bytes().to_vec())
    }

    #[test]
    fn columns_become_features_series_and_labels() {
        let got = parse(bytes(PLANT), &args(&[], Some("pump"), None), (Some("label"), true), None).unwrap();
        assert_eq!(got.times, ["1", "2", "3"].map(Box::from));
        assert_eq!(got.table.schema.names().map(|n| n.to_string()).collect::<Vec<_>>(), ["flow", "valve"]);
        assert_eq!(got.table.series, [0, 1, 0]);
        assert_eq!(got.table.names, ["a", "b"]);
        assert_eq!(got.labels, [false, true, false]);
        assert_eq!(got.table.row(0), [1.5, 1.0]);
        assert!(got.table.row(1)[0].is_nan() && got.table.row(2)[0].is_nan());
        assert_eq!(got.table.row(2)[1], 1000.0);
    }

    #[test]
    fn numbers_that_stand_for_no_value_are_missing() {
        let given = CsvArgs { missing: vec![-9999.0], ..args(&[], None, None) };
        let got = parse(bytes("a,b\n-9999,1\n2,0\n"), &given, (Some("b"), true), None).unwrap();
        assert!(got.times.is_empty());
        assert!(got.table.values[0].is_nan() && got.table.values[1] == 2.0, "{:?}", got.table.values);
    }

    #[test]
    fn gzip_is_recognised_by_its_bytes() {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(PLANT.as_bytes()).unwrap();
        let zipped = std::io::Cursor::new(zip.finish().unwrap());
        let got = parse(zipped, &args(&["pump", "label"], None, None), (None, false), None).unwrap();
        assert!(got.times.is_empty());
        assert_eq!((got.table.rows(), got.table.names.len(), got.labels.len()), (3, 1, 0));
    }

    #[test]
    fn errors_name_line_column_and_value() {
        #[track_caller]
        fn check(text: &str, args: &CsvArgs, expect: &str) {
            let error = parse(bytes(text), args, (None, false), None).map(|_| ()).unwrap_err();
            let got = format!("{error:#}");
            assert!(got.contains(expect), "{got:?} does not say {expect:?}");
        }
        let plain = args(&[], None, None);
        check(
            PLANT,
            &plain,
            r#"line 2, column "pump": expected a number, got "a" (leave the column out: --ignore "pump")"#,
        );
        check("a,b\n1,2\n1,inf\n", &plain, r#"line 3, column "b": expected a number, got "inf""#);
        check("a,b\n1,1e999\n", &plain, "expected a number");
        check("a,b\n1\n", &plain, "line: 2");
        check("a,b\n1,2\n", &args(&["c"], None, None), r#"find column "c": the header has a, b"#);
        check("timestamp,b\n1,2\n", &args(&["b"], None, None), "find features");
        check("", &plain, "find features");
    }
}
