//! The configuration in force, and how a file that changed becomes it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, ConfigError, LogLevel, TakenUp};
use crate::metrics::{Metrics, Reload};
use crate::pipeline::{Tuning, TuningSlot};

/// Between two looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Where the configuration comes from, and what its log level is told to.
pub struct Source<'a> {
    pub file: &'a Path,
    /// What was in it before it was loaded.
    pub known: Option<Vec<u8>>,
    pub load: &'a dyn Fn() -> Result<Config, ConfigError>,
    pub log_level: &'a dyn Fn(LogLevel),
}

/// What is in force, and what of the file is not.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub config: Config,
    /// Keys that have another value in the file, which counts from the next start on.
    pub pending: Vec<String>,
    /// Why the file as it is now cannot be used.
    pub refused: Option<String>,
}

/// The configuration in force, shared by all that can take up another.
pub(super) struct Current {
    standing: Mutex<Standing>,
    pub tuning: Arc<TuningSlot>,
    metrics: Arc<Metrics>,
}

impl Current {
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Current {
        let tuning = Arc::new(TuningSlot::new(tuning(&config)));
        Current { standing: Mutex::new(Standing { config, pending: Vec::new(), refused: None }), tuning, metrics }
    }

    pub fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what can change; true if anything does. What cannot be used leaves everything as it is. There is one caller; nobody waits for
    /// what it reads and says. `asked`: somebody wants to know, and is told also what was told before.
    pub fn reload(&self, source: &Source<'_>, asked: bool) -> bool {
        let before = self.standing().clone();
        match (source.load)().and_then(|newer| before.config.take_up(&newer)) {
            Err(error) => {
                let refused = error.to_string();
                // By itself it is tried again and again, and told once.
                let known = !asked && before.refused.as_ref() == Some(&refused);
                let pending = before.pending.len();
                *self.standing() = Standing { refused: Some(refused.clone()), ..before };
                if !known {
                    self.metrics.reloaded(Reload::Refused, pending);
                    tracing::error!(
                        error = refused,
                        "the configuration file cannot be used, the last good one stays in force"
                    );
                }
                false
            }
            Ok(TakenUp { config, changed, pending }) => {
                let (tuned, level) = (tuning(&config), config.log.level);
                *self.standing() = Standing { config, pending: pending.clone(), refused: None };
                if tuned != tuning(&before.config) {
                    self.tuning.set(tuned);
                }
                let how = if changed.is_empty() { Reload::Unchanged } else { Reload::Applied };
                self.metrics.reloaded(how, pending.len());
                // Who reads these finds it done.
                if !pending.is_empty() {
                    tracing::warn!(
                        keys = pending.join(", "),
                        "these keys of the configuration count from the next start on"
                    );
                }
                tracing::info!(changed = changed.join(", "), "configuration read again");
                if level != before.config.log.level {
                    (source.log_level)(level);
                }
                !changed.is_empty()
            }
        }
    }

    /// Whether the file cannot be used as it is: perhaps because of another file that it names.
    pub fn is_refused(&self) -> bool {
        self.standing().refused.is_some()
    }
}

fn tuning(config: &Config) -> Tuning {
    Tuning {
        detector: config.detector.clone(),
        series: config.series.clone(),
        incident: config.incident.clone(),
        commit_interval: config.kafka.commit_interval,
        checkpoint_interval: config.kafka.checkpoint_interval,
    }
}

/// Looks whether a file has changed, by what is in it: names and times say nothing where a volume is exchanged as a whole.
pub(super) struct FileWatch<'a> {
    file: &'a Path,
    /// As it was when it was last taken up, and as it was at the last look.
    known: Option<Vec<u8>>,
    seen: Option<Vec<u8>>,
    looked: Instant,
}

/// What a look at the file says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Look {
    /// It is too early, or somebody may be writing it: it is not what it was at the look before.
    NotYet,
    Same,
    Changed,
}

impl<'a> FileWatch<'a> {
    pub fn new(source: &Source<'a>) -> FileWatch<'a> {
        FileWatch { file: source.file, known: source.known.clone(), seen: source.known.clone(), looked: Instant::now() }
    }

    pub fn look(&mut self) -> Look {
        if self.looked.elapsed() < LOOK_INTERVAL {
            return Look::NotYet;
        }
        self.looked = Instant::now();
        let now = std::fs::read(self.file).ok();
        let settled = now == self.seen;
        self.seen = now;
        if !settled {
            return Look::NotYet;
        }
        if self.seen == self.known {
            return Look::Same;
        }
        self.known.clone_from(&self.seen);
        Look::Changed
    }

    /// It is taken up as it is now, whatever it was.
    pub fn known(&mut self) {
        self.seen = std::fs::read(self.file).ok();
        self.known.clone_from(&self.seen);
    }
}
