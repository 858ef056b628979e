//! How late an anomaly is: from when its record was produced to when others can read the alert.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;

use crate::program::{PARTITIONS, records, serve};
use crate::support::{self, Broker, Outgoing};
use crate::table::{self, Goal};

const RATE: usize = 10_000;
const SECONDS: usize = 20;
/// Every so many records one is strange.
const STRANGE: usize = 997;
/// Until whoever reads the alerts has joined, and until a producer has connected.
const JOIN: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
/// After the last alert.
const PATIENCE: Duration = Duration::from_secs(5);
const COMMIT_INTERVAL_MS: u64 = 100; // residua's default
/// So much later than the commit interval an alert may be.
const LATE: Duration = Duration::from_millis(50);

/// Prints lines of the table. `model`: a file.
pub fn measure(broker: &Broker, model: &str) {
    let topic = support::topic("peers-latency");
    broker.create_topic(&topic, PARTITIONS, &[]);
    let process = serve(broker, &topic, model, &support::topic("peers-latency-group"), 1);
    let alerts: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.bootstrap)
        .set("group.id", support::topic("peers-alerts"))
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    alerts.subscribe(&[&format!("{topic}.anomalies")]).expect("subscribe");
    let start = Instant::now();
    while start.elapsed() < JOIN {
        assert!(alerts.poll(Duration::from_millis(100)).is_none_or(|polled| polled.is_err()), "an alert of nothing");
    }
    let mut late = thread::scope(|scope| {
        let produced = scope.spawn(|| broker.produce(&topic, paced(records(RATE * SECONDS, 3))));
        let (mut late, mut last) = (Vec::new(), Instant::now());
        while !produced.is_finished() || last.elapsed() < PATIENCE {
            let Some(Ok(alert)) = alerts.poll(Duration::from_millis(10)) else { continue };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64;
            let alert: serde_json::Value = serde_json::from_slice(alert.payload().expect("a value")).expect("JSON");
            let time: jiff::Timestamp = alert["time"].as_str().and_then(|time| time.parse().ok()).expect("a time");
            late.push(now - time.as_millisecond());
            last = Instant::now();
        }
        late
    });
    process.signal("TERM");
    assert!(process.wait(support::PATIENCE).status.success());
    assert!(late.len() > RATE * SECONDS / STRANGE / 2, "{} alerts", late.len());
    late.sort_unstable();
    let quantile = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let limit = Duration::from_millis(COMMIT_INTERVAL_MS) + LATE;
    for (part, goal) in [(0.5, Goal::None), (0.99, Goal::AtMost(1.0)), (1.0, Goal::None)] {
        let what = format!("{:.0} % of {} alerts readable within", 100.0 * part, late.len());
        let rival = format!("commit interval and {} ms; {RATE} records/s", LATE.as_millis());
        table::line(&what, &rival, quantile(part) as f64 / 1e3, limit.as_secs_f64(), goal);
    }
}

/// As many a second as `RATE` once the first has gone, for which a producer connects; some of them strange.
fn paced(records: impl Iterator<Item = Outgoing>) -> impl Iterator<Item = Outgoing> {
    let start = Instant::now();
    records.enumerate().map(move |(at, record)| {
        let due =
            start + if at == 0 { Duration::ZERO } else { CONNECT + Duration::from_secs_f64(at as f64 / RATE as f64) };
        let early = due.saturating_duration_since(Instant::now());
        if early > Duration::from_millis(1) {
            thread::sleep(early);
        }
        if at % STRANGE != STRANGE - 1 {
            return record;
        }
        let text = String::from_utf8_lossy(record.value.as_deref().expect("a value")).replace("\":", "\":9");
        Outgoing { value: Some(text.replace(":9-", ":-9").into_bytes()), ..record }
    })
}
