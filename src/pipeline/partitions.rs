//! Partitions come and go: taking them over where their last owner committed, and giving them back settled.

use super::progress::Progress;
use super::{Checkpoint, LEAVE_TIMEOUT, RETRY_PAUSE, Worker, WorkerError};
use crate::kafka::{self, Input, KafkaSettings, Partitions, Remedy, Start, StartAt};
use crate::model::TrainingSource;
use crate::record::PartitionId;

impl Worker {
    /// Notes an assignment. Partitions held or announced before, and never revoked, are no longer this worker's.
    pub(super) fn announce(&mut self, partitions: Partitions) -> kafka::Result<()> {
        if self.arriving.is_some() || !self.held.is_empty() {
            self.give_up()?;
            self.held.clear();
            self.progress = Progress::new();
            self.note_assignment(false);
        }
        self.arriving = Some(partitions);
        Ok(())
    }

    /// Takes over an assignment. What Kafka does not answer now is asked again at the next turn.
    pub(super) fn take_over(&mut self) -> kafka::Result<()> {
        if let Some(observed) = self.input.take_observed() {
            self.shared.pulse.answered(observed.answers);
            self.shared.metrics.lag(&self.label, observed.lag);
        }
        let Some(partitions) = &self.arriving else { return Ok(()) };
        let Worker { shared, settings, engine, progress, .. } = self;
        let (settings, model) = (&settings.kafka, shared.model.get());
        let start = |p| start_at(settings, model.as_ref().map(|m| m.source()), p);
        let wanted = || shared.wanted();
        let accepted = kafka::read_state(settings, &partitions.ids(), &wanted).and_then(|stored| {
            self.input.accept(partitions, &wanted, &start, &mut |assigned| {
                let begin = engine.restore(assigned, stored.get(&assigned.partition), &shared.metrics)?;
                Ok(progress.resume(assigned.partition, begin, assigned.from))
            })
        });
        match accepted {
            Ok(taken) => {
                let lost: u64 = taken.iter().map(|t| t.lost_to_retention).sum();
                if lost > 0 {
                    tracing::error!(
                        lost,
                        "the input topic deleted records before they were read; their retention is shorter than the outage was"
                    );
                    self.shared.metrics.lost_to_retention(lost);
                }
                let cut_off: u64 = taken.iter().map(|t| t.cut_off).sum();
                if cut_off > 0 {
                    tracing::error!(
                        cut_off,
                        "the input topic ends before the committed offset: Kafka lost records that were read; going on at its end"
                    );
                }
                self.held.extend(taken.iter().map(|t| t.partition));
                tracing::info!(worker = self.label, partitions = ?taken.iter().map(|t| (t.partition.0, t.from.0)).collect::<Vec<_>>(), "partitions assigned");
                self.arriving = None;
                self.note_assignment(true);
            }
            Err(e) if e.remedy() == Remedy::Stop => return Err(e),
            Err(_) if shared.stop.requested() => {}
            Err(error) => {
                tracing::warn!(%error, "cannot take over the assigned partitions yet");
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        Ok(())
    }

    /// Settles and gives partitions back.
    pub(super) fn hand_over(&mut self, partitions: &Partitions) -> Result<(), WorkerError> {
        self.arriving = None;
        let mut undecided = false;
        let settled = match self.input.assignment_lost() {
            // They belong to somebody else already, who reads from the last commit.
            true => self.give_up(),
            false => self.commit(Checkpoint::Now).or_else(|error| {
                tracing::warn!(%error, "cannot commit before giving partitions back, their new owner reads the records again");
                self.not_committed(&error);
                undecided = error.is_undecided_commit();
                self.shared.pulse.turn();
                self.give_up()
            }),
        };
        let gone = partitions.ids();
        self.held.retain(|p| !gone.contains(p));
        // Without cooperative rebalancing, all of them.
        self.engine.forget();
        self.progress = Progress::new();
        self.input.release(partitions)?;
        tracing::info!(worker = self.label, partitions = ?gone.iter().map(|p| p.0).collect::<Vec<_>>(), "partitions revoked");
        self.note_assignment(false);
        // As in `recover`: that commit must not be sent in the next generation.
        if undecided {
            self.join_again()?;
        }
        Ok(settled?)
    }

    /// `told`: the group has said which partitions this worker holds; not between a revocation and the next assignment.
    pub(super) fn note_assignment(&self, told: bool) {
        self.shared.pulse.assigned(told.then_some(self.held.len()));
        self.shared.metrics.rebalanced(&self.label, self.held.len());
        self.shared.metrics.series(&self.label, self.engine.series_count());
        self.shared.metrics.open_incidents(&self.label, self.engine.open_incidents());
        if self.held.is_empty() {
            self.shared.pulse.committed(); // whatever was left is somebody else's
        }
    }

    /// Leaves the group and joins it again. librdkafka gives up a partition whose next record is gone; taking it over anew finds
    /// where to go on, and counts what is lost.
    pub(super) fn join_again(&mut self) -> kafka::Result<()> {
        let fresh = Input::join(&self.settings.kafka, self.settings.index)?;
        std::mem::replace(&mut self.input, fresh).leave(LEAVE_TIMEOUT);
        self.held.clear();
        self.progress = Progress::new();
        self.arriving = None;
        // Nothing may be read before there is an output again.
        self.astray = self.broken;
        self.note_assignment(false);
        Ok(())
    }
}

/// Just after what the model was trained on, if that was this topic; else as configured.
fn start_at(settings: &KafkaSettings, trained_on: Option<&TrainingSource>, partition: PartitionId) -> StartAt {
    match trained_on {
        Some(TrainingSource::Topic { topic, ranges }) if *topic == settings.input => {
            // A partition that did not exist then is new: all of it.
            ranges.iter().find(|r| r.0 == partition).map_or(StartAt::Earliest, |r| StartAt::Offset(r.2))
        }
        _ => match settings.start {
            Start::Earliest => StartAt::Earliest,
            Start::Latest => StartAt::Latest,
        },
    }
}
