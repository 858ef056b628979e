//! What the training records were like, sensor by sensor, so that other data can be told from them: the two-sample test of Kolmogorov and
//! Smirnov, at the quantiles of the training records.
//!
//! Records that follow one another are alike, so that a thousand of them say less than a thousand. How much less is measured on the
//! training records themselves: by how far their own blocks lie from all of them.

use super::series::SeriesRows;

/// Quantiles of a sensor that are kept, the least and the largest value among them.
pub const EDGES: usize = 33;
/// A missing value; then what is below, at and above each quantile.
pub const BINS: usize = 2 * EDGES + 2;
/// Blocks of training records that are compared with all of them; of fewer records than this nothing is known of a block.
const BLOCKS: usize = 20;
const BLOCK_MIN: usize = 10;
/// Mean square of Kolmogorov's distribution, pi^2 / 12.
const MEAN_SQUARE: f64 = std::f64::consts::PI * std::f64::consts::PI / 12.0;
/// Chance, over all sensors together, that data like those of training are taken for other ones.
const CHANCE: f64 = 1e-3;
/// What is nearer is no other data, however certain it is: nine of ten records lie as they did.
const DISTANCE_MIN: f64 = 0.1;

/// Of one sensor of the training records.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    /// Quantiles of the scaled values, ascending, [`EDGES`] of them.
    pub edges: Vec<f32>,
    /// Share of the records up to each bin, [`BINS`] of them; the last one is 1.
    pub shares: Vec<f32>,
    /// How many consecutive records say as much as one that depends on no other; at least 1.
    pub alike: f64,
}

/// Of all sensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub sensors: Vec<Sensor>,
    /// Training records that it rests on.
    pub records: usize,
}

/// Other records, counted by where they lie among the training records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Sensors x [`BINS`].
    counts: Vec<u32>,
    records: u64,
}

/// How the values of a sensor differ from those it was trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Number of the sensor.
    pub sensor: usize,
    /// Kolmogorov and Smirnov's: the largest difference between shares, 0 to 1.
    pub distance: f64,
    /// Chance of as large a one among data like those of training.
    pub p: f64,
    /// Whether these are other data.
    pub differs: bool,
    /// Where the difference is largest. None: in how many records the sensor is missing.
    pub at: Option<Edge>,
    /// Of the records, and of the training records, the share up to there.
    pub share: f64,
    pub trained: f64,
}

/// A scaled value, and whether what lies exactly there counts as up to it, or only what is below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    pub value: f32,
    pub included: bool,
}

/// Of missing values 0; then, of each quantile, what is below it and at it; then what is above all.
fn bin(edges: &[f32], value: f32) -> usize {
    if value.is_nan() {
        return 0;
    }
    let below = edges.partition_point(|edge| *edge < value);
    1 + 2 * below + usize::from(edges.get(below) == Some(&value))
}

/// Largest difference between two distributions over the same bins, as shares up to each, and where.
fn distance(mut shares: impl Iterator<Item = f64>, trained: &[f32]) -> (f64, usize) {
    let mut largest = (0.0, 0);
    for (at, trained) in trained.iter().enumerate() {
        let off = (shares.next().unwrap_or(1.0) - f64::from(*trained)).abs();
        if off > largest.0 {
            largest = (off, at);
        }
    }
    largest
}

/// Shares up to each bin.
fn shares(counts: &[u32]) -> impl Iterator<Item = f64> {
    let all = counts.iter().map(|n| u64::from(*n)).sum::<u64>().max(1) as f64;
    let mut sum = 0;
    counts.iter().map(move |n| {
        sum += u64::from(*n);
        sum as f64 / all
    })
}

