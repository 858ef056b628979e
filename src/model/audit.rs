//! What training records look like to networks that learned from others of them: each block is seen by one that did not learn from it, nor
//! from those next to it, into which a fault may reach (purged cross-validation, López de Prado 2018, 7.4).
//!
//! It says which of them are no normal behaviour: a fault among them is learned as normal, and spoils what is measured on those that are held
//! out. Those are what the decision itself would tell of as critical, by a law of the peaks that is that of their medians, which single
//! faults do not move. And from all others the laws of the decision are learned: every record is held out once (as in the CV+ of Barber et
//! al. 2021), so that there are four times as many as one network can be asked about, in one piece.

use ndarray::{Array2, Axis};

use super::decision::{ADOPT_AFTER, Decision, HOLD, Watch};
use super::fit::{self, FitError};
use super::hands::Training;
use super::held::{Held, stretches};
use super::law::{self, Laws, Peaks};
use super::member::{Member, Term};
use super::network::Network;
use super::profile::Part;
use super::residual::Residuals;
use super::series::{Cut, HeldOut, SeriesRows, Split};
use super::settings::ModelSettings;
use super::view::Inputs;
use super::{AlarmBudget, Statistic};

/// Networks that are trained for it.
pub const NETWORKS: usize = 6;
/// So often records are looked at, as long as more is found: networks that did not learn from some faults see others better, and the laws of the
/// decision are those of records without them (but for what the last look finds, which its networks learned from).
const ROUNDS: usize = 2;
/// A fault of up to a twentieth or so of a series is not seen by the network that judges it.
const BLOCKS: usize = 20;
/// Height, in thresholds, from which an incident is left out. What is lower is often rare but normal, and a network that never saw it
/// would flag it whenever it comes again.
const HEIGHT: f64 = 3.0;
/// If more than this share of the records would be left out, no more are: so much is no exception.
const SHARE_MAX: f64 = 0.2;
/// Share of the records, the strangest, that say nothing about how large residuals ordinarily are.
const TRIMMED: f64 = 0.1;
const TRIMS: usize = 2;
/// Records, evenly picked, that are asked for that.
const SAMPLE_MAX: usize = 20_000;

/// A record whose window was held out.
struct Seen {
    row: usize,
    series: usize,
    block: usize,
    statistic: Statistic,
}

/// What was found.
struct Audit {
    /// By row, whether it is to be left out; what is left out already stays so.
    strange: Vec<bool>,
    laws: Option<(Laws, usize)>,
}

/// Looks for what is no normal behaviour as long as more is found, and has it left out by `leave`, which is told of each row whether it is to be, and may
/// say that too few would be left. Gives the laws of what decides, and how many records they were learned from; none where records are too few for it.
/// `part`: the network that decides. Of the training's steps those of the first look are known.
pub fn leave_out(
    rows: &mut SeriesRows,
    part: &Part,
    settings: &ModelSettings,
    training: &Training,
    leave: &mut dyn FnMut(&mut SeriesRows, Vec<bool>) -> bool,
) -> Result<Option<(Laws, usize)>, FitError> {
    let mut laws = None;
    for round in 0..ROUNDS {
        if round > 0 {
            training.more((NETWORKS * settings.steps) as u64);
        }
        let audit = audit(rows, part, settings, training)?;
        // Of what is left there may be too few to look at again.
        laws = audit.laws.or(laws);
        if audit.strange == rows.which_are_left_out() || !leave(rows, audit.strange) {
            break;
        }
    }
    Ok(laws)
}

fn audit(rows: &SeriesRows, part: &Part, settings: &ModelSettings, training: &Training) -> Result<Audit, FitError> {
    let before = rows.which_are_left_out().to_vec();
    let Some(crossed) = Crossed::learn(rows, part, settings, training)? else {
        return Ok(Audit { strange: before, laws: None });
    };
    let seen = crossed.see(|held, _| ((0..held.residuals.nrows()).collect(), Some(crossed.ordinary.clone())));
    training.done(0)?;
    let strange = exceptions(strange(&seen, part.view.window, before.clone()), before);
    let seen = crossed.see(|held, windows| {
        // As in service a network's residuals are measured by their own spread, not by that of all networks.
        let normal = |row: usize| !strange[row + 1 - part.view.window..=row].contains(&true);
        let kept: Vec<usize> = (0..windows.len()).filter(|&at| normal(windows[at].row)).collect();
        let of_kept = || Residuals::standard(held.residuals.select(Axis(0), &kept).view());
        let residuals = (kept.len() >= fit::HELD_OUT_MIN).then(of_kept);
        (kept, residuals)
    });
    let stretches = seen.chunk_by(|a, b| a.series == b.series && a.row + 1 == b.row);
    let stretches: Vec<Vec<Statistic>> = stretches.map(|of| of.iter().map(|s| s.statistic).collect()).collect();
    let laws = (!seen.is_empty()).then(|| (law::learn(&stretches, Peaks::Mean), seen.len()));
    Ok(Audit { strange, laws })
}

