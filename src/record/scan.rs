//! Learns which fields records have, for `features = "auto"`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::avro;
use super::decode::{Decoder, message_pack, text_of};
use super::scalar::{Scalar, ScalarSeed, kind_of_json, number_of_cell, number_of_json};
use super::schema::MAX_FIELDS;
use super::{FieldPath, Format, MAX_FEATURES, Refusal, Schema, SchemaError};

/// The record itself.
const TOP: usize = 0;

/// The fields of all scanned records. Field [`TOP`] is the record itself.
#[derive(Debug)]
pub(super) struct Fields {
    fields: Vec<Field>,
    /// Fields that are no features: series and time.
    excluded: Vec<FieldPath>,
    /// Records with a field that found no room here.
    crowded_records: usize,
}

#[derive(Debug, Default)]
struct Field {
    /// None for the record itself.
    path: Option<FieldPath>,
    inside: HashMap<Box<str>, usize>,
    excluded: bool,
    /// The record in which the field was seen last, counted from 1.
    last_record: usize,
    /// Number of records in which it was present and not null, or a number or boolean.
    present: usize,
    numeric: usize,
}

/// One field of a record, by index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Entry {
    /// A finite number.
    Number(u32, f64),
    Object(u32),
    /// A decoder would refuse this in a feature or above one: another type, a number out of range, a field that came twice.
    Spoilt(u32),
}

/// What a chosen schema makes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    None,
    Feature(usize),
    /// An object that holds features.
    Above,
}

impl Fields {
    pub fn new(excluded: Vec<FieldPath>) -> Fields {
        Fields { fields: vec![Field::default()], excluded, crowded_records: 0 }
    }

    /// Adds record number `record` (counted from 1) to the statistics, and its values to `entries`. `decoder` has decoded it before.
    pub fn scan(
        &mut self,
        decoder: &mut Decoder,
        record: usize,
        bytes: &[u8],
        entries: &mut Vec<Entry>,
    ) -> Result<(), Refusal> {
        let mut scan = Scan { fields: self, record, entries, crowded: false };
        // The decoder has read it, so an error of JSON is one inside an object and was dealt with there; of the others there is none.
        match (decoder.format(), decoder.columns()) {
            (Format::Csv, Some(columns)) => columns.each(text_of(bytes)?, &mut |name, cell| scan.cell(name, cell)),
            (Format::Json | Format::Csv, _) => drop(scan.object(text_of(bytes)?, TOP)),
            (Format::MessagePack, _) => {
                ObjectSeed { scan: &mut scan, object: TOP }
                    .deserialize(&mut message_pack(bytes))
                    .map_err(|error| Refusal::InvalidMessagePack { error: error.to_string() })?;
            }
            (Format::Avro, _) => {
                let (plan, value) = decoder.avro(bytes)?;
                let mut reader = avro::Reader::new(&plan, value);
                ObjectSeed { scan: &mut scan, object: TOP }
                    .deserialize(reader.value())
                    .map_err(|error| Refusal::InvalidAvro { error: error.to_string() })?;
            }
        }
        let crowded = scan.crowded;
        self.crowded_records += usize::from(crowded);
        Ok(())
    }

    /// The fields, in lexical order, that are a number or boolean in at least half of the records, and in at least 90 % of
    /// those in which they are present and not null. Beside the schema: what each field is used for.
    pub fn choose(&self, records: usize) -> Result<(Schema, Vec<Use>), SchemaError> {
        // A field that found no room was in crowded records only. If those are less than half, it would not be chosen.
        if 2 * self.crowded_records >= records && self.crowded_records > 0 {
            return Err(SchemaError::TooManyFields { records });
        }
        let common = |f: &&Field| 2 * f.numeric >= records && 10 * f.numeric >= 9 * f.present && f.numeric > 0;
        let mut paths: Vec<FieldPath> = self.fields.iter().filter(common).filter_map(|f| f.path.clone()).collect();
        if paths.is_empty() {
            return Err(SchemaError::NothingNumeric { records });
        }
        if paths.len() > MAX_FEATURES {
            return Err(SchemaError::TooManyFeatures { found: paths.len() });
        }
        paths.sort();
        let schema = Schema::new(paths)?;
        let mut uses: HashMap<&str, Use> = HashMap::new();
        for (index, path) in schema.paths().iter().enumerate() {
            uses.insert(path.as_str(), Use::Feature(index));
            uses.extend(path.ancestors().map(|above| (above, Use::Above)));
        }
        let use_of = |f: &Field| f.path.as_ref().and_then(|path| uses.get(path.as_str()).copied());
        let uses = self.fields.iter().map(|f| use_of(f).unwrap_or(Use::None)).collect();
        Ok((schema, uses))
    }

    /// The field under `key` of object `parent`, if it can be named and there is room.
    fn inside(&mut self, parent: usize, key: &str, crowded: &mut bool) -> Option<usize> {
        if let Some(&field) = self.fields[parent].inside.get(key) {
            return Some(field);
        }
        let path = FieldPath::child(self.fields[parent].path.as_ref(), key).ok()?;
        self.at(path, key, parent, crowded)
    }

