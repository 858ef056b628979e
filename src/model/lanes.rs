//! Arithmetic over the values of one record, sixteen at a time, on the vector units that the processor has.
//!
//! `n` is how many values count. The slices may go on after them, and if they do for sixteen values or more, the last few values are as
//! fast to read as any others.

use std::ops::Deref;

use fearless_simd::{Simd, dispatch, f32x16, mask32x16, prelude::*, u32x16};

use crate::record::vector;

/// Values at a time.
pub const LANES: usize = 16;
/// Nothing beyond this is squared; its logarithm is far enough.
const FAR_MAX: f32 = 1e18;

/// Numbers, one for each value of a record, which can be read sixteen at a time to the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    padded: Vec<f32>,
    len: usize,
}

impl From<Vec<f32>> for Values {
    fn from(mut padded: Vec<f32>) -> Self {
        let len = padded.len();
        padded.resize(len + LANES, 1.0);
        Self { padded, len }
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.padded[..self.len]
    }
}

impl Values {
    /// With what comes after them.
    pub fn padded(&self) -> &[f32] {
        &self.padded
    }
}

/// Where each sixteen begin.
#[inline(always)]
fn sixteens(n: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(LANES)
}

/// The first sixteen values, `padding` where there are none.
#[inline(always)]
pub fn read<S: Simd>(simd: S, values: &[f32], padding: f32) -> f32x16<S> {
    match values.first_chunk::<LANES>() {
        Some(values) => f32x16::load_array_ref(simd, values),
        None => {
            let mut padded = [padding; LANES];
            padded[..values.len()].copy_from_slice(values);
            f32x16::load_array(simd, padded)
        }
    }
}

/// To the first `n` places, sixteen at most.
#[inline(always)]
pub fn write<S: Simd>(n: usize, values: f32x16<S>, to: &mut [f32]) {
    let to = &mut to[..n.min(LANES)];
    match to.first_chunk_mut::<LANES>() {
        Some(to) => values.store_array(to),
        None => to.copy_from_slice(&values.as_array()[..to.len()]),
    }
}

/// The first `n` of sixteen.
#[inline(always)]
fn first<S: Simd>(simd: S, n: usize) -> mask32x16<S> {
    const PLACES: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    f32x16::load_array(simd, PLACES).simd_lt(f32x16::splat(simd, n.min(LANES) as f32))
}

/// In an order of its own, which does not depend on the processor.
#[inline(always)]
fn sum<S: Simd>(values: f32x16<S>) -> f64 {
    let mut all = [0.0; LANES];
    for (all, value) in all.iter_mut().zip(values.as_array()) {
        *all = f64::from(*value);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            all[i] += all[i + half];
        }
    }
    all[0]
}

/// Beyond about `limit` values grow with their logarithm only: limit asinh(value / limit). NaN stays NaN.
pub fn soft_clip(n: usize, values: &mut [f32], limit: f32) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let clipped = soft_clipped(simd, read(simd, &values[at..], 0.0), limit);
        write(n - at, clipped, &mut values[at..]);
    });
}

#[inline(always)]
fn soft_clipped<S: Simd>(simd: S, values: f32x16<S>, limit: f32) -> f32x16<S> {
    let clipped = asinh(simd, values.abs() * f32x16::splat(simd, 1.0 / limit)) * f32x16::splat(simd, limit);
    values.is_nan().select(values, clipped.copysign(values))
}

/// Of what is not negative. Up to a quarter its power series; beyond, which is rare, ln(1 + w) with w = u + u^2 / (1 + sqrt(1 + u^2)).
#[inline(always)]
fn asinh<S: Simd>(simd: S, u: f32x16<S>) -> f32x16<S> {
    const NEAR: f32 = 0.25;
    const SERIES: [f32; 6] = [-945.0 / 42_240.0, 105.0 / 3_456.0, -15.0 / 336.0, 3.0 / 40.0, -1.0 / 6.0, 1.0];
    let c = |value: f32| f32x16::splat(simd, value);
    let u = u.min(c(FAR_MAX));
    let square = u * u;
    let mut p = c(SERIES[0]);
    for coefficient in &SERIES[1..] {
        p = p * square + c(*coefficient);
    }
    let far = u.simd_gt(c(NEAR));
    if !far.any_true() {
        return u * p;
    }
    let one = c(1.0);
    let w = u + square / (one + (one + square).sqrt());
    // What 1 + w loses of w is made up for.
    let s = one + w;
    far.select(ln(simd, s) + (w - (s - one)) / s, u * p)
}

