//! What residuals (reconstruction minus input) look like on records the network was not trained on, and how far one
//! residual lies from that.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut1};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linalg::traits::evd::EVDDecomposable;

use super::FitError;
use super::kernel::{Kernel, Room};
use super::lanes::{self, Values};

/// Added to each variance, as a share of the mean variance: a sensor that is rebuilt perfectly must not decide alone.
const VARIANCE_FLOOR: f64 = 0.01;
/// Correlations are always shrunk by at least this much towards 0, so that no direction is divided by almost nothing. Slow
/// averages follow one another so closely that they tell less than their number says.
pub const SHRINK_MIN: f64 = 0.05;
pub const SHRINK_MIN_SLOW: f64 = 0.1;
/// Wider inputs than this are only standardised: their correlations would cost more than they tell.
pub const WHITENED_MAX: usize = 512;
/// Standardised residuals are cut here, far beyond any that means something.
const STANDARD_MAX: f32 = 1e9;
/// Sweeps over the missing inputs of one record (see `Residuals::settle`).
const SWEEPS: usize = 16;

/// Mean and scale of each input's residual, and the symmetric inverse square root of their correlation
/// (inputs x inputs; absent beyond `WHITENED_MAX`).
///
/// The whitened residual w = C^(-1/2) (r - mean) / scale is "ZCA-cor" of Kessy, Lewin & Strimmer (2018): of all whitened
/// vectors the one closest to the standardised residual, entry by entry. So w_j belongs to sensor j, w_j^2 is its
/// non-negative contribution, and the contributions sum to the Mahalanobis distance exactly (the "corr-max" partition of
/// Garthwaite & Koch 2016).
#[derive(Clone, Debug, PartialEq)]
pub struct Residuals {
    pub mean: Values,
    pub scale: Values,
    pub whitening: Option<Array2<f32>>,
}

impl Residuals {
    /// `residuals`: rows x inputs, at least one row, NaN where the input was missing.
    ///
    /// Correlations are shrunk towards 0 by the analytic optimum of Schäfer & Strimmer (2005): the fewer the rows for the
    /// number of inputs, the more.
    pub fn fit(residuals: ArrayView2<f32>, shrink_min: f64) -> Result<Self, FitError> {
        let (mean, scale) = moments_of_all(residuals);
        let whitening = if mean.len() > WHITENED_MAX {
            None
        } else {
            let standard = Array2::from_shape_fn(residuals.raw_dim(), |(i, j)| {
                let r = f64::from(residuals[[i, j]]);
                if r.is_nan() { 0.0 } else { (r - mean[j]) / scale[j] }
            });
            Some(inverse_square_root(&shrunk_correlation(&standard, shrink_min))?.mapv(|v| v as f32))
        };
        Ok(Self { mean: narrow(mean), scale: narrow(scale), whitening })
    }

    /// The same without whitening.
    pub fn standard(residuals: ArrayView2<f32>) -> Self {
        let (mean, scale) = moments_of_all(residuals);
        Self { mean: narrow(mean), scale: narrow(scale), whitening: None }
    }

    /// The whitening, ready for use; none where residuals are only standardised.
    pub fn kernel(&self) -> Option<Kernel> {
        self.whitening.as_ref().map(|matrix| Kernel::new([(matrix.view(), None, None)].into_iter()))
    }

    /// Mean and scale of each input's residual, to be read sixteen at a time.
    pub fn numbers(&self) -> (&[f32], &[f32]) {
        (self.mean.padded(), self.scale.padded())
    }

    /// `residuals` (at least `count` x inputs, row after row) become standardised, those at `missing` (row, input; ascending) 0; `whitened`
    /// (as many) gets the whitened ones. All finite, whatever comes in. `kernel`: what `kernel` gave; `room`: of that or a larger one.
    pub fn whiten(
        &self,
        kernel: Option<&Kernel>,
        count: usize,
        residuals: &mut [f32],
        missing: &[(usize, usize)],
        whitened: &mut [f32],
        room: &mut Room,
    ) {
        let inputs = self.mean.len();
        for row in 0..count {
            lanes::standardise(inputs, &mut residuals[row * inputs..], self.numbers(), STANDARD_MAX);
        }
        for (row, j) in missing {
            residuals[row * inputs + j] = 0.0;
        }
        let (Some(matrix), Some(kernel)) = (&self.whitening, kernel) else {
            return whitened[..count * inputs].copy_from_slice(&residuals[..count * inputs]);
        };
        kernel.apply(count, residuals, whitened, room);
        for gaps in missing.chunk_by(|a, b| a.0 == b.0) {
            settle(matrix, gaps, (&mut whitened[gaps[0].0 * inputs..][..inputs]).into());
        }
    }
}

/// Moves the missing residuals of one record to where they make the distance smallest, given the others. What is left
/// is the Mahalanobis distance of the present inputs alone: minimising a quadratic form over some entries leaves the
/// inverse of the other entries' own covariance. Coordinate descent on the whitened row, as a fixed number of sweeps
/// (few are needed, since correlations are shrunk; stopping early only leaves the distance somewhat large).
fn settle(matrix: &Array2<f32>, gaps: &[(usize, usize)], mut whitened: ArrayViewMut1<f32>) {
    for _ in 0..SWEEPS {
        for &(_, j) in gaps {
            let column = matrix.row(j); // symmetric
            let step = -column.dot(&whitened) / column.dot(&column).max(f32::MIN_POSITIVE);
            whitened.scaled_add(step, &column);
        }
    }
}

