//! Why a message is not a record. A refusal is a value: the record leaves as a dead letter that carries it.

/// What was expected of a message and what was found instead. `docs/records.md` lists the outcomes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("expect a record, found no value (a tombstone)")]
    Tombstone,
    #[error("expect a record, found an empty value")]
    Empty,
    #[error("expect UTF-8, found an invalid byte at {at}")]
    InvalidUtf8 { at: usize },
    #[error("expect one JSON object, found an error in it: {error}")]
    InvalidJson { error: String },
    #[error("expect one line with the cells of a record, found {error}")]
    InvalidCsv { error: String },
    #[error("expect one map in MessagePack, found an error in it: {error}")]
    InvalidMessagePack { error: String },
    #[error("expect an Avro message of a schema registry, found an error in it: {error}")]
    InvalidAvro { error: String },
    #[error("expect an Avro message whose schema can be had, found schema {id}: {why}")]
    NoSchema { id: u32, why: String },
    #[error("expect an object with the fields of a record, found {found}")]
    NotAnObject { found: &'static str },
    #[error("expect field `{field}` once, found it twice")]
    DuplicateField { field: String },
    #[error("expect {expected} in field `{field}`, found {found}")]
    WrongType { field: String, expected: &'static str, found: &'static str },
    #[error("expect a finite number in field `{field}`, found one beyond the range of a 64-bit float")]
    OutOfRange { field: String },
    #[error("expect field `{field}`, found nothing or null")]
    MissingField { field: String },
    #[error("expect a value in at least one of {features} features, found none")]
    NoValues { features: usize },
    #[error("expect a series of at most {max} bytes, found {found}", max = super::series::SERIES_MAX_BYTES)]
    SeriesTooLong { found: usize },
    #[error("expect {expected} between the years 0000 and 9999 in {place}, found `{found}`")]
    BadTimestamp { place: String, expected: &'static str, found: String },
    #[error("expect a timestamp of Kafka, found none")]
    NoTimestamp,
}

/// The reason of a record whose schema cannot be had: the only one that may be another one later.
pub const NO_SCHEMA: &str = "no_schema";

impl Refusal {
    /// Every reason there is.
    pub const REASONS: &[&str] = &[
        "tombstone",
        "empty",
        "invalid_utf8",
        "invalid_json",
        "invalid_csv",
        "invalid_messagepack",
        "invalid_avro",
        NO_SCHEMA,
        "not_an_object",
        "duplicate_field",
        "wrong_type",
        "out_of_range",
        "missing_field",
        "no_values",
        "series_too_long",
        "bad_timestamp",
        "no_timestamp",
    ];

    /// The kind of refusal, one of [`Refusal::REASONS`]: a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Tombstone => "tombstone",
            Refusal::Empty => "empty",
            Refusal::InvalidUtf8 { .. } => "invalid_utf8",
            Refusal::InvalidJson { .. } => "invalid_json",
            Refusal::InvalidCsv { .. } => "invalid_csv",
            Refusal::InvalidMessagePack { .. } => "invalid_messagepack",
            Refusal::InvalidAvro { .. } => "invalid_avro",
            Refusal::NoSchema { .. } => NO_SCHEMA,
            Refusal::NotAnObject { .. } => "not_an_object",
            Refusal::DuplicateField { .. } => "duplicate_field",
            Refusal::WrongType { .. } => "wrong_type",
            Refusal::OutOfRange { .. } => "out_of_range",
            Refusal::MissingField { .. } => "missing_field",
            Refusal::NoValues { .. } => "no_values",
            Refusal::SeriesTooLong { .. } => "series_too_long",
            Refusal::BadTimestamp { .. } => "bad_timestamp",
            Refusal::NoTimestamp => "no_timestamp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../docs/records.md");
        assert!(!Refusal::REASONS.is_empty());
        for reason in Refusal::REASONS {
            assert!(page.contains(&format!("`{reason}`")), "docs/records.md says nothing about `{reason}`");
        }
    }
}
