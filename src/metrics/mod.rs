//! Every metric of residua: name, help, labels. A series key is never a label; every label set is bounded.
//!
//! The books balance at every scrape: `consumed = scored + warming + dead-lettered + rewound + in flight`. Workers write
//! them once per batch under a lock that a scrape takes too.

mod alarm_rate;
mod outcomes;
mod registry;
mod sensors;
mod settings;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{Encoder, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGaugeVec, TextEncoder};

pub use alarm_rate::AlarmRate;
pub use outcomes::{CommitEnd, Outcomes, Reload, Restore, Scores, Stage};
use registry::Registry;
use sensors::Sensors;
pub use settings::MetricsSettings;

use crate::incident::Change;

/// Content type of [`Metrics::scrape`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Sensors that are named with their drift, at most.
const DRIFTED_MAX: usize = 10;

/// The registry and everything in it. Shared by all workers.
pub struct Metrics {
    registry: Registry,
    books: Mutex<()>,
    consumed: IntCounter,
    scored: IntCounter,
    warming: IntCounter,
    rewound: IntCounter,
    dead_lettered: IntCounterVec,
    sensors: Sensors,
    in_flight: IntGaugeVec,
    last_record: IntGaugeVec,
    anomalies: IntCounterVec,
    incidents: IntCounterVec,
    open_incidents: IntGaugeVec,
    astray: IntGaugeVec,
    restores: IntCounterVec,
    unreadable: IntCounter,
    scores: Histogram,
    stages: [Histogram; 3],
    latency: Histogram,
    commits: [IntCounter; 3],
    lag: IntGaugeVec,
    partitions: IntGaugeVec,
    rebalances: IntCounter,
    lost_to_retention: IntCounter,
    cut_off: IntCounter,
    series: IntGaugeVec,
    forgotten: [IntCounter; 2],
    warmup_ratio: Gauge,
    model_info: GaugeVec,
    models_refused: IntCounter,
    alarm_budget: Gauge,
    alarm_rate: Gauge,
    drifted: Gauge,
    drift: GaugeVec,
    reloads: [IntCounter; 3],
    config_ok: Gauge,
    config_pending: Gauge,
    live: Gauge,
    ready: Gauge,
    /// None until a model is in force.
    alarms: Mutex<Option<AlarmRate>>,
}

