//! Training records that are remembered, and how far another record lies from those nearest to it: what a network that rebuilds well
//! cannot tell, since it rebuilds what lies between and beyond what it has seen too.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::FitError;
use super::held::rebuilt;
use super::kernel::Kernel;
use super::lanes;
use super::member::Term;
use super::network::Network;
use super::view::Inputs;

/// References of a group.
const GROUP: usize = 8;
/// So many references where records have an order: what they say is a part of the rank there. Otherwise at most so many, and so many numbers.
const FEW: usize = 64;
const MOST: usize = 1_024;
const NUMBERS: usize = 65_536;
/// Distances count as at least so much, a tenth of a standard deviation: readings that repeat would make an ordinary one 0, and what differs from them
/// by a digit strange.
const RESOLUTION: f64 = 0.01;
/// Records that are compared between two times that somebody may break off.
const ROWS: usize = 16_384;

/// References, and what distances from them look like on training records.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// References x features, scaled, no value missing; a whole number of groups, and of each of them first the first reference, then the second.
    pub references: Array2<f32>,
    pub nearest: Term,
    /// Of use only without an order.
    pub grouped: Term,
}

/// What is known of references, and of the records that they were chosen from.
pub struct Learned {
    pub neighbours: Neighbours,
    pub distances: Vec<NearDistances>,
}

/// One record beside the references.
pub struct Near<'a> {
    references: &'a Array2<f32>,
    /// NaN = missing.
    record: &'a [f32],
    /// Of each group what was given for the nearest reference, and which one that is.
    least: &'a [f32],
    which: &'a [f32],
    pub distances: NearDistances,
}

/// Mean square by which what is present of a record differs from the nearest reference (Sugiyama & Borgwardt 2013: a small sample does for
/// that); and of the nearest of each group, the mean of their distances, squared (LeSiNN, Pang, Ting & Albrecht 2015). What lies far from the
/// nearest is new; what lies far from most groups of eight is rare, also if there were some like it among the training records.
pub type NearDistances = [f64; 2];

/// Of records with so many features, how many are remembered out of `records`.
pub fn count(features: usize, records: usize, ordered: bool) -> usize {
    let most = if ordered { FEW } else { (NUMBERS / features.max(1)).clamp(FEW, MOST) };
    most.min(records) / GROUP * GROUP
}

/// Which of `rows`, by their place among them, may be remembered: those that lack nothing, if there are enough, but what all of them lack. Where a value is
/// filled in, a record that has one seems farther away than it is.
fn whole(seen: &Inputs, rows: &[usize]) -> Vec<usize> {
    let features = seen.rows.features;
    let record = |row: usize| seen.rows.window(row, 1);
    let mut never = vec![true; features];
    for row in rows {
        never.iter_mut().zip(record(*row)).for_each(|(never, v)| *never &= v.is_nan());
    }
    let lacks = |row: usize| record(row).iter().zip(&never).any(|(v, never)| v.is_nan() && !never);
    let whole: Vec<usize> = (0..rows.len()).filter(|at| !lacks(rows[*at])).collect();
    if whole.len() < FEW { (0..rows.len()).collect() } else { whole }
}

/// Which of `records` are remembered, in random order: groups must not be of records that followed each other.
fn choose(features: usize, records: usize, ordered: bool, seed: u64) -> Vec<usize> {
    index::sample(&mut ChaCha8Rng::seed_from_u64(seed), records, count(features, records, ordered)).into_vec()
}

/// |a - x|^2 - |x|^2 of each reference a: a layer.
pub fn kernel(references: &Array2<f32>) -> Kernel {
    let squares: Array1<f32> = references.map_axis(Axis(1), |a: ArrayView1<f32>| a.dot(&a));
    let weights = references.t().mapv(|v| -2.0 * v);
    Kernel::new([(weights.view(), Some(squares.view()), None)].into_iter())
}

/// Groups of so many references.
pub fn groups(references: usize) -> usize {
    references / GROUP
}

