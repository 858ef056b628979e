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
        let shares = incident.shares(names).into_iter().take(SENSORS_MAX).filter(|(_, share)| *share >= SHARE_MIN);
        let sensors = shares.map(|(name, share)| (name.to_owned(), share)).collect();
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

/// Writes them as CSV. `times`: of each row of the file; or none, and the columns of times are left out.
pub fn write(path: &Path, incidents: &[Found], times: &[Box<str>]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut table = ::csv::Writer::from_writer(file);
    let head = ["series", "start_row", "end_row", "flagged", "peak_score", "peak_row", "sensors"];
    let timed: &[&str] = if times.is_empty() { &[] } else { &["start_time", "end_time", "peak_time"] };
    table.write_record(head.iter().chain(timed))?;
    for Found { series, start, end, flagged, peak, peak_row, sensors } in incidents {
        let sensors: Vec<String> = sensors.iter().map(|(name, share)| format!("{name} {share:.3}")).collect();
        let numbers = [start.to_string(), end.to_string(), flagged.to_string(), peak.to_string(), peak_row.to_string()];
        let cells = [&[series.clone()][..], &numbers, &[sensors.join("; ")]].concat();
        let of_rows = [start, end, peak_row].into_iter().filter_map(|row| times.get(*row)).map(AsRef::as_ref);
        table.write_record(cells.iter().map(String::as_str).chain(of_rows))?;
    }
    Ok(table.flush()?)
}
