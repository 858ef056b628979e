//! Series that differ in level and scale, such as machines of several sizes. On one common scale the differences between them would hide
//! what happens to one of them. Each then has a mean and a scale of its own: those that were trained on have them in the model, any
//! other learns them from its first records.
//!
//! What few records say is drawn towards what is usual among the series, as far as that is known to be narrow (empirical Bayes: Efron &
//! Morris 1975). All numbers are in units of the scaler.

use super::residual::moments;
use super::scaler::{SCALED_MAX, discrete_floor};
use super::series::SeriesRows;

/// Records from which a series that was not trained on learns its mean and scale; none of them is judged.
pub const LEARNING: usize = 200;
/// Consecutive records say no more than one that does not depend on others.
const BLOCK: f64 = 50.0;
/// Series that say how much series differ: so many, each of at least this many records, six that do not depend on each other. Of fewer the
/// means differ because a machine is in another part of its cycle.
const SERIES_MIN: usize = 3;
const ROWS_MIN: usize = 300;
/// A feature is scaled by series if their means differ by more than what one of them does itself (an intraclass correlation of a
/// half; variance between them, in variances within) ...
const MEANS_MIN: f64 = 1.0;
/// ... or their scales by a factor of one and a half (variance of its logarithm).
const SCALES_MIN: f64 = 0.164;
/// Below this part of the largest scale, a series' own says nothing: the sensor stands still there.
const STILL: f64 = 1e-3;
/// No scale is smaller than what is usual by more than so many standard deviations of its logarithm.
const SPREADS_MAX: f64 = 2.0;
/// No scale is smaller: f32 places a mean no better.
const SCALE_MIN: f64 = 1e-5;
/// Bytes of a model for what is known of series.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// How a feature differs between series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// The usual scale.
    pub scale: f64,
    /// Variance of the means between series, in variances within; 0: they have the common one.
    pub means: f64,
    /// Variance of the logarithms of the scales.
    pub scales: f64,
}

/// Of a series that has the common mean and scale.
const COMMON: Prior = Prior { scale: 1.0, means: 0.0, scales: 0.0 };

#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Of each feature.
    pub priors: Vec<Prior>,
    /// Names of the series that were trained on, in order.
    pub series: Vec<String>,
    /// Of each of them: means, then scales.
    pub own: Vec<f32>,
}

/// Of one feature of one series: records, mean, and standard deviation.
#[derive(Clone, Copy, Default)]
struct Moments {
    n: f64,
    mean: f64,
    sd: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f32> + Clone) -> Self {
        let (n, mean, variance) = moments(values.clone());
        let present = values.filter(|v| !v.is_nan()).map(f64::from);
        Self { n, mean, sd: variance.sqrt().max(discrete_floor(present)) }
    }
}

impl Prior {
    /// Of the moments of every series that has enough records.
    fn of(series: &[Moments]) -> Self {
        let average = |of: &mut dyn Iterator<Item = f64>| {
            let (sum, n) = of.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
            sum / f64::max(n, 1.0)
        };
        let still = STILL * series.iter().map(|m| m.sd).fold(0.0, f64::max);
        let moving: Vec<&Moments> = series.iter().filter(|m| m.sd > still).collect();
        let usual = average(&mut moving.iter().map(|m| m.sd.ln()));
        let scale = if moving.is_empty() { 1.0 } else { usual.exp().max(SCALE_MIN) };
        let scales = average(&mut moving.iter().map(|m| (m.sd.ln() - usual).powi(2)))
            - average(&mut moving.iter().map(|m| BLOCK / (2.0 * m.n)));
        let sd = |m: &Moments| if m.sd > still { m.sd.max(SCALE_MIN) } else { scale };
        let means = average(&mut series.iter().map(|m| (m.mean / sd(m)).powi(2)))
            - average(&mut series.iter().map(|m| BLOCK / m.n));
        let differs = means > MEANS_MIN || scales > SCALES_MIN;
        if differs { Self { scale, means: means.max(0.0), scales: scales.max(0.0) } } else { COMMON }
    }

    /// Mean and scale of a series, as far as its records tell.
    fn own(&self, Moments { n, mean, sd }: Moments) -> (f32, f32) {
        if *self == COMMON || n == 0.0 {
            return (0.0, self.scale as f32);
        }
        let blocks = n / BLOCK;
        let mean = mean * self.means / (self.means + 1.0 / blocks);
        let least = -SPREADS_MAX * self.scales.sqrt();
        let stands_still = sd <= STILL * self.scale;
        let log = if stands_still { 0.0 } else { (sd / self.scale).ln() * self.scales / (self.scales + 0.5 / blocks) };
        (mean as f32, (self.scale * log.max(least).exp()).max(SCALE_MIN) as f32)
    }
}

