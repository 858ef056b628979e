//! Learns which fields records have, for `features = "auto"`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::decode::number;
use super::schema::MAX_FIELDS;
use super::series::kind;
use super::{FieldPath, MAX_FEATURES, Schema, SchemaError};

/// The fields of all scanned records. Field 0 is the record itself.
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

    /// Adds record number `record` (counted from 1) to the statistics, and its values to `entries`. `text` is a JSON object.
    pub fn scan(&mut self, record: usize, text: &str, entries: &mut Vec<Entry>) {
        let mut scan = Scan { fields: self, record, entries, crowded: false };
        // The decoder has read all keys at the top, so an error is one inside an object and was dealt with there.
        let _ = scan.object(text, 0);
        let crowded = scan.crowded;
        self.crowded_records += usize::from(crowded);
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
        let field = &mut self.fields.fields[index];
        if field.excluded {
            return;
        }
        let twice = std::mem::replace(&mut field.last_record, self.record) == self.record;
        let kind = kind(json);
        if !twice {
            field.present += usize::from(kind != "null");
            field.numeric += usize::from(matches!(kind, "a number" | "a boolean"));
        }
        // There are at most MAX_FIELDS fields.
        let id = index as u32;
        let entry = match kind {
            _ if twice => Entry::Spoilt(id),
            "null" => return,
            "an object" if self.object(json, index).is_ok() => Entry::Object(id),
            _ => match number(json) {
                Ok(value) if value.is_finite() => Entry::Number(id, value),
                _ => Entry::Spoilt(id),
            },
        };
        self.entries.push(entry);
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
