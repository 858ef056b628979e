//! The threshold: peaks over threshold on the held-out scores.

/// Share of the held-out scores taken as the tail, at least `PEAKS_MIN` of them where a tenth of all is that many.
const PEAKS_SHARE: f64 = 0.02;
const PEAKS_MIN: usize = 50;
/// Prior weight of shape 0, in peaks (see `Tail::fit`).
const PRIOR_PEAKS: f64 = 60.0;
/// Shape above which the tail's mean would not be believable.
const SHAPE_MAX: f64 = 0.5;
/// The tail's scale is at least this share of its start: constant scores have no tail, and rounding must not be one.
const SCALE_FLOOR: f64 = 0.01;
/// A threshold divides: scores that are all zero still get a positive one.
const START_MIN: f64 = 1e-6;
/// Number of stored quantiles: 0 %, 1 %, ... 100 %.
pub const QUANTILES: usize = 101;

/// Distribution of the held-out scores: quantiles, and beyond `start` a generalised Pareto tail.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// Score where the tail begins, positive.
    pub start: f64,
    /// Share of the scores in the tail, between 0 and 1.
    pub rate: f64,
    /// Generalised Pareto shape (xi): 0 exponential, above heavier, below bounded.
    pub shape: f64,
    /// Generalised Pareto scale (sigma), positive.
    pub scale: f64,
    /// `QUANTILES` values, ascending.
    pub quantiles: Vec<f64>,
}

impl Tail {
    /// From at least one score, all finite and not negative.
    ///
    /// Pickands (1975): excesses over a high start follow a generalised Pareto law; Siffer et al. (2017) set detection
    /// thresholds by it. Its shape is estimated by probability-weighted moments (Hosking & Wallis 1987): a closed form,
    /// better than maximum likelihood below some 500 peaks, and always below 1. From few peaks the shape is still wild
    /// (variance about 4/3 per peak), and the threshold hangs on it; so it is averaged with 60 peaks' worth of shape 0:
    /// a prior standard deviation of .15. Zero is the right centre, as scores are logarithms: where the distance has a
    /// power tail its logarithm has an exponential one, and where it has an exponential tail the limit is 0 as well.
    ///
    /// Peaks are not declustered: the budget counts flagged records, so their marginal distribution is what matters,
    /// and for that all exceedances estimate with less bias than cluster maxima (Fawcett & Walshaw 2007).
    pub fn fit(mut scores: Vec<f64>) -> Self {
        scores.sort_by(f64::total_cmp);
        let n = scores.len();
        let quantiles: Vec<f64> =
            (0..QUANTILES).map(|q| quantile(&scores, q as f64 / (QUANTILES - 1) as f64)).collect();
        let peaks = ((PEAKS_SHARE * n as f64) as usize).max(PEAKS_MIN.min(n / 10)).max(1);
        let start = if peaks < n { scores[n - peaks - 1] } else { scores[0] }.max(START_MIN);
        let excesses: Vec<f64> = scores[n - peaks..].iter().map(|s| (s - start).max(0.0)).collect();
        let mean = excesses.iter().sum::<f64>() / peaks as f64;
        let shape = shape(&excesses, mean);
        let scale = (mean * (1.0 - shape)).max(SCALE_FLOOR * start);
        // A bounded tail must reach the largest score seen.
        let bounded_too_low = shape < 0.0 && scale / -shape < excesses[peaks - 1];
        let (shape, scale) = if bounded_too_low { (0.0, mean.max(SCALE_FLOOR * start)) } else { (shape, scale) };
        Self { start, rate: peaks as f64 / (n + 1) as f64, shape, scale, quantiles }
    }

    /// Score that a share `alarms` (between 0 and 1) of the normal records exceeds. Finite and positive.
    pub fn level(&self, alarms: f64) -> f64 {
        if alarms >= self.rate {
            return quantile(&self.quantiles, 1.0 - alarms).clamp(0.01 * self.start, self.start);
        }
        let ratio = alarms / self.rate;
        let reach = if self.shape.abs() < 1e-9 { -ratio.ln() } else { (ratio.powf(-self.shape) - 1.0) / self.shape };
        self.start + self.scale * reach
    }
}

