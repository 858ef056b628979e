//! What one network sees of a series: its last records, with the slow average of the records up to now joined on if there
//! is an order in time.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::lanes;
use super::series::{HeldOut, SeriesRows};

/// Weight of the newest record in the slow average.
pub(super) const CONTEXT_RATE: f32 = 0.03;

/// How records of a series become the input of a network: `window` records, oldest first, then the average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Records.
    pub window: usize,
    /// Whether the slow average of each feature is joined on.
    pub context: bool,
    /// Beyond about this many standard deviations inputs grow with their logarithm only: a machine that drifts out of what
    /// was seen in training then leaves the range in which the network is to be trusted later. 0: they are taken as they are.
    pub clip: f32,
}

impl View {
    pub fn inputs(&self, features: usize) -> usize {
        features * (self.window + usize::from(self.context))
    }

    /// Of so many inputs.
    pub fn features(&self, inputs: usize) -> usize {
        inputs / self.inputs(1)
    }

    /// Takes a record (scaled, NaN = missing) into the average; one that is NaN has not begun. Of both the first values count.
    pub fn follow(&self, features: usize, average: &mut [f32], record: &[f32]) {
        lanes::average(features, average, record, self.clip, CONTEXT_RATE);
    }

    /// `records`: one after the other, all values of the window; `out`: as many as `inputs`.
    pub fn write<'a>(&self, records: impl Iterator<Item = &'a [f32]>, average: &[f32], out: &mut [f32]) {
        let (window, context) = out.split_at_mut(out.len() - average.len());
        context.copy_from_slice(average);
        let (values, mut rest) = (window.len(), window);
        for record in records {
            let (place, later) = rest.split_at_mut(record.len());
            place.copy_from_slice(record);
            rest = later;
        }
        if self.clip > 0.0 {
            lanes::soft_clip(values, out, self.clip);
        }
    }
}

/// The training records as one network sees them.
pub struct Inputs<'a> {
    pub rows: &'a SeriesRows,
    pub view: View,
    /// Rows x features; empty without context.
    averages: Vec<f32>,
}

impl<'a> Inputs<'a> {
    /// Of so many windows at most, evenly picked, what the network sees; 0 in place of what is missing.
    pub fn some(&self, windows: &[HeldOut], count: usize) -> Array2<f32> {
        let step = windows.len().div_ceil(count.max(1)).max(1);
        let picked: Vec<usize> = windows.iter().step_by(step).map(|held| held.row).collect();
        let mut inputs = Array2::zeros((picked.len(), self.width()));
        for (row, mut to) in picked.iter().zip(inputs.rows_mut()) {
            let Some(to) = to.as_slice_mut() else { unreachable!("whole rows in standard layout") };
            self.write(*row, to);
            to.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = 0.0);
        }
        inputs
    }

    pub fn new(rows: &'a SeriesRows, view: View) -> Self {
        let mut averages = Vec::new();
        if view.context {
            averages.reserve_exact(rows.rows() * rows.features);
            for range in rows.series() {
                let mut average = vec![f32::NAN; rows.features];
                for row in range.clone() {
                    if !rows.is_left_out(row) {
                        view.follow(rows.features, &mut average, rows.window(row, 1));
                    }
                    averages.extend_from_slice(&average);
                }
            }
        }
        Self { rows, view, averages }
    }

    /// Values per input.
    pub fn width(&self) -> usize {
        self.view.inputs(self.rows.features)
    }

    /// The input that ends with the record `row`, whose series has a full window there.
    pub fn write(&self, row: usize, out: &mut [f32]) {
        let features = self.rows.features;
        let average = if self.view.context { &self.averages[row * features..][..features] } else { &[] };
        let window = std::iter::once(self.rows.window(row, self.view.window));
        self.view.write(window, average, out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::testing::table;
    use super::*;

    #[test]
    fn the_average_follows_what_is_present_from_its_first_value() {
        let view = View { window: 1, context: true, clip: 0.0 };
        let mut average = [f32::NAN; 2];
        view.follow(2, &mut average, &[f32::NAN, 1.0]);
        assert!(average[0].is_nan() && average[1] == 1.0);
        view.follow(2, &mut average, &[5.0, 2.0]);
        view.follow(2, &mut average, &[5.0, f32::NAN]);
        assert_eq!(average, [5.0, 1.0 + CONTEXT_RATE]);
    }

    #[test]
    fn inputs_in_training_are_those_in_service() {
        let rows = table(2, (0..40).map(|i| f64::from(i * i % 17)).collect());
        let scaler = Scaler::fit(&rows);
        let rows = SeriesRows::new(&rows, &scaler);
        let view = View { window: 3, context: true, clip: 0.5 };
        let inputs = Inputs::new(&rows, view);
        let mut average = [f32::NAN; 2];
        for row in 0..20 {
            view.follow(2, &mut average, rows.window(row, 1));
            if row >= 2 {
                let (mut ours, mut theirs) = ([0.0; 8], [1.0; 8]);
                inputs.write(row, &mut ours);
                view.write((row - 2..=row).map(|r| rows.window(r, 1)), &average, &mut theirs);
                assert_eq!(ours, theirs);
                assert_eq!(ours[6..], average);
            }
        }
    }

    #[test]
    fn far_values_grow_with_their_logarithm() {
        let view = View { window: 3, context: false, clip: 8.0 };
        let mut out = [0.0; 3];
        view.write([1.0, -1e6, f32::NAN].chunks(1), &[], &mut out);
        assert!((out[0] - 1.0).abs() < 0.01 && (-110.0..-90.0).contains(&out[1]) && out[2].is_nan(), "{out:?}");
    }
}
