//! Width of the code from the data: how many principal components carry most of the variance.

use smartcore::decomposition::pca::{PCA, PCAParameters};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;

use super::FitError;
use super::series::SeriesRows;

/// Share of the variance that the code must be able to carry.
const EXPLAINED: f64 = 0.9;
/// Bounds of the analysis, whose cost grows with rows x inputs^2; larger data is sampled evenly.
const ROWS_MAX: usize = 2000;
const INPUTS_MAX: usize = 256;

/// Smallest number of principal components of the training windows with 90 % of the variance.
///
/// At least 1, for there is no narrower code. At most one less than the inputs, for a code as wide as the input can copy
/// it, and then nothing is strange (a single input has no choice: what shows there is that the copy is only learned
/// where records were seen). An autoencoder of that width can do better than the plane of the analysis, never worse; the
/// tenth of the variance that is left is mostly noise, which a code should not carry.
pub fn bottleneck(rows: &SeriesRows, width: usize, windows: &[usize]) -> Result<usize, FitError> {
    let inputs = width * rows.features;
    let (row_step, input_step) = (windows.len().div_ceil(ROWS_MAX), inputs.div_ceil(INPUTS_MAX));
    let picked: Vec<f64> = windows
        .iter()
        .step_by(row_step)
        .flat_map(|&row| rows.window(row, width).iter().step_by(input_step))
        .map(|&v| if v.is_nan() { 0.0 } else { f64::from(v) })
        .collect();
    let columns = inputs.div_ceil(input_step);
    let variances = component_variances(picked, columns)?;
    let total: f64 = variances.iter().sum();
    let mut carried = 0.0;
    let components = variances.iter().take_while(|v| (carried += **v, carried).1 < EXPLAINED * total).count() + 1;
    // Of a sample of the inputs: the same share of all of them.
    let wanted = (components * inputs).div_ceil(columns);
    Ok(wanted.clamp(1, (inputs - 1).max(1)))
}

/// Variances of the principal components, largest first. They are the variances of the transformed columns, as the
/// library keeps its eigenvalues to itself.
fn component_variances(values: Vec<f64>, columns: usize) -> Result<Vec<f64>, FitError> {
    let n = values.len() / columns;
    let failed = |e| FitError::Numeric { what: "principal components", why: format!("{e:?}") };
    let data = DenseMatrix::new(n, columns, values, false).map_err(failed)?;
    let analysis = PCA::fit(&data, PCAParameters::default().with_n_components(columns)).map_err(failed)?;
    let moved = analysis.transform(&data).map_err(failed)?;
    let variance = |j: usize| {
        let mean = (0..n).map(|i| moved.get((i, j))).sum::<f64>() / n as f64;
        (0..n).map(|i| (moved.get((i, j)) - mean).powi(2)).sum::<f64>() / n as f64
    };
    let mut variances: Vec<f64> = (0..columns).map(variance).collect();
    variances.sort_by(|a, b| b.total_cmp(a));
    Ok(variances)
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::testing::{noise, plane, table};
    use super::*;

    #[track_caller]
    fn check(features: usize, values: Vec<f64>, width: usize, expect: usize) {
        let table = table(features, values);
        let rows = SeriesRows::new(&table, &Scaler::fit(&table));
        let windows: Vec<usize> = (width - 1..rows.rows()).collect();
        assert_eq!(bottleneck(&rows, width, &windows).unwrap(), expect);
    }

    #[test]
    fn the_code_is_as_wide_as_the_data_is_deep() {
        check(6, plane(1, 1000, 6, 1), 1, 1);
        check(20, plane(1, 1000, 20, 3), 1, 3);
        check(8, noise(1, 8000), 1, 7); // independent: 8 x .9 rounds up to 8, one less than the inputs is the limit
        check(1, noise(1, 100), 1, 1);
        check(1, (0..400).map(|i| f64::from(i)).collect(), 10, 1);
        check(3, vec![5.0; 300], 1, 1);
        check(12, (0..9 * 12).map(|at| f64::from(at / 12)).collect(), 1, 1); // fewer rows than inputs
    }

    #[test]
    fn wide_inputs_are_sampled() {
        check(600, plane(2, 300, 600, 2), 1, 6);
    }
}
