//! The model: what normal looks like, learned from records, and how strange one record is.
//!
//! scale (`scaler`) -> window (`series`) -> autoencoder (`network`, trained by `train`, sized by `bottleneck`) ->
//! residual -> whitened residual (`residual`) -> distance -> its logarithm, alone and smoothed per series -> each divided
//! by its threshold (`tail`, from an `AlarmBudget`). `fit` puts these together, `artifact` writes and reads the result.
//! The reasons and sources are in docs/detection.md.

mod alarms;
mod artifact;
mod bottleneck;
mod fit;
mod network;
mod residual;
mod scaler;
mod series;
mod settings;
mod tail;
#[cfg(test)]
pub(crate) mod testing;
mod tile;
mod train;

use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

pub use alarms::{AlarmBudget, AlarmBudgetError};
pub use artifact::ArtifactError;
pub use fit::FitError;
pub use settings::{Activation, Auto, ModelSettings, SettingError};
pub(crate) use tile::{TILE, Tile};

use crate::record::{NextOffset, Offset, PartitionId, Schema, Table};
use network::Network;
use residual::Residuals;
use scaler::Scaler;
use tail::Tail;

/// Largest artifact that is written or read.
pub const ARTIFACT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Weight of the newest record in the smoothed level of its series.
const SMOOTHING: f64 = 0.3;
/// Part of the alarm budget that goes to records judged alone. Smoothed levels exceed in runs of about 1 / `SMOOTHING`
/// records, single ones do not: with this part, as many false incidents come from the one as from the other.
const RECORD_SHARE: f64 = SMOOTHING / (1.0 + SMOOTHING);
/// Largest ratio of a distance to the median; its logarithm is still finite and comparable.
const RATIO_MAX: f64 = 1e30;

/// A learned model. Immutable; scoring state lives in the detector.
#[derive(Debug)]
pub struct Model {
    schema: Schema,
    source: TrainingSource,
    settings: ModelSettings,
    rows: RowCounts,
    scaler: Scaler,
    network: Network,
    residuals: Residuals,
    calibration: Calibration,
    /// Hexadecimal SHA-256 of the artifact.
    checksum: String,
}

/// Which of the models that followed each other it is: a later one has a larger number (its offset in their topic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition(pub i64);

impl Edition {
    /// Of a model that follows no other.
    pub const NONE: Edition = Edition(-1);
    /// No model is later.
    pub const LAST: Edition = Edition(i64::MAX);
}

/// Where the training records came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainingSource {
    Topic { topic: String, ranges: Vec<(PartitionId, Offset, NextOffset)> },
    File { name: String, rows: usize },
}

/// Training records, and how many windows of them were trained on and held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCounts {
    pub all: usize,
    pub training: usize,
    pub held_out: usize,
}

/// How records become inputs and scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    /// Records per input.
    pub window: usize,
    /// Whether the rows of a series follow each other in time: only then are scores smoothed.
    pub ordered: bool,
}

/// From distances to levels, and which of them are rare.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calibration {
    layout: Layout,
    /// Of the held-out distances, positive.
    median: f64,
    tails: Tails,
}

/// Distributions of the held-out levels: of records alone, and smoothed. The same where rows have no order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tails {
    pub record: Tail,
    pub smoothed: Tail,
}

/// Levels from which a record is flagged: for itself, or for its series. Finite and positive; levels divided by them are
/// scores, the larger one counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    pub record: f64,
    pub smoothed: f64,
}

impl Calibration {
    /// Level of one record at `distance`: finite, not negative.
    pub fn level(&self, distance: f64) -> f64 {
        let ratio = distance / self.median;
        if ratio < RATIO_MAX { ratio } else { RATIO_MAX }.ln_1p()
    }

    /// What the newest record counts for in what is smoothed.
    pub fn weight(&self) -> f64 {
        if self.layout.ordered { SMOOTHING } else { 1.0 }
    }

    /// Smoothed level of a series after a record at `level`, from its level before. Finite, not negative.
    pub fn smooth(&self, before: f64, level: f64) -> f64 {
        if self.layout.ordered { before + SMOOTHING * (level - before) } else { level }
    }

    /// Smoothed level of a series before its first record: that of the median distance, an ordinary record.
    pub fn smoothed_start(&self) -> f64 {
        1.0f64.ln_1p()
    }
}

impl Model {
    /// Learns from a table: a function of table, settings and source; same input, same bytes on the same kind of
    /// processor. `progress` gets (done, total) training steps, and may break off.
    ///
    /// # Errors
    /// Settings out of bounds, too few records, a model too large for an artifact, [`FitError::Stopped`].
    pub fn fit(
        table: &Table,
        settings: &ModelSettings,
        source: TrainingSource,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Self, FitError> {
        fit::fit(table, settings, source, progress)
    }

    /// First 16 hexadecimal digits of the artifact's SHA-256.
    pub fn fingerprint(&self) -> &str {
        &self.checksum[..16]
    }

    /// All 64 hexadecimal digits.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn source(&self) -> &TrainingSource {
        &self.source
    }

    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    pub fn rows(&self) -> RowCounts {
        self.rows
    }

    /// Records per input; a series is warming until it has that many.
    pub fn window(&self) -> usize {
        self.calibration.layout.window
    }

    /// Whether the training records had an order in time; only then are scores smoothed.
    pub fn ordered(&self) -> bool {
        self.calibration.layout.ordered
    }

    /// Widths of the layers: input, hidden, code, hidden, output.
    pub fn layer_sizes(&self) -> [usize; 5] {
        self.network.sizes()
    }

    /// Levels that a share `budget` of the normal records exceeds, one or the other.
    pub fn thresholds(&self, budget: &AlarmBudget) -> Thresholds {
        let Tails { record, smoothed } = &self.calibration.tails;
        let (alone, together) = if self.ordered() { (RECORD_SHARE, 1.0 - RECORD_SHARE) } else { (1.0, 1.0) };
        Thresholds { record: record.level(alone * budget.rate()), smoothed: smoothed.level(together * budget.rate()) }
    }

    pub(crate) fn scaler(&self) -> &Scaler {
        &self.scaler
    }

    pub(crate) fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// An empty tile for `run`.
    pub(crate) fn tile(&self) -> Tile {
        Tile::new(&self.network)
    }

    /// Reconstructs and whitens what is in the tile.
    pub(crate) fn run(&self, tile: &mut Tile) {
        tile.reconstruct(&self.network);
        tile.whiten(&self.residuals);
    }
}
