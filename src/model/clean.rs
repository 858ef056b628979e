//! What a sensor would have read without its noise.
//!
//! The network rebuilds the window, and with it what the sensors have in common. The cleaned value is a sum of what was read of the sensor and what was rebuilt of it, record by
//! record of the window, each with a weight. The weights make the square error least that there would be against the truth, which nobody knows: its estimate by Stein
//! (1981) takes only the variance of the noise and how much what is rebuilt moves with the reading ("SURE-LET", Luisier, Blu & Unser 2007). Noise is what has nothing to do with
//! its neighbours in time; how large it is was learned from held-out records. If readings and what is rebuilt of them are apart by more than they were there, all over the window, that part
//! stays (their mean, shrunk as James & Stein 1961 do, positive part): the machine has changed. And no reading is moved farther than noise could have moved
//! it: up to three standard deviations the noise is taken off, from there on less and less, nothing at all from six on (a redescending influence, after Hampel 1974).
//! A fault is no noise: it is still there in the cleaned record.

use ndarray::{Array2, ArrayView2};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linalg::traits::cholesky::CholeskyDecomposable;

use super::Model;
use super::network::Network;
use super::series::HeldOut;
use super::view::Inputs;

/// Newest records of a window that are looked at, at most.
const TAPS: usize = 5;
/// In standard deviations of the noise: beyond, a residual is less and less likely to be noise ...
const NOISE_LIMIT: f32 = 3.0;
/// ... and is none here.
const NOISE_END: f32 = 6.0;
/// Added to each variance, as a share: no direction among numbers that hardly differ is trusted far.
const RIDGE: f64 = 1e-7;
/// Share of normal numbers within so many standard deviations of 0: a half.
const MEDIAN_SIZE: f64 = 0.6745;
/// A step, scaled, by which it is measured how what is rebuilt moves with a reading; over so many records times sensors, within these bounds.
const STEP: f32 = 0.1;
const MOVED: usize = 20_000;
const MOVED_ROWS: (usize, usize) = (8, 128);
/// What is rebuilt moves with a reading, so that a part of its noise is not in the residual; no more than this is assumed.
const MOVES_MAX: f64 = 0.75;
/// Windows without a gap that weights are learned from, at least.
const WHOLE_MIN: f64 = 2.0 * NUMBERS as f64;
/// One, the readings, what was rebuilt.
pub const NUMBERS: usize = 1 + 2 * TAPS;

/// Of one sensor as one network sees it, scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation of the noise.
    pub deviation: f32,
    /// Of a window's readings less what is rebuilt of them the mean, on average, and its standard deviation.
    pub apart: f32,
    pub apart_deviation: f32,
    /// Of what a cleaned value is the sum of: one, the readings, oldest first, and what was rebuilt of them. Shorter windows have zeros before.
    pub weights: [f32; NUMBERS],
}

impl Default for Noise {
    /// There is none.
    fn default() -> Self {
        let mut weights = [0.0; NUMBERS];
        weights[TAPS] = 1.0;
        Self { deviation: 0.0, apart: 0.0, apart_deviation: 0.0, weights }
    }
}

/// Sums over rows.
#[derive(Clone)]
struct Sums {
    n: f64,
    /// Of products of the numbers, and of those with the newest reading.
    products: [[f64; NUMBERS]; NUMBERS],
    with: [f64; NUMBERS],
    apart: [f64; 2],
}

impl Model {
    /// The newest record of an input of the last network, scaled, without its noise; where a value is missing, what is rebuilt.
    pub(crate) fn clean(&self, input: &[f32], rebuilt: &[f32]) -> Vec<f32> {
        let Some(member) = self.members.last() else { return Vec::new() };
        let (features, newest) = (self.schema.len(), input.len() - self.schema.len());
        let value = |j: usize| {
            let finite = |at: usize| if rebuilt[at].is_finite() { rebuilt[at] } else { 0.0 };
            if input[newest + j].is_nan() {
                return finite(newest + j);
            }
            member.noise[j].clean((j..input.len()).step_by(features).map(|at| (input[at], finite(at))))
        };
        (0..features).map(value).collect()
    }
}

