//! What a sensor would have read without its noise.
//!
//! The network rebuilds the window, and with it what the sensors have in common. What it leaves of a sensor, record after record, is noise and what
//! the network does not know of it. Noise is what has nothing to do with its neighbours in time. How large it is, and which part of
//! the newest residual is none, given those of the window, was learned from held-out records: the linear estimate with the least square error (Wiener 1949). If
//! the residuals of a window are off together by more than they were there, that part stays too (their mean, shrunk as James & Stein 1961 do, positive
//! part): the machine has changed. And no reading is moved farther than noise could have moved it: up to three standard deviations the noise is
//! taken off, from there on less and less, nothing at all from six on (a redescending influence, after Hampel 1974). A fault is no noise: it is
//! still there in the cleaned record.

use ndarray::Array2;
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linalg::traits::cholesky::CholeskyDecomposable;

use super::Model;

/// Newest records of a window whose residuals are looked at, at most.
pub const TAPS: usize = 5;
/// In standard deviations of the noise: beyond, a residual is less and less likely to be noise ...
const NOISE_LIMIT: f32 = 3.0;
/// ... and is none here.
const NOISE_END: f32 = 6.0;
/// Added to each variance, as a share: no direction among residuals that hardly differ is trusted far.
const RIDGE: f64 = 1e-3;
/// Share of normal numbers within so many standard deviations of 0: a half.
const MEDIAN_SIZE: f64 = 0.6745;

/// Of one sensor as one network sees it, scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Standard deviation of the noise in a residual.
    pub deviation: f32,
    /// And of the mean of the residuals of a window.
    pub common: f32,
    /// What each residual of the window says of that part of the newest one which is no noise; the newest last. Shorter windows have zeros before.
    pub taps: [f32; TAPS],
}

impl Model {
    /// The newest record of an input of the last network, scaled, without its noise; where a value is missing, what is rebuilt. `residual`:
    /// reconstruction less input.
    pub(crate) fn clean(&self, input: &[f32], rebuilt: &[f32], residual: &[f32]) -> Vec<f32> {
        let Some(member) = self.members.last() else { return Vec::new() };
        let (features, newest) = (self.schema.len(), input.len() - self.schema.len());
        let (mean, _) = member.residuals.numbers();
        let value = |j: usize| {
            let observed = input[newest + j];
            if observed.is_nan() {
                return if rebuilt[newest + j].is_finite() { rebuilt[newest + j] } else { 0.0 };
            }
            let window = (j..input.len()).step_by(features);
            let off = window.map(|at| if input[at].is_nan() { f32::NAN } else { mean[at] - residual[at] });
            member.noise[j].clean(observed, off)
        };
        (0..features).map(value).collect()
    }
}

impl Noise {
    /// Of each of the last `features` columns of `residuals` (rows x inputs, record after record, NaN = missing). `follows`: whether a row is the next record
    /// of the series of the row before it.
    pub fn learn(residuals: &Array2<f32>, features: usize, follows: &[bool]) -> Vec<Self> {
        let (rows, inputs) = residuals.dim();
        let window = (inputs / features).min(TAPS);
        let of = |sensor: usize| {
            let newest = inputs - features + sensor;
            let columns: Vec<usize> = (0..window).rev().map(|age| newest - age * features).collect();
            let mean = |column: usize| mean((0..rows).map(|row| f64::from(residuals[[row, column]])));
            let means: Vec<f64> = columns.iter().map(|&column| mean(column)).collect();
            let value = |row: usize, tap: usize| f64::from(residuals[[row, columns[tap]]]) - means[tap];
            let deviation = deviation(&|row| value(row, window - 1), rows, follows);
            let mut covariance = Array2::from_shape_fn((window, window), |(a, b)| {
                self::mean((0..rows).map(|row| value(row, a) * value(row, b)))
            });
            let common = (covariance.sum() / (window * window) as f64).max(0.0).sqrt();
            let mut wanted = covariance.row(window - 1).to_vec();
            wanted[window - 1] = (wanted[window - 1] - deviation * deviation).max(0.0);
            covariance.diag_mut().mapv_inplace(|variance| variance * (1.0 + RIDGE) + f64::MIN_POSITIVE);
            let mut taps = [0.0; TAPS];
            let found = solve(&covariance, wanted).unwrap_or_default();
            taps[TAPS - window..].iter_mut().zip(found).for_each(|(tap, v)| *tap = v.clamp(-1e3, 1e3) as f32);
            Self { deviation: deviation as f32, common: common as f32, taps }
        };
        (0..features).map(of).collect()
    }

    /// The newest value of the sensor (scaled) without its noise. `residuals`: what was observed less what was rebuilt and less what that is on average, of
    /// each record of the window, oldest first; NaN = missing, the newest is not.
    pub fn clean(&self, observed: f32, residuals: impl DoubleEndedIterator<Item = f32>) -> f32 {
        let Self { deviation, common, taps } = self;
        let (mut sum, mut n, mut known, mut newest, mut all) = (0.0f32, 0.0f32, 0.0, f32::NAN, 0.0f32);
        for (age, (residual, tap)) in residuals.rev().zip(taps.iter().rev()).enumerate() {
            newest = if age == 0 { residual } else { newest };
            all += 1.0;
            if !residual.is_nan() {
                (sum, n, known) = (sum + residual, n + 1.0, known + tap * residual);
            }
        }
        // Where there is none, nothing is taken off.
        if deviation.is_nan() || *deviation <= 0.0 || newest.is_nan() {
            return observed;
        }
        let mean = sum / n;
        // The mean of fewer varies more.
        let evidence = (mean / common).powi(2) * n / all;
        let changed = if evidence > 1.0 { (1.0 - 1.0 / evidence) * mean } else { 0.0 };
        let stays = known + (1.0 - taps.iter().sum::<f32>()) * changed;
        let off = (newest - stays) / deviation;
        let size = off.abs();
        let taken = if size <= NOISE_LIMIT { size } else { (NOISE_END - size).clamp(0.0, NOISE_LIMIT) };
        observed - deviation * taken.copysign(off)
    }
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
    let steps = (1..rows).filter(|&row| follows[row]).map(|row| value(row) - value(row - 1));
    // Where no record follows another, or a sensor is in every other one at most, there are none.
    let ordinary = match median_size(steps) {
        Some(size) => size / 2f64.sqrt(),
        None => median_size((0..rows).map(value)).unwrap_or(0.0),
    };
    // What jumps now and then has few large steps: no noise.
    (all - lasting).max(0.0).sqrt().min(ordinary / MEDIAN_SIZE)
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
    use super::super::testing::noise as random;
    use super::*;

