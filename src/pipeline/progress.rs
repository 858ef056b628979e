//! How far each partition is: read, committed, checkpointed, replayed.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::record::{NextOffset, PartitionId, Position};

/// How far each partition held is.
pub(super) struct Progress {
    /// Committed, and all of it in the state of its series; not for partitions that are replayed.
    pub(super) reached: BTreeMap<PartitionId, NextOffset>,
    /// What the last checkpoint includes.
    pub(super) marked: BTreeMap<PartitionId, NextOffset>,
    /// Up to where records are only read again.
    pub(super) replay: BTreeMap<PartitionId, NextOffset>,
    pub(super) checkpointed: Instant,
    /// Whether a partition has no checkpoint yet.
    pub(super) first: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let (reached, marked, replay) = Default::default();
        Progress { reached, marked, replay, checkpointed: Instant::now(), first: false }
    }

    /// A checkpoint of the partition includes everything before `checkpoint`, if there is one; records count from `from`. Returns
    /// where reading begins.
    pub(super) fn resume(
        &mut self,
        partition: PartitionId,
        checkpoint: Option<NextOffset>,
        from: NextOffset,
    ) -> NextOffset {
        self.forget(partition);
        let begin = checkpoint.unwrap_or(from);
        if begin < from {
            self.replay.insert(partition, from);
        } else {
            self.reached.insert(partition, from);
        }
        match checkpoint {
            Some(next) => drop(self.marked.insert(partition, next)),
            // With its first commit, else nobody would know later where the series began.
            None => self.first = true,
        }
        begin
    }

    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.reached.remove(&partition);
        self.marked.remove(&partition);
        self.replay.remove(&partition);
    }

    /// Whether the record is only read again.
    pub(super) fn replays(&mut self, position: Position) -> bool {
        let Some(&until) = self.replay.get(&position.partition) else { return false };
        let again = position.offset.0 < until.0;
        if position.offset.0 + 1 >= until.0 {
            self.replay.remove(&position.partition);
            self.reached.insert(position.partition, until);
        }
        again
    }

    /// Partitions that have moved on since their checkpoint.
    pub(super) fn unmarked(&self) -> Vec<(PartitionId, NextOffset)> {
        let moved = self.reached.iter().filter(|(partition, next)| self.marked.get(*partition) != Some(*next));
        moved.map(|(&partition, &next)| (partition, next)).collect()
    }
}
