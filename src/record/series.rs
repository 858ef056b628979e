//! Whose record it is: the series, from the message key or from a field.

use std::borrow::Cow;
use std::fmt::Write;

use super::scalar::{Scalar, kind_of_json};
use super::walk;
use super::{FieldPath, Refusal};

/// Bound of a series' text, bytes.
pub const SERIES_MAX_BYTES: usize = 256;

const EXPECTED: &str = "a string or an integer";
const NO_INTEGER: &str = "a number that is no integer";

/// UTF-8 without control characters as it is, other bytes as `0x` and hexadecimal digits, no key as the empty series.
pub(super) fn from_key(key: Option<&[u8]>) -> Result<Cow<'_, str>, Refusal> {
    let key = key.unwrap_or_default();
    match std::str::from_utf8(key) {
        Ok(text) => printable(Cow::Borrowed(text)),
        Err(_) => hexadecimal(key),
    }
}

/// A string under the same rules as a key; an integer as its digits.
pub(super) fn from_field<'a>(field: &FieldPath, value: &Scalar<'a>) -> Result<Cow<'a, str>, Refusal> {
    match value {
        Scalar::Json(json) => from_json(field, json),
        Scalar::Text(text) | Scalar::Cell(text) => printable(text.clone()),
        Scalar::Integer(number) => Ok(Cow::Owned(number.to_string())),
        Scalar::Float(_) => Err(wrong_type(field, EXPECTED, NO_INTEGER)),
        other => Err(wrong_type(field, EXPECTED, other.kind())),
    }
}

fn from_json<'a>(field: &FieldPath, json: &'a str) -> Result<Cow<'a, str>, Refusal> {
    match json.as_bytes() {
        [b'"', ..] => printable(string(json)?),
        [b'-' | b'0'..=b'9', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => bounded(Cow::Borrowed(json)),
        [b'-' | b'0'..=b'9', ..] => Err(wrong_type(field, EXPECTED, NO_INTEGER)),
        _ => Err(wrong_type(field, EXPECTED, kind_of_json(json))),
    }
}

/// The content of a JSON string, borrowed unless it holds escapes.
pub(super) fn string(json: &str) -> Result<Cow<'_, str>, Refusal> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str(json)
            .map(Cow::Owned)
            .map_err(|error| Refusal::InvalidJson { error: error.to_string() }),
    }
}

/// Control characters would break log lines and consoles, so a text with any is written as its bytes.
fn printable(text: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    if text.len() <= SERIES_MAX_BYTES && text.contains(char::is_control) {
        return hexadecimal(text.as_bytes());
    }
    bounded(text)
}

fn hexadecimal(bytes: &[u8]) -> Result<Cow<'static, str>, Refusal> {
    let length = 2 + 2 * bytes.len();
    if length > SERIES_MAX_BYTES {
        return Err(Refusal::SeriesTooLong { found: length });
    }
    let mut hex = String::with_capacity(length);
    hex.push_str("0x");
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(Cow::Owned(hex))
}

fn bounded(series: Cow<'_, str>) -> Result<Cow<'_, str>, Refusal> {
    if series.len() > SERIES_MAX_BYTES {
        return Err(Refusal::SeriesTooLong { found: series.len() });
    }
    Ok(series)
}

fn wrong_type(field: &FieldPath, expected: &'static str, found: &'static str) -> Refusal {
    walk::wrong_type(field.as_str(), expected, found)
}
