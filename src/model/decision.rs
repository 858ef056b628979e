//! From a statistic of each record to few, true incidents on a machine that drifts: its level is followed, and the threshold
//! is a return level of the peaks of past blocks of records.
//!
//! Peaks of blocks follow a Gumbel law (Fisher & Tippett 1928; Gumbel 1958), whatever the statistic's own distribution if
//! its tail is not heavy, or one with an end, as training has it (see `extremes`); two numbers, followed block by block, give the
//! level that is exceeded as often as the alarm budget allows. An incident is held until the statistic has come down to a part of
//! the threshold, and the bar creeps up meanwhile: a shift that stays becomes the new level after a stated time.

use super::AlarmBudget;
use super::extremes::{Reach, rarity};
use super::law::{self, Law, Laws};
use super::recent::Recent;

/// What a user who says nothing gets, and what the training records are judged by: the part of the threshold at which an incident is
/// over, and the records after which a shift that stays is what is normal.
pub const HOLD: f64 = 0.5;
pub const ADOPT_AFTER: u64 = 400;
/// Records of a block.
pub const BLOCK: usize = 50;
/// More than so many expected of a channel in a block count as so many, as peaks of blocks know of no more: a budget above one incident
/// per block counts as that.
const ALLOWED_MAX: f64 = 0.5;
/// Blocks that are remembered.
pub const MEMORY: f64 = 100.0;
/// Blocks that the law learned in training counts for.
pub const PRIOR_BLOCKS: f64 = 5.0;
/// Rate at which a level is followed, and the records that the level learned in training counts for.
pub const FOLLOW: f64 = 0.003;
const PRIOR_RECORDS: f64 = 10.0;
/// Ways of smoothing a statistic, each of which opens incidents. Quick, of the squares over the window: one sensor that is far off counts for more in
/// them than many that are a little. Slow, of the errors there: what is a little higher for long shows, and no single reading makes up for that. Of the
/// newest record alone, not smoothed, or a single strange record would be watered down.
pub const CHANNELS: usize = 3;
const QUICK: usize = 0;
const SLOW: usize = 1;
pub const ALONE: usize = 2;
/// Weight of the newest record in each.
pub const WEIGHTS: [f64; CHANNELS] = [0.5, 0.05, 1.0];
/// Part of the budget of each.
const SHARE: f64 = 1.0 / CHANNELS as f64;
/// No spread is less, and no number of a watch is larger: what says otherwise was not stored by residua.
const SPREAD_MIN: f64 = 1e-12;
const NUMBER_MAX: f64 = 1e12;
/// What was learned in training, in force.
#[derive(Clone, Debug)]
pub struct Decision {
    laws: Laws,
    /// Of the peaks of each.
    reaches: [Reach; CHANNELS],
    /// Expected exceedances in a block that the budget allows.
    allowed: f64,
    /// Part of the threshold at which an incident is over.
    hold: f64,
    /// Whether frequent alarms let rarer levels alarm too.
    second_rule: bool,
}

/// What is remembered of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    channels: [Channel; CHANNELS],
    /// Records and blocks seen, both counted only as long as they matter.
    records: f64,
    blocks: f64,
    /// Calm records in the block that is under way.
    in_block: f64,
    /// Whether an incident is.
    open: bool,
    pub recent: Recent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Channel {
    value: f64,
    level: f64,
    peak: f64,
    spread: f64,
    /// Highest value above the level in the block that is under way.
    highest: f64,
    /// Threshold above the level when the incident opened, and the value at which it is over.
    unit: f64,
    bar: f64,
    /// Highest value above the level since then.
    tallest: f64,
    /// The level when it opened.
    ground: f64,
}

/// How badly a record is rebuilt, by errors of its values, in standard deviations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistic {
    /// Mean over all records of the window.
    pub window: f64,
    /// Root of the mean square there.
    pub squares: f64,
    /// Mean of the newest one alone.
    pub newest: f64,
    /// Shares of the values that are not missing, 0 to 1.
    pub window_present: f64,
    pub newest_present: f64,
}

/// Judgement on one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub flagged: bool,
    /// Of the newest record alone, above its level, to the threshold above that; not negative.
    pub alone: f64,
    /// The same of this or the quick one, at most 1: less where an incident is only held, or only slowly seen.
    pub acute: f64,
}