impl Noise {
    /// Of each sensor. `rows` are held-out, in order; `residuals` (rows x inputs, NaN = missing) is what was rebuilt of them less what was read. `follows`: whether a row is the next
    /// record of the series of the row before it.
    pub fn learn(
        seen: &Inputs,
        rows: &[HeldOut],
        network: &Network,
        residuals: &Array2<f32>,
        follows: &[bool],
    ) -> Vec<Self> {
        let (features, window) = (seen.rows.features, seen.view.window.min(TAPS));
        let newest = (seen.view.window - 1) * features;
        let none = Sums { n: 0.0, products: [[0.0; NUMBERS]; NUMBERS], with: [0.0; NUMBERS], apart: [0.0; 2] };
        let mut sums = vec![none; features];
        let (mut input, mut readings) = (vec![0.0; seen.width()], Array2::zeros((rows.len(), features)));
        for (i, held) in rows.iter().enumerate() {
            seen.write(held.row, &mut input);
            for (j, sums) in sums.iter_mut().enumerate() {
                readings[[i, j]] = input[newest + j];
                let mut numbers = [0.0; NUMBERS];
                numbers[0] = 1.0;
                let mut apart = 0.0;
                for tap in 0..window {
                    let at = newest + j - (window - 1 - tap) * features;
                    let (read, residual) = (f64::from(input[at]), f64::from(residuals[[i, at]]));
                    numbers[1 + TAPS - window + tap] = read;
                    numbers[1 + 2 * TAPS - window + tap] = read + residual;
                    apart -= residual / window as f64;
                }
                if !apart.is_nan() {
                    sums.take(&numbers, apart);
                }
            }
        }
        let moves = moves(seen, rows, network);
        let of = |(j, sums): (usize, &Sums)| {
            let around = |of: ArrayView2<f32>, at: usize| mean(of.column(at).iter().copied().map(f64::from));
            let [residual, reading] = [around(residuals.view(), newest + j), around(readings.view(), j)];
            let left = deviation(&|row| f64::from(residuals[[row, newest + j]]) - residual, rows.len(), follows);
            let most = ordinary(&|row| f64::from(readings[[row, j]]) - reading, rows.len(), follows);
            let newest_moves = moves[[j, window - 1]].clamp(0.0, MOVES_MAX);
            let deviation = (left / (1.0 - newest_moves).sqrt()).min(most);
            if sums.n >= WHOLE_MIN && deviation > 0.0 {
                return sums.noise(deviation, (0..window).map(|tap| moves[[j, tap]]).collect());
            }
            let off = |row: usize| f64::from(residuals[[row, newest + j]]) - residual;
            let alone = mean((0..rows.len()).map(|row| off(row).powi(2))).sqrt();
            Noise::seldom(deviation, -residual, alone / (window as f64).sqrt())
        };
        sums.iter().enumerate().map(of).collect()
    }

    /// Of a sensor that hardly ever has a window without a gap: what is rebuilt counts alone.
    fn seldom(deviation: f64, apart: f64, apart_deviation: f64) -> Self {
        if deviation.is_nan() || deviation <= 0.0 {
            return Self::default();
        }
        let mut weights = [0.0; NUMBERS];
        weights[NUMBERS - 1] = 1.0;
        weights[0] = apart as f32;
        Self { deviation: deviation as f32, apart: apart as f32, apart_deviation: apart_deviation as f32, weights }
    }

