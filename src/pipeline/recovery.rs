//! The way back to the last commit, after whatever failed.

use std::time::{Duration, Instant};

use super::progress::Progress;
use super::{RETRY_PAUSE, Worker, WorkerError, connect};
use crate::kafka::{self, Remedy};
use crate::metrics::CommitEnd;

/// Pause between two looks for partitions that have no leader, while others have one.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// For how long after trouble with Kafka its echo is expected.
const SHADOW_TIME: Duration = Duration::from_secs(120);

impl Worker {
    pub(super) fn not_committed(&self, error: &kafka::Error) {
        let end = if error.remedy() == Remedy::Abort { CommitEnd::Aborted } else { CommitEnd::Unknown };
        self.shared.metrics.committed(end);
    }

    /// Throws away what is not committed.
    pub(super) fn give_up(&mut self) -> kafka::Result<()> {
        self.open.abandon(&self.shared.metrics, &self.label);
        self.engine.forget();
        self.output.abort()
    }

    /// After a failed call: back to the last commit, with a new producer where the old one is of no use.
    pub(super) fn recover(&mut self, error: kafka::Error) -> Result<(), WorkerError> {
        let remedy = error.remedy();
        if error.is_fenced_member() && self.may_be_its_own_shadow() {
            tracing::warn!(%error, "the group has lost track of this member, joining anew");
            self.open.abandon(&self.shared.metrics, &self.label);
            self.engine.forget();
            self.broken |= self.output.abort().is_err();
            self.fenced = Some(Instant::now());
            return Ok(self.join_again()?);
        }
        if remedy == Remedy::Stop {
            return Err(error.into());
        }
        tracing::warn!(%error, "going back to the last commit");
        self.failed = Some(Instant::now());
        self.shared.pulse.turn();
        self.not_committed(&error);
        if let Some(topic) = error.untimely_for() {
            // Only dead letters carry a time that is not that of writing.
            if topic != self.settings.kafka.dead_letters || !self.engine.stamp_dead_letters_anew() {
                return Err(error.into());
            }
            tracing::warn!(
                "the dead-letter topic refuses a timestamp; dead letters of this process carry theirs in a header from now on"
            );
        }
        if let Some(topic) = error.too_large_for() {
            // Nothing else that residua writes can be cut.
            let cut = (topic == self.settings.kafka.dead_letters).then(|| self.engine.shorten_dead_letters()).flatten();
            let Some(max_bytes) = cut else { return Err(error.into()) };
            tracing::warn!(
                max_bytes,
                "a dead letter was too large for its topic; all that this process writes are cut to this from now on"
            );
        }
        self.open.abandon(&self.shared.metrics, &self.label);
        self.engine.forget();
        // Nothing is known of any partition until the way back is found: a checkpoint now would skip what was not committed.
        self.progress = Progress::new();
        self.broken |= remedy == Remedy::Replace || self.output.abort().is_err();
        self.shared.pulse.turn();
        self.astray = self.held.iter().map(|&p| (p, Instant::now())).collect();
        self.look_again = None;
        // A commit that still waits in librdkafka would take on the member's next generation, and set offsets back.
        if error.is_out_of_range() || error.is_undecided_commit() {
            self.join_again()?;
        }
        // What failed once may fail again at once: not as fast as the processor can.
        std::thread::sleep(RETRY_PAUSE);
        Ok(())
    }

    /// When a coordinator dies, a static member can be fenced by an earlier request of its own, whose answer was lost. So soon after
    /// trouble, and not twice in a row, that is likelier than another process of the same name.
    fn may_be_its_own_shadow(&self) -> bool {
        let lately = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < SHADOW_TIME);
        !lately(self.fenced) && (lately(self.failed) || self.input.was_cut_off(SHADOW_TIME))
    }

    /// A new producer for one that is of no further use. False: not yet.
    pub(super) fn replace_output(&mut self) -> kafka::Result<bool> {
        match connect(&self.settings, &self.shared) {
            Ok(fresh) => {
                self.shared.pulse.turn();
                std::mem::replace(&mut self.output, fresh).close();
                self.shared.pulse.turn();
                self.broken = false;
                Ok(true)
            }
            Err(error) if error.remedy() == Remedy::Stop => Err(error),
            Err(error) => {
                tracing::warn!(%error, "cannot replace the producer yet");
                std::thread::sleep(RETRY_PAUSE);
                Ok(false)
            }
        }
    }

    /// Goes back to the last commit in partitions where that is due. As long as it fails, their records are thrown away unread.
    pub(super) fn go_back(&mut self) -> kafka::Result<()> {
        if self.astray.is_empty() || self.look_again.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.look_again = None;
        let ids: Vec<_> = self.astray.keys().copied().collect();
        let found = self.find(&ids).and_then(|begins| self.input.resume(&begins).map(|()| begins));
        match found {
            Ok(begins) => {
                let before = self.astray.len();
                self.astray.retain(|p, _| !begins.contains_key(p));
                if self.astray.is_empty() {
                    tracing::info!(worker = self.label, partitions = before, "back at the last commit");
                } else if self.astray.len() < before {
                    self.warn_of_astray();
                }
                self.shared.metrics.astray(&self.label, self.astray.len());
                self.pause_search();
            }
            Err(error) if error.remedy() == Remedy::Stop => return Err(error),
            Err(error) => self.try_later(&error, "cannot go back to the last commit yet"),
        }
        Ok(())
    }

    /// Says that something failed which is tried again, and lets some time pass.
    pub(super) fn try_later(&mut self, error: &kafka::Error, what: &'static str) {
        if !self.shared.stop.requested() {
            tracing::warn!(%error, "{what}");
            self.pause_search();
        }
    }

    pub(super) fn warn_of_astray(&self) {
        if !self.astray.is_empty() {
            let partitions: Vec<_> = self.astray.keys().map(|p| p.0).collect();
            tracing::warn!(worker = self.label, ?partitions, "these partitions wait, for a leader or for their state");
        }
    }

    /// Before partitions are looked for again: where others are read, they are not kept waiting.
    fn pause_search(&mut self) {
        if self.held.len() == self.astray.len() {
            std::thread::sleep(RETRY_PAUSE);
        } else if !self.astray.is_empty() {
            self.look_again = Some(Instant::now() + SEARCH_INTERVAL);
        }
    }
}
