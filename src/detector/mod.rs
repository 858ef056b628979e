//! The detector: a model and what it remembers of each series. `observe` records in log order, `judge` them together,
//! `explain` the ones that were flagged. Pure: what comes out depends on the records alone, not on how they were batched.

mod explain;
mod sample;
mod series;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize};

use crate::incident::{Change, Incident, IncidentSettings, Seen, Span};
use crate::model::{
    self, ADOPT_AFTER, AlarmBudget, Drift, Edition, Judge, Judged, Model, Profile, Statistic, TILE, Tile, has_gaps,
};
use crate::record::{EventTime, NextOffset, Offset, PartitionId, Position};
pub use explain::{Explanation, Open, SENSORS_MAX, SensorNow};
use sample::Sample;
pub use sample::even_place;
use series::SeriesTable;
pub use series::{Forgotten, checkpoint_bytes, series_bytes};
use state::Observed;
pub use state::StateError;

/// The table `[detector]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorSettings {
    /// False alarms an operator accepts; the threshold follows from it and the model.
    pub alarms: AlarmBudget,
    /// How much is computed for a record: what a new model is made of.
    pub profile: Profile,
    /// After about so many records, or so much event time, a shift that stays is what is normal.
    pub adopt_after: Span,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self { alarms: AlarmBudget::default(), profile: Profile::default(), adopt_after: Span::Records(ADOPT_AFTER) }
    }
}

impl DetectorSettings {
    /// Part of an incident's height that is adopted with a record, `elapsed_ms` after the one before.
    fn creep(&self, elapsed_ms: u64) -> f64 {
        match self.adopt_after {
            Span::Records(records) => 1.0 / records.max(1) as f64,
            Span::Time(time) => (elapsed_ms as f64 / (time.as_millis() as f64).max(1.0)).min(1.0),
        }
    }
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
    /// The series has no full window yet, or its scale is being learned.
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
    settings: DetectorSettings,
    judge: Judge,
    series: SeriesSettings,
    /// Series by partition: what is said of a record depends on its partition alone.
    partitions: BTreeMap<PartitionId, SeriesTable>,
    forgotten: Forgotten,
    batch: Batch,
    /// One for each network of the model.
    tiles: Vec<Tile>,
    verdicts: Vec<Verdict>,
    incidents: IncidentSettings,
    told: Vec<Told>,
    sample: Sample,
}

/// What was observed since the last judgement. Cleared, never shrunk.
#[derive(Default)]
struct Batch {
    judged_already: bool,
    /// Where the state of each record's series is.
    series: Vec<Place>,
    /// Original values, records x features.
    values: Vec<f64>,
    /// Of each network.
    members: Vec<MemberBatch>,
    /// Records to score: without and with missing values. Apart, since gaps cost further passes.
    whole: Vec<usize>,
    gaps: Vec<usize>,
    /// Of each record, if it is not warming.
    statistics: Vec<Statistic>,
    /// How far it lies from the records that are remembered.
    near: Vec<[f64; 2]>,
    /// What was said of each record.
    judged: Vec<Judged>,
    /// Records x features: what each feature contributed to the statistic; once judged, to what decided.
    parts: Vec<f32>,
}

/// Of one network, record after record; those of warming records are of no meaning.
#[derive(Default)]
struct MemberBatch {
    /// Records x inputs; NaN = missing.
    inputs: Vec<f32>,
    /// Records x inputs.
    residuals: Vec<f32>,
    /// Slow averages of the residuals, records x inputs.
    slow: Vec<f32>,
    /// Distances of the residual, and of the slow average.
    distances: Vec<[f64; 2]>,
}