/// By row, whether it belongs to an incident that would be told of as critical, or did `before`.
fn strange(seen: &[Seen], window: usize, before: Vec<bool>) -> Vec<bool> {
    let laws = law::learn(&stretches(seen.iter().map(|s| ((s.series, s.block), s.statistic))), Peaks::Median);
    let decision = Decision::new(laws, &AlarmBudget::OF_TRAINING, HOLD).without_second_rule();
    let mut strange = before;
    for series in seen.chunk_by(|a, b| a.series == b.series) {
        let mut watch = Watch::start(&laws);
        let creep = 1.0 / ADOPT_AFTER as f64;
        let mut start = 0;
        for Seen { row, statistic, .. } in series {
            if !watch.is_open() {
                start = row + 1 - window;
            }
            if decision.see(&mut watch, *statistic, creep).flagged && watch.height() >= HEIGHT {
                strange[start..=*row].fill(true);
            }
        }
    }
    strange
}

/// The same, or those of before where they are too many.
fn exceptions(strange: Vec<bool>, before: Vec<bool>) -> Vec<bool> {
    let count = strange.iter().filter(|s| **s).count();
    if count as f64 <= SHARE_MAX * strange.len() as f64 { strange } else { before }
}

/// Networks, and the windows that each did not learn from: every one of one of them.
struct Crossed<'a> {
    inputs: Inputs<'a>,
    part: &'a Part,
    folds: Vec<(Network, Split)>,
    /// How large residuals ordinarily are.
    ordinary: Residuals,
}

impl<'a> Crossed<'a> {
    /// None if the records are too few.
    fn learn(
        rows: &'a SeriesRows,
        part: &'a Part,
        settings: &ModelSettings,
        training: &Training,
    ) -> Result<Option<Self>, FitError> {
        let inputs = Inputs::new(rows, part.view);
        let cuts = (0..NETWORKS).map(|fold| Cut { blocks: BLOCKS, folds: NETWORKS, fold, apart: 1 });
        let splits: Vec<Split> = cuts.map(|cut| rows.cut(part.view.window, cut)).collect();
        let few = |split: &Split| split.training.len() < fit::TRAINING_MIN || split.held_out.len() < fit::HELD_OUT_MIN;
        if splits.iter().any(few) {
            training.done((NETWORKS * settings.steps) as u64)?;
            return Ok(None);
        }
        let step = rows.rows().div_ceil(SAMPLE_MAX);
        let learned = training.all(NETWORKS, |fold| {
            let (network, held) = fit::learn_network(&inputs, &splits[fold], part, settings, training)?;
            let sample: Vec<f32> = held.residuals.rows().into_iter().step_by(step).flatten().copied().collect();
            Ok((network, sample))
        })?;
        let (networks, samples): (Vec<Network>, Vec<Vec<f32>>) = learned.into_iter().unzip();
        let sample = samples.concat();
        let sample = Array2::from_shape_vec((sample.len() / inputs.width(), inputs.width()), sample)
            .map_err(|e| FitError::Numeric { what: "residuals of held-out records", why: e.to_string() })?;
        let Some(first) = networks.first() else { return Ok(None) };
        let ordinary = ordinary_residuals(&sample, part, first, rows.features);
        Ok(Some(Self { inputs, part, folds: networks.into_iter().zip(splits).collect(), ordinary }))
    }

    /// The records that `choose` takes of each network's windows, and what their residuals are measured by (none: not at all), by row.
    fn see(&self, choose: impl Fn(&Held, &[HeldOut]) -> (Vec<usize>, Option<Residuals>)) -> Vec<Seen> {
        let mut seen = Vec::with_capacity(self.inputs.rows.rows());
        for (fold, (network, split)) in self.folds.iter().enumerate() {
            let held = Held::of(&self.inputs, split, network);
            let (chosen, Some(residuals)) = choose(&held, &split.held_out) else { continue };
            let member = deciding(self.part, network.clone(), residuals, held.own.clone());
            let statistics = held.statistics(&member, &self.inputs, split);
            seen.extend(chosen.into_iter().map(|at| {
                let window = &split.held_out[at];
                let block = NETWORKS * window.block + fold;
                Seen { row: window.row, series: window.series, block, statistic: statistics[at] }
            }));
        }
        seen.sort_by_key(|s| s.row);
        seen
    }
}

