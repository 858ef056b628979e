//! From a table of training records to a model. Nothing here ever sees a label.

use ndarray::{Array2, Axis, s};
use std::ops::ControlFlow;

use super::bottleneck::Principal;
use super::network::Network;
use super::residual::Residuals;
use super::scaler::Scaler;
use super::series::{HeldOut, SeriesRows, Split};
use super::settings::{INPUTS_MAX, ModelSettings, SettingError, WIDTH_MAX};
use super::tail::Tail;
use super::tile::{TILE, Tile};
use super::{ARTIFACT_BYTES_MAX, ArtifactError, Calibration, Layout, Model, RowCounts, Tails, TrainingSource, train};
use crate::record::Table;

/// Window of a single feature with a time order. One value alone has no shape; with several features, windows rank
/// worse than single records.
const SINGLE_FEATURE_WINDOW: usize = 10;
/// Bounds of the automatic width of the hidden layers.
const HIDDEN: [usize; 2] = [16, 128];
/// Fewest windows to train on, and to calibrate with. Below that nothing learned is worth the name.
const TRAINING_MIN: usize = 20;
const HELD_OUT_MIN: usize = 5;
/// Held-out blocks are dealt into this many parts for calibration (see `calibrate`).
const FOLDS: usize = 4;

/// Why no model could be learned.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(
        "learn from {rows} records: they give {training} training and {held_out} held-out windows of {window} records, \
         expected at least {TRAINING_MIN} and {HELD_OUT_MIN}"
    )]
    TooFewRecords { rows: usize, window: usize, training: usize, held_out: usize },
    #[error("learn a network of {bytes} bytes: expected at most {ARTIFACT_BYTES_MAX}; take a smaller window or hidden")]
    TooLarge { bytes: usize },
    #[error("learn windows of {inputs} values: expected at most {INPUTS_MAX}; take a smaller window or fewer features")]
    TooWide { inputs: usize },
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("train: asked to stop")]
    Stopped,
    #[error("compute {what}: {why}")]
    Numeric { what: &'static str, why: String },
}

pub fn fit(
    table: &Table,
    settings: &ModelSettings,
    source: TrainingSource,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Model, FitError> {
    settings.check()?;
    let scaler = Scaler::fit(table);
    let rows = SeriesRows::new(table, &scaler);
    let ordered = rows.ordered();
    let default_window = if ordered && rows.features == 1 { SINGLE_FEATURE_WINDOW } else { 1 };
    let window = settings.window.fixed().unwrap_or(default_window);
    let split = rows.split(window);
    let (training, held_out) = (split.training.len(), split.held_out.len());
    if training < TRAINING_MIN || held_out < HELD_OUT_MIN {
        return Err(FitError::TooFewRecords { rows: table.rows(), window, training, held_out });
    }
    let inputs = window * rows.features;
    let hidden = settings.hidden.fixed().unwrap_or(inputs.clamp(HIDDEN[0], HIDDEN[1]));
    check_size(inputs, hidden, settings.bottleneck.fixed().unwrap_or(WIDTH_MAX.min(inputs)))?;
    let principal = Principal::of(&rows, window, &split.training)?;
    let code = settings.bottleneck.fixed().unwrap_or(principal.components.min(WIDTH_MAX));
    let network = train::train(&rows, window, &split.training, (hidden, code), &principal, settings, progress)
        .ok_or(FitError::Stopped)?;
    let mut go_on = || match progress(settings.steps as u64, settings.steps as u64) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(FitError::Stopped),
    };
    let (residuals, calibration) = calibrate(&rows, &split, &network, Layout { window, ordered }, &mut go_on)?;
    let model = Model {
        schema: table.schema.clone(),
        source,
        settings: settings.clone(),
        rows: RowCounts { all: table.rows(), training, held_out },
        scaler,
        network,
        residuals,
        calibration,
        checksum: String::new(),
    };
    Ok(model.sealed()?)
}

/// An upper bound of the artifact's size, with room for its header.
fn check_size(inputs: usize, hidden: usize, code: usize) -> Result<(), FitError> {
    if inputs > INPUTS_MAX {
        return Err(FitError::TooWide { inputs });
    }
    let whitening = if inputs <= super::residual::WHITENED_MAX { inputs * inputs } else { 0 };
    let floats = 2 * inputs * hidden + 2 * hidden * code + whitening + 16 * inputs;
    let bytes = 4 * floats + 1024 * 1024;
    if bytes <= ARTIFACT_BYTES_MAX { Ok(()) } else { Err(FitError::TooLarge { bytes }) }
}

