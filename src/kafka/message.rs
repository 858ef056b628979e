//! Messages: one of the input, borrowed from librdkafka, and what is made of it; one to be written.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};

use crate::record::{Offset, PartitionId, Position, RawRecord, Refusal};

/// The W3C Trace Context header that alerts pass on.
const TRACEPARENT: &str = "traceparent";
/// Present on a dead letter whose value, or key, was cut to fit: the original length in bytes.
const TRUNCATED: &str = "residua.truncated-from-bytes";
const KEY_TRUNCATED: &str = "residua.key-truncated-from-bytes";
/// Present on a dead letter without all of its original headers: how many were left out, or `all` where they cannot be read.
const HEADERS_DROPPED: &str = "residua.headers-dropped";
/// Present on a dead letter that could not keep the message's own timestamp, ms since the epoch.
const TIMESTAMP: &str = "residua.timestamp-ms";

/// What of a message its dead letter keeps.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetterForm {
    /// Value, key and headers are cut to this length each, bytes.
    pub max_bytes: usize,
    /// Whether it has the message's timestamp, or that of writing and the message's in a header.
    pub stamped: bool,
}

/// Headers of an outgoing message.
pub type Headers = OwnedHeaders;

/// A message to be written.
#[derive(Default)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    /// None: the key decides.
    pub partition: Option<PartitionId>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Option<Headers>,
    /// Milliseconds since the epoch; none: the time of writing.
    pub timestamp_ms: Option<i64>,
}

/// A message of the input, in librdkafka's memory.
pub struct Message<'a>(pub(super) BorrowedMessage<'a>);

impl Message<'_> {
    /// The borrowed view that the core decodes.
    pub fn raw(&self) -> RawRecord<'_> {
        raw(&self.0)
    }

    /// This message as a dead letter for `topic`: key, value, headers and timestamp are kept, and Kafka Connect's
    /// `__connect.errors.*` headers are added so that existing tools read them. `connector` is the consumer group.
    /// What does not fit the form is cut, and further headers tell so; the original is where the headers say.
    pub fn dead_letter<'m>(
        &'m self,
        topic: &'m str,
        refusal: &Refusal,
        connector: &str,
        form: DeadLetterForm,
    ) -> Outgoing<'m> {
        let DeadLetterForm { max_bytes, stamped } = form;
        let timestamp_ms = self.0.timestamp().to_millis();
        let (value, key) = (self.0.payload(), self.0.key());
        let mut headers = self.error_headers(refusal, connector, max_bytes);
        for (name, part) in [(TRUNCATED, value), (KEY_TRUNCATED, key)] {
            if let Some(bytes) = part.map(<[u8]>::len).filter(|&n| n > max_bytes) {
                headers = headers.insert(Header { key: name, value: Some(&bytes.to_string()) });
            }
        }
        if let (false, Some(ms)) = (stamped, timestamp_ms) {
            headers = headers.insert(Header { key: TIMESTAMP, value: Some(&ms.to_string()) });
        }
        let cut = |part: &'m [u8]| part.get(..max_bytes).unwrap_or(part);
        Outgoing {
            topic,
            partition: None,
            key: key.map(cut),
            value: value.map(cut),
            headers: Some(headers),
            timestamp_ms: timestamp_ms.filter(|_| stamped),
        }
    }

    fn error_headers(&self, refusal: &Refusal, connector: &str, max_bytes: usize) -> Headers {
        let mut headers = Headers::new_with_capacity(10);
        let (mut room, mut dropped) = (max_bytes, 0);
        let Some(original) = headers_of(&self.0) else {
            return self.told(headers.insert(Header { key: HEADERS_DROPPED, value: Some("all") }), refusal, connector);
        };
        for header in original {
            match room.checked_sub(header.key.len() + header.value.map_or(0, <[u8]>::len)) {
                Some(left) => {
                    headers = headers.insert(header);
                    room = left;
                }
                None => dropped += 1,
            }
        }
        if dropped > 0 {
            headers = headers.insert(Header { key: HEADERS_DROPPED, value: Some(&dropped.to_string()) });
        }
        self.told(headers, refusal, connector)
    }

    /// Adds where the message was, and why it is no record.
    fn told(&self, mut headers: Headers, refusal: &Refusal, connector: &str) -> Headers {
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
        traceparent: headers_of(message)
            .and_then(|mut headers| headers.find(|h| h.key == TRACEPARENT))
            .and_then(|h| h.value),
    }
}

/// The headers, if their names are UTF-8: rdkafka panics where one is not, and Kafka takes any bytes.
fn headers_of<'m>(message: &'m BorrowedMessage<'_>) -> Option<impl Iterator<Item = Header<'m, &'m [u8]>>> {
    let Some(headers) = message.headers() else { return Some(None.into_iter().flatten()) };
    quietly(|| headers.iter().count())?;
    Some(Some(headers.iter()).into_iter().flatten())
}

thread_local! {
    /// Whether a panic of this thread is expected, and nobody's concern.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// None where `look` panics; nothing is printed of it, as a topic may hold many such messages.
fn quietly<T>(look: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let seen = panic::catch_unwind(AssertUnwindSafe(look)).ok();
    QUIET.set(false);
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expected_panic_is_no_value_and_the_next_one_is_still_seen() {
        assert_eq!(quietly(|| 7), Some(7));
        assert_eq!(quietly(|| -> u8 { panic!("expected") }), None);
        assert!(!QUIET.get());
    }
}
