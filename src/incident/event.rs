//! What leaves for a change of an incident; its form on the wire is `deploy/schema/incident.schema.json`.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Change, Incident};
use crate::record::{PartitionId, Position, Severity};

/// Sensors named in one event; the rest share `other_share`.
pub const SENSORS_MAX: usize = 10;
/// Sensors named in its sentence.
const NAMED_MAX: usize = 3;
/// A rest of all shares that is less is none.
const ROUNDING: f64 = 1e-6;

/// One change of an incident. All numbers are finite.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub change: Change,
    pub incident: &'a Incident,
    pub topic: &'a str,
    pub partition: PartitionId,
    pub series: &'a str,
    /// The model's fingerprint, 16 hexadecimal digits.
    pub model: &'a str,
    /// Of the features, as many as the incident has parts.
    pub names: &'a [String],
}

/// A sensor's part in an incident.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Part<'a> {
    name: &'a str,
    /// Of the error over the whole incident, 0 to 1; high scores count for more.
    share: f64,
}

impl Event<'_> {
    /// `topic-partition-offset` of the first flagged record: the same for all that is said of this incident.
    pub fn id(&self) -> String {
        Position { partition: self.partition, offset: self.incident.start }.id(self.topic)
    }

    /// By the highest score so far.
    pub fn severity(&self) -> Severity {
        Severity::of_score(self.incident.peak)
    }

    /// The event in one sentence.
    pub fn summary(&self) -> String {
        let Incident { start_time, last_time, count, peak, .. } = self.incident;
        let whose = if self.series.is_empty() { String::new() } else { format!("{}: ", self.series) };
        let records = if *count == 1 { "1 record".to_owned() } else { format!("{count} records") };
        let time = match self.change {
            Change::Closed => format!("anomalous from {start_time} to {last_time}"),
            _ => format!("anomalous since {start_time}"),
        };
        let named: Vec<String> = self
            .parts()
            .iter()
            .take(NAMED_MAX)
            .enumerate()
            .filter(|(rank, part)| *rank == 0 && part.share > 0.0 || part.share >= 0.05)
            .map(|(_, part)| format!("{} ({:.0} %)", part.name, 100.0 * part.share))
            .collect();
        let mostly = if named.is_empty() { String::new() } else { format!(", mostly {}", named.join(", ")) };
        format!("{whose}{time}, {records}, peak score {peak:.2}{mostly}")
    }

    /// Appends the event as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Only a writer that fails or a map with odd keys could make this fail; here are neither.
        serde_json::to_writer(out, self).expect("an event serialises into memory");
    }

    /// All sensors, the largest share first.
    fn parts(&self) -> Vec<Part<'_>> {
        self.incident.shares(self.names).into_iter().map(|(name, share)| Part { name, share }).collect()
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sensors = self.parts();
        sensors.truncate(SENSORS_MAX);
        let rest = 1.0 - sensors.iter().map(|s| s.share).sum::<f64>();
        let incident = self.incident;
        let mut event = serializer.serialize_struct("Event", 16)?;
        event.serialize_field("id", &self.id())?;
        event.serialize_field("event", self.change.name())?;
        event.serialize_field("series", self.series)?;
        event.serialize_field("topic", self.topic)?;
        event.serialize_field("partition", &self.partition)?;
        event.serialize_field("offset", &incident.start)?;
        event.serialize_field("start", &incident.start_time)?;
        event.serialize_field("last", &incident.last_time)?;
        event.serialize_field("count", &incident.count)?;
        event.serialize_field("peak_score", &incident.peak)?;
        event.serialize_field("peak_time", &incident.peak_time)?;
        event.serialize_field("severity", self.severity().name())?;
        event.serialize_field("model", self.model)?;
        event.serialize_field("sensors", &sensors)?;
        event.serialize_field("other_share", if rest > ROUNDING { &rest } else { &0.0 })?;
        event.serialize_field("summary", &self.summary())?;
        event.end()
    }
}