/// Of numbers from 1 to 2^126: exponent, and a polynomial over the mantissa from 1/sqrt(2) to sqrt(2) (Cephes' logf).
#[inline(always)]
fn ln<S: Simd>(simd: S, x: f32x16<S>) -> f32x16<S> {
    const ROOT_HALF: u32 = 0x3f35_04f3; // bits of 1/sqrt(2)
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let c = |value: f32| f32x16::splat(simd, value);
    let bits: u32x16<S> = x.to_bits();
    let exponent = (bits - u32x16::splat(simd, ROOT_HALF)) >> 23;
    let f = f32x16::from_bits(bits - (exponent << 23)) - c(1.0);
    let k: f32x16<S> = exponent.to_float();
    let mut p = c(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        p = p * f + c(*coefficient);
    }
    let z = f * f;
    let low = p * f * z - c(0.5) * z + k * c(-2.121_944_4e-4);
    f + low + k * c(0.693_359_4)
}

/// The hyperbolic tangent of each value, as in the kernel.
pub fn tanh_of_all(n: usize, values: &mut [f32]) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        write(n - at, tanh(simd, read(simd, &values[at..], 0.0)), &mut values[at..]);
    });
}

/// Rational approximation (degrees 13 and 6) of tanh as in Eigen: within a few units in the last place of f32.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: f32x16<S>) -> f32x16<S> {
    let c = |value: f32| f32x16::splat(simd, value);
    let x = x.max(c(-7.905_311)).min(c(7.905_311));
    let q = x * x;
    let p = c(-2.760_768_5e-16);
    let p = p.mul_add(q, c(2.000_188e-13));
    let p = p.mul_add(q, c(-8.604_672e-11));
    let p = p.mul_add(q, c(5.122_297e-8));
    let p = p.mul_add(q, c(1.485_722_4e-5));
    let p = p.mul_add(q, c(6.372_619e-4));
    let p = x * p.mul_add(q, c(4.893_525e-3));
    let r = c(1.198_258_4e-6);
    let r = r.mul_add(q, c(1.185_347e-4));
    let r = r.mul_add(q, c(2.268_434_6e-3));
    p / r.mul_add(q, c(4.893_525e-3))
}

/// Sum of the squares.
pub fn squares(n: usize, values: &[f32]) -> f64 {
    dispatch!(vector::level(), simd => {
        let mut sums = f32x16::splat(simd, 0.0);
        for at in sixteens(n) {
            let values = first(simd, n - at).select(read(simd, &values[at..], 0.0), f32x16::splat(simd, 0.0));
            sums += values * values;
        }
        sum(sums)
    })
}

/// (value - mean) / scale of each value of a record, cut at `limit`; what is no number counts as that far.
pub fn standardise(n: usize, values: &mut [f32], (mean, scale): (&[f32], &[f32]), limit: f32) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let limit = f32x16::splat(simd, limit);
        let off = read(simd, &values[at..], 0.0) - read(simd, &mean[at..], 0.0);
        let e = off / read(simd, &scale[at..], 1.0);
        let cut = e.min(limit).max(-limit);
        write(n - at, e.is_nan().select(limit, cut), &mut values[at..]);
    });
}

/// An average over records, of which `weight` is the newest one's: takes a record in, clipped softly at `limit` (0: as it is). What is
/// missing (NaN) leaves it alone, and what is NaN has not begun.
pub fn average(n: usize, averages: &mut [f32], record: &[f32], limit: f32, weight: f32) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let (before, values) = (read(simd, &averages[at..], 0.0), read(simd, &record[at..], 0.0));
        let values = if limit > 0.0 { soft_clipped(simd, values, limit) } else { values };
        let moved = before + f32x16::splat(simd, weight) * (values - before);
        let begun = before.is_nan().select(values, moved);
        write(n - at, values.is_nan().select(before, begun), &mut averages[at..]);
    });
}

