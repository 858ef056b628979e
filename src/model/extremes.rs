//! The law of the highest values of blocks: Gumbel's, or one with an end where training shows that they have one.

use std::f64::consts::LN_2;

/// Of the standard Gumbel law: Euler's constant is its mean, and its mean absolute deviation.
pub const GUMBEL_MEAN: f64 = 0.577_215_664_9;
pub const GUMBEL_DEVIATION: f64 = 0.983_068_564_9;
/// Variance of an estimated shape, times the number of values, of a Gumbel law, asymptotically (Hosking, Wallis & Wood 1985); about as
/// much down to a shape of -.4, and half as much again of ten values.
const SHAPE_VARIANCE: f64 = 0.5633;
/// A shape counts by as much as it lies below 0 by more than so many standard errors: an end that is not there makes alarms false.
const SURE: f64 = 3.0;
/// Lower ones would bring all that is rare within three mean absolute deviations of the mean.
pub const SHAPE_MIN: f64 = -0.3;
/// Fewest values that are asked.
const VALUES_MIN: usize = 10;
/// What differs by less, of the size of the values, is rounding.
const ROUNDING: f64 = 1e-9;
/// Steps of an integral that is computed once for a law.
const STEPS: usize = 2_000;
/// The standard exponential law is hardly ever beyond this.
const EXPONENTIAL_MAX: f64 = 40.0;

/// Shape (xi) of a generalised extreme value law (Jenkinson 1955), `SHAPE_MIN` to 0, of values that follow such, in their order, by
/// probability-weighted moments (Hosking, Wallis & Wood 1985): 0 is Gumbel's law, and below 0 there is an end. Positive ones, heavier
/// tails, are not believed: thresholds would rise for good by what came once, while spreads, which are followed, forget it.
pub fn shape(values: &[f64]) -> f64 {
    if values.len() < VALUES_MIN {
        return 0.0;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let [mut first, mut second, mut third] = [0.0; 3];
    for (rank, value) in sorted.iter().enumerate() {
        let rank = rank as f64;
        first += value;
        second += value * rank / (n - 1.0);
        third += value * rank * (rank - 1.0) / ((n - 1.0) * (n - 2.0));
    }
    let size: f64 = values.iter().map(|value| value.abs()).sum();
    if 3.0 * third - first <= ROUNDING * size {
        return 0.0;
    }
    let skew = (2.0 * second - first) / (3.0 * third - first) - LN_2 / 3.0f64.ln();
    let shape = -(7.8590 + 2.9554 * skew) * skew + SURE * (SHAPE_VARIANCE / independent(values)).sqrt();
    if shape.is_finite() { shape.clamp(SHAPE_MIN, 0.0) } else { 0.0 }
}

/// How many values would tell as much if none told of the next: as many as of a process that remembers one step (Bartlett 1946).
fn independent(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let along: f64 = values.windows(2).map(|two| (two[0] - mean) * (two[1] - mean)).sum();
    let alike = (along / values.iter().map(|value| (value - mean).powi(2)).sum::<f64>()).clamp(0.0, 0.99);
    n * (1.0 - alike) / (1.0 + alike)
}

/// Of what is reached `expected` times per block.
pub fn rarity(expected: f64) -> f64 {
    -expected.max(f64::MIN_POSITIVE).ln()
}

/// How far above the mean of their law values lie that are so and so rare, in mean absolute deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    shape: f64,
    /// Of the standard law of that shape.
    mean: f64,
    deviation: f64,
}

impl Reach {
    pub const GUMBEL: Self = Self { shape: 0.0, mean: GUMBEL_MEAN, deviation: GUMBEL_DEVIATION };

    /// `shape`: 0 at most.
    pub fn of(shape: f64) -> Self {
        if shape > -1e-6 {
            return Self::GUMBEL;
        }
        // A block's highest value is reached y times a block on average, where y follows the standard exponential law: so mean and
        // deviation are integrals over y; over its root they have no pole.
        let integral = |to: f64, of: &dyn Fn(f64) -> f64| {
            let step = to.sqrt() / STEPS as f64;
            let part = |i: usize| {
                let root = (i as f64 + 0.5) * step;
                of(root * root) * (-root * root).exp() * 2.0 * root * step
            };
            (0..STEPS).map(part).sum::<f64>()
        };
        let value = |y: f64| (-shape * y.ln()).exp_m1() / shape;
        let mean = integral(EXPONENTIAL_MAX, &value);
        // Where the mean is reached; what lies above is half of the deviation.
        let at = (1.0 + shape * mean).powf(-1.0 / shape);
        let deviation = 2.0 * integral(at, &|y| value(y) - mean);
        Self { shape, mean, deviation }
    }

