//! Principal components of the training windows: how wide the code must be, and where training starts.

use ndarray::{Array2, Axis};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linalg::traits::evd::EVDDecomposable;

use super::FitError;
use super::view::Inputs;

/// Share of the variance that the code must be able to carry.
const EXPLAINED: f64 = 0.99;
/// Bounds of the analysis, whose cost grows with rows x inputs^2; larger data is sampled evenly.
const ROWS_MAX: usize = 2000;
const INPUTS_MAX: usize = 512;

/// The plane that the training windows lie closest to, which an autoencoder starts from and improves on.
pub struct Principal {
    /// Smallest number of principal components with 99 % of the variance, at most half of the inputs.
    ///
    /// Sensors of one machine are mostly driven by one thing, its load, which alone can make 95 % of the variance; what
    /// else is lawful (a second loop, the weather) hides in the last percents, and faults show against it. But a code
    /// as wide as the input can copy it, and then nothing is strange: at least half of the directions stay free for
    /// errors to show in (a single input has no choice; there the copy is only learned where records were seen).
    pub components: usize,
    /// Standard deviation along each axis, largest first, and the axes (unit vectors, inputs x components). None where
    /// the inputs were sampled, so that there is no axis for each.
    pub axes: Option<(Vec<f64>, Array2<f64>)>,
}

impl Principal {
    /// Of the inputs that end at the rows `windows`.
    pub fn of(seen: &Inputs, windows: &[usize]) -> Result<Self, FitError> {
        let inputs = seen.width();
        let (row_step, input_step) = (windows.len().div_ceil(ROWS_MAX), inputs.div_ceil(INPUTS_MAX));
        let mut input = vec![0.0; inputs];
        let mut picked = Vec::with_capacity(windows.len().div_ceil(row_step) * inputs.div_ceil(input_step));
        for &row in windows.iter().step_by(row_step) {
            seen.write(row, &mut input);
            picked.extend(input.iter().step_by(input_step).map(|&v| if v.is_nan() { 0.0 } else { f64::from(v) }));
        }
        let columns = inputs.div_ceil(input_step);
        let (variances, axes) = analyse(picked, columns)?;
        let total: f64 = variances.iter().sum();
        let mut carried = 0.0;
        let components = variances.iter().take_while(|v| (carried += **v, carried).1 < EXPLAINED * total).count() + 1;
        // Of a sample of the inputs: the same share of all of them.
        let wanted = (components * inputs).div_ceil(columns);
        let spread = variances.iter().map(|v| v.sqrt()).collect();
        Ok(Self { components: wanted.clamp(1, inputs.div_ceil(2)), axes: (input_step == 1).then_some((spread, axes)) })
    }
}

/// Variances along the principal components, largest first, and the components as columns: eigenvalues and eigenvectors of the
/// covariance, ten times faster than a singular value decomposition, and exact enough for shares of variance.
pub fn analyse(values: Vec<f64>, columns: usize) -> Result<(Vec<f64>, Array2<f64>), FitError> {
    let failed = |why: String| FitError::Numeric { what: "principal components", why };
    let rows = values.len() / columns;
    let mut data = Array2::from_shape_vec((rows, columns), values).map_err(|e| failed(e.to_string()))?;
    if let Some(mean) = data.mean_axis(Axis(0)) {
        data -= &mean;
    }
    let covariance = data.t().dot(&data) / rows.max(1) as f64;
    let matrix = DenseMatrix::new(columns, columns, covariance.iter().copied().collect(), false)
        .map_err(|e| failed(format!("{e:?}")))?;
    let parts = matrix.evd(true).map_err(|e| failed(format!("{e:?}")))?;
    let mut order: Vec<usize> = (0..columns).collect();
    order.sort_by(|&i, &j| parts.d[j].total_cmp(&parts.d[i]));
    let axes = Array2::from_shape_fn((columns, columns), |(i, j)| *parts.V.get((i, order[j])));
    // Rounding can make one that is 0 negative.
    Ok((order.iter().map(|&i| parts.d[i].max(0.0)).collect(), axes))
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::series::SeriesRows;
    use super::super::testing::{noise, table};
    use super::super::view::View;
    use super::*;

    #[track_caller]
    fn check(features: usize, values: Vec<f64>, width: usize, expect: usize) {
        let table = table(features, values);
        let rows = SeriesRows::new(&table, &Scaler::fit(&table));
        let seen = Inputs::new(&rows, View { window: width, context: false, clip: 0.0 });
        let windows: Vec<usize> = (width - 1..rows.rows()).collect();
        assert_eq!(Principal::of(&seen, &windows).unwrap().components, expect);
    }

    /// Rows on a plane of `depth` dimensions, exactly.
    fn flat(rows: usize, features: usize, depth: usize) -> Vec<f64> {
        let (causes, mix) = (noise(1, rows * depth), noise(2, depth * features));
        let at = |i: usize, j: usize| (0..depth).map(|k| causes[i * depth + k] * mix[k * features + j]).sum();
        (0..rows * features).map(|n| at(n / features, n % features)).collect()
    }

    #[test]
    fn the_code_is_as_wide_as_the_data_is_deep_and_at_most_half_as_wide_as_the_input() {
        check(6, flat(1000, 6, 1), 1, 1);
        check(20, flat(1000, 20, 3), 1, 3);
        check(8, noise(1, 8000), 1, 4);
        check(1, noise(1, 100), 1, 1);
        check(1, (0..400).map(f64::from).collect(), 10, 1);
        check(3, vec![5.0; 300], 1, 1);
        check(12, (0..9 * 12).map(|at| f64::from(at / 12)).collect(), 1, 1); // fewer rows than inputs
    }

    #[test]
    fn wide_inputs_are_sampled() {
        check(1100, flat(300, 1100, 2), 1, 6); // every third
    }
}