/// `a` less `b`, value by value.
pub fn difference(n: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        write(n - at, read(simd, &a[at..], 0.0) - read(simd, &b[at..], 0.0), &mut out[at..]);
    });
}

/// Whether one of the values is NaN.
pub fn any_nan(n: usize, values: &[f32]) -> bool {
    dispatch!(vector::level(), simd => {
        sixteens(n).any(#[inline(always)] |at| (read(simd, &values[at..], 0.0).is_nan() & first(simd, n - at)).any_true())
    })
}

/// Of rows of `n` values each, value by value.
pub fn sum_of_rows(n: usize, rows: &[f32], sums: &mut [f32]) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let mut sum = f32x16::splat(simd, 0.0);
        for start in (at..rows.len()).step_by(n) {
            sum += read(simd, &rows[start..], 0.0);
        }
        write(n - at, sum, &mut sums[at..]);
    });
}

/// Adds, value by value, the squares by which a record of `n` values differs from some of the `rows`; nothing where it is NaN (missing).
pub fn add_squares(
    n: usize,
    record: &[f32],
    rows: &[f32],
    some: impl Iterator<Item = usize> + Clone,
    sums: &mut [f32],
) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let (values, mut sum) = (read(simd, &record[at..], 0.0), read(simd, &sums[at..], 0.0));
        let missing = values.is_nan();
        for row in some.clone() {
            let off = missing.select(f32x16::splat(simd, 0.0), values - read(simd, &rows[row * n + at..], 0.0));
            sum += off * off;
        }
        write(n - at, sum, &mut sums[at..]);
    });
}

/// The sums of these squares, of each of the `rows`.
pub fn sums_of_squares(n: usize, record: &[f32], rows: &[f32], sums: &mut [f32]) {
    dispatch!(vector::level(), simd => for (row, to) in rows.chunks_exact(n).zip(sums) {
        let zero = f32x16::splat(simd, 0.0);
        let mut squares = zero;
        for at in sixteens(n) {
            let values = read(simd, &record[at..], 0.0);
            let missing = values.is_nan() | !first(simd, n - at);
            let off = missing.select(zero, values - read(simd, &row[at..], 0.0));
            squares += off * off;
        }
        *to = sum(squares) as f32;
    });
}

/// Of rows of `n` values each, value by value: the least, and in which row it comes first.
pub fn least_of_rows(n: usize, rows: &[f32], least: &mut [f32], which: &mut [f32]) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let (mut smallest, mut first) = (read(simd, &rows[at..], 0.0), f32x16::splat(simd, 0.0));
        for (row, start) in (at..rows.len()).step_by(n).enumerate() {
            let values = read(simd, &rows[start..], 0.0);
            let less = values.simd_lt(smallest);
            smallest = less.select(values, smallest);
            first = less.select(f32x16::splat(simd, row as f32), first);
        }
        write(n - at, smallest, &mut least[at..]);
        write(n - at, first, &mut which[at..]);
    });
}

/// `step` times what each output is off its target, 0 where that is NaN (missing). Returns the sum of the squares of what they are off.
pub fn misses(n: usize, outputs: &[f32], targets: &[f32], step: f32, misses: &mut [f32]) -> f64 {
    dispatch!(vector::level(), simd => {
        let zero = f32x16::splat(simd, 0.0);
        let mut sums = zero;
        for at in sixteens(n) {
            let target = read(simd, &targets[at..], f32::NAN);
            let off = target.is_nan().select(zero, read(simd, &outputs[at..], 0.0) - target);
            sums += off * off;
            write(n - at, f32x16::splat(simd, step) * off, &mut misses[at..]);
        }
        sum(sums)
    })
}

