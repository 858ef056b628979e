//! What the live page shows of all workers: how high scores are, what was flagged last, which incidents are open, where records lie. While nobody looks,
//! a record costs a comparison, and a flagged one a note.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Serialize, Serializer};

/// Seconds that are remembered.
const SECONDS: u64 = 300;
/// Flagged records that are remembered; incidents of one worker; places of records.
const ANOMALIES: usize = 20;
pub(super) const INCIDENTS_MAX: usize = 20;
const POINTS: usize = 600;
/// Records of a batch that are placed on the map.
const POINTS_OF_BATCH: usize = 16;
/// And so many times as many of those that are flagged.
const FLAGGED_MORE: usize = 3;

/// All workers together.
pub struct Live {
    began: Instant,
    watchers: AtomicUsize,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// Ascending.
    seconds: VecDeque<Second>,
    anomalies: VecDeque<Anomaly>,
    points: VecDeque<Point>,
    /// Of each worker, the latest, and how many there are.
    incidents: BTreeMap<usize, (Vec<OpenIncident>, usize)>,
}

/// What was scored in one second.
struct Second {
    /// Since the beginning.
    at: u64,
    records: u64,
    flagged: u64,
    highest: f64,
}

/// What there is to see of what one commit holds.
#[derive(Default)]
pub(super) struct Glance {
    pub records: u64,
    pub flagged: u64,
    /// Score.
    pub highest: f64,
    /// Whether somebody looks.
    pub watched: bool,
    anomalies: VecDeque<Anomaly>,
    points: VecDeque<Point>,
}

/// A flagged record.
#[derive(Clone, Debug, Serialize)]
pub struct Anomaly {
    pub time: String,
    pub series: String,
    pub score: f64,
    /// What made most of the error.
    pub sensor: String,
    pub observed: Option<f64>,
    pub expected: f64,
}

/// A record on the map: its place, its score, whose it is and when it was taken.
#[derive(Clone, Debug)]
pub struct Point {
    pub place: [f32; 2],
    pub score: f64,
    pub series: String,
    pub time: String,
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { place: [x, y], score, series, time } = self;
        // Two digits of a place, and three of a score, are more than can be seen.
        let digits = |v: f64, of: f64| if v.is_finite() { (v * of).round() / of } else { 0.0 };
        (digits(f64::from(*x), 1e2), digits(f64::from(*y), 1e2), digits(*score, 1e3), series, time)
            .serialize(serializer)
    }
}

/// An incident that is open, and how its series stands now.
#[derive(Clone, Debug, Serialize)]
pub struct OpenIncident {
    pub series: String,
    /// Of its first flagged record, and of the last record that kept it open.
    pub since: String,
    pub last: String,
    pub records: u64,
    pub peak: f64,
    /// What made most of its error first.
    pub sensors: Vec<SensorNow>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SensorNow {
    pub name: String,
    /// In the error of the incident.
    pub share: f64,
    pub observed: Option<f64>,
    pub expected: f64,
}

/// What is shown.
#[derive(Debug, Serialize)]
pub struct View {
    /// How many seconds ago, records, flagged ones, highest score; the oldest first.
    pub seconds: Vec<(u64, u64, u64, f64)>,
    /// The newest first.
    pub anomalies: Vec<Anomaly>,
    /// The oldest first.
    pub points: Vec<Point>,
    /// The latest, and how many there are.
    pub incidents: Vec<OpenIncident>,
    pub open: usize,
}

/// While it lives, somebody looks.
pub struct Watching(Arc<Live>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Live {
    fn default() -> Self {
        Live { began: Instant::now(), watchers: AtomicUsize::new(0), shown: Mutex::default() }
    }
}

impl Live {
    pub fn watch(self: &Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Takes in what there is to see of a commit, which is empty then.
    pub(super) fn add(&self, glance: &mut Glance) {
        let Glance { records, flagged, highest, .. } = *glance;
        if records == 0 {
            return;
        }
        let at = self.began.elapsed().as_secs();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match shown.seconds.back_mut().filter(|last| last.at >= at) {
            Some(last) => {
                last.records += records;
                last.flagged += flagged;
                last.highest = last.highest.max(highest);
            }
            None => shown.seconds.push_back(Second { at, records, flagged, highest }),
        }
        while shown.seconds.front().is_some_and(|first| first.at + SECONDS < at) {
            shown.seconds.pop_front();
        }
        keep_last(&mut shown.anomalies, &mut glance.anomalies, ANOMALIES);
        keep_last(&mut shown.points, &mut glance.points, POINTS);
        drop(shown);
        (glance.records, glance.flagged, glance.highest) = (0, 0, 0.0);
    }

    /// What is open with a worker now: the latest of so many.
    pub(super) fn incidents(&self, worker: usize, latest: Vec<OpenIncident>, open: usize) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).incidents.insert(worker, (latest, open));
    }

    pub fn view(&self) -> View {
        let now = self.began.elapsed().as_secs();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = |second: &Second| {
            let &Second { at, records, flagged, highest } = second;
            (now.saturating_sub(at), records, flagged, highest)
        };
        let mut incidents: Vec<OpenIncident> =
            shown.incidents.values().flat_map(|(latest, _)| latest).cloned().collect();
        incidents.sort_by(|a, b| b.last.cmp(&a.last).then(b.peak.total_cmp(&a.peak)));
        incidents.truncate(INCIDENTS_MAX);
        View {
            seconds: shown.seconds.iter().map(ago).filter(|second| second.0 <= SECONDS).collect(),
            anomalies: shown.anomalies.iter().rev().cloned().collect(),
            points: shown.points.iter().cloned().collect(),
            incidents,
            open: shown.incidents.values().map(|(_, open)| open).sum(),
        }
    }
}

fn keep_last<T>(all: &mut VecDeque<T>, new: &mut VecDeque<T>, most: usize) {
    all.extend(new.drain(..));
    all.drain(..all.len().saturating_sub(most));
}

impl Glance {
    /// Counts a scored record.
    pub fn see(&mut self, score: f64, flagged: bool) {
        self.records += 1;
        self.flagged += u64::from(flagged);
        self.highest = self.highest.max(score);
    }

