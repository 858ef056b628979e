//! What the arithmetic of scoring costs: a whole autoencoder over batches of 256 records and over one record at a time, against the most
//! that one core can multiply and add (measured in the same run, in turn), and against the plain products of `ndarray`.
//!
//! Prints a table; with `--json` one line of numbers for the comparison with other programs (`make bench-peers`), after one round.

use std::hint::black_box;
use std::time::Instant;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use ndarray::{Array1, Array2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use residua::model::{Activation, Kernel};

const SHAPES: [[usize; 5]; 3] = [[38, 24, 8, 24, 38], [100, 64, 16, 64, 100], [256, 128, 32, 128, 256]];
const BATCH: usize = 256;
/// Rounds of everything in turn, the best of each counts; multiply-adds of each part of a round.
const ROUNDS: usize = 40;
const WORK: usize = 100_000_000;
/// Independent sums, more than the units need to be busy.
const SUMS: usize = 16;

struct Network {
    layers: Vec<(Array2<f32>, Array1<f32>)>,
    kernel: Kernel,
    x: Array2<f32>,
}

impl Network {
    fn new(shape: [usize; 5]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random = |rows: usize, columns: usize| {
            Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-0.3f32..0.3))
        };
        let layers: Vec<_> =
            shape.windows(2).map(|w| (random(w[0], w[1]), random(1, w[1]).remove_axis(Axis(0)))).collect();
        let activation = |l: usize| (l % 2 == 0).then_some(Activation::Tanh);
        let views = layers.iter().enumerate().map(|(l, (w, b))| (w.view(), Some(b.view()), activation(l)));
        Self { kernel: Kernel::new(views), x: random(BATCH, shape[0]), layers }
    }

    fn multiply_adds(&self) -> usize {
        self.layers.iter().map(|(weight, _)| weight.len()).sum()
    }

    fn plain(&self) -> Array2<f32> {
        let mut y = self.x.clone();
        for (l, (weight, bias)) in self.layers.iter().enumerate() {
            y = y.dot(weight) + bias;
            if l % 2 == 0 {
                y.mapv_inplace(f32::tanh);
            }
        }
        y
    }
}

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

/// Seconds for each of `count` times.
fn timed(count: usize, mut run: impl FnMut()) -> f64 {
    let since = Instant::now();
    (0..count).for_each(|_| run());
    since.elapsed().as_secs_f64() / count as f64
}

fn main() {
    let json = std::env::args().any(|word| word == "--json");
    let rounds = if json { 1 } else { ROUNDS };
    let networks: Vec<Network> = SHAPES.into_iter().map(Network::new).collect();
    // Seconds: of a multiply-add; of a record in a batch, alone, plain.
    let mut peak = f64::INFINITY;
    let mut best = vec![[f64::INFINITY; 3]; networks.len()];
    for _ in 0..rounds {
        let took = timed(1, || {
            black_box(dispatch!(Level::new(), simd => multiply_add(simd, WORK)));
        });
        peak = peak.min(took / WORK as f64);
        for (network, best) in networks.iter().zip(&mut best) {
            let (inputs, x) = (network.x.ncols(), network.x.as_slice().unwrap_or_default());
            let (mut out, mut room) = (vec![0.0; x.len()], network.kernel.room());
            let count = WORK / network.multiply_adds() / BATCH + 1;
            let batch = timed(count, || network.kernel.apply(BATCH, black_box(x), black_box(&mut out), &mut room));
            let alone = timed(count, || {
                for (row, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(inputs)) {
                    network.kernel.apply(1, black_box(row), black_box(out), &mut room);
                }
            });
            let plain = timed(count / 4 + 1, || drop(black_box(network.plain())));
            for (best, took) in best.iter_mut().zip([batch, alone, plain]) {
                *best = best.min(took / BATCH as f64);
            }
        }
    }
    if json {
        let shapes = SHAPES.map(|shape| shape.map(|n| n.to_string()).join("-"));
        let of = |i: usize| {
            let each = shapes.iter().zip(&best).map(|(shape, best)| (shape.clone(), best[i].into()));
            serde_json::Value::Object(each.collect())
        };
        println!("{}", serde_json::json!({"multiply_add": peak, "batch": of(0), "alone": of(1)}));
        return;
    }
    println!("{:?}: {:.1} G multiply-adds/s of one core at most", Level::new(), 1e-9 / peak);
    println!(
        "{:>20} {:>16} {:>10} {:>16} {:>16}",
        "tanh", "batch of 256", "of peak", "a record alone", "ndarray, batch"
    );
    for ((shape, network), [batch, alone, plain]) in SHAPES.iter().zip(&networks).zip(best) {
        println!(
            "{:>20} {:>13.0} ns {:>8.0} % {:>13.0} ns {:>13.0} ns",
            shape.map(|n| n.to_string()).join("-"),
            1e9 * batch,
            100.0 * peak * network.multiply_adds() as f64 / batch,
            1e9 * alone,
            1e9 * plain,
        );
    }
}