/// Mean and scale of each column.
fn moments_of_all(residuals: ArrayView2<f32>) -> (Vec<f64>, Vec<f64>) {
    let columns = residuals.columns().into_iter().map(|column| moments(column.iter().copied()));
    let (mean, variance): (Vec<f64>, Vec<f64>) = columns.map(|(_, mean, variance)| (mean, variance)).unzip();
    let floor = VARIANCE_FLOOR * variance.iter().sum::<f64>() / variance.len() as f64 + 1e-12;
    (mean, variance.iter().map(|v| (v + floor).sqrt()).collect())
}

fn narrow(values: Vec<f64>) -> Values {
    values.into_iter().map(|v| v as f32).collect::<Vec<_>>().into()
}

/// Number, mean and variance of what is present; 0 where nothing is.
pub fn moments(values: impl Iterator<Item = f32> + Clone) -> (f64, f64, f64) {
    let present = values.filter(|v| !v.is_nan()).map(f64::from);
    let n = present.clone().count() as f64;
    let mean = present.clone().sum::<f64>() / n.max(1.0);
    (n, mean, present.map(|v| (v - mean).powi(2)).sum::<f64>() / n.max(1.0))
}

/// Correlation of standardised columns, off-diagonal entries shrunk towards 0.
fn shrunk_correlation(standard: &Array2<f64>, shrink_min: f64) -> Array2<f64> {
    let n = standard.nrows() as f64;
    let mut correlation = standard.t().dot(standard) / n;
    let squares = standard.mapv(|v| v * v);
    // Mean square of the products whose mean the correlation is; their variance tells how sure it is.
    let products = squares.t().dot(&squares) / n;
    let (mut unsure, mut strength) = (0.0, 0.0);
    for ((i, j), r) in correlation.indexed_iter().filter(|((i, j), _)| i != j) {
        unsure += (products[[i, j]] - r * r) * n * n / (n - 1.0).max(1.0).powi(3);
        strength += r * r;
    }
    let shrink = if strength > 0.0 { (unsure / strength).clamp(shrink_min, 1.0) } else { 1.0 };
    correlation *= 1.0 - shrink;
    // Not quite 1 of itself where values are missing or the variance floor has a part in the scale.
    correlation.diag_mut().fill(1.0);
    correlation
}

