//! Partitions come and go: taking them over where their last owner committed, and giving them back settled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::engine::Found;
use super::progress::{Progress, Waiting};
use super::{Checkpoint, LEAVE_TIMEOUT, RETRY_PAUSE, Worker, WorkerError};
use crate::kafka::{self, Assigned, Input, KafkaSettings, Partitions, Remedy, Start, StartAt};
use crate::metrics::Metrics;
use crate::model::{Edition, TrainingSource};
use crate::record::{NextOffset, PartitionId};

/// How long to wait for a model that stored state is of, before the state counts as that of a model which is gone.
pub(super) const MODEL_PATIENCE: Duration = Duration::from_secs(30);

impl Worker {
    /// Notes an assignment. Partitions held or announced before, and never revoked, are no longer this worker's.
    pub(super) fn announce(&mut self, partitions: Partitions) -> kafka::Result<()> {
        if self.arriving.is_some() || !self.held.is_empty() {
            self.give_up()?;
            self.held.clear();
            self.astray.clear();
            self.waiting = Waiting::default();
            self.progress = Progress::new();
            self.note_assignment(false);
        }
        self.arriving = Some(partitions);
        Ok(())
    }

    /// Takes over an assignment. What Kafka does not answer now is asked again at the next turn; partitions of which it cannot be known
    /// yet where to begin are found later, and do not keep the others waiting.
    pub(super) fn take_over(&mut self) -> Result<(), WorkerError> {
        let Some(partitions) = self.arriving.take() else { return Ok(()) };
        let ids = partitions.ids();
        let found = self.find(&ids);
        let accepted = found.and_then(|found| self.input.accept(&partitions, &begins(&found)).map(|()| found));
        match accepted {
            Ok(found) => {
                self.held.extend(&ids);
                self.astray.extend(ids.iter().map(|&p| (p, Instant::now())));
                self.settle(&found);
                tracing::info!(worker = self.label, partitions = ?found.iter().map(|f| (f.partition.0, f.from.0)).collect::<Vec<_>>(), "partitions assigned");
                self.pause_search();
                self.note_assignment(true);
            }
            Err(e) if e.remedy() == Remedy::Stop => return Err(e.into()),
            Err(error) => {
                self.arriving = Some(partitions);
                if !self.shared.stop.requested() {
                    tracing::warn!(%error, "cannot take over the assigned partitions yet");
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Where to begin in each of these partitions, with the state of their series restored. Some may be missing: they have no leader, or
    /// what is stored of them may be more than can be seen yet.
    pub(super) fn find(&mut self, ids: &[PartitionId]) -> kafka::Result<Vec<Found>> {
        let led = self.input.led(ids, &self.settings.kafka.state)?;
        if !self.leader_by_leader {
            let all: Vec<PartitionId> = led.values().flatten().copied().collect();
            let found = self.find_led(&all);
            // One that does not answer makes the whole request fail.
            self.leader_by_leader = found.is_err() && led.len() > 1;
            return found;
        }
        let (mut found, mut failed) = (Vec::new(), None);
        for led in led.values() {
            match self.find_led(led) {
                Ok(more) => found.extend(more),
                Err(e) if e.remedy() == Remedy::Stop => return Err(e),
                Err(e) => failed = Some(e),
            }
        }
        match failed {
            Some(error) if found.is_empty() => return Err(error),
            Some(error) => self.waits_because = error.to_string(),
            None => {}
        }
        Ok(found)
    }

    fn find_led(&mut self, ids: &[PartitionId]) -> kafka::Result<Vec<Found>> {
        let Worker { shared, settings, in_force, engine, input, astray, waits_because, .. } = self;
        let settings = &settings.kafka;
        let wanted = || shared.wanted();
        // In this order: a commit in between leaves a checkpoint that is too old, which a replay mends, and none that is too new.
        let stored = kafka::read_state(settings, ids, &wanted)?;
        let assigned = input.look_up(ids, &wanted, &|p| start_at(settings, in_force.model.source(), p))?;
        note_losses(&assigned, &shared.metrics);
        let mut found = Vec::new();
        for assigned in &assigned {
            let patient = astray.get(&assigned.partition).is_none_or(|since| since.elapsed() < MODEL_PATIENCE);
            let seen = if patient { shared.model.seen_by(in_force) } else { Edition::LAST };
            match engine.restore(assigned, stored.get(&assigned.partition), seen) {
                Ok(place) => found.push(place),
                Err(error) => *waits_because = error.to_string(),
            }
        }
        Ok(found)
    }

    /// Reading goes on in partitions that were found.
    pub(super) fn settle(&mut self, found: &[Found]) {
        for place in found {
            self.progress.resume(place);
            self.astray.remove(&place.partition);
            self.waiting.resumed(place.partition, place.begin());
            self.shared.metrics.restored(place.restore, place.unreadable);
        }
        self.leader_by_leader &= !self.astray.is_empty();
        self.note_astray();
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
        self.astray.retain(|p, _| !gone.contains(p));
        self.waiting.forget(&|p| gone.contains(p));
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
        self.note_astray();
        if self.held.is_empty() {
            self.shared.pulse.committed(); // whatever was left is somebody else's
        }
    }

    /// Tells metrics and probes of the partitions that wait.
    pub(super) fn note_astray(&self) {
        let waiting = self.waiting.partitions();
        let others = waiting.clone().filter(|(partition, _)| !self.astray.contains_key(partition)).count();
        self.shared.metrics.astray(&self.label, self.astray.len() + others);
        // Since the first try, not the last.
        self.shared.pulse.astray(self.astray.values().copied().chain(waiting.map(|(_, since)| since)).min());
    }

    /// Leaves the group and joins it again. librdkafka gives up a partition whose next record is gone; taking it over anew finds
    /// where to go on, and counts what is lost.
    pub(super) fn join_again(&mut self) -> kafka::Result<()> {
        let fresh = Input::join(&self.settings.kafka, self.settings.index)?;
        std::mem::replace(&mut self.input, fresh).leave(LEAVE_TIMEOUT);
        let had_any = !self.held.is_empty();
        self.held.clear();
        self.astray.clear();
        self.waiting = Waiting::default();
        self.progress = Progress::new();
        self.arriving = None;
        match had_any {
            true => self.note_assignment(false),
            // No rebalance: there was nothing to take away.
            false => self.shared.pulse.assigned(None),
        }
        Ok(())
    }
}

pub(super) fn begins(found: &[Found]) -> BTreeMap<PartitionId, NextOffset> {
    found.iter().map(|found| (found.partition, found.begin())).collect()
}

/// Counts what Kafka no longer has.
fn note_losses(assigned: &[Assigned], metrics: &Metrics) {
    let lost: u64 = assigned.iter().map(|a| a.lost_to_retention).sum();
    if lost > 0 {
        tracing::error!(
            lost,
            "the input topic deleted records before they were read; their retention is shorter than the outage was"
        );
        metrics.lost_to_retention(lost);
    }
    let cut_off: u64 = assigned.iter().map(|a| a.cut_off).sum();
    if cut_off > 0 {
        tracing::error!(
            cut_off,
            "the input topic ends before the committed offset: Kafka lost records that were read; going on at its end"
        );
        metrics.cut_off(cut_off);
    }
}

/// Just after what the model was trained on, if that was this topic; else as configured.
fn start_at(settings: &KafkaSettings, trained_on: &TrainingSource, partition: PartitionId) -> StartAt {
    match trained_on {
        TrainingSource::Topic { topic, ranges } if *topic == settings.input => {
            // A partition that did not exist then is new: all of it.
            ranges.iter().find(|r| r.0 == partition).map_or(StartAt::Earliest, |r| StartAt::Offset(r.2))
        }
        _ => match settings.start {
            Start::Earliest => StartAt::Earliest,
            Start::Latest => StartAt::Latest,
        },
    }
}
