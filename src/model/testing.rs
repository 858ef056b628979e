//! Data for the tests of this module and of the detector.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::record::{Schema, Table};

/// One series of rows of `features` values, named f0, f1, ...
pub fn table(features: usize, values: Vec<f64>) -> Table {
    let names = (0..features).map(|j| format!("f{j}").parse().unwrap()).collect();
    let series = vec![0; values.len() / features];
    Table { schema: Schema::new(names).unwrap(), values, series, names: vec![] }
}

pub fn noise(seed: u64, n: usize) -> Vec<f64> {
    let rng = ChaCha8Rng::seed_from_u64(seed);
    StandardNormal.sample_iter(rng).take(n).collect()
}

pub fn uniform(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random()).collect()
}

/// Rows near a plane of `depth` dimensions in a space of `features`: hidden causes, sensors that follow them, noise of a
/// tenth of their size.
pub fn plane(seed: u64, rows: usize, features: usize, depth: usize) -> Vec<f64> {
    // The plane itself depends on its dimensions only, so that two seeds are two samples of one plant.
    let mix = noise(9_999 + (features * 31 + depth) as u64, features * depth);
    let causes = noise(seed, rows * depth);
    let errors = noise(seed + 1_000_000, rows * features);
    (0..rows * features)
        .map(|at| {
            let (i, j) = (at / features, at % features);
            (0..depth).map(|k| causes[i * depth + k] * mix[j * depth + k]).sum::<f64>() + 0.1 * errors[at]
        })
        .collect()
}
