//! What a worker shares with the rest of the process: the model in force, its pulse, the wish to stop.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::detector::{DetectorSettings, SeriesSettings};
use crate::incident::IncidentSettings;
use crate::model::{Edition, Model};

/// A model, and how often one was put in force before.
#[derive(Clone)]
pub struct InForce {
    pub model: Arc<Model>,
    pub edition: Edition,
    pub(super) version: u64,
}

/// The model in force. Workers look at the version at every turn and take a new model at their next commit.
pub struct ModelSlot {
    version: AtomicU64,
    in_force: Mutex<Option<InForce>>,
    seen: AtomicI64,
}

impl Default for ModelSlot {
    fn default() -> Self {
        ModelSlot { version: AtomicU64::new(0), in_force: Mutex::default(), seen: AtomicI64::new(Edition::NONE.0) }
    }
}

impl ModelSlot {
    /// Puts a model in force.
    pub fn set(&self, model: Arc<Model>, edition: Edition) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.version() + 1;
        *in_force = Some(InForce { model, edition, version });
        self.version.store(version, Ordering::Release);
        self.saw(edition);
    }

    /// The models topic was read up to this one, whether it was of use or not.
    pub fn saw(&self, edition: Edition) {
        self.seen.fetch_max(edition.0, Ordering::Release);
    }

    /// The last model that has been looked at, as far as that concerns one who uses the model of this version: a later model in force
    /// is none that can be done without.
    pub(super) fn seen_by(&self, user: &InForce) -> Edition {
        // In this order: a model is in force before it counts as seen.
        let seen = Edition(self.seen.load(Ordering::Acquire));
        if self.version() == user.version { seen } else { user.edition }
    }

    /// Grows with every `set`; 0 as long as there is no model.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn get(&self) -> Option<Arc<Model>> {
        self.in_force().map(|f| f.model)
    }

    pub(super) fn in_force(&self) -> Option<InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What can change while a worker runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    pub detector: DetectorSettings,
    pub series: SeriesSettings,
    pub incident: IncidentSettings,
    pub commit_interval: Duration,
    pub checkpoint_interval: Duration,
}

/// The tuning in force. As with the model, workers look at the version and take up a newer one at a commit.
pub struct TuningSlot {
    version: AtomicU64,
    in_force: Mutex<Tuning>,
}

impl TuningSlot {
    pub fn new(tuning: Tuning) -> TuningSlot {
        TuningSlot { version: AtomicU64::new(0), in_force: Mutex::new(tuning) }
    }

    pub fn set(&self, tuning: Tuning) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = tuning;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Grows with every `set`.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// With its version, or that of an older one: then it is taken up once more.
    pub(super) fn get(&self) -> (Tuning, u64) {
        let version = self.version();
        (self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone(), version)
    }
}

/// Signs of life of one worker, written by it and read by the probes.
pub struct Pulse {
    epoch: Instant,
    turned_ms: AtomicU64,
    answered_ms: AtomicU64,
    answers: AtomicU64,
    assigned: AtomicI64,
    /// When the oldest record that is not committed yet was read, in ms; `NOTHING_OPEN` if there is none.
    open_since_ms: AtomicU64,
    /// When the first of the held partitions that wait began to, in ms; `NOTHING_OPEN` if none does.
    astray_since_ms: AtomicU64,
}

/// `Pulse::assigned` before the group's first answer.
const NO_ASSIGNMENT: i64 = -1;
const NOTHING_OPEN: u64 = u64::MAX;

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            epoch: Instant::now(),
            turned_ms: AtomicU64::new(0),
            answered_ms: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            assigned: AtomicI64::new(NO_ASSIGNMENT),
            open_since_ms: AtomicU64::new(NOTHING_OPEN),
            astray_since_ms: AtomicU64::new(NOTHING_OPEN),
        }
    }
}

impl Pulse {
    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// The loop turned.
    pub fn turn(&self) {
        self.turned_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Brokers have sent `answers` responses so far. A new client begins at none.
    pub fn answered(&self, answers: u64) {
        if answers > self.answers.swap(answers, Ordering::Relaxed) {
            self.answered_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Partitions held now; none between a revocation and the next assignment.
    pub fn assigned(&self, partitions: Option<usize>) {
        self.assigned.store(partitions.map_or(NO_ASSIGNMENT, |n| n as i64), Ordering::Relaxed);
    }

    /// A record was read; what is open already stays as old as it is.
    pub fn began(&self) {
        let now = self.now_ms();
        let _ = self.open_since_ms.compare_exchange(NOTHING_OPEN, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Everything read is committed.
    pub fn committed(&self) {
        self.open_since_ms.store(NOTHING_OPEN, Ordering::Relaxed);
    }

    /// Since when a held partition is not read.
    pub fn astray(&self, since: Option<Instant>) {
        let since = since.map_or(NOTHING_OPEN, |at| at.saturating_duration_since(self.epoch).as_millis() as u64);
        self.astray_since_ms.store(since, Ordering::Relaxed);
    }

    /// For how long a held partition has not been read.
    pub fn astray_for(&self) -> Duration {
        match self.astray_since_ms.load(Ordering::Relaxed) {
            NOTHING_OPEN => Duration::ZERO,
            since => Duration::from_millis(self.now_ms().saturating_sub(since)),
        }
    }

    /// For how long records have been waiting for a commit, over all tries.
    pub fn uncommitted_for(&self) -> Duration {
        match self.open_since_ms.load(Ordering::Relaxed) {
            NOTHING_OPEN => Duration::ZERO,
            since => Duration::from_millis(self.now_ms().saturating_sub(since)),
        }
    }

    /// Time since the loop last turned.
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.turned_ms.load(Ordering::Relaxed)))
    }

    /// Time since a broker last answered.
    pub fn unanswered_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.answered_ms.load(Ordering::Relaxed)))
    }

    /// Partitions held, if the group has answered (a member may rightly hold none).
    pub fn partitions(&self) -> Option<usize> {
        usize::try_from(self.assigned.load(Ordering::Relaxed)).ok()
    }
}

/// The wish to stop, set once.
#[derive(Default, Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
