//! What is remembered of one series: enough to judge its next record, and nothing else. A checkpoint of a series is a
//! copy of this struct.

use crate::model::Model;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeriesState {
    /// Records seen.
    seen: u64,
    /// Smoothed level of the score (before the division by the threshold).
    smoothed: f64,
    /// The last window's scaled values as a ring of records; record `seen % window` is overwritten next.
    ring: Vec<f32>,
    features: usize,
}

impl SeriesState {
    pub fn new(model: &Model) -> Self {
        let features = model.schema().len();
        let ring = vec![f32::NAN; model.window() * features];
        Self { seen: 0, smoothed: model.calibration().smoothed_start(), ring, features }
    }

    /// Takes the next record in; `values`: one per feature, NaN = missing.
    pub fn observe(&mut self, model: &Model, values: &[f64]) {
        let at = self.oldest();
        model.scaler().scale(values, &mut self.ring[at..at + self.features]);
        self.seen += 1;
    }

    /// Whether there are as many records as the window is long.
    pub fn is_full(&self) -> bool {
        self.seen >= (self.ring.len() / self.features) as u64
    }

    /// Appends the window, oldest record first.
    pub fn window(&self, out: &mut Vec<f32>) {
        let (newer, older) = self.ring.split_at(self.oldest());
        out.extend_from_slice(older);
        out.extend_from_slice(newer);
    }

    /// Smoothed level after a record at `distance`. Called once per record, in order.
    pub fn smooth(&mut self, model: &Model, distance: f64) -> f64 {
        self.smoothed = model.calibration().smooth(self.smoothed, distance);
        self.smoothed
    }

    /// Where the oldest record of the ring starts.
    fn oldest(&self) -> usize {
        let window = self.ring.len() / self.features;
        (self.seen % window as u64) as usize * self.features
    }
}
