//! What was read since the last commit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::POLL_MAX;
use super::live::Glance;
use crate::kafka::{self, Output};
use crate::metrics::{Metrics, Outcomes, Scores};
use crate::record::{NextOffset, PartitionId, RawRecord};

/// Everything read since the last commit.
pub(super) struct Open {
    /// From when on the commit interval counts, while there is something to commit.
    pub(super) since: Option<Instant>,
    /// When the last commit began, or failed.
    last: Option<Instant>,
    /// Kafka timestamp of the oldest record, milliseconds since the epoch.
    pub(super) oldest_ms: Option<i64>,
    pub(super) next: BTreeMap<PartitionId, NextOffset>,
    pub(super) outcomes: Outcomes,
    pub(super) scores: Scores,
    pub(super) glance: Glance,
    /// Records read, and how many of them the metrics know of.
    pub(super) read: u64,
    pub(super) reported: u64,
}

impl Open {
    pub(super) fn new(scores: Scores) -> Open {
        let (next, outcomes) = (BTreeMap::new(), Outcomes::default());
        let glance = Glance::default();
        Open { since: None, last: None, oldest_ms: None, next, outcomes, scores, glance, read: 0, reported: 0 }
    }

    pub(super) fn begin(&mut self, output: &mut Output) -> kafka::Result<()> {
        if self.since.is_none() {
            output.begin()?;
            // Records may have been waiting since the last commit began. Where it was long ago nothing is gained by waiting on.
            self.since = Some(self.last.unwrap_or_else(Instant::now));
        }
        Ok(())
    }

    pub(super) fn read(&mut self, raw: &RawRecord<'_>) {
        self.next.insert(raw.position.partition, raw.position.offset.next());
        self.read += 1;
        self.oldest_ms = match (self.oldest_ms, raw.timestamp_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    pub(super) fn wait(&self, commit_interval: Duration) -> Duration {
        self.since.map_or(POLL_MAX, |since| commit_interval.saturating_sub(since.elapsed()).min(POLL_MAX))
    }

    pub(super) fn is_due(&self, commit_interval: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= commit_interval)
    }

    /// Tells the metrics of the records read since it last told them.
    pub(super) fn report(&mut self, metrics: &Metrics, worker: &str) {
        metrics.consumed(worker, self.read - self.reported);
        self.reported = self.read;
    }

    pub(super) fn abandon(&mut self, metrics: &Metrics, worker: &str) {
        self.report(metrics, worker);
        metrics.rewound(worker, self.read);
        self.scores.abandon();
        self.clear(Instant::now());
    }

    /// `last`: when the commit began.
    pub(super) fn clear(&mut self, last: Instant) {
        self.since = None;
        self.last = Some(last);
        self.oldest_ms = None;
        self.next.clear();
        self.outcomes.clear();
        self.glance = Glance::default();
        self.read = 0;
        self.reported = 0;
    }
}