/// Residual statistics, the median distance, and the tails of the levels: from held-out windows alone, since on training
/// windows a network looks better than it is.
///
/// The distances that median and tails rest on are cross-fitted: each quarter of the held-out blocks is measured with the
/// statistics of the other three. Measured with their own statistics they would be too small, by about twice the number
/// of inputs over the number of rows, and the threshold would break its budget.
fn calibrate(
    rows: &SeriesRows,
    split: &Split,
    network: &Network,
    layout: Layout,
    go_on: &mut dyn FnMut() -> Result<(), FitError>,
) -> Result<(Residuals, Calibration), FitError> {
    let held = held_out_residuals(rows, &split.held_out, network, layout.window);
    let residuals = Residuals::fit(held.view())?;
    let mut distances = all_distances(rows, network, &residuals, layout.window);
    for fold in 0..FOLDS {
        go_on()?;
        let others: Vec<usize> = positions(&split.held_out, |block| block % FOLDS != fold);
        let own: Vec<usize> = positions(&split.held_out, |block| block % FOLDS == fold);
        if others.is_empty() || own.is_empty() {
            continue; // fewer held-out blocks than parts
        }
        let apart = Residuals::fit(held.select(Axis(0), &others).view())?;
        let windows: Vec<usize> = own.iter().map(|&i| split.held_out[i].row).collect();
        each_distance(rows, network, &apart, layout.window, &windows, |row, distance| distances[row] = distance);
    }
    let mut calm: Vec<f64> = split.held_out.iter().map(|h| distances[h.row]).collect();
    calm.sort_by(f64::total_cmp);
    let median = calm[calm.len() / 2].max(1e-9);
    let unknown = Tail::fit(vec![1.0]);
    let mut calibration = Calibration { layout, median, tails: Tails { record: unknown.clone(), smoothed: unknown } };
    calibration.tails = held_out_tails(rows, split, &calibration, &distances);
    Ok((residuals, calibration))
}

fn positions(held_out: &[HeldOut], keep: impl Fn(usize) -> bool) -> Vec<usize> {
    (0..held_out.len()).filter(|&i| keep(held_out[i].block)).collect()
}

/// Held-out windows x inputs, NaN where missing.
fn held_out_residuals(rows: &SeriesRows, held_out: &[HeldOut], network: &Network, window: usize) -> Array2<f32> {
    let mut residuals = Array2::zeros((held_out.len(), network.inputs()));
    let mut tile = Tile::new(network);
    for (start, part) in (0..).step_by(TILE).zip(held_out.chunks(TILE)) {
        tile.clear();
        part.iter().for_each(|h| tile.push(rows.window(h.row, window)));
        tile.reconstruct(network);
        let mut out = residuals.slice_mut(s![start..start + part.len(), ..]);
        out.assign(&tile.residuals());
        tile.missing().iter().for_each(|&at| out[at] = f32::NAN);
    }
    residuals
}

/// Distance of the window that ends at each row; NaN where the series has no full window yet.
fn all_distances(rows: &SeriesRows, network: &Network, residuals: &Residuals, window: usize) -> Vec<f64> {
    let mut distances = vec![f64::NAN; rows.rows()];
    let full: Vec<usize> = rows.series().iter().flat_map(|r| (r.start + window - 1).min(r.end)..r.end).collect();
    each_distance(rows, network, residuals, window, &full, |row, distance| distances[row] = distance);
    distances
}

fn each_distance(
    rows: &SeriesRows,
    network: &Network,
    residuals: &Residuals,
    window: usize,
    windows: &[usize],
    mut take: impl FnMut(usize, f64),
) {
    let mut tile = Tile::new(network);
    for part in windows.chunks(TILE) {
        tile.clear();
        part.iter().for_each(|&row| tile.push(rows.window(row, window)));
        tile.reconstruct(network);
        tile.whiten(residuals);
        part.iter().enumerate().for_each(|(i, &row)| take(row, tile.distance(i)));
    }
}

