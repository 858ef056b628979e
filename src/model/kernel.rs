//! Dense layers for many records at once, on the vector units that the processor has: AVX-512, AVX2 with FMA, NEON or plain SSE2,
//! chosen at run time.
//!
//! Records are turned into columns, sixteen of them side by side, and go through all layers before the next sixteen (or thirty-two) do,
//! so that what is between two layers never leaves the nearest cache. A block of outputs is kept in registers, from bias to activation,
//! while the inputs pass by; its weights lie in the order in which they are used. A record alone goes another way, outputs side by side.
//! On each way every output is bias + x0 w0 + x1 w1 + ... in that order, so a record gives the same bits among any number of others.

use fearless_simd::{Level, Simd, dispatch, f32x16, prelude::*};
use ndarray::{ArrayView1, ArrayView2};

use super::lanes::{LANES, read, tanh, write};
use super::settings::Activation;
use crate::record::vector;

/// So many records or fewer go alone: sixteen at once cost about as much as three.
const ALONE_MAX: usize = 2;
/// Sixteens at once where a register holds one.
const GROUPS: usize = 2;
/// Blocks of outputs of a record alone that are computed at once: an addition must not wait for the one before.
const AT_ONCE: usize = 4;

/// One value of sixteen records, or sixteen values of one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Column([f32; LANES]);

const ZERO: Column = Column([0.0; LANES]);

/// Layers that follow each other, ready for use.
#[derive(Clone, Debug)]
pub struct Kernel {
    level: Level,
    layers: Vec<Layer>,
    /// Largest number of values between two layers.
    width: usize,
}

#[derive(Clone, Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    activation: Option<Activation>,
    /// Outputs of a block.
    block: usize,
    /// Blocks x inputs x outputs of the block; the last block is filled up with zeros. And the bias.
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// The same in blocks of sixteen outputs: blocks x inputs; and the bias.
    alone: Vec<Column>,
    alone_bias: Vec<Column>,
}

/// Room for what is between two layers. Made once.
#[derive(Debug, Default)]
pub struct Room {
    from: Vec<Column>,
    to: Vec<Column>,
}

/// Outputs of a block: as many as the registers hold of sixteen records (or thirty-two), with an input and a weight beside them.
fn block_max(level: Level) -> usize {
    match level {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Level::Avx512(_) => 8,
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Level::Sse2(_) | Level::Sse4_2(_) => 2,
        _ => 6,
    }
}

impl Layer {
    fn new(
        weight: ArrayView2<f32>,
        bias: Option<ArrayView1<f32>>,
        activation: Option<Activation>,
        level: Level,
    ) -> Self {
        let (inputs, outputs) = weight.dim();
        let block = outputs.div_ceil(outputs.div_ceil(block_max(level)));
        let bias_of = |o: usize| bias.map_or(0.0, |bias| bias[o]);
        let packed = |width: usize| {
            let mut weights = vec![0.0; outputs.div_ceil(width) * inputs * width];
            let mut biases = vec![0.0; outputs.div_ceil(width) * width];
            for o in 0..outputs {
                biases[o] = bias_of(o);
                let of_block = &mut weights[o / width * inputs * width..][..inputs * width];
                of_block.iter_mut().skip(o % width).step_by(width).zip(weight.column(o)).for_each(|(to, w)| *to = *w);
            }
            (weights, biases)
        };
        let columns = |values: Vec<f32>| values.as_chunks().0.iter().map(|values| Column(*values)).collect();
        let ((weights, biases), (alone, alone_bias)) = (packed(block), packed(LANES));
        let (alone, alone_bias) = (columns(alone), columns(alone_bias));
        Self { inputs, outputs, activation, block, weights, bias: biases, alone, alone_bias }
    }
}