    /// Takes a flagged record, in place of the oldest if there are many.
    pub fn anomaly(&mut self, anomaly: Anomaly) {
        if self.anomalies.len() >= ANOMALIES {
            self.anomalies.pop_front();
        }
        self.anomalies.push_back(anomaly);
    }

    /// Whether record `index` of a batch of so many has a place on the map: some of them, and more of those that are flagged.
    pub fn wants(&self, index: usize, of: usize, flagged: bool) -> bool {
        let step = of.div_ceil(POINTS_OF_BATCH).max(1);
        let step = if flagged { step.div_ceil(FLAGGED_MORE) } else { step };
        self.watched && index.is_multiple_of(step)
    }

    /// Takes a record with its place, in place of the oldest if there are many.
    pub fn point(&mut self, point: Point) {
        if self.points.len() >= POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anomaly(n: usize) -> Anomaly {
        let (time, series, sensor) = (n.to_string(), "pump".to_owned(), "flow".to_owned());
        Anomaly { time, series, score: 2.0, sensor, observed: None, expected: 1.0 }
    }

    #[test]
    fn what_is_shown_is_bounded_and_the_newest() {
        let live = Live::default();
        let mut glance = Glance { watched: true, ..Glance::default() };
        for batch in 0..100 {
            for record in 0..50 {
                glance.see(0.5, false);
                if glance.wants(record, 50, false) {
                    let series = format!("{batch}");
                    glance.point(Point { place: [0.0, f32::NAN], score: 0.5, series, time: String::new() });
                }
            }
            glance.see(2.0, true);
            glance.anomaly(anomaly(batch));
            live.add(&mut glance);
        }
        let view = live.view();
        assert_eq!(
            view.seconds.iter().map(|second| (second.1, second.2)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            (5_100, 100)
        );
        assert!(view.seconds.iter().all(|second| second.3 == 2.0));
        assert_eq!((view.anomalies.len(), view.anomalies[0].time.as_str()), (ANOMALIES, "99"));
        assert_eq!((view.points.len(), view.points[POINTS - 1].series.as_str()), (POINTS, "99"));
        assert_eq!(serde_json::to_string(&view.points[0]).unwrap(), "[0.0,0.0,0.5,\"53\",\"\"]");
    }

    #[test]
    fn nothing_is_placed_while_nobody_looks() {
        let live = Arc::new(Live::default());
        let glance = |live: &Live| Glance { watched: live.is_watched(), ..Glance::default() };
        assert!(!glance(&live).wants(0, 100, true));
        let (one, other) = (live.watch(), live.watch());
        drop(one);
        assert!(
            glance(&live).wants(0, 100, false)
                && !glance(&live).wants(1, 100, false)
                && glance(&live).wants(3, 100, true)
        );
        drop(other);
        assert!(!live.is_watched());
    }
}
