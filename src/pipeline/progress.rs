//! How far each partition is: read, committed, checkpointed, replayed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::engine::Found;
use super::recovery::{SEARCH_PAUSE_MAX, SEARCH_PAUSE_MIN};
use crate::record::{NextOffset, Offset, PartitionId, Position};

/// What a record is to the partition that it is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    New,
    /// It was judged before.
    Again,
    /// Where reading of its partition begins is not known yet.
    Unasked,
    /// It lies before the one that must come next.
    Behind(NextOffset),
}

/// How far each partition held is.
pub(super) struct Progress {
    /// Before which no record may come; only of partitions whose place is known.
    next: BTreeMap<PartitionId, NextOffset>,
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
        let (next, reached, marked, replay) = Default::default();
        Progress { next, reached, marked, replay, checkpointed: Instant::now(), first: false }
    }

    /// Reading of the partition begins where it was found.
    pub(super) fn resume(&mut self, found: &Found) {
        let Found { partition, from, checkpoint, .. } = *found;
        self.forget(partition);
        self.next.insert(partition, found.begin());
        if found.begin() < from {
            self.replay.insert(partition, from);
        } else {
            self.reached.insert(partition, from);
        }
        match checkpoint {
            Some(next) => drop(self.marked.insert(partition, next)),
            // With its first commit, else nobody would know later where the series began.
            None => self.first = true,
        }
    }

    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.next.remove(&partition);
        self.reached.remove(&partition);
        self.marked.remove(&partition);
        self.replay.remove(&partition);
    }

    /// Whether its records are read.
    pub(super) fn is_read(&self, partition: PartitionId) -> bool {
        self.next.contains_key(&partition)
    }

    /// Whether it was judged before.
    pub(super) fn is_again(&self, position: Position) -> bool {
        self.replay.get(&position.partition).is_some_and(|until| position.offset.0 < until.0)
    }

    /// Whether reading of any partition has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Takes note of a record that was read.
    pub(super) fn see(&mut self, position: Position) -> Sight {
        let Position { partition, offset } = position;
        let Some(next) = self.next.get_mut(&partition) else { return Sight::Unasked };
        if offset.0 < next.0 {
            return Sight::Behind(*next);
        }
        *next = offset.next();
        let Some(&until) = self.replay.get(&partition) else { return Sight::New };
        let again = offset.0 < until.0;
        if offset.0 + 1 >= until.0 {
            self.replay.remove(&partition);
            self.reached.insert(partition, until);
        }
        if again { Sight::Again } else { Sight::New }
    }

    /// Partitions that have moved on since their checkpoint.
    pub(super) fn unmarked(&self) -> Vec<(PartitionId, NextOffset)> {
        let moved = self.reached.iter().filter(|(partition, next)| self.marked.get(*partition) != Some(*next));
        moved.map(|(&partition, &next)| (partition, next)).collect()
    }
}

/// Partitions whose next record cannot be decoded yet, and since when. Between two tries they are astray.
pub(super) struct Waiting {
    since: BTreeMap<PartitionId, (Offset, Instant)>,
    /// Before the next try.
    pause: Duration,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting { since: BTreeMap::new(), pause: SEARCH_PAUSE_MIN }
    }
}

impl Waiting {
    /// Another try was in vain; how long to wait for the next one.
    pub(super) fn hold(&mut self, Position { partition, offset }: Position) -> Duration {
        let since = self.since.get(&partition).map_or_else(Instant::now, |(_, since)| *since);
        self.since.insert(partition, (offset, since));
        let doubled = (2 * self.pause).min(SEARCH_PAUSE_MAX);
        std::mem::replace(&mut self.pause, doubled)
    }

    /// A record of the partition can be decoded; whether it waited.
    #[inline]
    pub(super) fn release(&mut self, partition: PartitionId) -> bool {
        if self.since.is_empty() || self.since.remove(&partition).is_none() {
            return false;
        }
        self.pause = SEARCH_PAUSE_MIN;
        true
    }

    /// Reading goes on in the partition from `next`: beyond the record that it waited for, if that is no longer in the log.
    pub(super) fn resumed(&mut self, partition: PartitionId, next: NextOffset) {
        if self.since.get(&partition).is_some_and(|(offset, _)| offset.0 < next.0) {
            self.release(partition);
        }
    }

    pub(super) fn forget(&mut self, gone: &dyn Fn(&PartitionId) -> bool) {
        self.since.retain(|partition, _| !gone(partition));
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = (PartitionId, Instant)> + Clone {
        self.since.iter().map(|(&partition, &(_, since))| (partition, since))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Restore;

    #[test]
    fn records_are_replayed_then_new_and_never_behind() {
        let mut progress = Progress::new();
        let partition = PartitionId(3);
        let see = |progress: &mut Progress, offset| progress.see(Position { partition, offset: Offset(offset) });
        assert_eq!(see(&mut progress, 5), Sight::Unasked);
        let (from, checkpoint) = (NextOffset(20), Some(NextOffset(10)));
        progress.resume(&Found { partition, from, checkpoint, restore: Restore::Whole, unreadable: 0 });
        assert_eq!(see(&mut progress, 0), Sight::Behind(NextOffset(10)), "Kafka went back to the beginning");
        assert_eq!([10, 15, 19].map(|offset| see(&mut progress, offset)), [Sight::Again; 3]);
        assert_eq!(see(&mut progress, 19), Sight::Behind(NextOffset(20)));
        assert_eq!([20, 24].map(|offset| see(&mut progress, offset)), [Sight::New; 2]);
        assert_eq!(progress.unmarked(), [(partition, NextOffset(20))]);
        progress.forget(partition);
        assert_eq!(see(&mut progress, 25), Sight::Unasked);
    }
}
