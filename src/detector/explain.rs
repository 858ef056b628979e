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
    /// The score of this record alone, not smoothed; at most the score.
    pub record_score: f64,
}

impl Detector {
    /// Why record `index` of the last judged batch scored as it did; empty for a warming record. Valid until the next
    /// `observe`. Costs one forward pass.
    ///
    /// Shares are of what made the score: this record alone, or the smoothed level, in which what a sensor did in earlier records
    /// counts as much as it still counts there.
    pub fn explain(&mut self, index: usize) -> Explanation<'_> {
        let Self { model, batch, tile, names, .. } = self;
        let (features, inputs) = (names.len(), model.layer_sizes()[0]);
        let Some(&distance) = batch.distances.get(index).filter(|d| !d.is_nan()) else {
            return Explanation { sensors: Vec::new(), other_share: 1.0, record_score: 0.0 };
        };
        tile.clear();
        tile.push(&batch.inputs[index * inputs..][..inputs]);
        model.run(tile);
        let values = &batch.values[index * features..][..features];
        let parts = &mut batch.parts[index * features..][..features];
        if parts.iter().all(|&part| part <= 0.0) {
            // Nothing was above the ordinary, and yet the budget flags it.
            tile.contributions(0, parts);
        }
        let total: f64 = parts.iter().copied().map(f64::from).sum();
        let newest = inputs - features;
        let mut sensors: Vec<Sensor<'_>> = Vec::with_capacity(features);
        for (j, name) in names.iter().enumerate() {
            let imputed = values[j].is_nan();
            let rebuilt = tile.reconstruction(0)[newest + j];
            let expected = model.scaler().unscale(j, if rebuilt.is_finite() { rebuilt } else { 0.0 });
            let share = if total > 0.0 && !imputed { f64::from(parts[j]) / total } else { 0.0 };
            sensors.push(Sensor { name, observed: (!imputed).then_some(values[j]), expected, share, imputed });
        }
        sensors.sort_by(|a, b| b.share.total_cmp(&a.share)); // stable: equal shares stay in the schema's order
        sensors.truncate(SENSORS_MAX);
        let named: f64 = sensors.iter().map(|s| s.share).sum();
        let rest = 1.0 - named;
        let other_share = if rest > ROUNDING { rest } else { 0.0 };
        let record_score = model.calibration().level(distance) / self.thresholds.record;
        Explanation { sensors, other_share, record_score }
    }
}