impl Kernel {
    /// `layers`: of each its weights (inputs x outputs), bias and activation; as many inputs as the one before has outputs.
    pub fn new<'a>(
        layers: impl Iterator<Item = (ArrayView2<'a, f32>, Option<ArrayView1<'a, f32>>, Option<Activation>)>,
    ) -> Self {
        Self::at(vector::level(), layers)
    }

    /// For another processor.
    pub(super) fn at<'a>(
        level: Level,
        layers: impl Iterator<Item = (ArrayView2<'a, f32>, Option<ArrayView1<'a, f32>>, Option<Activation>)>,
    ) -> Self {
        let layers: Vec<Layer> =
            layers.map(|(weight, bias, activation)| Layer::new(weight, bias, activation, level)).collect();
        let width = layers.iter().map(|layer| layer.inputs.max(layer.outputs)).max().unwrap_or(0);
        Self { level, layers, width }
    }

    /// Values of a row.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.inputs)
    }

    /// What becomes of them.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs)
    }

    pub fn room(&self) -> Room {
        let columns = vec![ZERO; GROUPS * self.width];
        Room { from: columns.clone(), to: columns }
    }

    /// `rows`: at least `count` records x inputs of the first layer; `out`: as many x outputs of the last one.
    pub fn apply(&self, count: usize, rows: &[f32], out: &mut [f32], room: &mut Room) {
        dispatch!(self.level, simd => self.apply_with(simd, count, rows, out, room));
    }

    #[inline(always)]
    fn apply_with<S: Simd>(&self, simd: S, count: usize, rows: &[f32], out: &mut [f32], room: &mut Room) {
        let (Some(first), Some(last)) = (self.layers.first(), self.layers.last()) else { return };
        let out = &mut out[..count * last.outputs];
        let most = if S::f32s::LEN == LANES { GROUPS * LANES } else { LANES };
        let mut at = 0;
        while at < count {
            let left = count - at;
            let these = if left <= ALONE_MAX { 1 } else { left.min(most) };
            let (rows, out) = (&rows[at * first.inputs..], &mut out[at * last.outputs..][..these * last.outputs]);
            if these == 1 {
                self.alone(simd, &rows[..first.inputs], out, room);
            } else if S::f32s::LEN == LANES && these > LANES {
                self.together::<GROUPS, S>(simd, these, rows, out, room);
            } else {
                self.together::<1, S>(simd, these, rows, out, room);
            }
            at += these;
        }
    }

    #[inline(always)]
    fn together<const G: usize, S: Simd>(&self, simd: S, count: usize, rows: &[f32], out: &mut [f32], room: &mut Room) {
        let (mut from, mut to) = (&mut room.from[..], &mut room.to[..]);
        let (Some(first), Some(last)) = (self.layers.first(), self.layers.last()) else { return };
        for (at, columns) in (0..count).step_by(LANES).zip(from.chunks_exact_mut(self.width)) {
            to_columns(simd, LANES.min(count - at), &rows[at * first.inputs..], &mut columns[..first.inputs]);
        }
        for layer in &self.layers {
            layer.together::<G, S>(simd, from, to, self.width);
            std::mem::swap(&mut from, &mut to);
        }
        for (rows, columns) in out.chunks_mut(LANES * last.outputs).zip(from.chunks_exact(self.width)) {
            to_rows(simd, &columns[..last.outputs], rows);
        }
    }

    #[inline(always)]
    fn alone<S: Simd>(&self, simd: S, row: &[f32], out: &mut [f32], room: &mut Room) {
        let (mut from, mut to) = (&mut room.from[..], &mut room.to[..]);
        for (values, column) in row.chunks(LANES).zip(&mut *from) {
            column.0[..values.len()].copy_from_slice(values);
        }
        for layer in &self.layers {
            layer.alone(simd, from, to);
            std::mem::swap(&mut from, &mut to);
        }
        for (values, column) in out.chunks_mut(LANES).zip(&*from) {
            values.copy_from_slice(&column.0[..values.len()]);
        }
    }
}

