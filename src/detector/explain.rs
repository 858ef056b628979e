//! Why a record scored as it did.

use std::sync::Arc;

use super::Detector;
use crate::incident::Incident;
use crate::model::Model;
use crate::record::{EventTime, PartitionId, Sensor};

/// Sensors named in one explanation; the rest share `other_share`.
pub const SENSORS_MAX: usize = 64;
/// Sensors of an open incident.
const SENSORS_SHOWN: usize = 5;
/// A rest of all shares that is less is none.
const ROUNDING: f64 = 1e-9;

/// An open incident, and how its series stands now.
#[derive(Clone, Debug)]
pub struct Open {
    pub series: Arc<str>,
    pub incident: Incident,
    /// Those with most part in it first.
    pub sensors: Vec<SensorNow>,
}

/// A sensor's newest value and what is expected for it, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SensorNow {
    /// Its place in the schema.
    pub sensor: usize,
    /// In the error of the incident.
    pub share: f64,
    /// None: missing.
    pub observed: Option<f64>,
    pub expected: f64,
}

/// Why a record scored as it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation<'a> {
    /// At most `SENSORS_MAX`, largest share first. Observed and expected are in the sensor's own unit, of the record itself.
    pub sensors: Vec<Sensor<'a>>,
    /// 1 minus the shares above: what further sensors contributed, and earlier values of sensors whose newest value is missing.
    pub other_share: f64,
    /// Error of this record alone, in units of the threshold: below 1 if it is earlier records that keep the series flagged.
    pub record_score: f64,
}

