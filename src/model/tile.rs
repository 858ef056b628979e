//! A fixed number of inputs on their way through a model, in buffers that are made once.

use ndarray::Array2;

use super::kernel::{Kernel, Room};
use super::lanes::{self, LANES};
use super::neighbours::groups;
use super::residual::Residuals;
use super::scaler::SCALED_MAX;

/// Inputs at once. A row's result does not depend on how many others are in the tile.
pub const TILE: usize = 256;
/// Times a record with missing values goes through the network once more, its gaps filled with what the network made
/// of them. Starting from the mean, this walks towards values that the network finds consistent with the others
/// (Rezende, Mohamed & Wierstra 2014, appendix F; McCoy, Kroon & Auret 2018 for sensor data).
const IMPUTE_PASSES: usize = 5;

/// Records that are compared with references at once: what comes of more would leave the nearer caches.
const NEAR: usize = 32;

/// `push` inputs, `reconstruct` (and `near`), `whiten`, read results; `clear`.
pub struct Tile {
    inputs: usize,
    rows: usize,
    /// Rows x inputs, as the four below.
    x: Vec<f32>,
    /// (row, input) of each missing value, ascending.
    missing: Vec<(usize, usize)>,
    reconstruction: Vec<f32>,
    residuals: Vec<f32>,
    whitened: Vec<f32>,
    /// Of a few rows the newest record, what the references give for it, and two numbers of each group of them; empty without references.
    newest: Vec<f32>,
    partial: Vec<f32>,
    groups: Vec<f32>,
    room: Room,
    room_of_references: Room,
}

