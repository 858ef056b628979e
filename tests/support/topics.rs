//! Topics of a test's Kafka: create, fill, read to the end.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::{Broker, PATIENCE, topic, wait_for};

/// How long one call to the client library may block before a deadline is looked at again.
const TICK: Duration = Duration::from_millis(100);

/// A message to be written. `Default` has neither key nor value; Kafka chooses partition and time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outgoing {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970, UTC.
    pub timestamp_ms: Option<i64>,
}

impl Outgoing {
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Outgoing {
        Outgoing { key: Some(key.into()), value: Some(value.into()), ..Outgoing::default() }
    }
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970, UTC.
    pub timestamp_ms: Option<i64>,
}

impl Message {
    /// The value as text; empty for a tombstone.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap_or_default()).expect("a value in UTF-8")
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }

    fn copy(message: &BorrowedMessage<'_>) -> Message {
        let headers = message.headers().map(|headers| headers.iter()).into_iter().flatten();
        Message {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}

/// Whether messages of open and aborted transactions are seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Isolation {
    Committed,
    Uncommitted,
}

impl Broker {
    /// Settings of a client of this Kafka, to be completed.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Creates a topic and waits until each partition has a leader. `settings` are topic settings of Kafka. With three
    /// brokers there are three copies.
    #[track_caller]
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        // -1: the broker's default
        self.create_topic_with(name, partitions, -1, settings);
    }

    /// The same, with this many copies.
    #[track_caller]
    pub fn create_topic_with(&self, name: &str, partitions: i32, copies: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("create an admin client");
        let mut new = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("build a runtime");
        let results = runtime.block_on(admin.create_topics([&new], &options)).expect("ask for a topic");
        results.into_iter().for_each(|result| {
            result.expect("create a topic");
        });
        wait_for("leaders of the new topic", PATIENCE, || {
            let metadata = admin.inner().fetch_metadata(Some(name), TICK * 20).ok()?;
            let led = metadata.topics().first()?.partitions().iter().filter(|p| p.leader() >= 0).count();
            (led == partitions as usize).then_some(())
        });
    }

    /// Writes messages, in order within a partition, and returns when all are acknowledged.
    #[track_caller]
    pub fn produce(&self, topic: &str, messages: impl IntoIterator<Item = Outgoing>) {
        let producer = self.producer(&[("linger.ms", "5")]);
        for message in messages {
            send(&producer, topic, &message);
        }
        settle(&producer);
    }

    /// A producer for [`send`](fn@send) and [`settle`](fn@settle), with these settings.
    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer<Deliveries> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("message.timeout.ms", PATIENCE.as_millis().to_string());
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create_with_context(Deliveries::default()).expect("create a producer")
    }

    /// All committed messages of a topic up to its present end, by partition and offset.
    #[track_caller]
    pub fn read(&self, topic: &str) -> Vec<Message> {
        self.read_with(topic, Isolation::Committed)
    }

    /// All messages of a topic up to its present end, by partition and offset.
    #[track_caller]
    pub fn read_with(&self, topic: &str, isolation: Isolation) -> Vec<Message> {
        let (consumer, partitions) = self.consumer(topic, isolation);
        let mut at_end = HashSet::new();
        let mut messages = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while at_end.len() < partitions {
            assert!(Instant::now() < deadline, "no end of {topic} after {} messages in {PATIENCE:?}", messages.len());
            match consumer.poll(TICK) {
                Some(Ok(message)) => messages.push(Message::copy(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                }
                Some(Err(error)) => tolerate(topic, &error),
                None => {}
            }
        }
        messages.sort_by_key(|message| (message.partition, message.offset));
        messages
    }

    /// Reads committed messages as they come until `enough` says so; each time it is shown all so far, by arrival.
    ///
    /// # Panics
    /// After `within`, with the number of messages so far.
    #[track_caller]
    pub fn read_until(&self, topic: &str, within: Duration, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let (consumer, _) = self.consumer(topic, Isolation::Committed);
        let mut messages = Vec::new();
        let deadline = Instant::now() + within;
        while !enough(&messages) {
            assert!(Instant::now() < deadline, "waited {within:?} in vain on {topic}: {} messages", messages.len());
            match consumer.poll(TICK) {
                Some(Ok(message)) => messages.push(Message::copy(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => tolerate(topic, &error),
            }
        }
        messages
    }

    /// Offsets that a consumer group has committed, one per partition in order; `None` where there is none.
    #[track_caller]
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("create a consumer");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, self.partitions(&consumer, topic) as i32 - 1);
        let known =
            wait_for("committed offsets", PATIENCE, || consumer.committed_offsets(asked.clone(), TICK * 20).ok());
        known.elements().iter().map(|element| element.offset().to_raw().filter(|&offset| offset >= 0)).collect()
    }

    /// A consumer at the beginning of all partitions, outside of any group's management, and their number.
    fn consumer(&self, name: &str, isolation: Isolation) -> (BaseConsumer, usize) {
        let isolation = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let mut config = self.client();
        config.set("group.id", topic("reader")).set("isolation.level", isolation);
        config.set("enable.partition.eof", "true").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = config.create().expect("create a consumer");
        let partitions = self.partitions(&consumer, name);
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            let added = assignment.add_partition_offset(name, partition as i32, Offset::Beginning);
            added.expect("a valid start");
        }
        consumer.assign(&assignment).expect("assign all partitions");
        (consumer, partitions)
    }

    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> usize {
        wait_for(&format!("partitions of {topic}"), PATIENCE, || {
            let metadata = consumer.fetch_metadata(Some(topic), TICK * 20).ok()?;
            Some(metadata.topics().first()?.partitions().len()).filter(|&count| count > 0)
        })
    }
}

/// Remembers the first message that could not be delivered.
#[derive(Default)]
pub struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.failed.lock().expect("a sound lock").get_or_insert_with(|| error.clone());
        }
    }
}

/// Queues one message, and waits where the queue is full.
#[track_caller]
pub fn send(producer: &BaseProducer<Deliveries>, topic: &str, message: &Outgoing) {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    record.partition = message.partition;
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    record.timestamp = message.timestamp_ms;
    if !message.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(message.headers.len());
        let all = message
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        record.headers = Some(all);
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err((error, refused)) = producer.send(record) {
        let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        assert!(full && Instant::now() < deadline, "cannot write to {topic}: {error}");
        producer.poll(TICK);
        record = refused;
    }
}

/// Waits until every queued message is acknowledged.
#[track_caller]
pub fn settle(producer: &BaseProducer<Deliveries>) {
    let deadline = Instant::now() + PATIENCE;
    while producer.in_flight_count() > 0 {
        assert!(Instant::now() < deadline, "{} messages not acknowledged", producer.in_flight_count());
        producer.poll(Duration::from_millis(10));
    }
    let failed = producer.context().failed.lock().expect("a sound lock").clone();
    assert!(failed.is_none(), "cannot deliver: {failed:?}");
}

/// Errors that pass by themselves (a broker is being restarted) are for the deadline to judge.
#[track_caller]
fn tolerate(topic: &str, error: &KafkaError) {
    let passing = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure)
    );
    assert!(passing, "cannot read {topic}: {error}");
}
