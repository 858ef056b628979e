//! The worker loop: one batch from poll to commit.
//!
//! A worker is a thread, a member of the consumer group and a producer. No record passes a channel or another thread.
//! Everything a record causes, and the offset after it, becomes visible in one commit, or not at all.

mod batch;
mod beside;
mod engine;
mod live;
mod open;
mod partitions;
mod progress;
mod recovery;
mod shared;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use beside::Beside;
use engine::Engine;
pub use live::{Live, View, Watching};
use open::Open;
use partitions::MODEL_PATIENCE;
use progress::{Progress, Sight, Waiting};
use recovery::{AWAY_MIN, SEARCH_PAUSE_MIN};
pub use shared::{InForce, ModelSlot, Pulse, Stop, Tuning, TuningSlot};

use crate::detector::Forgotten;
use crate::kafka::{self, Input, KafkaSettings, Output, Partitions, Polled};
use crate::metrics::{CommitEnd, Metrics, Stage};
use crate::record::{InputSettings, NO_SCHEMA, PartitionId, Position, SchemaError, WriterSchemas};

/// Records judged in one forward pass at most.
const BATCH_RECORDS_MAX: usize = 1_024;
/// Records of a turn, at most: few, as each may have to wait for room in a queue while a commit is due.
const TURN_RECORDS_MAX: usize = 16;
/// Longest wait for a record; bounds how late a wish to stop or a due commit is seen.
const POLL_MAX: Duration = Duration::from_millis(50);
/// Pause before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at what is open, while somebody looks.
const SHOW_INTERVAL: Duration = Duration::from_millis(500);
/// Time to leave the group in good order.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker needs to know.
pub struct WorkerSettings {
    pub kafka: KafkaSettings,
    pub input: InputSettings,
    /// Of Avro.
    pub schemas: Option<Arc<dyn WriterSchemas>>,
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
    pub tuning: Arc<TuningSlot>,
    pub beside: Arc<Beside>,
    pub live: Arc<Live>,
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

/// Whether a commit writes a checkpoint.
#[derive(Clone, Copy, PartialEq)]
enum Checkpoint {
    WhenDue,
    Now,
}

/// The next output, until it can write.
struct Coming {
    output: Output,
    since: Instant,
}

struct Worker {
    settings: WorkerSettings,
    shared: Shared,
    label: String,
    input: Input,
    output: Output,
    engine: Engine,
    in_force: InForce,
    /// Of which version the tuning is.
    tuning: Tuning,
    tuned: u64,
    open: Open,
    /// When what is open was last shown.
    shown: Option<Instant>,
    /// An assignment not taken over yet.
    arriving: Option<Partitions>,
    held: Vec<PartitionId>,
    /// Held partitions of which reading must first go back to the last commit, and since when. As long as they have no leader, the others
    /// are read.
    astray: BTreeMap<PartitionId, Instant>,
    waiting: Waiting,
    /// When to look for them again; none: at once.
    look_again: Option<Instant>,
    /// Whether the output must be replaced before anything is read, and by what, as far as that has come.
    broken: bool,
    coming: Option<Coming>,
    /// When it was last said that some wait, and why they do.
    said_waiting: Option<Instant>,
    waits_because: String,
    /// How long until the next look for them, and whether one leader is asked after the other.
    search_pause: Duration,
    leader_by_leader: bool,
    /// Since when there is a newer model or tuning.
    outdated: Option<Instant>,
    /// When something last failed, when this member was last fenced, and since when nothing that was begun was committed.
    failed: Option<Instant>,
    fenced: Option<Instant>,
    failing: Option<Instant>,
    progress: Progress,
}

/// Works until asked to stop, then settles, leaves the group and returns. An error means that trying again cannot help.
pub fn work(settings: WorkerSettings, shared: Shared) -> Result<(), WorkerError> {
    let in_force = shared.model.in_force().ok_or(WorkerError::NoModel)?;
    let (tuning, tuned) = shared.tuning.get();
    let engine = engine(&in_force, &settings, &tuning)?;
    // Waits for a broker if need be; the pulse goes on meanwhile.
    let output = match Output::ready(&|| output(&settings), &|| shared.wanted()) {
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
        in_force,
        tuning,
        tuned,
        open,
        shown: None,
        arriving: None,
        held,
        astray: BTreeMap::new(),
        waiting: Waiting::default(),
        look_again: None,
        broken: false,
        coming: None,
        said_waiting: None,
        waits_because: String::new(),
        search_pause: SEARCH_PAUSE_MIN,
        leader_by_leader: false,
        outdated: None,
        failed: None,
        fenced: None,
        failing: None,
        progress: Progress::new(),
    };
    // Also after a panic the clients are closed in good order: dropped as they are, they could wait for ever.
    let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
    worker.input.leave(LEAVE_TIMEOUT);
    worker.output.close();
    worker.coming.into_iter().for_each(|coming| coming.output.close());
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

fn engine(in_force: &InForce, settings: &WorkerSettings, tuning: &Tuning) -> Result<Engine, SchemaError> {
    let WorkerSettings { kafka, input, schemas, .. } = settings;
    Engine::new(in_force, input, schemas.as_ref(), tuning, kafka.dead_letter_max_bytes)
}

fn output(settings: &WorkerSettings) -> kafka::Result<Output> {
    Output::create(&settings.kafka, &settings.transactional_id)
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

    /// Some records or one rebalance, and what is due after that.
    fn turn(&mut self) -> Result<(), WorkerError> {
        self.shared.pulse.turn();
        if let Some(observed) = self.input.take_observed() {
            self.shared.pulse.answered(observed.answers);
            self.shared.metrics.lag(&self.label, observed.lag);
            // A replay brings series too, and nothing to commit.
            self.look_around();
            self.compare();
            if observed.away > self.settings.kafka.session_timeout.max(AWAY_MIN) {
                self.start_over(observed.away)?;
            }
        }
        if !self.broken || self.replace_output()? {
            self.take_over()?;
            self.go_back()?;
        }
        if self.engine.has_left_open() {
            self.open.begin(&mut self.output)?;
        }
        // What is looked at once a turn costs a record little, the clock too.
        let mut wait = self.open.wait(self.tuning.commit_interval);
        for _ in 0..TURN_RECORDS_MAX {
            if !self.step(wait)? || self.engine.waiting() >= BATCH_RECORDS_MAX {
                break;
            }
            wait = Duration::ZERO;
        }
        if self.engine.waiting() >= BATCH_RECORDS_MAX {
            self.judge()?;
        }
        if self.open.is_due(self.tuning.commit_interval) {
            self.commit(Checkpoint::WhenDue)?;
            self.look_around();
        }
        self.show();
        self.follow()
    }

    /// While somebody looks, now and then: what is open.
    fn show(&mut self) {
        if !self.shared.live.is_watched() {
            if self.shown.take().is_some() {
                // Nobody is to find it there later.
                self.shared.live.incidents(self.settings.index, Vec::new(), 0);
            }
        } else if self.shown.is_none_or(|shown| shown.elapsed() >= SHOW_INTERVAL) {
            self.shown = Some(Instant::now());
            let (latest, open) = (self.engine.open(), self.engine.open_incidents());
            self.shared.live.incidents(self.settings.index, latest, open);
        }
    }

    /// One record or one rebalance, if one comes within `wait`. Whether it was a record, as there may be more.
    fn step(&mut self, wait: Duration) -> Result<bool, WorkerError> {
        let mut freed = false;
        let more = match self.input.poll(wait)? {
            Polled::Record(_) if self.broken => true,
            Polled::Record(message) => {
                let raw = message.raw();
                let partition = raw.position.partition;
                if self.progress.is_read(partition) {
                    if let Some(why) = self.engine.wait_for(&raw, self.progress.is_again(raw.position)) {
                        let position = raw.position;
                        drop(message);
                        self.hold(position, why)?;
                        return Ok(false);
                    }
                    freed = self.waiting.release(partition);
                }
                match self.progress.see(raw.position) {
                    Sight::Unasked => {}
                    Sight::Behind(expected) => {
                        let Position { partition, offset: found } = raw.position;
                        return Err(kafka::Error::WentBack { partition, found, expected }.into());
                    }
                    Sight::Again => self.engine.replay(&raw),
                    Sight::New => {
                        if self.open.since.is_none() {
                            self.shared.pulse.began();
                        }
                        self.open.begin(&mut self.output)?;
                        self.open.read(&raw);
                        let Worker { settings, engine, output, open, .. } = self;
                        engine.take(&message, &raw, &settings.kafka, output, &mut open.outcomes)?;
                    }
                }
                true
            }
            Polled::Assign(partitions) => {
                self.announce(partitions)?;
                false
            }
            Polled::Revoke(partitions) => {
                self.hand_over(&partitions)?;
                false
            }
            Polled::Idle => false,
        };
        if freed {
            self.note_astray();
        }
        Ok(more)
    }

    fn judge(&mut self) -> kafka::Result<()> {
        let metrics = &self.shared.metrics;
        self.open.report(metrics, &self.label);
        let start = Instant::now();
        self.engine.judge();
        let judged = Instant::now();
        metrics.stage(Stage::Judge, (judged - start).as_secs_f64());
        let Open { outcomes, scores, glance, .. } = &mut self.open;
        glance.watched = self.shared.live.is_watched();
        self.engine.emit(&self.settings.kafka, &mut self.output, outcomes, scores, glance)?;
        metrics.stage(Stage::Emit, judged.elapsed().as_secs_f64());
        Ok(())
    }

    /// Makes everything read so far visible, with its offsets, and the state of the series if that is due.
    fn commit(&mut self, checkpoint: Checkpoint) -> kafka::Result<()> {
        let due = checkpoint == Checkpoint::Now
            || self.progress.first
            // When these are read again their schema may be there.
            || self.open.outcomes.has_dead_letter(NO_SCHEMA)
            || self.progress.checkpointed.elapsed() >= self.tuning.checkpoint_interval;
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
        self.failing = None;
        self.shared.pulse.committed();
        metrics.settled(&self.label, &self.open.outcomes);
        self.open.scores.settle();
        self.shared.live.add(&mut self.open.glance);
        self.open.clear(start);
        Ok(())
    }

    /// Takes up a newer model, with which the series begin anew, and what is open ends; or another tuning, with which they go on.
    fn follow(&mut self) -> Result<(), WorkerError> {
        let same_model = self.shared.model.version() == self.in_force.version;
        if same_model && self.shared.tuning.version() == self.tuned {
            self.outdated = None;
            return Ok(());
        }
        let since = *self.outdated.get_or_insert_with(Instant::now);
        // A replay never spans two models or tunings; but one that does not come to its end must not keep the old one in force.
        let replaying: Vec<PartitionId> = self.progress.replay.keys().copied().collect();
        if !replaying.is_empty() {
            if since.elapsed() < MODEL_PATIENCE {
                return Ok(());
            }
            self.judge()?;
            for partition in replaying {
                self.progress.forget(partition);
                self.engine.forget_partition(partition);
                self.astray.entry(partition).or_insert_with(Instant::now);
            }
            self.note_astray();
        }
        let (tuning, tuned) = self.shared.tuning.get();
        if same_model {
            // So that whoever goes on from here goes on with the newer one.
            self.commit(Checkpoint::Now)?;
            self.engine.tune(&tuning);
            (self.tuning, self.tuned) = (tuning, tuned);
            tracing::info!(worker = self.label, "the changed configuration is in force");
            return Ok(());
        }
        let Some(newer) = self.shared.model.in_force() else { return Ok(()) };
        let fresh = engine(&newer, &self.settings, &tuning)?;
        if self.progress.is_empty() {
            (self.engine, self.in_force) = (fresh, newer);
            (self.tuning, self.tuned) = (tuning, tuned);
            return Ok(());
        }
        // So that whoever goes on from here knows what was open.
        self.commit(Checkpoint::Now)?;
        self.open.begin(&mut self.output)?;
        self.engine.close_incidents(&self.settings.kafka, &mut self.output, &mut self.open.outcomes)?;
        (self.engine, self.in_force) = (fresh, newer);
        (self.tuning, self.tuned) = (tuning, tuned);
        // Before any record is judged by it: from here on the series begin anew, also after a crash.
        self.progress.marked.clear();
        Ok(self.commit(Checkpoint::Now)?)
    }

    /// Now and then: the records of all workers beside those that the model was trained on.
    fn compare(&self) {
        let Shared { beside, model, metrics, .. } = &self.shared;
        beside.set(self.settings.index, self.in_force.version, self.engine.seen());
        let (_, drifts) = beside.drifts(model);
        let names: Vec<&str> = self.in_force.model.schema().names().collect();
        // Of another model than this worker's there may be other sensors.
        let distances = drifts.iter().filter_map(|drift| Some((*names.get(drift.sensor)?, drift.distance)));
        metrics.drifted(drifts.iter().filter(|drift| drift.differs).count(), distances);
    }

    /// After a commit, and now and then.
    fn look_around(&mut self) {
        self.shared.metrics.series(&self.label, self.engine.series_count());
        self.shared.metrics.open_incidents(&self.label, self.engine.open_incidents());
        let Forgotten { by_max, by_idle } = self.engine.take_forgotten();
        self.shared.metrics.forgotten(by_max, by_idle);
    }
}
