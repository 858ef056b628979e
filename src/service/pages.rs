//! What HTTP shows of the service.

use std::sync::Arc;

use super::current::Current;
use super::progress::{Progress, Standing};
use crate::config::Config;
use crate::http::{Pages, Probe};
use crate::metrics::{self, Metrics};
use crate::model::{Drift, Model};
use crate::pipeline::{Beside, Live, ModelSlot, Pulse, Stop, View};
use serde::Serialize;

/// The service as its probes see it.
pub(super) struct Status {
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub model: Arc<ModelSlot>,
    pub beside: Arc<Beside>,
    pub live: Arc<Live>,
    /// One per worker, and the supervisor's.
    pub workers: Vec<Arc<Pulse>>,
    pub supervisor: Arc<Pulse>,
    pub stop: Stop,
    pub current: Arc<Current>,
}

#[derive(Serialize)]
struct Page<'a> {
    version: &'static str,
    state: &'static str,
    ready: bool,
    not_ready_because: Vec<String>,
    learning: Standing,
    model: Option<ModelPage>,
    workers: Vec<WorkerPage>,
    records: Records,
    alarms: Option<AlarmsPage>,
    data: Option<DataPage>,
    /// In force, secrets left out.
    config: &'a Config,
    /// Keys whose value in the file counts from the next start on.
    config_pending: &'a [String],
    /// Why the file as it is now is not in force.
    config_refused: Option<&'a str>,
}

/// What the live page is fed with.
#[derive(Serialize)]
struct Event {
    state: &'static str,
    ready: bool,
    not_ready_because: Vec<String>,
    learning: Standing,
    topic: String,
    model: Option<String>,
    records: Records,
    alarms: Option<AlarmsPage>,
    other_than_trained_on: usize,
    #[serde(flatten)]
    view: View,
}

#[derive(Serialize)]
struct ModelPage {
    fingerprint: String,
    features: usize,
    window: usize,
}

#[derive(Serialize)]
struct WorkerPage {
    partitions: Option<usize>,
    seconds_since_turn: f64,
    seconds_since_broker_answered: f64,
}

#[derive(Serialize)]
struct Records {
    consumed: u64,
    scored: u64,
    warming: u64,
    dead_lettered: u64,
}

/// False alarms that are accepted, and alarms that there were, true ones among them.
#[derive(Serialize)]
struct AlarmsPage {
    /// What an alarm is: an incident, or where records have no order a flagged record.
    of: &'static str,
    accepted_per_record: f64,
    realised_per_record: f64,
    over_records: u64,
}

/// Whether the records of late are such as the model was trained on: the two-sample test of Kolmogorov and Smirnov.
#[derive(Serialize)]
struct DataPage {
    /// A sample of the last ones.
    records_compared: u64,
    sensors: usize,
    other_than_trained_on: usize,
    /// Those that differ most, at most ten.
    drifted: Vec<DriftPage>,
}

#[derive(Serialize)]
struct DriftPage {
    sensor: String,
    distance: f64,
    p: f64,
    /// Where the difference is largest, one of the two; none where it is in how many records the sensor is missing, or series have scales
    /// of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
    /// Of the records, and of those trained on, the share there.
    share: f64,
    trained: f64,
}

/// Sensors that are listed.
const DRIFTED_MAX: usize = 10;

impl DataPage {
    fn new(model: &Model, (records_compared, drifts): (u64, Vec<Drift>)) -> DataPage {
        let sensors = drifts.len();
        let other: Vec<Drift> = drifts.into_iter().filter(|drift| drift.differs).collect();
        let page = |&Drift { sensor, distance, p, at, share, trained, .. }: &Drift| {
            let edge = |wanted: bool| at.filter(|edge| edge.included == wanted);
            let [up_to, below] = [true, false].map(|of| model.in_own_unit(sensor, edge(of)?.value));
            let sensor = model.schema().names().nth(sensor).unwrap_or_default().to_owned();
            DriftPage { sensor, distance, p, up_to, below, share, trained }
        };
        let drifted = other.iter().take(DRIFTED_MAX).map(page).collect();
        DataPage { records_compared, sensors, other_than_trained_on: other.len(), drifted }
    }
}

impl Status {
    fn scoring(&self) -> bool {
        self.model.version() > 0
    }

    fn state(&self) -> &'static str {
        match (self.stop.requested(), self.scoring()) {
            (true, _) => "stopping",
            (_, true) => "scoring",
            _ => "learning",
        }
    }

    fn records(&self) -> Records {
        let [consumed, scored, warming, dead_lettered] = self.metrics.totals();
        Records { consumed, scored, warming, dead_lettered }
    }

    fn alarms(&self) -> Option<AlarmsPage> {
        self.metrics.alarm_rate().map(|alarms| AlarmsPage {
            of: if alarms.incidents { "incidents" } else { "records" },
            accepted_per_record: alarms.budget,
            realised_per_record: alarms.rate(),
            over_records: alarms.records(),
        })
    }
}

