//! Whole programs that work off the same topic of a real Kafka: processor time for a record, of all threads.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;

use crate::record::{FIELDS, name};
use crate::support::{self, Broker, Outgoing, PATIENCE, Process, residua, wait_for};
use crate::table::{self, Goal};
use crate::{latency, scaling};

pub const RECORDS: usize = 1_000_000;
const TRAINING: usize = 20_000;
const SERIES: usize = 200;
pub const PARTITIONS: i32 = 4;
const ROUNDS: usize = 3;
/// A second's, on Linux.
pub const TICKS: f64 = 100.0;
/// Longest that a program may take for all records.
pub const TIME_MAX: Duration = Duration::from_secs(180);

/// Prints lines of the table. `python`: the interpreter with the libraries.
pub fn compare(python: &str) {
    let Some(broker) = support::kafka() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let (learn, topic) = (support::topic("peers-learn"), support::topic("peers"));
    for (topic, count, seed) in [(&learn, TRAINING, 1), (&topic, RECORDS, 2)] {
        broker.create_topic(topic, PARTITIONS, &[]);
        broker.produce(topic, records(count, seed));
    }
    let models: Vec<_> = ["fast", "balanced", "thorough"]
        .into_iter()
        .map(|profile| (profile, train(broker, &learn, profile, dir.path())))
        .collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/consumer.py");
    let itself = std::env::current_exe().expect("this program");
    let count = RECORDS.to_string();
    let given = [broker.bootstrap.as_str(), &topic, &count];
    let mut best: Vec<(String, f64)> = Vec::new();
    for round in 0..ROUNDS {
        let mut took = vec![
            ("a loop that only consumes".to_owned(), printed(Command::new(&itself).arg("--consume").args(given))),
            ("confluent-kafka, orjson, onnxruntime".to_owned(), printed(Command::new(python).arg(script).args(given))),
        ];
        for (profile, model) in &models {
            took.push((format!("whole program, {profile}"), worked_off(broker, &topic, model, round)));
        }
        for (at, (what, took)) in took.into_iter().enumerate() {
            match best.get_mut(at) {
                Some((_, best)) => *best = best.min(took),
                None => best.push((what, took)),
            }
        }
    }
    if let [(bare, least), (python, theirs), programs @ ..] = best.as_slice() {
        for (at, (what, took)) in programs.iter().enumerate() {
            table::line(what, bare, *took, *least, if at == 0 { Goal::AtMost(2.0) } else { Goal::None });
        }
        let (fastest, ours) = &programs[0];
        table::line(fastest, python, *ours, *theirs, Goal::Faster(4.0));
    }
    scaling::measure(broker, &topic, &models[2].1);
    latency::measure(broker, &models[1].1);
}

/// Sensors that remember, of some machines in turn.
pub fn records(count: usize, seed: u64) -> impl Iterator<Item = Outgoing> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sensors = vec![[0.0f64; FIELDS]; SERIES];
    (0..count).map(move |at| {
        let series = at % SERIES;
        let member = |(field, v): (usize, &mut f64)| {
            *v = 0.9 * *v + rng.random_range(-1.0..1.0);
            format!("\"{}\":{:.5}", name(field), *v)
        };
        let members: Vec<String> = sensors[series].iter_mut().enumerate().map(member).collect();
        Outgoing::new(format!("machine-{series}"), format!("{{{}}}", members.join(",")))
    })
}

fn train(broker: &Broker, topic: &str, profile: &str, dir: &Path) -> String {
    let model = dir.join(format!("{profile}.safetensors")).display().to_string();
    let config = format!(
        "[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\n[detector]\nprofile = \"{profile}\"\n[learning]\nmin_records = {TRAINING}\n",
        broker.bootstrap
    );
    let trained = residua(&["train", "topic", "--out", &model], &config).wait(PATIENCE * 4);
    assert!(trained.status.success(), "{trained:?}");
    model
}

/// What a program prints: its processor time for a record.
fn printed(command: &mut Command) -> f64 {
    let done = command.output().expect("start a program");
    let said = String::from_utf8_lossy(&done.stdout);
    said.trim().parse().unwrap_or_else(|_| panic!("{command:?}: {said}{}", String::from_utf8_lossy(&done.stderr)))
}

/// Of residua, from the assignment to the commit of the last record.
fn worked_off(broker: &Broker, topic: &str, model: &str, round: usize) -> f64 {
    let group = support::topic(&format!("peers-group-{round}"));
    let process = serve(broker, topic, model, &group, 1);
    let before = processor_seconds(&process.id().to_string());
    wait_for("the group to commit the end of the input", TIME_MAX, || {
        let committed: i64 = broker.committed(&group, topic).into_iter().flatten().sum();
        (committed >= RECORDS as i64).then_some(())
    });
    let took = processor_seconds(&process.id().to_string()) - before;
    process.signal("TERM");
    assert!(process.wait(PATIENCE).status.success());
    took / RECORDS as f64
}

/// residua at work on a topic from its beginning, once it has partitions.
pub fn serve(broker: &Broker, topic: &str, model: &str, group: &str, workers: usize) -> Process {
    let config = format!(
        "[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\ngroup = \"{group}\"\nstart = \"earliest\"\n\
         [learning]\nmodel_file = \"{model}\"\n[service]\nworkers = {workers}\n[http]\nlisten = \"\"\n",
        broker.bootstrap
    );
    let made = residua(&["check", "--connect", "--create-topics"], &config).wait(PATIENCE);
    assert!(made.status.success(), "{made:?}");
    let process = residua(&["run"], &config);
    process.wait_for_line("partitions assigned", PATIENCE);
    process
}

/// User and system time of a process, all threads.
fn processor_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS
}

/// The least that a program can do: looks at every message, and prints its processor time for each.
pub fn consume(bootstrap: &str, topic: &str, count: usize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", support::topic("peers-bare"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let before = processor_seconds("self");
    consumer.subscribe(&[topic]).expect("subscribe");
    let (since, mut seen, mut bytes) = (Instant::now(), 0, 0);
    while seen < count {
        // It also returns without a message when partitions are assigned.
        let Some(message) = consumer.poll(PATIENCE) else {
            assert!(since.elapsed() < TIME_MAX, "{seen} of {count} records within {TIME_MAX:?}");
            continue;
        };
        let message = message.expect("a message");
        bytes += message.payload().map_or(0, <[u8]>::len);
        seen += 1;
    }
    assert!(bytes > count);
    println!("{}", (processor_seconds("self") - before) / count as f64);
}
