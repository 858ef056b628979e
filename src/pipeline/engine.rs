//! The model in force, applied: decode and observe one record, judge a batch, write what it means. Knows no Kafka call but `send`.

use std::sync::Arc;

use serde::Serialize;

use super::batch::{Batch, Entry};
use crate::detector::{Arrival, Detector, DetectorSettings, Forgotten, SeriesSettings, Told, Verdict};
use crate::incident::{Event, IncidentSettings};
use crate::kafka::{self, Assigned, DeadLetterForm, KafkaSettings, Message, Outgoing, Output, Stored};
use crate::metrics::{Metrics, Outcomes, Restore, Scores};
use crate::model::Model;
use crate::record::{Alert, Decoder, InputSettings, NextOffset, Offset, PartitionId, RawRecord, SchemaError};

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
}

/// A topic that takes no dead letter with as little of the message as this takes none at all.
const DEAD_LETTER_BYTES_MIN: usize = 256;

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
        model: Arc<Model>,
        input: &InputSettings,
        detector: &DetectorSettings,
        series: &SeriesSettings,
        incidents: &IncidentSettings,
        kafka: &KafkaSettings,
    ) -> Result<Engine, SchemaError> {
        Ok(Engine {
            decoder: Decoder::new(input, model.schema())?,
            detector: Detector::new(Arc::clone(&model), detector, series, incidents),
            values: vec![0.0; model.schema().len()],
            model,
            batch: Batch::default(),
            verdicts: Vec::new(),
            wire: Vec::new(),
            dead_letters: DeadLetterForm { max_bytes: kafka.dead_letter_max_bytes, stamped: true },
        })
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
            self.detector.observe(arrival, &self.values);
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

    /// Takes up what is stored of a partition. Returns where reading must begin for the state to be whole at `assigned.from`; none
    /// where nothing of use is stored, and all series begin anew.
    ///
    /// # Errors
    /// Nothing of use can be seen, but there may be more.
    pub fn restore(
        &mut self,
        assigned: &Assigned,
        stored: Option<&Stored>,
        metrics: &Metrics,
    ) -> kafka::Result<Option<NextOffset>> {
        let Assigned { partition, from, oldest, .. } = *assigned;
        self.detector.forget_partition(partition);
        let nothing = Stored { complete: true, ..Stored::default() };
        let Stored { marker, series, complete } = stored.unwrap_or(&nothing);
        let series = series.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let restored = marker.as_ref().map(|marker| self.detector.restore(partition, marker, series, from));
        let why = match restored {
            Some(Ok((next, unreadable))) if oldest <= next && next <= from => {
                if unreadable > 0 {
                    tracing::warn!(%partition, series = unreadable, "stored state cannot be read, these series begin anew");
                }
                metrics.restored(Restore::Whole, unreadable);
                return Ok(Some(next));
            }
            Some(Ok((next, _))) if next < oldest => {
                format!("records from {next} to {oldest} are no longer in the input")
            }
            Some(Ok((next, _))) => format!("it is of offset {next}, and the group is at {from}"),
            Some(Err(error)) => error.to_string(),
            None => "there is none yet".to_owned(),
        };
        self.detector.forget_partition(partition);
        if !complete {
            return Err(kafka::Error::Unsettled { partition, why });
        }
        metrics.restored(if marker.is_some() { Restore::Discarded } else { Restore::None }, 0);
        if marker.is_some() {
            tracing::warn!(%partition, why, "the stored state is of no use, the partition's series begin anew");
        }
        Ok(None)
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

    /// Sends what the last `judge` found: an alert for each flagged record, a line for every record where scores are wanted.
    pub fn emit(
        &mut self,
        kafka: &KafkaSettings,
        output: &mut Output,
        outcomes: &mut Outcomes,
        scores: &mut Scores,
    ) -> kafka::Result<()> {
        for index in 0..self.verdicts.len() {
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
                }
            }
            if flagged {
                let scored = (score.unwrap_or(1.0), incident);
                let severity = alert(&self.model, &mut self.detector, index, scored, &entry, kafka, &mut self.wire);
                outcomes.add_anomaly(severity);
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
        }
        self.tell(kafka, output, outcomes)?;
        self.batch.clear();
        self.verdicts.clear();
        Ok(())
    }

    /// Sends what happened to incidents.
    fn tell(&mut self, kafka: &KafkaSettings, output: &mut Output, outcomes: &mut Outcomes) -> kafka::Result<()> {
        for told in self.detector.told() {
            if told.index.is_some_and(|index| self.batch.get(index).silent) {
                continue;
            }
            outcomes.add_incident(told.change.name());
            incident(&self.model, self.detector.names(), told, kafka, &mut self.wire);
            output.send(Outgoing {
                topic: &kafka.incidents,
                key: Some(told.series.as_bytes()),
                value: Some(&self.wire),
                ..Outgoing::default()
            })?;
        }
        Ok(())
    }

    /// Forgets the batch and the state of every series: what was observed is going to be read again.
    pub fn forget(&mut self) {
        self.batch.clear();
        self.verdicts.clear();
        self.detector.forget();
    }

    /// Series forgotten since the last call, so that memory is bounded.
    pub fn take_forgotten(&mut self) -> Forgotten {
        self.detector.take_forgotten()
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

/// Writes the alert for record `index` of the judged batch into `wire`; returns its severity.
fn alert(
    model: &Model,
    detector: &mut Detector,
    index: usize,
    (score, incident): (f64, Option<Offset>),
    entry: &Entry<'_>,
    kafka: &KafkaSettings,
    wire: &mut Vec<u8>,
) -> &'static str {
    let why = detector.explain(index);
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
    alert.severity().name()
}

/// Writes what happened to an incident into `wire`.
fn incident(model: &Model, names: &[String], told: &Told, kafka: &KafkaSettings, wire: &mut Vec<u8>) {
    let Told { partition, series, change, incident, .. } = told;
    let event = Event {
        change: *change,
        incident,
        topic: &kafka.input,
        partition: *partition,
        series,
        model: model.fingerprint(),
        names,
    };
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
