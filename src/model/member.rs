//! One network of a model, and what its residuals look like on records that it was not trained on.

use std::f64::consts::LN_2;

use ndarray::Array2;

use super::clean::Noise;
use super::decision::Statistic;
use super::kernel::Kernel;
use super::lanes::{self, Errors, Follow, Values};
use super::neighbours::{self, Near, Neighbours};
use super::network::Network;
use super::residual::Residuals;
use super::view::View;

/// Weight of the newest record in a smoothed level.
const SMOOTHING: f64 = 0.5;
/// Rate at which the mean of a residual is followed: machines drift, and what they drift to is no longer strange. Of its slow average, in
/// which small shifts show that last, the newest record has that weight. In either a record counts for at most so many standard deviations:
/// one spike is no shift.
const FOLLOWED: Follow = Follow { rate: 0.002, weight: 0.03, clip: 3.0 };
/// Part of the slow average in a rank, beside the distance itself.
const SLOW_SHARE: f64 = 1.0 / 3.0;
/// The quantile of held-out distances that has the level 1.
const TOP: f64 = 0.99;
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
    /// Only of records without an order. Machines drift: of records with one it is where a machine works, not what is wrong with it.
    pub neighbours: Option<Neighbours>,
}

/// A member, ready for use.
#[derive(Debug)]
pub struct Kernels {
    pub network: Kernel,
    /// Of the residuals, and of their slow averages; absent where they are not whitened.
    pub whitening: Option<Kernel>,
    pub slow: Option<Kernel>,
    /// What inputs are compared with.
    pub neighbours: Option<Kernel>,
}

/// Distances of a record: that of its residual, and that of the slow average, or, without an order, those from the nearest neighbours.
pub type Distances = [f64; 3];
/// Which of them is that of the residual, and that from the nearest of each group.
const RESIDUAL: usize = 0;
const GROUPED: usize = 2;

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
    pub fn of(mut distances: Vec<f64>, top: f64) -> Self {
        distances.sort_by(f64::total_cmp);
        let median = distances[distances.len() / 2].max(1e-9);
        let top = distances[((distances.len() - 1) as f64 * top) as usize];
        let mut term = Self { median, top: 1.0 };
        // It is at least that of the median, unless residuals are almost 0: then nothing says how large they may be.
        term.top = term.level(top).max(LN_2);
        term
    }

    /// Finite, not negative; 1 of about one ordinary record in a hundred.
    pub fn level(&self, distance: f64) -> f64 {
        let ratio = distance / self.median;
        if ratio < RATIO_MAX { ratio } else { RATIO_MAX }.ln_1p() / self.top
    }

    /// Of the median distance.
    pub fn ordinary(&self) -> f64 {
        1.0f64.ln_1p() / self.top
    }
}

impl Member {
    /// Mean of the standardised absolute residuals, none less than its part of how far the value itself lies from the mean, over what is present
    /// (NaN in `input`: missing), of all records of the input, and of the newest alone. `parts` (one per feature) get the squares that each
    /// has above an ordinary record's: what is rebuilt worst shows, not what is rebuilt a little worse together; unless that is all there is.
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

    /// Of a record without an order: its level by each of its distances.
    fn levels(&self, distances: Distances) -> [f64; 3] {
        std::array::from_fn(|which| self.term(which).level(distances[which]))
    }

    /// The largest of them.
    pub fn strangest(&self, distances: Distances) -> f64 {
        self.levels(distances).into_iter().fold(0.0, f64::max)
    }

    /// What such a record is ranked by.
    pub fn rank(&self, distances: Distances) -> f64 {
        let Some(Neighbours { units, .. }) = &self.neighbours else { return self.strangest(distances) };
        self.levels(distances).into_iter().zip(units).map(|(level, unit)| level * unit).fold(0.0, f64::max)
    }

    /// Without an order.
    fn term(&self, which: usize) -> Term {
        match &self.neighbours {
            Some(of) if which == GROUPED => of.grouped,
            Some(of) if which != RESIDUAL => of.nearest,
            _ => self.distance,
        }
    }

    /// What each feature has to do with how far it lies from its neighbours, in the stranger of the two ways; added to `parts`.
    pub fn apart(&self, near: &Near, parts: &mut [f32]) {
        let Some(of) = &self.neighbours else { return };
        let [nearest, grouped] = near.distances;
        near.contributions(of.grouped.level(grouped) > of.nearest.level(nearest), parts);
    }

