//! Why a record scored as it did.

use super::Detector;
use crate::record::Sensor;

/// Sensors named in one explanation; the rest share `other_share`.
pub const SENSORS_MAX: usize = 64;
/// A rest of all shares that is less is none.
const ROUNDING: f64 = 1e-9;

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
        let Some(rebuilt) = self.rebuilt(index) else {
            return Explanation { sensors: Vec::new(), other_share: 1.0, record_score: 0.0 };
        };
        let Self { batch, names, .. } = self;
        let features = names.len();
        let values = &batch.values[index * features..][..features];
        let parts = &batch.parts[index * features..][..features];
        let total: f64 = parts.iter().copied().map(f64::from).sum();
        let mut sensors: Vec<Sensor<'_>> = Vec::with_capacity(features);
        for (j, name) in names.iter().enumerate() {
            let imputed = values[j].is_nan();
            let expected = rebuilt[j];
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

    /// What the network that decides makes of record `index` of the last judged batch: the value that it expects of each feature, in the feature's own
    /// unit. None of a warming record. Valid until the next `observe`. Costs one forward pass.
    pub fn rebuilt(&mut self, index: usize) -> Option<Vec<f64>> {
        let last = self.model.members() - 1;
        self.pass(last, index)?;
        let Self { model, batch, tiles, names, partitions, .. } = self;
        let place = batch.series.get(index)?;
        let memory = &partitions.get_mut(&place.partition)?.state(place.slot).memory;
        let rebuilt = tiles.last()?.reconstruction(0);
        let newest = rebuilt[rebuilt.len() - names.len()..].iter().enumerate();
        Some(newest.map(|(j, r)| model.unscale(j, memory, if r.is_finite() { *r } else { 0.0 })).collect())
    }

    /// Record `index` of the last judged batch without its noise, one value per feature, in the feature's own unit; where it is missing, what is
    /// expected. None of a warming record. Valid until the next `observe`. Costs one forward pass.
    pub fn clean(&mut self, index: usize) -> Option<Vec<f64>> {
        let last = self.model.members() - 1;
        self.pass(last, index)?;
        let Self { model, batch, tiles, partitions, .. } = self;
        let (tile, width) = (tiles.last()?, model.inputs(last));
        let input = batch.members.get(last)?.inputs.get(index * width..(index + 1) * width)?;
        let clean = model.clean(input, tile.reconstruction(0), tile.residuals());
        let place = batch.series.get(index)?;
        let memory = &partitions.get_mut(&place.partition)?.state(place.slot).memory;
        let (features, newest) = (clean.len(), &input[width - clean.len()..]);
        let values = batch.values.get(index * features..(index + 1) * features)?;
        let unscaled = |j: usize, scaled: f32| model.unscale(j, memory, scaled);
        let value = |(j, (clean, observed)): (usize, (f32, &f64))| match observed.is_nan() {
            true => unscaled(j, clean),
            // A reading from which nothing is taken stays as it is, to the last digit.
            false => observed + (unscaled(j, clean) - unscaled(j, newest[j])),
        };
        Some(clean.into_iter().zip(values).enumerate().map(value).collect())
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
