//! The table `[incident]` of the configuration: when many flagged records are one incident.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use serde::{Deserialize, Serialize};

use crate::model::HOLD;

/// The table `[incident]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IncidentSettings {
    /// Flagged records that open an incident, and among how many of the last of their series.
    pub open: NOfM,
    /// Part of the threshold from which on records go on being flagged once one is.
    pub hold: f64,
    /// An incident is over after so many records, or so much event time, without one that keeps it going.
    pub quiet: Span,
}

impl Default for IncidentSettings {
    fn default() -> Self {
        Self { open: NOfM { n: 1, of: 1 }, hold: HOLD, quiet: Span::Records(10) }
    }
}

/// "2 of 5".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NOfM {
    pub n: u64,
    pub of: u64,
}

impl NOfM {
    /// Largest `of`.
    pub const MOST: u64 = 64;
}

/// How long nothing must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Span {
    /// At least one.
    Records(u64),
    /// Event time, at least 1 ms.
    Time(Duration),
}

/// A text that is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read {text:?}: expected {expected}")]
pub struct SpanError {
    text: String,
    expected: &'static str,
}

impl FromStr for NOfM {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let error = || SpanError {
            text: text.to_owned(),
            expected: "\"N of M\" with 1 <= N <= M <= 64, for example \"2 of 5\"",
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[n, "of", of] = words.as_slice() else { return Err(error()) };
        let (n, of) = (n.parse().map_err(|_| error())?, of.parse().map_err(|_| error())?);
        if 1 <= n && n <= of && of <= NOfM::MOST { Ok(NOfM { n, of }) } else { Err(error()) }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let expected = "\"N records\" with N at least 1, or a time of at least 1 ms such as \"5m\"";
        let error = || SpanError { text: text.to_owned(), expected };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let quiet = match words.as_slice() {
            &[n, "record" | "records"] => Span::Records(n.parse().map_err(|_| error())?),
            _ => Span::Time(SpanParser::new().parse_unsigned_duration(text).map_err(|_| error())?),
        };
        match quiet {
            Span::Records(0) => Err(error()),
            Span::Time(time) if time < Duration::from_millis(1) => Err(error()),
            quiet => Ok(quiet),
        }
    }
}

impl fmt::Display for NOfM {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.n, self.of)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::Records(1) => f.write_str("1 record"),
            Span::Records(n) => write!(f, "{n} records"),
            Span::Time(time) => f.write_str(&SpanPrinter::new().unsigned_duration_to_string(time)),
        }
    }
}

impl TryFrom<String> for NOfM {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<NOfM> for String {
    fn from(value: NOfM) -> Self {
        value.to_string()
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(value: Span) -> Self {
        value.to_string()
    }
}
