//! From a table of training records to a model. Nothing here ever sees a label.

use super::audit;
use super::bottleneck::Principal;
use super::hands::{Hands, Progress, Training};
use super::held::Held;
use super::law::{self, Peaks};
use super::member::{Measured, Member, Term};
use super::neighbours::{self, Learned, Neighbours};
use super::network::Network;
use super::profile::{self, Part, Profile};
use super::projection::Plane;
use super::reference::{BINS, EDGES, Reference};
use super::residual::{Residuals, SHRINK_MIN, SHRINK_MIN_SLOW};
use super::scaler::Scaler;
use super::series::{Cut, FOLDS, SeriesRows, Split};
use super::settings::{INPUTS_MAX, ModelSettings, Scaling, SettingError, WIDTH_MAX};
use super::tail::Tail;
use super::view::{Inputs, View};
use super::{ARTIFACT_BYTES_MAX, ArtifactError, Deciding, Known, Model, RowCounts, TrainingSource, order, train};
use crate::record::Table;

/// Least width of the hidden layers, if that is automatic.
const HIDDEN_MIN: usize = 16;
/// Where nothing is trained, every block is held out.
const EVERY_BLOCK: Cut = Cut { blocks: 40, folds: 1, fold: 0, apart: 0 };
/// Fewest windows to train on, and to calibrate with. Below that nothing learned is worth the name.
pub(super) const TRAINING_MIN: usize = 20;
pub(super) const HELD_OUT_MIN: usize = 5;

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
    profile: Profile,
    source: TrainingSource,
    hands: &Hands,
    progress: &mut Progress,
) -> Result<Model, FitError> {
    settings.check()?;
    let mut scaler = Scaler::fit(table);
    let mut rows = SeriesRows::new(table, &scaler);
    let ordered = order::ordered(&rows);
    let by_series = ordered && settings.scale == Scaling::Auto;
    let mut fleet = if by_series { rows.set_apart(table, &scaler) } else { None };
    let parts = profile::parts(profile, ordered, rows.features, settings.window.fixed());
    let Some(decides) = parts.last() else { unreachable!("every profile has a network") };
    let mut counts = check_sizes(&rows, &parts, ordered, settings)?;
    let audits = if ordered { audit::NETWORKS } else { 0 };
    let networks = parts.iter().map(|part| splits(&rows, part, ordered).len()).sum::<usize>() + audits;
    let training = Training::new(hands, (settings.steps * networks) as u64, progress);
    let mut laws = None;
    if ordered {
        laws = audit::leave_out(&mut rows, decides, settings, &training, &mut |rows, strange| {
            let before = rows.which_are_left_out().to_vec();
            scaler = rows.leave_out(strange, table);
            let rest = check_sizes(rows, &parts, ordered, settings);
            if rest.is_err() {
                // Too few for anything would be left.
                scaler = rows.leave_out(before, table);
            }
            fleet = if by_series { rows.set_apart(table, &scaler) } else { None };
            counts = rest.as_ref().copied().unwrap_or(counts);
            rest.is_ok()
        })?;
    }
    let mut learned = training.all(parts.len(), |at| learn(&rows, &parts[at], ordered, settings, &training))?;
    let (first, seen) = (&parts[0], Inputs::new(&rows, parts[0].view));
    let held_out = rows.split(first.view.window).held_out;
    let Some((ranking, _)) = learned.first() else { unreachable!("every profile has a network") };
    let plane = Plane::of(&ranking.network, &seen, held_out.iter().map(|held| held.row))?;
    // The last one decides.
    let Some((member, held)) = learned.pop() else { unreachable!("every profile has a network") };
    let (seen, split) = (Inputs::new(&rows, member.view), rows.split(member.view.window));
    // Without an order every window was held out once.
    let all = if ordered { split.all_rows() } else { held.rows.clone() };
    let told = || training.done(0);
    let beside = Neighbours::learn(&seen, &all, &member.network, (ordered, settings.seed), told)?;
    let deciding = match laws {
        Some((laws, records)) => {
            counts.calibrating = records;
            Deciding::Laws(laws)
        }
        None => {
            counts.calibrating = held.rows.len();
            decide(&member, &held, &beside, (&seen, &split), ordered)
        }
    };
    let members = learned.into_iter().map(|(member, _)| member).chain([member]).collect();
    let known = Known { scaler, fleet, reference: Reference::of(&rows), plane, neighbours: beside.neighbours };
    Model::new(table.schema.clone(), source, (settings.clone(), profile), counts, known, members, deciding)
        .sealed()
        .map_err(FitError::Artifact)
}

