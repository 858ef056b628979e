//! What the arithmetic of scoring costs: a whole autoencoder, rows in and rows out, over batches of 256 records and over one record at a
//! time, against the most that one core can multiply and add (measured in the same run, in turn), and against the plain products of
//! `ndarray`.

use std::hint::black_box;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use ndarray::{Array1, Array2};

#[path = "support/network.rs"]
mod network;

use network::{BATCH, Network, SHAPES, layers, timed};

/// Rounds of everything in turn, the best of each counts; multiply-adds of each part of a round.
const ROUNDS: usize = 40;
const WORK: usize = 100_000_000;
/// Independent sums, more than the units need to be busy.
const SUMS: usize = 16;

#[inline(always)]
fn multiply_add<S: Simd>(simd: S, times: usize) -> f32 {
    let mut sums: [S::f32s; SUMS] = std::array::from_fn(|i| S::f32s::splat(simd, i as f32));
    let (factor, term) = (S::f32s::splat(simd, black_box(0.5)), S::f32s::splat(simd, black_box(1.0)));
    for _ in 0..times / (SUMS * S::f32s::LEN) {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, term);
        }
    }
    sums.iter().flat_map(|sum| sum.as_slice().to_vec()).sum()
}

fn plain(layers: &[(Array2<f32>, Array1<f32>)], x: &Array2<f32>) -> Array2<f32> {
    let mut y = x.clone();
    for (l, (weight, bias)) in layers.iter().enumerate() {
        y = y.dot(weight) + bias;
        if l.is_multiple_of(2) {
            y.mapv_inplace(f32::tanh);
        }
    }
    y
}

fn multiply_adds(shape: [usize; 5]) -> usize {
    shape.windows(2).map(|w| w[0] * w[1]).sum()
}

fn main() {
    let mut networks: Vec<Network> = SHAPES.into_iter().map(Network::new).collect();
    // Seconds: of a multiply-add; of a record in a batch, alone, plain.
    let mut peak = f64::INFINITY;
    let mut best = vec![[f64::INFINITY; 3]; networks.len()];
    for _ in 0..ROUNDS {
        let took = timed(1, || {
            black_box(dispatch!(Level::new(), simd => multiply_add(simd, WORK)));
        });
        peak = peak.min(took / WORK as f64);
        for ((shape, network), best) in SHAPES.into_iter().zip(&mut networks).zip(&mut best) {
            let count = WORK / multiply_adds(shape) / BATCH + 1;
            let layers = layers(shape);
            let batch = timed(count, || network.batch());
            let alone = timed(count, || network.alone());
            let plain = timed(count / 4 + 1, || drop(black_box(plain(&layers, &network.x))));
            for (best, took) in best.iter_mut().zip([batch, alone, plain]) {
                *best = best.min(took / BATCH as f64);
            }
        }
    }
    println!("{:?}: {:.1} G multiply-adds/s of one core at most", Level::new(), 1e-9 / peak);
    println!(
        "{:>20} {:>16} {:>10} {:>16} {:>16}",
        "tanh", "batch of 256", "of peak", "a record alone", "ndarray, batch"
    );
    for (shape, [batch, alone, plain]) in SHAPES.into_iter().zip(best) {
        println!(
            "{:>20} {:>13.0} ns {:>8.0} % {:>13.0} ns {:>13.0} ns",
            shape.map(|n| n.to_string()).join("-"),
            1e9 * batch,
            100.0 * peak * multiply_adds(shape) as f64 / batch,
            1e9 * alone,
            1e9 * plain,
        );
    }
}
