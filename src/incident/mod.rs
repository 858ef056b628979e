//! Incidents: a run of anomalous records of one series, told as one thing: opened, updated now and then, closed.
//!
//! A function of the series' records, their scores and event times; never of the wall clock.

mod event;
mod settings;
#[cfg(test)]
mod tests;

pub use event::{Event, SENSORS_MAX};
pub use settings::{IncidentSettings, NOfM, Span, SpanError};

use crate::record::{EventTime, Offset};

/// Growth of the peak that is worth an update.
const PEAK_GROWTH: f64 = 1.25;

/// What a series has to say about one of its records.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub offset: Offset,
    pub time: EventTime,
    /// 1.0 is the threshold.
    pub score: f64,
    pub flagged: bool,
    /// What each feature contributed to the score; any unit.
    pub parts: &'a [f32],
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    Opened,
    /// Twice as many flagged records as when it was last told, or a higher peak.
    Updated,
    Closed,
}

impl Change {
    pub const NAMES: [&'static str; 3] = ["opened", "updated", "closed"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// A run of anomalous records. Its first flagged record gives it its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Of the first flagged record.
    pub start: Offset,
    pub start_time: EventTime,
    /// Of the last record that kept it open.
    pub last_time: EventTime,
    /// Flagged records.
    pub count: u64,
    /// Highest score.
    pub peak: f64,
    pub peak_time: EventTime,
    /// By feature: its shares in the scores, added up.
    pub parts: Vec<f32>,
    /// Count and peak when it was last told.
    told: (u64, f64),
    /// Records since the last one that kept it open.
    quiet: u64,
}

/// A flagged record before an incident is open.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    offset: Offset,
    time: EventTime,
    score: f64,
    /// Records of the series since then.
    age: u64,
}

/// What is remembered of one series: its open incident, or what may become one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracker {
    open: Option<Box<Incident>>,
    /// Flagged among the last `m` records, oldest first; empty while an incident is open.
    candidates: Vec<Candidate>,
}

impl Tracker {
    /// Takes the next record of the series in; `tell` gets what changed, in order. A record may close one incident and open another.
    pub fn see(&mut self, settings: &IncidentSettings, seen: &Seen<'_>, tell: &mut dyn FnMut(Change, &Incident)) {
        if let Some(incident) = &self.open
            && let Span::Time(quiet) = settings.quiet
            && is_later(seen.time, incident.last_time, quiet)
        {
            self.close(tell);
        }
        match self.open.as_mut().map(|incident| incident.goes_on(settings, seen, tell)) {
            Some(true) => {}
            Some(false) => self.close(tell),
            None => self.wait(settings.open, seen, tell),
        }
    }

    /// The series ends, or begins anew: so does what was open.
    pub fn close(&mut self, tell: &mut dyn FnMut(Change, &Incident)) {
        self.candidates.clear();
        if let Some(incident) = self.open.take() {
            tell(Change::Closed, &incident);
        }
    }

    /// The incident that is open.
    pub fn open(&self) -> Option<&Incident> {
        self.open.as_deref()
    }

    /// Counts flagged records until there are enough.
    fn wait(&mut self, open: NOfM, seen: &Seen<'_>, tell: &mut dyn FnMut(Change, &Incident)) {
        self.candidates.iter_mut().for_each(|c| c.age += 1);
        self.candidates.retain(|c| c.age < open.of);
        if !seen.flagged {
            return;
        }
        self.candidates.push(Candidate { offset: seen.offset, time: seen.time, score: seen.score, age: 0 });
        if (self.candidates.len() as u64) < open.n {
            return;
        }
        let highest = self.candidates.iter().copied().reduce(|a, b| if b.score > a.score { b } else { a });
        let (Some(first), Some(highest)) = (self.candidates.first(), highest) else { return };
        let mut incident = Incident {
            start: first.offset,
            start_time: first.time,
            last_time: seen.time,
            count: self.candidates.len() as u64,
            peak: highest.score,
            peak_time: highest.time,
            parts: vec![0.0; seen.parts.len()],
            told: (0, 0.0),
            quiet: 0,
        };
        incident.blame(seen);
        incident.told = (incident.count, incident.peak);
        tell(Change::Opened, &incident);
        self.candidates.clear();
        self.open = Some(Box::new(incident));
    }