/// Floats that a series with a scale of its own is remembered by: means and scales; while they are learned, means and sums of squares; then
/// the number of values of each feature, and of records.
pub fn floats(features: usize) -> usize {
    3 * features + 1
}

impl Fleet {
    /// None if the series have enough in common. `name`: of the series that comes at a place among the rows.
    pub fn fit(rows: &SeriesRows, name: impl Fn(usize) -> String) -> Option<Self> {
        let moments: Vec<Vec<Moments>> = (0..rows.series().len())
            .map(|series| (0..rows.features).map(|j| Moments::of(rows.kept(series, j))).collect())
            .collect();
        let priors: Vec<Prior> = (0..rows.features)
            .map(|j| {
                let long: Vec<Moments> = moments.iter().map(|m| m[j]).filter(|m| m.n >= ROWS_MIN as f64).collect();
                if long.len() < SERIES_MIN { COMMON } else { Prior::of(&long) }
            })
            .collect();
        if priors.iter().all(|prior| *prior == COMMON) {
            return None;
        }
        let mut known: Vec<(String, &Vec<Moments>)> = moments.iter().enumerate().map(|(at, m)| (name(at), m)).collect();
        // Where there are too many, those with few records learn anew.
        known.sort_by_key(|(_, m)| std::cmp::Reverse(m.iter().map(|m| m.n as usize).max()));
        known.truncate(BYTES_MAX / (8 * rows.features));
        known.sort_by(|a, b| a.0.cmp(&b.0));
        known.dedup_by(|a, b| a.0 == b.0);
        let mut fleet = Self { priors, series: Vec::new(), own: Vec::new() };
        for (name, moments) in known {
            fleet.series.push(name);
            let (means, scales): (Vec<f32>, Vec<f32>) =
                fleet.priors.iter().zip(moments).map(|(prior, m)| prior.own(*m)).unzip();
            fleet.own.extend(means);
            fleet.own.extend(scales);
        }
        Some(fleet)
    }

    /// Means and scales of a series that was trained on.
    pub fn known(&self, series: &str) -> Option<&[f32]> {
        let at = self.series.binary_search_by(|known| known.as_str().cmp(series)).ok()?;
        let width = 2 * self.priors.len();
        Some(&self.own[at * width..][..width])
    }

    /// Every series that was trained on, with its means and scales.
    pub fn all(&self) -> impl Iterator<Item = (&str, [&[f32]; 2])> {
        let features = self.priors.len();
        let own = self.own.chunks_exact(2 * features).map(move |own| [&own[..features], &own[features..]]);
        self.series.iter().map(String::as_str).zip(own)
    }

    pub fn floats(&self) -> usize {
        floats(self.priors.len())
    }

    pub fn begin(&self, series: &str, memory: &mut [f32]) {
        memory.fill(0.0);
        if let Some(own) = self.known(series) {
            memory[..own.len()].copy_from_slice(own);
            memory[3 * self.priors.len()] = LEARNING as f32;
        }
    }

    /// Whether the mean and scale of a series are known. If they are not, takes a scaled record towards them (Welford 1962).
    pub fn is_known(&self, memory: &mut [f32], scaled: impl Iterator<Item = f64>) -> bool {
        let features = self.priors.len();
        let (own, rest) = memory.split_at_mut(2 * features);
        let (counts, records) = rest.split_at_mut(features);
        if records[0] >= LEARNING as f32 {
            return true;
        }
        let (means, squares) = own.split_at_mut(features);
        for (((mean, square), n), v) in means.iter_mut().zip(&mut *squares).zip(&mut *counts).zip(scaled) {
            if !v.is_nan() {
                let v = v.clamp(-f64::from(SCALED_MAX), f64::from(SCALED_MAX));
                *n += 1.0;
                let off = v - f64::from(*mean);
                *mean += (off / f64::from(*n)) as f32;
                // The mean is rounded, so that it may come out a little below 0.
                *square += (off * (v - f64::from(*mean))).max(0.0) as f32;
            }
        }
        records[0] += 1.0;
        if records[0] >= LEARNING as f32 {
            for (j, prior) in self.priors.iter().enumerate() {
                let n = f64::from(counts[j]);
                let sd = (f64::from(squares[j]).max(0.0) / n.max(1.0)).sqrt();
                (means[j], squares[j]) = prior.own(Moments { n, mean: f64::from(means[j]), sd });
            }
        }
        false
    }

