//! The worker loop: one batch from poll to commit.
//!
//! A worker is a thread, a member of the consumer group and a producer. No record passes a channel or another thread.
//! Everything a record causes, and the offset after it, becomes visible in one commit, or not at all.

mod batch;
mod engine;
mod shared;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::Engine;
pub use shared::{ModelSlot, Pulse, Stop};

use crate::detector::{DetectorSettings, Forgotten, SeriesSettings};
use crate::incident::IncidentSettings;
use crate::kafka::{self, Input, KafkaSettings, Output, Partitions, Polled, Remedy, Start, StartAt};
use crate::metrics::{CommitEnd, Metrics, Outcomes, Scores, Stage};
use crate::model::{Model, TrainingSource};
use crate::record::{InputSettings, NextOffset, PartitionId, Position, SchemaError};

/// Records judged in one forward pass at most.
const BATCH_RECORDS_MAX: usize = 1_024;
/// Longest wait for a record; bounds how late a wish to stop or a due commit is seen.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Pause before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Time to leave the group in good order.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker needs to know.
pub struct WorkerSettings {
    pub kafka: KafkaSettings,
    pub input: InputSettings,
    pub detector: DetectorSettings,
    pub series: SeriesSettings,
    pub incident: IncidentSettings,
    /// Unique among the running workers of the group; stable over restarts if `kafka.instance_id` is set.
    pub transactional_id: String,
    pub index: usize,
}

/// What a worker shares with the process.
#[derive(Clone)]
pub struct Shared {
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
    pub model: Arc<ModelSlot>,
    pub stop: Stop,
}

impl Shared {
    /// Shows life, and tells whether to go on.
    fn wanted(&self) -> bool {
        self.pulse.turn();
        !self.stop.requested()
    }
}

/// Why a worker ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error("use the model: {0}")]
    Schema(#[from] SchemaError),
    #[error("start a worker: there is no model yet")]
    NoModel,
}

/// Everything read since the last commit.
struct Open {
    since: Option<Instant>,
    /// Kafka timestamp of the oldest record, milliseconds since the epoch.
    oldest_ms: Option<i64>,
    next: BTreeMap<PartitionId, NextOffset>,
    outcomes: Outcomes,
    scores: Scores,
    /// Records read, and how many of them the metrics know of.
    read: u64,
    reported: u64,
}

/// Whether a commit writes a checkpoint.
#[derive(Clone, Copy, PartialEq)]
enum Checkpoint {
    WhenDue,
    Now,
}

struct Worker {
    settings: WorkerSettings,
    shared: Shared,
    label: String,
    input: Input,
    output: Output,
    engine: Engine,
    model_version: u64,
    open: Open,
    /// An assignment not taken over yet.
    arriving: Option<Partitions>,
    held: Vec<PartitionId>,
    /// Whether reading must first go back to the last commit.
    astray: bool,
    /// Whether the output must be replaced before that.
    broken: bool,
    progress: Progress,
}

/// How far each partition held is.
struct Progress {
    /// Committed, and all of it in the state of its series; not for partitions that are replayed.
    reached: BTreeMap<PartitionId, NextOffset>,
    /// What the last checkpoint includes.
    marked: BTreeMap<PartitionId, NextOffset>,
    /// Up to where records are only read again.
    replay: BTreeMap<PartitionId, NextOffset>,
    checkpointed: Instant,
    /// Whether a partition has no checkpoint yet.
    first: bool,
}

impl Progress {
    fn new() -> Progress {
        let (reached, marked, replay) = Default::default();
        Progress { reached, marked, replay, checkpointed: Instant::now(), first: false }
    }

