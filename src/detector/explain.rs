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
        let Self { model, batch, tiles, names, partitions, .. } = self;
        let (features, last) = (names.len(), model.members() - 1);
        let inputs = model.inputs(last);
        let scored = batch.series.get(index).is_some_and(|place| !place.warming) && batch.judged_already;
        let place = batch.series.get(index).filter(|_| scored);
        let table = place.and_then(|place| partitions.get_mut(&place.partition).map(|table| (table, place.slot)));
        let (Some((table, slot)), Some(tile)) = (table, tiles.last_mut()) else {
            return Explanation { sensors: Vec::new(), other_share: 1.0, record_score: 0.0 };
        };
        let memory = &table.state(slot).memory;
        let input = &batch.members[last].inputs[index * inputs..][..inputs];
        tile.clear();
        tile.push(input, true);
        model.reconstruct(last, tile);
        let values = &batch.values[index * features..][..features];
        let parts = &batch.parts[index * features..][..features];
        let total: f64 = parts.iter().copied().map(f64::from).sum();
        let newest = inputs - features;
        let mut sensors: Vec<Sensor<'_>> = Vec::with_capacity(features);
        for (j, name) in names.iter().enumerate() {
            let imputed = values[j].is_nan();
            let rebuilt = tile.reconstruction(0)[newest + j];
            let expected = model.unscale(j, memory, if rebuilt.is_finite() { rebuilt } else { 0.0 });
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
}
