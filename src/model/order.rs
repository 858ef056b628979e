//! Whether the order of the training records means something. Smoothing, windows and a level that is followed make no sense otherwise.
//!
//! Each feature is asked in its series: by the autocorrelation of neighbouring values; by that of their ranks, which a few huge values do not
//! hide (Bartels 1982); and by how far the means of runs of ranks spread, in which shows what wanders slowly under much noise (the
//! variance ratio of Lo & MacKinlay 1988, of ranks: Wright 2000).

use super::series::SeriesRows;

/// A series says something about its own order from this length on.
const ROWS_MIN: usize = 30;
/// Autocorrelation from which rows count as ordered in time, beyond ...
const FOLLOWING_MIN: f64 = 0.1;
/// ... this many standard errors of it (1 / sqrt(n) where there is none).
const ERRORS: f64 = 4.0;
/// Ranks of a run, and how much more than those of chance their means must vary, beyond as many standard errors.
const RUN: usize = 20;
const WANDERING_MIN: f64 = 1.5;

/// Whether some feature follows (or dodges) its own previous value in its series, or wanders.
pub fn ordered(rows: &SeriesRows) -> bool {
    (0..rows.features).any(|feature| {
        let (mut values, mut ranks) = (Sums::default(), Sums::default());
        for range in rows.series().iter().filter(|range| range.len() >= ROWS_MIN) {
            let of: Vec<f64> = range.clone().map(|row| f64::from(rows.window(row, 1)[feature])).collect();
            values.take(&centred(&of));
            ranks.take(&ranked(&of));
        }
        values.follow() || ranks.follow() || ranks.wander()
    })
}

/// Of the series of a feature.
#[derive(Default)]
struct Sums {
    /// Second and fourth powers of what is present.
    squares: f64,
    fourths: f64,
    present: f64,
    /// Products of neighbours, and how many there are.
    products: f64,
    pairs: f64,
    /// Squared sums of runs, and how many there are.
    sums: f64,
    runs: f64,
}

impl Sums {
    /// Numbers around the mean of their series; NaN = missing.
    fn take(&mut self, numbers: &[f64]) {
        let present = |numbers: &[f64]| -> Vec<f64> { numbers.iter().copied().filter(|v| !v.is_nan()).collect() };
        for number in present(numbers) {
            self.squares += number.powi(2);
            self.fourths += number.powi(4);
            self.present += 1.0;
        }
        for product in numbers.windows(2).map(|pair| pair[0] * pair[1]).filter(|product| !product.is_nan()) {
            self.products += product;
            self.pairs += 1.0;
        }
        // What is missing counts as the mean, so that gaps make nothing wander.
        for run in numbers.chunks_exact(RUN) {
            self.sums += present(run).iter().sum::<f64>().powi(2);
            self.runs += 1.0;
        }
    }

    /// A constant differs from its mean by rounding only.
    fn is_constant(&self) -> bool {
        self.squares <= 1e-9 * self.present
    }

    fn follow(&self) -> bool {
        let autocorrelation = self.products / self.squares;
        !self.is_constant() && autocorrelation.abs() - ERRORS / self.pairs.sqrt() > FOLLOWING_MIN
    }

    fn wander(&self) -> bool {
        let variance = self.squares / self.present;
        let ratio = self.sums / self.runs / (RUN as f64 * variance);
        let excess = self.fourths / self.present / (variance * variance) - 3.0;
        let error = ((2.0 + excess / RUN as f64).max(0.0) / self.runs).sqrt();
        !self.is_constant() && ratio - ERRORS * error > WANDERING_MIN
    }
}

fn centred(values: &[f64]) -> Vec<f64> {
    let present = values.iter().filter(|v| !v.is_nan());
    let mean = present.clone().sum::<f64>() / present.count().max(1) as f64;
    values.iter().map(|v| v - mean).collect()
}

/// From -1/2 to 1/2, equal values in the middle of theirs; NaN stays.
fn ranked(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&at| !values[at].is_nan()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let (mut ranks, mut below) = (vec![f64::NAN; values.len()], 0);
    let middle = (order.len() as f64 - 1.0) / 2.0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = (below as f64 + (equal.len() as f64 - 1.0) / 2.0 - middle) / order.len() as f64;
        equal.iter().for_each(|&at| ranks[at] = rank);
        below += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::super::scaler::Scaler;
    use super::super::testing::{noise, table};
    use super::*;
    use crate::record::Table;

    fn found(table: &Table) -> bool {
        ordered(&SeriesRows::new(table, &Scaler::fit(table)))
    }

    fn of(values: Vec<f64>) -> bool {
        found(&table(1, values))
    }

    #[test]
    fn order_is_found_where_there_is_one() {
        let random = noise(1, 2000);
        assert!(!of(random.clone()));
        let mut walk = 0.0;
        assert!(of(random.iter().map(|e| (walk = 0.8 * walk + e, walk).1).collect()));
        assert!(of((0..200).map(|i| f64::from(i % 2)).collect()));
        assert!(!of(vec![0.1; 200]));
    }

    #[test]
    fn a_few_huge_values_hide_no_order() {
        let (random, mut walk) = (noise(2, 1000), 0.0);
        let mut values: Vec<f64> = random.iter().map(|e| (walk = 0.5 * walk + e, walk).1).collect();
        values.iter_mut().step_by(150).for_each(|v| *v = 1e4);
        // The values themselves say nothing.
        let mut sums = Sums::default();
        sums.take(&centred(&values));
        assert!(!sums.follow() && of(values));
        // Nor do they make one.
        let mut none = noise(3, 1000);
        none.iter_mut().step_by(150).for_each(|v| *v = 1e4);
        assert!(!of(none));
    }

    #[test]
    fn what_wanders_slowly_under_noise_has_an_order() {
        let wave = |size: f64| -> Vec<f64> {
            noise(4, 1000).iter().enumerate().map(|(i, e)| e + size * (i as f64 / 45.0).sin()).collect()
        };
        assert!(of(wave(0.55)) && !of(wave(0.1)));
        // Of neighbours alone it is not seen.
        let mut sums = Sums::default();
        sums.take(&centred(&wave(0.55)));
        assert!(!sums.follow());
    }

    #[test]
    fn chance_makes_no_order() {
        let tables = (10..210).filter(|&seed| found(&table(10, noise(seed, 10 * 200)))).count();
        assert_eq!(tables, 0, "of 200");
        // Also not of values most of which are the same.
        let rare = |seed| noise(seed, 2_000).into_iter().map(|e| f64::from(e > 1.5) * e).collect();
        assert_eq!((300..400).filter(|&seed| found(&table(4, rare(seed)))).count(), 0, "of 100");
    }

    #[test]
    fn different_levels_of_series_are_no_order() {
        let random = noise(2, 3000);
        let values = random.iter().enumerate().map(|(i, e)| e + 100.0 * (i % 10) as f64).collect();
        let mut levels = table(1, values);
        levels.series = (0..3000).map(|i| i % 10).collect();
        assert!(!found(&levels));
        // Two records each: an autocorrelation of -.5 that means nothing.
        let mut pairs = table(1, noise(3, 400));
        pairs.series = (0..400).map(|i| i / 2).collect();
        assert!(!found(&pairs));
    }

    #[test]
    fn gaps_are_no_order() {
        let mut values = noise(5, 2000);
        values.iter_mut().enumerate().filter(|(i, _)| i / 100 % 2 == 0).for_each(|(_, v)| *v = f64::NAN);
        assert!(!of(values));
        assert!(!of(vec![f64::NAN; 500]));
    }
}
