//! The model in force, applied: decode and observe one record, judge a batch, write what it means. Knows no Kafka call but `send`.

use std::sync::Arc;

use serde::Serialize;

use super::batch::{Batch, Entry};
use super::live::{self, Anomaly, Glance, OpenIncident, Point};
use super::{InForce, Tuning};
use crate::detector::{Arrival, Detector, Forgotten, Open, SensorNow, StateError, Told, Verdict};
use crate::incident::Event;
use crate::kafka::{self, Assigned, DeadLetterForm, KafkaSettings, Message, Outgoing, Output, Stored};
use crate::metrics::{Outcomes, Restore, Scores};
use crate::model::{Edition, Model, Seen};
use crate::record::{
    Alert, Decoder, InputSettings, NextOffset, Offset, PartitionId, RawRecord, SchemaError, Sensor, WriterSchemas,
};

/// Decoder and detector for one model, and the batch between them.
pub struct Engine {
    model: Arc<Model>,
    decoder: Decoder,
    detector: Detector,
    values: Vec<f64>,
    batch: Batch,
    verdicts: Vec<Verdict>,
    wire: Vec<u8>,
    dead_letters: DeadLetterForm,
    left_open: Vec<LeftOpen>,
}

/// Where a partition goes on.
pub struct Found {
    pub partition: PartitionId,
    /// Where its records count from.
    pub from: NextOffset,
    /// What its state includes; between there and `from` records are replayed. None: all series begin anew.
    pub checkpoint: Option<NextOffset>,
    pub restore: Restore,
    /// Series whose stored state cannot be read.
    pub unreadable: u64,
}

impl Found {
    /// Where reading begins.
    pub fn begin(&self) -> NextOffset {
        self.checkpoint.unwrap_or(self.from)
    }
}

/// An incident that was open in stored state which is of no use: it ends unseen.
struct LeftOpen {
    told: Told,
    /// The fingerprint of the model that it was found with.
    model: String,
}

/// A topic that takes no dead letter with as little of the message as this takes none at all.
const DEAD_LETTER_BYTES_MIN: usize = 256;

/// One line of the reconstructions topic.
#[derive(Serialize)]
struct CleanLine<'a> {
    id: &'a str,
    time: String,
    series: &'a str,
    /// By sensor, in its own unit.
    values: Values<'a>,
    /// Sensors without a value of their own: theirs are what is expected.
    missing: Vec<&'a str>,
}

/// Names and numbers, as a JSON object; without those that are none: nothing is known of them.
struct Values<'a>(&'a [String], &'a [f64]);

impl Serialize for Values<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1).filter(|(_, value)| !value.is_nan()))
    }
}

/// One line of the scores topic.
#[derive(Serialize)]
struct ScoreLine<'a> {
    id: &'a str,
    time: String,
    series: &'a str,
    /// None: warming.
    score: Option<f64>,
    flagged: bool,
}

impl Engine {
    pub fn new(
        in_force: &InForce,
        input: &InputSettings,
        schemas: Option<&Arc<dyn WriterSchemas>>,
        tuning: &Tuning,
        dead_letter_max_bytes: usize,
    ) -> Result<Engine, SchemaError> {
        let Tuning { detector, series, incident, .. } = tuning;
        let InForce { model, edition, .. } = in_force.clone();
        let decoder = Decoder::new(input, model.schema())?;
        Ok(Engine {
            decoder: match schemas {
                Some(schemas) => decoder.with_schemas(Arc::clone(schemas)),
                None => decoder,
            },
            detector: Detector::new(Arc::clone(&model), detector, series, incident).of_edition(edition),
            values: vec![0.0; model.schema().len()],
            model,
            batch: Batch::default(),
            verdicts: Vec::new(),
            wire: Vec::new(),
            dead_letters: DeadLetterForm { max_bytes: dead_letter_max_bytes, stamped: true },
            left_open: Vec::new(),
        })
    }

    /// Why a record must wait, if it must. To be asked before [`Engine::take`] and [`Engine::replay`]; of a record that is read again it is
    /// known that it was not refused for that.
    pub fn wait_for(&mut self, raw: &RawRecord<'_>, again: bool) -> Option<String> {
        self.decoder.wait_for(raw, again)
    }