/// Multiplies by the slope of the hyperbolic tangent where its value is `at`.
pub fn slope_of_tanh(n: usize, deltas: &mut [f32], values: &[f32]) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let y = read(simd, &values[at..], 0.0);
        write(n - at, read(simd, &deltas[at..], 0.0) * (f32x16::splat(simd, 1.0) - y * y), &mut deltas[at..]);
    });
}

/// The same of the rectifier: nothing where its value is 0.
pub fn slope_of_relu(n: usize, deltas: &mut [f32], values: &[f32]) {
    dispatch!(vector::level(), simd => for at in sixteens(n) {
        let zero = f32x16::splat(simd, 0.0);
        let on = read(simd, &values[at..], 0.0).simd_gt(zero);
        write(n - at, on.select(read(simd, &deltas[at..], 0.0), zero), &mut deltas[at..]);
    });
}

/// How residuals are followed.
pub struct Follow {
    /// Rate at which the mean is followed, and weight of the newest residual in the slow average.
    pub rate: f32,
    pub weight: f32,
    /// The most standard deviations that count in either.
    pub clip: f32,
}

impl Follow {
    /// `usual` and `scale`: mean and scale of each residual on held-out records. Takes off each residual (which becomes 0 where `input` is
    /// NaN: missing) what its mean has moved by, and follows that and the slow average of what is left: from `mean` and `average` on in
    /// `state`.
    pub fn see(
        &self,
        n: usize,
        (usual, scale): (&[f32], &[f32]),
        state: &mut [f32],
        (mean, average): (usize, usize),
        residual: &mut [f32],
        input: &[f32],
    ) {
        dispatch!(vector::level(), simd => for at in sixteens(n) {
            let input = read(simd, &input[at..], 0.0);
            let (before, slow) = (read(simd, &state[mean + at..], 0.0), read(simd, &state[average + at..], 0.0));
            let (newest, usual) = (read(simd, &residual[at..], 0.0), read(simd, &usual[at..], 0.0));
            let seen = [before, slow, newest, usual];
            let [moved, followed, left] = self.of(simd, seen, read(simd, &scale[at..], 1.0), input);
            write(n - at, moved, &mut state[mean + at..]);
            write(n - at, followed, &mut state[average + at..]);
            write(n - at, left, &mut residual[at..]);
        });
    }

    #[inline(always)]
    fn of<S: Simd>(
        &self,
        simd: S,
        [mean, average, residual, usual]: [f32x16<S>; 4],
        scale: f32x16<S>,
        input: f32x16<S>,
    ) -> [f32x16<S>; 3] {
        let c = |value: f32| f32x16::splat(simd, value);
        let residual = residual - mean;
        let (missing, strange) = (input.is_nan(), residual.is_nan());
        // What overflowed on its way through the network is far, and no more than that.
        let e = ((residual - usual) / scale).min(c(self.clip)).max(c(-self.clip));
        let e = scale * strange.select(c(0.0), e);
        let moved = mean + c(self.rate) * e;
        let followed = average + c(self.weight) * (usual + e - average);
        [missing.select(mean, moved), missing.select(average, followed), missing.select(c(0.0), residual)]
    }
}

/// Of some values: the sum of how many standard deviations each is off, that of its squares, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    pub sum: f64,
    pub squares: f64,
    pub present: f64,
}

impl Errors {
    pub fn and(self, more: Self) -> Self {
        let (sum, squares) = (self.sum + more.sum, self.squares + more.squares);
        Self { sum, squares, present: self.present + more.present }
    }

    /// 0 where nothing is present.
    pub fn mean(&self) -> f64 {
        self.sum / self.present.max(1.0)
    }

    /// The same.
    pub fn root_mean_square(&self) -> f64 {
        (self.squares / self.present.max(1.0)).sqrt()
    }
}

