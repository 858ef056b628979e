//! From the bytes of a message to values, in one pass and without copying: a serde visitor walks the JSON text together
//! with the trie of needed keys and writes numbers straight into the caller's row. All other values are skipped.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::trie::{Roles, Trie, Want};
use super::{
    EventTime, Features, FieldPath, InputSettings, Missing, RawRecord, Refusal, Schema, SchemaError, TimestampFormat,
    series, time,
};

/// Decodes the records of one input with one schema. It remembers in which order keys came, nothing else: what a record
/// decodes to depends on that record alone.
#[derive(Debug, Clone)]
pub struct Decoder {
    features: Vec<FieldPath>,
    series_field: Option<FieldPath>,
    timestamp_field: Option<FieldPath>,
    timestamp_format: TimestampFormat,
    missing: Missing,
    missing_values: Vec<f64>,
    trie: Trie,
    /// By edge of the trie: whether the key was in this record.
    seen: Vec<bool>,
}

/// What a record says besides its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    pub series: Cow<'a, str>,
    pub time: EventTime,
}

impl Decoder {
    /// A decoder for the features of `schema`. If the settings list features, they must be the same ones, in any order.
    pub fn new(settings: &InputSettings, schema: &Schema) -> Result<Decoder, SchemaError> {
        if let Features::List(listed) = &settings.features {
            check_same(&Schema::new(listed.clone())?, schema)?;
        }
        Decoder::of_features(settings, schema.paths())
    }

    /// A decoder that looks at series and time alone.
    pub(super) fn without_features(settings: &InputSettings) -> Result<Decoder, SchemaError> {
        Decoder::of_features(settings, &[])
    }

    fn of_features(settings: &InputSettings, features: &[FieldPath]) -> Result<Decoder, SchemaError> {
        let trie = Trie::new(features, settings.series_field.as_ref(), settings.timestamp_field.as_ref())?;
        Ok(Decoder {
            features: features.to_vec(),
            series_field: settings.series_field.clone(),
            timestamp_field: settings.timestamp_field.clone(),
            timestamp_format: settings.timestamp_format,
            missing: settings.missing,
            missing_values: settings.missing_values.clone(),
            seen: vec![false; trie.len()],
            trie,
        })
    }

    /// Writes the record's values into `values`, in the order of the schema; NaN is a value that is absent, null, or one
    /// that stands for none. After a
    /// refusal `values` holds nothing of use. Allocates for refusals, escapes, series that become hexadecimal, numbers of
    /// 20 digits and more, and unneeded values two levels deep; otherwise not.
    ///
    /// # Panics
    /// If `values` is not as long as the schema.
    pub fn decode<'a>(&mut self, raw: &RawRecord<'a>, values: &mut [f64]) -> Result<Decoded<'a>, Refusal> {
        assert_eq!(values.len(), self.features.len(), "one value per feature");
        let text = text_of(raw)?;
        values.fill(f64::NAN);
        let found = self.walk(text, values)?;
        if !self.missing_values.is_empty() {
            values.iter_mut().filter(|v| self.missing_values.contains(v)).for_each(|v| *v = f64::NAN);
        }
        self.check_missing(values)?;
        let series = match &self.series_field {
            None => series::from_key(raw.key)?,
            Some(field) => series::from_field(field, present(field, found.series)?)?,
        };
        let time = match &self.timestamp_field {
            None => time::from_kafka(raw.timestamp_ms)?,
            Some(field) => time::from_field(field, present(field, found.time)?, self.timestamp_format)?,
        };
        Ok(Decoded { series, time })
    }

    fn walk<'a>(&mut self, text: &'a str, values: &mut [f64]) -> Result<Found<'a>, Refusal> {
        self.seen.fill(false);
        let mut walk = Walk {
            trie: &mut self.trie,
            seen: &mut self.seen,
            values,
            found: Found::default(),
            refusal: None,
            blamed: None,
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let result = ObjectSeed { walk: &mut walk, node: 0 }.deserialize(&mut json).and_then(|()| json.end());
        match result {
            Ok(()) => Ok(walk.found),
            Err(error) => Err(walk.refusal_of(error)),
        }
    }

    fn check_missing(&self, values: &[f64]) -> Result<(), Refusal> {
        let (missing, nothing) = match self.missing {
            Missing::Reject => (values.iter().position(|v| v.is_nan()), false),
            Missing::Impute => (None, !values.is_empty() && values.iter().all(|v| v.is_nan())),
        };
        match missing {
            Some(index) => Err(Refusal::MissingField { field: self.features[index].to_string() }),
            None if nothing => Err(Refusal::NoValues { features: values.len() }),
            None => Ok(()),
        }
    }
}