    /// What each feature has to do with what is strangest of a record without an order, in medians of that distance. `parts`, one per feature: what
    /// `apart` made of them; `squares` adds those of the whitened residual.
    pub fn contributions(&self, distances: Distances, parts: &mut [f32], squares: impl FnOnce(&mut [f32])) {
        let levels = self.levels(distances);
        let which = (0..levels.len()).fold(RESIDUAL, |most, at| if levels[at] > levels[most] { at } else { most });
        if which == RESIDUAL {
            parts.fill(0.0);
            squares(parts);
        }
        let sum: f64 = parts.iter().copied().map(f64::from).sum();
        let each = if sum > 0.0 { (distances[which] / self.term(which).median).min(RATIO_MAX) / sum } else { 0.0 };
        parts.iter_mut().for_each(|part| *part = (f64::from(*part) * each) as f32);
    }

    /// What is done for each record, ready for use.
    pub fn kernels(&self) -> Kernels {
        let whitening = |of: &Option<Measured>| of.as_ref().and_then(|of| of.residuals.kernel());
        Kernels {
            network: self.network.kernel(),
            whitening: self.residuals.kernel(),
            slow: whitening(&self.slow),
            neighbours: self.neighbours.as_ref().map(|of| neighbours::kernel(&of.references)),
        }
    }

    /// The level of a record with an order in the rank, not weighted, and the smoothed one that it leaves behind in `smoothed`.
    pub fn level(&self, smoothed: &mut f64, distances: Distances) -> f64 {
        let Some(Measured { distance: term, .. }) = &self.slow else { return self.distance.level(distances[RESIDUAL]) };
        let [distance, slow, _] = distances;
        *smoothed += SMOOTHING * (self.distance.level(distance) - *smoothed);
        (1.0 - SLOW_SHARE) * *smoothed + SLOW_SHARE * term.level(slow)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::settings::Activation;
    use super::*;

    #[test]
    fn levels_are_1_of_one_record_in_a_hundred() {
        let term = Term::fit((1..=1_000).map(f64::from).collect());
        assert!((term.level(990.0) - 1.0).abs() < 0.01 && term.level(0.0) == 0.0 && term.level(f64::INFINITY) < 100.0);
        assert_eq!(term.level(term.median), term.ordinary());
    }

    #[test]
    fn contributions_are_those_of_what_is_strangest_in_medians() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let network = Network::new(4, 4, 2, Activation::Relu, &mut rng);
        let [distance, nearest, grouped] = [2.0, 5.0, 1.0].map(|median| Term { median, top: 1.0 });
        let neighbours =
            Some(Neighbours { references: Array2::zeros((8, 4)), nearest, grouped, units: [100.0, 1.0, 1.0] });
        let view = View { window: 2, context: false, clip: 0.0 };
        let (kept, noise, residuals) = (Vec::new(), Vec::new(), Residuals::standard(Array2::zeros((3, 4)).view()));
        let (own, slow) = (vec![0.0; 2].into(), None);
        let member = Member { view, weight: 1.0, network, kept, noise, own, residuals, distance, slow, neighbours };
        // Two sensors: of the neighbours 1 to 4, of the residual 3 to 1.
        let of = |distances: Distances| {
            let mut parts = [2.0, 8.0];
            member.contributions(distances, &mut parts, |parts| parts.copy_from_slice(&[3.0, 1.0]));
            parts
        };
        assert_eq!(of([8.0, 5.0, 3.0]), [3.0, 1.0], "4 medians");
        assert_eq!(of([2.0, 50.0, 3.0]), [2.0, 8.0], "10 medians");
        assert_eq!(of([2.0, 10.0, 20.0]), [4.0, 16.0], "20 medians");
        assert!(of([f64::INFINITY; 3]).iter().chain(&of([f64::NAN, 0.0, 0.0])).all(|part| part.is_finite()));
        assert_eq!(member.strangest([2.0, 10.0, 20.0]), grouped.level(20.0));
        assert_eq!(member.rank([2.0, 10.0, 20.0]), 100.0 * distance.level(2.0));
    }

    #[test]
    fn where_nothing_was_ever_rebuilt_badly_levels_stay_sane() {
        for distances in [vec![0.0; 50], vec![1e-12; 50], vec![3.0; 50]] {
            let term = Term::fit(distances);
            assert!((0.9..=1.0).contains(&term.ordinary()) && term.level(1e9) < 100.0, "{term:?}");
        }
    }
}