    /// From the next record on.
    pub fn tune(&mut self, tuning: &Tuning) {
        self.detector.tune(&tuning.detector, &tuning.series, &tuning.incident);
    }

    /// Decodes a record straight from the message; `raw` is its view. A record that decodes enters its series and waits for `judge`, one that
    /// does not leaves as a dead letter.
    pub fn take(
        &mut self,
        message: &Message<'_>,
        raw: &RawRecord<'_>,
        kafka: &KafkaSettings,
        output: &mut Output,
        outcomes: &mut Outcomes,
    ) -> kafka::Result<()> {
        match self.decoder.decode(raw, &mut self.values) {
            Ok(decoded) => {
                let arrival = Arrival { position: raw.position, series: &decoded.series, time: decoded.time };
                self.detector.observe(arrival, &self.values);
                self.batch.push(raw.position, decoded.time, &decoded.series, raw.traceparent);
                Ok(())
            }
            Err(refusal) => {
                outcomes.add_dead_letter(refusal.reason());
                output.send(message.dead_letter(&kafka.dead_letters, &refusal, &kafka.group, self.dead_letters))
            }
        }
    }

    /// Takes a record that was judged before: its series' state moves on, nothing is written.
    pub fn replay(&mut self, raw: &RawRecord<'_>) {
        if let Ok(decoded) = self.decoder.decode(raw, &mut self.values) {
            let arrival = Arrival { position: raw.position, series: &decoded.series, time: decoded.time };
            self.detector.observe_again(arrival, &self.values);
            self.batch.push_silent(raw.position, decoded.time);
        }
    }

    /// Writes the checkpoint of a partition, after a `judge`: all its records before `next`.
    pub fn checkpoint(
        &mut self,
        partition: PartitionId,
        next: NextOffset,
        kafka: &KafkaSettings,
        output: &mut Output,
    ) -> kafka::Result<()> {
        let (mut failed, key) = (None, &mut self.wire);
        let marker = self.detector.checkpoint(partition, next, |series, bytes| {
            if failed.is_none() {
                failed = output.send_series(kafka, partition, series, bytes, key).err();
            }
        });
        match failed {
            Some(error) => Err(error),
            None => output.send_marker(kafka, partition, &marker),
        }
    }

    /// Takes up what is stored of a partition. Where nothing of use is stored all series begin anew, and incidents that were open there
    /// end. `seen`: the last model of the models topic that this process has looked at.
    ///
    /// # Errors
    /// Nothing of use can be seen, but there may be more, or it is of a model that is yet to be read.
    pub fn restore(&mut self, assigned: &Assigned, stored: Option<&Stored>, seen: Edition) -> kafka::Result<Found> {
        let Assigned { partition, from, oldest, .. } = *assigned;
        self.left_open.retain(|left| left.told.partition != partition);
        let nothing = Stored { complete: true, ..Stored::default() };
        let Stored { marker, series, complete } = stored.unwrap_or(&nothing);
        let marker = marker.as_deref();
        let names = series.keys().map(String::as_str);
        let series = series.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let restored = marker.map(|marker| self.detector.restore(partition, marker, series.clone(), from));
        let newer = matches!(restored, Some(Err(StateError::Model { edition, .. })) if edition > seen);
        let why = match restored {
            Some(Ok((next, unreadable))) if oldest <= next && next <= from => {
                if unreadable > 0 {
                    tracing::warn!(%partition, series = unreadable, "stored state cannot be read, these series begin anew");
                }
                return Ok(Found { partition, from, checkpoint: Some(next), restore: Restore::Whole, unreadable });
            }
            Some(Ok((next, _))) if next < oldest => {
                format!("records from {next} to {oldest} are no longer in the input")
            }
            Some(Ok((next, _))) => format!("it is of offset {next}, and the group is at {from}"),
            Some(Err(error)) => error.to_string(),
            None => "there is none yet".to_owned(),
        };
        self.detector.begin_anew(partition, from, names);
        if !complete {
            return Err(kafka::Error::Unsettled { partition, why: format!("a transaction is open there; {why}") });
        }
        if newer {
            return Err(kafka::Error::Unsettled { partition, why: format!("it is of a newer model; {why}") });
        }
        if let Some(marker) = marker {
            let (model, told) = Detector::left_open(partition, marker, series);
            self.left_open.extend(told.into_iter().map(|told| LeftOpen { told, model: model.clone() }));
        }
        if marker.is_some() {
            tracing::warn!(%partition, why, "the stored state is of no use, the partition's series begin anew");
        }
        let restore = if marker.is_some() { Restore::Discarded } else { Restore::None };
        Ok(Found { partition, from, checkpoint: None, restore, unreadable: 0 })
    }

