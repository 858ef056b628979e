//! Training records, collected and made a table.

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::{self, Decoder};
use super::scan::{Entry, Fields, Use};
use super::stand_in::{self, StandIn};
use super::{Features, InputSettings, Missing, Position, RawRecord, Refusal, Schema, SchemaError, WriterSchemas};

/// Values to learn from, in log order: by partition, then offset.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub schema: Schema,
    /// One row of `schema.len()` values per record; NaN = no value.
    pub values: Vec<f64>,
    /// By row: the index of its series, numbered from 0 in the order in which they come in the log.
    pub series: Vec<u32>,
    /// Of the series, by that index.
    pub names: Vec<String>,
}

/// Values that are kept at most: 1 GiB.
const VALUES_MAX: usize = 1 << 26;

/// Collects training records, in whichever order partitions are read. Of each it keeps 32 bytes and 16 per
/// value, until there are 67 million values.
///
/// With `features = "auto"` a record is refused only for what does not depend on the choice of features, which is not known
/// yet. [`History::finish`] then drops the records that the resulting [`Decoder`] would refuse; `accepted() - rows()` is
/// their number.
#[derive(Debug)]
pub struct History {
    /// Of the listed features, or of none with "auto".
    decoder: Decoder,
    missing: Missing,
    missing_values: Vec<f64>,
    fields: Learned,
    records: Vec<Kept>,
    entries: Vec<Entry>,
    series: HashMap<String, u32>,
    values_max: usize,
    /// A record came when there was no room for another.
    full: bool,
    /// Reused row of the decoder.
    row: Vec<f64>,
}

#[derive(Debug)]
enum Learned {
    Listed(Schema),
    Auto(Fields),
}

#[derive(Debug)]
struct Kept {
    position: Position,
    series: u32,
    entries_end: usize,
}

impl Table {
    pub fn rows(&self) -> usize {
        self.series.len()
    }

    /// Numbers that may stand for no value, and should be told so (`input.missing_values`).
    pub fn stand_ins(&self) -> Vec<StandIn> {
        stand_in::find(self)
    }

    /// Those of the first `count` rows that hold any value: what a daemon would learn from them.
    pub fn with_values(&self, count: usize) -> Table {
        let (mut values, mut series) = (vec![], vec![]);
        for index in (0..count).filter(|&index| self.has_values(index)) {
            values.extend_from_slice(self.row(index));
            series.push(self.series[index]);
        }
        Table { schema: self.schema.clone(), values, series, names: self.names.clone() }
    }

    /// # Panics
    /// If there is no such row.
    pub fn has_values(&self, index: usize) -> bool {
        self.row(index).iter().any(|v| !v.is_nan())
    }

    /// Name of the series of a row; of no name if it is not said.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn name_of(&self, index: usize) -> &str {
        self.names.get(self.series[index] as usize).map_or("", String::as_str)
    }

    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f64] {
        let width = self.schema.len();
        &self.values[index * width..(index + 1) * width]
    }
}

impl History {
    pub fn new(settings: &InputSettings) -> Result<History, SchemaError> {
        let (decoder, fields, width) = match &settings.features {
            Features::List(paths) => {
                let schema = Schema::new(paths.clone())?;
                let width = schema.len();
                (Decoder::new(settings, &schema)?, Learned::Listed(schema), width)
            }
            Features::Auto => {
                let excluded = settings.series_field.iter().chain(&settings.timestamp_field).cloned().collect();
                (Decoder::without_features(settings)?, Learned::Auto(Fields::new(excluded)), 0)
            }
        };
        Ok(History {
            decoder,
            missing: settings.missing,
            missing_values: settings.missing_values.clone(),
            fields,
            records: vec![],
            entries: vec![],
            series: HashMap::new(),
            values_max: VALUES_MAX,
            full: false,
            row: vec![f64::NAN; width],
        })
    }

    /// As [`Decoder::with_schemas`].
    pub fn with_schemas(self, source: Arc<dyn WriterSchemas>) -> History {
        History { decoder: self.decoder.with_schemas(source), ..self }
    }

    /// As [`Decoder::wait_for`].
    pub fn wait_for(&mut self, raw: &RawRecord<'_>) -> Option<String> {
        self.decoder.wait_for(raw, false)
    }