impl Metrics {
    /// All metrics at zero, for the input `topic`. `dead_letter_reasons` and `severities` are the label values, so that they exist
    /// from the start.
    pub fn new(
        version: &str,
        topic: &str,
        dead_letter_reasons: &[&str],
        severities: &[&str],
        settings: &MetricsSettings,
    ) -> prometheus::Result<Metrics> {
        let r = Registry::new(topic)?;
        r.gauges("residua_build_info", "Always 1; the label tells the version.", "version")?
            .with_label_values(&[version])
            .set(1.0);
        let dead_lettered = r.counters(
            "residua_records_dead_lettered_total",
            "Records written to the dead-letter topic, by reason.",
            "reason",
        )?;
        dead_letter_reasons.iter().for_each(|reason| drop(dead_lettered.with_label_values(&[*reason])));
        let anomalies =
            r.counters("residua_anomalies_total", "Records flagged as anomalous, by severity.", "severity")?;
        severities.iter().for_each(|severity| drop(anomalies.with_label_values(&[*severity])));
        let sensors = r.counters(
            "residua_anomalies_by_sensor_total",
            "Records flagged as anomalous, by the sensor that made most of the error; only with metrics.sensors.",
            "sensor",
        )?;
        let incidents =
            r.counters("residua_incidents_total", "Changes of incidents, by what happened to them.", "change")?;
        Change::NAMES.iter().for_each(|change| drop(incidents.with_label_values(&[*change])));
        let restores = r.counters(
            "residua_state_restores_total",
            "Partitions found, after an assignment or a failure: with the state of their series, without as none was stored, or with it discarded.",
            "result",
        )?;
        Restore::ALL.iter().for_each(|restore| drop(restores.with_label_values(&[restore.name()])));
        let stages = r.histograms(
            "residua_stage_duration_seconds",
            "Time a worker spent in a stage, per batch (judge, emit) or commit.",
            "stage",
            &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
        )?;
        let commits = r.counters(
            "residua_commits_total",
            "Transactions, or commits under at-least-once, by how they ended.",
            "result",
        )?;
        let forgotten = r.counters(
            "residua_series_forgotten_total",
            "Series whose state was dropped to bound memory, by cause.",
            "cause",
        )?;
        let reloads = r.counters(
            "residua_config_reloads_total",
            "Times the configuration was read again, by how it ended.",
            "result",
        )?;
        let config_ok =
            r.gauge("residua_config_ok", "1 if the configuration file, when it was last read, could be used, else 0.")?;
        config_ok.set(1.0);
        Ok(Metrics {
            consumed: r.counter("residua_records_consumed_total", "Records read from the input topic.")?,
            scored: r.counter("residua_records_scored_total", "Records that got a score.")?,
            warming: r.counter("residua_records_warming_total", "Records of a series that has no full window yet, or whose scale is being learned.")?,
            rewound: r.counter(
                "residua_records_rewound_total",
                "Records read but not committed, because a transaction was aborted or a partition lost; they are read again.",
            )?,
            dead_lettered,
            sensors: Sensors::new(sensors, settings.sensors),
            in_flight: r.per_worker("residua_records_in_flight", "Records read and not yet committed.")?,
            last_record: r.per_worker(
                "residua_last_record_timestamp_seconds",
                "Unix time at which a record was last read, or partitions were last assigned, whichever is later.",
            )?,
            anomalies,
            incidents,
            open_incidents: r.per_worker("residua_open_incidents", "Series with an open incident.")?,
            restores,
            unreadable: r.counter("residua_series_unreadable_total", "Series whose stored state could not be read.")?,
            scores: r.histogram(
                "residua_score",
                "Scores of records; 1 is the threshold.",
                &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0],
            )?,
            stages: Stage::ALL.map(|(_, name)| stages.with_label_values(&[name])),
            latency: r.histogram(
                "residua_latency_seconds",
                "From the Kafka timestamp of the oldest record of a commit to the end of that commit.",
                &[0.01, 0.03, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0, 60.0, 600.0, 3600.0],
            )?,
            commits: ["committed", "aborted", "unknown"].map(|end| commits.with_label_values(&[end])),
            lag: r.per_worker(
                "residua_lag_records",
                "Records in the assigned partitions that were not yet read; without those that have no leader.",
            )?,
            partitions: r.per_worker("residua_assigned_partitions", "Partitions of the input assigned to a worker.")?,
            astray: r.per_worker(
                "residua_waiting_partitions",
                "Assigned partitions that are not read: they have no leader, their place is yet to be found, or they wait for a schema.",
            )?,
            rebalances: r.counter("residua_rebalances_total", "Times partitions were assigned or revoked.")?,
            lost_to_retention: r.counter(
                "residua_records_lost_to_retention_total",
                "Offsets that the input topic had deleted before they were read.",
            )?,
            cut_off: r.counter(
                "residua_records_cut_off_total",
                "Offsets that were read and that the input topic no longer reaches: Kafka lost their records.",
            )?,
            forgotten: ["max", "idle"].map(|cause| forgotten.with_label_values(&[cause])),
            series: r.per_worker("residua_series", "Series with state in memory.")?,
            warmup_ratio: r.gauge(
                "residua_warmup_ratio",
                "Progress from start to scoring, 0 to 1: history read, then model trained.",
            )?,
            model_info: r.gauges("residua_model_info", "Always 1; the label tells the model in force.", "fingerprint")?,
            models_refused: r.counter(
                "residua_models_refused_total",
                "Models found in the models topic that cannot be used; the one in force stays.",
            )?,
            alarm_budget: r.gauge(
                "residua_alarm_budget_ratio",
                "False incidents accepted per record; false records where they have no order.",
            )?,
            alarm_rate: r.gauge(
                "residua_alarm_rate_ratio",
                "Incidents opened per record of late, true ones among them; records flagged where they have no order.",
            )?,
            drifted: r.gauge(
                "residua_drifted_sensors",
                "Sensors whose values of late are other data than those the model was trained on.",
            )?,
            drift: r.gauges(
                "residua_drift_distance",
                "Kolmogorov-Smirnov distance of a sensor, 0 to 1, from what it was trained on; of the ten that are farthest.",
                "sensor",
            )?,
            reloads: ["applied", "unchanged", "refused"].map(|result| reloads.with_label_values(&[result])),
            config_ok,
            config_pending: r.gauge(
                "residua_config_pending_keys",
                "Keys that have another value in the configuration file, which counts from the next start on.",
            )?,
            live: r.gauge("residua_live", "1 if /livez answers 200, else 0.")?,
            ready: r.gauge("residua_ready", "1 if /readyz answers 200, else 0.")?,
            alarms: Mutex::new(None),
            books: Mutex::new(()),
            registry: r,
        })
    }

    fn books(&self) -> MutexGuard<'_, ()> {
        // Poisoned: a worker panicked between two additions; the process is ending, and the numbers are still the best there are.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `n` more records were read by `worker` and wait for their commit.
    pub fn consumed(&self, worker: &str, n: u64) {
        if n > 0 {
            self.awake(worker);
        }
        let _balanced = self.books();
        self.consumed.inc_by(n);
        self.in_flight.with_label_values(&[worker]).add(n as i64);
    }

    /// Records left flight by a commit.
    pub fn settled(&self, worker: &str, outcomes: &Outcomes) {
        let _balanced = self.books();
        self.scored.inc_by(outcomes.scored);
        self.warming.inc_by(outcomes.warming);
        let mut n = outcomes.scored + outcomes.warming;
        for (reason, count) in &outcomes.dead_lettered {
            self.dead_lettered.with_label_values(&[*reason]).inc_by(*count);
            n += count;
        }
        for (severity, count) in &outcomes.anomalies {
            self.anomalies.with_label_values(&[*severity]).inc_by(*count);
        }
        for (sensor, count) in &outcomes.sensors {
            self.sensors.add(sensor, *count);
        }
        for (change, count) in &outcomes.incidents {
            self.incidents.with_label_values(&[*change]).inc_by(*count);
        }
        if let Some(alarms) = &mut *self.alarms() {
            let opened = |(change, _): &&(&str, u64)| *change == Change::Opened.name();
            let count = match alarms.incidents {
                true => outcomes.incidents.iter().filter(opened).map(|(_, n)| n).sum(),
                false => outcomes.anomalies.iter().map(|(_, n)| n).sum(),
            };
            alarms.see(outcomes.scored, count);
            self.alarm_rate.set(alarms.rate());
        }
        self.in_flight.with_label_values(&[worker]).sub(n as i64);
    }

    /// `n` records left flight without a commit; they are read again.
    pub fn rewound(&self, worker: &str, n: u64) {
        let _balanced = self.books();
        self.rewound.inc_by(n);
        self.in_flight.with_label_values(&[worker]).sub(n as i64);
    }

    /// For a worker's scores of one commit.
    pub fn scores(&self) -> Scores {
        Scores(self.scores.local())
    }

    pub fn stage(&self, stage: Stage, seconds: f64) {
        self.stages[stage as usize].observe(seconds);
    }

    pub fn committed(&self, end: CommitEnd) {
        self.commits[end as usize].inc();
    }

    pub fn latency(&self, seconds: f64) {
        self.latency.observe(seconds);
    }

    pub fn lag(&self, worker: &str, records: u64) {
        self.lag.with_label_values(&[worker]).set(records as i64);
    }

    pub fn rebalanced(&self, worker: &str, partitions: usize) {
        self.rebalances.inc();
        self.awake(worker);
        // Zero is there before the first record is: a rule adds it to the lag.
        let _ = self.in_flight.with_label_values(&[worker]);
        self.partitions.with_label_values(&[worker]).set(partitions as i64);
    }

    /// Something came for this worker just now.
    fn awake(&self, worker: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_record.with_label_values(&[worker]).set(now.as_secs() as i64);
    }

    pub fn lost_to_retention(&self, records: u64) {
        self.lost_to_retention.inc_by(records);
    }

    pub fn cut_off(&self, records: u64) {
        self.cut_off.inc_by(records);
    }

    pub fn series(&self, worker: &str, count: usize) {
        self.series.with_label_values(&[worker]).set(count as i64);
    }

    pub fn astray(&self, worker: &str, partitions: usize) {
        self.astray.with_label_values(&[worker]).set(partitions as i64);
    }

    pub fn open_incidents(&self, worker: &str, count: usize) {
        self.open_incidents.with_label_values(&[worker]).set(count as i64);
    }

    /// A partition was taken over; of its series, so many could not be read.
    pub fn restored(&self, how: Restore, unreadable: u64) {
        self.restores.with_label_values(&[how.name()]).inc();
        self.unreadable.inc_by(unreadable);
    }

    /// Series forgotten because there were too many, and because they were silent.
    pub fn forgotten(&self, by_max: u64, by_idle: u64) {
        self.forgotten[0].inc_by(by_max);
        self.forgotten[1].inc_by(by_idle);
    }

    pub fn warmup(&self, ratio: f64) {
        self.warmup_ratio.set(ratio);
    }

    /// The model in force from here on, and the false alarms per record that are accepted of it: incidents, or flagged records.
    pub fn model(&self, fingerprint: &str, budget: f64, incidents: bool) {
        let _whole = self.books();
        self.model_info.reset();
        self.model_info.with_label_values(&[fingerprint]).set(1.0);
        self.budget(budget, incidents);
    }

    /// The false alarms per record that are accepted from here on.
    pub fn budget(&self, budget: f64, incidents: bool) {
        self.alarm_budget.set(budget);
        let mut alarms = self.alarms();
        if alarms.is_none_or(|alarms| (alarms.budget, alarms.incidents) != (budget, incidents)) {
            *alarms = Some(AlarmRate::new(budget, incidents));
        }
    }

    /// How many sensors have other values than those trained on, and how far from them each one lies, the farthest first.
    pub fn drifted<'a>(&self, differ: usize, sensors: impl Iterator<Item = (&'a str, f64)>) {
        // Every worker tells it: a scrape finds the count and the distances of one of them.
        let _whole = self.books();
        self.drifted.set(differ as f64);
        self.drift.reset();
        let named = sensors.take(DRIFTED_MAX);
        named.for_each(|(sensor, distance)| self.drift.with_label_values(&[sensor]).set(distance));
    }

    /// A model in the topic cannot be used.
    pub fn model_refused(&self) {
        self.models_refused.inc();
    }

    /// The configuration was read again; so many of its keys count from the next start on.
    pub fn reloaded(&self, how: Reload, pending: usize) {
        self.config_pending.set(pending as f64);
        self.config_ok.set(if matches!(how, Reload::Refused) { 0.0 } else { 1.0 });
        self.reloads[how as usize].inc();
    }

    /// What the probes say now.
    pub fn probes(&self, live: bool, ready: bool) {
        self.live.set(f64::from(u8::from(live)));
        self.ready.set(f64::from(u8::from(ready)));
    }

    fn alarms(&self) -> MutexGuard<'_, Option<AlarmRate>> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often there are alarms; None until a model is in force.
    pub fn alarm_rate(&self) -> Option<AlarmRate> {
        *self.alarms()
    }

    /// Totals so far: consumed, scored, warming, dead-lettered.
    pub fn totals(&self) -> [u64; 4] {
        let _balanced = self.books();
        let dead = self.dead_lettered.collect();
        let dead = dead.iter().flat_map(|f| f.get_metric()).map(|m| m.get_counter().get_value() as u64).sum();
        [self.consumed.get(), self.scored.get(), self.warming.get(), dead]
    }

    /// All metrics in Prometheus' text format.
    pub fn scrape(&self) -> prometheus::Result<Vec<u8>> {
        let families = {
            let _balanced = self.books();
            self.registry.gather()
        };
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let lines = text.lines().filter(|l| l.starts_with(name) && !l.starts_with('#'));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    #[test]
    fn a_scrape_tells_of_one_comparison_and_of_one_model() {
        let m = Metrics::new("0", "sensors", &["not_json"], &["warning"], &MetricsSettings::default()).unwrap();
        m.model("a", 1e-4, true);
        m.drifted(0, [("in", 0.0)].into_iter());
        let telling = std::sync::atomic::AtomicUsize::new(2);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (m, telling) = (&m, &telling);
                scope.spawn(move || {
                    for i in 0..20_000 {
                        let differ = (i + worker) % 2;
                        m.drifted(differ, [("in", differ as f64)].into_iter());
                        m.model(["a", "b"][differ], 1e-4, true);
                    }
                    telling.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
            let mut scrapes = 0;
            while telling.load(std::sync::atomic::Ordering::Relaxed) > 0 || scrapes == 0 {
                let text = String::from_utf8(m.scrape().unwrap()).unwrap();
                let [differ, distance, models] = ["drifted_sensors", "drift_distance", "model_info"]
                    .map(|name| value(&text, &format!("residua_{name}")));
                assert_eq!((differ, models), (distance, 1.0), "{text}");
                scrapes += 1;
            }
        });
    }

    #[test]
    fn books_balance_at_every_scrape() {
        let m = Metrics::new("0", "sensors", &["not_json"], &["warning"], &MetricsSettings::default()).unwrap();
        let scraping = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            for worker in ["0", "1"] {
                let m = &m;
                let scraping = &scraping;
                scope.spawn(move || {
                    for i in 0..2_000 {
                        m.consumed(worker, 7);
                        if i % 5 == 0 {
                            m.rewound(worker, 7);
                        } else {
                            let dead_lettered = vec![("not_json", 1)];
                            m.settled(
                                worker,
                                &Outcomes {
                                    scored: 4,
                                    warming: 2,
                                    dead_lettered,
                                    anomalies: vec![("warning", 1)],
                                    incidents: vec![],
                                    sensors: vec![],
                                },
                            );
                        }
                    }
                    scraping.store(false, std::sync::atomic::Ordering::Relaxed);
                });
            }
            let mut scrapes = 0;
            while scraping.load(std::sync::atomic::Ordering::Relaxed) || scrapes == 0 {
                let text = String::from_utf8(m.scrape().unwrap()).unwrap();
                let consumed = value(&text, "residua_records_consumed_total");
                let parts = ["scored_total", "warming_total", "dead_lettered_total", "rewound_total", "in_flight"];
                let sum: f64 = parts.iter().map(|p| value(&text, &format!("residua_records_{p}"))).sum();
                assert_eq!(consumed, sum, "{text}");
                scrapes += 1;
            }
        });
        assert_eq!(m.totals(), [28_000, 12_800, 6_400, 3_200]);
    }

    #[test]
    fn names_follow_prometheus_conventions() {
        let m = Metrics::new("0", "sensors", &["not_json"], &["warning"], &MetricsSettings::default()).unwrap();
        m.model("0123456789abcdef", 1e-4, true);
        let families = m.registry.gather();
        assert!(families.len() > 15);
        for f in families.iter().filter(|f| f.name().starts_with("residua_")) {
            let counter = f.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(counter, f.name().ends_with("_total"), "{}", f.name());
            assert!(f.help().ends_with('.'), "{}", f.name());
        }
    }
}
