//! One network of a model, and what its residuals look like on records that it was not trained on.

use std::f64::consts::LN_2;

use ndarray::Array2;

use super::clean::Noise;
use super::decision::Statistic;
use super::kernel::Kernel;
use super::lanes::{self, Errors, Follow, Values};
use super::network::Network;
use super::residual::Residuals;
use super::view::View;

/// Weight of the newest record in a smoothed level.
const SMOOTHING: f64 = 0.5;
/// Rate at which the mean of a residual is followed: machines drift, and what they drift to is no longer strange. Of its slow average, in
/// which small shifts show that last, the newest record has that weight. In either a record counts for at most so many standard deviations:
/// one spike is no shift.
const FOLLOWED: Follow = Follow { rate: 0.002, weight: 0.03, clip: 3.0 };
/// Part of the slow average in a rank, beside what is smoothed.
const SLOW_SHARE: f64 = 1.0 / 3.0;
/// Part of how far a record lies from all that is remembered in what is smoothed of it: residuals are followed, and say in time that what is new is
/// usual, also if it is a fault that lasts.
const NEW_SHARE: f64 = 1.0 / 3.0;
/// The quantile of held-out distances that has the level 1.
const TOP: f64 = 0.99;
/// The one that is the unit of a rank without an order. Nothing is left out of training there: up to a tenth of the records may be faults, and the
/// distance in which they show best would have the largest unit of all.
const UNIT: f64 = 0.9;
/// Largest ratio of a distance to the median; its logarithm is still finite and comparable.
const RATIO_MAX: f64 = 1e30;
/// Part of an ordinary square that counts where nothing is above one.
const ORDINARY_PART: f32 = 1e-4;
/// The error of a sensor whose shifts a network copies is at least so much of how far it lies from its mean, in standard deviations. A mean of the two
/// would hide small residuals; half instead of a third flags more of what only drifts.
pub const OWN_SHARE: f32 = 1.0 / 3.0;
/// Standardised residuals beyond about this many standard deviations count for their logarithm only: one sensor that reads
/// nonsense must not be seen for hours.
const FAR: f32 = 32.0;

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub view: View,
    /// Of its level in the rank; 0: it only decides.
    pub weight: f64,
    pub network: Network,
    /// Of each feature of the newest record, the share of its variance over held-out records that is still there when it is rebuilt: 1 less
    /// the variance of the residual in variances of the feature, 0 at least.
    pub kept: Vec<f32>,
    /// Of each feature of the newest record.
    pub noise: Vec<Noise>,
    /// Of each feature the part of its distance from the mean that its error is at least: `OWN_SHARE` of what the network copies of a shift.
    pub own: Values,
    /// Whitening only if it ranks.
    pub residuals: Residuals,
    pub distance: Term,
    /// The same of the slow averages; only of records with an order.
    pub slow: Option<Measured>,
}

/// A member, ready for use.
#[derive(Debug)]
pub struct Kernels {
    pub network: Kernel,
    /// Of the residuals, and of their slow averages; absent where they are not whitened.
    pub whitening: Option<Kernel>,
    pub slow: Option<Kernel>,
}

/// What values of a kind look like on held-out records, and how far they lie from that.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub residuals: Residuals,
    pub distance: Term,
}

/// From a distance to a level that can be compared with those of other distances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// Of the distances of held-out records, positive.
    pub median: f64,
    /// 99 % quantile of ln(1 + distance / median) there, positive.
    pub top: f64,
}

impl Term {
    /// Of a network that does not rank.
    pub const NONE: Self = Self { median: 1.0, top: 1.0 };

    /// From at least one distance.
    pub fn fit(distances: Vec<f64>) -> Self {
        Self::of(distances, TOP)
    }

    /// With another quantile.
    fn of(mut distances: Vec<f64>, top: f64) -> Self {
        distances.sort_by(f64::total_cmp);
        let median = distances[distances.len() / 2].max(1e-9);
        let top = distances[((distances.len() - 1) as f64 * top) as usize];
        let mut term = Self { median, top: 1.0 };
        // It is at least that of the median, unless residuals are almost 0: then nothing says how large they may be.
        term.top = term.level(top).max(LN_2);
        term
    }

    /// What levels count for in a rank without an order, at least 1: there they are in units of the `UNIT` quantile.
    pub fn unit(distances: Vec<f64>) -> f64 {
        Self::fit(distances.clone()).top / Self::of(distances, UNIT).top
    }

    /// Finite, not negative; 1 of about one ordinary record in a hundred.
    pub fn level(&self, distance: f64) -> f64 {
        self.ratio(distance).ln_1p() / self.top
    }

    /// The distance in medians, bounded.
    pub fn ratio(&self, distance: f64) -> f64 {
        let ratio = distance / self.median;
        if ratio < RATIO_MAX { ratio } else { RATIO_MAX }
    }

    /// Of the median distance.
    pub fn ordinary(&self) -> f64 {
        1.0f64.ln_1p() / self.top
    }
}