    /// Appends what is remembered; numbers in little endian. `features` numbers per open incident.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.open {
            None => {
                out.push(self.candidates.len() as u8); // at most NOfM::MOST
                for c in &self.candidates {
                    out.extend(c.offset.0.to_le_bytes());
                    out.extend(c.time.0.to_le_bytes());
                    out.extend(c.score.to_le_bytes());
                    out.extend(c.age.to_le_bytes());
                }
            }
            Some(i) => {
                out.push(OPEN);
                for number in [i.start.0, i.start_time.0, i.last_time.0, i.peak_time.0] {
                    out.extend(number.to_le_bytes());
                }
                for number in [i.count, i.told.0, i.quiet] {
                    out.extend(number.to_le_bytes());
                }
                out.extend(i.peak.to_le_bytes());
                out.extend(i.told.1.to_le_bytes());
                i.parts.iter().for_each(|part| out.extend(part.to_le_bytes()));
            }
        }
    }

    /// Reads what `encode` wrote, from anywhere; None if it is not that.
    pub fn decode(bytes: &[u8], features: usize) -> Option<Tracker> {
        let (&kind, rest) = bytes.split_first()?;
        let (numbers, _) = rest.as_chunks::<8>();
        let mut numbers = numbers.iter().copied();
        if kind != OPEN {
            let expected = 4 * usize::from(kind);
            if u64::from(kind) > NOfM::MOST || rest.len() != 8 * expected {
                return None;
            }
            let candidates = std::iter::from_fn(|| {
                Some(Candidate {
                    offset: Offset(i64::from_le_bytes(numbers.next()?)),
                    time: EventTime(i64::from_le_bytes(numbers.next()?)),
                    score: f64::from_le_bytes(numbers.next()?),
                    age: u64::from_le_bytes(numbers.next()?),
                })
            });
            let tracker = Tracker { open: None, candidates: candidates.collect() };
            return tracker.candidates.iter().all(|c| c.score.is_finite()).then_some(tracker);
        }
        const NUMBERS: usize = 9;
        if rest.len() != 8 * NUMBERS + 4 * features {
            return None;
        }
        let mut signed = || numbers.next().map(i64::from_le_bytes).unwrap_or_default();
        let (start, start_time, last_time, peak_time) =
            (Offset(signed()), EventTime(signed()), EventTime(signed()), EventTime(signed()));
        let mut whole = || signed().cast_unsigned();
        let (count, told_count, quiet) = (whole(), whole(), whole());
        let mut real = || f64::from_bits(whole());
        let (peak, told_peak) = (real(), real());
        let parts: Vec<f32> =
            rest[8 * NUMBERS..].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let finite = peak.is_finite() && told_peak.is_finite() && parts.iter().all(|p| p.is_finite() && *p >= 0.0);
        let told = (told_count, told_peak);
        let incident = Incident { start, start_time, last_time, count, peak, peak_time, parts, told, quiet };
        finite.then(|| Tracker { open: Some(Box::new(incident)), candidates: Vec::new() })
    }
}

/// In the encoding: an incident is open. Smaller numbers count candidates.
const OPEN: u8 = 255;

impl Incident {
    /// Each feature's share of the error over the whole incident, 0 to 1, the largest first; high scores count for more. `names`: of the
    /// features.
    pub fn shares<'a>(&self, names: &'a [String]) -> Vec<(&'a str, f64)> {
        let total: f64 = self.parts.iter().map(|part| f64::from(*part)).sum();
        let share = |part: f32| if total > 0.0 { f64::from(part) / total } else { 0.0 };
        let mut shares: Vec<_> =
            names.iter().zip(&self.parts).map(|(name, part)| (name.as_str(), share(*part))).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: equal shares stay in the schema's order
        shares
    }

    /// Takes a record in; false if the incident is over with it.
    fn goes_on(
        &mut self,
        settings: &IncidentSettings,
        seen: &Seen<'_>,
        tell: &mut dyn FnMut(Change, &Incident),
    ) -> bool {
        if !seen.flagged {
            self.quiet += 1;
            return !matches!(settings.quiet, Span::Records(records) if self.quiet >= records);
        }
        self.quiet = 0;
        self.last_time = seen.time;
        self.count += u64::from(seen.flagged);
        if seen.score > self.peak {
            (self.peak, self.peak_time) = (seen.score, seen.time);
        }
        self.blame(seen);
        if self.count >= self.told.0.saturating_mul(2) || self.peak >= self.told.1 * PEAK_GROWTH {
            self.told = (self.count, self.peak);
            tell(Change::Updated, self);
        }
        true
    }

    /// Adds a record's shares, a high score counting for more.
    fn blame(&mut self, seen: &Seen<'_>) {
        let total: f32 = seen.parts.iter().sum();
        if total > 0.0 && total.is_finite() {
            let weight = seen.score as f32 / total;
            self.parts.iter_mut().zip(seen.parts).for_each(|(sum, part)| *sum += weight * part);
        }
    }
}

fn is_later(time: EventTime, than: EventTime, by: std::time::Duration) -> bool {
    let ms = time.0.saturating_sub(than.0);
    u128::try_from(ms).is_ok_and(|ms| ms > by.as_millis())
}
