//! The way back to the last commit, after whatever failed.

use std::time::{Duration, Instant};

use super::partitions::begins;
use super::progress::Progress;
use super::{Checkpoint, Coming, RETRY_PAUSE, Worker, WorkerError, output};
use crate::kafka::{self, OUTPUT_PATIENCE, Remedy};
use crate::metrics::CommitEnd;
use crate::record::Position;

/// Pause between two looks for partitions that have no leader, while others are read: a look takes time from them.
pub(super) const SEARCH_PAUSE_MIN: Duration = Duration::from_secs(1);
pub(super) const SEARCH_PAUSE_MAX: Duration = Duration::from_secs(16);
/// Pause between two lines in the log that say so.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// A group's coordinator that is out of reach for less is not given up, however short a session is.
pub(super) const AWAY_MIN: Duration = Duration::from_secs(15);
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
            self.fenced = Some(Instant::now());
            return Ok(self.rejoin()?);
        }
        if remedy == Remedy::Stop {
            return Err(error.into());
        }
        tracing::warn!(%error, "going back to the last commit");
        self.failed = Some(Instant::now());
        self.shared.pulse.turn();
        if self.open.since.is_some() {
            self.not_committed(&error);
        }
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
        let failing = self.failing.get_or_insert_with(Instant::now).elapsed();
        self.broken |= remedy == Remedy::Replace || self.output.abort().is_err() || failing > OUTPUT_PATIENCE;
        self.shared.pulse.turn();
        for &partition in &self.held {
            self.astray.entry(partition).or_insert_with(Instant::now);
        }
        self.look_again = None;
        self.note_astray();
        // A commit that still waits in librdkafka would take on the member's next generation, and set offsets back.
        if error.is_out_of_range() || error.is_undecided_commit() {
            self.join_again()?;
        }
        // What failed once may fail again at once: not as fast as the processor can.
        std::thread::sleep(RETRY_PAUSE);
        Ok(())
    }

    /// Throws away what is not committed, and joins the group as a new member.
    fn rejoin(&mut self) -> kafka::Result<()> {
        self.open.abandon(&self.shared.metrics, &self.label);
        self.engine.forget();
        // One that is to be replaced anyway would only be waited for.
        self.broken = self.broken || self.output.abort().is_err();
        self.join_again()
    }

    /// The group's coordinator has been away for longer than the group remembers a silent member. A new client finds it, once it is there;
    /// the old one may not: librdkafka 2.12 can forget every broker for good when a starting one names none (its issue 5301).
    pub(super) fn start_over(&mut self, away: Duration) -> kafka::Result<()> {
        tracing::warn!(
            worker = self.label,
            seconds = away.as_secs(),
            "the group's coordinator is out of reach, joining anew with a new client"
        );
        self.shared.pulse.turn();
        self.rejoin()
    }

    /// When a coordinator dies, a static member can be fenced by an earlier request of its own, whose answer was lost. So soon after
    /// trouble, that is likelier than another process of the same name. Two such processes would fence each other again without any
    /// more trouble.
    fn may_be_its_own_shadow(&self) -> bool {
        let trouble = self.failed.max(self.input.last_trouble());
        let again = self.fenced.is_some_and(|at| trouble < Some(at));
        !again && trouble.is_some_and(|at| at.elapsed() < SHADOW_TIME)
    }

    /// A new output for one that is of no further use. False: not yet; rebalances are answered between two tries.
    pub(super) fn replace_output(&mut self) -> kafka::Result<bool> {
        let Coming { output: coming, since } = match self.coming.take() {
            Some(coming) => coming,
            None => Coming { output: output(&self.settings)?, since: Instant::now() },
        };
        let registered = coming.register();
        self.shared.pulse.turn();
        match registered {
            Ok(()) => {
                std::mem::replace(&mut self.output, coming).close();
                self.shared.pulse.turn();
                self.broken = false;
                Ok(true)
            }
            Err(error) if error.remedy() == Remedy::Stop => Err(error),
            Err(error) => {
                tracing::warn!(%error, "cannot write to Kafka yet, residua keeps trying");
                if error.is_fatal() || since.elapsed() > OUTPUT_PATIENCE {
                    coming.close();
                } else {
                    // What it has asked for goes on: another one would begin anew, and find this one in its way.
                    self.coming = Some(Coming { output: coming, since });
                }
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
        // What others have read must not wait for it.
        self.commit(Checkpoint::WhenDue)?;
        let ids: Vec<_> = self.astray.keys().copied().collect();
        let found = self.find(&ids).and_then(|found| self.input.resume(&begins(&found)).map(|()| found));
        match found {
            Ok(found) => {
                if !found.is_empty() {
                    self.search_pause = SEARCH_PAUSE_MIN;
                    let partitions: Vec<_> = found.iter().map(|f| (f.partition.0, f.from.0)).collect();
                    tracing::info!(worker = self.label, ?partitions, "back at the last commit");
                }
                self.settle(&found);
                self.pause_search();
            }
            Err(error) if error.remedy() == Remedy::Stop => return Err(error),
            Err(_) if self.shared.stop.requested() => {}
            Err(error) => {
                self.waits_because = error.to_string();
                self.pause_search();
            }
        }
        Ok(())
    }

    /// The partition's next record cannot be decoded yet: reading goes back to it later.
    pub(super) fn hold(&mut self, position: Position, why: String) -> Result<(), WorkerError> {
        let partition = position.partition;
        // What came before it must not wait with it, nor be read again each time.
        self.commit(Checkpoint::Now)?;
        // Also what was only read again, for which there is no commit.
        self.judge()?;
        self.input.pause(partition)?;
        self.progress.forget(partition);
        self.engine.forget_partition(partition);
        let pause = self.waiting.hold(position);
        self.astray.insert(partition, Instant::now());
        self.look_again = Some(Instant::now() + pause);
        self.note_astray();
        self.say_waiting(&why);
        Ok(())
    }

    fn say_waiting(&mut self, because: &str) {
        if self.said_waiting.is_none_or(|at| at.elapsed() >= SAY_INTERVAL) {
            let partitions: Vec<_> = self.astray.keys().map(|p| p.0).collect();
            tracing::warn!(worker = self.label, ?partitions, because, "these partitions wait");
            self.said_waiting = Some(Instant::now());
        }
    }

    /// Before partitions are looked for again: where others are read, they are not kept waiting.
    pub(super) fn pause_search(&mut self) {
        let because = std::mem::take(&mut self.waits_because);
        if self.astray.is_empty() {
            if self.waiting.is_empty() {
                self.said_waiting = None;
            }
            return;
        }
        self.say_waiting(if because.is_empty() { "they have no leader" } else { &because });
        if self.held.len() == self.astray.len() {
            self.look_again = None;
            std::thread::sleep(RETRY_PAUSE);
        } else {
            self.look_again = Some(Instant::now() + self.search_pause);
            self.search_pause = (2 * self.search_pause).min(SEARCH_PAUSE_MAX);
        }
    }
}
