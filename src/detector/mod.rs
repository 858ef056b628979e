//! The detector: a model and what it remembers of each series. `observe` records in log order, `judge` them together,
//! `explain` the ones that were flagged. Pure: what comes out depends on the records alone, not on how they were batched.

mod explain;
mod series;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize};

use crate::incident::{Change, Incident, IncidentSettings, Seen};
use crate::model::{AlarmBudget, Edition, Model, TILE, Thresholds, Tile};
use crate::record::{EventTime, NextOffset, Offset, PartitionId, Position};
pub use explain::{Explanation, SENSORS_MAX};
use series::SeriesTable;
pub use series::{Forgotten, checkpoint_bytes, series_bytes};
pub use state::StateError;

/// The table `[detector]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorSettings {
    /// False alarms an operator accepts; the threshold follows from it and the model.
    pub alarms: AlarmBudget,
}

/// The table `[series]` of the configuration: what is remembered of the past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeriesSettings {
    /// Series remembered per partition.
    pub max: usize,
    /// A series is forgotten when its partition has moved on by more than this in event time. Zero: never.
    #[serde(with = "friendly")]
    pub idle: Duration,
    /// Records of a series farther apart than this in event time have nothing to do with each other. Zero: any have.
    #[serde(with = "friendly")]
    pub gap: Duration,
}

impl Default for SeriesSettings {
    fn default() -> Self {
        Self { max: 100_000, idle: Duration::ZERO, gap: Duration::ZERO }
    }
}

/// Whose record comes, and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    pub position: Position,
    pub series: &'a str,
    pub time: EventTime,
}

/// Judgement on one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The series has no full window yet.
    Warming,
    /// `score` is finite and not negative, 1.0 is the threshold. `incident`: where the incident that is open with this record began.
    Scored { score: f64, flagged: bool, incident: Option<Offset> },
}

/// What happened to an incident.
#[derive(Clone, Debug)]
pub struct Told {
    /// The record of the last judged batch with which it happened, if it was a record.
    pub index: Option<usize>,
    pub partition: PartitionId,
    pub series: Arc<str>,
    pub change: Change,
    pub incident: Incident,
}

/// One per worker. Memory is bounded by the partitions, the series of each, and the largest batch.
pub struct Detector {
    model: Arc<Model>,
    edition: Edition,
    names: Vec<String>,
    thresholds: Thresholds,
    series: SeriesSettings,
    /// Series by partition: what is said of a record depends on its partition alone.
    partitions: BTreeMap<PartitionId, SeriesTable>,
    forgotten: Forgotten,
    batch: Batch,
    tile: Tile,
    verdicts: Vec<Verdict>,
    incidents: IncidentSettings,
    told: Vec<Told>,
}

/// What was observed since the last judgement. Cleared, never shrunk.
#[derive(Default)]
struct Batch {
    judged: bool,
    /// Where the state of each record's series is.
    series: Vec<Place>,
    /// Original values, records x features.
    values: Vec<f64>,
    /// Model inputs, records x inputs; NaN = missing, and all of a warming record.
    inputs: Vec<f32>,
    /// Records to score: without and with missing values. Apart, since gaps cost further passes.
    whole: Vec<usize>,
    gaps: Vec<usize>,
    /// Distance of each record's residual; NaN while warming.
    distances: Vec<f64>,
    /// Records x features: what each feature contributed to the distance; once judged, to what made the score.
    parts: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Place {
    partition: PartitionId,
    offset: Offset,
    time: EventTime,
    slot: usize,
    /// Whether the series begins anew with this record, after a gap.
    anew: bool,
}

impl Detector {
    pub fn new(
        model: Arc<Model>,
        settings: &DetectorSettings,
        series: &SeriesSettings,
        incidents: &IncidentSettings,
    ) -> Self {
        Self {
            names: model.schema().names().map(|name| name.to_string()).collect(),
            thresholds: model.thresholds(&settings.alarms),
            tile: model.tile(),
            model,
            edition: Edition::NONE,
            series: series.clone(),
            partitions: BTreeMap::new(),
            forgotten: Forgotten::default(),
            batch: Batch::default(),
            verdicts: Vec::new(),
            incidents: incidents.clone(),
            told: Vec::new(),
        }
    }

    /// Where several models follow each other: which of them this one is.
    pub fn of_edition(self, edition: Edition) -> Self {
        Self { edition, ..self }
    }

