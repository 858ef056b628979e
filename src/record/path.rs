//! How a field of a JSON object is named: `pump.flow` is the key `flow` in the object under the key `pump`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A path of keys from the top of a record. Keys are separated by `.`; inside a key a dot is written `\.` and a backslash
/// `\\`. Keys are not empty and hold no control characters.
///
/// Equality and order are those of the text, which is canonical: one path has one text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPath(String);

/// Why a text is no field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("name every key in field path {path:?}, found an empty one")]
    EmptyKey { path: String },
    #[error("write a backslash in field path {path:?} as `\\\\`, a dot in a key as `\\.`")]
    BadEscape { path: String },
    #[error("name no key with control characters, found field path {path:?}")]
    ControlCharacter { path: String },
    #[error("write a field path of at most {max} bytes, found {found}", max = FieldPath::MAX_BYTES)]
    TooLong { found: usize },
    #[error("write a field path of at most {max} keys, found {found}", max = FieldPath::MAX_KEYS)]
    TooDeep { found: usize },
}

impl FieldPath {
    /// Bound of the text, bytes.
    pub const MAX_BYTES: usize = 256;
    /// Bound of the depth. Decoding recurses once per key, so this bounds its stack.
    pub const MAX_KEYS: usize = 64;

    /// The path of `key` in the object at `parent`; at the top of the record without one.
    pub fn child(parent: Option<&FieldPath>, key: &str) -> Result<FieldPath, PathError> {
        let escaped = key.replace('\\', r"\\").replace('.', r"\.");
        match parent {
            None => escaped.parse(),
            Some(parent) => format!("{parent}.{escaped}").parse(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The keys from the top, unescaped.
    pub fn keys(&self) -> Vec<String> {
        // A path that was checked splits again.
        split(&self.0).unwrap_or_default()
    }

    /// The texts of the paths above this one: `a` and `a.b` for `a.b.c`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let mut escaped = false;
        self.0.char_indices().filter_map(move |(at, c)| {
            let separates = c == '.' && !escaped;
            escaped = c == '\\' && !escaped;
            separates.then(|| &self.0[..at])
        })
    }
}

impl FromStr for FieldPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<FieldPath, PathError> {
        if text.len() > FieldPath::MAX_BYTES {
            return Err(PathError::TooLong { found: text.len() });
        }
        let path = || text.to_owned();
        let keys = split(text).ok_or_else(|| PathError::BadEscape { path: path() })?;
        if keys.iter().any(String::is_empty) {
            return Err(PathError::EmptyKey { path: path() });
        }
        if text.contains(char::is_control) {
            return Err(PathError::ControlCharacter { path: path() });
        }
        if keys.len() > FieldPath::MAX_KEYS {
            return Err(PathError::TooDeep { found: keys.len() });
        }
        Ok(FieldPath(path()))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FieldPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<FieldPath, PathError> {
        text.parse()
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> String {
        path.0
    }
}

/// The keys of a path; None if a backslash escapes neither a dot nor a backslash.
fn split(text: &str) -> Option<Vec<String>> {
    let mut keys = vec![];
    let mut key = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '.' => keys.push(std::mem::take(&mut key)),
            '\\' => key.push(chars.next().filter(|c| matches!(c, '.' | '\\'))?),
            c => key.push(c),
        }
    }
    keys.push(key);
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, keys: &[&str]) {
        let path: FieldPath = text.parse().unwrap();
        assert_eq!(path.keys(), keys);
        assert_eq!(path.to_string(), text);
        let mut rebuilt = None;
        for key in keys {
            rebuilt = Some(FieldPath::child(rebuilt.as_ref(), key).unwrap());
        }
        assert_eq!(rebuilt, Some(path));
    }

    #[test]
    fn paths_split_at_dots_and_survive_a_round_trip() {
        check("flow", &["flow"]);
        check("pump.flow", &["pump", "flow"]);
        check(r"a\.b", &["a.b"]);
        check(r"a\\.b", &[r"a\", "b"]);
        check(r"\\\.", &[r"\."]);
        check("größe.°C", &["größe", "°C"]);
        check(" ", &[" "]);
    }

    #[track_caller]
    fn check_refused(text: &str, message: &str) {
        assert_eq!(text.parse::<FieldPath>().unwrap_err().to_string(), message);
    }

    #[test]
    fn texts_that_name_no_field_are_refused() {
        check_refused("", "name every key in field path \"\", found an empty one");
        check_refused("a..b", "name every key in field path \"a..b\", found an empty one");
        check_refused("a.", "name every key in field path \"a.\", found an empty one");
        check_refused(r"a\b", r#"write a backslash in field path "a\\b" as `\\`, a dot in a key as `\.`"#);
        check_refused(r"a\", r#"write a backslash in field path "a\\" as `\\`, a dot in a key as `\.`"#);
        check_refused("a\nb", r#"name no key with control characters, found field path "a\nb""#);
        check_refused(&"x".repeat(257), "write a field path of at most 256 bytes, found 257");
        check_refused(&["x"; 65].join("."), "write a field path of at most 64 keys, found 65");
    }

    #[test]
    fn ancestors_are_the_paths_above() {
        let path: FieldPath = r"a\\.b\.c.d.e".parse().unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), [r"a\\", r"a\\.b\.c", r"a\\.b\.c.d"]);
        let top: FieldPath = "a".parse().unwrap();
        assert_eq!(top.ancestors().count(), 0);
    }

    #[test]
    fn a_path_is_a_string_in_serde() {
        let path: FieldPath = serde_json::from_str(r#""pump.flow""#).unwrap();
        assert_eq!(serde_json::to_string(&path).unwrap(), r#""pump.flow""#);
        assert!(serde_json::from_str::<FieldPath>(r#""a..b""#).is_err());
    }
}
