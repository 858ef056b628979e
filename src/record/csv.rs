//! A record as one line of separated values, with columns that the configuration names.

use std::borrow::Cow;

use super::number::short;
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
        cells(line, self.delimiter, &mut |cell, number| {
            if let Some(column) = self.columns.get(index) {
                column.keep(cell, number, values, &mut found)?;
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
        let _ = cells(line, self.delimiter, &mut |cell, _| {
            if let Some(column) = names.next() {
                each(&column.name, &cell);
            }
            Ok(())
        });
    }
}

impl Column {
    /// `number`: what the cell is, if that is known already.
    fn keep<'a>(
        &self,
        cell: Cow<'a, str>,
        number: Option<f64>,
        values: &mut [f64],
        found: &mut Found<'a>,
    ) -> Result<(), Refusal> {
        let Roles { feature, series, time } = self.roles;
        let scalar = Scalar::Cell(cell);
        if let Some(index) = feature {
            match number.map_or_else(|| scalar.number(), Ok) {
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

type Each<'f, 'a> = &'f mut dyn FnMut(Cow<'a, str>, Option<f64>) -> Result<(), Refusal>;

/// Calls `each` with every cell of a line, without the blanks around it, and the number that it is if that is a short one.
fn cells<'a>(line: &'a str, delimiter: char, each: Each<'_, 'a>) -> Result<(), Refusal> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    // To the end, whatever is found: so many bytes are looked at at once.
    let (quotes, ends) = line.bytes().fold((false, false), |(quotes, ends), byte| {
        (quotes | (byte == b'"'), ends | (byte == b'\n') | (byte == b'\r'))
    });
    if quotes {
        return quoted(line, delimiter, each);
    }
    if ends {
        return Err(more_lines());
    }
    let mut begin = 0;
    line.split(delimiter).try_for_each(|cell| {
        let end = begin + cell.len();
        let number = short(line.as_bytes(), begin, end);
        begin = end + delimiter.len_utf8();
        // A number has no blanks around it.
        each(Cow::Borrowed(if number.is_some() { cell } else { cell.trim() }), number)
    })
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
    cells.into_iter().try_for_each(|cell| each(Cow::Owned(cell), None))
}

fn more_lines() -> Refusal {
    Refusal::InvalidCsv { error: "more than one line".to_owned() }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::scalar::number_of_cell;
    use super::*;

    #[test]
    fn a_number_is_the_same_wherever_it_is_in_a_line() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut numbers = 0;
        for _ in 0..50_000 {
            let columns: Vec<String> = (0..rng.random_range(1..6)).map(|i| format!("c{i}")).collect();
            let paths: Vec<FieldPath> = columns.iter().map(|name| name.parse().unwrap()).collect();
            let settings = InputSettings { csv_columns: columns.clone(), ..InputSettings::default() };
            let cell = |_: &String| -> String {
                let characters: &[u8] = if rng.random_bool(0.8) { b"0123456789.-" } else { b"0123456789.-+eE tru" };
                (0..rng.random_range(0..10))
                    .map(|_| char::from(characters[rng.random_range(0..characters.len())]))
                    .collect()
            };
            let cells: Vec<String> = columns.iter().map(cell).collect();
            let mut values = vec![0.0; cells.len()];
            let read = Columns::new(&settings, &paths).unwrap().read(&cells.join(","), &mut values).map(|_| ());
            let expect: Option<Vec<f64>> = cells.iter().map(|cell| number_of_cell(cell)).collect();
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            match expect.filter(|values| values.iter().all(|v| !v.is_infinite())) {
                Some(expect) => {
                    assert!(read.is_ok() && bits(&values) == bits(&expect), "{cells:?}: {values:?}");
                    numbers += 1;
                }
                None => assert!(read.is_err(), "{cells:?}: {values:?}"),
            }
        }
        assert!(numbers > 5_000, "{numbers}");
    }
}
