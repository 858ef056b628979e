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

    /// Takes up what can change; true if anything does. What cannot be used leaves everything as it is.
    pub fn reload(&self, source: &Source<'_>) -> bool {
        let mut standing = self.standing();
        match (source.load)().and_then(|newer| standing.config.take_up(&newer)) {
            Err(error) => {
                let refused = error.to_string();
                tracing::error!(
                    error = refused,
                    "the configuration file cannot be used, the last good one stays in force"
                );
                standing.refused = Some(refused);
                self.metrics.reloaded(Reload::Refused, standing.pending.len());
                false
            }
            Ok(TakenUp { config, changed, pending }) => {
                if !pending.is_empty() {
                    tracing::warn!(
                        keys = pending.join(", "),
                        "these keys of the configuration count from the next start on"
                    );
                }
                let how = if changed.is_empty() { Reload::Unchanged } else { Reload::Applied };
                tracing::info!(changed = changed.join(", "), "configuration read again");
                self.metrics.reloaded(how, pending.len());
                if tuning(&config) != tuning(&standing.config) {
                    self.tuning.set(tuning(&config));
                }
                if config.log.level != standing.config.log.level {
                    (source.log_level)(config.log.level);
                }
                *standing = Standing { config, pending, refused: None };
                !changed.is_empty()
            }
        }
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

impl<'a> FileWatch<'a> {
    pub fn new(file: &'a Path) -> FileWatch<'a> {
        let known = std::fs::read(file).ok();
        FileWatch { file, seen: known.clone(), known, looked: Instant::now() }
    }

    /// Whether it is another now, and was so at the look before: nobody is writing it any more.
    pub fn changed(&mut self) -> bool {
        if self.looked.elapsed() < LOOK_INTERVAL {
            return false;
        }
        self.looked = Instant::now();
        let now = std::fs::read(self.file).ok();
        let settled = now == self.seen;
        self.seen = now;
        if !settled || self.seen == self.known {
            return false;
        }
        self.known.clone_from(&self.seen);
        true
    }
}