impl Tile {
    /// `references`: kernel of those that records are compared with.
    pub fn new(network: &Kernel, references: Option<&Kernel>) -> Self {
        let inputs = network.inputs();
        let empty = vec![0.0; TILE * inputs + LANES];
        let count = references.map_or(0, Kernel::outputs);
        Self {
            inputs,
            rows: 0,
            missing: Vec::new(),
            reconstruction: empty.clone(),
            residuals: empty.clone(),
            whitened: empty.clone(),
            x: empty,
            newest: references.map_or_else(Vec::new, |of| vec![0.0; NEAR * of.inputs() + LANES]),
            partial: vec![0.0; NEAR * count],
            groups: vec![0.0; 2 * groups(count)],
            room: network.room(),
            room_of_references: references.map_or_else(Room::default, Kernel::room),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn clear(&mut self) {
        self.rows = 0;
        self.missing.clear();
    }

    /// Adds one input (scaled, NaN = missing, which is `gaps` only). At most `TILE` fit.
    pub fn push(&mut self, input: &[f32], gaps: bool) {
        self.note_missing(input, gaps);
        let row = &mut self.x[self.rows * self.inputs..][..self.inputs];
        row.copy_from_slice(input);
        for (_, j) in missing_in(&self.missing, self.rows) {
            row[*j] = 0.0;
        }
        self.rows += 1;
    }

    /// Adds one residual that is known already; its input tells what is missing. Then `whiten`.
    pub fn push_residual(&mut self, residual: &[f32], input: &[f32], gaps: bool) {
        self.residuals[self.rows * self.inputs..][..self.inputs].copy_from_slice(residual);
        self.note_missing(input, gaps);
        self.rows += 1;
    }

    fn note_missing(&mut self, input: &[f32], gaps: bool) {
        debug_assert!(gaps || !has_gaps(input));
        if gaps {
            let missing = input.iter().enumerate().filter(|(_, v)| v.is_nan());
            self.missing.extend(missing.map(|(j, _)| (self.rows, j)));
        }
    }

    /// Reconstructions and residuals of all inputs. Missing values are imputed on the way.
    pub fn reconstruct(&mut self, network: &Kernel) {
        let Self { inputs, rows, x, missing, reconstruction, residuals, room, .. } = self;
        network.apply(*rows, x, reconstruction, room);
        let passes = if missing.is_empty() { 0 } else { IMPUTE_PASSES };
        for _ in 0..passes {
            for (row, j) in &*missing {
                let at = row * *inputs + j;
                let rebuilt = reconstruction[at];
                x[at] = if rebuilt.is_nan() { 0.0 } else { rebuilt.clamp(-SCALED_MAX, SCALED_MAX) };
            }
            network.apply(*rows, x, reconstruction, room);
        }
        lanes::difference(*rows * *inputs, reconstruction, x, residuals);
    }

    /// After `reconstruct`: shows `each` the newest record of every input (NaN = missing), with its row and what the references give for it, see
    /// `Near::new` (and room for two numbers of each group).
    pub fn near(
        &mut self,
        (references, kernel): (&Array2<f32>, &Kernel),
        mut each: impl FnMut(usize, &[f32], &mut [f32], &mut [f32]),
    ) {
        let Self { inputs, rows, x, missing, newest, partial, groups, room_of_references: room, .. } = self;
        let features = kernel.inputs();
        for from in (0..*rows).step_by(NEAR) {
            let these = NEAR.min(*rows - from);
            let inputs_of_these = x[from * *inputs..].chunks_exact(*inputs).take(these);
            for (input, to) in inputs_of_these.zip(newest.chunks_exact_mut(features)) {
                to.copy_from_slice(&input[*inputs - features..]);
            }
            kernel.apply(these, newest, partial, room);
            for (at, partial) in partial.chunks_exact_mut(kernel.outputs()).take(these).enumerate() {
                let (row, record) = (from + at, &mut newest[at * features..][..features]);
                let gaps = missing_in(missing, row).iter().filter(|(_, j)| *j >= *inputs - features);
                gaps.for_each(|(_, j)| record[j + features - *inputs] = f32::NAN);
                if let Some(references) = references.as_slice().filter(|_| has_gaps(record)) {
                    lanes::sums_of_squares(features, record, references, partial);
                }
                each(row, record, partial, groups);
            }
        }
    }

    /// After `reconstruct`: the newest record of one input, with what is missing filled in.
    pub fn newest(&self, row: usize, features: usize) -> &[f32] {
        &self.input(row)[self.inputs - features..]
    }

    /// After `reconstruct`: rows x inputs, reconstruction minus input; meaningless where the value is missing.
    pub fn residuals(&self) -> &[f32] {
        &self.residuals[..self.rows * self.inputs]
    }

    /// (row, input) of each missing value, ascending.
    pub fn missing(&self) -> &[(usize, usize)] {
        &self.missing
    }

    /// Whitened residuals of all inputs. `kernel`: of `residuals`.
    pub fn whiten(&mut self, residuals: &Residuals, kernel: Option<&Kernel>) {
        let Self { rows, residuals: values, missing, whitened, room, .. } = self;
        residuals.whiten(kernel, *rows, values, missing, whitened, room);
    }

    /// After `whiten`: Mahalanobis distance of one input's residual (mean square, so about 1 on ordinary records),
    /// over what is present.
    pub fn distance(&self, row: usize) -> f64 {
        let gaps = missing_in(&self.missing, row).len();
        lanes::squares(self.inputs, &self.whitened[row * self.inputs..]) / (self.inputs - gaps).max(1) as f64
    }

    /// After `whiten`: what each feature contributed to one input's distance, w^2 summed over the records of the window;
    /// nothing where a value is missing. `out`: one number per feature.
    pub fn contributions(&self, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        let mut missing = missing_in(&self.missing, row).iter().map(|at| at.1).peekable();
        for (record, whitened) in self.whitened(row).chunks_exact(out.len()).enumerate() {
            for (j, (w, sum)) in whitened.iter().zip(&mut *out).enumerate() {
                if missing.next_if_eq(&(record * whitened.len() + j)).is_none() {
                    *sum += w * w;
                }
            }
        }
    }

    fn whitened(&self, row: usize) -> &[f32] {
        &self.whitened[row * self.inputs..][..self.inputs]
    }

    /// After `reconstruct`: one input, with what is missing filled in.
    pub fn input(&self, row: usize) -> &[f32] {
        &self.x[row * self.inputs..][..self.inputs]
    }

    pub fn reconstruction(&self, row: usize) -> &[f32] {
        &self.reconstruction[row * self.inputs..][..self.inputs]
    }
}

/// Whether a value of an input is missing.
pub fn has_gaps(input: &[f32]) -> bool {
    lanes::any_nan(input.len(), input)
}

/// Those of one row.
fn missing_in(missing: &[(usize, usize)], row: usize) -> &[(usize, usize)] {
    let from = missing.partition_point(|at| at.0 < row);
    let to = missing.partition_point(|at| at.0 <= row);
    &missing[from..to]
}
