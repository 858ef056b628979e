//! Whose record it is: the series, from the message key or from a field.

use std::borrow::Cow;
use std::fmt::Write;

use super::{FieldPath, Refusal};

/// Bound of a series' text, bytes.
pub const SERIES_MAX_BYTES: usize = 256;

const EXPECTED: &str = "a string or an integer";

/// UTF-8 without control characters as it is, other bytes as `0x` and hexadecimal digits, no key as the empty series.
pub(super) fn from_key(key: Option<&[u8]>) -> Result<Cow<'_, str>, Refusal> {
    let key = key.unwrap_or_default();
    match std::str::from_utf8(key) {
        Ok(text) => printable(Cow::Borrowed(text)),
        Err(_) => hexadecimal(key),
    }
}

/// A string under the same rules as a key; an integer as its digits. `json` is the JSON text of the field's value.
pub(super) fn from_field<'a>(field: &FieldPath, json: &'a str) -> Result<Cow<'a, str>, Refusal> {
    match json.as_bytes() {
        [b'"', ..] => printable(string(json)?),
        [b'-' | b'0'..=b'9', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => bounded(Cow::Borrowed(json)),
        [b'-' | b'0'..=b'9', ..] => Err(wrong_type(field, "a number that is no integer")),
        _ => Err(wrong_type(field, kind(json))),
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

/// What a JSON value is, told by its first byte.
pub(super) fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
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

fn wrong_type(field: &FieldPath, found: &'static str) -> Refusal {
    Refusal::WrongType { field: field.to_string(), expected: EXPECTED, found }
}