    /// A checkpoint of the partition includes everything before `checkpoint`, if there is one; records count from `from`. Returns
    /// where reading begins.
    fn resume(&mut self, partition: PartitionId, checkpoint: Option<NextOffset>, from: NextOffset) -> NextOffset {
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

    fn forget(&mut self, partition: PartitionId) {
        self.reached.remove(&partition);
        self.marked.remove(&partition);
        self.replay.remove(&partition);
    }

    /// Whether the record is only read again.
    fn replays(&mut self, position: Position) -> bool {
        let Some(&until) = self.replay.get(&position.partition) else { return false };
        let again = position.offset.0 < until.0;
        if position.offset.0 + 1 >= until.0 {
            self.replay.remove(&position.partition);
            self.reached.insert(position.partition, until);
        }
        again
    }

    /// Partitions that have moved on since their checkpoint.
    fn unmarked(&self) -> Vec<(PartitionId, NextOffset)> {
        let moved = self.reached.iter().filter(|(partition, next)| self.marked.get(*partition) != Some(*next));
        moved.map(|(&partition, &next)| (partition, next)).collect()
    }
}

/// Works until asked to stop, then settles, leaves the group and returns. An error means that trying again cannot help.
pub fn work(settings: WorkerSettings, shared: Shared) -> Result<(), WorkerError> {
    let model_version = shared.model.version();
    let model = shared.model.get().ok_or(WorkerError::NoModel)?;
    let engine = engine(model, &settings)?;
    let output = match connect(&settings, &shared) {
        Err(_) if shared.stop.requested() => return Ok(()),
        connected => connected?,
    };
    let input = Input::join(&settings.kafka, settings.index)?;
    let label = settings.index.to_string();
    let (open, held) = (Open::new(shared.metrics.scores()), Vec::new());
    let mut worker = Worker {
        settings,
        shared,
        label,
        input,
        output,
        engine,
        model_version,
        open,
        arriving: None,
        held,
        astray: false,
        broken: false,
        progress: Progress::new(),
    };
    // Also after a panic the clients are closed in good order: dropped as they are, they could wait for ever.
    let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
    worker.input.leave(LEAVE_TIMEOUT);
    worker.output.close();
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

fn engine(model: Arc<Model>, settings: &WorkerSettings) -> Result<Engine, SchemaError> {
    let WorkerSettings { kafka, input, detector, series, incident, .. } = settings;
    Engine::new(model, input, detector, series, incident, kafka)
}

/// Waits for a broker if need be; the pulse goes on meanwhile.
fn connect(settings: &WorkerSettings, shared: &Shared) -> kafka::Result<Output> {
    Output::connect(&settings.kafka, &settings.transactional_id, &|| shared.wanted())
}

impl Worker {
    fn run(&mut self) -> Result<(), WorkerError> {
        while !self.shared.stop.requested() {
            match self.turn() {
                Err(WorkerError::Kafka(error)) => self.recover(error)?,
                other => other?,
            }
        }
        if let Err(error) = self.commit(Checkpoint::Now) {
            tracing::warn!(%error, "the last records could not be committed, they will be read again");
            self.not_committed(&error);
            // So that nobody waits for its end.
            let _ = self.give_up();
        }
        Ok(())
    }

    /// One record or one rebalance, and what is due after it.
    fn turn(&mut self) -> Result<(), WorkerError> {
        self.shared.pulse.turn();
        self.take_over()?;
        self.go_back()?;
        match self.input.poll(self.open.wait(self.settings.kafka.commit_interval))? {
            Polled::Record(_) if self.astray => {}
            Polled::Record(message) => {
                let raw = message.raw();
                if self.progress.replays(raw.position) {
                    self.engine.replay(&raw);
                } else {
                    if self.open.since.is_none() {
                        self.shared.pulse.began();
                    }
                    self.open.begin(&mut self.output)?;
                    self.open.read(&raw);
                    self.engine.take(
                        &message,
                        &raw,
                        &self.settings.kafka,
                        &mut self.output,
                        &mut self.open.outcomes,
                    )?;
                }
            }
            Polled::Assign(partitions) => self.announce(partitions)?,
            Polled::Revoke(partitions) => self.hand_over(&partitions)?,
            Polled::Idle => {}
        }
        if self.engine.waiting() >= BATCH_RECORDS_MAX {
            self.judge()?;
        }
        if self.open.is_due(self.settings.kafka.commit_interval) {
            self.commit(Checkpoint::WhenDue)?;
            self.look_around()?;
        }
        Ok(())
    }

    fn judge(&mut self) -> kafka::Result<()> {
        let metrics = &self.shared.metrics;
        self.open.report(metrics, &self.label);
        let start = Instant::now();
        self.engine.judge();
        let judged = Instant::now();
        metrics.stage(Stage::Judge, (judged - start).as_secs_f64());
        self.engine.emit(&self.settings.kafka, &mut self.output, &mut self.open.outcomes, &mut self.open.scores)?;
        metrics.stage(Stage::Emit, judged.elapsed().as_secs_f64());
        Ok(())
    }

    /// Makes everything read so far visible, with its offsets, and the state of the series if that is due.
    fn commit(&mut self, checkpoint: Checkpoint) -> kafka::Result<()> {
        let due = checkpoint == Checkpoint::Now
            || self.progress.first
            || self.progress.checkpointed.elapsed() >= self.settings.kafka.checkpoint_interval;
        let to_mark = due && !self.progress.unmarked().is_empty();
        if self.open.since.is_none() && !to_mark {
            return Ok(());
        }
        self.judge()?;
        let start = Instant::now();
        self.open.begin(&mut self.output)?;
        self.progress.reached.extend(&self.open.next);
        let marked = if due { self.progress.unmarked() } else { Vec::new() };
        for &(partition, next) in &marked {
            self.engine.checkpoint(partition, next, &self.settings.kafka, &mut self.output)?;
            // With its offset, so that the group refuses the checkpoint of a member it has thrown out.
            self.open.next.insert(partition, next);
        }
        self.output.commit(&self.input, self.open.next.iter().map(|(&p, &n)| (p, n)))?;
        if due {
            self.progress.marked.extend(marked);
            self.progress.checkpointed = Instant::now();
            self.progress.first = false;
        }
        let metrics = &self.shared.metrics;
        metrics.stage(Stage::Commit, start.elapsed().as_secs_f64());
        metrics.committed(CommitEnd::Committed);
        if let (Some(oldest), Ok(now)) = (self.open.oldest_ms, SystemTime::now().duration_since(UNIX_EPOCH)) {
            metrics.latency((now.as_millis() as i64 - oldest).max(0) as f64 / 1e3);
        }
        self.shared.pulse.committed();
        metrics.settled(&self.label, &self.open.outcomes);
        self.open.scores.settle();
        self.open.clear();
        Ok(())
    }

    /// After a commit: a newer model, librdkafka's report.
    fn look_around(&mut self) -> Result<(), WorkerError> {
        let version = self.shared.model.version();
        // A replay never spans two models.
        if version != self.model_version
            && self.progress.replay.is_empty()
            && let Some(model) = self.shared.model.get()
        {
            self.open.begin(&mut self.output)?;
            self.engine.close_incidents(&self.settings.kafka, &mut self.output, &mut self.open.outcomes)?;
            self.engine = engine(model, &self.settings)?;
            self.model_version = version;
            // Before any record is judged by it: from here on the series begin anew, also after a crash.
            self.progress.marked.clear();
            self.commit(Checkpoint::Now)?;
        }
        self.shared.metrics.series(&self.label, self.engine.series_count());
        self.shared.metrics.open_incidents(&self.label, self.engine.open_incidents());
        let Forgotten { by_max, by_idle } = self.engine.take_forgotten();
        self.shared.metrics.forgotten(by_max, by_idle);
        Ok(())
    }

    /// Notes an assignment. Partitions held or announced before, and never revoked, are no longer this worker's.
    fn announce(&mut self, partitions: Partitions) -> kafka::Result<()> {
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
    fn take_over(&mut self) -> kafka::Result<()> {
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
    fn hand_over(&mut self, partitions: &Partitions) -> Result<(), WorkerError> {
        self.arriving = None;
        let settled = match self.input.assignment_lost() {
            // They belong to somebody else already, who reads from the last commit.
            true => self.give_up(),
            false => self.commit(Checkpoint::Now).or_else(|error| {
                tracing::warn!(%error, "cannot commit before giving partitions back, their new owner reads the records again");
                self.not_committed(&error);
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
        Ok(settled?)
    }

    /// `told`: the group has said which partitions this worker holds; not between a revocation and the next assignment.
    fn note_assignment(&self, told: bool) {
        self.shared.pulse.assigned(told.then_some(self.held.len()));
        self.shared.metrics.rebalanced(&self.label, self.held.len());
        self.shared.metrics.series(&self.label, self.engine.series_count());
        self.shared.metrics.open_incidents(&self.label, self.engine.open_incidents());
        if self.held.is_empty() {
            self.shared.pulse.committed(); // whatever was left is somebody else's
        }
    }

    fn not_committed(&self, error: &kafka::Error) {
        let end = if error.remedy() == Remedy::Abort { CommitEnd::Aborted } else { CommitEnd::Unknown };
        self.shared.metrics.committed(end);
    }

    /// Throws away what is not committed.
    fn give_up(&mut self) -> kafka::Result<()> {
        self.open.abandon(&self.shared.metrics, &self.label);
        self.engine.forget();
        self.output.abort()
    }

    /// After a failed call: back to the last commit, with a new producer where the old one is of no use.
    fn recover(&mut self, error: kafka::Error) -> Result<(), WorkerError> {
        let remedy = error.remedy();
        if remedy == Remedy::Stop {
            return Err(error.into());
        }
        tracing::warn!(%error, "going back to the last commit");
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
        self.astray = true;
        // A commit that still waits in librdkafka would take on the member's next generation, and set offsets back.
        if error.is_out_of_range() || error.is_undecided_commit() {
            self.join_again()?;
        }
        // What failed once may fail again at once: not as fast as the processor can.
        std::thread::sleep(RETRY_PAUSE);
        Ok(())
    }

    /// A new producer for one that is of no further use. False: not yet.
    fn replace_output(&mut self) -> kafka::Result<bool> {
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

    /// Goes back to the last commit, if that is due. As long as it fails, records are thrown away unread and rebalances answered.
    fn go_back(&mut self) -> kafka::Result<()> {
        if !self.astray {
            return Ok(());
        }
        if self.broken && !self.replace_output()? {
            return Ok(());
        }
        let Worker { shared, settings, engine, progress, held, .. } = self;
        let wanted = || shared.wanted();
        let gone_back = kafka::read_state(&settings.kafka, held, &wanted).and_then(|stored| {
            self.input.rewind(&wanted, &mut |assigned| {
                let begin = engine.restore(assigned, stored.get(&assigned.partition), &shared.metrics)?;
                Ok(progress.resume(assigned.partition, begin, assigned.from))
            })
        });
        match gone_back {
            Ok(()) => self.astray = false,
            Err(error) if error.remedy() == Remedy::Stop => return Err(error),
            Err(_) if shared.stop.requested() => {}
            Err(error) => {
                tracing::warn!(%error, "cannot go back to the last commit yet");
                std::thread::sleep(RETRY_PAUSE);
            }
        }
        Ok(())
    }

    /// Leaves the group and joins it again. librdkafka gives up a partition whose next record is gone; taking it over anew finds
    /// where to go on, and counts what is lost.
    fn join_again(&mut self) -> kafka::Result<()> {
        let fresh = Input::join(&self.settings.kafka, self.settings.index)?;
        std::mem::replace(&mut self.input, fresh).leave(LEAVE_TIMEOUT);
        self.held.clear();
        self.progress = Progress::new();
        self.arriving = None;
        self.astray = false;
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

impl Open {
    fn new(scores: Scores) -> Open {
        let (next, outcomes) = (BTreeMap::new(), Outcomes::default());
        Open { since: None, oldest_ms: None, next, outcomes, scores, read: 0, reported: 0 }
    }

    fn begin(&mut self, output: &mut Output) -> kafka::Result<()> {
        if self.since.is_none() {
            output.begin()?;
            self.since = Some(Instant::now());
        }
        Ok(())
    }

    fn read(&mut self, raw: &crate::record::RawRecord<'_>) {
        self.next.insert(raw.position.partition, raw.position.offset.next());
        self.read += 1;
        self.oldest_ms = match (self.oldest_ms, raw.timestamp_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn wait(&self, commit_interval: Duration) -> Duration {
        self.since.map_or(POLL_MAX, |since| commit_interval.saturating_sub(since.elapsed()).min(POLL_MAX))
    }

    fn is_due(&self, commit_interval: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= commit_interval)
    }

    /// Tells the metrics of the records read since it last told them.
    fn report(&mut self, metrics: &Metrics, worker: &str) {
        metrics.consumed(worker, self.read - self.reported);
        self.reported = self.read;
    }

    fn abandon(&mut self, metrics: &Metrics, worker: &str) {
        self.report(metrics, worker);
        metrics.rewound(worker, self.read);
        self.scores.abandon();
        self.clear();
    }

    fn clear(&mut self) {
        self.since = None;
        self.oldest_ms = None;
        self.next.clear();
        self.outcomes.clear();
        self.read = 0;
        self.reported = 0;
    }
}
