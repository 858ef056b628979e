//! What is remembered of one series: enough to judge its next record, and nothing else. A checkpoint of a series is a
//! copy of this struct.

use std::time::Duration;

use crate::incident::{Incident, Tracker};
use crate::model::{Edition, Model};
use crate::record::{EventTime, Offset};

/// Of the encoding. Another one is not read: the series begins anew.
const VERSION: u8 = 4;

/// Version and numbers.
const HEAD: usize = 1 + 2 * 4 + 4 * 8;
/// Length of an encoded state without its values and without an incident.
pub(super) const STATE_BYTES: usize = HEAD + 1;

/// Why stored state is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("read state: expected version {VERSION}, found {found}")]
    Version { found: u8 },
    #[error("read state: expected {expected} bytes or more, found {found}")]
    Length { expected: usize, found: usize },
    #[error("read state: expected a finite {what}")]
    NotFinite { what: &'static str },
    #[error("read state: expected an incident, or none")]
    Incident,
    #[error("read state: it is of model {found}, expected {expected}")]
    Model { found: String, expected: String, edition: Edition },
}

/// Levels of one record, before the division by the thresholds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    pub record: f64,
    pub smoothed: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeriesState {
    /// Of the last record: the state includes it, and none after it.
    last: Offset,
    /// Records seen since the window began.
    seen: u64,
    /// Of the last record.
    time: EventTime,
    /// Smoothed level (before the division by the threshold).
    smoothed: f64,
    /// What each feature has made of the smoothed level, above that of an ordinary record: smoothed as the level is.
    blame: Vec<f32>,
    /// The open incident, or what may become one.
    pub incident: Tracker,
    /// The last window's scaled values as a ring of records; record `seen % window` is overwritten next.
    ring: Vec<f32>,
    features: usize,
}

/// An encoded state, taken apart without knowledge of its model.
struct Parts<'a> {
    features: usize,
    /// Offset, records seen, time, smoothed level.
    numbers: &'a [[u8; 8]],
    blame: &'a [u8],
    ring: &'a [u8],
    incident: Tracker,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Result<Parts<'a>, StateError> {
        let short = |expected| StateError::Length { expected, found: bytes.len() };
        match bytes.first() {
            Some(&VERSION) => {}
            None => return Err(short(HEAD)),
            Some(&found) => return Err(StateError::Version { found }),
        }
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or(short(HEAD))?;
        let (sizes, numbers) = head[1..].split_at(2 * 4);
        let mut sizes = sizes.as_chunks::<4>().0.iter().map(|size| u64::from(u32::from_le_bytes(*size)));
        let mut size = || sizes.next().unwrap_or_default();
        let (features, window) = (size(), size());
        // Neither overflows: both are of 32 bits.
        let lengths = [features * 4, (features * window).saturating_mul(4)];
        let [blame, ring] = lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let (blame, rest) = rest.split_at_checked(blame).ok_or(short(HEAD.saturating_add(blame)))?;
        let (ring, incident) = rest.split_at_checked(ring).ok_or(short(HEAD.saturating_add(ring)))?;
        let incident = Tracker::decode(incident, features as usize).ok_or(StateError::Incident)?;
        Ok(Parts { features: features as usize, numbers: numbers.as_chunks().0, blame, ring, incident })
    }
}

impl SeriesState {
    pub fn new(model: &Model) -> Self {
        let features = model.schema().len();
        let ring = vec![f32::NAN; model.window() * features];
        Self {
            last: Offset(-1),
            seen: 0,
            time: EventTime::MIN,
            smoothed: model.calibration().smoothed_start(),
            blame: vec![0.0; features],
            incident: Tracker::default(),
            ring,
            features,
        }
    }

    /// Takes the next record in; `values`: one per feature, NaN = missing. Farther than `gap` (unless that is zero) from the
    /// record before, earlier or later, the window begins anew, and `restart` is due before this record's `smooth`; then the
    /// answer is true. Within the gap, a late record counts where it comes.
    pub fn observe(&mut self, model: &Model, at: (Offset, EventTime), values: &[f64], gap: Duration) -> bool {
        let (last, time) = at;
        self.last = last;
        let apart_ms = time.0.abs_diff(self.time.0);
        let anew = self.seen > 0 && !gap.is_zero() && u128::from(apart_ms) > gap.as_millis();
        if anew {
            self.seen = 0;
        }
        self.time = time;
        let at = self.oldest();
        model.scaler().scale(values, &mut self.ring[at..at + self.features]);
        self.seen += 1;
        anew
    }

    /// The smoothed level of a series that begins.
    pub fn restart(&mut self, model: &Model) {
        self.smoothed = model.calibration().smoothed_start();
        self.blame.fill(0.0);
    }

