//! The threshold: peaks over threshold on scores of records that the network which they are of did not learn from.

/// Share of the held-out scores taken as the tail, at least `PEAKS_MIN` of them, or n^(2/3) where that is less (Loretan & Phillips 1994): of 27
/// scores nine peaks and not two. Of ordinary rows of ten tables that makes the false alarms of a budget of 3 in 10,000 six times the budget
/// instead of 24 times after 27 held-out scores (of a quarter of the records, the others trained on), and the level's spread less by half; of 250 it
/// makes no difference.
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
    /// Generalised Pareto shape (xi): 0 exponential, above heavier.
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
    /// (variance about 4/3 per independent peak), and the threshold hangs on it; so it is averaged with 60 peaks' worth of
    /// shape 0: a prior standard deviation of .15. Zero is the right centre, as scores are logarithms: where the distance has a
    /// power tail its logarithm has an exponential one, and where it has an exponential tail the limit is 0 as well.
    ///
    /// A negative shape is not taken: it would say that beyond some score nothing normal can ever be, and no week of data
    /// shows that; nor is anything followed here that would put it right, as where records have an order (see `extremes`).
    ///
    /// Peaks are not declustered: the budget counts flagged records, so their marginal distribution is what matters,
    /// and for that all exceedances estimate with less bias than cluster maxima (Fawcett & Walshaw 2007).
    ///
    /// `scores` come in log order, since smoothed scores exceed in runs, and only a run counts as an independent peak.
    pub fn fit(scores: Vec<f64>) -> Self {
        let mut sorted = scores.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let quantiles: Vec<f64> =
            (0..QUANTILES).map(|q| quantile(&sorted, q as f64 / (QUANTILES - 1) as f64)).collect();
        let peaks = ((PEAKS_SHARE * n as f64) as usize).max(PEAKS_MIN.min((n as f64).powf(2.0 / 3.0) as usize)).max(1);
        let start = if peaks < n { sorted[n - peaks - 1] } else { sorted[0] }.max(START_MIN);
        let excesses: Vec<f64> = sorted[n - peaks..].iter().map(|s| (s - start).max(0.0)).collect();
        let mean = excesses.iter().sum::<f64>() / peaks as f64;
        let runs = scores.chunk_by(|a, b| (*a > start) == (*b > start)).filter(|run| run[0] > start).count();
        let independent = runs.max(1) as f64;
        let shape = shape(&excesses, mean, independent);
        let scale = (mean * (1.0 - shape)).max(SCALE_FLOOR * start);
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

impl Tail {
    /// How unsure it is how often the level for a share `alarms` is exceeded, as it was learned from `scores` ones: standard error of the
    /// logarithm. Of a tail of shape 0, whose scale is known within 1 / sqrt(peaks).
    pub fn doubt(&self, alarms: f64, scores: usize) -> f64 {
        let reach = (self.rate / alarms).ln().max(1.0);
        reach / (self.rate.max(alarms) * scores as f64).max(1.0).sqrt()
    }
}

/// Shape by probability-weighted moments, drawn towards 0 the more, the fewer of the peaks are independent.
fn shape(excesses: &[f64], mean: f64, independent: f64) -> f64 {
    let n = excesses.len() as f64;
    // Plotting position of the j-th smallest: (j - .35) / n, as Hosking & Wallis advise.
    let weighted = |(j, e): (usize, &f64)| (1.0 - (j as f64 + 0.65) / n) * e;
    let second = excesses.iter().enumerate().map(weighted).sum::<f64>() / n;
    let spread = mean - 2.0 * second;
    // No spread: constant excesses, no shape to speak of.
    if spread > 1e-12 * mean.abs() && mean > 0.0 {
        let raw = (2.0 - mean / spread).clamp(-1.0, 1.0);
        (raw * independent / (independent + PRIOR_PEAKS)).clamp(0.0, SHAPE_MAX)
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
        for expect in [0.0, 0.15, 0.3] {
            let mut excesses: Vec<f64> = uniform(1, 20_000).into_iter().map(|u| pareto(expect, u)).collect();
            excesses.sort_by(f64::total_cmp);
            let mean = excesses.iter().sum::<f64>() / excesses.len() as f64;
            let got = shape(&excesses, mean, 20_000.0);
            assert!((got - expect).abs() < 0.04, "{got} for {expect}");
        }
        let mut bounded: Vec<f64> = uniform(1, 20_000).into_iter().map(|u| pareto(-0.3, u)).collect();
        bounded.sort_by(f64::total_cmp);
        assert_eq!(shape(&bounded, 0.77, 20_000.0), 0.0);
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
            // The mean is to keep the budget, so the median lies below it.
            assert!((0.1..2.5).contains(&exponential), "exponential, {n}: {exponential}");
            let heavy = realised(n, 1e-4, |x| (1.0 + 0.2 * (x - 1.0)).powf(-5.0), |u| 1.0 + pareto(0.2, u));
            assert!((0.3..6.0).contains(&heavy), "heavy, {n}: {heavy}");
            let light = realised(n, 1e-4, |x| (1.0 - (x - 1.0)).max(0.0), |u| 1.0 + u);
            assert!(light < 2.0, "light, {n}: {light}");
        }
    }

    /// Exponential scores that come in runs of `run` alike: the mean realised rate is what a user lives with.
    #[test]
    fn the_budget_is_kept_on_average_over_what_the_data_leaves_open() {
        for (n, run) in [(1_000, 1), (3_000, 1), (3_000, 4), (12_000, 4)] {
            let alarms = 1e-5;
            let rates = (0..300).map(|seed| {
                let draws = uniform(seed, n / run).into_iter().map(|u| 1.0 + pareto(0.0, u));
                let scores = draws.flat_map(|x| std::iter::repeat_n(x, run)).collect();
                (-(Tail::fit(scores).level(alarms) - 1.0)).exp() / alarms
            });
            let mean = rates.sum::<f64>() / 300.0;
            assert!((0.1..4.0).contains(&mean), "{n} scores in runs of {run}: {mean} times the budget");
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
