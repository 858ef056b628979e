//! While the demo runs, every panel shows something, and what it finds reaches people.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::dashboard::queries;
use crate::files::text;
use crate::servers::{Prometheus, alertmanager, webhook};
use crate::support::{Process, wait_for};

/// The demo learns for a while, and streams for half a minute.
const LONG: Duration = Duration::from_secs(180);

#[test]
fn every_panel_shows_something_while_the_demo_runs_and_an_alert_reaches_a_webhook() {
    let dir = tempfile::tempdir().unwrap();
    let (hook, notifications) = webhook();
    let config = text("alertmanager/alertmanager.yml")
        .replace("http://localhost:9095/", &format!("http://{hook}/"))
        .replace("group_wait: 10s", "group_wait: 1s");
    let Some((_alertmanager, alerts_to)) = alertmanager(dir.path(), &config) else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(["demo", "--serve=127.0.0.1:0"]);
    let demo = Process::spawn(command);
    let said = demo.wait_for_line("metrics at http://", LONG);
    let address = said.split("http://").nth(1).unwrap().trim_end_matches("/metrics").to_owned();
    let config = text("prometheus/prometheus.yml")
        .replace("localhost:9464", &address)
        .replace("localhost:9093", &alerts_to)
        .replace("15s", "500ms");
    let Some(prometheus) = Prometheus::start(dir.path(), &config, &text("prometheus/residua.rules.yml")) else {
        return;
    };
    demo.wait_for_line("Still running", LONG);
    for query in queries() {
        let expr = query.expr.replace("$__rate_interval", "30s").replace("$__range", "5m");
        let expr = ["$job", "$instance", "$topic"].iter().fold(expr, |e, name| e.replace(name, ".+"));
        // What is not there is left out of a picture; that it can be shown counts.
        let expr = expr.trim_end_matches(" > 0");
        wait_for(&format!("{}: {expr}", query.panel), Duration::from_secs(30), || {
            let samples = prometheus.query(expr);
            let a_number = |s: &serde_json::Value| s["value"][1].as_str().is_some_and(|v| v != "NaN");
            samples.iter().any(a_number).then_some(())
        });
    }
    let deadline = Instant::now() + LONG;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let told = notifications.recv_timeout(left).expect("a notification of ResiduaIncident");
        let alert = &told["alerts"][0];
        if alert["labels"]["alertname"] == "ResiduaIncident" {
            assert_eq!((&alert["labels"]["topic"], &alert["labels"]["severity"]), (&"plant".into(), &"warning".into()));
            assert_eq!(alert["annotations"]["runbook_url"], "docs/operating.md#residuaincident");
            break;
        }
    }
    demo.signal("INT");
    let ended = demo.wait(Duration::from_secs(30));
    assert!(ended.status.success(), "{ended:?}");
}
