//! What the statistic that decides was like in training: its level, and the law of the peaks of blocks of records above that.

use super::decision::{BLOCK, CHANNELS, FOLLOW, MEMORY, PRIOR_BLOCKS, Statistic, WEIGHTS};
use super::extremes::{self, GUMBEL_DEVIATION, GUMBEL_MEAN};

/// Records that the first level of a stretch counts for.
const LEARNING_RECORDS: f64 = 30.0;
/// Shortest block that a law is learned from, where there are few records, and the number of blocks that is wanted.
const LEARNING_BLOCK_MIN: usize = 5;
const LEARNING_BLOCKS: usize = 10;
/// One block's peak moves the law by at most this many spreads.
const CLIP: f64 = 4.0;
/// Blocks after which the law of the peaks has settled, when it is followed.
const FIRST_BLOCKS: usize = 20;
/// The spread of the peaks is at least this part of the spread of the statistic.
const SPREAD_FLOOR: f64 = 0.1;
/// Median of the standard Gumbel law, and the median absolute deviation from that.
const GUMBEL_MEDIAN: f64 = 0.366_512_920_6;
const GUMBEL_MEDIAN_DEVIATION: f64 = 0.767_049_251_3;

/// What a statistic was like in training, smoothed in one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Law {
    /// Median.
    pub level: f64,
    /// Mean of the blocks' peaks above the level, and their mean absolute deviation.
    pub peak: f64,
    pub spread: f64,
    /// Least spread that is believed.
    pub floor: f64,
    /// How far the median of a block was above that level at most: a series may differ from the others by as much, which its first records
    /// cannot tell.
    pub start: f64,
    /// Of the peaks' law (see `extremes`).
    pub shape: f64,
}

/// Of each way of smoothing.
pub type Laws = [Law; CHANNELS];

/// The laws over stretches of held-out records of one series each; not all of them empty.
pub fn learn(stretches: &[Vec<Statistic>], peaks: Peaks) -> Laws {
    std::array::from_fn(|i| law(stretches, i, peaks))
}

/// How the law of the peaks is estimated.
#[derive(Clone, Copy, PartialEq)]
pub enum Peaks {
    /// By mean and mean absolute deviation, as in service.
    Mean,
    /// By medians, where some of the peaks may be those of faults.
    Median,
}