    /// What is so rare (see `rarity`).
    pub fn at(&self, rarity: f64) -> f64 {
        let value = if self.shape < 0.0 { (self.shape * rarity).exp_m1() / self.shape } else { rarity };
        (value - self.mean) / self.deviation
    }
}

#[cfg(test)]
pub mod testing {
    use super::super::testing::noise;

    /// Values of the standard law of a shape, from uniform numbers.
    pub fn sample(shape: f64, seed: u64, n: usize) -> Vec<f64> {
        let uniform = noise(seed, 2 * n).chunks(2).map(|two| two[0].atan2(two[1])).collect::<Vec<_>>();
        let rarity = |angle: f64| -(0.5 + angle / std::f64::consts::TAU).clamp(1e-12, 1.0 - 1e-12).ln();
        let value = |y: f64| if shape == 0.0 { -y.ln() } else { (-shape * y.ln()).exp_m1() / shape };
        uniform.into_iter().map(|angle| value(rarity(angle))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::sample;
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_law() {
        // Gumbel's is the limit. Of shape -1 it is 1 less an exponential law, whose mean absolute deviation is 2 / e.
        let near = Reach::of(-2e-6);
        assert!((near.mean - GUMBEL_MEAN).abs() < 1e-4 && (near.deviation - GUMBEL_DEVIATION).abs() < 1e-4, "{near:?}");
        let one = Reach::of(-1.0);
        assert!(one.mean.abs() < 1e-5 && (one.deviation - 2.0 / std::f64::consts::E).abs() < 1e-5, "{one:?}");
        for shape in [-0.1, -0.2, SHAPE_MIN] {
            let (values, reach) = (sample(shape, 1, 200_000), Reach::of(shape));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let deviation = values.iter().map(|v| (v - mean).abs()).sum::<f64>() / values.len() as f64;
            assert!(
                (mean - reach.mean).abs() < 0.01 && (deviation - reach.deviation).abs() < 0.01,
                "{shape}: {reach:?}"
            );
        }
    }

    #[test]
    fn values_are_reached_as_often_as_said() {
        for shape in [0.0, -0.1, -0.2, SHAPE_MIN] {
            let (values, reach) = (sample(shape, 2, 200_000), Reach::of(shape));
            for expected in [0.5, 0.05, 0.005] {
                let limit = reach.mean + reach.at(rarity(expected)) * reach.deviation;
                let above = values.iter().filter(|v| **v > limit).count() as f64;
                // A block's highest value lies above where at least one is.
                let said = values.len() as f64 * -(-expected).exp_m1();
                assert!((above - said).abs() < 5.0 * said.sqrt(), "{shape}: {above} instead of {said}");
            }
        }
    }

    #[test]
    fn an_end_is_believed_where_many_values_show_it() {
        for seed in 0..20 {
            assert_eq!(shape(&sample(0.0, 100 + seed, 500)), 0.0, "there is none");
            assert!((SHAPE_MIN..-0.1).contains(&shape(&sample(-0.4, 200 + seed, 500))), "seed {seed}");
        }
        let few = (0..20).filter(|seed| shape(&sample(-0.2, 300 + seed, 20)) < 0.0).count();
        assert!(few <= 1, "{few} of 20");
        let much = shape(&sample(-0.2, 3, 100_000));
        assert!((much + 0.2).abs() < 0.02, "{much}");
    }

    /// The highest of three values that follow one another: half of what a value is it has from the one before.
    #[test]
    fn values_that_tell_of_each_other_count_for_fewer() {
        let values = sample(-0.2, 5, 900);
        let along: Vec<f64> = values.windows(3).map(|three| three.iter().copied().fold(f64::MIN, f64::max)).collect();
        let (apart, joined) = (independent(&values), independent(&along));
        assert!((800.0..=900.0).contains(&apart) && (150.0..500.0).contains(&joined), "{apart}, {joined}");
    }

    #[test]
    fn what_says_nothing_is_gumbels() {
        let same = [0.0, 0.1, 1.0, 1.1, 3.0].into_iter().flat_map(|v| [10, 100, 500, 1_000].map(|n| vec![v; n]));
        let rounded = (0..500).map(|i| 1.0 + 1e-12 * f64::from(i % 7)).collect();
        let few = [vec![], vec![1.0], vec![0.0, 1.0, 1.0], vec![1e300, -1e300, 0.0]];
        for values in same.chain([rounded, [1e308, -1e308].repeat(50)]).chain(few) {
            assert_eq!(shape(&values), 0.0, "{values:?}");
        }
    }
}
