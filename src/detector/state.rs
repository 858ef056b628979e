//! What is remembered of one series: enough to judge its next record, and nothing else. A checkpoint of a series is a
//! copy of this struct.

use std::time::Duration;

use crate::model::Model;
use crate::record::EventTime;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeriesState {
    /// Records seen since the window began.
    seen: u64,
    /// Of the last record.
    time: EventTime,
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
        Self { seen: 0, time: EventTime::MIN, smoothed: model.calibration().smoothed_start(), ring, features }
    }

    /// Takes the next record in; `values`: one per feature, NaN = missing. Farther than `gap` (unless that is zero) from the
    /// record before, earlier or later, the window begins anew, and `restart` is due before this record's `smooth`; then the
    /// answer is true. Within the gap, a late record counts where it comes.
    pub fn observe(&mut self, model: &Model, time: EventTime, values: &[f64], gap: Duration) -> bool {
        let apart_ms = time.0.abs_diff(self.time.0);
        let anew = self.seen > 0 && !gap.is_zero() && u128::from(apart_ms) > gap.as_millis();
        if anew {
            self.seen = 0;
        }
        self.time = time;
        let at = self.oldest();
        model.scaler().scale(values, &mut self.ring[at..at + self.features]);
        self.seen += 1;
        anew
    }

    /// The smoothed level of a series that begins.
    pub fn restart(&mut self, model: &Model) {
        self.smoothed = model.calibration().smoothed_start();
    }

    /// Records seen since the window began.
    #[cfg(test)]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Event time of the last record.
    pub fn time(&self) -> EventTime {
        self.time
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
