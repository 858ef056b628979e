//! Records: from a message's bytes to typed values ([`Decoder`]), from history to a training [`Table`] ([`History`]), and
//! from a verdict to an [`Alert`] on the wire.
//!
//! A message that is no record is a [`Refusal`], with a reason; `docs/records.md` lists the outcome of every kind of input.

mod alert;
mod avro;
mod csv;
mod decode;
mod ends;
mod history;
mod json;
mod number;
mod path;
mod position;
mod refusal;
mod scalar;
mod scan;
mod schema;
mod series;
mod settings;
mod stand_in;
mod summary;
mod time;
mod trie;
pub(crate) mod vector;
mod walk;

#[cfg(test)]
mod formats;
#[cfg(test)]
mod formats_avro;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod properties;

pub use alert::{Alert, Sensor, Severity};
pub use avro::{NoSchema, SchemaText, WriterSchemas};
pub use decode::{Decoded, Decoder};
pub use history::{History, Table};
pub use path::{FieldPath, PathError};
pub use position::{NextOffset, Offset, PartitionId, Position};
pub use refusal::{NO_SCHEMA, Refusal};
pub use scalar::number_of_cell;
pub use schema::{MAX_FEATURES, Schema, SchemaError};
pub use series::SERIES_MAX_BYTES;
pub use settings::{Features, Format, InputSettings, Missing, TimestampFormat};
pub use stand_in::StandIn;
pub use time::EventTime;

/// A message as it was read, borrowed from the client's buffer.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    pub position: Position,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Kafka's timestamp, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// W3C trace context, passed on as it is.
    pub traceparent: Option<&'a [u8]>,
}