/// Smoothed as in service: through the whole series, so that a held-out block is entered with the state its
/// predecessors left.
fn held_out_tails(rows: &SeriesRows, split: &Split, calibration: &Calibration, distances: &[f64]) -> Tails {
    let levels: Vec<f64> = distances.iter().map(|&distance| calibration.level(distance)).collect();
    let mut smoothed = vec![f64::NAN; rows.rows()];
    for range in rows.series() {
        let mut level = calibration.smoothed_start();
        for row in range.clone().filter(|&row| !distances[row].is_nan()) {
            level = calibration.smooth(level, levels[row]);
            smoothed[row] = level;
        }
    }
    let tail = |of: &[f64]| Tail::fit(split.held_out.iter().map(|h| of[h.row]).collect());
    Tails { record: tail(&levels), smoothed: tail(&smoothed) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, plane, table};
    use super::super::{AlarmBudget, Auto, Thresholds};
    use super::*;

    fn source() -> TrainingSource {
        TrainingSource::File { name: "test".to_owned(), rows: 0 }
    }

    fn quick() -> ModelSettings {
        ModelSettings { steps: 100, ..Default::default() }
    }

    #[track_caller]
    fn fitted(table: &Table, settings: &ModelSettings) -> Model {
        fit(table, settings, source(), &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn same_data_settings_and_seed_give_the_same_bytes() {
        let table = table(5, plane(1, 600, 5, 2));
        let settings = ModelSettings { denoise: 0.1, ..quick() };
        let bytes = fitted(&table, &settings).to_bytes().unwrap();
        assert_eq!(bytes, fitted(&table, &settings).to_bytes().unwrap());
        let other_seed = ModelSettings { seed: 1, ..settings.clone() };
        assert_ne!(bytes, fitted(&table, &other_seed).to_bytes().unwrap());
        let mut other_data = table.clone();
        other_data.values[7] += 1e-3;
        assert_ne!(bytes, fitted(&other_data, &settings).to_bytes().unwrap());
    }

    #[test]
    fn defaults_come_from_the_data() {
        let still = fitted(&table(6, plane(1, 600, 6, 2)), &quick());
        assert!(!still.ordered());
        assert_eq!((still.window(), still.layer_sizes()), (1, [6, 16, 2, 16, 6]));
        let wave: Vec<f64> = (0..600).zip(noise(1, 600)).map(|(i, e)| (i as f64 * 0.5).sin() + 0.05 * e).collect();
        let single = fitted(&table(1, wave), &quick());
        assert!(single.ordered());
        assert_eq!((single.window(), single.layer_sizes()), (10, [10, 16, 2, 16, 10]));
        let fixed =
            ModelSettings { window: Auto::Fixed(3), bottleneck: Auto::Fixed(4), hidden: Auto::Fixed(9), ..quick() };
        assert_eq!(fitted(&table(6, plane(1, 600, 6, 2)), &fixed).layer_sizes(), [18, 9, 4, 9, 18]);
    }

    #[test]
    fn too_few_records_are_refused_with_numbers() {
        let error =
            fit(&table(3, plane(1, 12, 3, 1)), &quick(), source(), &mut |_, _| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, FitError::TooFewRecords { rows: 12, .. }), "{error}");
        let empty = fit(&table(3, vec![]), &quick(), source(), &mut |_, _| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(empty, FitError::TooFewRecords { rows: 0, .. }), "{empty}");
    }

    #[test]
    fn models_too_large_for_an_artifact_are_refused_before_training() {
        let settings = ModelSettings { window: Auto::Fixed(1000), hidden: Auto::Fixed(4096), ..quick() };
        let error = fit(&table(6, plane(1, 9000, 6, 1)), &settings, source(), &mut |_, _| panic!()).unwrap_err();
        assert!(matches!(error, FitError::TooLarge { .. }), "{error}");
        // Few inputs, but a wide code.
        let wide = ModelSettings { hidden: Auto::Fixed(4096), bottleneck: Auto::Fixed(4096), ..quick() };
        let error = fit(&table(6, plane(1, 600, 6, 1)), &wide, source(), &mut |_, _| panic!()).unwrap_err();
        assert!(matches!(error, FitError::TooLarge { .. }), "{error}");
        let long = ModelSettings { window: Auto::Fixed(1024), hidden: Auto::Fixed(1), ..quick() };
        let error = fit(&table(65, vec![0.0; 65 * 5000]), &long, source(), &mut |_, _| panic!()).unwrap_err();
        assert!(matches!(error, FitError::TooWide { inputs: 66_560 }), "{error}");
    }

    #[test]
    fn calibration_can_be_broken_off_too() {
        let mut at_the_end = 0;
        let stopped = fit(&table(3, plane(1, 600, 3, 1)), &quick(), source(), &mut |done, total| {
            at_the_end += u32::from(done == total);
            if at_the_end < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(stopped, Err(FitError::Stopped)));
    }

    #[test]
    fn degenerate_tables_still_give_finite_thresholds() {
        let missing = vec![f64::NAN; 600];
        let mut huge = plane(1, 200, 3, 1);
        huge[50] = 1e300;
        huge[90] = -1e90;
        for values in [vec![4.2; 600], missing, huge, (0..600).map(|i| f64::from(i % 2)).collect()] {
            let Thresholds { record, smoothed } =
                fitted(&table(3, values), &quick()).thresholds(&AlarmBudget::default());
            assert!(
                record.is_finite() && record > 0.0 && smoothed.is_finite() && smoothed > 0.0,
                "{record} {smoothed}"
            );
        }
    }

    #[test]
    fn wide_records_are_learned_without_whitening() {
        let model = fitted(&table(600, plane(1, 120, 600, 2)), &ModelSettings { steps: 20, ..quick() });
        assert!(model.thresholds(&AlarmBudget::default()).record.is_finite());
        assert_eq!(Model::from_bytes(&model.to_bytes().unwrap()).unwrap().fingerprint(), model.fingerprint());
    }
}
