//! Scored rows as a file: CSV, or Parquet where the name ends in that.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

/// Numbers that are held before they are written as a row group.
const NUMBERS_MAX: usize = 4_000_000;

/// A row of the file that was scored.
#[derive(Clone, Debug, Default)]
pub struct Row<'a> {
    pub row: usize,
    /// As the file that was scored has it.
    pub time: Option<&'a str>,
    pub series: &'a str,
    pub verdict: &'static str,
    pub score: Option<f64>,
    /// The row with which its incident began.
    pub incident: Option<i64>,
    /// One for each sensor, NaN = none; or none at all.
    pub residuals: Vec<f64>,
    /// One for each number of the code; or none at all.
    pub latent: Vec<f32>,
}

/// The file.
pub enum Sheet {
    Csv { writer: Box<::csv::Writer<BufWriter<File>>>, timed: bool, residuals: usize, latent: usize },
    Parquet(Box<Columns>),
}

impl Sheet {
    /// Creates it. `timed`: with a column of times; `sensors`: their names; `latent`: numbers of a code.
    pub fn create(path: &Path, timed: bool, sensors: &[String], latent: usize) -> Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let names = sensors.iter().map(|name| format!("residual.{name}"));
        let codes = (0..latent).map(|unit| format!("latent.{unit}"));
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet")) {
            return Ok(Self::Parquet(Box::new(Columns::create(file, timed, names.collect(), codes.collect())?)));
        }
        let mut writer = ::csv::Writer::from_writer(file);
        let time = timed.then_some("time");
        let head = ["row"].into_iter().chain(time).chain(["series", "verdict", "score", "incident"]);
        writer.write_record(head.map(str::to_owned).chain(names).chain(codes))?;
        Ok(Self::Csv { writer: Box::new(writer), timed, residuals: sensors.len(), latent })
    }

    pub fn write(&mut self, row: Row) -> Result<()> {
        match self {
            Self::Parquet(columns) => columns.take(row),
            Self::Csv { writer, timed, residuals, latent } => {
                let text = |number: Option<f64>| number.map(|v| v.to_string()).unwrap_or_default();
                let time = timed.then(|| row.time.unwrap_or_default().to_owned());
                let head = [row.row.to_string()].into_iter().chain(time);
                let head = head.chain([row.series.to_owned(), row.verdict.to_owned()]);
                let incident = row.incident.map(|start| start.to_string()).unwrap_or_default();
                let of = |at: usize| text(row.residuals.get(at).copied().filter(|v| !v.is_nan()));
                let code = |at: usize| row.latent.get(at).map(f32::to_string).unwrap_or_default();
                let cells = head.chain([text(row.score), incident]);
                Ok(writer.write_record(cells.chain((0..*residuals).map(of)).chain((0..*latent).map(code)))?)
            }
        }
    }

    /// Nothing is whole before this.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Csv { mut writer, .. } => Ok(writer.flush()?),
            Self::Parquet(columns) => columns.finish(),
        }
    }
}

/// Rows of a Parquet file, column by column, until there are enough for a row group.
pub struct Columns {
    writer: SerializedFileWriter<BufWriter<File>>,
    rows_max: usize,
    row: Vec<i64>,
    /// None where the file has no times.
    time: Option<Vec<ByteArray>>,
    series: Vec<ByteArray>,
    verdict: Vec<ByteArray>,
    score: Optional<f64>,
    incident: Optional<i64>,
    residuals: Vec<Optional<f64>>,
    latent: Vec<Optional<f32>>,
}

/// Values that are there, and of each row whether it has one.
struct Optional<T> {
    values: Vec<T>,
    present: Vec<i16>,
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self { values: Vec::new(), present: Vec::new() }
    }
}