fn law(stretches: &[Vec<Statistic>], channel: usize, how: Peaks) -> Law {
    let (mut above, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for stretch in stretches.iter().filter(|stretch| !stretch.is_empty()) {
        let median_of = |part: &[Statistic]| median(part.iter().map(|s| s.seen(channel)).collect());
        let mut level = median_of(&stretch[..stretch.len().div_ceil(4).min(BLOCK)]);
        let mut value = level;
        starts.extend(stretch.chunks_exact(BLOCK.min(stretch.len())).map(median_of));
        for (i, statistic) in stretch.iter().enumerate() {
            value += WEIGHTS[channel] * (statistic.of(channel, level) - value);
            let u = value - level;
            level += FOLLOW.max(1.0 / (i as f64 + LEARNING_RECORDS)) * u;
            above.push(u);
            values.push(value);
        }
    }
    let level = median(values.clone());
    let deviation = mean(values.iter().map(|v| (v - level).abs()));
    // Where records are few, shorter blocks give more peaks, of a lower mean: of n times as many records a Gumbel law's peak lies
    // ln n scales higher.
    let length = learning_block(above.len());
    let highest = |part: &[f64]| part.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let peaks: Vec<f64> = above.chunks_exact(length).map(highest).collect();
    // A statistic that never moves has no spread; rounding must not be one.
    let floor = (SPREAD_FLOOR * deviation).max(1e-3 * level.abs()).max(1e-9);
    let (peak, spread) = match how {
        Peaks::Mean => {
            let peak = mean(peaks.iter().copied());
            (peak, mean(peaks.iter().map(|p| (p - peak).abs())))
        }
        Peaks::Median => {
            let middle = median(peaks.clone());
            let scale = median(peaks.iter().map(|p| (p - middle).abs()).collect()) / GUMBEL_MEDIAN_DEVIATION;
            (middle + (GUMBEL_MEAN - GUMBEL_MEDIAN) * scale, GUMBEL_DEVIATION * scale)
        }
    };
    // Where there may be faults among them, where blocks are too short to tell, and of rounding, it is Gumbel's law.
    let known = how == Peaks::Mean && length == BLOCK && spread > floor;
    let spread = spread.max(floor);
    let shape = if known { extremes::shape(&beyond(&peaks, [peak, spread], floor)) } else { 0.0 };
    let longer = (BLOCK as f64 / length as f64).ln() * spread / GUMBEL_DEVIATION;
    let start = starts.into_iter().fold(level, f64::max) - level;
    Law { level, peak: peak.max(0.0) + longer, spread, floor, start, shape }
}

/// Mean and mean absolute deviation of peaks, followed by one more of them. `blocks`: how many peaks they are of.
pub fn followed([peak, spread]: [f64; 2], highest: f64, blocks: f64, floor: f64) -> [f64; 2] {
    let limit = CLIP * spread;
    let step = (highest - peak).clamp(-limit, limit);
    [peak + step / blocks, (spread + (step.abs() - spread) / blocks).max(floor)]
}

/// How far peaks lie from the mean that is followed, in spreads that are followed, as in service: where peaks wander or come in two sizes they lie
/// close together as a whole, and what is followed is exceeded all the same. The first, before anything is followed, tell nothing of that.
fn beyond(peaks: &[f64], mut law: [f64; 2], floor: f64) -> Vec<f64> {
    let mut blocks = PRIOR_BLOCKS;
    let each = peaks.iter().map(|highest| {
        let beyond = (highest - law[0]) / law[1];
        blocks = (blocks + 1.0).min(MEMORY);
        law = followed(law, *highest, blocks, floor);
        beyond
    });
    each.skip(FIRST_BLOCKS).collect()
}

/// Records of the blocks that a law is learned from `records` by.
fn learning_block(records: usize) -> usize {
    (records / LEARNING_BLOCKS).clamp(LEARNING_BLOCK_MIN, BLOCK).min(records.max(1))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

/// How unsure it is how often the threshold is exceeded that a law says is exceeded `allowed` times per block, as few records say little of
/// rare peaks: standard error of the logarithm. That of a return level in scales of a Gumbel law, asymptotically (Johnson, Kotz &
/// Balakrishnan 1995, 22.9); peaks are that much rarer beyond it. Of blocks that tell nothing of each other; where they do, it is larger.
/// Where a law has an end alarms are rather too few, as long as that is doubted, but of the smallest budgets nothing is known.
pub fn doubt(allowed: f64, records: usize) -> f64 {
    let length = learning_block(records);
    let peaks = (records / length).max(1) as f64;
    let rarity = -(allowed * length as f64 / BLOCK as f64).ln();
    ((1.1087 + 0.5140 * rarity + 0.6079 * rarity * rarity) / peaks).sqrt()
}

/// Statistics for the tests of this module and of the decision.
#[cfg(test)]
pub mod testing {
    use super::super::testing::noise;
    use super::Statistic;

    /// Absolute values of noise with memory: a statistic of an ordinary machine.
    pub fn calm(seed: u64, n: usize) -> Vec<f64> {
        noise(seed, n)
            .chunks(4)
            .flat_map(|four| vec![four.iter().map(|v| v.abs()).sum::<f64>() / 4.0; four.len()])
            .collect()
    }

    /// The window, its squares and the newest record say the same.
    pub fn both(statistic: f64) -> Statistic {
        Statistic { window: statistic, squares: statistic, newest: statistic, window_present: 1.0, newest_present: 1.0 }
    }

    pub fn stretches(statistics: &[f64], length: usize) -> Vec<Vec<Statistic>> {
        statistics.chunks(length).map(|stretch| stretch.iter().map(|s| both(*s)).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::decision::ALONE;
    use super::super::extremes::testing::sample;
    use super::super::extremes::{Reach, rarity};
    use super::super::testing::noise;
    use super::testing::{calm, stretches};
    use super::*;

    #[test]
    fn few_records_give_the_law_that_many_give() {
        let [many, ..] = learn(&stretches(&calm(1, 4_000), 100), Peaks::Mean);
        for seed in 20..30 {
            let [few, ..] = learn(&stretches(&calm(seed, 60), 15), Peaks::Mean);
            let (a, b) = (many.peak + 3.0 * many.spread, few.peak + 3.0 * few.spread);
            assert!((0.4..2.5).contains(&(b / a)), "threshold {b} from few, {a} from many");
        }
    }

    #[test]
    fn the_doubt_of_a_law_is_the_spread_of_those_that_others_learn() {
        // Independent values, so that blocks tell as much as their number says.
        let calm = |seed: u64, n: usize| noise(seed, n).iter().map(|v| v.abs()).collect::<Vec<_>>();
        let allowed = 0.0025;
        for records in [60, 500, 5_000] {
            let thresholds: Vec<f64> = (0..40)
                .map(|seed| {
                    let law = learn(&stretches(&calm(100 + seed, records), 50), Peaks::Mean)[ALONE];
                    law.peak + Reach::GUMBEL.at(rarity(allowed)) * law.spread
                })
                .collect();
            let many = learn(&stretches(&calm(99, 100_000), 50), Peaks::Mean)[ALONE];
            let middle = mean(thresholds.iter().copied());
            let error = mean(thresholds.iter().map(|t| (t - middle).powi(2))).sqrt() * GUMBEL_DEVIATION / many.spread;
            let ratio = error / doubt(allowed, records);
            assert!((0.5..2.0).contains(&ratio), "{records} records: {error}, said {}", doubt(allowed, records));
        }
    }

    /// As a whole they are close together, but not about what is followed.
    #[test]
    fn peaks_of_two_sizes_look_as_if_they_had_an_end_but_less_so_beside_what_is_followed() {
        let shapes = |apart: f64, follow: bool| {
            let of = |seed: u64| {
                let (chances, mut high) = (noise(50 + seed, 1_000), false);
                let sized = |(highest, chance): (f64, &f64)| {
                    high ^= *chance > 2.3;
                    highest + if high { apart } else { 0.0 }
                };
                let peaks: Vec<f64> = sample(0.0, seed, 1_000).into_iter().zip(&chances).map(sized).collect();
                let peak = mean(peaks.iter().copied());
                let spread = mean(peaks.iter().map(|p| (p - peak).abs()));
                extremes::shape(&if follow { beyond(&peaks, [peak, spread], 1e-9) } else { peaks })
            };
            mean([1, 2, 3, 4, 5, 6].into_iter().map(of))
        };
        assert_eq!(shapes(0.0, true), 0.0, "of one size");
        let (whole, followed) = (shapes(5.0, false), shapes(5.0, true));
        assert!(whole < -0.08 && followed > 0.6 * whole, "{followed}, {whole} where nothing is followed");
    }

    #[test]
    fn single_faults_do_not_move_a_law_of_medians() {
        let mut statistics = calm(1, 4_000);
        statistics[1_000..1_200].iter_mut().for_each(|s| *s += 20.0);
        let [clean, ..] = learn(&stretches(&calm(1, 4_000), 100), Peaks::Mean);
        let [law, ..] = learn(&stretches(&statistics, 100), Peaks::Median);
        let (a, b) = (clean.peak + 6.0 * clean.spread, law.peak + 6.0 * law.spread);
        assert!((0.7..1.4).contains(&(b / a)), "threshold {b} with faults, {a} without");
    }
}