fn check_same(listed: &Schema, model: &Schema) -> Result<(), SchemaError> {
    let not_in = |from: &Schema, other: &Schema, place| {
        let known: HashSet<&str> = other.names().collect();
        match from.paths().iter().find(|path| !known.contains(path.as_str())) {
            Some(path) => Err(SchemaError::OtherFeatures { path: path.clone(), place }),
            None => Ok(()),
        }
    };
    not_in(listed, model, "listed, but not in the model")?;
    not_in(model, listed, "in the model, but not listed")
}

/// The value as text.
pub(super) fn text_of<'a>(raw: &RawRecord<'a>) -> Result<&'a str, Refusal> {
    let bytes = raw.value.ok_or(Refusal::Tombstone)?;
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Refusal::InvalidUtf8 { at: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(Refusal::InvalidJson { error: "a byte order mark before it".to_owned() });
    }
    Ok(text)
}

/// A JSON number as a float, NaN for null. A wrong type comes back as the kind that was found.
pub(super) fn number(json: &str) -> Result<f64, &'static str> {
    match series::kind(json) {
        "null" => Ok(f64::NAN),
        "a boolean" => Ok(f64::from(json == "true")),
        // Rust reads every JSON number, correctly rounded; beyond the range it gives an infinity.
        "a number" => json.parse().map_err(|_| "a number"),
        other => Err(other),
    }
}

fn present<'a>(field: &FieldPath, json: Option<&'a str>) -> Result<&'a str, Refusal> {
    json.filter(|json| *json != "null").ok_or_else(|| Refusal::MissingField { field: field.to_string() })
}

fn wrong_type(field: &str, expected: &'static str, found: &'static str) -> Refusal {
    Refusal::WrongType { field: field.to_owned(), expected, found }
}

const A_NUMBER: &str = "a number or boolean";

/// JSON texts of the fields that are looked at after the walk.
#[derive(Default)]
struct Found<'de> {
    series: Option<&'de str>,
    time: Option<&'de str>,
}

/// The walk over one record.
struct Walk<'w, 'de> {
    trie: &'w mut Trie,
    seen: &'w mut [bool],
    values: &'w mut [f64],
    found: Found<'de>,
    /// Why the walk was broken off, unless the JSON itself is at fault.
    refusal: Option<Refusal>,
    /// The innermost needed edge whose value could not be read.
    blamed: Option<usize>,
}

