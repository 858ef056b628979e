//! How far learning is: a bar on a terminal, else a log line now and then, and always for `/status` and the metric.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::metrics::Metrics;

/// Between two log lines of one stage.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What stands between start and scoring, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Not enough records in the topic yet.
    WaitingForRecords,
    ReadingHistory,
    Training,
    Done,
}

impl Stage {
    fn words(self) -> &'static str {
        match self {
            Stage::WaitingForRecords => "waiting for records",
            Stage::ReadingHistory => "reading history",
            Stage::Training => "training",
            Stage::Done => "learned",
        }
    }

    /// Share of the way to scoring that lies behind, `part` (0 to 1) into this stage.
    fn ratio(self, part: f64) -> f64 {
        match self {
            Stage::WaitingForRecords => 0.4 * part,
            Stage::ReadingHistory => 0.4 + 0.1 * part,
            Stage::Training => 0.5 + 0.5 * part,
            Stage::Done => 1.0,
        }
    }
}

/// Where learning stands.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    pub stage: Stage,
    pub done: u64,
    pub total: u64,
    /// What stands in the way, in words; empty if nothing does.
    pub because: String,
}

/// Shows progress.
pub struct Progress {
    metrics: Arc<Metrics>,
    bar: Option<ProgressBar>,
    state: Mutex<(Standing, Option<Instant>)>,
}

impl Progress {
    /// With a bar on standard error where that is a terminal.
    pub fn new(metrics: Arc<Metrics>) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:>20} [{bar:40}] {pos}/{len}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let standing = Standing { stage: Stage::WaitingForRecords, done: 0, total: 0, because: String::new() };
        Progress { metrics, bar, state: Mutex::new((standing, None)) }
    }

    pub fn standing(&self) -> Standing {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// A model in the models topic cannot be used.
    pub fn model_refused(&self) {
        self.metrics.model_refused();
    }

    pub fn at(&self, stage: Stage, done: u64, total: u64) {
        self.held_up(stage, done, total, String::new());
    }

    /// As `at`, and why it does not go on.
    pub fn held_up(&self, stage: Stage, done: u64, total: u64, because: String) {
        self.metrics.warmup(stage.ratio(done.min(total) as f64 / total.max(1) as f64));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = state.0.stage != stage;
        let told = format!("{}{}{because}", stage.words(), if because.is_empty() { "" } else { ": " });
        state.0 = Standing { stage, done, total, because };
        match &self.bar {
            Some(bar) if stage == Stage::Done => bar.finish_and_clear(),
            Some(bar) => {
                bar.set_message(told);
                bar.set_length(total);
                bar.set_position(done);
            }
            None if changed || state.1.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) => {
                tracing::info!(done, total, "{told}");
                state.1 = Some(Instant::now());
            }
            None => {}
        }
    }
}
