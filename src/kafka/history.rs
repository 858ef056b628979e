//! The log as a training set: reads a range of every partition, without joining the group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::Closing;
use super::client::{self, Quiet};
use super::ends;
use super::error::{Context, Error, Result};
use super::message::raw;
use super::oauth::{self, Login};
use super::settings::KafkaSettings;
use crate::record::{NextOffset, Offset, PartitionId, RawRecord};

/// Longest single wait for a record.
const POLL: Duration = Duration::from_millis(500);
/// Longest single wait for any other answer; between two the caller shows that it is alive.
const CALL_MAX: Duration = Duration::from_secs(5);

/// A stretch of one partition: `start` is the first offset read, `end` the first one not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub partition: PartitionId,
    pub start: Offset,
    pub end: NextOffset,
}

/// Reads history in rounds: each round goes from where the last one ended to the ends of the log at its start.
pub struct HistoryReader {
    consumer: Closing<BaseConsumer<Quiet>>,
    topic: String,
    timeout: Duration,
    ranges: BTreeMap<PartitionId, Range>,
    older: u64,
}

impl HistoryReader {
    /// Chooses where to start: no further back than `since_ms` (milliseconds since the epoch), and at most `max_records` in all.
    /// Like all calls here it asks `wanted` before each request, and fails when that says no.
    pub fn open(
        settings: &KafkaSettings,
        since_ms: Option<i64>,
        max_records: u64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<HistoryReader> {
        let consumer = client::consumer(&client::reader(settings), Quiet(Login::of(settings)), settings)
            .map_err(|cause| Error::Client { role: "history reader", cause })?;
        let mut reader = HistoryReader {
            consumer: Closing::new("history reader", consumer),
            topic: settings.input.clone(),
            timeout: settings.request_timeout,
            ranges: BTreeMap::new(),
            older: 0,
        };
        let ends = reader.ends(wanted)?;
        let oldest = reader.oldest_since(&ends, since_ms)?;
        let available: u64 = ends.iter().map(|(p, &(_, high))| high.saturating_sub(oldest[p]) as u64).sum();
        reader.older = ends.iter().map(|(p, &(low, _))| oldest[p].saturating_sub(low) as u64).sum();
        for (&partition, &(_, high)) in &ends {
            let there = high.saturating_sub(oldest[&partition]) as u64;
            // Every partition gives the same share, its newest records.
            let wanted = if available > max_records {
                (there as u128 * max_records as u128 / available as u128) as u64
            } else {
                there
            };
            let start = high - wanted as i64;
            reader.ranges.insert(partition, Range { partition, start: Offset(start), end: NextOffset(start) });
        }
        Ok(reader)
    }

    /// Offsets before `since_ms`, of which nothing is read.
    pub fn older(&self) -> u64 {
        self.older
    }

    /// Offsets between where reading stands and the ends of the log now: an upper bound of the records to come.
    pub fn available(&self, wanted: &dyn Fn() -> bool) -> Result<u64> {
        let ends = self.ends(wanted)?;
        Ok(ends.iter().map(|(p, &(_, high))| high.saturating_sub(self.position(*p)).max(0) as u64).sum())
    }

    /// Reads on to the ends the log has now; every record goes to `take` once, partitions interleaved in any way.
    /// Fails when nothing arrives for the request timeout, or when `wanted` turns false.
    pub fn read(&mut self, wanted: &dyn Fn() -> bool, take: &mut dyn FnMut(&RawRecord<'_>)) -> Result<()> {
        let ends = self.ends(wanted)?;
        let mut open: BTreeMap<i32, i64> = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (&partition, &(low, high)) in &ends {
            let from = self.position(partition).max(low);
            let range =
                self.ranges.entry(partition).or_insert(Range { partition, start: Offset(from), end: NextOffset(from) });
            range.end = NextOffset(high);
            if from < high {
                list.add_partition_offset(&self.topic, partition.0, KafkaOffset::Offset(from))
                    .action("name an offset")?;
                open.insert(partition.0, high);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        self.consumer.assign(&list).action("read history")?;
        let read = self.drain(&mut open, wanted, take);
        self.consumer.unassign().action("stop reading history")?;
        read
    }

    /// What was read so far.
    pub fn ranges(&self) -> Vec<Range> {
        self.ranges.values().copied().collect()
    }

    fn drain(
        &self,
        open: &mut BTreeMap<i32, i64>,
        wanted: &dyn Fn() -> bool,
        take: &mut dyn FnMut(&RawRecord<'_>),
    ) -> Result<()> {
        let mut last = Instant::now();
        while !open.is_empty() {
            if !wanted() || last.elapsed() > self.timeout {
                return Err(Error::Timeout { action: "read history", after: last.elapsed() });
            }
            match self.consumer.poll(POLL) {
                Some(Ok(m)) => {
                    match open.get(&m.partition()) {
                        Some(&end) if m.offset() < end => take(&raw(&m)),
                        _ => {}
                    }
                    // After it was taken, which may have had to wait for something else.
                    last = Instant::now();
                    if open.get(&m.partition()).is_some_and(|&end| m.offset() + 1 >= end) {
                        open.remove(&m.partition());
                    }
                }
                // Past the last record lie only transaction markers.
                Some(Err(KafkaError::PartitionEOF(p))) => {
                    open.remove(&p);
                }
                Some(Err(cause)) => {
                    let e = Error::Call { action: "read history", cause };
                    if e.remedy() == super::Remedy::Stop {
                        return Err(e);
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    fn position(&self, partition: PartitionId) -> i64 {
        self.ranges.get(&partition).map_or(0, |r| r.end.0)
    }

    /// First and next offset of every partition.
    fn ends(&self, wanted: &dyn Fn() -> bool) -> Result<BTreeMap<PartitionId, (i64, i64)>> {
        oauth::stay_logged_in(&self.consumer);
        let call_timeout = self.timeout.min(CALL_MAX);
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), call_timeout)
            .action("fetch the partitions of the input topic")?;
        let partitions = metadata.topics().first().map_or(&[][..], |t| t.partitions());
        if partitions.is_empty() {
            return Err(Error::MissingTopic { topic: self.topic.clone() });
        }
        let partitions: Vec<_> = partitions.iter().map(|p| PartitionId(p.id())).collect();
        ends::ends(&self.consumer, &self.topic, &partitions, call_timeout, wanted)
    }

    /// The first offset of each partition at or after `since_ms`.
    fn oldest_since(
        &self,
        ends: &BTreeMap<PartitionId, (i64, i64)>,
        since_ms: Option<i64>,
    ) -> Result<BTreeMap<PartitionId, i64>> {
        let mut oldest: BTreeMap<PartitionId, i64> = ends.iter().map(|(&p, &(low, _))| (p, low)).collect();
        if let Some(since_ms) = since_ms {
            let mut list = TopicPartitionList::new();
            for &p in ends.keys() {
                list.add_partition_offset(&self.topic, p.0, KafkaOffset::Offset(since_ms)).action("name a time")?;
            }
            let found =
                self.consumer.offsets_for_times(list, self.timeout.min(CALL_MAX)).action("find offsets by time")?;
            for e in found.elements() {
                let p = PartitionId(e.partition());
                if let Some(&(low, high)) = ends.get(&p) {
                    // No record that young: nothing of this partition is history.
                    let first = if let KafkaOffset::Offset(o) = e.offset() { o } else { high };
                    oldest.insert(p, first.clamp(low, high));
                }
            }
        }
        Ok(oldest)
    }
}
