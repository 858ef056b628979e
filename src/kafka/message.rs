//! A message of the input, borrowed from librdkafka, and what is made of it.

use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};

use super::Outgoing;
use crate::record::{Offset, PartitionId, Position, RawRecord, Refusal};

/// The W3C Trace Context header that alerts pass on.
const TRACEPARENT: &str = "traceparent";
/// Present on a dead letter whose value was cut to fit: its original length in bytes.
const TRUNCATED: &str = "residua.truncated-from-bytes";

/// Headers of an outgoing message.
pub type Headers = OwnedHeaders;

/// A message of the input, in librdkafka's memory.
pub struct Message<'a>(pub(super) BorrowedMessage<'a>);

impl Message<'_> {
    /// The borrowed view that the core decodes.
    pub fn raw(&self) -> RawRecord<'_> {
        raw(&self.0)
    }

    /// This message as a dead letter for `topic`: key, value, headers and timestamp are kept, and Kafka Connect's
    /// `__connect.errors.*` headers are added so that existing tools read them. `connector` is the consumer group.
    /// A value longer than `max_bytes` is cut, and a header tells its length; the original is where the headers say.
    pub fn dead_letter<'m>(
        &'m self,
        topic: &'m str,
        refusal: &Refusal,
        connector: &str,
        max_bytes: usize,
    ) -> Outgoing<'m> {
        let value = self.0.payload();
        let too_long = value.map(<[u8]>::len).filter(|&n| n > max_bytes);
        let mut headers = self.error_headers(refusal, connector);
        if let Some(bytes) = too_long {
            headers = headers.insert(Header { key: TRUNCATED, value: Some(&bytes.to_string()) });
        }
        Outgoing {
            topic,
            key: self.0.key(),
            value: value.map(|v| v.get(..max_bytes).unwrap_or(v)),
            headers: Some(headers),
            timestamp_ms: self.0.timestamp().to_millis(),
        }
    }

    fn error_headers(&self, refusal: &Refusal, connector: &str) -> Headers {
        let mut headers = Headers::new_with_capacity(10);
        if let Some(original) = self.0.headers() {
            for header in original.iter() {
                headers = headers.insert(header);
            }
        }
        let partition = self.0.partition().to_string();
        let offset = self.0.offset().to_string();
        let why = refusal.to_string();
        let fields = [
            ("topic", self.0.topic()),
            ("partition", &partition),
            ("offset", &offset),
            ("connector.name", connector),
            ("task.id", "0"),
            ("stage", "VALUE_CONVERTER"),
            ("class.name", "residua::record::Decoder"),
            ("exception.class.name", refusal.reason()),
            ("exception.message", &why),
        ];
        for (name, value) in fields {
            headers = headers.insert(Header { key: &format!("__connect.errors.{name}"), value: Some(value) });
        }
        headers
    }
}

/// Headers of an alert: the trace it belongs to.
pub fn trace_headers(traceparent: &[u8]) -> Headers {
    Headers::new_with_capacity(1).insert(Header { key: TRACEPARENT, value: Some(traceparent) })
}

pub(super) fn raw<'m>(message: &'m BorrowedMessage<'_>) -> RawRecord<'m> {
    RawRecord {
        position: Position { partition: PartitionId(message.partition()), offset: Offset(message.offset()) },
        key: message.key(),
        value: message.payload(),
        timestamp_ms: message.timestamp().to_millis(),
        traceparent: message.headers().and_then(|h| h.iter().find(|h| h.key == TRACEPARENT)).and_then(|h| h.value),
    }
}
