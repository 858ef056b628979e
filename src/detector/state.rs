//! What is remembered of one series: enough to judge its next record, and nothing else. A checkpoint of a series is a
//! copy of this struct.

use std::time::Duration;

use crate::incident::{Incident, Tracker};
use crate::model::{Edition, Memory, MemoryError, Model};
use crate::record::{EventTime, Offset};

/// Of the encoding. Another one is not read: the series begins anew.
const VERSION: u8 = 7;

/// Version, sizes and numbers.
const HEAD: usize = 1 + 3 * 4 + 3 * 8;

/// Length of an encoded state without an incident.
pub(super) fn state_bytes((floats, numbers): (usize, usize)) -> usize {
    HEAD + 4 * floats + 8 * numbers + 1
}

/// Why stored state is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("read state: expected version {VERSION}, found {found}")]
    Version { found: u8 },
    #[error("read state: expected {expected} bytes or more, found {found}")]
    Length { expected: usize, found: usize },
    #[error("read state: a {what} is not finite, or beyond what it can be")]
    OutOfRange { what: &'static str },
    #[error("read state: expected an incident, or none")]
    Incident,
    #[error("read state: it is of model {found}, expected {expected}")]
    Model { found: String, expected: String, edition: Edition },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeriesState {
    /// Of the last record: the state includes it, and none after it.
    last: Offset,
    /// Records seen since the window began, without those from which only the scale of the series was learned.
    seen: u64,
    /// Of the last record.
    time: EventTime,
    /// What the model wants to be remembered.
    pub memory: Memory,
    /// The open incident, or what may become one.
    pub incident: Tracker,
}

/// An encoded state, taken apart without knowledge of its model.
struct Parts<'a> {
    /// Offset, records seen, time.
    head: &'a [[u8; 8]],
    floats: &'a [[u8; 4]],
    numbers: &'a [[u8; 8]],
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
        let (sizes, head) = head[1..].split_at(3 * 4);
        let mut sizes = sizes.as_chunks::<4>().0.iter().map(|size| u32::from_le_bytes(*size) as usize);
        let mut size = || sizes.next().unwrap_or_default();
        let (features, floats, numbers) = (size(), size(), size());
        let [floats, numbers] = [floats.saturating_mul(4), numbers.saturating_mul(8)];
        let (floats, rest) = rest.split_at_checked(floats).ok_or(short(HEAD.saturating_add(floats)))?;
        let (numbers, incident) = rest.split_at_checked(numbers).ok_or(short(HEAD.saturating_add(numbers)))?;
        let incident = Tracker::decode(incident, features).ok_or(StateError::Incident)?;
        Ok(Parts { head: head.as_chunks().0, floats: floats.as_chunks().0, numbers: numbers.as_chunks().0, incident })
    }
}

impl SeriesState {
    pub fn new(model: &Model, series: &str) -> Self {
        let incident = Tracker::default();
        Self { last: Offset(-1), seen: 0, time: EventTime::MIN, memory: model.begin(series), incident }
    }

    /// Takes the next record in; `values`: one per feature, NaN = missing. Farther than `gap` (unless that is zero) from the record before,
    /// earlier or later, the series begins anew, and `Model::restart_residuals` and `restart_levels` are due before this record is judged.
    /// Within the gap, a late record counts where it comes.
    pub fn observe(&mut self, model: &Model, at: (Offset, EventTime), values: &[f64], gap: Duration) -> Observed {
        let (last, time) = at;
        self.last = last;
        let apart_ms = time.0.abs_diff(self.time.0);
        let first = self.seen == 0;
        let anew = !first && !gap.is_zero() && u128::from(apart_ms) > gap.as_millis();
        if anew {
            self.seen = 0;
        }
        let elapsed_ms = if first || anew { 0 } else { time.0.saturating_sub(self.time.0).max(0).cast_unsigned() };
        self.time = time;
        let taken = model.take(&mut self.memory, self.seen, values);
        self.seen += u64::from(taken);
        Observed { anew, elapsed_ms, taken }
    }

    /// The last record that the model took, scaled.
    pub fn latest(&self, model: &Model) -> &[f32] {
        model.latest(&self.memory, self.seen)
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

    /// Appends the state: version, features, sizes, offset, records seen, time, what the model remembers, incident; numbers in little
    /// endian.
    pub fn encode(&self, model: &Model, out: &mut Vec<u8>) {
        let (floats, numbers) = model.memory_sizes();
        out.push(VERSION);
        for size in [model.schema().len(), floats, numbers] {
            out.extend((size as u32).to_le_bytes());
        }
        out.extend(self.last.0.to_le_bytes());
        out.extend(self.seen.to_le_bytes());
        out.extend(self.time.0.to_le_bytes());
        self.memory.floats().iter().for_each(|v| out.extend(v.to_le_bytes()));
        self.memory.numbers().for_each(|v| out.extend(v.to_le_bytes()));
        self.incident.encode(out);
    }

    /// Reads what `encode` wrote, from anywhere.
    pub fn decode(bytes: &[u8], model: &Model) -> Result<Self, StateError> {
        let Parts { head, floats, numbers, incident } = Parts::of(bytes)?;
        if incident.open().is_some_and(|open| open.parts.len() != model.schema().len()) {
            return Err(StateError::Incident);
        }
        let memory = model
            .recall(
                floats.iter().map(|bytes| f32::from_le_bytes(*bytes)),
                numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)),
            )
            .map_err(|error| match error {
                MemoryError::Length { floats, numbers } => {
                    StateError::Length { expected: state_bytes((floats, numbers)), found: bytes.len() }
                }
                MemoryError::OutOfRange(what) => StateError::OutOfRange { what },
            })?;
        let mut head = head.iter();
        let mut next = || i64::from_le_bytes(head.next().copied().unwrap_or_default());
        let (last, seen, time) = (Offset(next()), next().cast_unsigned(), EventTime(next()));
        Ok(Self { last, seen, time, memory, incident })
    }

    /// Offset of the last record in what `encode` wrote, with whatever model.
    pub fn last_in(bytes: &[u8]) -> Option<Offset> {
        let (&version, rest) = bytes.split_first()?;
        let (number, _) = rest.get(3 * 4..)?.split_first_chunk()?;
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

    /// Whether there are as many records as the model's window is long.
    pub fn is_full(&self, model: &Model) -> bool {
        self.seen >= model.window() as u64
    }

    /// Appends the input of network `member`.
    pub fn input(&self, model: &Model, member: usize, out: &mut Vec<f32>) {
        model.input(member, &self.memory, self.seen, out);
    }
}

/// How a record came after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Whether the series begins anew with it.
    pub anew: bool,
    /// Event time since the one before; 0 if it is the first, or late.
    pub elapsed_ms: u64,
    /// Whether more was learned from it than how its series is to be scaled.
    pub taken: bool,
}