    /// Records seen since the window began.
    #[cfg(test)]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Offset of the last record.
    pub fn last(&self) -> Offset {
        self.last
    }

    /// Appends the state: version, features, length of the window, offset, records seen, time, smoothed level, blame, window, incident;
    /// numbers in little endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend((self.features as u32).to_le_bytes());
        out.extend(((self.ring.len() / self.features) as u32).to_le_bytes());
        out.extend(self.last.0.to_le_bytes());
        out.extend(self.seen.to_le_bytes());
        out.extend(self.time.0.to_le_bytes());
        out.extend(self.smoothed.to_le_bytes());
        self.blame.iter().chain(&self.ring).for_each(|v| out.extend(v.to_le_bytes()));
        self.incident.encode(out);
    }

    /// Reads what `encode` wrote, from anywhere.
    pub fn decode(bytes: &[u8], model: &Model) -> Result<Self, StateError> {
        let mut state = Self::new(model);
        let Parts { features, numbers, blame, ring, incident } = Parts::of(bytes)?;
        if (features, ring.len()) != (state.features, 4 * state.ring.len()) {
            let expected = 4 * (state.blame.len() + state.ring.len());
            return Err(StateError::Length { expected, found: 4 * features + ring.len() });
        }
        state.incident = incident;
        let mut numbers = numbers.iter();
        let mut next = || numbers.next().copied().unwrap_or_default();
        state.last = Offset(i64::from_le_bytes(next()));
        state.seen = u64::from_le_bytes(next());
        state.time = EventTime(i64::from_le_bytes(next()));
        state.smoothed = f64::from_le_bytes(next());
        if !state.smoothed.is_finite() {
            return Err(StateError::NotFinite { what: "smoothed level" });
        }
        for (value, bytes) in state.blame.iter_mut().zip(blame.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
            if !value.is_finite() {
                return Err(StateError::NotFinite { what: "blame" });
            }
        }
        for (value, bytes) in state.ring.iter_mut().zip(ring.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
            // NaN is a missing value; any one, but the detector must meet only its own.
            *value = if value.is_nan() { f32::NAN } else { *value };
            if value.is_infinite() {
                return Err(StateError::NotFinite { what: "value in the window" });
            }
        }
        Ok(state)
    }

    /// Offset of the last record in what `encode` wrote, with whatever model.
    pub fn last_in(bytes: &[u8]) -> Option<Offset> {
        let (&version, rest) = bytes.split_first()?;
        let (number, _) = rest.get(2 * 4..)?.split_first_chunk()?;
        (version == VERSION).then_some(Offset(i64::from_le_bytes(*number)))
    }

    /// Offset of the last record, and the incident that is open in what `encode` wrote, with whatever model. None if there is none.
    pub fn open_in(bytes: &[u8]) -> Option<(Offset, Incident)> {
        Some((Self::last_in(bytes)?, Parts::of(bytes).ok()?.incident.open()?.clone()))
    }

    /// Event time of the last record.
    pub fn time(&self) -> EventTime {
        self.time
    }

    /// Whether there are as many records as the window is long.
    pub fn is_full(&self) -> bool {
        self.seen >= (self.ring.len() / self.features) as u64
    }

    /// Appends the window, oldest record first.
    pub fn window(&self, out: &mut Vec<f32>) {
        let (newer, older) = self.ring.split_at(self.oldest());
        out.extend_from_slice(older);
        out.extend_from_slice(newer);
    }

    /// Levels after a record at `distance`. Called once per record, in order. `parts`: what each feature contributed to the distance.
    pub fn smooth(&mut self, model: &Model, distance: f64, parts: &[f32]) -> Levels {
        let calibration = model.calibration();
        let level = calibration.level(distance);
        self.smoothed = calibration.smooth(self.smoothed, level);
        // The level is smoothed linearly, so what a record adds to it can be dealt out to the features and forgotten at the same rate.
        let total: f32 = parts.iter().sum();
        let above = (level - calibration.smoothed_start()).max(0.0) as f32;
        let per_part = if total > 0.0 && total.is_finite() { above / total } else { 0.0 };
        let weight = calibration.weight() as f32;
        for (blame, part) in self.blame.iter_mut().zip(parts) {
            *blame += weight * (per_part * *part - *blame);
        }
        Levels { record: level, smoothed: self.smoothed }
    }

    /// What each feature has made of the smoothed level, above that of an ordinary record.
    pub fn blame(&self) -> &[f32] {
        &self.blame
    }

    /// Where the oldest record of the ring starts.
    fn oldest(&self) -> usize {
        let window = self.ring.len() / self.features;
        (self.seen % window as u64) as usize * self.features
    }
}