    /// Records taken and not yet judged.
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }

    /// Scores everything taken since the last call.
    pub fn judge(&mut self) {
        self.verdicts.clear();
        self.verdicts.extend_from_slice(self.detector.judge());
    }

    /// Sends what the last `judge` found: an alert for each flagged record, and for every record a line where scores, or cleaned records, are wanted.
    pub fn emit(
        &mut self,
        kafka: &KafkaSettings,
        output: &mut Output,
        outcomes: &mut Outcomes,
        scores: &mut Scores,
        glance: &mut Glance,
    ) -> kafka::Result<()> {
        let count = self.verdicts.len();
        for index in 0..count {
            let entry = self.batch.get(index);
            if entry.silent {
                continue;
            }
            let (score, flagged, incident) = match self.verdicts[index] {
                Verdict::Warming => (None, false, None),
                Verdict::Scored { score, flagged, incident } => (Some(score), flagged, incident),
            };
            match score {
                None => outcomes.warming += 1,
                Some(score) => {
                    outcomes.scored += 1;
                    scores.observe(score);
                    glance.see(score, flagged);
                    if glance.wants(index, count, flagged)
                        && let Some(place) = self.detector.place(index)
                    {
                        let (series, time) = (entry.series.to_owned(), entry.time.to_string());
                        glance.point(Point { place, score, series, time });
                    }
                }
            }
            if flagged {
                let scored = (score.unwrap_or(1.0), incident);
                let (severity, sensor) =
                    alert(&self.model, &mut self.detector, index, scored, &entry, kafka, (&mut self.wire, glance));
                outcomes.add_anomaly(severity, sensor);
                output.send(Outgoing {
                    topic: &kafka.anomalies,
                    partition: None,
                    key: Some(entry.series.as_bytes()),
                    value: Some(&self.wire),
                    headers: entry.traceparent.map(kafka::trace_headers),
                    timestamp_ms: None,
                })?;
            }
            if !kafka.scores.is_empty() {
                score_line(&entry, kafka, score, flagged, &mut self.wire);
                output.send(Outgoing {
                    topic: &kafka.scores,
                    key: Some(entry.series.as_bytes()),
                    value: Some(&self.wire),
                    ..Outgoing::default()
                })?;
            }
            if !kafka.reconstructions.is_empty() {
                self.send_clean(index, kafka, output)?;
            }
        }
        self.tell(kafka, output, outcomes)?;
        self.batch.clear();
        self.verdicts.clear();
        Ok(())
    }

    /// Sends record `index` of the judged batch without the noise of its sensors; none while its series is warming.
    fn send_clean(&mut self, index: usize, kafka: &KafkaSettings, output: &mut Output) -> kafka::Result<()> {
        let Some(values) = self.detector.clean(index) else { return Ok(()) };
        let (entry, names) = (self.batch.get(index), self.detector.names());
        let observed = self.detector.values(index).iter();
        let missing = names.iter().zip(observed).filter(|(_, value)| value.is_nan()).map(|(name, _)| name.as_str());
        let line = CleanLine {
            id: &entry.position.id(&kafka.input),
            time: entry.time.to_string(),
            series: entry.series,
            values: Values(names, &values),
            missing: missing.collect(),
        };
        self.wire.clear();
        // Writing finite numbers and strings into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.wire, &line);
        output.send(Outgoing {
            topic: &kafka.reconstructions,
            key: Some(entry.series.as_bytes()),
            value: Some(&self.wire),
            ..Outgoing::default()
        })
    }

    /// Sends what happened to incidents.
    fn tell(&mut self, kafka: &KafkaSettings, output: &mut Output, outcomes: &mut Outcomes) -> kafka::Result<()> {
        let (model, names) = (self.model.fingerprint(), self.detector.names());
        let left = self.left_open.iter().map(|LeftOpen { told, model: found }| {
            // Of another model, nobody knows what its features were called.
            (told, found.as_str(), if found == model { names } else { &[] })
        });
        for (told, model, names) in left.chain(self.detector.told().iter().map(|told| (told, model, names))) {
            if told.index.is_some_and(|index| self.batch.get(index).silent) {
                continue;
            }
            outcomes.add_incident(told.change.name());
            incident(model, names, told, kafka, &mut self.wire);
            output.send(Outgoing {
                topic: &kafka.incidents,
                key: Some(told.series.as_bytes()),
                value: Some(&self.wire),
                ..Outgoing::default()
            })?;
        }
        self.left_open.clear();
        Ok(())
    }

    /// What is open now, for who looks.
    pub fn open(&mut self) -> Vec<OpenIncident> {
        let open = self.detector.open(live::INCIDENTS_MAX);
        let names = self.detector.names();
        let shown = |Open { series, incident, sensors }: Open| OpenIncident {
            series: series.to_string(),
            since: incident.start_time.to_string(),
            last: incident.last_time.to_string(),
            records: incident.count,
            peak: incident.peak,
            sensors: sensors
                .into_iter()
                .map(|SensorNow { sensor, share, observed, expected }| live::SensorNow {
                    name: names[sensor].clone(),
                    share,
                    observed,
                    expected,
                })
                .collect(),
        };
        open.into_iter().map(shown).collect()
    }

    /// Whether incidents have ended with no record, and are yet to be told.
    pub fn has_left_open(&self) -> bool {
        !self.left_open.is_empty()
    }

    /// Forgets the batch and the state of every series: what was observed is going to be read again.
    pub fn forget(&mut self) {
        self.batch.clear();
        self.verdicts.clear();
        self.left_open.clear();
        self.detector.forget();
    }

    /// Forgets the series of one partition, of which everything was judged: it is going to be restored.
    pub fn forget_partition(&mut self, partition: PartitionId) {
        self.detector.forget_partition(partition);
    }

    /// Series forgotten since the last call, so that memory is bounded.
    pub fn take_forgotten(&mut self) -> Forgotten {
        self.detector.take_forgotten()
    }

    /// What was seen beside the records that the model was trained on.
    pub fn seen(&self) -> &Seen {
        self.detector.seen()
    }

    pub fn series_count(&self) -> usize {
        self.detector.series_count()
    }

    /// Before another engine takes over, for which every series begins anew: closes what is open.
    pub fn close_incidents(
        &mut self,
        kafka: &KafkaSettings,
        output: &mut Output,
        outcomes: &mut Outcomes,
    ) -> kafka::Result<()> {
        self.detector.close_incidents();
        self.tell(kafka, output, outcomes)
    }

    pub fn open_incidents(&self) -> usize {
        self.detector.open_incidents()
    }

    /// A topic took no dead letter of this size: cut the next ones shorter. None if they are cut to next to nothing already.
    pub fn shorten_dead_letters(&mut self) -> Option<usize> {
        self.dead_letters.max_bytes /= 2;
        (self.dead_letters.max_bytes >= DEAD_LETTER_BYTES_MIN).then_some(self.dead_letters.max_bytes)
    }

    /// Whether that is new: a topic refused a dead letter for its timestamp, so they get that of writing.
    pub fn stamp_dead_letters_anew(&mut self) -> bool {
        std::mem::replace(&mut self.dead_letters.stamped, false)
    }
}