fn deciding(part: &Part, network: Network, residuals: Residuals, own: Vec<f32>) -> Member {
    let (kept, noise) = (Vec::new(), Vec::new());
    Member {
        view: part.view,
        weight: 0.0,
        network,
        kept,
        noise,
        own: own.into(),
        residuals,
        distance: Term::NONE,
        slow: None,
    }
}

/// How large residuals ordinarily are: without the strangest records.
fn ordinary_residuals(sample: &Array2<f32>, part: &Part, network: &Network, features: usize) -> Residuals {
    let mut member = deciding(part, network.clone(), Residuals::standard(sample.view()), vec![0.0; features]);
    for _ in 0..TRIMS {
        let kept = ordinary(&member.statistics(sample, features));
        member.residuals = Residuals::standard(sample.select(Axis(0), &kept).view());
    }
    member.residuals
}

/// All but the strangest.
fn ordinary(statistics: &[Statistic]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..statistics.len()).collect();
    order.sort_by(|&a, &b| statistics[a].window.total_cmp(&statistics[b].window));
    order.truncate((statistics.len() as f64 * (1.0 - TRIMMED)).ceil() as usize);
    order
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::Profile;
    use super::super::hands::one_by_one;
    use super::super::order;
    use super::super::profile::parts;
    use super::super::scaler::Scaler;
    use super::super::testing::{noise, table};
    use super::*;
    use crate::record::Table;

    const ROWS: usize = 2_400;

    /// Four sensors that follow one slow load, and noise.
    fn plant(seed: u64) -> Vec<f64> {
        let (mut load, errors) = (0.0, noise(seed + 1, 4 * ROWS));
        let loads = noise(seed, ROWS).into_iter().map(|e| (load = 0.95 * load + 0.3 * e, load).1);
        loads
            .enumerate()
            .flat_map(|(i, load)| {
                let errors = &errors[4 * i..4 * i + 4];
                [load, -load, 2.0 * load, 0.5 * load]
                    .into_iter()
                    .zip(errors)
                    .map(|(v, e)| v + 0.1 * e)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// One sensor goes off by `size`.
    fn disturb(values: &mut [f64], rows: std::ops::Range<usize>, size: f64) {
        rows.for_each(|row| values[4 * row + 1] += size);
    }

    /// The first look, or all.
    fn looked(table: &Table, all: bool) -> Audit {
        let mut rows = SeriesRows::new(table, &Scaler::fit(table));
        assert!(order::ordered(&rows));
        let part = *parts(Profile::Balanced, true, 4, None).last().unwrap();
        let settings = ModelSettings { steps: 200, ..Default::default() };
        let mut go_on = |_, _| ControlFlow::Continue(());
        let training = Training::new(&one_by_one, 0, &mut go_on);
        if !all {
            return audit(&rows, &part, &settings, &training).unwrap();
        }
        let laws = leave_out(&mut rows, &part, &settings, &training, &mut |rows, strange| {
            assert!(
                rows.which_are_left_out().iter().zip(&strange).all(|(before, now)| *now || !before),
                "it stays out"
            );
            rows.leave_out(strange, table);
            true
        });
        Audit { strange: rows.which_are_left_out().to_vec(), laws: laws.unwrap() }
    }

    fn audited(table: &Table) -> Audit {
        looked(table, true)
    }

    fn rows_of(audit: &Audit) -> Vec<usize> {
        (0..audit.strange.len()).filter(|&row| audit.strange[row]).collect()
    }

    fn found(table: &Table) -> Vec<usize> {
        rows_of(&audited(table))
    }

    #[test]
    fn faults_are_left_out_and_nothing_else() {
        let mut values = plant(1);
        assert_eq!(found(&table(4, values.clone())), Vec::<usize>::new(), "nothing is wrong");
        disturb(&mut values, 700..790, 4.0);
        disturb(&mut values, 1_900..1_930, -4.0);
        let rows = found(&table(4, values));
        let faulty = |row: &usize| (700..790).contains(row) || (1_900..1_930).contains(row);
        let hits = rows.iter().filter(|row| faulty(row)).count();
        assert!(hits >= 114, "{hits} of 120");
        let near = |row: &usize| (690..825).contains(row) || (1_890..1_965).contains(row);
        assert!(rows.iter().all(near), "{rows:?}");
    }

    #[test]
    fn the_laws_are_those_of_every_window_of_what_stays() {
        const WINDOW: usize = 5;
        let mut values = plant(6);
        let (laws, records) = audited(&table(4, values.clone())).laws.unwrap();
        assert_eq!(records, ROWS - (WINDOW - 1));
        disturb(&mut values, 700..790, 4.0);
        let Audit { strange, laws: with } = audited(&table(4, values));
        let out = strange.iter().filter(|out| **out).count();
        let (with, records) = with.unwrap();
        assert_eq!(records, ROWS - 2 * (WINDOW - 1) - out);
        for (a, b) in laws.iter().zip(&with) {
            let (a, b) = (a.peak + 6.0 * a.spread, b.peak + 6.0 * b.spread);
            assert!((0.6..1.6).contains(&(b / a)), "threshold {b} with a fault left out, {a} without");
        }
        // Of few records there are none.
        assert!(audited(&table(4, plant(7)[..4 * 40].to_vec())).laws.is_none());
    }

    #[test]
    fn what_a_large_fault_hid_is_found_without_it() {
        let mut values = plant(1);
        disturb(&mut values, 300..500, 30.0);
        disturb(&mut values, 1_200..1_230, 1.5);
        disturb(&mut values, 1_900..1_930, -1.5);
        let table = table(4, values);
        let small =
            |rows: &[usize]| [1_200..1_230, 1_900..1_930].map(|of| rows.iter().filter(|row| of.contains(*row)).count());
        let (first, all) = (rows_of(&looked(&table, false)), found(&table));
        assert!(small(&first).iter().sum::<usize>() <= 30, "the first look was to miss one: {first:?}");
        assert!(small(&all).iter().all(|hits| *hits >= 25), "{:?} of 30 each", small(&all));
        let near = |row: &usize| [295..540, 1_195..1_275, 1_895..1_975].iter().any(|of| of.contains(row));
        assert!(all.iter().all(near), "{all:?}");
    }

    #[test]
    fn each_series_is_judged_by_itself() {
        let (mut one, other) = (plant(2), plant(3));
        disturb(&mut one, 1_000..1_060, 4.0);
        // Their records alternate; rows are sorted by series.
        let mixed = one.chunks(4).zip(other.chunks(4)).flat_map(|(a, b)| [a, b].concat()).collect();
        let mut both = table(4, mixed);
        both.series = (0..2 * ROWS as u32).map(|row| row % 2).collect();
        let rows = found(&both);
        assert!(rows.len() >= 55 && rows.iter().all(|row| (990..1_100).contains(row)), "{rows:?}");
    }

    #[test]
    fn what_comes_again_and_again_is_normal() {
        // More than half of the blocks have one, and all together are less than may be left out.
        let left_out = |seed: u64| {
            let mut values = plant(seed);
            (20..ROWS - 20).step_by(80).for_each(|row| disturb(&mut values, row..row + 6, 4.0));
            found(&table(4, values)).len()
        };
        // In one plant some may stand out by chance, and once these are gone, more; but it ends there.
        let counts: Vec<usize> = (1..6).map(left_out).collect();
        assert!(
            counts.iter().filter(|count| **count > 0).count() <= 1 && counts.iter().all(|n| *n <= ROWS / 20),
            "{counts:?}"
        );
    }

    #[test]
    fn what_is_more_than_a_fifth_is_no_exception() {
        let strange = |n: usize| (0..50).map(|row| row < n).collect::<Vec<_>>();
        assert_eq!(exceptions(strange(10), strange(0)), strange(10));
        assert_eq!(exceptions(strange(11), strange(0)), strange(0));
        assert_eq!(exceptions(strange(11), strange(6)), strange(6));
        assert_eq!(exceptions(strange(0), strange(0)), strange(0));
    }

    #[test]
    fn a_model_with_faults_in_its_training_records_is_about_that_without() {
        let fitted = |values: Vec<f64>| {
            let source = super::super::TrainingSource::File { name: "test".to_owned(), rows: ROWS };
            let settings = ModelSettings { steps: 200, ..Default::default() };
            let go_on = &mut |_, _| ControlFlow::Continue(());
            super::super::Model::fit(&table(4, values), &settings, Profile::Balanced, source, go_on).unwrap()
        };
        let mut values = plant(5);
        let clean = fitted(values.clone());
        // In held-out blocks and in others.
        disturb(&mut values, 600..720, 30.0);
        let dirty = fitted(values);
        assert_eq!(clean.rows().left_out, 0);
        assert!((115..160).contains(&dirty.rows().left_out), "{:?}", dirty.rows());
        for (a, b) in clean.scaler().scale.iter().zip(&dirty.scaler().scale) {
            assert!((0.8..1.25).contains(&(b / a)), "scale {b} instead of {a}");
        }
        let (super::super::Deciding::Laws(clean), super::super::Deciding::Laws(dirty)) =
            (&clean.deciding, &dirty.deciding)
        else {
            panic!("records have an order")
        };
        for (a, b) in clean.iter().zip(dirty) {
            let (a, b) = (a.peak + 6.0 * a.spread, b.peak + 6.0 * b.spread);
            assert!((0.6..1.6).contains(&(b / a)), "threshold {b} instead of {a}");
        }
    }
}
