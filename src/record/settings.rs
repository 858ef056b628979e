//! Table `[input]` of the configuration: what a record looks like.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FieldPath;

/// What of a record is read, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InputSettings {
    pub format: Format,
    /// The names of a line's columns, in order.
    pub csv_columns: Vec<String>,
    pub csv_delimiter: char,
    pub features: Features,
    /// The field that tells whose record it is; without one (`""` in the configuration) the message key does.
    #[serde(with = "optional_path")]
    pub series_field: Option<FieldPath>,
    /// The field with the event time; without one (`""` in the configuration) it is Kafka's timestamp.
    #[serde(with = "optional_path")]
    pub timestamp_field: Option<FieldPath>,
    pub timestamp_format: TimestampFormat,
    pub missing: Missing,
    /// Numbers that stand for no value, such as -9999.
    pub missing_values: Vec<f64>,
}

impl Default for InputSettings {
    fn default() -> Self {
        InputSettings {
            format: Format::Json,
            csv_columns: vec![],
            csv_delimiter: ',',
            features: Features::Auto,
            series_field: None,
            timestamp_field: None,
            timestamp_format: TimestampFormat::Rfc3339,
            missing: Missing::Impute,
            missing_values: vec![],
        }
    }
}

impl InputSettings {
    /// What fits one key but not another.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        let lines = self.format == Format::Csv;
        if !lines && !self.csv_columns.is_empty() {
            problems.push("input.csv_columns: given, but input.format is not \"csv\"".to_owned());
        }
        if lines && self.csv_columns.is_empty() {
            problems.push("input.csv_columns: missing; expected the names of a line's columns, in order".to_owned());
        }
        if !self.csv_delimiter.is_ascii() || "\"\r\n".contains(self.csv_delimiter) {
            let found = self.csv_delimiter;
            problems
                .push(format!("input.csv_delimiter: {found:?} is not one ASCII character besides quote and line end"));
        }
        for (index, name) in self.csv_columns.iter().enumerate() {
            if self.csv_columns[..index].contains(name) {
                problems.push(format!("input.csv_columns: `{name}` is there twice"));
            }
            if let Err(error) = name.parse::<FieldPath>() {
                problems.push(format!("input.csv_columns: {error}"));
            }
        }
        problems
    }
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One object.
    Json,
    /// One line of cells; `csv_columns` names them.
    Csv,
    /// One map.
    MessagePack,
    /// One record, after the id of its schema in a registry of Confluent's kind.
    Avro,
}

/// Which fields a model is learned from: `"auto"` or a list of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Features {
    /// The numeric fields of the training records.
    #[default]
    Auto,
    List(Vec<FieldPath>),
}

/// How `timestamp_field` is written: RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970 (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampFormat {
    #[default]
    #[serde(rename = "rfc3339")]
    Rfc3339,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ns")]
    Nanoseconds,
}

/// What happens to a record in which a feature is absent or null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The value is filled in and marked; it does not count towards the score.
    #[default]
    Impute,
    /// The record is refused.
    Reject,
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Features::Auto => serializer.serialize_str("auto"),
            Features::List(paths) => paths.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Features, D::Error> {
        struct FeaturesVisitor;

        impl<'de> Visitor<'de> for FeaturesVisitor {
            type Value = Features;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a list of field paths")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Features, E> {
                match text {
                    "auto" => Ok(Features::Auto),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Features, A::Error> {
                let mut paths = vec![];
                while let Some(path) = list.next_element()? {
                    paths.push(path);
                }
                Ok(Features::List(paths))
            }
        }

        deserializer.deserialize_any(FeaturesVisitor)
    }
}

/// TOML has no null: the empty text stands for none.
mod optional_path {
    use super::*;

    pub fn serialize<S: Serializer>(path: &Option<FieldPath>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(path.as_ref().map_or("", FieldPath::as_str))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FieldPath>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expect: InputSettings) {
        let settings: InputSettings = serde_json::from_str(json).unwrap();
        assert_eq!(settings, expect);
        let again = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<InputSettings>(&again).unwrap(), expect);
    }

    #[test]
    fn settings_read_with_defaults_and_survive_a_round_trip() {
        let path = |text: &str| text.parse::<FieldPath>().unwrap();
        check("{}", InputSettings::default());
        check(
            r#"{"features":"auto","series_field":"","timestamp_field":"","timestamp_format":"rfc3339","missing":"impute","missing_values":[]}"#,
            InputSettings::default(),
        );
        check(
            r#"{"format":"csv","csv_columns":["id","a"],"csv_delimiter":";","features":["a","b.c"],"series_field":"id","timestamp_field":"t.at","timestamp_format":"us","missing":"reject","missing_values":[-9999,1e9]}"#,
            InputSettings {
                format: Format::Csv,
                csv_columns: vec!["id".to_owned(), "a".to_owned()],
                csv_delimiter: ';',
                features: Features::List(vec![path("a"), path("b.c")]),
                series_field: Some(path("id")),
                timestamp_field: Some(path("t.at")),
                timestamp_format: TimestampFormat::Microseconds,
                missing: Missing::Reject,
                missing_values: vec![-9999.0, 1e9],
            },
        );
    }

    #[track_caller]
    fn check_refused(json: &str, message: &str) {
        let error = serde_json::from_str::<InputSettings>(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn wrong_settings_are_refused_with_what_was_expected() {
        check_refused(
            r#"{"features":"atuo"}"#,
            "invalid value: string \"atuo\", expected \"auto\" or a list of field paths",
        );
        check_refused(r#"{"features":["a..b"]}"#, "name every key in field path \"a..b\", found an empty one");
        check_refused(r#"{"series_field":"a."}"#, "name every key in field path \"a.\", found an empty one");
        check_refused(r#"{"timestamp_format":"iso"}"#, "unknown variant `iso`, expected one of");
        check_refused(
            r#"{"format":"xml"}"#,
            "unknown variant `xml`, expected one of `json`, `csv`, `messagepack`, `avro`",
        );
        check_refused(r#"{"csv_delimiter":";;"}"#, "invalid value: string \";;\", expected a character");
        check_refused(r#"{"missing":"zero"}"#, "unknown variant `zero`, expected `impute` or `reject`");
        check_refused(r#"{"feature":[]}"#, "unknown field `feature`, expected one of");
    }
}
