//! What is remembered of one series between its records, as a model wants it: flat, so that it is copied, stored and restored
//! as it is.

use std::ops::Range;

use super::decision::Watch;
use super::fleet::Fleet;
use super::lanes::LANES;
use super::member::Member;

/// Floats behind those that mean something.
pub const SPARE: usize = LANES;
/// No level is higher.
const LEVEL_MAX: f64 = 1e12;

/// What is remembered of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// As `Places` says, and some more behind that mean nothing, so that the last ones are as fast to read as the others.
    floats: Vec<f32>,
    /// Of those that mean something.
    len: usize,
    /// Smoothed level of each member, before it is weighted.
    levels: Vec<f64>,
    pub(super) watch: Watch,
}

/// Where what is in the numbers of a memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Places {
    /// The last records, scaled: a ring of as many as the longest window.
    pub ring: Range<usize>,
    /// What each feature has made of the statistic that decides, above that of an ordinary record; smoothed as it is.
    pub blame: Range<usize>,
    pub members: Vec<MemberPlaces>,
    /// Where series differ: mean and scale of this one, see `Fleet::floats`.
    pub own: Range<usize>,
    pub len: usize,
}

/// Of one member; empty where it has no use for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MemberPlaces {
    /// Slow average of the records.
    pub average: Range<usize>,
    /// By how much the mean of the residual has moved since training; slowly followed.
    pub mean: Range<usize>,
    /// Slow average of what the residual has above it.
    pub slow: Range<usize>,
}

impl Places {
    pub fn of(features: usize, members: &[Member], fleet: Option<&Fleet>) -> Self {
        let mut len = 0;
        let mut take = |n: usize| {
            len += n;
            len - n..len
        };
        let window = members.iter().map(|m| m.view.window).max().unwrap_or(1);
        let (ring, blame) = (take(window * features), take(features));
        let members = members
            .iter()
            .map(|member| {
                let followed = if member.slow.is_some() { member.network.inputs() } else { 0 };
                let average = take(if member.view.context { features } else { 0 });
                MemberPlaces { average, mean: take(followed), slow: take(followed) }
            })
            .collect();
        let own = take(fleet.map_or(0, Fleet::floats));
        Self { ring, blame, members, own, len }
    }
}

/// Why numbers are no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// How many floats and how many numbers were expected.
    Length {
        floats: usize,
        numbers: usize,
    },
    OutOfRange(&'static str),
}

impl Memory {
    pub(super) fn new(places: &Places, members: usize) -> Self {
        let mut memory = Self {
            floats: vec![0.0; places.len + SPARE],
            len: places.len,
            levels: vec![0.0; members],
            watch: Watch::default(),
        };
        memory.floats[places.ring.clone()].fill(f32::NAN);
        for member in &places.members {
            memory.floats[member.average.clone()].fill(f32::NAN);
        }
        memory
    }

    pub(super) fn floats_of(&self, range: &Range<usize>) -> &[f32] {
        &self.floats[range.clone()]
    }

    pub(super) fn floats_of_mut(&mut self, range: &Range<usize>) -> &mut [f32] {
        &mut self.floats[range.clone()]
    }

    /// Two ranges at once, the first before the second, each with what comes after it.
    pub(super) fn two_of_mut(&mut self, first: &Range<usize>, second: &Range<usize>) -> (&mut [f32], &mut [f32]) {
        let (before, after) = self.floats.split_at_mut(second.start);
        (&mut before[first.start..], after)
    }

    /// All ranges, and what comes after the last one.
    pub(super) fn all_mut(&mut self) -> &mut [f32] {
        &mut self.floats
    }

    pub(super) fn level_mut(&mut self, member: usize) -> &mut f64 {
        &mut self.levels[member]
    }

    pub(super) fn levels_mut(&mut self) -> &mut [f64] {
        &mut self.levels
    }

    /// All of it: to be stored, and to be given back when it is recalled.
    pub fn floats(&self) -> &[f32] {
        &self.floats[..self.len]
    }

    /// The rest.
    pub fn numbers(&self) -> impl Iterator<Item = f64> {
        self.levels.iter().copied().chain(self.watch.numbers())
    }

    pub(super) fn recall(
        &mut self,
        places: &Places,
        floats: impl ExactSizeIterator<Item = f32>,
        numbers: impl ExactSizeIterator<Item = f64>,
    ) -> Result<(), MemoryError> {
        let expected = (self.len, self.levels.len() + Watch::NUMBERS);
        if (floats.len(), numbers.len()) != expected {
            return Err(MemoryError::Length { floats: expected.0, numbers: expected.1 });
        }
        self.floats.iter_mut().zip(floats).for_each(|(to, v)| *to = if v.is_nan() { f32::NAN } else { v });
        // NaN is a missing value, and only what records are made of can be missing.
        let may_miss =
            |at: usize| places.ring.contains(&at) || places.members.iter().any(|member| member.average.contains(&at));
        let finite = self.floats.iter().enumerate().all(|(at, v)| v.is_finite() || v.is_nan() && may_miss(at));
        if !finite {
            return Err(MemoryError::OutOfRange("number of a record or a residual"));
        }
        if self.floats_of(&places.blame).iter().any(|part| *part < 0.0) {
            return Err(MemoryError::OutOfRange("part of a feature"));
        }
        let mut all = numbers;
        if !self.levels.iter_mut().all(|level| {
            *level = all.next().unwrap_or(f64::NAN);
            (0.0..=LEVEL_MAX).contains(level)
        }) {
            return Err(MemoryError::OutOfRange("level"));
        }
        let watch: [f64; Watch::NUMBERS] = std::array::from_fn(|_| all.next().unwrap_or(f64::NAN));
        self.watch = Watch::from_numbers(&watch).ok_or(MemoryError::OutOfRange("number of the decision"))?;
        Ok(())
    }
}
