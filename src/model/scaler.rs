//! Brings every feature to mean 0 and standard deviation 1 of the training records.

use crate::record::Table;

/// A feature with at most this many distinct training values is near-discrete ...
const DISCRETE_VALUES: usize = 10;
/// ... and its scale is at least this share of its range: a switch that hardly ever moved must not make each move an
/// anomaly of a hundred standard deviations.
const DISCRETE_FLOOR: f64 = 0.5;
/// Below this share of the feature's size a standard deviation is rounding: the feature is constant.
const CONSTANT: f64 = 1e-9;
/// Training values beyond this count as missing: no sensor means them (the widest known distance is some 1e27 m), but a
/// largest float stands for "no value" here and there.
const TRAINING_MAX: f64 = 1e30;
/// A feature that is missing from most training records, with fewer values than this, is unknown: they say nothing of how it varies.
const KNOWN_MIN: usize = 30;
/// Scaled values are cut here: far beyond any reading, far within f32 even after squares and sums.
pub const SCALED_MAX: f32 = 1e6;

/// Mean and scale of each feature (f64, in the feature's unit), scales positive. The mean of one that is unknown is NaN: all its values count as missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    pub mean: Vec<f64>,
    pub scale: Vec<f64>,
}

impl Scaler {
    /// Over all rows of the table; missing values are left out.
    pub fn fit(table: &Table) -> Self {
        Self::of(table, &(0..table.rows()).collect::<Vec<_>>())
    }

    /// The same over some of the rows.
    pub fn of(table: &Table, rows: &[usize]) -> Self {
        let (mean, scale) = (0..table.schema.len()).map(|j| moments(table, rows, j)).unzip();
        Self { mean, scale }
    }

    /// `values` and `out`: one value per feature. NaN (missing) stays NaN, as does what is unknown; all else is finite afterwards. `own`: means and scales of
    /// the series, in units of these; empty where it has the common ones.
    pub fn scale(&self, values: &[f64], own: &[f32], out: &mut [f32]) {
        let cut = |z: f64| (z as f32).clamp(-SCALED_MAX, SCALED_MAX);
        let scaled = out.iter_mut().zip(self.standardised(values));
        if own.is_empty() {
            scaled.for_each(|(o, z)| *o = cut(z));
            return;
        }
        let (means, scales) = own.split_at(own.len() / 2);
        for (((o, z), mean), scale) in scaled.zip(means).zip(scales) {
            *o = cut((z - f64::from(*mean)) / f64::from(*scale));
        }
    }

    /// In standard deviations from the mean.
    pub fn standardised(&self, values: &[f64]) -> impl Iterator<Item = f64> {
        values.iter().zip(&self.mean).zip(&self.scale).map(|((x, m), s)| (x - m) / s)
    }

    /// As `scale`, for a training record: what `fit` left out is missing here too.
    pub fn scale_training(&self, values: &[f64], own: &[f32], out: &mut [f32]) {
        self.scale(values, own, out);
        values.iter().zip(out).filter(|(x, _)| !is_trained_on(**x)).for_each(|(_, o)| *o = f32::NAN);
    }

    /// Means and scales for those who have no way to leave a feature out: one that is unknown is 0 to them, whatever its value.
    pub fn complete(&self) -> Self {
        const EVERYTHING: f64 = 1e150;
        let numbers = self.mean.iter().zip(&self.scale);
        let (mean, scale) = numbers.map(|(m, s)| if m.is_nan() { (0.0, EVERYTHING) } else { (*m, *s) }).unzip();
        Self { mean, scale }
    }

    /// Whether nothing is known of feature `j`.
    pub fn is_unknown(&self, j: usize) -> bool {
        self.mean[j].is_nan()
    }

    /// A scaled value of feature `j` in its own unit again; NaN of one that is unknown.
    pub fn unscale(&self, j: usize, own: &[f32], scaled: f32) -> f64 {
        let mut z = f64::from(scaled);
        if !own.is_empty() {
            z = f64::from(own[j]) + f64::from(own[self.mean.len() + j]) * z;
        }
        self.mean[j] + self.scale[j] * z
    }
}

/// Whether a value counts in training.
pub(super) fn is_trained_on(value: f64) -> bool {
    value.abs() <= TRAINING_MAX
}

/// Whether a deviation (or a range) of values up to `size` is more than rounding.
pub(super) fn moves(deviation: f64, size: f64) -> bool {
    deviation > CONSTANT * size && deviation > f64::MIN_POSITIVE
}