    /// Keeps a record, if there is room: see [`History::is_full`].
    pub fn push(&mut self, raw: &RawRecord<'_>) -> Result<(), Refusal> {
        if self.entries.len() >= self.values_max {
            self.full = true;
            return Ok(());
        }
        let series = self.decoder.decode(raw, &mut self.row)?.series;
        match &mut self.fields {
            Learned::Listed(_) => {
                // A schema has at most MAX_FEATURES fields.
                let present = self.row.iter().enumerate().filter(|(_, value)| !value.is_nan());
                self.entries.extend(present.map(|(index, &value)| Entry::Number(index as u32, value)));
            }
            Learned::Auto(fields) => {
                let (record, bytes) = (self.records.len() + 1, decode::bytes_of(raw)?);
                let before = self.entries.len();
                if let Err(refusal) = fields.scan(&mut self.decoder, record, bytes, &mut self.entries) {
                    self.entries.truncate(before);
                    return Err(refusal);
                }
            }
        }
        let known = self.series.get(&*series).copied();
        let series = known.unwrap_or_else(|| {
            let index = self.series.len() as u32;
            self.series.insert(series.into_owned(), index);
            index
        });
        self.records.push(Kept { position: raw.position, series, entries_end: self.entries.len() });
        Ok(())
    }

    /// Number of records kept so far.
    pub fn accepted(&self) -> usize {
        self.records.len()
    }

    /// Whether a record was not kept for want of room. Then these are not the records that were to be learned from.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The table; its schema is the listed one, or what [`InputSettings::features`] "auto" chooses.
    pub fn finish(self) -> Result<Table, SchemaError> {
        let (schema, uses) = match self.fields {
            _ if self.records.is_empty() => return Err(SchemaError::NoRecords),
            Learned::Listed(schema) => {
                let uses = (0..schema.len()).map(Use::Feature).collect();
                (schema, uses)
            }
            Learned::Auto(fields) => fields.choose(self.records.len())?,
        };
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_by_key(|&record| self.records[record].position);

        let width = schema.len();
        let mut table = Table { schema, values: vec![], series: vec![], names: vec![] };
        let mut names: Vec<String> = vec![String::new(); self.series.len()];
        self.series.into_iter().for_each(|(name, index)| names[index as usize] = name);
        let mut renumbered: HashMap<u32, u32> = HashMap::new();
        let mut row = vec![f64::NAN; width];
        for record in order {
            let start = record.checked_sub(1).map_or(0, |before| self.records[before].entries_end);
            let kept = &self.records[record];
            if !fill(&mut row, &self.entries[start..kept.entries_end], &uses, self.missing, &self.missing_values) {
                continue;
            }
            table.values.extend_from_slice(&row);
            let next = renumbered.len() as u32;
            let index = *renumbered.entry(kept.series).or_insert(next);
            if index == next {
                table.names.push(std::mem::take(&mut names[kept.series as usize]));
            }
            table.series.push(index);
        }
        if table.series.is_empty() {
            return Err(SchemaError::NoRecords);
        }
        Ok(table)
    }
}

