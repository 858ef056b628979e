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
/// Part of the slow average in a rank, beside the distance itself.
const SLOW_SHARE: f64 = 1.0 / 3.0;
/// Part of the code in the distance of a record without an order, beside the residual, each in units of its median (Pomerantsev 2008). A residual says
/// how far a record lies from what the network can rebuild, its code how far out it lies there (the orthogonal and the score distance of
/// Hubert, Rousseeuw & Vanden Branden 2005): neither says more.
const CODE_SHARE: f64 = 0.5;
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
    /// The same of the codes; only of records without an order. Machines drift along what a network rebuilds: of records with an order it is
    /// where a machine works, not what is wrong with it.
    pub code: Option<Measured>,
}

/// A member, ready for use.
#[derive(Debug)]
pub struct Kernels {
    pub network: Kernel,
    /// Of the residuals, and of their slow averages; absent where they are not whitened.
    pub whitening: Option<Kernel>,
    pub slow: Option<Kernel>,
    /// From an input to its code, and the whitening of that; only where codes are measured.
    pub encoder: Option<Kernel>,
    pub code: Option<Kernel>,
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
    pub fn fit(mut distances: Vec<f64>) -> Self {
        distances.sort_by(f64::total_cmp);
        let median = distances[distances.len() / 2].max(1e-9);
        let top = distances[(distances.len() - 1) * 99 / 100];
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

    /// What each feature has to do with how far a record without an order lies, each distance in units of its median. `parts`, one per feature:
    /// the squares of its whitened residual, before. How far out a code lies is told by what is rebuilt from it.
    pub fn contributions(&self, [distance, code]: [f64; 2], residual: &[f32], input: &[f32], parts: &mut [f32]) {
        let spread = |ratio: f64, sum: f64| if sum > 0.0 { ratio.min(RATIO_MAX) / sum } else { 0.0 };
        let of_residual = spread(distance / self.distance.median, parts.iter().copied().map(f64::from).sum());
        parts.iter_mut().for_each(|part| *part = (f64::from(*part) * of_residual) as f32);
        let Some(Measured { distance: term, .. }) = &self.code else { return };
        let rebuilt = || {
            residual
                .iter()
                .zip(input)
                .map(|(r, x)| f64::from(r + x).powi(2))
                .map(|square| if square.is_finite() { square } else { 0.0 })
        };
        let of_code = spread(code / term.median, rebuilt().sum());
        for (at, square) in rebuilt().enumerate() {
            let part = &mut parts[at % parts.len()];
            *part += (square * of_code) as f32;
        }
    }

    /// What is done for each record, ready for use.
    pub fn kernels(&self) -> Kernels {
        let whitening = |of: &Option<Measured>| of.as_ref().and_then(|of| of.residuals.kernel());
        Kernels {
            network: self.network.kernel(),
            whitening: self.residuals.kernel(),
            slow: whitening(&self.slow),
            encoder: self.code.is_some().then(|| self.network.encoder()),
            code: whitening(&self.code),
        }
    }

    /// The level of a record in the rank, not weighted, and the smoothed one that it leaves behind in `smoothed`. `beside`: the distance of
    /// the slow average, or of the code where there is no order.
    pub fn level(&self, smoothed: &mut f64, distance: f64, beside: f64) -> f64 {
        let Some(Measured { distance: term, .. }) = &self.slow else { return self.level_alone(distance, beside) };
        *smoothed += SMOOTHING * (self.distance.level(distance) - *smoothed);
        (1.0 - SLOW_SHARE) * *smoothed + SLOW_SHARE * term.level(beside)
    }

    /// The same of a record without an order.
    pub fn level_alone(&self, distance: f64, code: f64) -> f64 {
        let Some(Measured { distance: term, .. }) = &self.code else { return self.distance.level(distance) };
        let code = code / term.median * self.distance.median;
        self.distance.level((1.0 - CODE_SHARE) * distance + CODE_SHARE * code)
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
    fn contributions_are_distances_in_medians_and_of_what_is_rebuilt_for_the_code() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let network = Network::new(4, 4, 2, Activation::Relu, &mut rng);
        let standard = |width: usize| Residuals::standard(Array2::zeros((3, width)).view());
        let [of_residual, of_code] = [2.0, 5.0].map(|median| Term { median, top: 1.0 });
        let code = Some(Measured { residuals: standard(2), distance: of_code });
        let view = View { window: 2, context: false, clip: 0.0 };
        let (kept, noise, residuals) = (Vec::new(), Vec::new(), standard(4));
        let (own, distance, slow) = (vec![0.0; 2].into(), of_residual, None);
        let member = Member { view, weight: 1.0, network, kept, noise, own, residuals, distance, slow, code };
        // Two sensors in a window of two; one value is missing.
        let (residual, input) = ([1.0, -1.0, 0.0, 7.0], [1.0, 0.0, 1.0, f32::NAN]);
        let mut parts = [1.0, 3.0];
        member.contributions([6.0, 10.0], &residual, &input, &mut parts);
        // 3 medians of the residual as 1 to 3, and 2 of the code as 4 + 1 to 1.
        let expected = [0.75 + 5.0 / 3.0, 2.25 + 1.0 / 3.0];
        assert!(parts.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{parts:?}");
        let mut nothing = [0.0; 2];
        member.contributions([0.0, f64::INFINITY], &[0.0; 4], &[0.0; 4], &mut nothing);
        assert_eq!(nothing, [0.0; 2]);
        member.contributions([f64::INFINITY; 2], &residual, &input, &mut parts);
        assert!(parts.iter().all(|part| part.is_finite()), "{parts:?}");
    }

    #[test]
    fn where_nothing_was_ever_rebuilt_badly_levels_stay_sane() {
        for distances in [vec![0.0; 50], vec![1e-12; 50], vec![3.0; 50]] {
            let term = Term::fit(distances);
            assert!((0.9..=1.0).contains(&term.ordinary()) && term.level(1e9) < 100.0, "{term:?}");
        }
    }
}