impl Detector {
    /// Why record `index` of the last judged batch scored as it did; empty for a warming record. Valid until the next
    /// `observe`. Costs one forward pass.
    ///
    /// Shares are of what decided: what a sensor did in the records of the window, and in earlier ones as much as it still counts.
    pub fn explain(&mut self, index: usize) -> Explanation<'_> {
        let Some(expected) = self.expected(index) else {
            return Explanation { sensors: Vec::new(), other_share: 1.0, record_score: 0.0 };
        };
        let Self { batch, names, .. } = self;
        let features = names.len();
        let values = &batch.values[index * features..][..features];
        let parts = &batch.parts[index * features..][..features];
        let total: f64 = parts.iter().copied().map(f64::from).sum();
        let mut sensors: Vec<Sensor<'_>> = Vec::with_capacity(features);
        for (j, name) in names.iter().enumerate() {
            let (imputed, expected) = (values[j].is_nan(), expected[j]);
            // Nothing is known of it.
            if expected.is_nan() {
                continue;
            }
            let share = if total > 0.0 && !imputed { f64::from(parts[j]) / total } else { 0.0 };
            sensors.push(Sensor { name, observed: (!imputed).then_some(values[j]), expected, share, imputed });
        }
        sensors.sort_by(|a, b| b.share.total_cmp(&a.share)); // stable: equal shares stay in the schema's order
        sensors.truncate(SENSORS_MAX);
        let named: f64 = sensors.iter().map(|s| s.share).sum();
        let rest = 1.0 - named;
        let other_share = if rest > ROUNDING { rest } else { 0.0 };
        let record_score = batch.judged[index].alone;
        Explanation { sensors, other_share, record_score }
    }

    /// What the network that decides makes of record `index` of the last judged batch, in the feature's own unit; NaN of what is unknown. None of a
    /// warming record. Valid until the next `observe`. Costs one forward pass.
    pub fn rebuilt(&mut self, index: usize) -> Option<Vec<f64>> {
        self.unscaled(index, |_, _, rebuilt| rebuilt.iter().map(|r| if r.is_finite() { *r } else { 0.0 }).collect())
    }

    /// How many standard deviations of training each feature of record `index` of the last judged batch lies above what the network that decides
    /// makes of it, or below (negative); NaN = missing. None of a warming record. Valid until the next `observe`. Costs one forward pass.
    pub fn off(&mut self, index: usize) -> Option<Vec<f32>> {
        let last = self.model.members() - 1;
        self.pass(last, index)?;
        Some(self.model.off(self.input(last, index)?, self.tiles.last()?.reconstruction(0)))
    }

    /// What is expected of each feature of it: that, of what is far off without what is only copied.
    fn expected(&mut self, index: usize) -> Option<Vec<f64>> {
        self.unscaled(index, Model::expected)
    }

    /// What `of` says of the input and what is rebuilt of it, of the newest record, one value per feature; in the feature's own unit.
    fn unscaled(&mut self, index: usize, of: impl Fn(&Model, &[f32], &[f32]) -> Vec<f32>) -> Option<Vec<f64>> {
        let last = self.model.members() - 1;
        self.pass(last, index)?;
        let Self { model, batch, tiles, names, partitions, .. } = self;
        let place = batch.series.get(index)?;
        let memory = &partitions.get_mut(&place.partition)?.state(place.slot).memory;
        let (rebuilt, width) = (tiles.last()?.reconstruction(0), model.inputs(last));
        let input = batch.members.get(last)?.inputs.get(index * width..(index + 1) * width)?;
        let values = of(model, input, rebuilt);
        let newest = values[values.len() - names.len()..].iter().enumerate();
        Some(newest.map(|(j, value)| model.unscale(j, memory, *value)).collect())
    }

    /// Record `index` of the last judged batch without its noise, one value per feature, in the feature's own unit; where it is missing, what is
    /// expected. None of a warming record. Valid until the next `observe`. Costs one forward pass.
    pub fn clean(&mut self, index: usize) -> Option<Vec<f64>> {
        let last = self.model.members() - 1;
        self.pass(last, index)?;
        let Self { model, batch, tiles, partitions, .. } = self;
        let (tile, width) = (tiles.last()?, model.inputs(last));
        let input = batch.members.get(last)?.inputs.get(index * width..(index + 1) * width)?;
        let clean = model.clean(input, tile.reconstruction(0));
        let place = batch.series.get(index)?;
        let memory = &partitions.get_mut(&place.partition)?.state(place.slot).memory;
        let (features, newest) = (clean.len(), &input[width - clean.len()..]);
        let values = batch.values.get(index * features..(index + 1) * features)?;
        let unscaled = |j: usize, scaled: f32| model.unscale(j, memory, scaled);
        let value = |(j, (clean, observed)): (usize, (f32, &f64))| match (observed.is_nan(), unscaled(j, clean)) {
            // Nothing is known of it.
            (false, clean) if clean.is_nan() => *observed,
            (true, clean) => clean,
            // A reading from which nothing is taken stays as it is, to the last digit.
            (false, clean) => observed + (clean - unscaled(j, newest[j])),
        };
        Some(clean.into_iter().zip(values).enumerate().map(value).collect())
    }

    /// The incidents that are open, those of the last records first, at most so many; and of the sensors with most part in each what was read last,
    /// and what is expected for that. Costs one forward pass for each.
    pub fn open(&mut self, most: usize) -> Vec<Open> {
        let Self { model, tiles, names, partitions, .. } = self;
        let mut found: Vec<(EventTime, PartitionId, Arc<str>)> = Vec::new();
        for (&partition, table) in partitions.iter_mut().filter(|(_, table)| table.open_incidents() > 0) {
            table.each(|series, state| {
                if let Some(incident) = state.incident.open() {
                    found.push((incident.last_time, partition, Arc::clone(series)));
                }
            });
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.2.cmp(&b.2)));
        found.truncate(most);
        let last = model.members() - 1;
        let now = |(_, partition, series): (EventTime, PartitionId, Arc<str>)| {
            let table = partitions.get_mut(&partition)?;
            let state = table.state(table.known(&series)?);
            let incident = state.incident.open()?.clone();
            let mut input = Vec::new();
            state.input(model, last, &mut input);
            let tile = tiles.get_mut(last)?;
            tile.clear();
            tile.push(&input, true);
            model.reconstruct(last, tile);
            let (features, newest) = (names.len(), input.len() - names.len());
            let expected = model.expected(&input, tile.reconstruction(0));
            let total: f64 = incident.parts.iter().copied().map(f64::from).sum();
            let mut order: Vec<usize> = (0..features).collect();
            order.sort_by(|a, b| incident.parts[*b].total_cmp(&incident.parts[*a]));
            let sensor = |j: usize| SensorNow {
                sensor: j,
                share: if total > 0.0 { f64::from(incident.parts[j]) / total } else { 0.0 },
                observed: Some(input[newest + j]).filter(|v| !v.is_nan()).map(|v| model.unscale(j, &state.memory, v)),
                expected: model.unscale(j, &state.memory, expected[j]),
            };
            let sensors =
                order.into_iter().map(sensor).filter(|now| !now.expected.is_nan()).take(SENSORS_SHOWN).collect();
            Some(Open { series, incident, sensors })
        };
        found.into_iter().filter_map(now).collect()
    }

    /// Where record `index` of the last judged batch lies on the model's map. None of a warming record. Valid until the next `observe`. Costs one
    /// forward pass.
    pub fn place(&mut self, index: usize) -> Option<[f32; 2]> {
        let code = self.code(index)?;
        Some(self.model.place(&code))
    }

    /// What the first network, which ranks, compresses record `index` of the last judged batch to. None of a warming record. Valid until the next
    /// `observe`. Costs one forward pass.
    pub fn code(&mut self, index: usize) -> Option<Vec<f32>> {
        self.pass(0, index)?;
        Some(self.model.code(self.tiles.first()?.input(0)))
    }

    /// What network `member` sees of record `index` of the last judged batch: scaled, NaN = missing. None of a warming record.
    /// Valid until the next `observe`.
    pub fn input(&self, member: usize, index: usize) -> Option<&[f32]> {
        self.batch.series.get(index).filter(|place| self.batch.judged_already && !place.warming)?;
        let width = self.model.inputs(member);
        self.batch.members.get(member)?.inputs.get(index * width..(index + 1) * width)
    }

    /// One record once more through one network.
    fn pass(&mut self, member: usize, index: usize) -> Option<()> {
        let Self { model, batch, tiles, .. } = self;
        if !batch.judged_already || batch.series.get(index)?.warming {
            return None;
        }
        let (inputs, tile) = (model.inputs(member), &mut tiles[member]);
        tile.clear();
        tile.push(&batch.members[member].inputs[index * inputs..][..inputs], true);
        model.reconstruct(member, tile);
        Some(())
    }
}