impl<'de> Walk<'_, 'de> {
    /// Reads the value under needed key `edge`.
    #[inline]
    fn read<A: MapAccess<'de>>(&mut self, edge: usize, map: &mut A) -> Result<(), A::Error> {
        if std::mem::replace(&mut self.seen[edge], true) {
            return self.refuse(Refusal::DuplicateField { field: self.trie.edge(edge).path.to_string() });
        }
        let result = match self.trie.edge(edge).want {
            Want::Feature(index) => {
                let mut found = None;
                match map.next_value_seed(NumberSeed { found: &mut found }) {
                    Ok(value) => {
                        self.values[index] = value;
                        Ok(())
                    }
                    Err(error) => {
                        let path = &self.trie.edge(edge).path;
                        self.refusal = found.map(|found| wrong_type(path, A_NUMBER, found));
                        Err(error)
                    }
                }
            }
            Want::Object(node) => map.next_value_seed(ObjectSeed { walk: self, node }),
            Want::Text(roles) => map.next_value::<&'de RawValue>().and_then(|json| self.keep(edge, roles, json.get())),
        };
        if result.is_err() {
            self.blamed = self.blamed.or(Some(edge));
        }
        result
    }

    fn keep<E: Error>(&mut self, edge: usize, roles: Roles, json: &'de str) -> Result<(), E> {
        if roles.series {
            self.found.series = Some(json);
        }
        if roles.time {
            self.found.time = Some(json);
        }
        if let Some(index) = roles.feature {
            let path = &self.trie.edge(edge).path;
            match number(json) {
                Ok(value) if value.is_infinite() => {
                    let refusal = Refusal::OutOfRange { field: path.to_string() };
                    return self.refuse(refusal);
                }
                Ok(value) => self.values[index] = value,
                Err(found) => {
                    let refusal = wrong_type(path, A_NUMBER, found);
                    return self.refuse(refusal);
                }
            }
        }
        Ok(())
    }

    /// Breaks the walk off.
    #[cold]
    fn refuse<T, E: Error>(&mut self, refusal: Refusal) -> Result<T, E> {
        self.refusal = Some(refusal);
        Err(E::custom("refused"))
    }

    #[cold]
    fn refusal_of(self, error: serde_json::Error) -> Refusal {
        if let Some(refusal) = self.refusal {
            return refusal;
        }
        let error = error.to_string();
        // serde_json tells this error from others by its text only.
        if !error.starts_with("number out of range") {
            return Refusal::InvalidJson { error };
        }
        match self.blamed.map(|edge| self.trie.edge(edge)) {
            None => Refusal::NotAnObject { found: "a number" },
            Some(edge) if matches!(edge.want, Want::Object(_)) => wrong_type(&edge.path, "an object", "a number"),
            Some(edge) => Refusal::OutOfRange { field: edge.path.to_string() },
        }
    }
}

/// Reads an object that holds needed keys. Null in its place is an object without them, except at the top.
struct ObjectSeed<'a, 'w, 'de> {
    walk: &'a mut Walk<'w, 'de>,
    node: usize,
}

impl ObjectSeed<'_, '_, '_> {
    #[cold]
    fn refuse<E: Error>(self, found: &'static str) -> Result<(), E> {
        let walk = self.walk;
        let edges = 0..walk.trie.len();
        let field = edges.map(|edge| walk.trie.edge(edge)).find(|edge| edge.want == Want::Object(self.node));
        let refusal = match field {
            None => Refusal::NotAnObject { found },
            Some(edge) => wrong_type(&edge.path, "an object", found),
        };
        walk.refuse(refusal)
    }
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let ObjectSeed { walk, node } = self;
        let mut last = None;
        loop {
            let guess = walk.trie.guess(node, last);
            match map.next_key_seed(KeySeed { trie: walk.trie, node, guess })? {
                None => return Ok(()),
                Some(None) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(Some(edge)) => {
                    if edge != guess {
                        walk.trie.learn(node, last, edge);
                    }
                    last = Some(edge);
                    walk.read(edge, &mut map)?;
                }
            }
        }
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.node == 0 { self.refuse("null") } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.refuse("a boolean")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.refuse("a number")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.refuse("a string")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.refuse("an array")
    }
}

/// Looks a key up without copying it.
struct KeySeed<'a> {
    trie: &'a Trie,
    node: usize,
    guess: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.trie.find(self.node, self.guess, key))
    }
}

/// Reads a number, a boolean as 0 or 1, null as NaN. Anything else is an error, with its kind in `found`.
struct NumberSeed<'a> {
    found: &'a mut Option<&'static str>,
}

impl NumberSeed<'_> {
    #[cold]
    fn refuse<E: Error>(self, found: &'static str) -> Result<f64, E> {
        *self.found = Some(found);
        Err(E::custom("refused"))
    }
}

impl<'de> DeserializeSeed<'de> for NumberSeed<'_> {
    type Value = f64;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NumberSeed<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A_NUMBER)
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<f64, E> {
        Ok(f64::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<f64, E> {
        self.refuse("a string")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<f64, A::Error> {
        self.refuse("an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<f64, A::Error> {
        self.refuse("an object")
    }
}
