//! The incidents of a file, by its rows.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use crate::detector::Told;
use crate::incident::Change;

/// Sensors named for one incident.
const SENSORS_MAX: usize = 5;
/// A share that is worth a name.
const SHARE_MIN: f64 = 0.05;

/// One incident; rows count from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub series: String,
    /// Of the first flagged row, and of the last that kept it open.
    pub start: usize,
    pub end: usize,
    /// Flagged rows.
    pub flagged: u64,
    /// Highest score.
    pub peak: f64,
    pub peak_row: usize,
    /// Name and share of the error over the whole incident, the largest first.
    pub sensors: Vec<(String, f64)>,
}

/// Incidents that are over, of a detector for which the time of a row is its number.
pub fn over<'a>(told: &'a [Told], names: &'a [String]) -> impl Iterator<Item = Found> + 'a {
    told.iter().filter(|told| told.change == Change::Closed).map(|Told { series, incident, .. }| {
        let total: f64 = incident.parts.iter().map(|part| f64::from(*part)).sum();
        let shares = names.iter().zip(&incident.parts).map(|(name, part)| (name.clone(), f64::from(*part) / total));
        let mut sensors: Vec<(String, f64)> = shares.filter(|(_, share)| *share >= SHARE_MIN).collect();
        sensors.sort_by(|a, b| b.1.total_cmp(&a.1));
        sensors.truncate(SENSORS_MAX);
        Found {
            series: series.to_string(),
            start: incident.start.0 as usize,
            end: incident.last_time.0 as usize,
            flagged: incident.count,
            peak: incident.peak,
            peak_row: incident.peak_time.0 as usize,
            sensors,
        }
    })
}

/// Writes them as CSV.
pub fn write(path: &Path, incidents: &[Found]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut table = ::csv::Writer::from_writer(file);
    table.write_record(["series", "start_row", "end_row", "flagged", "peak_score", "peak_row", "sensors"])?;
    for Found { series, start, end, flagged, peak, peak_row, sensors } in incidents {
        let sensors: Vec<String> = sensors.iter().map(|(name, share)| format!("{name} {share:.3}")).collect();
        let numbers = [start.to_string(), end.to_string(), flagged.to_string(), peak.to_string(), peak_row.to_string()];
        let cells = [&[series.clone()][..], &numbers, &[sensors.join("; ")]].concat();
        table.write_record(&cells)?;
    }
    Ok(table.flush()?)
}
