//! A fixed number of inputs on their way through a model, in buffers that are made once.

use ndarray::{Array2, ArrayView1, ArrayView2, s};

use super::network::{Network, Pass};
use super::residual::Residuals;
use super::scaler::SCALED_MAX;

/// Inputs per matrix product. A row's result does not depend on how many others are in the tile.
pub const TILE: usize = 256;
/// Times a record with missing values goes through the network once more, its gaps filled with what the network made
/// of them. Starting from the mean, this walks towards values that the network finds consistent with the others
/// (Rezende, Mohamed & Wierstra 2014, appendix F; McCoy, Kroon & Auret 2018 for sensor data).
const IMPUTE_PASSES: usize = 5;

/// `push` inputs, `reconstruct`, `whiten`, read results; `clear`.
pub struct Tile {
    rows: usize,
    x: Array2<f32>,
    /// (row, input) of each missing value, ascending.
    missing: Vec<(usize, usize)>,
    pass: Pass,
    residuals: Array2<f32>,
    whitened: Array2<f32>,
}

impl Tile {
    pub fn new(network: &Network) -> Self {
        let empty = Array2::zeros((TILE, network.inputs()));
        Self {
            rows: 0,
            missing: Vec::new(),
            pass: Pass::inference(network, TILE),
            residuals: empty.clone(),
            whitened: empty.clone(),
            x: empty,
        }
    }

    pub fn clear(&mut self) {
        self.rows = 0;
        self.missing.clear();
    }

    /// Adds one input (scaled, NaN = missing). At most `TILE` fit.
    pub fn push(&mut self, input: &[f32]) {
        for (j, (x, v)) in self.x.row_mut(self.rows).iter_mut().zip(input).enumerate() {
            *x = if v.is_nan() { 0.0 } else { *v };
            if v.is_nan() {
                self.missing.push((self.rows, j));
            }
        }
        self.rows += 1;
    }

    /// Adds one residual that is known already; its input tells what is missing. Then `whiten`.
    pub fn push_residual(&mut self, residual: &[f32], input: &[f32]) {
        self.residuals.row_mut(self.rows).iter_mut().zip(residual).for_each(|(to, r)| *to = *r);
        let missing = input.iter().enumerate().filter(|(_, v)| v.is_nan());
        self.missing.extend(missing.map(|(j, _)| (self.rows, j)));
        self.rows += 1;
    }

    /// Reconstructions and residuals of all inputs. Missing values are imputed on the way.
    pub fn reconstruct(&mut self, network: &Network) {
        network.forward(self.x.slice(s![..self.rows, ..]), &mut self.pass);
        let passes = if self.missing.is_empty() { 0 } else { IMPUTE_PASSES };
        for _ in 0..passes {
            for &at in &self.missing {
                let rebuilt = self.pass.reconstruction()[at];
                self.x[at] = if rebuilt.is_nan() { 0.0 } else { rebuilt.clamp(-SCALED_MAX, SCALED_MAX) };
            }
            network.forward(self.x.slice(s![..self.rows, ..]), &mut self.pass);
        }
        let rows = s![..self.rows, ..];
        let mut residuals = self.residuals.slice_mut(rows);
        residuals.assign(&self.pass.reconstruction().slice(rows));
        residuals -= &self.x.slice(rows);
    }

    /// After `reconstruct`: rows x inputs, reconstruction minus input; meaningless where the value is missing.
    pub fn residuals(&self) -> ArrayView2<'_, f32> {
        self.residuals.slice(s![..self.rows, ..])
    }

    /// (row, input) of each missing value, ascending.
    pub fn missing(&self) -> &[(usize, usize)] {
        &self.missing
    }

    /// After `reconstruct`: whitened residuals of all inputs.
    pub fn whiten(&mut self, residuals: &Residuals) {
        let rows = s![..self.rows, ..];
        residuals.whiten(self.residuals.slice_mut(rows), &self.missing, self.whitened.slice_mut(rows));
    }

    /// After `whiten`: Mahalanobis distance of one input's residual (mean square, so about 1 on ordinary records),
    /// over what is present.
    pub fn distance(&self, row: usize) -> f64 {
        let inputs = self.x.ncols();
        let gaps = self.missing_in(row).len();
        let sum: f64 = self.whitened(row).iter().map(|&w| f64::from(w) * f64::from(w)).sum();
        sum / (inputs - gaps).max(1) as f64
    }

    /// After `whiten`: what each feature contributed to one input's distance, w^2 summed over the records of the window;
    /// nothing where a value is missing. `out`: one number per feature.
    pub fn contributions(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let mut missing = self.missing_in(row).iter().map(|at| at.1).peekable();
        for (record, whitened) in self.whitened(row).exact_chunks(out.len()).into_iter().enumerate() {
            for (j, (w, sum)) in whitened.iter().zip(&mut *out).enumerate() {
                if missing.next_if_eq(&(record * whitened.len() + j)).is_none() {
                    *sum += w * w;
                }
            }
        }
    }

    fn whitened(&self, row: usize) -> ArrayView1<'_, f32> {
        self.whitened.row(row)
    }

    pub fn reconstruction(&self, row: usize) -> ArrayView1<'_, f32> {
        self.pass.reconstruction().row(row)
    }

    fn missing_in(&self, row: usize) -> &[(usize, usize)] {
        let from = self.missing.partition_point(|at| at.0 < row);
        let to = self.missing.partition_point(|at| at.0 <= row);
        &self.missing[from..to]
    }
}