fn moments(table: &Table, rows: &[usize], j: usize) -> (f64, f64) {
    let present = || rows.iter().map(|&i| table.row(i)[j]).filter(|v| is_trained_on(*v));
    let count = present().count();
    if count < KNOWN_MIN && 2 * count < rows.len() {
        return (f64::NAN, 1.0);
    }
    let n = count.max(1) as f64;
    let mean = present().sum::<f64>() / n;
    let sd = (present().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let size = present().map(f64::abs).fold(0.0, f64::max);
    let sd = sd.max(discrete_floor(present()));
    // A constant sensor has no scale of its own; its size is the only hint at its unit.
    if moves(sd, size) { (mean, sd) } else { (mean, size.max(1.0)) }
}

/// What the scale of a near-discrete feature is at least; 0 of any other.
pub(super) fn discrete_floor(values: impl Iterator<Item = f64>) -> f64 {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut distinct: Vec<f64> = Vec::new();
    for v in values {
        (low, high) = (low.min(v), high.max(v));
        if !distinct.contains(&v) {
            distinct.push(v);
            if distinct.len() > DISCRETE_VALUES {
                return 0.0;
            }
        }
    }
    if distinct.is_empty() { 0.0 } else { DISCRETE_FLOOR * (high - low) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    #[track_caller]
    fn check(values: &[f64], mean: f64, scale: f64) {
        let fitted = Scaler::fit(&table(1, values.to_vec()));
        assert!((fitted.mean[0] - mean).abs() <= 1e-9 * mean.abs().max(1.0), "mean {}", fitted.mean[0]);
        assert!((fitted.scale[0] - scale).abs() <= 1e-9 * scale, "scale {}", fitted.scale[0]);
    }

    #[test]
    fn what_is_mostly_missing_with_few_values_is_unknown() {
        let fitted = |present: usize, all: usize| {
            let values = (0..all).map(|i| if i < present { i as f64 } else { f64::NAN });
            Scaler::fit(&table(1, values.collect()))
        };
        for (present, all, unknown) in
            [(0, 1, true), (0, 400, true), (29, 59, true), (29, 58, false), (30, 9_000, false), (3, 5, false)]
        {
            assert_eq!(fitted(present, all).is_unknown(0), unknown, "{present} of {all}");
        }
        let mut out = [0.0];
        fitted(3, 400).scale(&[1.0], &[], &mut out);
        assert!(out[0].is_nan(), "{out:?}");
        fitted(3, 400).complete().scale(&[1e30], &[], &mut out);
        assert_eq!((out[0], fitted(30, 40).complete()), (0.0, fitted(30, 40)));
    }

    #[test]
    fn scales_have_floors_for_near_discrete_and_constant_features() {
        let many: Vec<f64> = (0..11).map(f64::from).collect();
        check(&many, 5.0, 10f64.sqrt());
        check(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0], 0.8, 4.0);
        check(&[7.0; 5], 7.0, 7.0);
        check(&[0.1; 30], 0.1, 1.0);
        check(&[1e9 + 1e-3; 30], 1e9 + 1e-3, 1e9 + 1e-3);
        check(&[0.0; 5], 0.0, 1.0);
    }

    #[test]
    fn missing_and_absurd_training_values_are_left_out() {
        check(&[f64::NAN, 1.0, 3.0, f64::NAN], 2.0, 1.0);
        check(&[1.0, 3.0, f64::from(f32::MAX), -1e300], 2.0, 1.0);
    }

    #[test]
    fn what_is_not_trained_on_is_missing_in_training_and_far_off_in_service() {
        let (scaler, values) =
            (Scaler { mean: vec![1.0; 3], scale: vec![2.0; 3] }, [f64::from(f32::MAX), 5.0, f64::NAN]);
        let mut out = [0.0f32; 3];
        scaler.scale_training(&values, &[], &mut out);
        assert!(out[0].is_nan() && out[1] == 2.0 && out[2].is_nan(), "{out:?}");
        scaler.scale(&values, &[], &mut out);
        assert_eq!(out[..2], [SCALED_MAX, 2.0]);
    }

    #[test]
    fn scaled_values_are_finite_or_missing() {
        let scaler = Scaler { mean: vec![0.0; 4], scale: vec![1e-3; 4] };
        let mut out = [0.0f32; 4];
        scaler.scale(&[1e300, -f64::MAX, f64::NAN, 0.002], &[], &mut out);
        assert_eq!(out[0], SCALED_MAX);
        assert_eq!(out[1], -SCALED_MAX);
        assert!(out[2].is_nan());
        assert_eq!(out[3], 2.0);
    }
}
