//! What was read since the last commit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::POLL_MAX;
use super::live::Glance;
use crate::kafka::{self, Output};
use crate::metrics::{Metrics, Outcomes, Scores};
use crate::record::{NextOffset, PartitionId, RawRecord};

/// Work between two commits lasts as long as the last one took, and at most so long: a commit that takes longer than the commit interval,
/// as it does where Kafka is overloaded, would else be followed by the next one after a few records.
const WORK_MAX: Duration = Duration::from_secs(1);

/// Everything read since the last commit.
pub(super) struct Open {
    /// From when on the commit interval counts, while there is something to commit.
    pub(super) since: Option<Instant>,
    /// When the last commit began, or failed.
    last: Option<Instant>,
    /// Until when there is work before the next one.
    work_until: Instant,
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
        let work_until = Instant::now();
        Open {
            since: None,
            last: None,
            work_until,
            oldest_ms: None,
            next,
            outcomes,
            scores,
            glance,
            read: 0,
            reported: 0,
        }
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
        let left = |since| self.due(since, commit_interval).saturating_duration_since(Instant::now());
        self.since.map_or(POLL_MAX, |since| left(since).min(POLL_MAX))
    }

    pub(super) fn is_due(&self, commit_interval: Duration) -> bool {
        self.since.is_some_and(|since| Instant::now() >= self.due(since, commit_interval))
    }

    fn due(&self, since: Instant, commit_interval: Duration) -> Instant {
        (since + commit_interval).max(self.work_until)
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
        self.work_until = Instant::now() + last.elapsed().min(WORK_MAX);
        self.oldest_ms = None;
        self.next.clear();
        self.outcomes.clear();
        self.glance = Glance::default();
        self.read = 0;
        self.reported = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricsSettings;

    const INTERVAL: Duration = Duration::from_millis(100);

    /// How long after the end of a commit that took so long, and after which a record came at once, the next one is due: at least and at most,
    /// as the end lies between two looks at the clock.
    fn pause_after(took: Duration) -> (Duration, Duration) {
        let metrics = Metrics::new("0", "sensors", &[], &[], &MetricsSettings::default()).unwrap();
        let mut open = Open::new(metrics.scores());
        let (before, start) = (Instant::now(), Instant::now().checked_sub(took).unwrap());
        open.clear(start);
        open.since = open.last;
        let due = open.due(start, INTERVAL);
        (due.duration_since(Instant::now()), due.duration_since(before))
    }

    #[test]
    fn commits_begin_a_commit_interval_after_each_other() {
        let (least, most) = pause_after(Duration::from_millis(10));
        assert!(least <= Duration::from_millis(90) && most >= Duration::from_millis(90), "{least:?} to {most:?}");
    }

    #[test]
    fn where_commits_are_slow_there_is_as_much_time_for_work() {
        for (took, expect) in [(400, 400), (60_000, 1_000)] {
            let (least, most) = pause_after(Duration::from_millis(took));
            let expect = Duration::from_millis(expect);
            // What the test itself takes counts as a part of the commit.
            assert!(least <= expect + (most - least) && most >= expect, "{took} ms: {least:?} to {most:?}");
        }
    }
}