/// How far the residuals of one record lie from `mean` in units of `scale`, or `own` times as far as their inputs do from 0, if that is more; grown
/// beyond `far` with its logarithm only, where `input` is not NaN (missing). `parts` get what each square has above 1, or `least` of the square if that
/// is more.
pub fn errors(
    n: usize,
    residual: &[f32],
    input: &[f32],
    (mean, scale, own): (&[f32], &[f32], &[f32]),
    (far, least): (f32, f32),
    parts: &mut [f32],
) -> Errors {
    dispatch!(vector::level(), simd => {
        let (zero, one) = (f32x16::splat(simd, 0.0), f32x16::splat(simd, 1.0));
        let (mut sums, mut squares, mut present) = (zero, zero, zero);
        for at in sixteens(n) {
            let input = read(simd, &input[at..], 0.0);
            let missing = input.is_nan() | !first(simd, n - at);
            let off = read(simd, &residual[at..], 0.0) - read(simd, &mean[at..], 0.0);
            let z = off / read(simd, &scale[at..], 1.0);
            // What is no number overflowed: it is far.
            let most = f32x16::splat(simd, f32::MAX);
            let z = z.is_nan().select(most, z.abs()).min(most);
            let itself = missing.select(zero, input.abs()).min(most);
            let z = z.max(itself * read(simd, &own[at..], 0.0));
            let z = soft_clipped(simd, z, far);
            let square = z * z;
            let part = (square - one).max(f32x16::splat(simd, least) * square);
            write(n - at, read(simd, &parts[at..], 0.0) + missing.select(zero, part), &mut parts[at..]);
            sums += missing.select(zero, z);
            squares += missing.select(zero, square);
            present += missing.select(zero, one);
        }
        Errors { sum: sum(sums), squares: sum(squares), present: sum(present) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, relative: f64) -> bool {
        (a - b).abs() <= relative * b.abs().max(f64::from(f32::MIN_POSITIVE))
    }

    #[test]
    fn what_is_clipped_softly_is_as_the_library_says() {
        vector::on_each(|| {
            for limit in [0.5f32, 8.0, 32.0] {
                let mut values: Vec<f32> = (-3000..3000).map(|i| (i as f32 * 0.01).powi(5)).collect();
                values.extend([1e-30, -1e-30, 1e6, -1e6, 1e15, 0.0]);
                let expect: Vec<f64> =
                    values.iter().map(|v| f64::from(limit) * (f64::from(*v) / f64::from(limit)).asinh()).collect();
                let before = values.clone();
                soft_clip(values.len(), &mut values, limit);
                for ((got, expect), v) in values.iter().zip(expect).zip(before) {
                    assert!(close(f64::from(*got), expect, 4e-7), "{v} at {limit}: {got} {expect}");
                }
            }
            let mut odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0];
            soft_clip(5, &mut odd, 8.0);
            assert!(
                odd[0].is_nan() && odd[1] == odd[3] && odd[1] == -odd[2] && (300.0..400.0).contains(&odd[1]),
                "{odd:?}"
            );
            assert!(odd[4] == 0.0 && odd[4].is_sign_negative());
        });
    }

    /// Every length from none to three times sixteen, with any number of strange values after the last one, against one value at a time.
    #[test]
    fn a_record_of_any_length_is_as_one_value_at_a_time() {
        vector::on_each(|| {
            for (n, more) in (0..48usize).flat_map(|n| [0, 1, 15, 16, 20].map(|more| (n, more))) {
                let followed_by = |values: &[f32]| {
                    let others = [f32::NAN, 1e9, f32::INFINITY, -7.0].into_iter().cycle().take(more);
                    values.iter().copied().chain(others).collect::<Vec<f32>>()
                };
                let at = |shift: usize| move |i: usize| ((i * 37 + shift * 11) % 23) as f32 - 11.0;
                let row = |shift: usize| (0..n).map(at(shift)).collect::<Vec<f32>>();
                let (residual, mean) = (row(1), row(2));
                let scale: Vec<f32> = row(3).iter().map(|v| v.abs() + 0.5).collect();
                let input: Vec<f32> = (0..n).map(|i| if i % 5 == 3 { f32::NAN } else { at(6)(i) }).collect();
                let own: Vec<f32> = (0..n).map(|i| [0.0, 0.25, 1.0][i % 3]).collect();

                let [all, all_means, all_scales, all_inputs] =
                    [&residual, &mean, &scale, &input].map(|v| followed_by(v));
                let numbers = (&all_means[..], &all_scales[..]);
                assert!(close(squares(n, &all), residual.iter().map(|v| f64::from(v * v)).sum(), 1e-6));

                let mut standard = all.clone();
                standardise(n, &mut standard, numbers, 5.0);
                assert!(standard[n..].iter().zip(&all[n..]).all(|(a, b)| a.to_bits() == b.to_bits()));
                assert_eq!(any_nan(n, &all_inputs), n > 3);
                let expect = residual.iter().zip(&mean).zip(&scale).map(|((r, m), s)| ((r - m) / s).clamp(-5.0, 5.0));
                assert!(standard.iter().zip(expect).all(|(a, b)| *a == b), "{n}");

                let mut parts = followed_by(&vec![1.0; n]);
                let with_own = (numbers.0, numbers.1, &followed_by(&own)[..]);
                let got = errors(n, &all, &all_inputs, with_own, (32.0, 1e-4), &mut parts);
                let mut expect = Errors::default();
                for i in (0..n).filter(|i| !input[*i].is_nan()) {
                    let z = ((residual[i] - mean[i]) / scale[i]).abs();
                    let z = 32.0 * (z.max(own[i] * input[i].abs()) / 32.0).asinh();
                    expect = expect.and(Errors { sum: f64::from(z), squares: f64::from(z * z), present: 1.0 });
                    assert!(
                        close(f64::from(parts[i]), f64::from(1.0 + (z * z - 1.0).max(1e-4 * z * z)), 1e-5),
                        "{n} {i}"
                    );
                }
                let as_expected = close(got.sum, expect.sum, 1e-5) && close(got.squares, expect.squares, 1e-5);
                assert!(got.present == expect.present && as_expected, "{n}: {got:?} {expect:?}");
                assert!(parts.iter().zip(&input).all(|(part, x)| !x.is_nan() || *part == 1.0));

                let follow = Follow { rate: 0.5, weight: 0.25, clip: 3.0 };
                let mut state = followed_by(&[row(4), row(5)].concat());
                let mut left = all.clone();
                follow.see(n, numbers, &mut state, (0, n), &mut left, &all_inputs);
                let (moved, average) = state.split_at(n);
                for i in 0..n {
                    let (before, slow) = (at(4)(i), at(5)(i));
                    let r = residual[i] - before;
                    let e = ((r - mean[i]) / scale[i]).clamp(-3.0, 3.0);
                    let expect = if input[i].is_nan() {
                        [before, slow, 0.0]
                    } else {
                        [before + 0.5 * (scale[i] * e), slow + 0.25 * (mean[i] + scale[i] * e - slow), r]
                    };
                    assert_eq!([moved[i], average[i], left[i]], expect, "{n} {i}");
                }
            }
        });
    }

    #[test]
    fn what_is_no_number_is_far_and_no_more() {
        vector::on_each(|| {
            let (mean, scale) = ([0.0; 3], [1.0; 3]);
            let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            let mut standard = values;
            standardise(3, &mut standard, (&mean, &scale), 1e9);
            assert_eq!(standard, [1e9, 1e9, -1e9]);
            let mut parts = [0.0; 3];
            for (own, input) in [([0.0; 3], [0.0; 3]), ([0.25; 3], [f32::INFINITY, -1.0, 0.0]), ([0.0; 3], values)] {
                let errors = errors(3, &values, &input, (&mean, &scale, &own), (32.0, 1e-4), &mut parts);
                let sound = errors.sum.is_finite()
                    && errors.sum > 2e3
                    && errors.squares.is_finite()
                    && parts.iter().all(|part| part.is_finite());
                assert!(sound, "{errors:?} {parts:?}");
            }
            let follow = Follow { rate: 0.5, weight: 0.25, clip: 3.0 };
            let (mut state, mut left) = ([0.0; 6], values);
            follow.see(3, (&mean, &scale), &mut state, (0, 3), &mut left, &[0.0; 3]);
            assert_eq!(state, [0.0, 1.5, -1.5, 0.0, 0.75, -0.75]);
        });
    }
}