/// Of all records, each of the two distances.
fn each(distances: &[NearDistances]) -> [Vec<f64>; 2] {
    [0, 1].map(|which| distances.iter().map(|of| of[which]).collect())
}

impl Learned {
    /// What levels of the two distances count for in a rank without an order, at least 1.
    pub fn units(&self) -> [f64; 2] {
        each(&self.distances).map(Term::unit)
    }
}

impl Neighbours {
    /// Of some of the records that windows end with, as `network` fills them in; and the distances of all of them. None is compared with itself, so
    /// that it does not matter which of them the network was trained on. `rows`: those records. `told` is asked now and then.
    ///
    /// # Errors
    /// Those of `told`.
    pub fn learn(
        seen: &Inputs,
        rows: &[usize],
        network: &Network,
        (ordered, seed): (bool, u64),
        told: impl Fn() -> Result<(), FitError>,
    ) -> Result<Learned, FitError> {
        let features = seen.rows.features;
        let whole = whole(seen, rows);
        let chosen = choose(features, whole.len(), ordered, seed).into_iter().map(|at| whole[at]).collect::<Vec<_>>();
        let mut references = Array2::zeros((chosen.len(), features));
        let of_chosen: Vec<usize> = chosen.iter().map(|at| rows[*at]).collect();
        rebuilt(seen, &of_chosen, network, None, |start, tile| {
            for (row, mut to) in references.rows_mut().into_iter().skip(start).take(tile.rows()).enumerate() {
                to.iter_mut().zip(tile.newest(row, features)).for_each(|(to, x)| *to = *x);
            }
        });
        let (kernel, itself) =
            (kernel(&references), chosen.iter().copied().zip(0..).collect::<HashMap<usize, usize>>());
        let mut distances = Vec::with_capacity(rows.len());
        for (from, part) in (0..).step_by(ROWS).zip(rows.chunks(ROWS)) {
            told()?;
            rebuilt(seen, part, network, Some(&kernel), |start, tile| {
                tile.near((&references, &kernel), |row, record, partial, room| {
                    if let Some(at) = itself.get(&(from + start + row)) {
                        partial[*at] = f32::INFINITY;
                    }
                    distances.push(Near::new(&references, record, partial, room).distances);
                });
            });
        }
        let [nearest, grouped] = each(&distances).map(Term::fit);
        Ok(Learned { neighbours: Self { references, nearest, grouped }, distances })
    }

    /// Levels of the distances.
    pub fn levels(&self, [nearest, grouped]: NearDistances) -> [f64; 2] {
        [self.nearest.level(nearest), self.grouped.level(grouped)]
    }
}

impl<'a> Near<'a> {
    /// `partial`: what `kernel` gave for `record`, or, where a value of that is missing, sums of squares of all others; `room`: for two numbers of each
    /// group.
    pub fn new(references: &'a Array2<f32>, record: &'a [f32], partial: &[f32], room: &'a mut [f32]) -> Self {
        let groups = groups(partial.len());
        let (least, which) = room.split_at_mut(groups);
        lanes::least_of_rows(groups, partial, least, which);
        let (own, present) = if lanes::any_nan(record.len(), record) {
            (0.0, record.iter().filter(|v| !v.is_nan()).count().max(1))
        } else {
            (lanes::squares(record.len(), record), record.len())
        };
        let each = 1.0 / present as f64;
        let (mut nearest, mut sum) = (f64::INFINITY, 0.0);
        for least in &*least {
            let square = ((own + f64::from(*least)) * each).max(RESOLUTION);
            nearest = nearest.min(square);
            sum += square.sqrt();
        }
        let grouped = (sum / groups.max(1) as f64).powi(2);
        Self { references, record, least, which: &which[..groups], distances: [nearest, grouped] }
    }

