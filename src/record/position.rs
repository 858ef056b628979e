//! Where a record lies in the log. Three integers that must not be mixed up, so three types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of a partition of the input topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub i32);

/// Offset of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub i64);

/// Offset to resume at; the only one that can be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NextOffset(pub i64);

/// A record's place in the topic, ordered by partition, then offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub partition: PartitionId,
    pub offset: Offset,
}

impl Offset {
    pub fn next(self) -> NextOffset {
        NextOffset(self.0 + 1)
    }
}

impl Position {
    /// The identifier of everything written about this record: `topic-partition-offset`.
    pub fn id(&self, topic: &str) -> String {
        format!("{topic}-{}-{}", self.partition, self.offset)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, offset: i64) -> Position {
        Position { partition: PartitionId(partition), offset: Offset(offset) }
    }

    #[test]
    fn positions_order_by_partition_then_offset() {
        let mut positions = [at(1, 0), at(0, 9), at(0, 10), at(-1, 99)];
        positions.sort();
        assert_eq!(positions, [at(-1, 99), at(0, 9), at(0, 10), at(1, 0)]);
    }

    #[test]
    fn the_id_names_topic_partition_and_offset() {
        assert_eq!(at(3, 1289).id("sensors"), "sensors-3-1289");
    }

    #[test]
    fn the_offset_to_commit_is_the_one_after_the_record() {
        assert_eq!(Offset(41).next(), NextOffset(42));
    }
}
