//! The state topic: compacted, one partition per partition of the input. A key is a series, or the marker of the partition.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::Closing;
use super::client::{self, Quiet};
use super::ends::{go_on, next_offsets};
use super::error::{Context, Error, Result};
use super::message::Outgoing;
use super::oauth::Login;
use super::producer::Output;
use super::settings::KafkaSettings;
use crate::record::PartitionId;

const MARKER: &[u8] = b"marker";
/// What the key of a series begins with.
const SERIES: u8 = b'/';
/// Longest single wait for a record.
const POLL: Duration = Duration::from_millis(100);
/// Longest single wait for any other answer.
const CALL_MAX: Duration = Duration::from_secs(5);

/// The newest of everything in one partition.
#[derive(Default)]
pub struct Stored {
    pub marker: Option<Vec<u8>>,
    pub series: HashMap<String, Vec<u8>>,
    /// Whether it is all there is. Not while a transaction is open in the partition, or committed and not yet marked so: the end that
    /// a reader of committed records meets then lies before it.
    pub complete: bool,
}

/// Reads the state of these partitions to its end; asks `alive` in between, and fails when that says no, or when nothing arrives for
/// the request timeout.
pub fn read_state(
    settings: &KafkaSettings,
    partitions: &[PartitionId],
    alive: &dyn Fn() -> bool,
) -> Result<BTreeMap<PartitionId, Stored>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut config = client::reader(settings);
    config.set("fetch.wait.max.ms", "20");
    let consumer = client::consumer(&config, Quiet(Login::of(settings)), settings)
        .map_err(|cause| Error::Client { role: "state reader", cause })?;
    let consumer = Closing::new("state reader", consumer);
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(&settings.state, partition.0, KafkaOffset::Beginning).action("name a partition")?;
    }
    // Before reading: what is complete now is complete in what is read from now on.
    let complete = complete(&consumer, settings, partitions, alive)?;
    consumer.assign(&list).action("read the state")?;
    let mut stored = read_to_end(&consumer, settings.request_timeout, partitions.to_vec(), alive);
    for &partition in partitions {
        if let Ok(stored) = &mut stored {
            stored.entry(partition).or_default().complete = complete.contains(&partition);
        }
    }
    drop(consumer); // before the next sign of life, as it may take a while
    stored
}

/// Of these partitions, those in which committed records reach up to the last one.
fn complete(
    committed: &BaseConsumer<Quiet>,
    settings: &KafkaSettings,
    partitions: &[PartitionId],
    alive: &dyn Fn() -> bool,
) -> Result<BTreeSet<PartitionId>> {
    let mut config = client::reader(settings);
    config.set("isolation.level", "read_uncommitted");
    let all: BaseConsumer<Quiet> = client::consumer(&config, Quiet(Login::of(settings)), settings)
        .map_err(|cause| Error::Client { role: "state reader", cause })?;
    let all = Closing::new("state reader", all);
    let timeout = settings.request_timeout.min(CALL_MAX);
    // In this order: what is written in between may only be taken for open.
    go_on(alive)?;
    let committed = next_offsets(committed, &settings.state, partitions, timeout)?;
    go_on(alive)?;
    let all = next_offsets(&all, &settings.state, partitions, timeout)?;
    Ok(committed.into_iter().filter(|(p, end)| all.get(p).is_some_and(|all| end >= all)).map(|(p, _)| p).collect())
}

fn read_to_end(
    consumer: &BaseConsumer<Quiet>,
    timeout: Duration,
    mut open: Vec<PartitionId>,
    alive: &dyn Fn() -> bool,
) -> Result<BTreeMap<PartitionId, Stored>> {
    let mut stored: BTreeMap<PartitionId, Stored> = BTreeMap::new();
    let mut last = Instant::now();
    while !open.is_empty() {
        if !alive() || last.elapsed() > timeout {
            return Err(Error::Timeout { action: "read the state", after: last.elapsed() });
        }
        match consumer.poll(POLL) {
            Some(Ok(m)) => {
                last = Instant::now();
                take(stored.entry(PartitionId(m.partition())).or_default(), m.key().unwrap_or_default(), m.payload());
            }
            Some(Err(KafkaError::PartitionEOF(p))) => open.retain(|partition| partition.0 != p),
            Some(Err(cause)) => {
                let error = Error::Call { action: "read the state", cause };
                if error.remedy() == super::Remedy::Stop {
                    return Err(error);
                }
            }
            None => {}
        }
    }
    Ok(stored)
}

fn take(stored: &mut Stored, key: &[u8], value: Option<&[u8]>) {
    match (key, value) {
        (MARKER, value) => stored.marker = value.map(<[u8]>::to_vec),
        ([SERIES, series @ ..], value) => {
            // residua writes no others.
            let Ok(series) = std::str::from_utf8(series) else { return };
            match value {
                Some(bytes) => drop(stored.series.insert(series.to_owned(), bytes.to_vec())),
                None => drop(stored.series.remove(series)),
            }
        }
        _ => {}
    }
}

impl Output {
    /// State of a series; none for one that was forgotten. `key` is a buffer.
    pub fn send_series(
        &mut self,
        settings: &KafkaSettings,
        partition: PartitionId,
        series: &str,
        value: Option<&[u8]>,
        key: &mut Vec<u8>,
    ) -> Result<()> {
        key.clear();
        key.push(SERIES);
        key.extend_from_slice(series.as_bytes());
        self.send_state(Outgoing {
            topic: &settings.state,
            partition: Some(partition),
            key: Some(key),
            value,
            ..Outgoing::default()
        })
    }

    /// The marker of a partition.
    pub fn send_marker(&mut self, settings: &KafkaSettings, partition: PartitionId, marker: &[u8]) -> Result<()> {
        self.send_state(Outgoing {
            topic: &settings.state,
            partition: Some(partition),
            key: Some(MARKER),
            value: Some(marker),
            ..Outgoing::default()
        })
    }
}
