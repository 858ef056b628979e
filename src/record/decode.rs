//! From the bytes of a message to values, in one pass and without copying, in each of the formats of [`Format`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, Visitor};

use super::avro::{self, Schemas, WriterSchemas};
use super::csv::Columns;
use super::ends::Ends;
use super::json;
use super::scalar::Scalar;
use super::trie::Trie;
use super::walk::{Found, Walk};
use super::{
    EventTime, Features, FieldPath, Format, InputSettings, Missing, RawRecord, Refusal, Schema, SchemaError,
    TimestampFormat, series, time,
};

/// Decodes the records of one input with one schema. It remembers in which order keys came, nothing else: what a record
/// decodes to depends on that record alone.
#[derive(Debug, Clone)]
pub struct Decoder {
    format: Format,
    features: Vec<FieldPath>,
    series_field: Option<FieldPath>,
    timestamp_field: Option<FieldPath>,
    timestamp_format: TimestampFormat,
    missing: Missing,
    missing_values: Vec<f64>,
    trie: Trie,
    /// By edge of the trie: whether the key was in this record.
    seen: Vec<bool>,
    /// Of the JSON text that is read.
    ends: Ends,
    /// Of lines.
    columns: Option<Columns>,
    /// Of Avro.
    schemas: Schemas,
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
        let columns = (settings.format == Format::Csv).then(|| Columns::new(settings, features)).transpose()?;
        Ok(Decoder {
            format: settings.format,
            features: features.to_vec(),
            series_field: settings.series_field.clone(),
            timestamp_field: settings.timestamp_field.clone(),
            timestamp_format: settings.timestamp_format,
            missing: settings.missing,
            missing_values: settings.missing_values.clone(),
            seen: vec![false; trie.len()],
            ends: Ends::default(),
            trie,
            columns,
            schemas: Schemas::default(),
        })
    }

    /// Takes the schemas of Avro messages from there. Without, every such message is refused.
    pub fn with_schemas(self, source: Arc<dyn WriterSchemas>) -> Decoder {
        Decoder { schemas: Schemas::from(source), ..self }
    }

    /// Why this record cannot be decoded now, but may be later: its schema is not to be had. `always`: also where it would be refused
    /// then. To be asked before [`Decoder::decode`]; may take as long as [`WriterSchemas::get`].
    #[inline]
    pub fn wait_for(&mut self, raw: &RawRecord<'_>, always: bool) -> Option<String> {
        match self.format {
            Format::Avro => raw.value.and_then(|value| self.schemas.wait_for(value, always)),
            Format::Json | Format::Csv | Format::MessagePack => None,
        }
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
        let bytes = bytes_of(raw)?;
        values.fill(f64::NAN);
        let found = self.read(bytes, values)?;
        if !self.missing_values.is_empty() {
            values.iter_mut().filter(|v| self.missing_values.contains(v)).for_each(|v| *v = f64::NAN);
        }
        self.check_missing(values)?;
        let series = match &self.series_field {
            None => series::from_key(raw.key)?,
            Some(field) => series::from_field(field, &present(field, found.series)?)?,
        };
        let time = match &self.timestamp_field {
            None => time::from_kafka(raw.timestamp_ms)?,
            Some(field) => time::from_field(field, &present(field, found.time)?, self.timestamp_format)?,
        };
        Ok(Decoded { series, time })
    }

    fn read<'a>(&mut self, bytes: &'a [u8], values: &mut [f64]) -> Result<Found<'a>, Refusal> {
        self.seen.fill(false);
        if self.format == Format::Json {
            if !self.ends.find(bytes) {
                text_of(bytes)?;
            }
            if let Some(found) = json::read(bytes, &self.ends, &mut self.trie, &mut self.seen, values) {
                return Ok(found);
            }
            self.seen.fill(false);
            values.fill(f64::NAN);
        }
        self.read_slowly(bytes, values)
    }

    /// What is read fast, if anything is, and what the whole grammar says.
    #[cfg(any(test, fuzzing))]
    pub(super) fn fast_and_slow<'a>(
        &mut self,
        text: &'a str,
        fast: &mut [f64],
        slow: &mut [f64],
    ) -> (Option<Found<'a>>, Result<Found<'a>, Refusal>) {
        for values in [&mut *fast, &mut *slow] {
            values.fill(f64::NAN);
        }
        self.seen.fill(false);
        self.ends.find(text.as_bytes());
        let found = json::read(text.as_bytes(), &self.ends, &mut self.trie, &mut self.seen, fast);
        self.seen.fill(false);
        (found, self.read_slowly(text.as_bytes(), slow))
    }

    /// Whether what is read fast, if anything is, is what the whole grammar says, bit for bit.
    #[cfg(fuzzing)]
    pub fn agrees(&mut self, text: &str) -> bool {
        let (mut fast, mut slow) = (vec![0.0; self.features.len()], vec![0.0; self.features.len()]);
        match self.fast_and_slow(text, &mut fast, &mut slow) {
            (None, _) => true,
            (Some(found), expected) => {
                expected == Ok(found) && fast.iter().zip(&slow).all(|(a, b)| a.to_bits() == b.to_bits())
            }
        }
    }

    /// With the whole grammar of the format.
    fn read_slowly<'a>(&mut self, bytes: &'a [u8], values: &mut [f64]) -> Result<Found<'a>, Refusal> {
        let Decoder { trie, seen, columns, .. } = self;
        let mut walk = Walk::new(trie, seen, values, self.format == Format::Json);
        let refusal = match (self.format, columns) {
            (Format::Csv, Some(columns)) => return columns.read(text_of(bytes)?, walk.values),
            (Format::Json | Format::Csv, _) => {
                let text = text_of(bytes)?;
                if text.starts_with('\u{feff}') {
                    return Err(Refusal::InvalidJson { error: "a byte order mark before it".to_owned() });
                }
                let mut json = serde_json::Deserializer::from_str(text);
                walk.read(&mut json).and_then(|()| json.end()).err().map(|error| {
                    let error = error.to_string();
                    // serde_json tells this error from others by its text only.
                    let beyond = error.starts_with("number out of range");
                    if beyond { walk.out_of_range() } else { Refusal::InvalidJson { error } }
                })
            }
            (Format::MessagePack, _) => {
                let mut pack = message_pack(bytes);
                let read = walk.read(&mut pack).and_then(|()| message_pack_end(&mut pack));
                read.err().map(|error| Refusal::InvalidMessagePack { error: error.to_string() })
            }
            (Format::Avro, _) => {
                let (plan, value) = self.schemas.of(bytes)?;
                let mut reader = avro::Reader::new(&plan, value);
                let read = walk.read(reader.value()).and_then(|()| reader.end());
                read.err().map(|error| Refusal::InvalidAvro { error: error.to_string() })
            }
        };
        match refusal {
            None => Ok(walk.found),
            Some(refusal) => Err(walk.refusal().unwrap_or(refusal)),
        }
    }

    /// The schema and the value of an Avro message that was decoded.
    pub(super) fn avro<'a>(&mut self, bytes: &'a [u8]) -> Result<(Arc<avro::Plan>, &'a [u8]), Refusal> {
        self.schemas.of(bytes)
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Of lines.
    pub(super) fn columns(&self) -> Option<&Columns> {
        self.columns.as_ref()
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

/// The value.
pub(super) fn bytes_of<'a>(raw: &RawRecord<'a>) -> Result<&'a [u8], Refusal> {
    match raw.value {
        None => Err(Refusal::Tombstone),
        Some([]) => Err(Refusal::Empty),
        Some(bytes) => Ok(bytes),
    }
}

