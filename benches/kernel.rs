//! What the arithmetic of scoring costs: a whole autoencoder, rows in and rows out, over batches of 256 records and over one record at a
//! time, against the most that one core can multiply and add (measured in the same run, in turn), and against the plain products of
//! `ndarray`.

use std::hint::black_box;

use fearless_simd::Level;
use ndarray::{Array1, Array2};

#[path = "support/network.rs"]
mod network;

use network::{BATCH, Network, SHAPES, layers, multiply_adds, peak, timed};

/// Rounds of everything in turn, the best of each counts; multiply-adds of each part of a round.
const ROUNDS: usize = 40;
const WORK: usize = 100_000_000;

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

fn main() {
    let mut networks: Vec<Network> = SHAPES.into_iter().map(Network::new).collect();
    // Seconds: of a multiply-add; of a record in a batch, alone, plain.
    let mut most = f64::INFINITY;
    let mut best = vec![[f64::INFINITY; 3]; networks.len()];
    for _ in 0..ROUNDS {
        most = most.min(peak());
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
    println!("{:?}: {:.1} G multiply-adds/s of one core at most", Level::new(), 1e-9 / most);
    println!(
        "{:>20} {:>16} {:>10} {:>16} {:>16}",
        "tanh", "batch of 256", "of peak", "a record alone", "ndarray, batch"
    );
    for (shape, [batch, alone, plain]) in SHAPES.into_iter().zip(best) {
        println!(
            "{:>20} {:>13.0} ns {:>8.0} % {:>13.0} ns {:>13.0} ns",
            shape.map(|n| n.to_string()).join("-"),
            1e9 * batch,
            100.0 * most * multiply_adds(shape) as f64 / batch,
            1e9 * alone,
            1e9 * plain,
        );
    }
}