/// A model of a network that was trained elsewhere, for windows of so many records as `scaler` scales them. All records calibrate it.
pub(super) fn calibrate(
    table: &Table,
    scaler: Scaler,
    window: usize,
    network: Network,
    source: TrainingSource,
) -> Result<Model, FitError> {
    let rows = SeriesRows::new(table, &scaler);
    let ordered = order::ordered(&rows);
    let view = View { window, context: false, clip: 0.0 };
    let split = rows.cut(window, EVERY_BLOCK);
    let held_out = split.held_out.len();
    if held_out < TRAINING_MIN {
        return Err(FitError::TooFewRecords { rows: rows.rows(), window, training: 0, held_out });
    }
    let seen = Inputs::new(&rows, view);
    let mut held = Held::of(&seen, &split, &network);
    held.learn_noise(&seen, &split, &network);
    let plane = Plane::of(&network, &seen, split.held_out.iter().map(|held| held.row))?;
    let (member, held) = calibrated(network, held, (view, 1.0), ordered)?;
    let seed = ModelSettings::default().seed;
    let beside = Neighbours::learn(&seen, &held.rows, &member.network, (ordered, seed), || Ok(()))?;
    let deciding = decide(&member, &held, &beside, (&seen, &split), ordered);
    let counts = RowCounts { all: rows.rows(), left_out: 0, training: 0, held_out, calibrating: held_out };
    let neighbours = beside.neighbours;
    let known = Known { scaler, fleet: None, reference: Reference::of(&rows), plane, neighbours };
    let settings = (ModelSettings::default(), Profile::Fast);
    Model::new(table.schema.clone(), source, settings, counts, known, vec![member], deciding)
        .sealed()
        .map_err(FitError::Artifact)
}

/// Refuses what cannot be learned before time is spent on it.
fn check_sizes(
    rows: &SeriesRows,
    parts: &[Part],
    ordered: bool,
    settings: &ModelSettings,
) -> Result<RowCounts, FitError> {
    let references = neighbours::count(rows.features, rows.rows(), ordered);
    let mut bytes = 1024 * 1024 + 4 * rows.features * (EDGES + BINS + references);
    let (all, left_out) = (rows.rows(), rows.left_out());
    let mut counts = RowCounts { all, left_out, training: 0, held_out: 0, calibrating: 0 };
    for part in parts {
        let inputs = part.view.inputs(rows.features);
        if inputs > INPUTS_MAX {
            return Err(FitError::TooWide { inputs });
        }
        let split = rows.split(part.view.window);
        let (training, held_out) = (split.training.len(), split.held_out.len());
        if training < TRAINING_MIN || held_out < HELD_OUT_MIN {
            let window = part.view.window;
            return Err(FitError::TooFewRecords { rows: rows.rows(), window, training, held_out });
        }
        counts = RowCounts { training, held_out, calibrating: held_out, ..counts };
        let hidden = hidden(part, inputs, settings);
        let code = code(part, WIDTH_MAX.min(inputs), settings);
        let whitening = if inputs <= super::residual::WHITENED_MAX { inputs * inputs } else { 0 };
        bytes += 4 * (2 * inputs * hidden + 2 * hidden * code + 2 * whitening + 16 * inputs);
    }
    if bytes <= ARTIFACT_BYTES_MAX { Ok(counts) } else { Err(FitError::TooLarge { bytes }) }
}