impl Layer {
    /// `from` and `to`: of each sixteen records `stride` columns, the first ones in use.
    #[inline(always)]
    fn together<const G: usize, S: Simd>(&self, simd: S, from: &[Column], to: &mut [Column], stride: usize) {
        match self.block {
            1 => self.blocks::<1, G, S>(simd, from, to, stride),
            2 => self.blocks::<2, G, S>(simd, from, to, stride),
            3 => self.blocks::<3, G, S>(simd, from, to, stride),
            4 => self.blocks::<4, G, S>(simd, from, to, stride),
            5 => self.blocks::<5, G, S>(simd, from, to, stride),
            6 => self.blocks::<6, G, S>(simd, from, to, stride),
            7 => self.blocks::<7, G, S>(simd, from, to, stride),
            _ => self.blocks::<8, G, S>(simd, from, to, stride),
        }
    }

    #[inline(always)]
    fn blocks<const N: usize, const G: usize, S: Simd>(
        &self,
        simd: S,
        from: &[Column],
        to: &mut [Column],
        stride: usize,
    ) {
        let from: [&[Column]; G] = std::array::from_fn(|g| &from[g * stride..][..self.inputs]);
        let (weights, bias) = (self.weights.as_chunks::<N>().0, self.bias.as_chunks::<N>().0);
        let zero = f32x16::splat(simd, 0.0);
        for (at, (weights, bias)) in weights.chunks_exact(self.inputs).zip(bias).enumerate() {
            let mut sums = [[zero; N]; G];
            for o in 0..N {
                let bias = f32x16::splat(simd, bias[o]);
                for sums in &mut sums {
                    sums[o] = bias;
                }
            }
            for (i, weights) in weights.iter().enumerate() {
                let mut x = [zero; G];
                for g in 0..G {
                    x[g] = f32x16::load_array_ref(simd, &from[g][i].0);
                }
                for o in 0..N {
                    let weight = f32x16::splat(simd, weights[o]);
                    for g in 0..G {
                        sums[g][o] = x[g].mul_add(weight, sums[g][o]);
                    }
                }
            }
            for sums in &mut sums {
                for sum in sums {
                    *sum = activated(simd, self.activation, *sum);
                }
            }
            for (g, sums) in sums.iter().enumerate() {
                let to = &mut to[g * stride..][at * N..self.outputs];
                if let Some(to) = to.first_chunk_mut::<N>() {
                    for o in 0..N {
                        sums[o].store_array(&mut to[o].0);
                    }
                } else {
                    sums.iter().zip(to).for_each(|(sum, to)| sum.store_array(&mut to.0));
                }
            }
        }
    }

    /// `from` and `to`: the values of a record, sixteen in a column.
    #[inline(always)]
    fn alone<S: Simd>(&self, simd: S, from: &[Column], to: &mut [Column]) {
        let mut weights = self.alone.chunks(AT_ONCE * self.inputs);
        for (bias, to) in self.alone_bias.chunks(AT_ONCE).zip(to.chunks_mut(AT_ONCE)) {
            let Some(weights) = weights.next() else { break };
            match bias.len() {
                AT_ONCE => self.alone_blocks::<AT_ONCE, S>(simd, weights, bias, from, to),
                3 => self.alone_blocks::<3, S>(simd, weights, bias, from, to),
                2 => self.alone_blocks::<2, S>(simd, weights, bias, from, to),
                _ => self.alone_blocks::<1, S>(simd, weights, bias, from, to),
            }
        }
    }

