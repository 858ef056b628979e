//! Probes, status and start-up errors as an orchestrator sees them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::setting::{LONG, address, line, text};
use crate::support::proxy::Proxies;
use crate::support::{self, PATIENCE, http_get, residua, wait_for};

fn config(brokers: &str, topic: &str) -> String {
    format!(
        "[kafka]\nbrokers = \"{brokers}\"\ninput = \"{topic}\"\nrequest_timeout = \"5s\"\n[http]\nlisten = \"127.0.0.1:0\"\n"
    )
}

#[test]
fn without_enough_history_it_waits_visibly_alive_and_not_ready() {
    let Some(broker) = support::kafka() else { return };
    let config = config(&broker.bootstrap, &support::topic("waiting"));
    assert!(
        residua(&["check", "--connect", "--create-topics", "--partitions", "6"], &config)
            .wait(PATIENCE)
            .status
            .success()
    );
    let process = residua(&["run"], &config);
    let address = address(&process);
    process.wait_for_line("waiting for records", PATIENCE);
    let live = http_get(&address, "/livez").expect("an answer");
    assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
    let ready = http_get(&address, "/readyz").expect("an answer");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("no model yet"), "{}", ready.body);
    let status: Value = serde_json::from_str(&http_get(&address, "/status").expect("an answer").body).expect("JSON");
    assert_eq!(status["state"], "learning");
    assert_eq!(status["ready"], false);
    assert_eq!(http_get(&address, "/nonsense").expect("an answer").status, 404);
    process.signal("TERM");
    let ended = process.wait(Duration::from_secs(10));
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn missing_topics_are_named_and_exit_78() {
    let Some(broker) = support::kafka() else { return };
    let topic = support::topic("absent");
    let ended = residua(&["run"], &config(&broker.bootstrap, &topic)).wait(PATIENCE);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains(&topic) && ended.stderr.contains("--create-topics"), "{}", ended.stderr);
}

#[test]
fn an_unreachable_kafka_exits_69_and_names_the_address() {
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let brokers = format!("127.0.0.1:{port}");
    let ended = residua(&["run"], &config(&brokers, "sensors")).wait(PATIENCE);
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    assert!(ended.stderr.contains(&brokers), "{}", ended.stderr);
}

#[test]
fn a_state_topic_with_too_few_partitions_ends_the_daemon_with_78() {
    let Some(broker) = support::kafka() else { return };
    let topic = support::topic("narrow");
    broker.create_topic(&topic, 3, &[]);
    broker.create_topic(&format!("residua-{topic}.state"), 2, &[("cleanup.policy", "compact")]);
    let config = config(&broker.bootstrap, &topic);
    let checked = residua(&["check", "--connect", "--create-topics", "--partitions", "6"], &config).wait(PATIENCE);
    assert!(checked.stdout.contains("has 2 partitions, expected 3"), "{checked:?}");
    let ended = residua(&["run"], &config).wait(PATIENCE);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains("it has 2 partitions, and the input has 3"), "{ended:?}");
}

/// A compacted topic takes no message without a key, now or later: `check` warns, and a daemon that meets one ends with the reason.
#[test]
fn a_topic_that_refuses_a_message_for_good_ends_the_daemon_with_its_name() {
    let Some(broker) = support::kafka() else { return };
    let topic = support::topic("refuses");
    let letters = format!("{topic}.dead-letters");
    broker.create_topic(&topic, 2, &[]);
    broker.create_topic(&letters, 2, &[("cleanup.policy", "compact")]);
    let config = config(&broker.bootstrap, &topic).replace("[http]", "[learning]\nmin_records = 2000\n[http]");
    let checked = residua(&["check", "--connect", "--create-topics"], &config).wait(PATIENCE);
    let wrong = checked.stdout.lines().find(|l| l.starts_with("WRONG") && l.contains(&letters));
    assert!(wrong.is_some_and(|l| l.contains("expected delete")), "{}", checked.stdout);
    broker.produce(&topic, crate::plant::records(1, 0..60, &[]));
    let process = residua(&["run"], &config);
    process.wait_for_line("partitions assigned", LONG);
    let broken = support::Outgoing { value: Some(b"no record".to_vec()), ..Default::default() };
    broker.produce(&topic, [broken]);
    let ended = process.wait(LONG);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains(&letters), "{}", ended.stderr);
}

/// A dead letter has the time of its message; where the topic takes none so old, it has that in a header, and nothing stands still.
#[test]
fn a_dead_letter_whose_timestamp_is_refused_carries_it_in_a_header() {
    let Some(broker) = support::kafka() else { return };
    let topic = support::topic("untimely");
    let letters = format!("{topic}.dead-letters");
    broker.create_topic(&topic, 2, &[]);
    broker.create_topic(&letters, 2, &[("message.timestamp.before.max.ms", "3600000")]);
    let config = config(&broker.bootstrap, &topic).replace("[http]", "[learning]\nmin_records = 2000\n[http]");
    assert!(residua(&["check", "--connect", "--create-topics"], &config).wait(PATIENCE).status.success());
    broker.produce(&topic, crate::plant::records(1, 0..60, &[]));
    let process = residua(&["run"], &config);
    process.wait_for_line("partitions assigned", LONG);
    let old = 1_577_836_800_000; // 2020
    let broken = support::Outgoing { timestamp_ms: Some(old), ..support::Outgoing::new("k", "no record") };
    broker.produce(&topic, [broken]);
    let letter = broker.read_until(&letters, LONG, |m| !m.is_empty()).remove(0);
    assert_eq!(letter.header("residua.timestamp-ms"), Some(old.to_string().as_bytes()));
    assert_eq!(letter.value.as_deref(), Some(&b"no record"[..]));
    process.stop();
}