/// What networks learn from of which the first is kept: where records have no order all calibrate, each as one sees it that did not learn from it. Of
/// others than the first there may be too few.
fn splits(rows: &SeriesRows, part: &Part, ordered: bool) -> Vec<Split> {
    let folds = if ordered { 1 } else { FOLDS };
    let splits = (0..folds).map(|fold| rows.fold(part.view.window, fold)).enumerate();
    let enough = |split: &Split| split.training.len() >= TRAINING_MIN && !split.held_out.is_empty();
    splits.filter(|(fold, split)| *fold == 0 || enough(split)).map(|(_, split)| split).collect()
}

fn hidden(part: &Part, inputs: usize, settings: &ModelSettings) -> usize {
    limited(settings.hidden.fixed(), part, part.hidden_max).unwrap_or(inputs.clamp(HIDDEN_MIN, part.hidden_max))
}

fn code(part: &Part, automatic: usize, settings: &ModelSettings) -> usize {
    limited(settings.bottleneck.fixed(), part, part.code_max).unwrap_or(automatic.min(part.code_max))
}

/// What the user wants; a network that only decides stays small even so.
fn limited(wanted: Option<usize>, part: &Part, most: usize) -> Option<usize> {
    wanted.map(|width| if part.weight > 0.0 { width } else { width.min(most) })
}

/// Trains one network, and learns from held-out records what its residuals look like; where records have no order, from all of them, each held out
/// from one of several networks, of which the first is kept (CV+, Barber et al. 2021).
fn learn(
    rows: &SeriesRows,
    part: &Part,
    ordered: bool,
    settings: &ModelSettings,
    training: &Training,
) -> Result<(Member, Held), FitError> {
    let seen = Inputs::new(rows, part.view);
    let splits = splits(rows, part, ordered);
    let learned = training.all(splits.len(), |fold| learn_network(&seen, &splits[fold], part, settings, training))?;
    let mut learned = learned.into_iter();
    let Some((network, mut held)) = learned.next() else { unreachable!("there is a first split") };
    // Calibration can be broken off too.
    training.done(0)?;
    held.learn_noise(&seen, &splits[0], &network);
    if !ordered {
        held.join(&learned.map(|(_, held)| held).collect::<Vec<Held>>());
    }
    calibrated(network, held, (part.view, part.weight), ordered)
}

/// Learns from held-out records what the residuals of a network look like.
fn calibrated(
    network: Network,
    mut held: Held,
    (view, weight): (View, f64),
    ordered: bool,
) -> Result<(Member, Held), FitError> {
    let (kept, noise, own) = (held.kept.clone(), held.noise.clone(), held.own.clone().into());
    if weight <= 0.0 {
        let (residuals, distance) = (Residuals::standard(held.residuals.view()), Term::NONE);
        return Ok((Member { view, weight, network, kept, noise, own, residuals, distance, slow: None }, held));
    }
    let (Measured { residuals, distance }, distances) = held.measured(&held.residuals, SHRINK_MIN)?;
    held.distances = distances;
    let mut member = Member { view, weight, network, kept, noise, own, residuals, distance, slow: None };
    if ordered {
        member.slow = Some(held.measured(&held.slow_averages(&member), SHRINK_MIN_SLOW)?.0);
    }
    Ok((member, held))
}

/// A network, and what it makes of the windows that are held out.
pub(super) fn learn_network(
    seen: &Inputs,
    split: &Split,
    part: &Part,
    settings: &ModelSettings,
    training: &Training,
) -> Result<(Network, Held), FitError> {
    let principal = Principal::of(seen, &split.training)?;
    let code = code(part, principal.components.min(WIDTH_MAX), settings);
    let sizes = (hidden(part, seen.width(), settings), code);
    let seeded = ModelSettings { seed: settings.seed.wrapping_add(part.seed), ..settings.clone() };
    let network = train::train(seen, &split.training, sizes, &principal, &seeded, training)?;
    let held = Held::of(seen, split, &network);
    Ok((network, held))
}

