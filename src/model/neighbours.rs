//! Training records that are remembered, and how far another record lies from those nearest to it: what a network that rebuilds well
//! cannot tell, since it rebuilds what lies between and beyond what it has seen too.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::kernel::Kernel;
use super::lanes;
use super::member::Term;

/// References of a group.
const GROUP: usize = 8;
/// At most so many references, and so many numbers; at least so many, if there are as many records.
const MOST: usize = 1_024;
const NUMBERS: usize = 65_536;
const LEAST: usize = 64;
/// The quantile of distances that is the unit of the rank. Nothing is left out of training without an order: up to a tenth of the records may be
/// faults, and the distance in which they show best would have the largest unit of all.
const UNIT: f64 = 0.9;
/// Distances count as at least so much, a tenth of a standard deviation: readings that repeat would make an ordinary one 0, and what differs from them
/// by a digit strange.
const RESOLUTION: f64 = 0.01;

/// References, and what their distances look like on held-out records.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// References x inputs, no value missing; a whole number of groups, and of each of them first the first reference, then the second.
    pub references: Array2<f32>,
    pub nearest: Term,
    pub grouped: Term,
    /// What levels of the three distances (of the residual, the nearest, the groups) count for in the rank, at least 1.
    pub units: [f64; 3],
}

/// One record beside the references.
pub struct Near<'a> {
    references: &'a Array2<f32>,
    input: &'a [f32],
    /// Of each reference the square of the distance, less that of the input from the origin; and the least of each group.
    partial: &'a [f32],
    least: &'a [f32],
    /// Mean square by which the input differs from the nearest reference (Sugiyama & Borgwardt 2013: a small sample does for that), and from the nearest
    /// of each group, the mean of their distances squared (LeSiNN, Pang, Ting & Albrecht 2015). What lies far from the nearest is new; what lies far
    /// from most groups of eight is rare, also if there were some like it among the training records.
    pub distances: [f64; 2],
}

/// Of records with so many values, how many are remembered out of `records`.
pub fn count(inputs: usize, records: usize) -> usize {
    (NUMBERS / inputs.max(1)).clamp(LEAST, MOST).min(records) / GROUP * GROUP
}

/// Which of `records` are remembered, in random order: groups must not be of records that followed each other.
pub fn choose(inputs: usize, records: usize, seed: u64) -> Vec<usize> {
    index::sample(&mut ChaCha8Rng::seed_from_u64(seed), records, count(inputs, records)).into_vec()
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
    /// `distances`: of held-out residuals; `beside`: from the nearest reference, and from those of groups.
    pub fn new(references: Array2<f32>, distances: &[f64], beside: &[[f64; 2]]) -> Self {
        let of = |which: usize| beside.iter().map(|of| of[which]).collect();
        let all: [Vec<f64>; 3] = [distances.to_vec(), of(0), of(1)];
        let [residual, nearest, grouped] = all.clone().map(Term::fit);
        let units = all.map(|of| Term::of(of, UNIT).top);
        let units = [residual.top / units[0], nearest.top / units[1], grouped.top / units[2]];
        Self { references, nearest, grouped, units }
    }
}

impl<'a> Near<'a> {
    /// `partial`: what `kernel` gave for `input`; `least`: room for as many numbers as there are groups.
    pub fn new(references: &'a Array2<f32>, input: &'a [f32], partial: &'a [f32], least: &'a mut [f32]) -> Self {
        let (groups, inputs) = (groups(partial.len()), input.len() as f64);
        lanes::least_of_rows(groups, partial, least);
        let own = lanes::squares(input.len(), input);
        let (mut nearest, mut sum) = (f64::INFINITY, 0.0);
        for least in &least[..groups] {
            let square = ((own + f64::from(*least)) / inputs).max(RESOLUTION);
            nearest = nearest.min(square);
            sum += square.sqrt();
        }
        let grouped = (sum / groups.max(1) as f64).powi(2);
        Self { references, input, partial, least: &least[..groups], distances: [nearest, grouped] }
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
            let reference = self.references.row(at);
            let differences = self.input.iter().zip(reference).map(|(x, a)| (x - a).powi(2));
            for (j, square) in differences.enumerate() {
                parts[j % parts.len()] += square;
            }
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
        for at in choose(3, 800, 1).into_iter().take(40) {
            references.row_mut(at).assign(&ndarray::aview1(&odd));
        }
        let after = near(&references, &odd, |near| near.distances);
        assert!(after[0] < before[0] / 1_000.0 && after[1] > before[1] / 4.0, "{before:?} {after:?}");
    }

    #[test]
    fn references_are_bounded_and_chosen_once_each() {
        assert_eq!([count(1, 25), count(38, 1_000_000), count(200, 5_000), count(65_536, 900)], [24, 1_024, 320, 64]);
        let mut chosen = choose(3, 2_000, 1);
        assert_eq!(chosen, choose(3, 2_000, 1));
        assert_ne!(chosen, choose(3, 2_000, 2));
        chosen.sort_unstable();
        chosen.dedup();
        assert!(chosen.len() == 1_024 && chosen.last() < Some(&2_000));
    }
}