    /// The newest value of the sensor (scaled) without its noise. `window`: what was read and what was rebuilt, of each record, oldest first; NaN = missing, the
    /// newest is not.
    pub fn clean(&self, window: impl DoubleEndedIterator<Item = (f32, f32)>) -> f32 {
        let Self { deviation, apart, apart_deviation, weights } = self;
        let (readings, rebuilt) = weights[1..].split_at(TAPS);
        let (mut estimate, mut newest, mut sum, mut n, mut all) = (weights[0], f32::NAN, 0.0f32, 0.0f32, 0.0f32);
        let weights = readings.iter().rev().zip(rebuilt.iter().rev());
        for (age, ((read, again), (of_read, of_again))) in window.rev().zip(weights).enumerate() {
            newest = if age == 0 { read } else { newest };
            all += 1.0;
            if read.is_nan() {
                // As good as is known.
                estimate += (of_read + of_again) * again;
            } else {
                estimate += of_read * read + of_again * again;
                (sum, n) = (sum + read - again - apart, n + 1.0);
            }
        }
        // Where there is none, nothing is taken off.
        if deviation.is_nan() || *deviation <= 0.0 || newest.is_nan() {
            return newest;
        }
        let mean = sum / n;
        // The mean of fewer varies more.
        let evidence = (mean / apart_deviation).powi(2) * n / all;
        let changed = if evidence > 1.0 { (1.0 - 1.0 / evidence) * mean } else { 0.0 };
        let stays = estimate + (1.0 - readings.iter().sum::<f32>()) * changed;
        let off = (newest - stays) / deviation;
        let size = off.abs();
        let taken = if size <= NOISE_LIMIT { size } else { (NOISE_END - size).clamp(0.0, NOISE_LIMIT) };
        newest - deviation * taken.copysign(off)
    }
}

impl Sums {
    fn take(&mut self, numbers: &[f64; NUMBERS], apart: f64) {
        self.n += 1.0;
        for (products, a) in self.products.iter_mut().zip(numbers) {
            products.iter_mut().zip(numbers).for_each(|(sum, b)| *sum += a * b);
        }
        self.with.iter_mut().zip(numbers).for_each(|(sum, a)| *sum += a * numbers[TAPS]);
        self.apart[0] += apart;
        self.apart[1] += apart * apart;
    }

    /// With noise of this standard deviation, more than 0. `moves`: by how much what is rebuilt of each record moves with the newest reading.
    fn noise(&self, deviation: f64, moves: Vec<f64>) -> Noise {
        let mut products = Array2::from_shape_fn((NUMBERS, NUMBERS), |(a, b)| self.products[a][b] / self.n);
        products.diag_mut().mapv_inplace(|square| square * (1.0 + RIDGE) + f64::MIN_POSITIVE);
        let mut wanted: Vec<f64> = self.with.iter().map(|sum| sum / self.n).collect();
        let variance = deviation * deviation;
        wanted[TAPS] -= variance;
        let first = NUMBERS - moves.len();
        wanted[first..].iter_mut().zip(&moves).for_each(|(wanted, moves)| *wanted -= variance * moves);
        let mut weights = [0.0; NUMBERS];
        match solve(&products, wanted) {
            Some(found) => weights.iter_mut().zip(found).for_each(|(to, v)| *to = v.clamp(-1e3, 1e3) as f32),
            // What is rebuilt.
            None => weights[NUMBERS - 1] = 1.0,
        }
        let apart = self.apart[0] / self.n;
        let apart_deviation = (self.apart[1] / self.n - apart * apart).max(0.0).sqrt();
        Noise { deviation: deviation as f32, apart: apart as f32, apart_deviation: apart_deviation as f32, weights }
    }
}

/// By how much what is rebuilt of a sensor moves on average with its newest reading: sensors x records of the window, of the newest ones, oldest first.
fn moves(seen: &Inputs, rows: &[HeldOut], network: &Network) -> Array2<f64> {
    let (features, window) = (seen.rows.features, seen.view.window.min(TAPS));
    let newest = (seen.view.window - 1) * features;
    let mut inputs = seen.some(rows, (MOVED / features).clamp(MOVED_ROWS.0, MOVED_ROWS.1));
    let rebuild = |inputs: &Array2<f32>| network.decode(network.encode(inputs.view()).view());
    let still = rebuild(&inputs);
    let mut moves = Array2::zeros((features, window));
    for j in 0..features {
        inputs.column_mut(newest + j).mapv_inplace(|v| v + STEP);
        let moved = rebuild(&inputs);
        inputs.column_mut(newest + j).mapv_inplace(|v| v - STEP);
        for tap in 0..window {
            let at = newest + j - (window - 1 - tap) * features;
            let (moved, still) = (moved.column(at), still.column(at));
            moves[[j, tap]] = mean(moved.iter().zip(still).map(|(a, b)| f64::from(a - b) / f64::from(STEP)));
        }
    }
    moves
}