#[test]
fn a_models_topic_with_several_partitions_ends_the_daemon_with_78() {
    let Some(broker) = support::kafka() else { return };
    let topic = support::topic("models");
    broker.create_topic(&topic, 2, &[]);
    broker.create_topic(&format!("residua-{topic}.models"), 3, &[("cleanup.policy", "compact")]);
    let ended = residua(&["run"], &config(&broker.bootstrap, &topic)).wait(PATIENCE);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains("it has 3 partitions, expected 1"), "{}", ended.stderr);
}

#[test]
fn check_connect_names_what_is_wrong_with_a_topic() {
    let Some(broker) = support::kafka() else { return };
    let topic = support::topic("shape");
    broker.create_topic(&topic, 3, &[]);
    broker.create_topic(&format!("{topic}.anomalies"), 3, &[]);
    broker.create_topic(&format!("residua-{topic}.models"), 2, &[]);
    let ended = residua(&["check", "--connect"], &config(&broker.bootstrap, &topic)).wait(PATIENCE);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    let wrong = |what: &str| ended.stdout.lines().any(|l| l.starts_with("WRONG") && l.contains(what));
    assert!(wrong("has 2 partitions, expected 1"), "{}", ended.stdout);
    assert!(wrong("dead letters topic"), "{}", ended.stdout);
    assert!(!wrong("input topic"), "{}", ended.stdout);
}

#[test]
fn readiness_follows_the_broker_and_liveness_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = support::cluster(&dir.path().join("kafka"), 1) else { return };
    let topic = support::topic("outage");
    let config = config(&cluster.broker.bootstrap, &topic).replace("[http]", "[learning]\nmin_records = 2000\n[http]")
        + "readiness_timeout = \"5s\"\nliveness_timeout = \"10s\"\n";
    let config =
        config.replace("[learning]", &format!("scores = \"{topic}.scores\"\ntransaction_timeout = \"4s\"\n[learning]"));
    assert!(
        residua(&["check", "--connect", "--create-topics", "--partitions", "6"], &config)
            .wait(PATIENCE)
            .status
            .success()
    );
    cluster.broker.produce(&topic, crate::plant::records(1, 0..60, &[]));
    let process = residua(&["run"], &config);
    let address = address(&process);
    let ready = |wanted: u16| http_get(&address, "/readyz").filter(|r| r.status == wanted).map(|_| ());
    wait_for("readiness", Duration::from_secs(120), || ready(200));
    // With records on the way, so that there is a transaction to be waited for.
    cluster.broker.produce(&topic, crate::plant::records(1, 60..61, &[]));
    cluster.control(&["stop-broker", "1"]);
    let live = || {
        let answer = http_get(&address, "/livez").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    wait_for("readiness to go with the broker", Duration::from_secs(30), || {
        live();
        ready(503)
    });
    // Longer than a loop may stand still.
    let since = Instant::now();
    wait_for("time to pass", PATIENCE, || {
        live();
        (since.elapsed() > Duration::from_secs(15)).then_some(())
    });
    cluster.control(&["start-broker", "1"]);
    // Kafka's own waits add up: reconnecting, the old transaction's end, a session that ran out.
    wait_for("readiness to come back with the broker", LONG, || ready(200));
    cluster.broker.produce(&topic, crate::plant::records(1, 61..80, &[]));
    // Whatever became of the transaction that the outage broke: each record once.
    let expected = 20 * crate::plant::MACHINES;
    cluster.broker.read_until(&format!("{topic}.scores"), PATIENCE, |m| m.len() >= expected);
    let lines = cluster.broker.read(&format!("{topic}.scores"));
    let ids: std::collections::BTreeSet<String> = lines.iter().map(|m| text(&line(m), "id").to_owned()).collect();
    assert_eq!((lines.len(), ids.len()), (expected, expected));
    crate::accounting::books_balance(&http_get(&address, "/metrics").expect("an answer").body);
    process.stop();
}

/// A broker that has just started may know of topics, and not yet of itself. librdkafka can forget its last broker then, for good: in one of two
/// or three such moments, where it asks every second.
#[test]
fn a_cluster_that_names_no_broker_for_a_moment_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("kafka");
    let Some(cluster) = support::cluster(&place, 1) else { return };
    let proxies = Proxies::start(&place, 1).expect("start a proxy");
    let topic = support::topic("unlisted");
    let config = config(&proxies.bootstrap, &topic).replace(
        "[http]",
        &format!("scores = \"{topic}.scores\"\nsession_timeout = \"6s\"\nheartbeat_interval = \"1s\"\n[http]"),
    ) + "[kafka.client]\n\"topic.metadata.refresh.interval.ms\" = \"1000\"\n[learning]\nmin_records = 2000\n";
    let made = residua(&["check", "--connect", "--create-topics", "--partitions", "6"], &config).wait(PATIENCE);
    assert!(made.status.success(), "{made:?}");
    cluster.broker.produce(&topic, crate::plant::records(1, 0..60, &[]));
    let process = residua(&["run"], &config);
    process.wait_for_line("partitions assigned", LONG);
    for round in 1..=5 {
        let emptied = proxies.unlist(Duration::from_secs(2));
        assert!(emptied > 0, "no client asked for the brokers in a way that the proxy knows");
        cluster.broker.produce(&topic, crate::plant::records(1, 59 + round..60 + round, &[]));
        let expected = round * crate::plant::MACHINES;
        cluster.broker.read_until(&format!("{topic}.scores"), LONG, |m| m.len() >= expected);
    }
    process.stop();
}