impl<T> Optional<T> {
    fn take(&mut self, value: Option<T>) {
        self.present.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn clear(&mut self) {
        self.values.clear();
        self.present.clear();
    }
}

impl Columns {
    fn create(file: BufWriter<File>, timed: bool, residuals: Vec<String>, latent: Vec<String>) -> Result<Self> {
        let column = |name: &str, physical: Physical, repetition: Repetition| {
            let text = (physical == Physical::BYTE_ARRAY).then_some(LogicalType::String);
            let built = Type::primitive_type_builder(name, physical).with_repetition(repetition);
            built.with_logical_type(text).build().map(Arc::new)
        };
        let mut fields = vec![column("row", Physical::INT64, Repetition::REQUIRED)?];
        for name in timed.then_some("time").into_iter().chain(["series", "verdict"]) {
            fields.push(column(name, Physical::BYTE_ARRAY, Repetition::REQUIRED)?);
        }
        fields.push(column("score", Physical::DOUBLE, Repetition::OPTIONAL)?);
        fields.push(column("incident", Physical::INT64, Repetition::OPTIONAL)?);
        for (names, physical) in [(&residuals, Physical::DOUBLE), (&latent, Physical::FLOAT)] {
            for name in names {
                fields.push(column(name, physical, Repetition::OPTIONAL)?);
            }
        }
        let rows_max = (NUMBERS_MAX / fields.len()).max(1);
        let schema = Arc::new(Type::group_type_builder("scores").with_fields(fields).build()?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        Ok(Self {
            writer: SerializedFileWriter::new(file, schema, Arc::new(properties))?,
            rows_max,
            row: Vec::new(),
            time: timed.then(Vec::new),
            series: Vec::new(),
            verdict: Vec::new(),
            score: Optional::default(),
            incident: Optional::default(),
            residuals: residuals.iter().map(|_| Optional::default()).collect(),
            latent: latent.iter().map(|_| Optional::default()).collect(),
        })
    }

    fn take(&mut self, row: Row) -> Result<()> {
        self.row.push(row.row as i64);
        if let Some(times) = &mut self.time {
            times.push(row.time.unwrap_or_default().into());
        }
        self.series.push(row.series.into());
        self.verdict.push(row.verdict.into());
        self.score.take(row.score);
        self.incident.take(row.incident);
        for (at, column) in self.residuals.iter_mut().enumerate() {
            column.take(row.residuals.get(at).copied().filter(|v| !v.is_nan()));
        }
        for (at, column) in self.latent.iter_mut().enumerate() {
            column.take(row.latent.get(at).copied());
        }
        if self.row.len() >= self.rows_max { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<()> {
        if self.row.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        next(&mut group, &|column| match column {
            ColumnWriter::Int64ColumnWriter(column) => column.write_batch(&self.row, None, None),
            _ => Ok(0),
        })?;
        for texts in self.time.iter().chain([&self.series, &self.verdict]) {
            next(&mut group, &|column| match column {
                ColumnWriter::ByteArrayColumnWriter(column) => column.write_batch(texts, None, None),
                _ => Ok(0),
            })?;
        }
        doubles(&mut group, &self.score)?;
        next(&mut group, &|column| match column {
            ColumnWriter::Int64ColumnWriter(column) => {
                column.write_batch(&self.incident.values, Some(&self.incident.present), None)
            }
            _ => Ok(0),
        })?;
        self.residuals.iter().try_for_each(|column| doubles(&mut group, column))?;
        for latent in &self.latent {
            next(&mut group, &|column| match column {
                ColumnWriter::FloatColumnWriter(column) => {
                    column.write_batch(&latent.values, Some(&latent.present), None)
                }
                _ => Ok(0),
            })?;
        }
        group.close()?;
        self.row.clear();
        self.time.iter_mut().for_each(Vec::clear);
        self.series.clear();
        self.verdict.clear();
        self.score.clear();
        self.incident.clear();
        self.residuals.iter_mut().for_each(Optional::clear);
        self.latent.iter_mut().for_each(Optional::clear);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.write_group()?;
        Ok(self.writer.into_inner()?.flush()?)
    }
}

type Group<'a> = SerializedRowGroupWriter<'a, BufWriter<File>>;

/// The next column of the schema, which is of the type that `write` expects.
fn next(group: &mut Group<'_>, write: &dyn Fn(&mut ColumnWriter<'_>) -> parquet::errors::Result<usize>) -> Result<()> {
    let Some(mut column) = group.next_column()? else { anyhow::bail!("the schema has no further column") };
    write(column.untyped())?;
    Ok(column.close()?)
}

fn doubles(group: &mut Group<'_>, of: &Optional<f64>) -> Result<()> {
    next(group, &|column| match column {
        ColumnWriter::DoubleColumnWriter(column) => column.write_batch(&of.values, Some(&of.present), None),
        _ => Ok(0),
    })
}
