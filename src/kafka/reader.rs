//! Reads one topic from its beginning, as anybody could: the models, or the demo's own anomalies.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::Closing;
use super::client::{self, Quiet};
use super::error::{Context, Error, Result};
use super::oauth::Login;
use super::settings::KafkaSettings;
use crate::record::Offset;

/// Longest single wait inside `latest`.
const POLL: Duration = Duration::from_millis(500);

/// Reads the committed records of one partition or more, without a group.
pub struct TopicReader {
    settings: KafkaSettings,
    consumer: RefCell<Closing<BaseConsumer<Quiet>>>,
    topic: String,
    /// Where `latest` goes on: after the last record it saw.
    next: Cell<KafkaOffset>,
}

impl TopicReader {
    /// Of a topic of one partition; `latest` begins to read. Nothing is read before: librdkafka 2.12 aborts the process where a partition that is read is
    /// taken away twice in short time (its issue 5573), as by that call and the end of the client, if nobody may read the topic.
    pub fn open(settings: &KafkaSettings, topic: &str) -> Result<TopicReader> {
        Ok(TopicReader {
            settings: settings.clone(),
            consumer: RefCell::new(connect(settings)?),
            topic: topic.to_owned(),
            next: Cell::new(KafkaOffset::Beginning),
        })
    }

    /// From the beginning of partitions 0 to `partitions` (exclusive), for `next`.
    pub fn at_beginning(settings: &KafkaSettings, topic: &str, partitions: i32) -> Result<TopicReader> {
        let reader = Self::open(settings, topic)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, KafkaOffset::Beginning).action("name a partition")?;
        }
        reader.consumer.borrow().assign(&list).action("read a topic")?;
        Ok(reader)
    }

    /// Reads a topic of one partition on to its end; the value of the last record, if there was one since the last call.
    pub fn latest(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let newest = self.read_on(timeout);
        if matches!(newest, Err(Error::Timeout { .. })) {
            // For the next call: a client may have lost every broker for good, see `Worker::start_over`.
            *self.consumer.borrow_mut() = connect(&self.settings)?;
        }
        newest
    }

    fn read_on(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let consumer = self.consumer.borrow();
        // Anew each time: an end of the partition that was met earlier may still wait in librdkafka's queue, before what came since.
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, self.next.get()).action("name a partition")?;
        consumer.assign(&list).action("read a topic")?;
        let deadline = Instant::now() + timeout;
        let (mut newest, mut next) = (None, self.next.get());
        while Instant::now() < deadline {
            match consumer.poll(POLL) {
                Some(Ok(m)) => {
                    newest = m.payload().map(<[u8]>::to_vec);
                    next = KafkaOffset::Offset(m.offset() + 1);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.next.set(next);
                    return Ok(newest);
                }
                Some(Err(cause)) => {
                    let e = Error::Call { action: "read a topic", cause };
                    if e.remedy() == super::Remedy::Stop {
                        return Err(e);
                    }
                    tracing::debug!(error = %e, "keep trying");
                }
                None => {}
            }
        }
        Err(Error::Timeout { action: "read a topic to its end", after: timeout })
    }

    /// Offset of the last record that was read, of a topic of one partition.
    pub fn last(&self) -> Option<Offset> {
        match self.next.get() {
            KafkaOffset::Offset(next) => Some(Offset(next - 1)),
            _ => None,
        }
    }

    /// The value of the next record, waiting for at most `timeout`.
    pub fn next(&self, timeout: Duration) -> Option<Vec<u8>> {
        let consumer = self.consumer.borrow();
        let message = consumer.poll(timeout)?.ok()?;
        self.next.set(KafkaOffset::Offset(message.offset() + 1));
        message.payload().map(<[u8]>::to_vec)
    }
}

fn connect(settings: &KafkaSettings) -> Result<Closing<BaseConsumer<Quiet>>> {
    client::consumer(&client::reader(settings), Quiet(Login::of(settings)), settings)
        .map(|consumer| Closing::new("topic reader", consumer))
        .map_err(|cause| Error::Client { role: "topic reader", cause })
}
