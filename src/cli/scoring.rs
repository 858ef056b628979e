//! The rows of a file through the detector of the daemon.

use std::path::PathBuf;
use std::sync::Arc;

use super::csv::CsvArgs;
use super::incidents::{self, Found};
use crate::detector::{Arrival, Detector, DetectorSettings, SeriesSettings, Verdict, even_place};
use crate::incident::{IncidentSettings, Span};
use crate::model::{AlarmBudget, Model};
use crate::record::{EventTime, Offset, PartitionId, Position, Table};

/// Which rows, and by which model.
#[derive(clap::Args, Clone, Debug)]
pub struct Subject {
    #[command(flatten)]
    pub csv: CsvArgs,
    /// Model file (.safetensors), of `residua train`
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
}

/// Records per call of the detector; any number gives the same scores.
const BATCH: usize = 256;

/// For all rows of a file, however many series they are of: they are in memory already. `adopt_after`: in records, as the times of rows are only shown.
pub fn detector(model: &Arc<Model>, alarms: AlarmBudget, adopt_after: u64) -> Detector {
    let adopt_after = Span::Records(adopt_after);
    let settings = DetectorSettings { alarms, adopt_after, ..DetectorSettings::default() };
    let series = SeriesSettings { max: usize::MAX, ..SeriesSettings::default() };
    Detector::new(Arc::clone(model), &settings, &series, &IncidentSettings::default()).comparing_all()
}

/// The rows after the first `skip`, in order: each that has a value is shown to `seen` with its place in the batch that was judged, its number and
/// what was said of it. Returns the incidents. Every series begins with these rows, as in the daemon, which starts just after what the model
/// was learned from.
pub fn score(
    table: &Table,
    skip: usize,
    detector: &mut Detector,
    seen: &mut dyn FnMut(&mut Detector, usize, usize, Verdict) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Found>> {
    let (names, mut found) = (detector.names().to_vec(), Vec::new());
    // A record without any value is a dead letter to the daemon: it leaves no trace in its series.
    let rows: Vec<usize> = (skip..table.rows()).filter(|&i| table.has_values(i)).collect();
    for batch in rows.chunks(BATCH) {
        for &row in batch {
            // A file is one partition. Its times are only shown: rows follow one another, however far apart, and stand for them.
            let arrival = Arrival {
                position: Position { partition: PartitionId(0), offset: Offset(row as i64) },
                series: table.name_of(row),
                time: EventTime(row as i64),
            };
            detector.observe(arrival, table.row(row));
        }
        let verdicts = detector.judge().to_vec();
        found.extend(incidents::over(detector.told(), &names));
        for (index, (&row, verdict)) in batch.iter().zip(verdicts).enumerate() {
            seen(detector, index, row, verdict)?;
        }
    }
    detector.close_incidents();
    found.extend(incidents::over(detector.told(), &names));
    found.sort_by_key(|incident| incident.start);
    Ok(found)
}

/// Whether the record at this place is among about `room` of `count`, which lie evenly: where machines take turns, each has its share.
pub fn is_kept(at: usize, count: usize, room: usize) -> bool {
    count <= room || even_place(at as u64) < room as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_machines_that_take_turns_each_has_its_share() {
        for machines in 2..12 {
            let kept: Vec<usize> = (0..60_000).filter(|at| is_kept(*at, 60_000, 20_000)).collect();
            assert!(kept.len().abs_diff(20_000) < 50, "{}", kept.len());
            for machine in 0..machines {
                let share = kept.iter().filter(|at| *at % machines == machine).count() * machines;
                assert!(share.abs_diff(20_000) < 1_000, "machine {machine} of {machines}: {share}");
            }
        }
    }
}
