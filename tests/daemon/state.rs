//! What is remembered of each series survives whatever happens to the processes: a group that is killed, stopped and rebalanced
//! writes, record by record and score for score, what an undisturbed group writes of the same input with the same model.

use std::collections::BTreeMap;

use crate::plant::{self, Fault, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, line, text};
use crate::support::{self, Broker, PATIENCE, Process, residua};

const MORE: &str =
    "session_timeout = \"6s\"\nheartbeat_interval = \"1s\"\ntransaction_timeout = \"5s\"\ncheckpoint_interval = \"1s\"";
const STEPS: usize = 600;

/// Another group on the same input, with outputs of its own and the model from a file.
pub fn group(setting: &Setting<'_>, name: &str, model: &str) -> String {
    let topic = &setting.topic;
    let config = setting
        .config
        .replace(&format!("scores = \"{topic}.scores\""), &format!(
            "group = \"{topic}-{name}\"\nscores = \"{topic}-{name}.scores\"\nanomalies = \"{topic}-{name}.anomalies\"\n\
             dead_letters = \"{topic}-{name}.dead-letters\"\nincidents = \"{topic}-{name}.incidents\""
        ))
        .replace("[learning]", &format!("[series]\nmax = 10\n[learning]\nmodel_file = \"{model}\""));
    let checked = residua(&["check", "--connect", "--create-topics", "--partitions", "6"], &config).wait(PATIENCE);
    assert!(checked.status.success(), "{checked:?}");
    config
}

/// Each message of a topic by the id in it; each id once, or (`repeats`) again with the same content.
fn by_id(broker: &Broker, topic: &str, repeats: bool) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for m in broker.read(topic) {
        let known = lines.insert(text(&line(&m), "id").to_owned(), m.text().to_owned());
        match known {
            Some(before) if repeats => assert_eq!(before, m.text(), "repeated with another content"),
            known => assert_eq!(known, None, "written twice"),
        }
    }
    lines
}

#[test]
fn a_disturbed_group_writes_what_an_undisturbed_one_writes() {
    disturb("state", "exactly-once");
}

#[test]
fn a_disturbed_group_without_transactions_repeats_and_says_the_same() {
    disturb("state-again", "at-least-once");
}

fn disturb(name: &str, delivery: &str) {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, name, MORE);
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.safetensors");
    let model = model.to_str().unwrap();
    let windowed = setting.config.clone() + "[model]\nwindow = 3\nsteps = 200\n";
    let trained = residua(&["train", "topic", "--out", model], &windowed).wait(LONG);
    assert!(trained.status.success(), "{trained:?}");
    let (calm, wild) = (group(&setting, "calm", model), group(&setting, "wild", model));
    let wild = wild.replace("[kafka]", &format!("[kafka]\ndelivery = \"{delivery}\""));
    let repeats = delivery == "at-least-once";

    let faults: Vec<Fault> =
        (0..6).map(|i| Fault { machine: i * 5, sensor: i, from: 250 + i * 80, to: 270 + i * 80, size: 1.0 }).collect();
    let undisturbed = residua(&["run"], &calm);
    let start = || residua(&["run"], &wild);
    let mut running: Vec<Process> = vec![start()];
    let wild_scores = format!("{}-wild.scores", setting.topic);
    let mut produced = TRAINING_STEPS;
    for round in 0..6 {
        broker.produce(&setting.topic, plant::records(2 + round, produced..produced + STEPS / 6, &faults));
        produced += STEPS / 6;
        // In the middle of what was just written.
        let half = ((produced - TRAINING_STEPS - STEPS / 12) * MACHINES) as i64;
        broker.read_until(&wild_scores, LONG, |m| m.len() as i64 >= half - (STEPS / 12 * MACHINES) as i64 / 2);
        match round {
            0 | 2 | 4 => {
                running.remove(0).signal("KILL");
                running.push(start());
            }
            1 => running.push(start()),
            3 => {
                let process = running.remove(0);
                process.stop();
            }
            _ => {}
        }
        if running.is_empty() {
            running.push(start());
        }
    }
    let expected = STEPS * MACHINES;
    let input = broker.read(&setting.topic);
    for group in ["calm", "wild"] {
        setting.wait_until_settled_by(&format!("{}-{group}", setting.topic), &input);
    }
    for process in running.into_iter().chain([undisturbed]) {
        process.stop();
    }
    let calm = same(&setting, "scores", repeats);
    assert_eq!(calm.len(), expected);
    // Also what an alert says of earlier records is remembered.
    assert!(same(&setting, "anomalies", repeats).len() > 20);
    let [calm_incidents, wild_incidents] =
        ["calm", "wild"].map(|group| told(broker, &format!("{}-{group}.incidents", setting.topic), repeats));
    assert_eq!(calm_incidents, wild_incidents);
    assert!(calm_incidents.values().flatten().count() > 10, "{calm_incidents:?}");
    let warming = calm.values().filter(|line| line.contains("\"score\":null")).count();
    assert!(warming < expected / 2, "{warming} of {expected} are warming: too few scores to compare");
}

/// What is told of the incidents of each series, in order; each event once, or (`repeats`) again word for word.
pub fn told(broker: &Broker, topic: &str, repeats: bool) -> BTreeMap<String, Vec<String>> {
    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for m in broker.read(topic) {
        let of_series = events.entry(text(&line(&m), "series").to_owned()).or_default();
        let again = of_series.iter().any(|event| event == m.text());
        assert!(repeats || !again, "told twice: {}", m.text());
        if !again {
            of_series.push(m.text().to_owned());
        }
    }
    events
}

/// What both groups wrote to their topic of this name, which is the same.
pub fn same(setting: &Setting<'_>, name: &str, repeats: bool) -> BTreeMap<String, String> {
    let topic = |group: &str| format!("{}-{group}.{name}", setting.topic);
    let (calm, wild) = (by_id(setting.broker, &topic("calm"), false), by_id(setting.broker, &topic("wild"), repeats));
    assert_eq!(calm.len(), wild.len(), "{name}");
    let wrong: Vec<_> = calm.iter().filter(|(id, line)| wild.get(*id) != Some(line)).take(5).collect();
    let others: Vec<_> = wrong.iter().map(|(id, _)| wild.get(*id)).collect();
    assert!(wrong.is_empty(), "{wrong:?} and others are {others:?}");
    calm
}
