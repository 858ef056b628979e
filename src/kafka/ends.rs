//! Where partitions begin and end, and which of them have a leader: all at once, as there may be thousands.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::error::{Context, Error, Remedy, Result};
use crate::record::PartitionId;

/// First and next offset of each of these partitions. Asks `alive` between requests, of which there is one for each end and leader.
pub(super) fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    timeout: Duration,
    alive: &dyn Fn() -> bool,
) -> Result<BTreeMap<PartitionId, (i64, i64)>> {
    go_on(alive)?;
    let low = offsets(consumer, topic, partitions, KafkaOffset::Beginning, timeout)?;
    go_on(alive)?;
    let high = next_offsets(consumer, topic, partitions, timeout)?;
    Ok(low.into_iter().map(|(p, low)| (p, (low, high.get(&p).copied().unwrap_or(low).max(low)))).collect())
}

/// The next offset of each of these partitions, as far as this reader can see.
pub(super) fn next_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    timeout: Duration,
) -> Result<BTreeMap<PartitionId, i64>> {
    offsets(consumer, topic, partitions, KafkaOffset::End, timeout)
}

/// Partitions of a topic, and who leads each, if anybody does.
///
/// # Errors
/// A right is missing. That a starting broker may deny the topic is no error: there are no partitions then.
pub(super) fn leaders<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<BTreeMap<PartitionId, Option<i32>>> {
    const ACTION: &str = "ask Kafka for the leaders of partitions";
    let metadata = consumer.fetch_metadata(Some(topic), timeout).action(ACTION)?;
    let Some(topic) = metadata.topics().first() else { return Ok(BTreeMap::new()) };
    if let Some(error) = topic.error() {
        let error = Error::Call { action: ACTION, cause: KafkaError::MetadataFetch(error.into()) };
        if error.remedy() == Remedy::Stop {
            return Err(error);
        }
    }
    let leader = |id| (id >= 0).then_some(id);
    Ok(topic.partitions().iter().map(|p| (PartitionId(p.id()), leader(p.leader()))).collect())
}

fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    end: KafkaOffset,
    timeout: Duration,
) -> Result<BTreeMap<PartitionId, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    const ACTION: &str = "fetch the ends of partitions";
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition.0, end).action("name a partition")?;
    }
    // Kafka's request for offsets by time: the two ends have times of their own.
    let found = consumer.offsets_for_times(list, timeout).action(ACTION)?;
    let mut offsets = BTreeMap::new();
    for e in found.elements() {
        e.error().action("fetch the end of a partition")?;
        let KafkaOffset::Offset(offset) = e.offset() else {
            return Err(Error::Timeout { action: ACTION, after: timeout });
        };
        offsets.insert(PartitionId(e.partition()), offset);
    }
    Ok(offsets)
}

/// An error if there is no need to go on.
pub(super) fn go_on(alive: &dyn Fn() -> bool) -> Result<()> {
    if alive() { Ok(()) } else { Err(Error::Timeout { action: "go on, asked to stop", after: Duration::ZERO }) }
}