/// Of the noise in residuals around 0: their variance less what lasts, or what the median of their steps says, whichever is less.
fn deviation(value: &dyn Fn(usize) -> f64, rows: usize, follows: &[bool]) -> f64 {
    // Mean product of what lies `lag` records apart.
    let product = |lag: usize| {
        let together = |row: &usize| follows[row + 1 - lag..=*row].iter().all(|follows| *follows);
        mean((lag..rows).filter(together).map(|row| value(row) * value(row - lag)))
    };
    let [all, next, second] = [0, 1, 2].map(product);
    // What decays from one record to the next as it does to the one after (an autoregressive process of order 1) began at this variance.
    let began = if second > 0.0 { next * next / second } else { 0.0 };
    let lasting = if next > 0.0 { began.max(next).min(all) } else { 0.0 };
    // What jumps now and then has few large steps: no noise.
    (all - lasting).max(0.0).sqrt().min(ordinary(value, rows, follows))
}

/// What the median step says of the standard deviation of noise, at most.
fn ordinary(value: &dyn Fn(usize) -> f64, rows: usize, follows: &[bool]) -> f64 {
    let steps = (1..rows).filter(|&row| follows[row]).map(|row| value(row) - value(row - 1));
    // Where no record follows another, or a sensor is in every other one at most, there are none.
    let size = match median_size(steps) {
        Some(size) => size / 2f64.sqrt(),
        None => median_size((0..rows).map(value)).unwrap_or(0.0),
    };
    size / MEDIAN_SIZE
}

/// Of what is present; 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.filter(|v| !v.is_nan()).fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