impl Statistic {
    /// What a channel smooths, of the values that are present.
    pub fn seen(&self, channel: usize) -> f64 {
        match channel {
            QUICK => self.squares,
            SLOW => self.window,
            // Of single records it often has a heavy tail. That of its logarithm is exponential then, and its peaks follow a Gumbel law.
            _ => self.newest.ln_1p(),
        }
    }

    /// The same of all values, where missing ones count as usual.
    pub fn of(&self, channel: usize, level: f64) -> f64 {
        let present = if channel == ALONE { self.newest_present } else { self.window_present };
        let joined = |seen: f64, level: f64| level + present * (seen - level);
        match channel {
            QUICK => joined(self.squares * self.squares, level * level).max(0.0).sqrt(),
            _ => joined(self.seen(channel), level),
        }
    }
}

impl Decision {
    /// `hold`: part of the threshold at which an incident is over, 0 to 1.
    pub fn new(laws: Laws, budget: &AlarmBudget, hold: f64) -> Self {
        let reaches = laws.map(|law| Reach::of(law.shape));
        let allowed = (SHARE * budget.rate() * BLOCK as f64).min(ALLOWED_MAX);
        Self { laws, reaches, allowed, hold, second_rule: true }
    }

    /// How unsure it is how often the threshold is exceeded, by a law that was learned from so many records: standard error of the logarithm.
    pub fn doubt(&self, records: usize) -> f64 {
        law::doubt(self.allowed, records)
    }

    /// The same by the budget alone: what is frequent is what is normal.
    pub fn without_second_rule(self) -> Self {
        Self { second_rule: false, ..self }
    }

    /// Takes the statistic of the next record in (finite). `creep`: part of an incident's height by which its bar rises.
    pub fn see(&self, watch: &mut Watch, statistic: Statistic, creep: f64) -> Judged {
        for (i, (channel, weight)) in watch.channels.iter_mut().zip(WEIGHTS).enumerate() {
            channel.value += weight * (statistic.of(i, channel.level) - channel.value);
        }
        let above = watch.channels.map(|c| c.value - c.level);
        let units = if watch.is_open() { watch.channels.map(|c| c.unit) } else { self.thresholds(watch) };
        let alone = (above[ALONE] / units[ALONE]).max(0.0);
        let quick = above[QUICK] / units[QUICK];
        let acute = alone.max(quick).min(1.0);
        let opens = !watch.is_open() && (acute >= 1.0 || above[SLOW] > units[SLOW]);
        if opens {
            watch.open = true;
            for ((channel, unit), above) in watch.channels.iter_mut().zip(units).zip(above) {
                channel.unit = unit;
                channel.bar = channel.level + self.hold * unit;
                channel.highest = above;
                channel.tallest = above.max(0.0);
                channel.ground = channel.level;
            }
        }
        for (channel, above) in watch.channels.iter_mut().zip(above) {
            channel.highest = channel.highest.max(above);
        }
        watch.records = (watch.records + 1.0).min(1.0 / FOLLOW);
        if !watch.is_open() {
            self.follow(watch, above, units);
            return Judged { flagged: false, alone, acute };
        }
        for (channel, above) in watch.channels.iter_mut().zip(above) {
            channel.tallest = channel.tallest.max(above);
            let step = creep * channel.tallest;
            channel.bar += step;
            if channel.value > channel.level {
                channel.level += step;
            }
        }
        if watch.channels.iter().all(|c| c.value < c.bar) {
            watch.open = false;
            for channel in &mut watch.channels {
                // What was far above all the rest must not leave a level that nothing reaches; and one quiet record is no level.
                channel.level = channel.level.min(channel.value.max(channel.ground));
            }
            self.end_block(watch);
        }
        Judged { flagged: true, alone, acute }
    }

    /// Above the levels.
    fn thresholds(&self, watch: &Watch) -> [f64; CHANNELS] {
        let second = if self.second_rule { SHARE * watch.recent.admitted() } else { 0.0 };
        let rarity = rarity(self.allowed.max(second));
        std::array::from_fn(|i| {
            let Channel { peak, spread, .. } = watch.channels[i];
            let unsettled = (1.0 - watch.records / BLOCK as f64).max(0.0) * self.laws[i].start;
            (peak + self.reaches[i].at(rarity) * spread).max(self.laws[i].floor) + unsettled
        })
    }

    /// A calm record.
    fn follow(&self, watch: &mut Watch, above: [f64; CHANNELS], thresholds: [f64; CHANNELS]) {
        let rate = FOLLOW.max(1.0 / (watch.records + PRIOR_RECORDS));
        for ((channel, above), threshold) in watch.channels.iter_mut().zip(above).zip(thresholds) {
            channel.level += rate * above.min(threshold);
        }
        watch.in_block += 1.0;
        if watch.in_block >= BLOCK as f64 {
            self.end_block(watch);
        }
    }

