//! A configuration that changes while the daemon runs: what can change does, what cannot says so, and a bad file changes nothing.

use serde_json::Value;

use crate::plant::{self, Fault};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address, text};
use crate::state::{group, same, told};
use crate::support::{self, PATIENCE, Process, http_get, metric, residua, wait_for};

/// No checkpoint by time; who is killed is missed soon.
const MORE: &str = "checkpoint_interval = \"1h\"\nsession_timeout = \"6s\"\nheartbeat_interval = \"1s\"";

fn status(address: &str) -> Value {
    serde_json::from_str(&http_get(address, "/status").expect("an answer").body).expect("JSON")
}

fn metric_of(address: &str, name: &str) -> f64 {
    metric(&http_get(address, "/metrics").expect("an answer").body, name)
}

fn wait_for_lines(process: &Process, text: &str, count: usize) {
    let enough = || (process.stderr().matches(text).count() >= count).then_some(());
    wait_for(&format!("{count} lines with {text}"), PATIENCE, enough);
}

#[test]
fn a_changed_file_is_taken_up_at_sighup_or_by_itself_and_a_bad_one_is_not() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "reload", "");
    let process = setting.start_trained();
    let address = address(&process);
    assert_eq!(metric_of(&address, "residua_alarm_budget_ratio"), 1e-5);

    // By a signal, although nothing has changed: so it is the signal.
    process.signal("HUP");
    process.wait_for_line("configuration read again changed=\"\"", PATIENCE);
    assert_eq!(metric_of(&address, "residua_config_reloads_total"), 1.0);
    // By a signal or by itself, whichever is first.
    let config = setting.config.replace("1 per 100000 records", "1 per 500 records");
    let config = config.replace("[service]", "[log]\nlevel = \"debug\"\n[service]");
    process.configure(&config);
    process.signal("HUP");
    process.wait_for_line("configuration read again changed=\"detector.alarms, log.level\"", PATIENCE);
    wait_for_lines(&process, "the changed configuration is in force", 2);
    let budget = || (metric_of(&address, "residua_alarm_budget_ratio") == 1.0 / 500.0).then_some(());
    wait_for("the budget's metric", PATIENCE, budget);
    assert_eq!(status(&address)["config"]["detector"]["alarms"], "1 per 500 records");

    // Nobody says anything. What a running process cannot change waits.
    let waiting = config.replace("workers = 2", "workers = 3").replace("1 per 500 records", "1 per 700 records");
    process.configure(&waiting);
    process.wait_for_line("keys=\"service.workers\"", PATIENCE);
    wait_for_lines(&process, "the changed configuration is in force", 4);
    let now = status(&address);
    assert_eq!(
        (&now["config"]["service"]["workers"], &now["config_pending"][0]),
        (&2.into(), &"service.workers".into())
    );
    assert_eq!(metric_of(&address, "residua_config_pending_keys"), 1.0);

    // What cannot work leaves everything as it was.
    process.configure(&waiting.replace("1 per 700 records", "often"));
    let error = process.wait_for_line("the configuration file cannot be used", PATIENCE);
    assert!(error.contains("ERROR") && error.contains("detector.alarms") && error.contains("often"), "{error}");
    assert_eq!(metric_of(&address, "residua_config_ok"), 0.0);
    let now = status(&address);
    assert_eq!(now["config"]["detector"]["alarms"], "1 per 700 records");
    assert!(text(&now, "config_refused").contains("detector.alarms"), "{now}");

    process.configure(&config);
    wait_for("the good file", PATIENCE, || (metric_of(&address, "residua_config_ok") == 1.0).then_some(()));
    assert_eq!(metric_of(&address, "residua_config_pending_keys"), 0.0);

    // The level of the log too: what is read after this is not told.
    process.configure(&config.replace("level = \"debug\"", "level = \"error\""));
    let level = || (status(&address)["config"]["log"]["level"] == "error").then_some(());
    wait_for("another level of the log", PATIENCE, level);
    let (told, reloads) = (process.stderr().len(), metric_of(&address, "residua_config_reloads_total"));
    process.signal("HUP");
    let again = || (metric_of(&address, "residua_config_reloads_total") > reloads).then_some(());
    wait_for("the configuration to be read", PATIENCE, again);
    process.configure("nonsense");
    let told_of = |text: &str| process.stderr()[told..].contains(text);
    wait_for("an error, which is still told", PATIENCE, || told_of("cannot be used").then_some(()));
    assert!(!told_of("configuration read again"), "{}", process.stderr());
    // Who asks is told again.
    process.signal("HUP");
    let errors = || process.stderr()[told..].matches("cannot be used").count();
    wait_for("the error again", PATIENCE, || (errors() == 2).then_some(()));
    process.stop();
}

/// Who takes over goes on from the change, not from before it: a process killed after it writes what an undisturbed one does.
#[test]
fn a_process_killed_after_a_change_is_followed_by_the_very_scores() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "reloaded", MORE);
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.safetensors");
    let model = model.to_str().unwrap();
    let trained = residua(&["train", "topic", "--out", model], &setting.config).wait(LONG);
    assert!(trained.status.success(), "{trained:?}");
    // One worker each: a second one that joins late would bring a checkpoint of its own.
    let alone = |name: &str| group(&setting, name, model).replace("workers = 2", "workers = 1");
    let (calm, wild) = (alone("calm"), alone("wild"));
    // After the 20 records between the change and the kill a fault is not adopted yet; it would be if those before the change were replayed
    // with this too.
    let other = |config: &str| {
        config.replace("1 per 100000 records\"", "1 per 100 records\"\nadopt_after = \"25 records\"")
            + "[incident]\nopen = \"2 of 4\"\nhold = 0.8\n"
    };
    let faults: Vec<Fault> = (0..20)
        .map(|i| Fault { machine: i, sensor: i % 8, from: TRAINING_STEPS + 30, to: TRAINING_STEPS + 90, size: 1.0 })
        .collect();
    let write = |steps: std::ops::Range<usize>| {
        broker.produce(
            &setting.topic,
            plant::records(2, TRAINING_STEPS + steps.start..TRAINING_STEPS + steps.end, &faults),
        );
        let input = broker.read(&setting.topic);
        for group in ["calm", "wild"] {
            setting.wait_until_settled_by(&format!("{}-{group}", setting.topic), &input);
        }
    };
    let processes = [residua(&["run"], &calm), residua(&["run"], &wild)];
    // The first commit brings a checkpoint: it must not hold what the change comes after.
    write(0..5);
    write(5..40);
    for (process, config) in processes.iter().zip([&calm, &wild]) {
        process.configure(&other(config));
        process.signal("HUP");
        wait_for_lines(process, "the changed configuration is in force", 1);
    }
    // No checkpoint but that of the change: whoever takes over reads these again.
    write(40..60);
    let [undisturbed, killed] = processes;
    killed.signal("KILL");
    drop(killed);
    let follower = residua(&["run"], &other(&wild));
    follower.wait_for_line("partitions assigned", LONG);
    write(60..120);
    for process in [undisturbed, follower] {
        process.stop();
    }
    assert_eq!(same(&setting, "scores", false).len(), 120 * plant::MACHINES);
    assert!(same(&setting, "anomalies", false).len() > 20);
    let events = ["calm", "wild"].map(|group| told(broker, &format!("{}-{group}.incidents", setting.topic), false));
    assert_eq!(events[0], events[1]);
}