/// Of what is present.
fn median_size(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sizes: Vec<f64> = values.filter(|v| !v.is_nan()).map(f64::abs).collect();
    let middle = sizes.len() / 2;
    (!sizes.is_empty()).then(|| *sizes.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Of a positive definite matrix; none of one that is not.
fn solve(matrix: &Array2<f64>, wanted: Vec<f64>) -> Option<Vec<f64>> {
    let n = wanted.len();
    let matrix = DenseMatrix::new(n, n, matrix.iter().copied().collect(), false).ok()?;
    let found = matrix.cholesky_solve_mut(DenseMatrix::new(n, 1, wanted, false).ok()?).ok()?;
    let found: Vec<f64> = (0..n).map(|at| *found.get((at, 0))).collect();
    found.iter().all(|v| v.is_finite()).then_some(found)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::scaler::Scaler;
    use super::super::series::SeriesRows;
    use super::super::settings::Activation;
    use super::super::testing::{noise as random, table};
    use super::super::view::View;
    use super::*;

    /// What is learned of three sensors that are read with noise, in windows of two, where the network rebuilds nothing.
    fn learned(of: impl Fn(usize, f64, f64) -> [f64; 3], follows: bool) -> Vec<Noise> {
        let n = 20_000;
        let (white, steps) = (random(1, n), random(2, n));
        let mut lasting = 0.0;
        let values = (0..n).flat_map(|i| {
            lasting = 0.9 * lasting + steps[i];
            of(i, lasting, white[i])
        });
        let values = table(3, values.collect());
        let rows = SeriesRows::new(&values, &Scaler { mean: vec![0.0; 3], scale: vec![1.0; 3] });
        let seen = Inputs::new(&rows, View { window: 2, context: false, clip: 0.0 });
        let mut network = Network::new(6, 4, 2, Activation::Relu, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
        network.layers.iter_mut().for_each(|layer| {
            layer.weight.fill(0.0);
            layer.bias.fill(0.0);
        });
        let held: Vec<HeldOut> = (1..n).map(|row| HeldOut { row, block: 0, series: 0 }).collect();
        let mut input = [0.0; 6];
        let residuals = Array2::from_shape_fn((n - 1, 6), |(row, at)| {
            if at == 0 {
                seen.write(row + 1, &mut input);
            }
            -input[at]
        });
        Noise::learn(&seen, &held, &network, &residuals, &vec![follows; n - 1])
    }

    #[test]
    fn noise_is_told_from_what_lasts_and_weights_leave_it_out() {
        let found = learned(|_, lasting, white| [lasting, white, 0.5 * white + lasting], true);
        let deviations: Vec<f32> = found.iter().map(|noise| noise.deviation).collect();
        assert!(
            deviations[0] < 0.5 && (deviations[1] - 1.0).abs() < 0.05 && (deviations[2] - 0.5).abs() < 0.2,
            "{found:?}"
        );
        let kept = |noise: &Noise| noise.weights[1..=TAPS].iter().sum::<f32>();
        assert!(
            kept(&found[0]) > 0.9 && kept(&found[1]).abs() < 0.1 && (0.8..1.1).contains(&kept(&found[2])),
            "{found:?}"
        );
        assert_eq!(found[0].weights[1..TAPS - 1], [0.0; TAPS - 2], "a window of two has no earlier ones");
        // Where rows have nothing to do with each other all of it is noise.
        let alone = learned(|_, lasting, white| [lasting, white, 0.0], false);
        assert!((alone[1].deviation - 1.0).abs() < 0.05 && alone[0].deviation > 2.0, "{alone:?}");
    }

    #[test]
    fn the_noise_of_a_sensor_that_is_in_every_other_record_is_found_and_what_is_not_there_has_none() {
        let gaps = |i: usize, v: f64| if i.is_multiple_of(2) { v } else { f64::NAN };
        let found = learned(|i, _, white| [gaps(i, white), f64::NAN, 7.0], true);
        assert!((found[0].deviation - 1.0).abs() < 0.05, "{:?}", found[0]);
        // Nothing is rebuilt here: all of a reading is noise, unless it is too large for that.
        let cleaned = |read: f32| found[0].clean([(f32::NAN, 0.0), (read, 0.0)].into_iter());
        assert!(cleaned(0.8).abs() < 0.1 && cleaned(9.0) > 8.8, "{} {}", cleaned(0.8), cleaned(9.0));
        assert_eq!(found[1..], [Noise::default(); 2]);
    }

    /// Of white noise around what is rebuilt.
    fn white() -> Noise {
        let mut weights = [0.0; NUMBERS];
        weights[NUMBERS - 1] = 1.0;
        Noise { deviation: 1.0, apart: 0.0, apart_deviation: 0.45, weights }
    }

    /// Records of which 5 is rebuilt, calm before the newest.
    fn window(newest: f32) -> impl DoubleEndedIterator<Item = (f32, f32)> {
        [5.1, 4.8, 5.1, 5.0, newest].into_iter().map(|read| (read, 5.0))
    }

    #[test]
    fn noise_is_taken_off_and_what_lasts_or_is_large_stays() {
        assert!((white().clean(window(5.5)) - 5.0).abs() < 1e-6);
        // A change is there in all of the window; a spike is no noise; where there is no noise nothing is taken off.
        let changed = white().clean([9.1, 8.9, 9.0, 9.1, 9.2].into_iter().map(|read| (read, 5.0)));
        assert!((8.7..9.2).contains(&changed), "{changed}");
        assert_eq!(white().clean(window(50.0)), 50.0);
        assert_eq!(Noise::default().clean(window(5.5)), 5.5);
        let gaps = [f32::NAN, f32::NAN, 5.0, f32::NAN, 5.5].into_iter().map(|read| (read, 5.0));
        assert!((white().clean(gaps) - 5.0).abs() < 1e-6);
        // Between the two, less and less is taken off.
        let taken = [8.0, 9.5, 10.5, 13.0].map(|newest| newest - white().clean(window(newest)));
        assert!(taken.is_sorted_by(|a, b| a > b) && taken[0] > 2.0 && taken[3] == 0.0, "{taken:?}");
    }

    #[test]
    fn no_reading_is_moved_farther_than_noise_could() {
        let weights = [0.3, 0.1, 0.1, -0.2, 0.3, 0.4, 0.0, 0.5, -0.1, 0.2, 0.3];
        let noise = Noise { deviation: 0.5, apart: 0.1, apart_deviation: 0.3, weights };
        for i in -400..400 {
            let newest = i as f32 / 20.0;
            for earlier in [-3.0, 0.0, 1.0, 8.0] {
                let moved = noise.clean([(earlier, 0.5), (earlier, 0.5), (newest, 0.5)].into_iter()) - newest;
                assert!(moved.abs() <= 0.5 * NOISE_LIMIT + 1e-5, "{earlier} {newest}: {moved}");
            }
        }
    }
}
