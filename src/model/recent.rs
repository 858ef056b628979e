//! Where alarms are frequent, rarer evidence is enough for one: which of several levels may alarm, by how often each was reached of late.
//!
//! Where a level that ordinary cases reach with probability p is reached in a share s of all cases, of which a share f are faults, p (1 - f) / s
//! of its alarms are false: the false discovery rate of Benjamini & Hochberg (1995), with faults not counted as ordinary (Storey 2002), over
//! what was seen lately instead of over a fixed family. A few cases are put down to chance: they say nothing about how often such come.

/// Levels of rarity that are watched: probabilities, or expected numbers, of ordinary cases that reach them.
pub const RARITIES: [f64; 11] =
    [0.2, 0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003_125, 0.001_562_5, 0.000_8, 0.000_4, 0.000_2];
/// Share of false ones among the alarms that is accepted where alarms are frequent: no more false than true ones. The threshold that is
/// best by F1 may go beyond that, as it flags whatever is a fault with probability F1 / 2 (Lipton, Elkan & Naryanaswamy 2014).
const FALSE_SHARE: f64 = 0.5;
/// Cases that are put down to chance. Of normal rows without an order fewer than 3 in 10,000 are flagged then under a budget of 1, of the first
/// 500 fewer than 6, as a test says.
const CHANCE: f64 = 3.0;
/// Records that count as recent where they have no order: as they tell nothing of each other, old ones say as much as new ones.
pub const RECORDS: f64 = 2_000.0;

/// How often each level was reached: by all cases until they are as many as count as recent, then by about as many of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    shares: [f64; RARITIES.len()],
    /// No more than count as recent.
    cases: f64,
}

impl Recent {
    pub const NUMBERS: usize = RARITIES.len() + 1;

    /// Of the levels that may alarm the one of the largest F1 that is to be expected; 0 if none may.
    pub fn admitted(&self) -> f64 {
        let by_chance = CHANCE / self.cases.max(1.0);
        let levels = || RARITIES.into_iter().zip(self.shares);
        let faults = levels().map(|(rarity, share)| (share - by_chance - rarity) / (1.0 - rarity)).fold(0.0, f64::max);
        let false_ones = |rarity: f64| rarity * (1.0 - faults);
        let half_f1 = |(rarity, share): (f64, f64)| (share - false_ones(rarity)) / (share + faults);
        levels()
            .filter(|(rarity, share)| false_ones(*rarity) <= FALSE_SHARE * (*share - by_chance))
            .max_by(|a, b| half_f1(*a).total_cmp(&half_f1(*b)))
            .map_or(0.0, |(rarity, _)| rarity)
    }

    /// Takes in which levels were reached by a case. `memory`: cases that count as recent, at most `RECORDS`.
    pub fn see(&mut self, memory: f64, reached: impl Fn(usize, f64) -> bool) {
        self.cases = (self.cases + 1.0).min(memory);
        for (i, (share, rarity)) in self.shares.iter_mut().zip(RARITIES).enumerate() {
            *share += (f64::from(u8::from(reached(i, rarity))) - *share) / self.cases;
        }
    }

    pub fn numbers(&self) -> [f64; Self::NUMBERS] {
        std::array::from_fn(|i| self.shares.get(i).copied().unwrap_or(self.cases))
    }

    /// From what `numbers` gave; None if it cannot be that.
    pub fn from_numbers(numbers: &[f64; Self::NUMBERS]) -> Option<Self> {
        let (cases, shares) = numbers.split_last()?;
        let sound = shares.iter().all(|share| (0.0..=1.0).contains(share)) && (0.0..=RECORDS).contains(cases);
        sound.then(|| Self { shares: std::array::from_fn(|i| numbers[i]), cases: *cases })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::uniform;
    use super::*;

    /// Takes in ordinary cases, a share of which are faults instead that every level up to `reach` is reached by. Then: ordinary and faulty
    /// cases that were flagged under a budget of 1 in 10,000.
    fn flagged(seed: u64, cases: usize, faults: f64, reach: f64) -> (f64, f64) {
        let (mut recent, mut ordinary, mut faulty) = (Recent::default(), 0.0, 0.0);
        for (rarity, is) in uniform(seed, cases).into_iter().zip(uniform(seed + 1_000, cases)) {
            let (rarity, count) = if is < faults { (rarity * reach, &mut faulty) } else { (rarity, &mut ordinary) };
            recent.see(RECORDS, |_, level| rarity <= level);
            *count += f64::from(u8::from(rarity <= recent.admitted().max(1e-4)));
        }
        (ordinary, faulty)
    }

    #[test]
    fn ordinary_cases_keep_the_budget() {
        for (cases, at_most) in [(500, 6.0), (20_000, 3.0)] {
            let runs = 200_000 / cases as u64;
            let false_ones: f64 = (0..runs).map(|seed| flagged(seed, cases, 0.0, 0.0).0).sum();
            let in_10_000 = false_ones / 20.0;
            assert!((0.3..at_most).contains(&in_10_000), "{in_10_000} in 10,000, of {cases} cases each");
        }
    }

    #[test]
    fn weak_faults_alarm_where_they_are_frequent_and_no_more_alarms_are_false_than_true() {
        let (ordinary, faulty) = flagged(1, 20_000, 0.1, 0.05);
        assert!(faulty > 0.9 * 2_000.0 && ordinary < faulty, "{faulty} of 2000, {ordinary} false");
        let (ordinary, faulty) = flagged(2, 20_000, 0.1, 0.5);
        assert!(ordinary <= faulty.max(20.0), "{faulty} of 2000, {ordinary} false");
    }

    #[test]
    fn faults_that_stand_out_do_not_make_ordinary_cases_alarm() {
        let (ordinary, faulty) = flagged(3, 20_000, 0.05, 1e-4);
        assert!(faulty > 0.99 * 950.0 && ordinary < 0.1 * faulty, "{faulty} of 1000, {ordinary} false");
    }

    #[test]
    fn numbers_that_are_none_of_it_are_refused() {
        let mut recent = Recent::default();
        recent.see(RECORDS, |_, level| level > 0.01);
        assert_eq!(Recent::from_numbers(&recent.numbers()), Some(recent));
        for (at, number) in [(0, 1.5), (3, f64::NAN), (RARITIES.len(), -1.0), (RARITIES.len(), 1e9)] {
            let mut numbers = recent.numbers();
            numbers[at] = number;
            assert_eq!(Recent::from_numbers(&numbers), None, "{number} at {at}");
        }
    }
}