    /// An incident counts as one more block.
    fn end_block(&self, watch: &mut Watch) {
        let Watch { channels, recent, .. } = &mut *watch;
        recent.see(MEMORY, |_, often| {
            let rarity = rarity(SHARE * often);
            let reached = |(c, reach): (&Channel, &Reach)| c.highest >= c.peak + reach.at(rarity) * c.spread;
            channels.iter().zip(&self.reaches).any(reached)
        });
        watch.blocks = (watch.blocks + 1.0).min(MEMORY);
        for (channel, law) in watch.channels.iter_mut().zip(&self.laws) {
            let of = [channel.peak, channel.spread];
            [channel.peak, channel.spread] = law::followed(of, channel.highest, watch.blocks, law.floor);
            channel.highest = f64::MIN;
        }
        watch.in_block = 0.0;
    }
}

/// Of a series whose records have no order: only `recent` counts.
impl Default for Watch {
    fn default() -> Self {
        Self::start(&[Law { level: 0.0, peak: 0.0, spread: 1.0, floor: 1.0, start: 0.0, shape: 0.0 }; CHANNELS])
    }
}

impl Watch {
    pub const NUMBERS: usize = 9 * CHANNELS + 4 + Recent::NUMBERS;

    pub fn start(laws: &Laws) -> Self {
        let channel = |law: Law| Channel {
            value: law.level,
            level: law.level,
            peak: law.peak,
            spread: law.spread,
            highest: f64::MIN,
            ..Channel::default()
        };
        Self {
            channels: laws.map(channel),
            records: 0.0,
            blocks: PRIOR_BLOCKS,
            in_block: 0.0,
            open: false,
            recent: Recent::default(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// How high the incident that is open, or was last, has risen, in thresholds; slow smoothing says little of that.
    pub fn height(&self) -> f64 {
        [QUICK, ALONE].map(|i| self.channels[i]).iter().map(|c| c.tallest / c.unit).fold(0.0, f64::max)
    }

    pub fn numbers(&self) -> [f64; Self::NUMBERS] {
        let mut all = self
            .channels
            .iter()
            .flat_map(|c| [c.value, c.level, c.peak, c.spread, c.highest, c.unit, c.bar, c.tallest, c.ground])
            .chain([self.records, self.blocks, self.in_block, f64::from(u8::from(self.open))])
            .chain(self.recent.numbers());
        std::array::from_fn(|_| all.next().unwrap_or_default())
    }

    /// From what `numbers` gave; None if it cannot be that.
    pub fn from_numbers(numbers: &[f64; Self::NUMBERS]) -> Option<Self> {
        let mut numbers = numbers.iter().copied();
        let mut next = || numbers.next().unwrap_or_default();
        let channels: [Channel; CHANNELS] = std::array::from_fn(|_| Channel {
            value: next(),
            level: next(),
            peak: next(),
            spread: next(),
            highest: next(),
            unit: next(),
            bar: next(),
            tallest: next(),
            ground: next(),
        });
        let watch = Self {
            channels,
            records: next(),
            blocks: next(),
            in_block: next(),
            open: next() > 0.0,
            recent: Recent::from_numbers(&std::array::from_fn(|_| next()))?,
        };
        let sound = |n: f64| n.abs() <= NUMBER_MAX;
        let channels = watch.channels.iter().all(|c| {
            [c.value, c.level, c.peak, c.unit, c.bar, c.tallest, c.ground].into_iter().all(sound)
                && (sound(c.highest) || c.highest == f64::MIN)
                && (SPREAD_MIN..=NUMBER_MAX).contains(&c.spread)
                && (!watch.is_open() || c.unit >= SPREAD_MIN)
        });
        let counts = (0.0..=1.0 / FOLLOW).contains(&watch.records)
            && (1.0..=MEMORY).contains(&watch.blocks)
            && (0.0..BLOCK as f64).contains(&watch.in_block);
        (channels && counts).then_some(watch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::testing::{both, calm, stretches};
    use super::super::law::{Peaks, learn};
    use super::*;

    const CREEP: f64 = 1.0 / 400.0;

    fn laws() -> Laws {
        learn(&stretches(&calm(1, 4_000), 100), Peaks::Mean)
    }

    fn decision(alarms: &str) -> Decision {
        Decision::new(laws(), &alarms.parse().unwrap(), 0.5)
    }

    /// Runs of flagged records, start and end.
    fn incidents(decision: &Decision, statistics: &[f64]) -> Vec<(usize, usize)> {
        let mut watch = Watch::start(&decision.laws);
        let flags: Vec<bool> = statistics.iter().map(|s| decision.see(&mut watch, both(*s), CREEP).flagged).collect();
        let mut runs = Vec::new();
        for (i, _) in flags.iter().enumerate().filter(|(_, f)| **f) {
            match runs.last_mut() {
                Some((_, end)) if *end == i => *end = i + 1,
                _ => runs.push((i, i + 1)),
            }
        }
        runs
    }

    #[test]
    fn the_budget_is_kept_on_calm_records() {
        // 200,000 records each: 40 and 400 false incidents are allowed. They are fewer, as ways of smoothing that alarm together share it.
        for (alarms, most) in [("2 per 10000 records", 40), ("20 per 10000 records", 400)] {
            let found: usize = (0..4).map(|seed| incidents(&decision(alarms), &calm(10 + seed, 50_000)).len()).sum();
            assert!((1..=most).contains(&found), "{alarms}: {found} incidents");
        }
    }

    /// What never lies beyond an end: by Gumbel's law the budget would hardly be used, and smaller faults be missed.
    #[test]
    fn the_budget_is_used_where_peaks_have_an_end() {
        let bounded = |seed: u64, n: usize| calm(seed, n).iter().map(|v| (2.0 * v).tanh()).collect::<Vec<f64>>();
        let ended = learn(&stretches(&bounded(1, 40_000), 1_000), Peaks::Mean);
        assert!(ended[ALONE].shape < -0.1, "{ended:?}");
        let gumbels = ended.map(|law| Law { shape: 0.0, ..law });
        let budget: AlarmBudget = "5 per 10000 records".parse().unwrap();
        let [few, more] = [gumbels, ended].map(|laws| {
            let decision = Decision::new(laws, &budget, 0.5);
            (0..4).map(|seed| incidents(&decision, &bounded(10 + seed, 50_000)).len()).sum::<usize>()
        });
        assert!(10 * few < more && more <= 100, "of 100 that are allowed {few} by Gumbel's law, {more}");
    }

    #[test]
    fn a_smaller_budget_never_means_more_incidents() {
        let statistics = calm(3, 50_000);
        let counts = ["1 per 100 records", "1 per 1000 records", "1 per 10000 records", "1 per 1000000 records"]
            .map(|alarms| incidents(&decision(alarms), &statistics).len());
        assert!(counts.is_sorted_by(|a, b| a >= b) && counts[0] > counts[3], "{counts:?}");
    }

    #[test]
    fn what_is_a_little_higher_for_long_is_an_incident() {
        let mut statistics = calm(3, 3_000);
        let decision = decision("3 per 10000 records");
        assert_eq!(incidents(&decision, &statistics), [], "nothing is wrong");
        statistics[1_000..1_200].iter_mut().for_each(|s| *s += 0.5);
        let mut watch = Watch::start(&decision.laws);
        let judged: Vec<Judged> = statistics.iter().map(|s| decision.see(&mut watch, both(*s), CREEP)).collect();
        let opened = judged.iter().position(|j| j.flagged).unwrap();
        assert!((1_010..1_100).contains(&opened), "{opened}");
        assert!(judged[..=opened].iter().all(|j| j.acute < 1.0), "no record is strange by itself");
    }

    #[test]
    fn a_fault_is_one_incident_from_its_first_records_to_its_last() {
        let mut statistics = calm(4, 3_000);
        statistics[1_000..1_060].iter_mut().for_each(|s| *s += 3.0);
        let found = incidents(&decision("1 per 100000 records"), &statistics);
        assert_eq!(found.len(), 1, "{found:?}");
        let (start, end) = found[0];
        assert!((1_000..1_005).contains(&start) && (1_060..1_100).contains(&end), "{found:?}");
    }

    #[test]
    fn a_shift_that_stays_is_one_incident_and_is_adopted_in_time() {
        for height in [2.0, 4.0, 20.0] {
            let mut statistics = calm(5, 6_000);
            statistics[1_000..].iter_mut().for_each(|s| *s += height);
            statistics[4_000..4_040].iter_mut().for_each(|s| *s += 2.0 * height);
            let found = incidents(&decision("1 per 100000 records"), &statistics);
            assert_eq!(found.len(), 2, "{height}: {found:?}");
            assert!((1_250..1_550).contains(&found[0].1), "{height}: {found:?}");
            assert!((4_000..4_005).contains(&found[1].0), "a later fault shows against the new level: {found:?}");
        }
    }

    #[test]
    fn slow_drift_is_followed() {
        let mut statistics = calm(6, 40_000);
        statistics.iter_mut().enumerate().for_each(|(i, s)| *s *= 1.0 + 3.0 * i as f64 / 40_000.0);
        let found = incidents(&decision("1 per 10000 records"), &statistics);
        assert!(found.len() <= 12, "{} incidents while everything grows to four times its size", found.len());
    }

    #[test]
    fn what_was_far_above_all_the_rest_leaves_the_level_where_it_was() {
        let mut statistics = calm(7, 2_000);
        statistics[500] = 300.0;
        statistics[900..920].iter_mut().for_each(|s| *s += 3.0);
        let found = incidents(&decision("1 per 100000 records"), &statistics);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].1 < 620 && (900..905).contains(&found[1].0), "{found:?}");
    }

    #[test]
    fn where_alarms_are_frequent_rarer_faults_alarm_too() {
        // Bumps that are too low for the budget alone, but come far more often than chance has it.
        let mut statistics = calm(8, 20_000);
        for at in (400..20_000).step_by(400) {
            statistics[at..at + 8].iter_mut().for_each(|s| *s += 2.0);
        }
        let found = incidents(&decision("1 per 1000000000 records"), &statistics);
        // Once they are known, and until they are taken for what is normal.
        let due = (2_400..9_000).step_by(400).count();
        let late = found.iter().filter(|(start, _)| (2_400..9_000).contains(start) && start % 400 < 12).count();
        let false_ones = found.iter().filter(|(start, _)| start % 400 >= 12).count();
        assert!(late + 3 >= due && false_ones * 2 <= found.len(), "{late} of {due}, {false_ones} false: {found:?}");
    }

    /// Of twenty values the one that is 8 off is there, and half of the others are not.
    #[test]
    fn what_is_missing_counts_as_usual() {
        let of = |there: f64| Statistic {
            window: (8.0 + there - 1.0) / there,
            squares: ((64.0 + there - 1.0) / there).sqrt(),
            newest: (8.0 + there - 1.0) / there,
            window_present: there / 20.0,
            newest_present: there / 20.0,
        };
        for channel in [QUICK, SLOW] {
            let (all, half) = (of(20.0).of(channel, 1.0), of(10.0).of(channel, 1.0));
            assert!((all - half).abs() < 1e-9, "{channel}: {half} instead of {all}");
        }
        let none = Statistic { window_present: 0.0, newest_present: 0.0, ..of(1.0) };
        assert_eq!([QUICK, SLOW, ALONE].map(|channel| none.of(channel, 1.5)), [1.5; CHANNELS]);
    }

    #[test]
    fn statistics_of_any_kind_give_finite_numbers() {
        for blocks in [
            vec![vec![both(0.0); 3]],
            vec![vec![both(0.0); 200]; 3],
            vec![vec![both(1e9); 30]],
            vec![vec![], vec![both(1.0)]],
        ] {
            let decision = Decision::new(learn(&blocks, Peaks::Mean), &AlarmBudget::default(), 0.0);
            let mut watch = Watch::start(&decision.laws);
            for i in 0..2_000 {
                let judged = decision.see(&mut watch, both(if i % 7 == 0 { 2_000.0 } else { 0.0 }), CREEP);
                assert!(judged.alone.is_finite(), "{judged:?}");
            }
            let numbers = watch.numbers();
            assert_eq!(Watch::from_numbers(&numbers), Some(watch));
        }
    }

    #[test]
    fn a_state_that_was_stored_goes_on_as_it_would_have() {
        let (decision, mut statistics) = (decision("1 per 100 records"), calm(9, 2_000));
        statistics[700..900].iter_mut().for_each(|s| *s += 2.0);
        let mut watch = Watch::start(&decision.laws);
        for (i, statistic) in statistics.iter().enumerate() {
            let mut again = Watch::from_numbers(&watch.numbers()).unwrap();
            let judged = decision.see(&mut watch, both(*statistic), CREEP);
            assert_eq!(decision.see(&mut again, both(*statistic), CREEP), judged, "record {i}");
            assert_eq!(again, watch);
        }
    }
}