/// Chance of a distance at least as large between samples of `n` and `m` independent values of one distribution (Stephens 1970).
fn chance(distance: f64, n: f64, m: f64) -> f64 {
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * distance;
    if lambda < 0.2 {
        return 1.0;
    }
    // Alternating, and soon nothing.
    let term = |k: i32| (-2.0 * f64::from(k * k) * lambda * lambda).exp() * if k % 2 == 1 { 2.0 } else { -2.0 };
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

impl Sensor {
    /// `values`: of the training records, those of a series one after the other; NaN = missing.
    fn of(values: &[f32]) -> Self {
        let mut present: Vec<f32> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        present.sort_by(f32::total_cmp);
        let last = present.len().saturating_sub(1);
        let edges: Vec<f32> = (0..EDGES).map(|i| present.get(i * last / (EDGES - 1)).copied().unwrap_or(0.0)).collect();
        let counts = |values: &[f32]| {
            let mut counts = [0; BINS];
            values.iter().for_each(|v| counts[bin(&edges, *v)] += 1);
            counts
        };
        let shares: Vec<f32> = shares(&counts(values)).map(|share| share as f32).collect();
        let length = values.len().div_ceil(BLOCKS).max(BLOCK_MIN);
        let blocks = values.chunks(length).filter(|block| block.len() == length);
        let (mut square, mut count) = (0.0, 0.0);
        for block in blocks {
            square += distance(self::shares(&counts(block)), &shares).0.powi(2);
            count += 1.0;
        }
        // Of independent records, the mean square would be MEAN_SQUARE (1 - length / all) / length: a block is a part of them all.
        let apart = 1.0 - length as f64 / values.len().max(1) as f64;
        let alike =
            if apart > 0.0 { length as f64 * square / f64::max(count, 1.0) / (MEAN_SQUARE * apart) } else { 1.0 };
        let alike = alike.clamp(1.0, length as f64);
        Self { edges, shares, alike }
    }

    /// The least and the largest of the training records.
    pub fn range(&self) -> (f32, f32) {
        (self.edges[0], self.edges[EDGES - 1])
    }

    /// In which share of the training records it is missing.
    pub fn missing(&self) -> f64 {
        f64::from(self.shares[0])
    }
}

impl Reference {
    pub fn of(rows: &SeriesRows) -> Self {
        let kept: Vec<usize> = (0..rows.rows()).filter(|row| !rows.is_left_out(*row)).collect();
        let sensor = |j: usize| {
            let values: Vec<f32> = kept.iter().map(|row| rows.window(*row, 1)[j]).collect();
            Sensor::of(&values)
        };
        Self { sensors: (0..rows.features).map(sensor).collect(), records: kept.len() }
    }

    /// How each sensor differs, the farthest first. Nothing where nothing was seen.
    pub fn drifts(&self, seen: &Seen) -> Vec<Drift> {
        if seen.records == 0 {
            return Vec::new();
        }
        let sensors = self.sensors.iter().zip(seen.counts.chunks_exact(BINS)).enumerate();
        let drift = |(sensor, (trained, counts)): (usize, (&Sensor, &[u32]))| {
            let (distance, bin) = distance(shares(counts), &trained.shares);
            let [n, m] = [seen.records, self.records as u64].map(|n| (n as f64 / trained.alike).max(1.0));
            let p = chance(distance, n, m);
            let differs = distance >= DISTANCE_MIN && p * (self.sensors.len() as f64) < CHANCE;
            // Below the first quantile, at it, between it and the next, and so on.
            let edge = |bin: usize| Edge { value: trained.edges[(bin / 2).min(EDGES - 1)], included: bin % 2 == 1 };
            let at = bin.checked_sub(1).map(edge);
            let share = shares(counts).nth(bin).unwrap_or(1.0);
            Drift { sensor, distance, p, differs, at, share, trained: f64::from(trained.shares[bin]) }
        };
        let mut drifts: Vec<Drift> = sensors.map(drift).collect();
        drifts.sort_by(|a, b| b.distance.total_cmp(&a.distance));
        drifts
    }
}

impl Seen {
    /// Takes a record: scaled, one value per sensor, NaN = missing.
    pub fn take(&mut self, reference: &Reference, scaled: &[f32]) {
        self.counts.resize(reference.sensors.len() * BINS, 0);
        let places = self.counts.chunks_exact_mut(BINS).zip(&reference.sensors).zip(scaled);
        places.for_each(|((counts, sensor), value)| counts[bin(&sensor.edges, *value)] += 1);
        self.records += 1;
    }

    pub fn records(&self) -> u64 {
        self.records
    }

    /// Forgets half of what was seen, so that the rest weighs less than what comes.
    pub fn fade(&mut self) {
        self.counts.iter_mut().for_each(|n| *n /= 2);
        self.records /= 2;
    }

    /// Takes in what others have seen.
    pub fn join(&mut self, other: &Seen) {
        self.counts.resize(other.counts.len().max(self.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(to, n)| *to = to.saturating_add(*n));
        self.records += other.records;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;

    fn reference(columns: &[&[f32]]) -> Reference {
        Reference { sensors: columns.iter().map(|c| Sensor::of(c)).collect(), records: columns[0].len() }
    }

    fn seen(reference: &Reference, columns: &[&[f32]]) -> Seen {
        let mut seen = Seen::default();
        for row in 0..columns[0].len() {
            seen.take(reference, &columns.iter().map(|c| c[row]).collect::<Vec<_>>());
        }
        seen
    }

    /// Noise that follows itself.
    fn slow(seed: u64, n: usize, keeps: f64) -> Vec<f32> {
        let mut before = 0.0;
        let next = |v| {
            before = keeps * before + (1.0 - keeps * keeps).sqrt() * v;
            before as f32
        };
        noise(seed, n).into_iter().map(next).collect()
    }

    #[test]
    fn the_chance_is_kolmogorovs() {
        // Tables of the limiting distribution: Q(1.36) = .049, Q(1.63) = .010.
        let of = |lambda: f64| chance(lambda / 1e4, 2e8, 2e8);
        assert!((of(1.36) - 0.049).abs() < 1e-3 && (of(1.63) - 0.0099).abs() < 5e-4, "{} {}", of(1.36), of(1.63));
        // Its mean square: twice the integral of lambda Q(lambda).
        let square: f64 = (0..40_000).map(|i| f64::from(i) / 1e4).map(|lambda| 2.0 * lambda * of(lambda) / 1e4).sum();
        assert!((square - MEAN_SQUARE).abs() < 1e-3, "{square}");
    }

    #[test]
    fn data_of_the_same_kind_are_the_same_and_others_are_not() {
        let mut taken_for_others = 0;
        for seed in 0..200 {
            // Half of them hardly move between two records.
            let keeps = if seed % 2 == 0 { 0.0 } else { 0.98 };
            let trained = slow(seed, 20_000, keeps);
            let reference = reference(&[&trained]);
            let alike = reference.sensors[0].alike;
            assert!(if keeps == 0.0 { alike < 4.0 } else { (10.0..100.0).contains(&alike) }, "{seed}: {alike}");
            let new = slow(seed + 1_000, 6_000, keeps);
            let drift = |values: &[f32]| reference.drifts(&seen(&reference, &[values]))[0];
            taken_for_others += usize::from(drift(&new).differs);
            let [shifted, wider, gone] = [
                new.iter().map(|v| v + 1.5).collect::<Vec<_>>(),
                new.iter().map(|v| 4.0 * v).collect(),
                new.iter().enumerate().map(|(i, v)| if i % 3 > 0 { f32::NAN } else { *v }).collect(),
            ];
            assert!(
                drift(&shifted).differs && drift(&shifted).share < drift(&shifted).trained,
                "{:?}",
                drift(&shifted)
            );
            assert!(drift(&wider).differs, "{:?}", drift(&wider));
            assert!(drift(&gone).differs, "{:?}", drift(&gone));
        }
        assert!(taken_for_others <= 4, "{taken_for_others} of 200");
    }

    #[test]
    fn a_sensor_that_stood_still_and_a_switch_are_compared_by_their_values() {
        let (still, switch) = (vec![0.0; 1_000], (0..1_000).map(|i| (i % 2) as f32).collect::<Vec<_>>());
        let reference = reference(&[&still, &switch]);
        let differs = |columns: [&[f32]; 2]| -> Vec<bool> {
            let mut drifts = reference.drifts(&seen(&reference, &columns));
            assert!(drifts.is_sorted_by(|a, b| a.distance >= b.distance));
            drifts.sort_by_key(|drift| drift.sensor);
            drifts.iter().map(|drift| drift.differs).collect()
        };
        assert_eq!(differs([&still[..500], &switch[..500]]), [false, false]);
        assert_eq!(differs([&[1e-3; 500], &[1.0; 500]]), [true, true]);
        assert_eq!(differs([&[-1e-3; 500], &[0.0; 500]]), [true, true]);
        assert_eq!(differs([&[f32::NAN; 500], &switch[..500]]), [true, false]);
        let drift = |value: f32| reference.drifts(&seen(&reference, &[&[value; 500], &switch[..500]]))[0];
        for (value, included, share, trained) in [(1e-3, true, 0.0, 1.0), (-1e-3, false, 1.0, 0.0)] {
            let drift = drift(value);
            assert_eq!((drift.at, drift.share, drift.trained), (Some(Edge { value: 0.0, included }), share, trained));
        }
        // Wherever quantiles coincide, as those of a switch do.
        let drift = reference.drifts(&seen(&reference, &[&still[..500], &[1.0; 500]]))[0];
        assert_eq!((drift.at, drift.share), (Some(Edge { value: 0.0, included: true }), 0.0));
        let gone = reference.drifts(&seen(&reference, &[&[f32::NAN; 500], &switch[..500]]))[0];
        assert_eq!((gone.at, gone.share, gone.trained), (None, 1.0, 0.0));
    }

    #[test]
    fn of_few_records_nothing_is_said() {
        let reference = reference(&[&slow(1, 20_000, 0.0)]);
        assert!(!reference.drifts(&seen(&reference, &[&[9.0; 3]]))[0].differs);
        assert!(reference.drifts(&seen(&reference, &[&[9.0; 40]]))[0].differs);
        assert_eq!(reference.drifts(&Seen::default()), []);
    }

    #[test]
    fn what_was_seen_fades_and_is_joined() {
        let values = slow(1, 4_000, 0.0);
        let reference = reference(&[&values]);
        let (mut one, other) = (seen(&reference, &[&values[..1_000]]), seen(&reference, &[&values[1_000..]]));
        one.join(&other);
        assert_eq!(one, seen(&reference, &[&values]));
        one.fade();
        assert_eq!(one.records(), 2_000);
        assert!(one.counts.iter().sum::<u32>().abs_diff(2_000) < BINS as u32);
    }
}