/// Writes the values of one record into `row`. False if a decoder of these features would refuse the record.
fn fill(row: &mut [f64], entries: &[Entry], uses: &[Use], missing: Missing, missing_values: &[f64]) -> bool {
    row.fill(f64::NAN);
    for entry in entries {
        let (Entry::Number(field, _) | Entry::Object(field) | Entry::Spoilt(field)) = *entry;
        match (uses[field as usize], *entry) {
            (Use::None, _) | (Use::Above, Entry::Object(_)) => {}
            (Use::Feature(index), Entry::Number(_, value)) => {
                row[index] = if missing_values.contains(&value) { f64::NAN } else { value };
            }
            (Use::Feature(_), Entry::Object(_) | Entry::Spoilt(_)) => return false,
            (Use::Above, Entry::Number(..) | Entry::Spoilt(_)) => return false,
        }
    }
    match missing {
        Missing::Impute => row.iter().any(|v| !v.is_nan()),
        Missing::Reject => row.iter().all(|v| !v.is_nan()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, PartitionId};

    fn settings(json: &str) -> InputSettings {
        serde_json::from_str(json).unwrap()
    }

    fn push(history: &mut History, at: (i32, i64), key: &str, value: &str) -> Result<(), Refusal> {
        history.push(&RawRecord {
            position: Position { partition: PartitionId(at.0), offset: Offset(at.1) },
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp_ms: Some(0),
            traceparent: None,
        })
    }

    /// The table of these values, one record each.
    fn table(settings_json: &str, values: &[&str]) -> Result<Table, SchemaError> {
        let mut history = History::new(&settings(settings_json)).unwrap();
        for (offset, value) in values.iter().enumerate() {
            push(&mut history, (0, offset as i64), "p", value).unwrap();
        }
        assert_eq!(history.accepted(), values.len());
        history.finish()
    }

    fn shown(table: &Table) -> String {
        let value = |v: &f64| if v.is_nan() { "-".to_owned() } else { v.to_string() };
        let row = |row| table.row(row).iter().map(value).collect::<Vec<_>>().join(" ");
        let rows = (0..table.rows()).map(row).collect::<Vec<_>>().join(" | ");
        format!("{}: {rows}", table.schema.names().collect::<Vec<_>>().join(" "))
    }

    #[track_caller]
    fn check(settings_json: &str, values: &[&str], expect: &str) {
        let result = table(settings_json, values);
        assert_eq!(result.map_or_else(|e| format!("error: {e}"), |table| shown(&table)), expect);
    }

    #[test]
    fn rows_are_in_log_order_whatever_order_they_come_in() {
        let values = [((1, 0), "b"), ((0, 8), "c"), ((1, 1), "a"), ((0, 7), "b"), ((0, 9), "")];
        for features in ["\"auto\"", r#"["x"]"#] {
            let settings = settings(&format!(r#"{{"features":{features}}}"#));
            for turn in 0..values.len() {
                let mut turned = values;
                turned.rotate_left(turn);
                let mut history = History::new(&settings).unwrap();
                for ((partition, offset), key) in turned {
                    let value = format!(r#"{{"x":{}}}"#, 100 * partition + offset as i32);
                    push(&mut history, (partition, offset), key, &value).unwrap();
                }
                let table = history.finish().unwrap();
                assert_eq!(shown(&table), "x: 7 | 8 | 9 | 100 | 101");
                assert_eq!(table.series, [0, 1, 2, 0, 3]);
                assert_eq!(table.names, ["b", "c", "", "a"]);
            }
        }
    }

    #[test]
    fn auto_takes_numeric_fields_in_lexical_order() {
        check("{}", &[r#"{"o":{"b":true,"a":1},"c.d":2,"s":"x","l":[1],"n":null}"#], r"c\.d o.a o.b: 2 1 1");
        check("{}", &[r#"{"x":1,"":2,"a\nb":3}"#], "x: 1");
        check(
            r#"{"series_field":"o.id","timestamp_field":"t","timestamp_format":"s"}"#,
            &[r#"{"o":{"id":1,"a":2},"t":3}"#],
            "o.a: 2",
        );
        let deep = format!("{}1{}", r#"{"a":"#.repeat(65), "}".repeat(65));
        check("{}", &[&format!(r#"{{"x":1,"deep":{deep}}}"#)], "x: 1");
        let deep = format!(r#"{}1{},"x":1}}"#, r#"{"a":"#.repeat(64), "}".repeat(63));
        check("{}", &[&deep], &format!("{} x: 1 1", ["a"; 64].join(".")));
    }

    #[test]
    fn auto_takes_what_is_numeric_often_enough() {
        // In half of the records, then in less than half.
        check("{}", &[r#"{"a":1,"b":1}"#, r#"{"b":2}"#], "a b: 1 1 | - 2");
        check("{}", &[r#"{"a":1,"b":1}"#, r#"{"b":2}"#, r#"{"a":null,"b":3}"#], "b: 1 | 2 | 3");
        // In 90 % of the records that have it; the tenth does not decode then. In less.
        let mut values = vec![r#"{"a":1}"#; 9];
        values.push(r#"{"a":"off"}"#);
        check("{}", &values, &format!("a: {}", ["1"; 9].join(" | ")));
        values.push(r#"{"b":1,"a":[]}"#);
        check(
            "{}",
            &values,
            "error: find a number or boolean in at least half of 11 records, found no such field; list input.features",
        );
        values.truncate(9);
        values.extend([r#"{"a":null}"#, "{}"]);
        check("{}", &values, &format!("a: {}", ["1"; 9].join(" | ")));
    }

    #[test]
    fn records_that_the_decoder_would_refuse_are_dropped() {
        let spoilt = [
            r#"{"a":1e400}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"o":5}"#,
            r#"{"a":1,"o":"x"}"#,
            r#"{"a":1,"o":{},"o":{}}"#,
            r#"{"a":1,"o":{"\ud800":1}}"#,
            r#"{"a":1,"o":{"b":{}}}"#,
            r#"{"x":1}"#,
        ];
        for value in spoilt {
            let good = r#"{"a":1,"o":{"b":2}}"#;
            let mut values = vec![good; 20];
            values.insert(5, value);
            assert_eq!(shown(&table("{}", &values).unwrap()), format!("a o.b: {}", ["1 2"; 20].join(" | ")), "{value}");
        }
        let fine = [r#"{"a":1,"o":null}"#, r#"{"a":1,"x":1e400,"x":"\ud800","y":{"z":1,"z":2}}"#];
        let good = r#"{"a":1,"o":{"b":2}}"#;
        check("{}", &[fine[0], good, good, fine[1]], "a o.b: 1 - | 1 2 | 1 2 | 1 -");
        check(r#"{"missing":"reject"}"#, &[fine[0], good, good, fine[1]], "a o.b: 1 2 | 1 2");
    }

    #[test]
    fn a_history_without_rows_is_an_error() {
        check("{}", &[], "error: learn from at least one record, found none that decodes");
        check(r#"{"features":["a"]}"#, &[], "error: learn from at least one record, found none that decodes");
        let all_broken = [r#"{"a":1}"#, r#"{"b":2}"#];
        check(r#"{"missing":"reject"}"#, &all_broken, "error: learn from at least one record, found none that decodes");
        assert!(History::new(&settings(r#"{"features":["a","a"]}"#)).is_err());
        assert!(History::new(&settings(r#"{"features":["a.b"],"series_field":"a"}"#)).is_err());
    }

    /// A record with fields `prefix``0` to `prefix``count`.
    fn wide(prefix: &str, count: usize) -> String {
        let fields: Vec<String> = (0..count).map(|i| format!("\"{prefix}{i}\":1")).collect();
        format!("{{{}}}", fields.join(","))
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        assert_eq!(table("{}", &[&wide("f", 4096)]).unwrap().schema.len(), 4096);
        check("{}", &[&wide("f", 4097)], "error: list at most 4096 features, found 4097");
        let strange: Vec<String> = (0..10).map(|i| wide(&format!("{i}-"), 10_000)).collect();
        let strange: Vec<&str> = strange.iter().map(String::as_str).collect();
        let ordinary = [r#"{"x":1}"#; 20];
        // Fields without end in less than half of the records harm nothing; in half of them they might hide a feature.
        let few = table("{}", &[&ordinary[..1], &strange, &ordinary].concat()).unwrap();
        assert_eq!(few.schema.names().collect::<Vec<_>>(), ["x"]);
        let too_many =
            "error: find the common fields of 30 records, found more than 65536 different ones; list input.features";
        check("{}", &[&strange[..], &ordinary].concat(), too_many);
    }

    #[test]
    fn memory_is_bounded_and_what_finds_no_room_is_told() {
        let mut history = History { values_max: 6, ..History::new(&settings("{}")).unwrap() };
        for offset in 0..3 {
            push(&mut history, (0, offset), "p", r#"{"x":1,"y":2}"#).unwrap();
        }
        assert_eq!((history.accepted(), history.is_full()), (3, false));
        push(&mut history, (0, 3), "p", r#"{"x":1,"y":2}"#).unwrap();
        assert_eq!((history.accepted(), history.is_full()), (3, true));
    }

    /// Listed or learned, in training as in service.
    #[test]
    fn numbers_that_stand_for_no_value_are_missing() {
        let records =
            [r#"{"x":1,"y":-9999}"#, r#"{"x":-9999.0,"y":2}"#, r#"{"x":-9999,"y":-9.999e3}"#, r#"{"x":3,"y":4}"#];
        for features in [r#""auto""#, r#"["x","y"]"#] {
            let settings = format!(r#"{{"features":{features},"missing_values":[-9999,7]}}"#);
            let mut history = History::new(&self::settings(&settings)).unwrap();
            // The third holds no value; with a list that is known at once.
            let refused = (0..).zip(records).filter(|(at, record)| push(&mut history, (0, *at), "p", record).is_err());
            assert_eq!(refused.count(), usize::from(features != r#""auto""#));
            let rows: Vec<String> = history.finish().unwrap().values.iter().map(f64::to_string).collect();
            assert_eq!(rows, ["1", "NaN", "NaN", "2", "3", "4"], "{features}");
        }
    }
}