    /// Windows of two records of three sensors: what lasts, noise, and both.
    fn windows(n: usize) -> Array2<f32> {
        let (white, steps) = (random(1, n), random(2, n));
        let mut lasting = 0.0;
        let rows: Vec<[f32; 3]> = white
            .iter()
            .zip(&steps)
            .map(|(white, step)| {
                lasting = 0.9 * lasting + step;
                [lasting as f32, *white as f32, (0.5 * white + lasting) as f32]
            })
            .collect();
        Array2::from_shape_fn((n - 1, 6), |(row, at)| rows[row + at / 3][at % 3])
    }

    #[test]
    fn noise_is_told_from_what_lasts() {
        let values = windows(20_001);
        let follows: Vec<bool> = (0..20_000).map(|row| row % 100 > 0).collect();
        let [slow, white, both] = Noise::learn(&values, 3, &follows)[..] else { panic!() };
        let found = [slow, white, both].map(|noise| noise.deviation);
        assert!(found[0] < 0.5 && (found[1] - 1.0).abs() < 0.05 && (found[2] - 0.5).abs() < 0.2, "{found:?}");
        // What lasts stays, noise does not.
        let sum = |noise: &Noise| noise.taps.iter().sum::<f32>();
        assert!(sum(&slow) > 0.9 && sum(&white).abs() < 0.1 && (0.8..1.1).contains(&sum(&both)), "{both:?}");
        assert_eq!(slow.taps[..TAPS - 2], [0.0; TAPS - 2]);
        // Where rows have nothing to do with each other all of it is noise.
        let alone = Noise::learn(&values, 3, &[false; 20_000]);
        assert!((alone[1].deviation - 1.0).abs() < 0.05 && alone[0].deviation > 2.0, "{alone:?}");
    }

    #[test]
    fn the_noise_of_a_sensor_that_is_in_every_other_record_is_found_too() {
        let mut values = windows(20_001);
        for (row, mut of) in values.rows_mut().into_iter().enumerate() {
            of[1 + 3 * (row % 2)] = f32::NAN;
        }
        let found = Noise::learn(&values, 3, &[true; 20_000])[1];
        assert!((found.deviation - 1.0).abs() < 0.05, "{found:?}");
    }

    #[test]
    fn what_cannot_be_learned_is_no_noise() {
        for values in [vec![f32::NAN; 60], vec![0.0; 60], vec![7.0; 60]] {
            let values = Array2::from_shape_vec((20, 3), values).unwrap();
            assert_eq!(Noise::learn(&values, 3, &[true; 20]), [Noise::default(); 3]);
        }
    }

    const WHITE: Noise = Noise { deviation: 1.0, common: 0.45, taps: [0.0; TAPS] };

    /// With calm records before the newest.
    fn window(newest: f32) -> impl DoubleEndedIterator<Item = f32> {
        [0.1, -0.2, 0.1, 0.0, newest].into_iter()
    }

    #[test]
    fn noise_is_taken_off_and_what_lasts_or_is_large_stays() {
        assert!((WHITE.clean(5.5, window(0.5)) - 5.0).abs() < 1e-6);
        // A change is there in all of the window; a spike is no noise; where there is no noise nothing is taken off.
        let changed = WHITE.clean(14.2, [4.1, 3.9, 4.0, 4.1, 4.2].into_iter());
        assert!((13.9..14.2).contains(&changed), "{changed}");
        assert_eq!(WHITE.clean(50.0, window(50.0)), 50.0);
        assert_eq!(Noise { deviation: 0.0, ..WHITE }.clean(5.5, window(0.5)), 5.5);
        assert_eq!(WHITE.clean(5.5, [1.0, f32::NAN].into_iter()), 5.5);
        let gaps = [f32::NAN, f32::NAN, 0.0, f32::NAN, 0.5].into_iter();
        assert!((WHITE.clean(5.5, gaps) - 5.0).abs() < 1e-6);
        // Between the two, less and less is taken off.
        let taken = [3.0, 4.5, 5.5, 8.0].map(|size| 100.0 - WHITE.clean(100.0, window(size)));
        assert!(taken.is_sorted_by(|a, b| a > b) && taken[0] > 2.0 && taken[3] == 0.0, "{taken:?}");
    }

    #[test]
    fn no_reading_is_moved_farther_than_noise_could() {
        let noise = Noise { deviation: 0.5, common: 0.3, taps: [0.1, 0.1, -0.2, 0.3, 0.4] };
        for i in -400..400 {
            let newest = i as f32 / 20.0;
            for earlier in [-3.0, 0.0, 1.0, 8.0] {
                let moved = noise.clean(newest, [earlier, earlier, newest].into_iter()) - newest;
                assert!(moved.abs() <= 0.5 * NOISE_LIMIT + 1e-5, "{earlier} {newest}: {moved}");
            }
        }
    }
}
