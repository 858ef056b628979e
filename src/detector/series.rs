//! The series of one partition: found by name, bounded in number, the least recently seen forgotten first.
//!
//! What is forgotten, and when, depends on the partition's records alone: on their order and their event times.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::SeriesSettings;
use super::state::{SeriesState, StateError, state_bytes};
use crate::incident::{Change, Incident};
use crate::model::{Edition, MEMORY_SPARE, Model};
use crate::record::{EventTime, NextOffset, Offset};

/// Records over which the partition's clock is taken: one wrong time must not make every series look idle.
const CLOCK_RECORDS: usize = 8;
const NONE: usize = usize::MAX;

/// Series forgotten, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// For more recently seen ones, as there were `series.max`.
    pub by_max: u64,
    /// As they had been silent for `series.idle`.
    pub by_idle: u64,
}

/// Series with their states, in a list from the least to the most recently seen.
pub(super) struct SeriesTable {
    index: HashMap<Arc<str>, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Forgotten, and still addressed by records that are not judged yet; with the record of the batch that came then.
    leaving: Vec<(usize, usize)>,
    oldest: usize,
    newest: usize,
    /// Event times of the last records, a ring.
    times: [EventTime; CLOCK_RECORDS],
    records: u64,
    /// Stored series that were forgotten since the last checkpoint.
    gone: Vec<Arc<str>>,
    /// What the last checkpoint includes.
    stored: NextOffset,
    /// Where the table began: what was stored of earlier records is void.
    since: NextOffset,
    /// Series met before this offset may be stored, though the table has not stored them: it was restored, and replays what was
    /// judged after the checkpoint that it knows of.
    maybe_stored_until: NextOffset,
    open_incidents: usize,
}

/// Length of a usual series key, bytes, and what an allocation costs beside its content.
const KEY_BYTES: usize = 24;
const ALLOCATION_BYTES: usize = 16;

/// Memory of one series, bytes: an estimate, without an open incident (which takes some 150, and 4 per feature). `sizes`: of what the
/// model remembers, [`Model::memory_sizes`].
pub fn series_bytes(sizes: (usize, usize)) -> usize {
    // Tables and lists grow by doubling: on average a third of what they hold is free.
    let index = 4 * (size_of::<(Arc<str>, usize)>() + 1) / 3;
    let slot = 4 * size_of::<Slot>() / 3;
    let key = ALLOCATION_BYTES + 2 * size_of::<usize>() + KEY_BYTES;
    index + slot + key + 2 * ALLOCATION_BYTES + 4 * (sizes.0 + MEMORY_SPARE) + 8 * sizes.1
}

/// What is queued for one series while a checkpoint is written, bytes: its state and key, and the client's own record of a message.
pub fn checkpoint_bytes(sizes: (usize, usize)) -> usize {
    const MESSAGE_BYTES: usize = 256;
    state_bytes(sizes) + KEY_BYTES + MESSAGE_BYTES
}

struct Slot {
    series: Arc<str>,
    state: SeriesState,
    /// Whether a checkpoint holds the series, or may hold it.
    stored: bool,
    older: usize,
    newer: usize,
}

/// Of the encoding of a marker.
const VERSION: u8 = 2;