    /// What each feature has to do with the one distance, or with the other: squares of differences, added to `parts`.
    pub fn contributions(&self, grouped: bool, parts: &mut [f32]) {
        let groups = self.least.len();
        let nearest = || (0..groups).min_by(|a, b| self.least[*a].total_cmp(&self.least[*b])).unwrap_or(0);
        let some = if grouped { 0..groups } else { nearest()..nearest() + 1 };
        let some = some.map(|group| self.which[group] as usize * groups + group);
        if let Some(references) = self.references.as_slice() {
            lanes::add_squares(self.record.len(), self.record, references, some, parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Activation;
    use super::super::scaler::Scaler;
    use super::super::series::SeriesRows;
    use super::super::testing::{noise, table};
    use super::super::tile::Tile;
    use super::super::view::View;
    use super::*;
    use crate::record::vector;

    fn references(n: usize) -> Array2<f32> {
        Array2::from_shape_vec((n, 3), noise(1, 3 * n).into_iter().map(|v| v as f32).collect()).unwrap()
    }

    fn near<T>(references: &Array2<f32>, input: &[f32], of: impl FnOnce(Near) -> T) -> T {
        let kernel = kernel(references);
        let mut partial = vec![0.0; references.nrows()];
        kernel.apply(1, input, &mut partial, &mut kernel.room());
        of(Near::new(references, input, &partial, &mut vec![0.0; 2 * groups(references.nrows())]))
    }

    #[test]
    fn distances_are_those_of_their_definition() {
        vector::on_each(|| {
            for (n, seed) in [(8, 2), (24, 3), (160, 4), (1_024, 5)] {
                let references = references(n);
                let input: Vec<f32> = noise(seed, 3).into_iter().map(|v| 2.0 * v as f32).collect();
                let square = |at: usize| -> f64 {
                    references.row(at).iter().zip(&input).map(|(a, x)| f64::from(x - a).powi(2)).sum::<f64>() / 3.0
                };
                let least = |ats: &mut dyn Iterator<Item = usize>| ats.map(square).fold(f64::INFINITY, f64::min);
                let (groups, nearest) = (n / 8, least(&mut (0..n)));
                let grouped = (0..groups).map(|g| least(&mut (0..8).map(|k| k * groups + g)).sqrt()).sum::<f64>();
                let [found, of_groups] = near(&references, &input, |near| near.distances);
                let expected = (grouped / groups as f64).powi(2);
                assert!((found - nearest).abs() < 1e-4 && (of_groups - expected).abs() < 1e-4, "{found} {nearest}");

                let mut parts = [0.0; 3];
                near(&references, &input, |near| near.contributions(false, &mut parts));
                assert!((f64::from(parts.iter().sum::<f32>()) / 3.0 - nearest).abs() < 1e-4, "{parts:?}");
                let mut of_all = [0.0; 3];
                near(&references, &input, |near| near.contributions(true, &mut of_all));
                assert!(of_all.iter().sum::<f32>() >= groups as f32 * parts.iter().sum::<f32>() * 0.999, "{of_all:?}");
            }
        });
    }

    #[test]
    fn what_is_a_reference_is_near_and_what_is_absurd_is_far_and_finite() {
        let references = references(160);
        let itself = references.row(7).to_vec();
        assert_eq!(near(&references, &itself, |near| near.distances[0]), RESOLUTION);
        let far = near(&references, &[1e6, -1e6, 0.0], |near| near.distances);
        assert!(far.iter().all(|distance| (6e11..7e11).contains(distance)), "{far:?}");
    }

    #[test]
    fn some_like_it_make_a_record_no_less_rare() {
        let mut references = references(800);
        let odd = [9.0, 9.0, 9.0];
        let before = near(&references, &odd, |near| near.distances);
        // One in twenty.
        for at in choose(3, 800, false, 1).into_iter().take(40) {
            references.row_mut(at).assign(&ndarray::aview1(&odd));
        }
        let after = near(&references, &odd, |near| near.distances);
        assert!(after[0] < before[0] / 1_000.0 && after[1] > before[1] / 4.0, "{before:?} {after:?}");
    }

    #[test]
    fn what_is_missing_counts_for_nothing() {
        vector::on_each(|| {
            let references = references(160);
            let kernel = kernel(&references);
            let mut tile = Tile::new(&Kernel::new([(Array2::eye(3).view(), None, None)].into_iter()), Some(&kernel));
            tile.push(&[0.3, f32::NAN, -0.5], true);
            let network = Kernel::new([(Array2::eye(3).view(), None, None)].into_iter());
            tile.reconstruct(&network);
            let mut seen = 0;
            tile.near((&references, &kernel), |_, record, partial, room| {
                let square = |at: usize| {
                    let of = references.row(at);
                    (f64::from(of[0] - 0.3).powi(2) + f64::from(of[2] + 0.5).powi(2)) / 2.0
                };
                let nearest = (0..160).map(square).fold(f64::INFINITY, f64::min).max(RESOLUTION);
                let near = Near::new(&references, record, partial, room);
                assert!((near.distances[0] - nearest).abs() < 1e-5, "{:?} {nearest}", near.distances);
                for grouped in [false, true] {
                    let mut parts = [0.0; 3];
                    near.contributions(grouped, &mut parts);
                    assert!(parts[1] == 0.0 && parts.iter().sum::<f32>() > 0.0, "{parts:?}");
                }
                seen += 1;
            });
            assert_eq!(seen, 1);
        });
    }

    /// Of windows of three records, some with gaps: references are newest records, and none is compared with itself.
    #[test]
    fn what_is_learned_is_of_newest_records_beside_others() {
        let mut values = noise(3, 2 * 900);
        values.iter_mut().skip(11).step_by(37).for_each(|v| *v = f64::NAN);
        let table = table(2, values);
        let scaler = Scaler::fit(&table);
        let rows = SeriesRows::new(&table, &scaler);
        let seen = Inputs::new(&rows, View { window: 3, context: false, clip: 0.0 });
        let all = rows.split(3).all_rows();
        let complete = all.iter().filter(|row| !rows.window(**row, 1).iter().any(|v| v.is_nan())).count();
        assert!(complete + 20 < all.len());
        let network = Network::new(6, 8, 3, Activation::Relu, &mut ChaCha8Rng::seed_from_u64(1));
        for ordered in [true, false] {
            let learned = Neighbours::learn(&seen, &all, &network, (ordered, 1), || Ok(())).unwrap();
            let references = &learned.neighbours.references;
            assert_eq!(references.nrows(), count(2, complete, ordered));
            assert_eq!(learned.distances.len(), all.len());
            let mut whole = 0;
            for (row, distances) in all.iter().zip(&learned.distances) {
                let record = &rows.window(*row, 1)[..2];
                if record.iter().any(|v| v.is_nan()) {
                    continue;
                }
                let squares = references
                    .rows()
                    .into_iter()
                    .map(|of| of.iter().zip(record).map(|(a, x)| f64::from(a - x).powi(2)).sum::<f64>() / 2.0);
                // The record itself may be a reference.
                let nearest = squares.filter(|square| *square > 0.0).fold(f64::INFINITY, f64::min).max(RESOLUTION);
                assert!((distances[0] - nearest).abs() < 1e-4, "{distances:?} {nearest}");
                whole += 1;
            }
            assert!(whole > 100, "{whole}");
            let stopped = Neighbours::learn(&seen, &all, &network, (ordered, 1), || Err(FitError::Stopped));
            assert!(matches!(stopped, Err(FitError::Stopped)));
        }
    }

    #[test]
    fn references_are_bounded_and_chosen_once_each() {
        assert_eq!(
            [count(1, 25, false), count(38, 1_000_000, false), count(200, 5_000, false), count(65_536, 900, false)],
            [24, 1_024, 320, 64]
        );
        assert_eq!([count(1, 25, true), count(38, 1_000_000, true)], [24, 64]);
        let mut chosen = choose(3, 2_000, false, 1);
        assert_eq!(chosen, choose(3, 2_000, false, 1));
        assert_ne!(chosen, choose(3, 2_000, false, 2));
        chosen.sort_unstable();
        chosen.dedup();
        assert!(chosen.len() == 1_024 && chosen.last() < Some(&2_000));
    }
}
