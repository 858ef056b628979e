//! Training records that are remembered, and how far another record lies from those nearest to it: what a network that rebuilds well
//! cannot tell, since it rebuilds what lies between and beyond what it has seen too.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::held::rebuilt;
use super::kernel::Kernel;
use super::lanes;
use super::member::Term;
use super::network::Network;
use super::series::Split;
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

/// References, and what distances from them look like on training records.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// References x features, scaled, no value missing; a whole number of groups, and of each of them first the first reference, then the second.
    pub references: Array2<f32>,
    pub nearest: Term,
    pub grouped: Term,
}

/// The quantile of distances that is the unit of a rank without an order. Nothing is left out of training there: up to a tenth of the records may be
/// faults, and the distance in which they show best would have the largest unit of all.
const UNIT: f64 = 0.9;

/// What is known of references, and of the records held out.
pub struct Learned {
    pub neighbours: Neighbours,
    pub distances: Vec<NearDistances>,
    /// What levels of the two distances count for in a rank without an order, at least 1.
    pub units: [f64; 2],
}

/// A term, and what its levels count for in a rank without an order.
pub fn fit(distances: Vec<f64>) -> (Term, f64) {
    let (term, unit) = (Term::fit(distances.clone()), Term::of(distances, UNIT).top);
    (term, term.top / unit)
}

/// One record beside the references.
pub struct Near<'a> {
    references: &'a Array2<f32>,
    record: &'a [f32],
    /// Of each reference the square of the distance, less that of the record from the origin; and the least of each group.
    partial: &'a [f32],
    least: &'a [f32],
    pub distances: NearDistances,
}

/// Mean square by which a record differs from the nearest reference (Sugiyama & Borgwardt 2013: a small sample does for that), and from the nearest of
/// each group, the mean of their distances squared (LeSiNN, Pang, Ting & Albrecht 2015). What lies far from the nearest is new; what lies far from
/// most groups of eight is rare, also if there were some like it among the training records.
pub type NearDistances = [f64; 2];

/// Of records with so many features, how many are remembered out of `records`.
pub fn count(features: usize, records: usize, ordered: bool) -> usize {
    let most = if ordered { FEW } else { (NUMBERS / features.max(1)).clamp(FEW, MOST) };
    most.min(records) / GROUP * GROUP
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

impl Neighbours {
    /// Of some of the records that windows of `split` end with, as `network` fills them in; and the distances of the records held out. No record is
    /// compared with itself, so that those trained on tell as much of the terms as those held out.
    pub fn learn(seen: &Inputs, split: &Split, network: &Network, ordered: bool, seed: u64) -> Learned {
        let held_out = split.held_out.iter().map(|held| (held.row, true));
        let mut rows: Vec<(usize, bool)> = split.training.iter().map(|row| (*row, false)).chain(held_out).collect();
        rows.sort_unstable();
        let (rows, held_out): (Vec<usize>, Vec<bool>) = rows.into_iter().unzip();
        let features = seen.rows.features;
        let chosen = choose(features, rows.len(), ordered, seed);
        let mut references = Array2::zeros((chosen.len(), features));
        let of_chosen: Vec<usize> = chosen.iter().map(|at| rows[*at]).collect();
        rebuilt(seen, &of_chosen, network, None, |start, tile| {
            for (row, mut to) in references.rows_mut().into_iter().skip(start).take(tile.rows()).enumerate() {
                to.iter_mut().zip(tile.newest(row, features)).for_each(|(to, x)| *to = *x);
            }
        });
        let kernel = kernel(&references);
        let mut distances = Vec::with_capacity(rows.len());
        rebuilt(seen, &rows, network, Some(&kernel), |start, tile| {
            tile.near(&kernel, |row, record, partial, least| {
                for (partial, _) in partial.iter_mut().zip(&chosen).filter(|(_, at)| **at == start + row) {
                    *partial = f32::INFINITY;
                }
                distances.push(Near::new(&references, record, partial, least).distances);
            });
        });
        let of = |which: usize| distances.iter().map(|of| of[which]).collect::<Vec<f64>>();
        let [(nearest, of_nearest), (grouped, of_grouped)] = [0, 1].map(|which| fit(of(which)));
        let of_held_out = distances.iter().zip(held_out).filter_map(|(of, held_out)| held_out.then_some(*of));
        let distances = of_held_out.collect();
        Learned { neighbours: Self { references, nearest, grouped }, distances, units: [of_nearest, of_grouped] }
    }

    /// Levels of the distances.
    pub fn levels(&self, [nearest, grouped]: NearDistances) -> [f64; 2] {
        [self.nearest.level(nearest), self.grouped.level(grouped)]
    }
}

impl<'a> Near<'a> {
    /// `partial`: what `kernel` gave for `record`; `least`: room for as many numbers as there are groups.
    pub fn new(references: &'a Array2<f32>, record: &'a [f32], partial: &'a [f32], least: &'a mut [f32]) -> Self {
        let (groups, features) = (groups(partial.len()), record.len() as f64);
        lanes::least_of_rows(groups, partial, least);
        let own = lanes::squares(record.len(), record);
        let (mut nearest, mut sum) = (f64::INFINITY, 0.0);
        for least in &least[..groups] {
            let square = ((own + f64::from(*least)) / features).max(RESOLUTION);
            nearest = nearest.min(square);
            sum += square.sqrt();
        }
        let grouped = (sum / groups.max(1) as f64).powi(2);
        Self { references, record, partial, least: &least[..groups], distances: [nearest, grouped] }
    }

    /// What each feature has to do with the one distance, or with the other: squares of differences, added to `parts`.
    pub fn contributions(&self, grouped: bool, parts: &mut [f32]) {
        let groups = self.least.len();
        let nearest = self.least.iter().copied().fold(f32::INFINITY, f32::min);
        for (group, least) in self.least.iter().enumerate().filter(|(_, least)| grouped || **least <= nearest) {
            let of_group = self.partial.iter().skip(group).step_by(groups);
            let Some(at) = of_group.zip(0..).find_map(|(value, k)| (value <= least).then_some(k * groups + group))
            else {
                continue;
            };
            let differences = self.record.iter().zip(self.references.row(at)).map(|(x, a)| (x - a).powi(2));
            parts.iter_mut().zip(differences).for_each(|(part, square)| *part += square);
            if !grouped {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;

    fn references(n: usize) -> Array2<f32> {
        Array2::from_shape_vec((n, 3), noise(1, 3 * n).into_iter().map(|v| v as f32).collect()).unwrap()
    }

    fn near<T>(references: &Array2<f32>, input: &[f32], of: impl FnOnce(Near) -> T) -> T {
        let kernel = kernel(references);
        let mut partial = vec![0.0; references.nrows()];
        kernel.apply(1, input, &mut partial, &mut kernel.room());
        of(Near::new(references, input, &partial, &mut vec![0.0; groups(references.nrows())]))
    }

    #[test]
    fn distances_are_those_of_their_definition() {
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