/// Writes the alert for record `index` of the judged batch into `wire`; returns its severity, and the sensor that made most of the error.
fn alert<'d>(
    model: &Model,
    detector: &'d mut Detector,
    index: usize,
    (score, incident): (f64, Option<Offset>),
    entry: &Entry<'_>,
    kafka: &KafkaSettings,
    (wire, glance): (&mut Vec<u8>, &mut Glance),
) -> (&'static str, &'d str) {
    let why = detector.explain(index);
    if let Some(&Sensor { name, observed, expected, .. }) = why.sensors.first() {
        let (time, series) = (entry.time.to_string(), entry.series.to_owned());
        glance.anomaly(Anomaly { time, series, score, sensor: name.to_owned(), observed, expected });
    }
    let alert = Alert {
        topic: &kafka.input,
        position: entry.position,
        time: entry.time,
        series: entry.series,
        score,
        record_score: why.record_score,
        incident,
        model: model.fingerprint(),
        sensors: &why.sensors,
        other_share: why.other_share,
    };
    wire.clear();
    alert.write(wire);
    (alert.severity().name(), why.sensors.first().map_or("", |sensor| sensor.name))
}

/// Writes what happened to an incident into `wire`.
fn incident(model: &str, names: &[String], told: &Told, kafka: &KafkaSettings, wire: &mut Vec<u8>) {
    let Told { partition, series, change, incident, .. } = told;
    let event = Event { change: *change, incident, topic: &kafka.input, partition: *partition, series, model, names };
    wire.clear();
    event.write(wire);
}