/// What decides, from what held-out records are like.
fn decide(member: &Member, held: &Held, beside: &Learned, (seen, split): (&Inputs, &Split), ordered: bool) -> Deciding {
    if ordered {
        return Deciding::Laws(law::learn(&held.stretches(member, seen, split), Peaks::Mean));
    }
    let levels = held.distances.iter().zip(&beside.distances).map(|(distance, near)| {
        let [nearest, grouped] = beside.neighbours.levels(*near);
        [member.distance.level(*distance), nearest, grouped].into_iter().fold(0.0, f64::max)
    });
    let ([nearest, grouped], residual) = (beside.units(), Term::unit(held.distances.clone()));
    Deciding::Tail { tail: Tail::fit(levels.collect()), units: [residual, nearest, grouped] }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::Auto;
    use super::super::hands::one_by_one;
    use super::super::testing::{noise, plane, table};
    use super::*;

    fn source() -> TrainingSource {
        TrainingSource::File { name: "test".to_owned(), rows: 0 }
    }

    fn quick() -> ModelSettings {
        ModelSettings { steps: 100, ..Default::default() }
    }

    #[track_caller]
    fn fitted(table: &Table, settings: &ModelSettings) -> Model {
        fit(table, settings, Profile::Balanced, source(), &one_by_one, &mut |_, _| ControlFlow::Continue(())).unwrap()
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
        assert_eq!((still.window(), still.layer_sizes()), (1, vec![vec![6, 16, 2, 16, 6]]));
        let wave: Vec<f64> = (0..600).zip(noise(1, 600)).map(|(i, e)| (i as f64 * 0.5).sin() + 0.05 * e).collect();
        let single = fitted(&table(1, wave), &quick());
        assert!(single.ordered());
        let (long, short) = (vec![10, 16, 2, 16, 10], vec![3, 16, 2, 16, 3]);
        assert_eq!((single.window(), single.layer_sizes()), (10, vec![long.clone(), short, long]));
        let fixed =
            ModelSettings { window: Auto::Fixed(3), bottleneck: Auto::Fixed(4), hidden: Auto::Fixed(9), ..quick() };
        assert_eq!(fitted(&table(6, plane(1, 600, 6, 2)), &fixed).layer_sizes(), [vec![18, 9, 4, 9, 18]]);
    }

    #[test]
    fn without_an_order_every_window_is_held_out_once() {
        for (window, names) in [(1, 1), (3, 3)] {
            let mut table = table(4, plane(1, 240, 4, 2));
            table.series = (0..240).map(|row| row % names).collect();
            let rows = SeriesRows::new(&table, &Scaler::fit(&table));
            let part = profile::parts(Profile::Balanced, false, 4, Some(window))[0];
            let mut progress = |_, _| ControlFlow::Continue(());
            let training = Training::new(&one_by_one, 1, &mut progress);
            let (member, held) = learn(&rows, &part, false, &quick(), &training).unwrap();
            let begun = |row: &usize| row % (240 / names as usize) + 1 >= window;
            assert_eq!(held.rows, (0..240).filter(begun).collect::<Vec<_>>());
            assert_eq!(held.distances.len(), held.rows.len());
            let mut held_out = 0;
            for (at, split) in splits(&rows, &part, false).iter().enumerate() {
                let seen = Inputs::new(&rows, part.view);
                let (network, own) = learn_network(&seen, split, &part, &quick(), &training).unwrap();
                assert_eq!(network == member.network, at == 0, "the first is kept");
                for (row, residual) in own.rows.iter().zip(own.residuals.rows()) {
                    let at = held.rows.binary_search(row).unwrap();
                    assert_eq!(held.residuals.row(at), residual, "record {row}");
                }
                held_out += own.rows.len();
            }
            assert_eq!(held_out, held.rows.len());
        }
    }

    /// One block of each is held out at once, and the first of all are shorter than a window.
    #[test]
    fn many_short_series_without_an_order_are_learned_from() {
        let mut short = table(3, plane(1, 1_600, 3, 1));
        short.series = (0..1_600).map(|row| row / 32).collect();
        let rows = SeriesRows::new(&short, &Scaler::fit(&short));
        let settings = ModelSettings { window: Auto::Fixed(10), steps: 20, ..Default::default() };
        let part = profile::parts(Profile::Balanced, false, 3, Some(10))[0];
        assert!(rows.fold(10, 1).held_out.is_empty() && splits(&rows, &part, false).len() == FOLDS - 1);
        let model = fitted(&short, &settings);
        let RowCounts { held_out, calibrating, .. } = model.rows();
        assert!(!model.ordered() && calibrating > 2 * held_out, "{:?}", model.rows());
    }

    #[test]
    fn too_few_records_are_refused_with_numbers() {
        let error =
            fit(&table(3, plane(1, 12, 3, 1)), &quick(), Profile::Balanced, source(), &one_by_one, &mut |_, _| {
                ControlFlow::Continue(())
            })
            .unwrap_err();
        assert!(matches!(error, FitError::TooFewRecords { rows: 12, .. }), "{error}");
        let empty = fit(&table(3, vec![]), &quick(), Profile::Balanced, source(), &one_by_one, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap_err();
        assert!(matches!(empty, FitError::TooFewRecords { rows: 0, .. }), "{empty}");
    }

    #[test]
    fn models_too_large_for_an_artifact_are_refused_before_training() {
        let settings = ModelSettings { window: Auto::Fixed(1000), hidden: Auto::Fixed(4096), ..quick() };
        let error = fit(
            &table(6, plane(1, 9000, 6, 1)),
            &settings,
            Profile::Balanced,
            source(),
            &one_by_one,
            &mut |_, _| panic!(),
        )
        .unwrap_err();
        assert!(matches!(error, FitError::TooLarge { .. }), "{error}");
        // Few inputs, but a wide code.
        let wide = ModelSettings { hidden: Auto::Fixed(4096), bottleneck: Auto::Fixed(4096), ..quick() };
        let error =
            fit(&table(6, plane(1, 600, 6, 1)), &wide, Profile::Balanced, source(), &one_by_one, &mut |_, _| panic!())
                .unwrap_err();
        assert!(matches!(error, FitError::TooLarge { .. }), "{error}");
        let long = ModelSettings { window: Auto::Fixed(1024), hidden: Auto::Fixed(1), ..quick() };
        let error = fit(
            &table(65, vec![0.0; 65 * 5000]),
            &long,
            Profile::Balanced,
            source(),
            &one_by_one,
            &mut |_, _| panic!(),
        )
        .unwrap_err();
        assert!(matches!(error, FitError::TooWide { inputs: 66_560 }), "{error}");
    }

    #[test]
    fn calibration_can_be_broken_off_too() {
        let mut at_the_end = 0;
        let stopped = fit(
            &table(3, plane(1, 600, 3, 1)),
            &quick(),
            Profile::Balanced,
            source(),
            &one_by_one,
            &mut |done, total| {
                at_the_end += u32::from(done == total);
                if at_the_end < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        assert!(matches!(stopped, Err(FitError::Stopped)));
    }

    #[test]
    fn degenerate_tables_still_give_sound_models() {
        let missing = vec![f64::NAN; 600];
        let mut huge = plane(1, 200, 3, 1);
        huge[50] = 1e300;
        huge[90] = -1e90;
        for values in [vec![4.2; 600], missing, huge, (0..600).map(|i| f64::from(i % 2)).collect()] {
            // Reading checks every number.
            let model = fitted(&table(3, values), &quick());
            Model::from_bytes(&model.to_bytes().unwrap()).unwrap();
        }
    }

    #[test]
    fn wide_records_are_learned_without_whitening() {
        let model = fitted(&table(600, plane(1, 120, 600, 2)), &ModelSettings { steps: 20, ..quick() });
        assert_eq!(Model::from_bytes(&model.to_bytes().unwrap()).unwrap().fingerprint(), model.fingerprint());
    }
}
