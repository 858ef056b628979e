//! Which records are compared with those of training, and what they were like.

use crate::model::{Model, Seen};
use crate::record::Offset;

/// Counted records of which half is forgotten.
const COUNTED_MAX: u64 = 8_192;
/// Part of the records that is counted.
const PART: f64 = 1.0 / 16.0;

/// Records counted by where they lie among the training records.
#[derive(Default)]
pub struct Sample {
    /// Whether all are, or a part of them, the last ones most.
    pub all: bool,
    pub seen: Seen,
}

/// A place from 0 to 1 for each number, evenly spread over any run of them: multiples of the golden ratio, which keep step with no period, such as that
/// of machines which take turns.
pub fn even_place(number: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    number.wrapping_mul(GOLDEN) as f64 / u64::MAX as f64
}

impl Sample {
    /// Whether this record is counted.
    pub fn wants(&self, offset: Offset) -> bool {
        self.all || even_place(offset.0.cast_unsigned()) < PART
    }

    pub fn take(&mut self, model: &Model, scaled: &[f32]) {
        model.see(&mut self.seen, scaled);
        if !self.all && self.seen.records() >= COUNTED_MAX {
            self.seen.fade();
        }
    }
}
