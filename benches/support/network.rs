//! Autoencoders of three sizes with random weights, and how long things take.

use std::hint::black_box;
use std::time::Instant;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use ndarray::{Array1, Array2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use residua::model::{Activation, Kernel, Room};

pub const SHAPES: [[usize; 5]; 3] = [[38, 24, 8, 24, 38], [100, 64, 16, 64, 100], [256, 128, 32, 128, 256]];
pub const BATCH: usize = 256;

/// Multiply-adds of one look at the peak, and independent sums, more than the units need to be busy.
const WORK: usize = 20_000_000;
const SUMS: usize = 16;

pub struct Network {
    kernel: Kernel,
    room: Room,
    pub x: Array2<f32>,
    out: Vec<f32>,
}

fn random(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-0.3..0.3))
}

/// Rows x `inputs`.
pub fn inputs(rows: usize, inputs: usize) -> Array2<f32> {
    random(&mut ChaCha8Rng::seed_from_u64(2), rows, inputs)
}

/// Weights and bias of each layer.
pub fn layers(shape: [usize; 5]) -> Vec<(Array2<f32>, Array1<f32>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut layer = |w: &[usize]| (random(&mut rng, w[0], w[1]), random(&mut rng, 1, w[1]).remove_axis(Axis(0)));
    shape.windows(2).map(&mut layer).collect()
}

impl Network {
    /// With tanh after the first and the third layer.
    pub fn new(shape: [usize; 5]) -> Self {
        let layers = layers(shape);
        let activation = |l: usize| l.is_multiple_of(2).then_some(Activation::Tanh);
        let views = layers.iter().enumerate().map(|(l, (w, b))| (w.view(), Some(b.view()), activation(l)));
        let kernel = Kernel::new(views);
        let x = inputs(BATCH, shape[0]);
        Self { room: kernel.room(), kernel, x, out: vec![0.0; BATCH * shape[0]] }
    }

    /// Reconstructions of all records together.
    pub fn batch(&mut self) {
        let Self { kernel, room, x, out, .. } = self;
        kernel.apply(BATCH, black_box(x.as_slice().unwrap_or_default()), black_box(out), room);
    }

    /// And one by one.
    pub fn alone(&mut self) {
        let Self { kernel, room, x, out, .. } = self;
        let inputs = x.ncols();
        let rows = x.as_slice().unwrap_or_default().chunks_exact(inputs);
        for (row, out) in rows.zip(out.chunks_exact_mut(inputs)) {
            kernel.apply(1, black_box(row), black_box(out), room);
        }
    }
}

/// Seconds for each of `count` times.
pub fn timed(count: usize, mut run: impl FnMut()) -> f64 {
    let since = Instant::now();
    (0..count).for_each(|_| run());
    since.elapsed().as_secs_f64() / count as f64
}

pub fn multiply_adds(shape: [usize; 5]) -> usize {
    shape.windows(2).map(|w| w[0] * w[1]).sum()
}

/// Seconds of a multiply-add, where there is nothing else to do.
pub fn peak() -> f64 {
    timed(1, || {
        black_box(dispatch!(Level::new(), simd => multiply_add(simd, WORK)));
    }) / WORK as f64
}

#[inline(always)]
fn multiply_add<S: Simd>(simd: S, times: usize) -> f32 {
    let mut sums = [S::f32s::splat(simd, 1.0); SUMS];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = S::f32s::splat(simd, i as f32);
    }
    let (factor, term) = (S::f32s::splat(simd, black_box(0.5)), S::f32s::splat(simd, black_box(1.0)));
    for _ in 0..times / (SUMS * S::f32s::LEN) {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, term);
        }
    }
    sums.iter().flat_map(|sum| sum.as_slice().to_vec()).sum()
}