fn score_line(entry: &Entry<'_>, kafka: &KafkaSettings, score: Option<f64>, flagged: bool, wire: &mut Vec<u8>) {
    wire.clear();
    let id = entry.position.id(&kafka.input);
    let line = ScoreLine { id: &id, time: entry.time.to_string(), series: entry.series, score, flagged };
    // Writing finite numbers and strings into memory cannot fail.
    let _ = serde_json::to_writer(&mut *wire, &line);
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::model::testing::{plane, table};
    use crate::model::{ModelSettings, Profile, TrainingSource};

    fn engine(seed: u64, edition: Edition) -> Engine {
        let source = TrainingSource::File { name: "test".to_owned(), rows: 300 };
        let settings = ModelSettings { steps: 5, ..Default::default() };
        let model = Model::fit(&table(2, plane(seed, 300, 2, 1)), &settings, Profile::Balanced, source, &mut |_, _| {
            ControlFlow::Continue(())
        });
        let in_force = InForce { model: Arc::new(model.unwrap()), edition, version: 1 };
        let tuning = Tuning {
            detector: Default::default(),
            series: Default::default(),
            incident: Default::default(),
            commit_interval: Default::default(),
            checkpoint_interval: Default::default(),
        };
        Engine::new(&in_force, &InputSettings::default(), None, &tuning, 0).unwrap()
    }

    /// State that an engine stored at offset 40, taken up by another one.
    fn restore(
        stored: &mut Engine,
        by: &mut Engine,
        complete: bool,
        seen: Edition,
    ) -> kafka::Result<Option<NextOffset>> {
        let marker = Some(stored.detector.checkpoint(PartitionId(0), NextOffset(40), |_, _| {}));
        let stored = Stored { marker, series: Default::default(), complete };
        let assigned = Assigned {
            partition: PartitionId(0),
            from: NextOffset(50),
            oldest: NextOffset(0),
            lost_to_retention: 0,
            cut_off: 0,
        };
        by.restore(&assigned, Some(&stored), seen).map(|found| found.checkpoint)
    }

    #[test]
    fn state_of_a_model_that_is_yet_to_be_read_is_waited_for_and_of_an_older_one_is_not() {
        let (mut older, mut newer) = (engine(1, Edition(3)), engine(2, Edition(7)));
        let waits = |result: kafka::Result<_>| matches!(result, Err(kafka::Error::Unsettled { .. }));
        assert!(waits(restore(&mut newer, &mut older, true, Edition(3))));
        assert_eq!(
            restore(&mut newer, &mut older, true, Edition(7)).unwrap(),
            None,
            "it was read, and is of no use here"
        );
        assert_eq!(restore(&mut newer, &mut older, true, Edition::LAST).unwrap(), None);
        assert_eq!(restore(&mut older, &mut newer, true, Edition(7)).unwrap(), None);
        assert!(waits(restore(&mut older, &mut newer, false, Edition(7))), "a transaction is open");
        assert_eq!(restore(&mut newer, &mut engine(2, Edition(7)), false, Edition(7)).unwrap(), Some(NextOffset(40)));
    }
}