    #[inline(always)]
    fn alone_blocks<const B: usize, S: Simd>(
        &self,
        simd: S,
        weights: &[Column],
        bias: &[Column],
        from: &[Column],
        to: &mut [Column],
    ) {
        let weights: [&[Column]; B] = std::array::from_fn(|b| &weights[b * self.inputs..][..self.inputs]);
        let mut sums = [f32x16::splat(simd, 0.0); B];
        for b in 0..B {
            sums[b] = f32x16::load_array_ref(simd, &bias[b].0);
        }
        for i in 0..self.inputs {
            let x = f32x16::splat(simd, from[i / LANES].0[i % LANES]);
            for b in 0..B {
                sums[b] = x.mul_add(f32x16::load_array_ref(simd, &weights[b][i].0), sums[b]);
            }
        }
        for (sum, to) in sums.into_iter().zip(to) {
            activated(simd, self.activation, sum).store_array(&mut to.0);
        }
    }
}

#[inline(always)]
fn activated<S: Simd>(simd: S, activation: Option<Activation>, x: f32x16<S>) -> f32x16<S> {
    match activation {
        None => x,
        Some(Activation::Relu) => x.max(f32x16::splat(simd, 0.0)),
        Some(Activation::Tanh) => tanh(simd, x),
    }
}

/// The first `count` rows (sixteen at most, others count as zeros) become columns, one for each value of a row.
#[inline(always)]
fn to_columns<S: Simd>(simd: S, count: usize, rows: &[f32], columns: &mut [Column]) {
    let width = columns.len();
    for (at, columns) in (0..width).step_by(LANES).zip(columns.chunks_mut(LANES)) {
        let mut square = [f32x16::splat(simd, 0.0); LANES];
        for (i, values) in square.iter_mut().enumerate() {
            if i < count {
                *values = read(simd, &rows[i * width + at..], 0.0);
            }
        }
        let square = transposed(square);
        if let Some(columns) = columns.first_chunk_mut::<LANES>() {
            for i in 0..LANES {
                square[i].store_array(&mut columns[i].0);
            }
        } else {
            columns.iter_mut().zip(&square).for_each(|(column, values)| values.store_array(&mut column.0));
        }
    }
}

/// And back: as many rows as `rows` has room for, sixteen at most.
#[inline(always)]
fn to_rows<S: Simd>(simd: S, columns: &[Column], rows: &mut [f32]) {
    let width = columns.len();
    let count = rows.len() / width;
    // The last values of a row are written with what belongs to the next one behind them, which comes later.
    for at in (0..width).step_by(LANES).rev() {
        let mut square = [f32x16::splat(simd, 0.0); LANES];
        for (i, values) in square.iter_mut().enumerate() {
            if let Some(column) = columns.get(at + i) {
                *values = f32x16::load_array_ref(simd, &column.0);
            }
        }
        for (i, values) in transposed(square).iter().enumerate() {
            if i < count {
                let rows = &mut rows[i * width + at..];
                write(rows.len(), *values, rows);
            }
        }
    }
}

/// By four perfect shuffles (Stone 1971).
#[inline(always)]
fn transposed<S: Simd>(square: [f32x16<S>; LANES]) -> [f32x16<S>; LANES] {
    shuffled(shuffled(shuffled(shuffled(square))))
}

