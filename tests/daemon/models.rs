//! Where the model comes from: learned once, found again, given as a file, learned anew where it does not fit.

use serde_json::Value;

use crate::plant::{self, Fault, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address, line};
use crate::support::{self, Message, Outgoing, PATIENCE, Process, http_get, residua, wait_for};

#[track_caller]
fn end(process: Process) -> String {
    let ended = process.stop();
    assert!(ended.status.success(), "{ended:?}");
    ended.stderr
}

fn status(process: &Process) -> Value {
    let page = http_get(&address(process), "/status").expect("an answer").body;
    serde_json::from_str(&page).expect("JSON")
}

/// The counts when `records` are committed; Kafka knows of a commit a moment before the metrics do.
fn counts_after(process: &Process, records: u64) -> Value {
    let address = address(process);
    wait_for("the counts of the last commit", PATIENCE, || {
        let page: Value = serde_json::from_str(&http_get(&address, "/status")?.body).ok()?;
        let counts = &page["records"];
        let settled: u64 = ["scored", "warming", "dead_lettered"].iter().filter_map(|n| counts[n].as_u64()).sum();
        (settled == records).then(|| counts.clone())
    })
}

#[test]
fn a_learned_model_is_found_again_and_another_is_learned_for_other_features() {
    let Some(broker) = support::kafka() else { return };
    let mut setting = Setting::new(broker, "models", "");
    let models = format!("residua-{}.models", setting.topic);
    let first = setting.start_trained();
    let learned = status(&first)["model"]["fingerprint"].clone();
    assert!(end(first).contains("model trained and published"));

    let again = setting.start();
    again.wait_for_line("partitions assigned", LONG);
    assert_eq!(status(&again)["model"]["fingerprint"], learned);
    assert_eq!(status(&again)["learning"]["stage"], "done");
    let said = end(again);
    assert!(!said.contains("training"), "{said}");
    assert_eq!(broker.read(&models).len(), 1);

    setting.config += "[input]\nfeatures = [\"flow\", \"speed\", \"motor.temp\"]\n";
    let other = setting.start();
    other.wait_for_line("partitions assigned", LONG);
    let page = status(&other);
    assert_eq!(page["model"]["features"], 3);
    assert_ne!(page["model"]["fingerprint"], learned);
    let said = end(other);
    assert!(said.contains("input.features") && said.contains("learning another"), "{said}");
    assert_eq!(broker.read(&models).len(), 2);
}

#[test]
fn a_model_file_from_the_topic_starts_at_once_and_traces_and_gaps_are_told() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "file", "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.safetensors");
    let file = file.to_str().unwrap();
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    let trained = residua(&["train", "topic", "--out", file], &setting.config).wait(LONG);
    assert!(trained.status.success(), "{trained:?}");
    let inspected = std::process::Command::new(env!("CARGO_BIN_EXE_residua")).args(["inspect", file]).output().unwrap();
    let shown = String::from_utf8(inspected.stdout).unwrap();
    assert!(shown.contains(&format!("topic {}: partition 0 offsets 0..", setting.topic)), "{shown}");
    assert!(shown.contains(&format!("records      {}", TRAINING_STEPS * MACHINES)), "{shown}");

    // Neither history nor a models topic is needed now.
    let config = setting.config.replace(
        "[learning]",
        &format!("models = \"not.there\"\n[input]\nmissing = \"reject\"\n[learning]\nmodel_file = \"{file}\""),
    );
    let process = residua(&["run"], &config);
    process.wait_for_line("partitions assigned", LONG);
    let fault = Fault { machine: 3, sensor: 1, from: TRAINING_STEPS + 5, to: TRAINING_STEPS + 6, size: 5.0 };
    let mut records = plant::records(2, TRAINING_STEPS..TRAINING_STEPS + 10, &[fault]);
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for record in &mut records {
        record.headers.push(("traceparent".to_owned(), trace.to_vec()));
    }
    records.push(Outgoing::new("machine-01", br#"{"flow":1}"#));
    broker.produce(&setting.topic, records);
    setting.wait_until_settled(&broker.read(&setting.topic));
    let wanted = 10 * MACHINES as u64;
    let counts = counts_after(&process, wanted + 1);
    // The first four of each machine fill its window.
    let scored = wanted - 4 * MACHINES as u64;
    assert_eq!((counts["scored"].as_u64(), counts["dead_lettered"].as_u64()), (Some(scored), Some(1)), "{counts}");
    end(process);

    assert_eq!(setting.scores().len() as u64, wanted);
    let letters = setting.dead_letters();
    assert_eq!(letters[0].header("__connect.errors.exception.class.name"), Some(&b"missing_field"[..]));
    let alerts = broker.read(&format!("{}.anomalies", setting.topic));
    let of_fault = alerts.iter().find(|m| m.key.as_deref() == Some(b"machine-03")).expect("an alert");
    assert_eq!(of_fault.header("traceparent"), Some(&trace[..]));
    assert_eq!(line(of_fault)["sensors"][0]["name"], "speed");
}

#[test]
fn a_model_that_its_topic_does_not_take_ends_the_daemon_with_the_reason() {
    let Some(broker) = support::kafka() else { return };
    let models = support::topic("small-models");
    broker.create_topic(&models, 1, &[("cleanup.policy", "compact"), ("max.message.bytes", "2000")]);
    let setting = Setting::new(broker, "too-large", &format!("models = \"{models}\""));
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    let ended = setting.start().wait(LONG);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains(&models) && ended.stderr.contains("max.message.bytes"), "{ended:?}");
}