impl SeriesTable {
    /// An empty table that begins at the record at `since`.
    pub fn new(since: NextOffset) -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            leaving: Vec::new(),
            oldest: NONE,
            newest: NONE,
            times: [EventTime::MIN; CLOCK_RECORDS],
            records: 0,
            gone: Vec::new(),
            stored: since,
            since,
            maybe_stored_until: since,
            open_incidents: 0,
        }
    }

    /// The same, where checkpoints hold series that are of no use.
    pub fn anew<'a>(since: NextOffset, stored: impl Iterator<Item = &'a str>) -> Self {
        Self { gone: stored.map(Arc::from).collect(), ..Self::new(since) }
    }

    /// What changed since the last checkpoint goes to `write`: no bytes for a series that was forgotten, which come first, since it
    /// may have come back. `next`: what the checkpoint includes. Returns the partition's marker, which is to be written last.
    pub fn checkpoint(
        &mut self,
        next: NextOffset,
        (model, edition): (&Model, Edition),
        mut write: impl FnMut(&str, Option<&[u8]>),
    ) -> Vec<u8> {
        self.gone.drain(..).for_each(|series| write(&series, None));
        let mut bytes = Vec::new();
        let mut at = self.newest;
        while at != NONE {
            let slot = &mut self.slots[at];
            if slot.state.last().0 < self.stored.0 {
                break; // this one and all older ones are stored as they are
            }
            bytes.clear();
            slot.state.encode(model, &mut bytes);
            write(&slot.series, Some(&bytes));
            slot.stored = true;
            at = slot.older;
        }
        self.stored = next;
        let mut marker = vec![VERSION];
        marker.extend(next.0.to_le_bytes());
        marker.extend(self.since.0.to_le_bytes());
        marker.extend(self.records.to_le_bytes());
        self.times.iter().for_each(|time| marker.extend(time.0.to_le_bytes()));
        marker.extend(edition.0.to_le_bytes());
        marker.extend(model.fingerprint().as_bytes());
        marker
    }

    /// The table of a checkpoint, from its marker and the newest bytes of each series that was not forgotten; series whose bytes
    /// cannot be read begin anew, and are counted. Also what the checkpoint includes. Records before `until` are replayed.
    pub fn restore<'a>(
        marker: &[u8],
        series: impl Iterator<Item = (&'a str, &'a [u8])>,
        model: &Model,
        until: NextOffset,
    ) -> Result<(Self, NextOffset, u64), StateError> {
        let (mut table, edition, found) = Self::begin(marker)?;
        if found != model.fingerprint().as_bytes() {
            let (found, expected) = (String::from_utf8_lossy(found).into_owned(), model.fingerprint().to_owned());
            return Err(StateError::Model { found, expected, edition });
        }
        table.maybe_stored_until = until;
        let stored = table.stored;
        let mut unreadable = 0;
        let mut states: Vec<(&str, SeriesState)> = Vec::new();
        for (name, bytes) in series {
            // Left behind by a table before this one, perhaps under another model.
            if SeriesState::last_in(bytes).is_some_and(|last| last.0 < table.since.0) {
                table.gone.push(name.into());
                continue;
            }
            match SeriesState::decode(bytes, model) {
                // A checkpoint includes nothing beyond its marker.
                Ok(state) if state.last().0 < table.stored.0 => states.push((name, state)),
                _ => {
                    unreadable += 1;
                    table.gone.push(name.into());
                }
            }
        }
        // The order in which they were last seen decides which is forgotten first.
        states.sort_by_key(|(_, state)| state.last());
        for (name, state) in states {
            let at = table.add(name, true, model);
            table.open_incidents += usize::from(state.incident.open().is_some());
            table.slots[at].state = state;
            table.link_newest(at);
        }
        Ok((table, stored, unreadable))
    }

    /// An empty table as the marker describes it, and the edition and fingerprint of its model.
    fn begin(marker: &[u8]) -> Result<(Self, Edition, &[u8]), StateError> {
        const NUMBERS: usize = 8 * (3 + CLOCK_RECORDS + 1);
        let fingerprint = match marker.split_first() {
            Some((&VERSION, rest)) => rest.split_at_checked(NUMBERS),
            None => None,
            Some((&found, _)) => return Err(StateError::Version { found }),
        };
        let length = StateError::Length { expected: 1 + NUMBERS, found: marker.len() };
        let (numbers, fingerprint) = fingerprint.ok_or(length)?;
        let mut numbers = numbers.as_chunks::<8>().0.iter();
        let mut next = || i64::from_le_bytes(numbers.next().copied().unwrap_or_default());
        let stored = NextOffset(next());
        let mut table = Self::new(NextOffset(next()));
        table.stored = stored;
        table.records = next().cast_unsigned();
        table.times.iter_mut().for_each(|time| *time = EventTime(next()));
        Ok((table, Edition(next()), fingerprint))
    }

    /// The incidents open in a checkpoint, of whatever model, in the order in which they began; and that model's fingerprint.
    pub fn open_in<'a>(
        marker: &[u8],
        series: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> (String, Vec<(Arc<str>, Incident)>) {
        let Ok((table, _, fingerprint)) = Self::begin(marker) else { return Default::default() };
        let mut open: Vec<(Arc<str>, Incident)> = series
            .filter_map(|(name, bytes)| {
                let (last, incident) = SeriesState::open_in(bytes)?;
                (table.since.0..table.stored.0).contains(&last.0).then(|| (name.into(), incident))
            })
            .collect();
        open.sort_by_key(|(_, incident)| incident.start);
        (String::from_utf8_lossy(fingerprint).into_owned(), open)
    }

    /// The slot of a series from which the record `of` (offset, event time) came, the record `index` of the batch; the series is the
    /// most recently seen now. Allocates for a new series.
    pub fn see(
        &mut self,
        series: &str,
        of: (Offset, EventTime),
        index: usize,
        model: &Model,
        settings: &SeriesSettings,
        forgotten: &mut Forgotten,
    ) -> usize {
        let (offset, time) = of;
        self.times[(self.records % CLOCK_RECORDS as u64) as usize] = time;
        self.records += 1;
        let at = match self.index.get(series) {
            Some(&at) => {
                self.unlink(at);
                at
            }
            None => self.add(series, offset.0 < self.maybe_stored_until.0, model),
        };
        self.link_newest(at);
        while self.index.len() > settings.max {
            self.forget_oldest(index);
            forgotten.by_max += 1;
        }
        // The one just seen is never idle: its time is not older than the clock, or it comes late and is the newest anyway.
        while self.oldest != at && self.is_idle(self.oldest, settings.idle) {
            self.forget_oldest(index);
            forgotten.by_idle += 1;
        }
        at
    }

    /// The slot of a series that is remembered.
    pub fn known(&self, series: &str) -> Option<usize> {
        self.index.get(series).copied()
    }

    pub fn state(&mut self, slot: usize) -> &mut SeriesState {
        self.slot(slot).1
    }

    /// Name and state of a series.
    pub fn slot(&mut self, slot: usize) -> (&Arc<str>, &mut SeriesState) {
        let Slot { series, state, .. } = &mut self.slots[slot];
        (series, state)
    }

    /// Every series, from the most recently seen.
    pub fn each(&mut self, mut take: impl FnMut(&Arc<str>, &mut SeriesState)) {
        let mut at = self.newest;
        while at != NONE {
            let Slot { series, state, older, .. } = &mut self.slots[at];
            take(series, state);
            at = *older;
        }
    }

    /// All records are judged: slots of forgotten series may be used again. `leave` gets each of them, with the record of the batch
    /// that came when it was forgotten.
    pub fn settle(&mut self, mut leave: impl FnMut(usize, &Arc<str>, &mut SeriesState)) {
        for (slot, index) in self.leaving.drain(..) {
            let Slot { series, state, .. } = &mut self.slots[slot];
            leave(index, series, state);
            self.free.push(slot);
        }
    }

    /// Series with an open incident, those leaving included.
    pub fn open_incidents(&self) -> usize {
        self.open_incidents
    }

    /// Keeps that number.
    pub fn count(&mut self, change: Change) {
        match change {
            Change::Opened => self.open_incidents += 1,
            Change::Updated => {}
            Change::Closed => self.open_incidents = self.open_incidents.saturating_sub(1),
        }
    }

    /// Series remembered.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    fn add(&mut self, series: &str, stored: bool, model: &Model) -> usize {
        let series: Arc<str> = series.into();
        let state = SeriesState::new(model, &series);
        let slot = Slot { series: Arc::clone(&series), state, stored, older: NONE, newer: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.index.insert(series, at);
        at
    }

    fn is_idle(&self, at: usize, idle: Duration) -> bool {
        if idle.is_zero() {
            return false;
        }
        let clock = self.times.iter().min().map_or(i64::MIN, |t| t.0);
        let silent_ms = clock.saturating_sub(self.slots[at].state.time().0);
        u128::try_from(silent_ms).is_ok_and(|silent| silent > idle.as_millis())
    }

    fn forget_oldest(&mut self, index: usize) {
        let at = self.oldest;
        self.unlink(at);
        let Slot { series, stored, .. } = &self.slots[at];
        self.index.remove(series);
        if *stored {
            self.gone.push(Arc::clone(series));
        }
        self.leaving.push((at, index));
    }

    fn link_newest(&mut self, at: usize) {
        self.slots[at].older = self.newest;
        self.slots[at].newer = NONE;
        match self.newest {
            NONE => self.oldest = at,
            newest => self.slots[newest].newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: usize) {
        let (older, newer) = (self.slots[at].older, self.slots[at].newer);
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::model::testing::{plane, table};
    use crate::model::{Auto, ModelSettings, Profile, TrainingSource};

    fn model() -> Model {
        let settings = ModelSettings { steps: 5, window: Auto::Fixed(2), ..Default::default() };
        let source = TrainingSource::File { name: "test".to_owned(), rows: 300 };
        Model::fit(&table(1, plane(1, 300, 1, 1)), &settings, Profile::Balanced, source, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap()
    }

    struct Bench {
        table: SeriesTable,
        model: Model,
        settings: SeriesSettings,
        forgotten: Forgotten,
    }

    fn bench(max: usize, idle: Duration) -> Bench {
        let settings = SeriesSettings { max, idle, ..SeriesSettings::default() };
        Bench { table: SeriesTable::new(NextOffset(0)), model: model(), settings, forgotten: Forgotten::default() }
    }

    impl Bench {
        /// A record of `series` at second `time`; how many records of it are known now.
        fn see(&mut self, series: &str, time: i64) -> u64 {
            let time = EventTime(time * 1000);
            let at = self.table.see(series, (Offset(0), time), 0, &self.model, &self.settings, &mut self.forgotten);
            let state = self.table.state(at);
            state.observe(&self.model, (Offset(0), time), &[0.5], Duration::ZERO);
            state.seen()
        }
    }

    #[test]
    fn the_least_recently_seen_series_goes_first() {
        let mut b = bench(3, Duration::ZERO);
        for series in ["a", "b", "c", "a", "d"] {
            b.see(series, 0);
        }
        assert_eq!((b.table.len(), b.forgotten), (3, Forgotten { by_max: 1, by_idle: 0 }));
        assert_eq!(b.see("a", 0), 3);
        assert_eq!(b.see("c", 0), 2);
        assert_eq!(b.see("b", 0), 1, "b was forgotten");
        assert_eq!(b.see("d", 0), 1, "and then d, for b");
    }

    #[test]
    fn memory_is_bounded_by_the_limit_and_the_open_batch() {
        let mut b = bench(10, Duration::ZERO);
        for i in 0..10_000 {
            b.see(&format!("s{i}"), i);
            if i % 50 == 49 {
                b.table.settle(|_, _, _| {});
            }
        }
        assert_eq!((b.table.len(), b.forgotten.by_max), (10, 9_990));
        assert!(b.table.slots.len() <= 60, "{}", b.table.slots.len());
    }

    #[test]
    fn a_forgotten_series_keeps_its_slot_until_the_batch_is_judged() {
        let mut b = bench(1, Duration::ZERO);
        let of = (Offset(0), EventTime(0));
        let first = b.table.see("a", of, 0, &b.model, &b.settings, &mut b.forgotten);
        let second = b.table.see("b", of, 0, &b.model, &b.settings, &mut b.forgotten);
        assert_ne!(first, second);
        b.table.settle(|_, _, _| {});
        assert_eq!(b.table.see("c", of, 0, &b.model, &b.settings, &mut b.forgotten), first);
    }

    #[test]
    fn a_silent_series_is_forgotten_when_the_partition_has_moved_on() {
        let mut b = bench(100, Duration::from_secs(60));
        b.see("quiet", 0);
        for second in 1..=60 {
            b.see("busy", second);
        }
        assert_eq!(b.table.len(), 2);
        for second in 61..=68 {
            b.see("busy", second);
        }
        assert_eq!((b.table.len(), b.forgotten), (1, Forgotten { by_max: 0, by_idle: 1 }));
        assert_eq!(b.see("quiet", 69), 1);
    }

    #[test]
    fn one_wrong_clock_makes_nobody_idle() {
        let mut b = bench(100, Duration::from_secs(60));
        for second in 0..100 {
            b.see("a", second);
            b.see("b", second);
            b.see("wrong", 9_000_000);
        }
        assert_eq!((b.table.len(), b.forgotten), (3, Forgotten::default()));
    }

    /// Against a plain list, on random records.
    #[test]
    fn the_list_agrees_with_a_plain_one() {
        let mut b = bench(7, Duration::ZERO);
        let mut plain: Vec<(String, u64)> = Vec::new();
        let mut random = 1u64;
        for _ in 0..5_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let series = format!("s{}", (random >> 40) % 12);
            let seen = match plain.iter().position(|(s, _)| *s == series) {
                Some(at) => plain.remove(at).1 + 1,
                None => 1,
            };
            plain.push((series.clone(), seen));
            if plain.len() > 7 {
                plain.remove(0);
            }
            assert_eq!(b.see(&series, 0), seen);
            b.table.settle(|_, _, _| {});
        }
    }
}