#[derive(Clone, Copy)]
struct Place {
    partition: PartitionId,
    offset: Offset,
    time: EventTime,
    slot: usize,
    warming: bool,
    /// Whether the series begins anew with this record, after a gap.
    anew: bool,
    /// Part of an incident's height that is adopted with this record.
    creep: f64,
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
            judge: model.judge(&settings.alarms, incidents.hold),
            settings: settings.clone(),
            tiles: (0..model.members()).map(|member| model.tile(member)).collect(),
            batch: Batch::of(&model),
            model,
            edition: Edition::NONE,
            series: series.clone(),
            partitions: BTreeMap::new(),
            forgotten: Forgotten::default(),
            verdicts: Vec::new(),
            incidents: incidents.clone(),
            told: Vec::new(),
            sample: Sample::default(),
        }
    }

    /// Compares all records with those of training, not a sample of the last ones.
    pub fn comparing_all(mut self) -> Self {
        self.sample.all = true;
        self
    }

    /// What was counted for that.
    pub fn seen(&self) -> &model::Seen {
        &self.sample.seen
    }

    /// How the records differ from those of training, sensor by sensor: all since the detector was made, or about the last hundred thousand.
    pub fn drifts(&self) -> Vec<Drift> {
        self.model.drifts(&self.sample.seen)
    }

    /// Other settings, from the next record on; what is remembered of the series stays. The profile is the model's.
    pub fn tune(&mut self, settings: &DetectorSettings, series: &SeriesSettings, incidents: &IncidentSettings) {
        self.judge = self.model.judge(&settings.alarms, incidents.hold);
        self.settings = settings.clone();
        self.series = series.clone();
        self.incidents = incidents.clone();
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
        let Self { model, series: settings, partitions, forgotten, batch, sample, .. } = self;
        let mut uncounted = Forgotten::default();
        let forgotten = if counts { forgotten } else { &mut uncounted };
        let Arrival { position: Position { partition, offset }, series, time } = arrival;
        let table = partitions.entry(partition).or_insert_with(|| SeriesTable::new(NextOffset(offset.0)));
        let slot = table.see(series, (offset, time), batch.series.len(), model, settings, forgotten);
        let state = table.state(slot);
        let Observed { anew, elapsed_ms, taken } = state.observe(model, (offset, time), values, settings.gap);
        if taken && sample.wants(offset) {
            sample.take(model, state.latest(model));
        }
        let (index, warming) = (batch.series.len(), !state.is_full(model));
        let mut missing = false;
        for (at, member) in batch.members.iter_mut().enumerate() {
            let from = member.inputs.len();
            let to = from + model.inputs(at);
            if warming {
                member.inputs.resize(to, f32::NAN);
            } else {
                state.input(model, at, &mut member.inputs);
                missing |= has_gaps(&member.inputs[from..]);
            }
        }
        if !warming {
            if missing { &mut batch.gaps } else { &mut batch.whole }.push(index);
        }
        let creep = self.settings.creep(elapsed_ms);
        batch.series.push(Place { partition, offset, time, slot, warming, anew, creep });
        batch.values.extend_from_slice(values);
    }

    /// Forward passes over everything observed since the last call, then smoothing in order: one verdict per observed
    /// record, in order, bit for bit the same for any batch size.
    pub fn judge(&mut self) -> &[Verdict] {
        self.clear_judged();
        self.batch.judged_already = true;
        let Self { model, judge, batch, tiles, partitions, incidents, told, .. } = self;
        batch.reconstruct(model, tiles);
        batch.follow(model, partitions);
        batch.measure(model, tiles);
        self.verdicts.clear();
        told.clear();
        let features = model.schema().len();
        for (index, place) in batch.series.iter().enumerate() {
            let Place { partition, offset, time, slot, warming, anew, creep } = *place;
            // Forgotten in between: nobody waits for the verdict.
            let Some(table) = partitions.get_mut(&partition) else {
                self.verdicts.push(Verdict::Warming);
                continue;
            };
            let (series, state) = table.slot(slot);
            let mut tell = |change, incident: &Incident| {
                let (index, series) = (Some(index), Arc::clone(series));
                told.push(Told { index, partition, series, change, incident: incident.clone() });
            };
            if anew {
                model.restart_levels(&mut state.memory);
                state.incident.close(&mut tell);
            }
            if warming {
                self.verdicts.push(Verdict::Warming);
                continue;
            }
            let parts = &mut batch.parts[index * features..][..features];
            let distances = batch.members.iter().map(|member| member.distances[index]);
            let (statistic, near) = (batch.statistics[index], batch.near[index]);
            let judged = model.decide(judge, &mut state.memory, statistic, (distances, near), parts, creep);
            batch.judged[index] = judged;
            let Judged { score, flagged, .. } = judged;
            state.incident.see(incidents, &Seen { offset, time, score, flagged, parts }, &mut tell);
            let incident = state.incident.open().map(|i| i.start);
            self.verdicts.push(Verdict::Scored { score, flagged, incident });
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

    /// Of record `index` of the last judged batch, one per feature; NaN = missing.
    pub fn values(&self, index: usize) -> &[f64] {
        let features = self.names.len();
        &self.batch.values[index * features..][..features]
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
        debug_assert!(self.batch.judged_already || self.batch.series.is_empty(), "a checkpoint comes after judging");
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

    /// Forgets the series of a partition, after a `judge`.
    pub fn forget_partition(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
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
        if self.batch.judged_already {
            self.batch.clear();
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

impl Batch {
    fn of(model: &Model) -> Self {
        let members = (0..model.members()).map(|_| MemberBatch::default()).collect();
        Self { members, ..Self::default() }
    }

    fn clear(&mut self) {
        self.judged_already = false;
        self.series.clear();
        self.values.clear();
        for member in &mut self.members {
            member.inputs.clear();
            member.residuals.clear();
            member.slow.clear();
            member.distances.clear();
        }
        self.whole.clear();
        self.gaps.clear();
        self.statistics.clear();
        self.near.clear();
        self.judged.clear();
        self.parts.clear();
    }

    /// Residuals of all records that are not warming.
    fn reconstruct(&mut self, model: &Model, tiles: &mut [Tile]) {
        let (features, last) = (model.schema().len(), self.members.len() - 1);
        let (blame, near) = (&mut self.parts, &mut self.near);
        blame.resize(self.values.len(), 0.0);
        near.resize(self.series.len(), [0.0; 2]);
        for ((at, member), tile) in self.members.iter_mut().enumerate().zip(tiles) {
            let inputs = model.inputs(at);
            let MemberBatch { inputs: x, residuals, slow, distances } = member;
            residuals.resize(x.len(), 0.0);
            slow.resize(if model.is_followed(at) { x.len() } else { 0 }, 0.0);
            distances.resize(self.series.len(), [0.0; 2]);
            for (part, gaps) in parts(&self.whole, &self.gaps) {
                tile.clear();
                part.iter().for_each(|&i| tile.push(&x[i * inputs..][..inputs], gaps));
                model.reconstruct(at, tile);
                for (row, &i) in tile.residuals().chunks_exact(inputs).zip(part) {
                    residuals[i * inputs..][..inputs].copy_from_slice(row);
                }
                if at == last {
                    model.near(tile, |row, distances, add_parts| {
                        let i = part[row];
                        near[i] = distances;
                        if !model.ordered() {
                            add_parts(&mut blame[i * features..][..features]);
                        }
                    });
                }
            }
        }
    }

    /// In order: the statistic that decides, and the residuals less what each series' has been followed to. Where records have no order,
    /// they are judged by their distances alone.
    fn follow(&mut self, model: &Model, partitions: &mut BTreeMap<PartitionId, SeriesTable>) {
        let features = model.schema().len();
        self.statistics.resize(self.series.len(), Statistic::default());
        self.judged.resize(self.series.len(), Judged::default());
        if !model.ordered() {
            return;
        }
        let last = self.members.len() - 1;
        for (i, place) in self.series.iter().enumerate() {
            let Some(table) = partitions.get_mut(&place.partition) else { continue };
            let memory = &mut table.state(place.slot).memory;
            if place.anew {
                model.restart_residuals(memory);
            }
            if place.warming {
                continue;
            }
            for (at, member) in self.members.iter_mut().enumerate() {
                let range = i * model.inputs(at)..(i + 1) * model.inputs(at);
                let (input, residual) = (&member.inputs[range.start..], &mut member.residuals[range.start..]);
                if at == last {
                    let parts = &mut self.parts[i * features..];
                    self.statistics[i] = model.statistic(residual, input, parts);
                }
                if model.is_followed(at) {
                    model.follow(at, memory, residual, input, &mut member.slow[range]);
                }
            }
        }
    }

    /// Distances of the networks that rank.
    fn measure(&mut self, model: &Model, tiles: &mut [Tile]) {
        let features = model.schema().len();
        let ranking = self.members.iter_mut().zip(tiles).enumerate().filter(|(at, _)| model.ranks(*at));
        for (at, (member, tile)) in ranking {
            let inputs = model.inputs(at);
            let MemberBatch { inputs: x, residuals, slow, distances } = member;
            for (part, gaps) in parts(&self.whole, &self.gaps) {
                for (which, of) in
                    [&*residuals, &*slow].into_iter().enumerate().take(1 + usize::from(model.is_followed(at)))
                {
                    let range = |i: usize| i * inputs..(i + 1) * inputs;
                    tile.clear();
                    part.iter().for_each(|&i| tile.push_residual(&of[range(i)], &x[range(i)], gaps));
                    model.whiten(at, which == 1, tile);
                    for (row, &i) in part.iter().enumerate() {
                        distances[i][which] = tile.distance(row);
                        if !model.ordered() {
                            let parts = &mut self.parts[i * features..][..features];
                            let squares = |parts: &mut [f32]| tile.contributions(row, parts);
                            model.contributions(distances[i][0], self.near[i], parts, squares);
                        }
                    }
                }
            }
        }
    }
}

/// Records that are scored together, and whether values of theirs are missing.
fn parts<'a>(whole: &'a [usize], gaps: &'a [usize]) -> impl Iterator<Item = (&'a [usize], bool)> {
    let tiles = |records: &'a [usize], gaps| records.chunks(TILE).map(move |part| (part, gaps));
    tiles(whole, false).chain(tiles(gaps, true))
}

#[cfg(test)]
mod tests;