/// With a window of four records, three of each machine are warming: counted, written as such, and not judged.
#[test]
fn records_before_the_first_full_window_are_warming() {
    let Some(broker) = support::kafka() else { return };
    let mut setting = Setting::new(broker, "window", "");
    setting.config += "[model]\nwindow = 4\nsteps = 200\n";
    let process = setting.start_trained();
    broker.produce(&setting.topic, plant::records(2, TRAINING_STEPS..TRAINING_STEPS + 10, &[]));
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    let machines = MACHINES as u64;
    let counts = counts_after(&process, 10 * machines);
    assert_eq!((counts["warming"].as_u64(), counts["scored"].as_u64()), (Some(3 * machines), Some(7 * machines)));
    end(process);
    let warming = setting.scores().iter().filter(|m| line(m)["score"].is_null()).count();
    assert_eq!(warming as u64, 3 * machines);
}

/// The series begin anew with another model, so what was open under the old one ends: at the change, and also where the other model
/// came while nobody was at work.
#[test]
fn incidents_that_are_open_when_another_model_takes_over_are_closed() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "switch", "");
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    let dir = tempfile::tempdir().unwrap();
    let models: Vec<Vec<u8>> = (1..=3)
        .map(|seed| {
            let file = dir.path().join(format!("{seed}.safetensors"));
            let config = format!("{}[model]\nseed = {seed}\nsteps = 200\n", setting.config);
            let trained = residua(&["train", "topic", "--out", file.to_str().unwrap()], &config).wait(LONG);
            assert!(trained.status.success(), "{trained:?}");
            std::fs::read(file).unwrap()
        })
        .collect();
    let publish = |which: usize| {
        broker.produce(&format!("residua-{}.models", setting.topic), [Outgoing::new("model", models[which].clone())])
    };
    let incidents = format!("{}.incidents", setting.topic);
    // Machine 3 is broken for good.
    let fault = Fault { machine: 3, sensor: 1, from: TRAINING_STEPS, to: usize::MAX, size: 5.0 };
    let mut produced = TRAINING_STEPS;
    let mut go_on = || {
        broker.produce(&setting.topic, plant::records(produced as u64, produced..produced + 20, &[fault]));
        produced += 20;
    };
    let first = |wanted: &dyn Fn(&Value) -> bool| {
        let of_machine = |m: &Message| m.key.as_deref() == Some(b"machine-03") && wanted(&line(m));
        let told = broker.read_until(&incidents, LONG, |m| m.iter().any(of_machine));
        line(told.iter().find(|m| of_machine(m)).expect("an event"))
    };
    let opened_after = |closed: &Value| {
        let (start, of) = (closed["offset"].as_i64().unwrap(), closed["model"].clone());
        first(&|e| e["event"] == "opened" && e["offset"].as_i64() > Some(start) && e["model"] != of)
    };

    publish(0);
    let process = setting.start();
    process.wait_for_line("partitions assigned", LONG);
    go_on();
    let open = first(&|e| e["event"] == "opened");
    publish(1);
    wait_for("the other model", PATIENCE, || (status(&process)["model"]["fingerprint"] != open["model"]).then_some(()));
    go_on();
    // With the commit of these records the other model takes over.
    let closed = first(&|e| e["event"] == "closed");
    assert_eq!(closed["id"], open["id"], "{closed}");
    assert_eq!(closed["sensors"][0]["name"], "speed", "{closed}");

    go_on();
    let open = opened_after(&closed);
    end(process);
    publish(2);
    let process = setting.start();
    process.wait_for_line("partitions assigned", LONG);
    // No record is needed for it.
    let closed = first(&|e| e["event"] == "closed" && e["id"] == open["id"]);
    assert_eq!(closed["model"], open["model"], "{closed}");
    assert_eq!((closed["sensors"].as_array().unwrap().len(), closed["other_share"].as_f64()), (0, Some(1.0)));
    go_on();
    opened_after(&closed);
    let ended = end(process);
    assert!(ended.contains("the stored state is of no use"), "{ended}");
}