impl Pages for Status {
    fn metrics(&self) -> (&'static str, Vec<u8>) {
        self.metrics.probes(self.live().is_ok(), self.ready().is_ok());
        // Encoding into memory fails only for a metric without a name, which no metric is.
        (metrics::CONTENT_TYPE, self.metrics.scrape().unwrap_or_default())
    }

    /// Only whether the loops turn: a restart mends nothing else, least of all Kafka.
    fn live(&self) -> Probe {
        let timeout = self.current.standing().config.http.liveness_timeout;
        let turning = |what: String, pulse: &Pulse| {
            let silent = pulse.silent_for();
            (silent > timeout).then(|| format!("{what} has not turned for {} s", silent.as_secs()))
        };
        let mut stuck: Vec<String> = Vec::new();
        if self.scoring() {
            stuck.extend(self.workers.iter().enumerate().filter_map(|(i, p)| turning(format!("worker {i}"), p)));
        }
        stuck.extend(turning("the supervisor".to_owned(), &self.supervisor));
        if stuck.is_empty() { Ok(()) } else { Err(stuck) }
    }

    fn ready(&self) -> Probe {
        if self.stop.requested() {
            return Err(vec!["stopping".to_owned()]);
        }
        if !self.scoring() {
            let Standing { stage, done, total, because } = self.progress.standing();
            let because = if because.is_empty() { because } else { format!("; {because}") };
            return Err(vec![format!("no model yet: {stage:?}, {done} of {total}{because}")]);
        }
        let timeout = self.current.standing().config.http.readiness_timeout;
        let mut why = Vec::new();
        for (i, pulse) in self.workers.iter().enumerate() {
            if pulse.partitions().is_none() {
                why.push(format!("worker {i} waits for its partitions"));
            }
            let silence = pulse.unanswered_for();
            if silence > timeout {
                why.push(format!("no broker has answered worker {i} for {} s", silence.as_secs()));
            }
            let astray = pulse.astray_for();
            if astray > timeout {
                let seconds = astray.as_secs();
                why.push(format!("worker {i} has not been able to read some of its partitions for {seconds} s"));
            }
            let uncommitted = pulse.uncommitted_for();
            if uncommitted > timeout {
                why.push(format!("worker {i} has not been able to commit for {} s", uncommitted.as_secs()));
            }
        }
        if why.is_empty() { Ok(()) } else { Err(why) }
    }

    fn status(&self) -> Vec<u8> {
        let ready = self.ready();
        let standing = self.current.standing();
        let page = Page {
            version: env!("CARGO_PKG_VERSION"),
            state: self.state(),
            ready: ready.is_ok(),
            not_ready_because: ready.err().unwrap_or_default(),
            learning: self.progress.standing(),
            model: self.model.get().map(|m| ModelPage {
                fingerprint: m.fingerprint().to_owned(),
                features: m.schema().len(),
                window: m.window(),
            }),
            workers: self
                .workers
                .iter()
                .map(|p| WorkerPage {
                    partitions: p.partitions(),
                    seconds_since_turn: p.silent_for().as_secs_f64(),
                    seconds_since_broker_answered: p.unanswered_for().as_secs_f64(),
                })
                .collect(),
            records: self.records(),
            alarms: self.alarms(),
            data: self.model.get().map(|model| DataPage::new(&model, self.beside.drifts(&self.model))),
            config: &standing.config,
            config_pending: &standing.pending,
            config_refused: standing.refused.as_deref(),
        };
        // Plain data: numbers, strings and a JSON value.
        serde_json::to_vec_pretty(&page).unwrap_or_default()
    }

    fn event(&self) -> Vec<u8> {
        let ready = self.ready();
        let model = self.model.get();
        let drifts = model.as_ref().map(|_| self.beside.drifts(&self.model).1).unwrap_or_default();
        let event = Event {
            state: self.state(),
            ready: ready.is_ok(),
            not_ready_because: ready.err().unwrap_or_default(),
            learning: self.progress.standing(),
            topic: self.current.standing().config.kafka.input.clone(),
            model: model.map(|model| model.fingerprint().to_owned()),
            records: self.records(),
            alarms: self.alarms(),
            other_than_trained_on: drifts.iter().filter(|drift| drift.differs).count(),
            view: self.live.view(),
        };
        serde_json::to_vec(&event).unwrap_or_default()
    }

    fn watch(&self) -> Box<dyn Send> {
        Box::new(self.live.watch())
    }
}