    /// Takes one record of a series into its state (in log order) and queues its model input. `values`: one per feature
    /// of the schema, NaN = missing. Allocates for a new series, or when a batch is larger than any before.
    pub fn observe(&mut self, arrival: Arrival<'_>, values: &[f64]) {
        self.take(arrival, values, true);
    }

    /// As `observe`, for a record that was observed before: what is forgotten with it was counted then.
    pub fn observe_again(&mut self, arrival: Arrival<'_>, values: &[f64]) {
        self.take(arrival, values, false);
    }

    fn take(&mut self, arrival: Arrival<'_>, values: &[f64], counts: bool) {
        debug_assert_eq!(values.len(), self.names.len());
        self.clear_judged();
        let Self { model, series: settings, partitions, forgotten, batch, .. } = self;
        let mut uncounted = Forgotten::default();
        let forgotten = if counts { forgotten } else { &mut uncounted };
        let Arrival { position: Position { partition, offset }, series, time } = arrival;
        let table = partitions.entry(partition).or_insert_with(|| SeriesTable::new(NextOffset(offset.0)));
        let slot = table.see(series, (offset, time), batch.series.len(), model, settings, forgotten);
        let state = table.state(slot);
        let anew = state.observe(model, (offset, time), values, settings.gap);
        let from = batch.inputs.len();
        state.window(&mut batch.inputs);
        if state.is_full() {
            let missing = batch.inputs[from..].iter().any(|v| v.is_nan());
            if missing { &mut batch.gaps } else { &mut batch.whole }.push(batch.series.len());
        }
        batch.series.push(Place { partition, offset, time, slot, anew });
        batch.values.extend_from_slice(values);
        batch.distances.push(f64::NAN);
        batch.parts.resize(batch.values.len(), 0.0);
    }

    /// Forward passes over everything observed since the last call, then smoothing in order: one verdict per observed
    /// record, in order, bit for bit the same for any batch size.
    pub fn judge(&mut self) -> &[Verdict] {
        self.clear_judged();
        self.batch.judged = true;
        let Self { model, batch, tile, partitions, incidents, told, .. } = self;
        let (inputs, features) = (model.layer_sizes()[0], model.schema().len());
        for part in batch.whole.chunks(TILE).chain(batch.gaps.chunks(TILE)) {
            tile.clear();
            part.iter().for_each(|&i| tile.push(&batch.inputs[i * inputs..][..inputs]));
            model.run(tile);
            for (row, &i) in part.iter().enumerate() {
                batch.distances[i] = tile.distance(row);
                tile.contributions(row, &mut batch.parts[i * features..][..features]);
            }
        }
        self.verdicts.clear();
        told.clear();
        let parts = batch.parts.chunks_exact_mut(features);
        for (index, ((place, &distance), parts)) in batch.series.iter().zip(&batch.distances).zip(parts).enumerate() {
            // Forgotten in between: nobody waits for the verdict.
            let Some(table) = partitions.get_mut(&place.partition) else {
                self.verdicts.push(Verdict::Warming);
                continue;
            };
            let Place { partition, offset, time, slot, anew } = *place;
            let (series, state) = table.slot(slot);
            let mut tell = |change, incident: &Incident| {
                let (index, series) = (Some(index), Arc::clone(series));
                told.push(Told { index, partition, series, change, incident: incident.clone() });
            };
            if anew {
                state.restart(model);
                state.incident.close(&mut tell);
            }
            self.verdicts.push(if distance.is_nan() {
                Verdict::Warming
            } else {
                let levels = state.smooth(model, distance, parts);
                let (alone, together) =
                    (levels.record / self.thresholds.record, levels.smoothed / self.thresholds.smoothed);
                if together >= alone {
                    parts.copy_from_slice(state.blame());
                }
                let score = alone.max(together);
                let flagged = score >= 1.0;
                state.incident.see(incidents, &Seen { offset, time, score, flagged, parts }, &mut tell);
                Verdict::Scored { score, flagged, incident: state.incident.open().map(|i| i.start) }
            });
        }
        let in_order = told.len();
        for (&partition, table) in partitions.iter_mut() {
            table.settle(|index, series, state| {
                state.incident.close(&mut |change, incident| {
                    let (index, series) = (Some(index), Arc::clone(series));
                    told.push(Told { index, partition, series, change, incident: incident.clone() });
                });
            });
        }
        if told.len() > in_order {
            // What was forgotten with a record comes before what that record brings; a stable sort keeps the order of the rest.
            let forgotten = told.split_off(in_order);
            told.splice(0..0, forgotten);
            told.sort_by_key(|t| t.index);
        }
        for Told { partition, change, .. } in told {
            partitions.entry(*partition).and_modify(|table| table.count(*change));
        }
        &self.verdicts
    }