/// C^(-1/2), symmetric, of a symmetric matrix whose eigenvalues are positive.
fn inverse_square_root(correlation: &Array2<f64>) -> Result<Array2<f64>, FitError> {
    let n = correlation.nrows();
    let failed = |e| FitError::Numeric { what: "eigenvalues of the residuals' correlation", why: format!("{e:?}") };
    let matrix = DenseMatrix::new(n, n, correlation.iter().copied().collect(), false).map_err(failed)?;
    let parts = matrix.evd(true).map_err(failed)?;
    let vectors = Array2::from_shape_fn((n, n), |at| *parts.V.get(at));
    // Rounding may push an eigenvalue below what shrinking guarantees.
    let roots: Array1<f64> = parts.d.iter().map(|d| 1.0 / d.max(1e-6).sqrt()).collect();
    let root = (&vectors * &roots).dot(&vectors.t());
    if root.iter().all(|v| v.is_finite()) {
        // Exactly symmetric, so that rows can stand for columns.
        Ok((&root + &root.t()) * 0.5)
    } else {
        Err(FitError::Numeric { what: "whitening of the residuals", why: "not finite".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView1;

    use super::super::testing::noise;
    use super::*;

    /// Rows of correlated normal residuals with mean 1.
    fn sample(n: usize) -> Array2<f32> {
        let e = Array2::from_shape_vec((n, 4), noise(7, 4 * n)).unwrap();
        let mix =
            ndarray::array![[1.0, 0.8, 0.0, 0.3], [0.0, 0.6, 0.0, 0.2], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.8]];
        (e.dot(&mix) + 1.0).mapv(|v| v as f32)
    }

    fn whiten(fitted: &Residuals, rows: &Array2<f32>, missing: &[(usize, usize)]) -> Array2<f32> {
        let kernel = fitted.kernel().unwrap();
        let (mut residuals, mut whitened) = (rows.iter().copied().collect::<Vec<_>>(), vec![0.0; rows.len()]);
        fitted.whiten(Some(&kernel), rows.nrows(), &mut residuals, missing, &mut whitened, &mut kernel.room());
        Array2::from_shape_vec(rows.raw_dim(), whitened).unwrap()
    }

    /// e' C^-1 e over some of the inputs, from the definition.
    fn mahalanobis(fitted: &Residuals, row: ArrayView1<f32>, of: &[usize]) -> f64 {
        let matrix = fitted.whitening.as_ref().unwrap().mapv(f64::from);
        let precision = matrix.dot(&matrix);
        // Covariance of the chosen inputs: invert, pick, invert (Gauss-Jordan).
        let all = invert(&precision);
        let some = invert(&Array2::from_shape_fn((of.len(), of.len()), |(i, j)| all[[of[i], of[j]]]));
        let e: Array1<f64> =
            of.iter().map(|&j| f64::from(row[j] - fitted.mean[j]) / f64::from(fitted.scale[j])).collect();
        e.dot(&some.dot(&e))
    }

    fn invert(matrix: &Array2<f64>) -> Array2<f64> {
        let n = matrix.nrows();
        let (mut a, mut b) = (matrix.clone(), Array2::eye(n));
        for k in 0..n {
            let pivot = a[[k, k]];
            for j in 0..n {
                a[[k, j]] /= pivot;
                b[[k, j]] /= pivot;
            }
            for i in (0..n).filter(|&i| i != k) {
                let factor = a[[i, k]];
                for j in 0..n {
                    a[[i, j]] -= factor * a[[k, j]];
                    b[[i, j]] -= factor * b[[k, j]];
                }
            }
        }
        b
    }

    #[test]
    fn whitened_residuals_are_uncorrelated_and_of_unit_variance() {
        let rows = sample(20_000);
        let whitened = whiten(&Residuals::fit(rows.view(), SHRINK_MIN).unwrap(), &rows, &[]).mapv(f64::from);
        let covariance = whitened.t().dot(&whitened) / 20_000.0;
        for ((i, j), c) in covariance.indexed_iter() {
            let expect = f64::from(u8::from(i == j));
            assert!((c - expect).abs() < 0.15, "{i} {j}: {c}"); // shrinking and variance floor cost up to that
        }
    }

    #[test]
    fn contributions_sum_to_the_mahalanobis_distance() {
        let rows = sample(500);
        let fitted = Residuals::fit(rows.view(), SHRINK_MIN).unwrap();
        let whitened = whiten(&fitted, &rows, &[]);
        for i in 0..20 {
            let sum: f64 = whitened.row(i).iter().map(|&w| f64::from(w).powi(2)).sum();
            let expect = mahalanobis(&fitted, rows.row(i), &[0, 1, 2, 3]);
            assert!((sum - expect).abs() < 1e-4 * expect.max(1.0), "{sum} {expect}");
        }
    }

    #[test]
    fn a_missing_input_leaves_the_distance_of_the_others() {
        let rows = sample(500);
        let fitted = Residuals::fit(rows.view(), SHRINK_MIN).unwrap();
        for (gaps, rest) in [(vec![1], vec![0, 2, 3]), (vec![0, 3], vec![1, 2]), (vec![0, 1, 2, 3], vec![])] {
            let missing: Vec<(usize, usize)> = gaps.iter().map(|&j| (0, j)).collect();
            let whitened = whiten(&fitted, &rows.slice(ndarray::s![..1, ..]).to_owned(), &missing);
            let sum: f64 = whitened.iter().map(|&w| f64::from(w).powi(2)).sum();
            let expect = if rest.is_empty() { 0.0 } else { mahalanobis(&fitted, rows.row(0), &rest) };
            assert!((sum - expect).abs() < 2e-2 * expect.max(1.0), "without {gaps:?}: {sum} {expect}");
        }
    }

    #[test]
    fn a_seldom_sensor_weighs_as_much_as_another() {
        let mut rows = sample(20_000);
        rows.column_mut(2).iter_mut().enumerate().filter(|(i, _)| i % 10 > 0).for_each(|(_, v)| *v = f32::NAN);
        let whitened = whiten(&Residuals::fit(rows.view(), SHRINK_MIN).unwrap(), &rows, &[]);
        let present = || (0..20_000).step_by(10);
        let mean_square =
            present().map(|i| f64::from(whitened[[i, 2]]).powi(2)).sum::<f64>() / present().count() as f64;
        assert!((mean_square - 1.0).abs() < 0.15, "{mean_square}");
    }

    #[test]
    fn few_rows_shrink_more() {
        let off_diagonal = |n: usize| {
            let rows = Array2::from_shape_vec((n, 30), noise(1, 30 * n)).unwrap();
            let correlation = shrunk_correlation(&rows, SHRINK_MIN);
            correlation.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, r)| r.abs()).fold(0.0, f64::max)
        };
        assert!(off_diagonal(10) < 0.25, "{}", off_diagonal(10));
        assert!(off_diagonal(10_000) < 0.05);
    }

    #[test]
    fn degenerate_residuals_give_finite_results() {
        for rows in [
            Array2::zeros((1, 3)),
            Array2::zeros((50, 3)),
            Array2::from_elem((5, 3), f32::NAN),
            Array2::from_shape_fn((50, 3), |(i, _)| i as f32 * 1e5),
        ] {
            let fitted = Residuals::fit(rows.view(), SHRINK_MIN).unwrap();
            let absurd = ndarray::array![[f32::MAX, f32::INFINITY, f32::NAN], [1e-30, 0.0, -f32::MAX]];
            assert!(whiten(&fitted, &absurd, &[]).iter().all(|v| v.is_finite()));
        }
    }
}
