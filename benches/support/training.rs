//! An autoencoder in training.

use std::hint::black_box;

use ndarray::{Array2, s};
use residua::model::{Activation, ModelSettings, Trainer};

use crate::network::inputs;

/// Records of a step of training, and of an epoch.
pub const STEP: usize = 64;
const EPOCH: usize = 50_000;

/// An autoencoder in training, epoch after epoch.
pub struct Training {
    trainer: Trainer,
    records: Array2<f32>,
    at: usize,
}

impl Training {
    pub fn new(shape: [usize; 5]) -> Self {
        let settings = ModelSettings { batch: STEP, activation: Activation::Tanh, ..Default::default() };
        let trainer = Trainer::new([shape[0], shape[1], shape[2]], &settings);
        Self { trainer, records: inputs(EPOCH, shape[0]), at: 0 }
    }

    pub fn step(&mut self) {
        let rows = self.records.slice(s![self.at..(self.at + STEP).min(EPOCH), ..]);
        self.at = (self.at + STEP) % EPOCH.next_multiple_of(STEP);
        black_box(self.trainer.step(rows, rows));
    }
}