    /// Closes every incident, as every series is about to end; `told` has them.
    pub fn close_incidents(&mut self) {
        self.told.clear();
        for (&partition, table) in &mut self.partitions {
            table.each(|series, state| {
                state.incident.close(&mut |change, incident| {
                    let series = Arc::clone(series);
                    self.told.push(Told { index: None, partition, series, change, incident: incident.clone() });
                });
            });
        }
    }

    /// What each feature contributed to what made the score of record `index` of the last judged batch, in any unit.
    pub fn contributions(&self, index: usize) -> &[f32] {
        let features = self.names.len();
        &self.batch.parts[index * features..][..features]
    }

    /// What happened to incidents with the records of the last judged batch, in order.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// Of the features.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Open incidents.
    pub fn open_incidents(&self) -> usize {
        self.partitions.values().map(SeriesTable::open_incidents).sum()
    }

    /// Drops the state of all series and what was observed but not judged.
    pub fn forget(&mut self) {
        self.partitions.clear();
        self.forgotten = Forgotten::default();
        self.batch.clear();
        self.verdicts.clear();
        self.told.clear();
    }

    /// Drops the state of one partition's series; they begin anew with the record at `from`. `stored`: series of which there is state
    /// in checkpoints, which ends with the next one.
    pub fn begin_anew<'a>(&mut self, partition: PartitionId, from: NextOffset, stored: impl Iterator<Item = &'a str>) {
        self.partitions.insert(partition, SeriesTable::anew(from, stored));
    }

    /// Series with state.
    pub fn series_count(&self) -> usize {
        self.partitions.values().map(SeriesTable::len).sum()
    }

    /// Checkpoint of a partition after a `judge`: what changed since the last one goes to `write`, no bytes for a series that was
    /// forgotten. `next`: the offset after the last record observed. Returns the partition's marker, to be written last.
    pub fn checkpoint(
        &mut self,
        partition: PartitionId,
        next: NextOffset,
        write: impl FnMut(&str, Option<&[u8]>),
    ) -> Vec<u8> {
        debug_assert!(self.batch.judged || self.batch.series.is_empty(), "a checkpoint comes after judging");
        let table = self.partitions.entry(partition).or_insert_with(|| SeriesTable::new(next));
        table.checkpoint(next, (&self.model, self.edition), write)
    }

    /// Takes up a partition where a checkpoint left it: its marker, and the newest bytes of each series. Records before `until` were
    /// judged already, and perhaps stored by a checkpoint that cannot be seen. Returns the offset to go on at, and how many series
    /// could not be read and begin anew.
    ///
    /// # Errors
    /// A marker that is not one, of another version or model: the whole partition begins anew.
    pub fn restore<'a>(
        &mut self,
        partition: PartitionId,
        marker: &[u8],
        series: impl Iterator<Item = (&'a str, &'a [u8])>,
        until: NextOffset,
    ) -> Result<(NextOffset, u64), StateError> {
        let (table, next, unreadable) = SeriesTable::restore(marker, series, &self.model, until)?;
        self.partitions.insert(partition, table);
        Ok((next, unreadable))
    }

    /// The incidents that are open in a checkpoint that is of no use, perhaps of another model, as closed; and that model's fingerprint.
    /// None where it cannot be read.
    pub fn left_open<'a>(
        partition: PartitionId,
        marker: &[u8],
        series: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> (String, Vec<Told>) {
        let (model, open) = SeriesTable::open_in(marker, series);
        let tell = |(series, incident)| Told { index: None, partition, series, change: Change::Closed, incident };
        (model, open.into_iter().map(tell).collect())
    }

    /// Series forgotten since the last call.
    pub fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }

    fn clear_judged(&mut self) {
        if self.batch.judged {
            self.batch.clear();
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Levels of score 1.0.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }
}

impl Batch {
    fn clear(&mut self) {
        self.judged = false;
        self.series.clear();
        self.values.clear();
        self.inputs.clear();
        self.whole.clear();
        self.gaps.clear();
        self.distances.clear();
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests;