/// A value that is text.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|error| Refusal::InvalidUtf8 { at: error.valid_up_to() })
}

/// Values inside values, at most; `serde_json` has the same bound.
const DEPTH_MAX: usize = 128;

type MessagePack<'a> = rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>;

/// A value that is MessagePack.
pub(super) fn message_pack(bytes: &[u8]) -> MessagePack<'_> {
    let mut pack = rmp_serde::Deserializer::from_read_ref(bytes);
    pack.set_max_depth(DEPTH_MAX);
    pack
}

/// # Errors
/// There is more after the value.
fn message_pack_end(pack: &mut MessagePack<'_>) -> Result<(), rmp_serde::decode::Error> {
    /// Takes nothing.
    struct Nothing;

    impl<'de> DeserializeSeed<'de> for Nothing {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, more: D) -> Result<(), D::Error> {
            more.deserialize_any(self)
        }
    }

    impl Visitor<'_> for Nothing {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the end")
        }
    }

    match Nothing.deserialize(pack) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(()),
        Ok(()) | Err(_) => Err(rmp_serde::decode::Error::custom("bytes after it")),
    }
}

fn present<'a>(field: &FieldPath, value: Option<Scalar<'a>>) -> Result<Scalar<'a>, Refusal> {
    value.filter(|value| !value.is_missing()).ok_or_else(|| Refusal::MissingField { field: field.to_string() })
}