impl Member {
    /// Mean and root mean square of the standardised absolute residuals, none less than its part of how far the value itself lies from the mean, over
    /// what is present (NaN in `input`: missing), of all records of the input; the mean of the newest alone. `parts` (one per feature) get the squares
    /// that each has above an ordinary record's: what is rebuilt worst shows, not what is rebuilt a little worse together; unless that is all there is.
    ///
    /// Of all three the first values count.
    pub fn statistic(&self, residual: &[f32], input: &[f32], parts: &mut [f32]) -> Statistic {
        let (inputs, features) = (self.network.inputs(), self.view.features(self.network.inputs()));
        parts[..features].fill(0.0);
        let (mean, scale) = self.residuals.numbers();
        let (mut all, mut newest) = (Errors::default(), Errors::default());
        for (record, at) in (0..inputs).step_by(features).enumerate() {
            let numbers = (&mean[at..], &scale[at..], self.own.padded());
            let errors = lanes::errors(features, &residual[at..], &input[at..], numbers, (FAR, ORDINARY_PART), parts);
            all = all.and(errors);
            if record + 1 >= self.view.window {
                newest = newest.and(errors);
            }
        }
        Statistic {
            window: all.mean(),
            squares: all.root_mean_square(),
            newest: newest.mean(),
            window_present: all.present / inputs as f64,
            newest_present: newest.present / features as f64,
        }
    }

    /// What is expected of the newest record of an input: what is rebuilt of it; of a sensor that is so far from its mean that this is an error, less
    /// what is copied in that, but not beyond the mean.
    pub fn expected(&self, input: &[f32], rebuilt: &[f32]) -> Vec<f32> {
        let newest = rebuilt.len() - self.own.len();
        let of = |(j, own): (usize, &f32)| {
            let (x, again) = (input[newest + j], rebuilt[newest + j]);
            if !again.is_finite() {
                return 0.0;
            }
            let copy = if own * x.abs() > 1.0 { own / OWN_SHARE * x } else { 0.0 };
            again - copy.clamp(again.min(0.0), again.max(0.0))
        };
        self.own.iter().enumerate().map(of).collect()
    }

    /// How many standard deviations of the residual on held-out records each feature of the newest record of an input lies above what is rebuilt of it,
    /// or below (negative); NaN where it is missing.
    pub fn off(&self, input: &[f32], rebuilt: &[f32]) -> Vec<f32> {
        let newest = rebuilt.len() - self.own.len();
        let of = |j: usize| (input[j] - rebuilt[j] + self.residuals.mean[j]) / self.residuals.scale[j];
        (newest..rebuilt.len()).map(of).collect()
    }

    /// The statistic of residuals alone (rows x inputs, NaN where missing).
    pub fn statistics(&self, residuals: &Array2<f32>, features: usize) -> Vec<Statistic> {
        let mut parts = vec![0.0; features];
        let rows = residuals.rows().into_iter().map(|row| row.to_vec());
        rows.map(|row| self.statistic(&row, &row, &mut parts)).collect()
    }

    /// Takes off a residual (which becomes 0 where the input is missing) what its mean has moved by since training, and follows that, from
    /// `mean` on in `state`, and the slow average of what is left, from `average` on.
    pub fn follow(&self, state: &mut [f32], mean: usize, average: usize, residual: &mut [f32], input: &[f32]) {
        FOLLOWED.see(self.network.inputs(), self.residuals.numbers(), state, (mean, average), residual, input);
    }

    /// What is done for each record, ready for use.
    pub fn kernels(&self) -> Kernels {
        let whitening = |of: &Option<Measured>| of.as_ref().and_then(|of| of.residuals.kernel());
        Kernels { network: self.network.kernel(), whitening: self.residuals.kernel(), slow: whitening(&self.slow) }
    }

    /// The level of a record with an order in the rank, not weighted, and the smoothed one that it leaves behind in `smoothed`. `slow`: distance of the
    /// slow average; `new`: level of that from the nearest of the records that are remembered.
    pub fn level(&self, smoothed: &mut f64, [distance, slow]: [f64; 2], new: f64) -> f64 {
        *smoothed += SMOOTHING * (joined(self.distance.level(distance), new) - *smoothed);
        let slow = self.slow.as_ref().map_or(*smoothed, |of| of.distance.level(slow));
        (1.0 - SLOW_SHARE) * *smoothed + SLOW_SHARE * slow
    }

    /// The smoothed one before the first record. `new`: of an ordinary record.
    pub fn first_level(&self, new: f64) -> f64 {
        joined(self.distance.ordinary(), new)
    }
}

/// A level of a residual and one of what is new.
fn joined(level: f64, new: f64) -> f64 {
    (1.0 - NEW_SHARE) * level + NEW_SHARE * new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_1_of_one_record_in_a_hundred() {
        let term = Term::fit((1..=1_000).map(f64::from).collect());
        assert!((term.level(990.0) - 1.0).abs() < 0.01 && term.level(0.0) == 0.0 && term.level(f64::INFINITY) < 100.0);
        assert_eq!(term.level(term.median), term.ordinary());
    }

    #[test]
    fn where_nothing_was_ever_rebuilt_badly_levels_stay_sane() {
        for distances in [vec![0.0; 50], vec![1e-12; 50], vec![3.0; 50]] {
            let term = Term::fit(distances);
            assert!((0.9..=1.0).contains(&term.ordinary()) && term.level(1e9) < 100.0, "{term:?}");
        }
    }
}