/// Shape by probability-weighted moments, drawn towards 0.
fn shape(excesses: &[f64], mean: f64) -> f64 {
    let n = excesses.len() as f64;
    // Plotting position of the j-th smallest: (j - .35) / n, as Hosking & Wallis advise.
    let weighted = |(j, e): (usize, &f64)| (1.0 - (j as f64 + 0.65) / n) * e;
    let second = excesses.iter().enumerate().map(weighted).sum::<f64>() / n;
    let spread = mean - 2.0 * second;
    // No spread: constant excesses, no shape to speak of.
    if spread > 1e-12 * mean.abs() && mean > 0.0 {
        let raw = (2.0 - mean / spread).clamp(-1.0, 1.0);
        (raw * n / (n + PRIOR_PEAKS)).min(SHAPE_MAX)
    } else {
        0.0
    }
}

/// Of ascending values, linear between them; `share` within 0 to 1.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::super::testing::uniform;
    use super::*;

    /// Generalised Pareto quantile function.
    fn pareto(shape: f64, u: f64) -> f64 {
        if shape == 0.0 { -(1.0 - u).ln() } else { ((1.0 - u).powf(-shape) - 1.0) / shape }
    }

    #[test]
    fn shape_is_recovered_from_many_peaks() {
        for expect in [-0.3, 0.0, 0.3] {
            let mut excesses: Vec<f64> = uniform(1, 20_000).into_iter().map(|u| pareto(expect, u)).collect();
            excesses.sort_by(f64::total_cmp);
            let mean = excesses.iter().sum::<f64>() / excesses.len() as f64;
            let got = shape(&excesses, mean);
            assert!((got - expect).abs() < 0.04, "{got} for {expect}");
        }
    }

    /// Median over 200 samples of realised over budgeted rate, for n exponential-ish scores.
    fn realised(n: usize, alarms: f64, survival: impl Fn(f64) -> f64, draw: impl Fn(f64) -> f64) -> f64 {
        let mut ratios: Vec<f64> = (0..200)
            .map(|seed| {
                let scores = uniform(seed, n).into_iter().map(&draw).collect();
                survival(Tail::fit(scores).level(alarms)) / alarms
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios[100]
    }

    #[test]
    fn levels_keep_the_budget_beyond_what_was_seen() {
        for n in [500, 2500, 10_000] {
            let exponential = realised(n, 1e-4, |x| (-(x - 1.0)).exp(), |u| 1.0 + pareto(0.0, u));
            assert!((0.4..2.5).contains(&exponential), "exponential, {n}: {exponential}");
            let heavy = realised(n, 1e-4, |x| (1.0 + 0.2 * (x - 1.0)).powf(-5.0), |u| 1.0 + pareto(0.2, u));
            assert!((0.3..6.0).contains(&heavy), "heavy, {n}: {heavy}");
            let light = realised(n, 1e-4, |x| (1.0 - (x - 1.0)).max(0.0), |u| 1.0 + u);
            assert!(light < 2.0, "light, {n}: {light}");
        }
    }

    #[test]
    fn levels_grow_as_the_budget_shrinks_and_stay_finite() {
        let heavy: Vec<f64> = uniform(3, 300).into_iter().map(|u| 1.0 + pareto(3.0, u)).collect();
        for scores in [vec![0.7], vec![0.0; 40], vec![0.7; 10], vec![0.7; 5000], vec![0.2, 0.9], uniform(1, 30), heavy]
        {
            let tail = Tail::fit(scores.clone());
            let levels: Vec<f64> = [0.999, 0.5, 0.1, 0.02, 1e-3, 1e-4, 1e-9].map(|a| tail.level(a)).to_vec();
            assert!(levels.iter().all(|l| l.is_finite() && *l > 0.0), "{} scores: {levels:?}", scores.len());
            assert!(levels.is_sorted(), "{} scores: {levels:?}", scores.len());
        }
    }

    #[test]
    fn constant_scores_are_not_flagged_by_rounding() {
        let tail = Tail::fit(vec![0.7; 1000]);
        assert!(tail.level(1e-4) > 0.7 * 1.01);
    }

    #[test]
    fn generous_budgets_are_plain_quantiles() {
        let tail = Tail::fit((1..=1000).map(f64::from).collect());
        assert!((tail.level(0.25) - 750.0).abs() < 2.0);
    }
}
