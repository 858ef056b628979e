//! The value of one field, for the fields that are looked at once the record was read: series, time, and features that are one of both.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value as its format holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    /// The JSON text of a value, which says more than a number type would: 1.0 is not 1.
    Json(&'a str),
    /// A cell of a line: a text or a number, as it is needed.
    Cell(Cow<'a, str>),
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'a, str>),
    /// Nothing of use; its kind.
    Other(&'static str),
}

impl Scalar<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Scalar::Json(json) => kind_of_json(json),
            Scalar::Cell(_) | Scalar::Text(_) => "a string",
            Scalar::Null => "null",
            Scalar::Boolean(_) => "a boolean",
            Scalar::Integer(_) | Scalar::Float(_) => "a number",
            Scalar::Other(kind) => kind,
        }
    }

    /// Whether it stands for no value.
    pub fn is_missing(&self) -> bool {
        match self {
            Scalar::Json(json) => *json == "null",
            Scalar::Cell(cell) => cell.is_empty(),
            other => *other == Scalar::Null,
        }
    }

    /// As a feature: NaN for no value, infinite beyond the range. A wrong type comes back as the kind that was found.
    pub fn number(&self) -> Result<f64, &'static str> {
        match self {
            Scalar::Json(json) => number_of_json(json),
            Scalar::Cell(cell) => number_of_cell(cell).ok_or("a string"),
            Scalar::Null => Ok(f64::NAN),
            Scalar::Boolean(truth) => Ok(f64::from(*truth)),
            Scalar::Integer(number) => Ok(*number as f64),
            Scalar::Float(number) => Ok(*number),
            Scalar::Text(_) => Err("a string"),
            Scalar::Other(kind) => Err(kind),
        }
    }
}

/// As it is written, for messages; what is no single value as its kind.
impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Json(text) => f.write_str(text),
            Scalar::Cell(text) | Scalar::Text(text) => f.write_str(text),
            Scalar::Integer(number) => number.fmt(f),
            Scalar::Float(number) => number.fmt(f),
            other => f.write_str(other.kind()),
        }
    }
}

/// What a JSON value is, told by its first byte.
pub(super) fn kind_of_json(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A JSON number as a float, NaN for null. A wrong type comes back as the kind that was found.
pub(super) fn number_of_json(json: &str) -> Result<f64, &'static str> {
    match kind_of_json(json) {
        "null" => Ok(f64::NAN),
        "a boolean" => Ok(f64::from(json == "true")),
        // Rust reads every JSON number, correctly rounded; beyond the range it gives an infinity.
        "a number" => json.parse().map_err(|_| "a number"),
        other => Err(other),
    }
}

/// A cell of a line of comma-separated values as a number: an empty one and `NaN` are none, `true` and `false` are 1 and 0, in any
/// case. None if it is something else, as `inf` is; infinite beyond the range.
pub fn number_of_cell(cell: &str) -> Option<f64> {
    let cell = cell.trim();
    if cell.is_empty() || cell.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    match cell.parse::<f64>() {
        // Rust takes words for it too.
        Ok(value) => (value.is_finite() || cell.contains(|c: char| c.is_ascii_digit())).then_some(value),
        Err(_) if cell.eq_ignore_ascii_case("true") => Some(1.0),
        Err(_) if cell.eq_ignore_ascii_case("false") => Some(0.0),
        Err(_) => None,
    }
}

/// Reads any value of a format that is not JSON.
pub(super) struct ScalarSeed;

impl<'de> serde::de::DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Boolean(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Integer(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other(BYTES))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<Scalar<'de>, D::Error> {
        inside.deserialize_ignored_any(IgnoredAny).map(|_| Scalar::Other(EXTENSION))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an object"))
    }
}

/// Kinds that JSON does not have.
pub(super) const BYTES: &str = "bytes";
pub(super) const EXTENSION: &str = "an extension type";