/// The two halves like cards. Written out, or the compiler leaves it all in memory.
#[inline(always)]
fn shuffled<S: Simd>([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [f32x16<S>; LANES]) -> [f32x16<S>; LANES] {
    [
        a.zip_low(i),
        a.zip_high(i),
        b.zip_low(j),
        b.zip_high(j),
        c.zip_low(k),
        c.zip_high(k),
        d.zip_low(l),
        d.zip_high(l),
        e.zip_low(m),
        e.zip_high(m),
        f.zip_low(n),
        f.zip_high(n),
        g.zip_low(o),
        g.zip_high(o),
        h.zip_low(p),
        h.zip_high(p),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::network::Network;
    use super::*;
    use ndarray::Array2;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1f32..1.0))
    }

    fn apply(kernel: &Kernel, rows: &[f32], outputs: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; rows.len() / kernel.inputs() * outputs];
        // What is in the room of other records must not matter.
        let room = vec![Column([1e30; LANES]); GROUPS * kernel.width];
        kernel.apply(rows.len() / kernel.inputs(), rows, &mut out, &mut Room { from: room.clone(), to: room });
        out
    }

    /// One to four layers of random widths, against the plain matrix product in f64.
    #[test]
    fn any_shape_is_as_the_plain_product() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for case in 0..300 {
            let sizes: Vec<usize> = (0..rng.random_range(2..6)).map(|_| rng.random_range(1..70)).collect();
            let count = rng.random_range(1..80);
            let x = random(&mut rng, count, sizes[0]);
            let layers: Vec<_> = sizes
                .windows(2)
                .map(|pair| {
                    let bias = rng.random_bool(0.7).then(|| random(&mut rng, 1, pair[1]).row(0).to_owned());
                    let activation = [None, Some(Activation::Relu), Some(Activation::Tanh)][rng.random_range(0..3)];
                    (random(&mut rng, pair[0], pair[1]), bias, activation)
                })
                .collect();
            let mut expect = x.mapv(f64::from);
            for (weight, bias, activation) in &layers {
                expect = expect.dot(&weight.mapv(f64::from));
                if let Some(bias) = bias {
                    expect += &bias.mapv(f64::from);
                }
                match activation {
                    None => {}
                    Some(Activation::Relu) => expect.mapv_inplace(|v| v.max(0.0)),
                    Some(Activation::Tanh) => expect.mapv_inplace(f64::tanh),
                }
            }
            for level in vector::levels() {
                let views = layers.iter().map(|(weight, bias, a)| (weight.view(), bias.as_ref().map(|b| b.view()), *a));
                let got = apply(&Kernel::at(level, views), x.as_slice().unwrap(), expect.ncols());
                let size = expect.iter().fold(1.0, |most: f64, v| most.max(v.abs()));
                for (got, expect) in got.iter().zip(&expect) {
                    assert!(
                        (f64::from(*got) - expect).abs() < 1e-4 * size,
                        "{case} {sizes:?} {level:?} {got} {expect}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_record_gives_the_same_bits_among_any_number_of_others() {
        for (inputs, hidden, code) in
            [(1, 16, 1), (10, 16, 3), (38, 38, 11), (76, 76, 30), (190, 128, 40), (700, 128, 300)]
        {
            let mut rng = ChaCha8Rng::seed_from_u64(inputs as u64);
            for activation in [Activation::Relu, Activation::Tanh] {
                let network = Network::new(inputs, hidden, code, activation, &mut rng);
                let x: Vec<f32> = (0..256 * inputs).map(|_| rng.random_range(-3f32..3.0)).collect();
                for level in vector::levels() {
                    let kernel = network.kernel_at(level);
                    let whole = apply(&kernel, &x, inputs);
                    for size in [1, 2, 3, 5, 15, 16, 17, 18, 19, 31, 32, 33, 34, 35, 100, 255] {
                        let parts = x.chunks(size * inputs).flat_map(|rows| apply(&kernel, rows, inputs));
                        let same = parts.zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{inputs} inputs, {level:?}, batches of {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn tanh_is_close_to_the_library_and_bounded() {
        let one = ndarray::array![[1.0f32]];
        for level in vector::levels() {
            let kernel = Kernel::at(level, [(one.view(), None, Some(Activation::Tanh))].into_iter());
            let x: Vec<f32> = (-2000..=2000).map(|i| i as f32 * 0.005).collect();
            for (x, y) in x.iter().zip(apply(&kernel, &x, 1)) {
                assert!((y - x.tanh()).abs() < 1e-6, "{x}: {y} {}", x.tanh());
            }
            let far = apply(&kernel, &[f32::MAX, f32::INFINITY, 1e6, f32::MIN, f32::NEG_INFINITY, -1e6], 1);
            assert!(far[..3].iter().zip(&far[3..]).all(|(a, b)| *a <= 1.0 && *a > 0.999_999 && *a == -b), "{far:?}");
        }
    }
}