    /// The field of this path, which is `key` of object `parent`.
    fn at(&mut self, path: FieldPath, key: &str, parent: usize, crowded: &mut bool) -> Option<usize> {
        if let Some(&field) = self.fields[parent].inside.get(key) {
            return Some(field);
        }
        if self.fields.len() >= MAX_FIELDS {
            *crowded = true;
            return None;
        }
        let field = self.fields.len();
        let excluded = self.excluded.contains(&path);
        self.fields.push(Field { path: Some(path), excluded, ..Field::default() });
        self.fields[parent].inside.insert(key.into(), field);
        Some(field)
    }
}

/// The scan of one record.
struct Scan<'a> {
    fields: &'a mut Fields,
    record: usize,
    entries: &'a mut Vec<Entry>,
    crowded: bool,
}

impl Scan<'_> {
    /// Recurses once per key of a path, so at most `FieldPath::MAX_KEYS` deep.
    fn object(&mut self, text: &str, object: usize) -> serde_json::Result<()> {
        members(text, &mut |key, json| {
            if let Some(field) = self.fields.inside(object, key, &mut self.crowded) {
                self.value(field, json);
            }
        })
    }

    fn value(&mut self, index: usize, json: &str) {
        let kind = kind_of_json(json);
        let Some(twice) = self.seen(index, kind != "null", matches!(kind, "a number" | "a boolean")) else { return };
        let entry = match kind {
            _ if twice => Entry::Spoilt(id(index)),
            "null" => return,
            "an object" if self.object(json, index).is_ok() => Entry::Object(id(index)),
            _ => of_number(index, number_of_json(json).ok()),
        };
        self.entries.push(entry);
    }

    fn cell(&mut self, name: &str, cell: &str) {
        // The configuration's names were checked: each is a path.
        let Ok(path) = name.parse::<FieldPath>() else { return };
        let Some(field) = self.fields.at(path, name, TOP, &mut self.crowded) else { return };
        let number = number_of_cell(cell);
        let missing = number.is_some_and(f64::is_nan);
        if self.seen(field, !missing, number.is_some() && !missing).is_some() && !missing {
            self.entries.push(of_number(field, number));
        }
    }

    /// Counts a field; whether it came a second time. None: it is no feature, whatever it holds.
    fn seen(&mut self, index: usize, present: bool, numeric: bool) -> Option<bool> {
        let field = &mut self.fields.fields[index];
        if field.excluded {
            return None;
        }
        let twice = std::mem::replace(&mut field.last_record, self.record) == self.record;
        if !twice {
            field.present += usize::from(present);
            field.numeric += usize::from(numeric);
        }
        Some(twice)
    }

    /// As [`Scan::value`], of any other format.
    fn scalar(&mut self, index: usize, number: Option<f64>) {
        let missing = number.is_some_and(f64::is_nan);
        match self.seen(index, !missing, number.is_some() && !missing) {
            Some(true) => self.entries.push(Entry::Spoilt(id(index))),
            Some(false) if !missing => self.entries.push(of_number(index, number)),
            Some(false) | None => {}
        }
    }
}

/// There are at most MAX_FIELDS fields.
fn id(index: usize) -> u32 {
    index as u32
}

fn of_number(index: usize, number: Option<f64>) -> Entry {
    match number {
        Some(value) if value.is_finite() => Entry::Number(id(index), value),
        _ => Entry::Spoilt(id(index)),
    }
}

/// Reads an object of a format that is not JSON.
struct ObjectSeed<'s, 'a> {
    scan: &'s mut Scan<'a>,
    object: usize,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let Scan { fields, crowded, .. } = &mut *self.scan;
            match key.and_then(|key| fields.inside(self.object, &key, crowded)) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(field) => map.next_value_seed(ValueSeed { scan: self.scan, field })?,
            }
        }
        Ok(())
    }
}

/// Reads a key, if it is a text.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        Ok(match ScalarSeed.deserialize(key)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// Reads the value of a field.
struct ValueSeed<'s, 'a> {
    scan: &'s mut Scan<'a>,
    field: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.scan.fields.fields[self.field].excluded {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl ValueSeed<'_, '_> {
    fn number<E: Error>(self, number: Option<f64>) -> Result<(), E> {
        self.scan.scalar(self.field, number);
        Ok(())
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.number(Some(f64::from(truth)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(Some(number as f64))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(Some(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.number(Some(number))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.number(Some(f64::NAN))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.number(None)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<(), E> {
        self.number(None)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<(), D::Error> {
        inside.deserialize_ignored_any(IgnoredAny)?;
        self.number(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.number(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let ValueSeed { scan, field } = self;
        match scan.seen(field, true, false) {
            // What is in it is there twice, perhaps.
            Some(true) => {
                scan.entries.push(Entry::Spoilt(id(field)));
                IgnoredAny.visit_map(map).map(|_| ())
            }
            _ => {
                ObjectSeed { scan: &mut *scan, object: field }.visit_map(map)?;
                scan.entries.push(Entry::Object(id(field)));
                Ok(())
            }
        }
    }
}

/// Calls `each` with every key of a JSON object and the JSON text of its value. An error is one of the keys: values are not
/// looked into.
pub(super) fn members(text: &str, each: &mut dyn FnMut(&str, &str)) -> serde_json::Result<()> {
    struct Members<'a>(&'a mut dyn FnMut(&str, &str));

    impl<'de> Visitor<'de> for Members<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                (self.0)(&key.0, value.get());
            }
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Members(each))?;
    json.end()
}

/// A key, borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