    /// Whether stored numbers can be those of a series.
    pub fn is_sound(&self, memory: &[f32]) -> bool {
        let features = self.priors.len();
        let known = memory[3 * features] >= LEARNING as f32;
        memory[features..].iter().all(|v| *v >= 0.0)
            && (!known || memory[features..2 * features].iter().all(|v| *v > 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::testing::{noise, table};
    use super::*;

    /// Series of one sensor, each of `rows` records, with these levels and scales.
    fn fleet(rows: usize, levels: &[(f64, f64)]) -> Option<(Fleet, Scaler)> {
        let mut all = table(1, Vec::new());
        for (at, (level, scale)) in (0..).zip(levels) {
            all.values.extend(noise(u64::from(at), rows).iter().map(|z| level + scale * z));
            all.series.extend(vec![at; rows]);
        }
        let scaler = Scaler::fit(&all);
        Some((Fleet::fit(&SeriesRows::new(&all, &scaler), |at| format!("s{at}"))?, scaler))
    }

    fn learned(fleet: &Fleet, scaler: &Scaler, values: &[f64]) -> (f64, f64) {
        let mut memory = vec![0.0; fleet.floats()];
        fleet.begin("new", &mut memory);
        for (at, v) in values.iter().enumerate() {
            let known = fleet.is_known(&mut memory, [(v - scaler.mean[0]) / scaler.scale[0]].into_iter());
            assert_eq!(known, at >= LEARNING);
        }
        assert!(fleet.is_sound(&memory), "{memory:?}");
        (scaler.mean[0] + scaler.scale[0] * f64::from(memory[0]), scaler.scale[0] * f64::from(memory[1]))
    }

    #[test]
    fn series_that_have_enough_in_common_stay_on_the_common_scale() {
        assert_eq!(fleet(1000, &[(5.0, 1.0); 8]), None);
        assert_eq!(fleet(1000, &[(5.0, 1.0), (5.5, 1.0), (4.5, 1.1), (5.0, 0.9)]), None);
        assert_eq!(fleet(1000, &[(5.0, 1.0), (500.0, 1.0)]), None, "two say little of others");
        assert_eq!(fleet(50, &[(5.0, 1.0), (50.0, 1.0), (500.0, 1.0)]), None, "and so do a few records");
    }

    #[test]
    fn known_series_have_their_own_mean_and_scale_and_new_ones_learn_them() {
        let levels = [(10.0, 1.0), (100.0, 3.0), (1000.0, 40.0), (300.0, 10.0)];
        let (fleet, scaler) = fleet(2000, &levels).unwrap();
        for (at, (level, scale)) in levels.iter().enumerate() {
            let own = fleet.known(&format!("s{at}")).unwrap();
            let (mean, sd) =
                (scaler.mean[0] + scaler.scale[0] * f64::from(own[0]), scaler.scale[0] * f64::from(own[1]));
            assert!((mean - level).abs() < 0.3 * scale && (sd / scale).ln().abs() < 0.1, "{mean} {sd}");
        }
        let (mean, sd) =
            learned(&fleet, &scaler, &noise(9, LEARNING + 5).iter().map(|z| 50.0 + 2.0 * z).collect::<Vec<_>>());
        assert!((mean - 50.0).abs() < 2.0 && (sd / 2.0).ln().abs() < 0.3, "{mean} {sd}");
        // One that stands still, and one that has no value at all.
        let (mean, sd) = learned(&fleet, &scaler, &[70.0; LEARNING + 1]);
        assert!((mean - 70.0).abs() < 2.0 && (1.0..40.0).contains(&sd), "{mean} {sd}");
        let (mean, sd) = learned(&fleet, &scaler, &[f64::NAN; LEARNING + 1]);
        assert!((mean - scaler.mean[0]).abs() < 1e-9 && (1.0..40.0).contains(&sd), "{mean} {sd}");
    }

    #[test]
    fn few_records_are_drawn_towards_what_is_usual() {
        let prior = Prior { scale: 1.0, means: 4.0, scales: 0.25 };
        let own = |n| prior.own(Moments { n, mean: 2.0, sd: 4.0 });
        let (few, many) = (own(10.0), own(1e6));
        assert!(few.0 < many.0 && few.1 < many.1 && few.1 > 1.0, "{few:?} {many:?}");
        assert!((many.0 - 2.0).abs() < 1e-3 && (many.1 - 4.0).abs() < 1e-2, "{many:?}");
        assert_eq!(COMMON.own(Moments { n: 1e6, mean: 2.0, sd: 4.0 }), (0.0, 1.0), "bit for bit the common scale");
    }
}
