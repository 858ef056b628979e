//! A record as one line of separated values, with columns that the configuration names.

use std::borrow::Cow;

use super::scalar::Scalar;
use super::trie::Roles;
use super::walk::{A_NUMBER, Found, wrong_type};
use super::{FieldPath, InputSettings, Refusal, SchemaError};

/// What each column of a line is for.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    columns: Vec<Column>,
    delimiter: char,
}

#[derive(Debug, Clone)]
struct Column {
    /// The name, for messages.
    name: String,
    roles: Roles,
}

impl Columns {
    pub fn new(settings: &InputSettings, features: &[FieldPath]) -> Result<Columns, SchemaError> {
        let names = &settings.csv_columns;
        let column = |name: &String| {
            let is = |path: &FieldPath| path.as_str() == name;
            let roles = Roles {
                feature: features.iter().position(is),
                series: settings.series_field.as_ref().is_some_and(is),
                time: settings.timestamp_field.as_ref().is_some_and(is),
            };
            Column { name: name.clone(), roles }
        };
        let wanted = features.iter().chain(&settings.series_field).chain(&settings.timestamp_field);
        for path in wanted {
            match names.iter().filter(|name| *name == path.as_str()).count() {
                0 => return Err(SchemaError::NoColumn { path: path.clone() }),
                1 => {}
                _ => return Err(SchemaError::Duplicate { path: path.clone() }),
            }
        }
        Ok(Columns { columns: names.iter().map(column).collect(), delimiter: settings.csv_delimiter })
    }

    /// Writes the features of a line into `values`.
    pub fn read<'a>(&self, line: &'a str, values: &mut [f64]) -> Result<Found<'a>, Refusal> {
        let mut found = Found::default();
        let mut index = 0;
        cells(line, self.delimiter, &mut |cell| {
            if let Some(column) = self.columns.get(index) {
                column.keep(cell, values, &mut found)?;
            }
            index += 1;
            Ok(())
        })?;
        if index != self.columns.len() {
            let error = format!("{index} cells where input.csv_columns has {} columns", self.columns.len());
            return Err(Refusal::InvalidCsv { error });
        }
        Ok(found)
    }

    /// Calls `each` with the name of every column, and its cell in a line that was read before.
    pub fn each(&self, line: &str, each: &mut dyn FnMut(&str, &str)) {
        let mut names = self.columns.iter();
        let _ = cells(line, self.delimiter, &mut |cell| {
            if let Some(column) = names.next() {
                each(&column.name, &cell);
            }
            Ok(())
        });
    }
}

impl Column {
    fn keep<'a>(&self, cell: Cow<'a, str>, values: &mut [f64], found: &mut Found<'a>) -> Result<(), Refusal> {
        let Roles { feature, series, time } = self.roles;
        let scalar = Scalar::Cell(cell);
        if let Some(index) = feature {
            match scalar.number() {
                Ok(value) if value.is_infinite() => return Err(Refusal::OutOfRange { field: self.name.clone() }),
                Ok(value) => values[index] = value,
                Err(kind) => return Err(wrong_type(&self.name, A_NUMBER, kind)),
            }
        }
        if time {
            found.time = Some(scalar.clone());
        }
        if series {
            found.series = Some(scalar);
        }
        Ok(())
    }
}

type Each<'f, 'a> = &'f mut dyn FnMut(Cow<'a, str>) -> Result<(), Refusal>;

/// Calls `each` with every cell of a line, without the blanks around it.
fn cells<'a>(line: &'a str, delimiter: char, each: Each<'_, 'a>) -> Result<(), Refusal> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('"') {
        return quoted(line, delimiter, each);
    }
    if line.contains(['\n', '\r']) {
        return Err(more_lines());
    }
    line.split(delimiter).try_for_each(|cell| each(Cow::Borrowed(cell.trim())))
}

/// As [`cells`]: with quotes, inside which there may be delimiters and ends of lines (RFC 4180, section 2).
fn quoted<'a>(line: &'a str, delimiter: char, each: Each<'_, 'a>) -> Result<(), Refusal> {
    let mut reader = csv::ReaderBuilder::new();
    // One byte: see `InputSettings::problems`.
    let mut reader = reader.delimiter(delimiter as u8).has_headers(false).flexible(true).from_reader(line.as_bytes());
    let mut row = csv::StringRecord::new();
    let mut next = |row: &mut _| reader.read_record(row).map_err(|e| Refusal::InvalidCsv { error: e.to_string() });
    next(&mut row)?;
    let cells: Vec<String> = row.iter().map(|cell| cell.trim().to_owned()).collect();
    if next(&mut row)? {
        return Err(more_lines());
    }
    cells.into_iter().try_for_each(|cell| each(Cow::Owned(cell)))
}

fn more_lines() -> Refusal {
    Refusal::InvalidCsv { error: "more than one line".to_owned() }
}
