//! Other data than the model was trained on are told apart from anomalies: on `/status`, and as a metric.

use serde_json::Value;

use crate::plant::{self, Fault, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address};
use crate::support::{self, http_get, metric, wait_for};

#[test]
fn sensors_that_are_other_data_than_trained_on_are_named() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "drift", "");
    let process = setting.start_trained();
    let address = address(&process);
    let page = |path: &str| http_get(&address, path).filter(|r| r.status == 200).map(|r| r.body);
    let data = || page("/status").map(|body| serde_json::from_str::<Value>(&body).expect("JSON")["data"].clone());
    let compared = |at_least: u64| {
        wait_for("records to be compared", LONG, || {
            data().filter(|data| data["records_compared"].as_u64() >= Some(at_least))
        })
    };

    // More of the same, and one machine that is broken: an anomaly is no other data.
    let (calm, after) = (TRAINING_STEPS + 400, TRAINING_STEPS + 800);
    let broken = [Fault { machine: 3, sensor: 2, from: TRAINING_STEPS, to: usize::MAX, size: 6.0 }];
    broker.produce(&setting.topic, plant::records(2, TRAINING_STEPS..calm, &broken));
    setting.wait_until_settled(&broker.read(&setting.topic));
    let data = compared(500);
    assert_eq!((&data["sensors"], &data["other_than_trained_on"]), (&8.into(), &0.into()), "{data:#}");
    let distance = |metrics: &str| {
        let lines = metrics.lines().filter(|l| l.starts_with("residua_drift_distance{"));
        let line = lines.filter(|l| l.contains("sensor=\"motor.current\"")).collect::<String>();
        metric(&line, "residua_drift_distance")
    };
    // Metrics are set a moment after what the status has, and a second worker that joins late takes an open incident over in some seconds.
    let metrics = wait_for("metrics of that", LONG, || {
        let open = |metrics: &String| metric(metrics, "residua_open_incidents") >= 1.0;
        page("/metrics").filter(|metrics| distance(metrics) > 0.0 && open(metrics))
    });
    assert_eq!(metric(&metrics, "residua_drifted_sensors"), 0.0, "{metrics}");
    assert!((0.001..0.25).contains(&distance(&metrics)), "{}", distance(&metrics));

    // All of them run with another current from here on.
    let other: Vec<Fault> =
        (0..MACHINES).map(|machine| Fault { machine, sensor: 2, from: 0, to: usize::MAX, size: 4.0 }).collect();
    broker.produce(&setting.topic, plant::records(3, calm..after, &other));
    // It is other data from .1 on, which may be seen before half of the sample is of them.
    let metrics =
        wait_for("another distribution", LONG, || page("/metrics").filter(|metrics| distance(metrics) >= 0.3));
    assert_eq!((metric(&metrics, "residua_drifted_sensors"), distance(&metrics) < 1.0), (1.0, true), "{metrics}");
    let data = compared(1_000);
    let drift = &data["drifted"][0];
    assert_eq!((&data["other_than_trained_on"], &drift["sensor"]), (&1.into(), &"motor.current".into()), "{data:#}");
    let number = |key: &str| drift[key].as_f64().unwrap_or(f64::MIN);
    // The values are larger: fewer of them are at most so large.
    assert!(
        number("share") < number("trained") && (9.0..14.0).contains(&number("up_to").max(number("below"))),
        "{data:#}"
    );
    assert!(number("p") < 1e-3 && number("distance") > 0.1, "{data:#}");
    process.stop();
}
