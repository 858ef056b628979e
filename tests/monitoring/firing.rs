//! Every rule fires by the fault it names. The rules are those of `deploy`, with a second for each of their minutes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use crate::files::{rules, text};
use crate::servers::Prometheus;
use crate::support::plant::{self, Fault, MACHINES};
use crate::support::{self, Cluster, Outgoing, PATIENCE, Process, residua, wait_for};

const LONG: Duration = Duration::from_secs(240);
const PARTITIONS: i32 = 4;
/// What machines that fail make fire.
const BY_MACHINES: [&str; 6] = [
    "ResiduaIncident",
    "ResiduaCriticalAnomaly",
    "ResiduaManyIncidents",
    "ResiduaDeadLetters",
    "ResiduaAlarmsAboveBudget",
    "ResiduaOtherData",
];
/// What other records, and settings, make fire.
const BY_WHAT_IS_READ: [&str; 8] = [
    "ResiduaConfigRefused",
    "ResiduaConfigPending",
    "ResiduaNotLearned",
    "ResiduaNoRecords",
    "ResiduaModelRefused",
    "ResiduaSeriesForgotten",
    "ResiduaModelsDiffer",
    "ResiduaDown",
];
/// What Kafka and the machine make fire.
const BY_WHAT_IS_AROUND_IT: [&str; 9] = [
    "ResiduaRebalances",
    "ResiduaPartitionsWait",
    "ResiduaNotReady",
    "ResiduaBehind",
    "ResiduaCommitsFail",
    "ResiduaRecordsLost",
    "ResiduaStateLost",
    "ResiduaRestarts",
    "ResiduaStuck",
];
const TRAINING_STEPS: usize = 60;

/// A second for each minute of the rules, and ten for an hour.
fn hurried(rules: &str) -> String {
    let mut out = String::new();
    let mut rest = rules;
    while let Some(at) =
        ["[", "offset ", "for: "].iter().filter_map(|start| Some(rest.find(start)? + start.len())).min()
    {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let Ok(count) = rest[..digits].parse::<u32>() else { continue };
        let seconds = match rest[digits..].chars().next() {
            Some('m') => count,
            Some('h') => 10 * count,
            unit => panic!("no minutes and no hours: {count}{unit:?}"),
        };
        out.push_str(&format!("{seconds}s"));
        rest = &rest[digits + 1..];
    }
    // A commit takes seconds to fail.
    (out + rest)
        .replace("300 *", "5 *")
        .replace("> 900", "> 15")
        .replace("< 900", "< 15")
        .replace("[10s])) > 3", "[10s])) > 0")
}

#[test]
fn minutes_become_seconds() {
    assert_eq!(hurried("a[5m] offset 15m\nfor: 1h {a=\"[x]\"} > 900"), "a[5s] offset 15s\nfor: 10s {a=\"[x]\"} > 15");
    assert!(!hurried(&text("prometheus/residua.rules.yml")).contains("5m"));
}

fn all<const N: usize>(names: [&[&str]; N]) -> BTreeSet<String> {
    names.concat().into_iter().map(str::to_owned).collect()
}

/// One residua at a time where Prometheus looks, and what is around it.
struct Scene {
    cluster: Cluster,
    /// Of what must outlast a broker.
    copies: i32,
    topic: String,
    dir: PathBuf,
    prometheus: Prometheus,
    fired: BTreeSet<String>,
}

impl Scene {
    /// With nothing in its topics yet. None where Kafka or Prometheus is missing.
    fn set(dir: &Path, brokers: u32) -> Option<Scene> {
        let cluster = support::cluster(&dir.join("kafka"), brokers)?;
        let config = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [residua.rules.yml]\nscrape_configs:\n  - job_name: residua\n    \
             file_sd_configs: [{{files: [{}], refresh_interval: 1s}}]\n",
            dir.join("targets.json").display()
        );
        let prometheus = Prometheus::start(dir, &config, &hurried(&text("prometheus/residua.rules.yml")))?;
        let topic = support::topic("firing");
        let scene =
            Scene { cluster, copies: brokers as i32, topic, dir: dir.to_owned(), prometheus, fired: BTreeSet::new() };
        scene.create_topics();
        Some(scene)
    }

    fn config(&self, address: &str, more: &str) -> String {
        let (brokers, topic) = (&self.cluster.broker.bootstrap, &self.topic);
        format!(
            "[kafka]\nbrokers = \"{brokers}\"\ninput = \"{topic}\"\nscores = \"{topic}.scores\"\ntransaction_timeout = \"1s\"\n\
             session_timeout = \"6s\"\nheartbeat_interval = \"1s\"\n{more}\n[learning]\nmin_records = {}\n[series]\nmax = 100\n\
             [detector]\nalarms = \"1 per 100000 records\"\n[http]\nlisten = \"{address}\"\nliveness_timeout = \"10s\"\n\
             readiness_timeout = \"5s\"\n",
            TRAINING_STEPS * MACHINES
        )
    }

    fn create_topics(&self) {
        let broker = &self.cluster.broker;
        let compact = [("cleanup.policy", "compact")];
        let name = |end: &str| format!("{}{end}", self.topic);
        let group = |end: &str| format!("residua-{}{end}", self.topic);
        // One copy each, so that one broker's end leaves partitions without a leader.
        for end in ["", ".anomalies", ".dead-letters", ".scores"] {
            broker.create_topic_with(&name(end), PARTITIONS, 1, &[]);
        }
        broker.create_topic_with(&name(".incidents"), PARTITIONS, self.copies, &compact);
        for of in [group(""), "other".to_owned()] {
            broker.create_topic_with(&format!("{of}.models"), 1, self.copies, &compact);
            broker.create_topic_with(&format!("{of}.state"), PARTITIONS, self.copies, &compact);
        }
    }

    /// Where Prometheus looks for residua.
    fn scrape(&self, addresses: &[&str]) {
        let written = self.dir.join("targets.new");
        fs::write(&written, serde_json::json!([{ "targets": addresses }]).to_string()).unwrap();
        fs::rename(written, self.dir.join("targets.json")).unwrap();
    }

    #[track_caller]
    fn fires(&mut self, name: &str) {
        self.prometheus.wait_for_alert(name, LONG);
        println!("{name} fired");
        self.fired.insert(name.to_owned());
    }

    #[track_caller]
    fn wait_until(&self, expr: &str) {
        wait_for(expr, LONG, || (!self.prometheus.query(expr).is_empty()).then_some(()));
    }

    fn produce(&self, steps: std::ops::Range<usize>, faults: &[Fault]) {
        self.cluster.broker.produce(&self.topic, plant::records(1, steps, faults));
    }

    /// Deletes all that is in the input topic.
    fn delete_records(&self) {
        let ends = self.cluster.broker.read(&self.topic);
        let mut keep = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let end = ends.iter().filter(|m| m.partition == partition).map(|m| m.offset + 1).max().unwrap_or(0);
            keep.add_partition_offset(&self.topic, partition, Offset::Offset(end)).unwrap();
        }
        let admin: AdminClient<DefaultClientContext> = self.cluster.broker.client().create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let deleted = runtime.block_on(admin.delete_records(&keep, &AdminOptions::new())).expect("delete records");
        assert!(deleted.elements().iter().all(|e| e.error().is_ok()), "{deleted:?}");
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn what_is_read_makes_rules_fire() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut scene) = Scene::set(dir.path(), 1) else { return };
    let address = free_address();
    let config = scene.config(&address, "");
    // Nothing to learn from.
    let process = residua(&["run"], &config);
    scene.scrape(&[&address]);
    wrong_configuration(&mut scene, &process, &config);
    scene.fires("ResiduaNotLearned");
    scene.produce(0..TRAINING_STEPS, &[]);
    scene.wait_until("residua_ready == 1");
    // Nobody sends anything more.
    scene.fires("ResiduaNoRecords");
    machines_fail(&mut scene);
    no_model(&mut scene);
    let strangers = (0..2_000).map(|n| Outgoing {
        key: Some(format!("stranger-{n}").into_bytes()),
        ..plant::records(1, 0..1, &[]).remove(0)
    });
    scene.cluster.broker.produce(&scene.topic, strangers);
    scene.fires("ResiduaSeriesForgotten");
    another_model(&mut scene, &address);
    assert_eq!(scene.fired, all([&BY_MACHINES, &BY_WHAT_IS_READ]));
}

#[test]
fn what_is_around_it_makes_rules_fire() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut scene) = Scene::set(dir.path(), 3) else { return };
    let address = free_address();
    let config = scene.config(&address, "");
    scene.produce(0..TRAINING_STEPS, &[]);
    let process = residua(&["run"], &config);
    scene.scrape(&[&address]);
    scene.wait_until("residua_ready == 1");
    the_group_does_not_rest(&mut scene);
    a_broker_dies(&mut scene);
    let process = records_vanish(&mut scene, process, &config);
    let process = it_restarts_again_and_again(&mut scene, process, &config);
    process.signal("KILL");
    drop(process);
    nobody_reads_its_log(&mut scene, &config);
    assert_eq!(scene.fired, all([&BY_WHAT_IS_AROUND_IT]));
}

#[test]
fn every_rule_is_made_to_fire() {
    let rules: BTreeSet<String> = rules().into_iter().map(|rule| rule.name).collect();
    assert_eq!(rules, all([&BY_MACHINES, &BY_WHAT_IS_READ, &BY_WHAT_IS_AROUND_IT]));
}

/// Its file cannot be used, then it asks for what only a start can do, then it is as it was.
fn wrong_configuration(scene: &mut Scene, process: &Process, config: &str) {
    process.wait_for_line("metrics and health on", PATIENCE);
    process.configure(&config.replace("max = 100", "max = 0"));
    scene.fires("ResiduaConfigRefused");
    process.configure(&config.replace("min_records = ", "max_records = 99999\nmin_records = "));
    scene.fires("ResiduaConfigPending");
    process.configure(config);
}

/// Half of the machines go wrong for a while, and a producer writes what is no record.
fn machines_fail(scene: &mut Scene) {
    let faults: Vec<Fault> = (0..MACHINES / 2)
        .map(|machine| Fault { machine, sensor: 3, from: TRAINING_STEPS + 20, to: usize::MAX, size: 8.0 })
        .collect();
    let over = AtomicBool::new(false);
    let broker = &scene.cluster.broker;
    let (prometheus, topic) = (&scene.prometheus, &scene.topic);
    // Steps at once. Incidents take their time, however many records come; only the comparison with the training records needs many.
    let pace = AtomicUsize::new(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut step = TRAINING_STEPS;
            while !over.load(Ordering::Relaxed) {
                let at_once = pace.load(Ordering::Relaxed);
                broker.produce(topic, plant::records(1, step..step + at_once, &faults));
                step += at_once;
                broker.produce(topic, [Outgoing::new("machine-00", "no record"), Outgoing::new("machine-00", "{}")]);
                thread::sleep(Duration::from_millis(150));
            }
        });
        let fired = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for name in BY_MACHINES {
                pace.store(if name == "ResiduaOtherData" { 10 } else { 1 }, Ordering::Relaxed);
                prometheus.wait_for_alert(name, LONG);
                println!("{name} fired");
            }
        }));
        over.store(true, Ordering::Relaxed);
        fired.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    scene.fired.extend(BY_MACHINES.map(str::to_owned));
}

/// Something else is in the models topic, until the model is written to it again.
fn no_model(scene: &mut Scene) {
    let models = format!("residua-{}.models", scene.topic);
    let good = scene.cluster.broker.read(&models).pop().expect("a model");
    let (key, value) = (good.key.expect("a key"), good.value.expect("a model"));
    scene.cluster.broker.produce(&models, [Outgoing::new(key.clone(), "no model")]);
    scene.fires("ResiduaModelRefused");
    scene.cluster.broker.produce(&models, [Outgoing::new(key, value)]);
}

/// An instance of another group has learned another model; then it is gone.
fn another_model(scene: &mut Scene, address: &str) {
    let other = free_address();
    let config = scene.config(&other, "group = \"other\"") + "[model]\nseed = 7\n";
    let process = residua(&["run"], &config);
    scene.scrape(&[address, &other]);
    scene.fires("ResiduaModelsDiffer");
    process.signal("TERM");
    process.wait(PATIENCE);
    scene.fires("ResiduaDown");
    scene.scrape(&[address]);
}

/// A member joins and leaves without end.
fn the_group_does_not_rest(scene: &mut Scene) {
    let over = AtomicBool::new(false);
    let group = format!("residua-{}", scene.topic);
    let (broker, prometheus, topic) = (&scene.cluster.broker, &scene.prometheus, &scene.topic);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let consumer: BaseConsumer = broker
                    .client()
                    .set("group.id", &group)
                    .set("partition.assignment.strategy", "range,roundrobin")
                    .create()
                    .unwrap();
                consumer.subscribe(&[topic]).unwrap();
                let joined = || {
                    // Whether a record comes or trouble: only the assignment counts.
                    drop(consumer.poll(Duration::from_millis(100)));
                    consumer.assignment().ok().filter(|held| held.count() > 0)
                };
                wait_for("an assignment", LONG, joined);
                consumer.unsubscribe();
            }
        });
        let fired = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            prometheus.wait_for_alert("ResiduaRebalances", LONG)
        }));
        over.store(true, Ordering::Relaxed);
        fired.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    scene.fired.insert("ResiduaRebalances".to_owned());
}

/// Some partitions of the input and the outputs have no leader.
fn a_broker_dies(scene: &mut Scene) {
    scene.wait_until("residua_ready == 1");
    scene.cluster.control(&["kill", "2"]);
    // What has a leader still arrives, and cannot be written about: then it is asked where to go on, and some partitions have no leader.
    let broker = &scene.cluster.broker;
    let producer = broker.producer(&[("message.timeout.ms", "3000")]);
    for message in plant::records(1, 0..20, &[]) {
        support::send(&producer, &scene.topic, &message);
    }
    scene.fires("ResiduaPartitionsWait");
    scene.fires("ResiduaNotReady");
    scene.fires("ResiduaBehind");
    scene.fires("ResiduaCommitsFail");
    scene.cluster.control(&["start-broker", "2"]);
    scene.wait_until("residua_ready == 1");
}

/// While it is away its input is deleted, and with it what the state in Kafka goes on from.
fn records_vanish(scene: &mut Scene, process: Process, config: &str) -> Process {
    process.signal("KILL");
    drop(process);
    scene.produce(200..210, &[]);
    scene.delete_records();
    let process = residua(&["run"], config);
    scene.fires("ResiduaRecordsLost");
    scene.fires("ResiduaStateLost");
    process
}

fn it_restarts_again_and_again(scene: &mut Scene, mut process: Process, config: &str) -> Process {
    // None while a scrape has just failed.
    let starts =
        |scene: &Scene| Some(scene.prometheus.query("max(process_start_time_seconds)").first()?["value"][1].clone());
    for _ in 0..5 {
        // Starts are told apart by the second.
        scene.wait_until("time() - max(process_start_time_seconds) > 2");
        let before = starts(scene);
        process.signal("KILL");
        drop(process);
        process = residua(&["run"], config);
        wait_for("Prometheus to see it", LONG, || starts(scene).filter(|start| Some(start) != before.as_ref()));
    }
    scene.fires("ResiduaRestarts");
    process
}

/// A full pipe holds up whoever writes a log line.
fn nobody_reads_its_log(scene: &mut Scene, config: &str) {
    let (reader, writer) = std::io::pipe().unwrap();
    let file = scene.dir.join("stuck.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(["run", "--config"]).arg(&file).stderr(writer.try_clone().unwrap());
    let mut process = command.spawn().unwrap();
    scene.wait_until("residua_ready == 1");
    let filling = fill(writer);
    // Its group changes, which a worker says in its log.
    let other = residua(&["run"], &scene.config(&free_address(), ""));
    scene.fires("ResiduaStuck");
    process.kill().unwrap();
    process.wait().unwrap();
    drop((other, reader));
    filling.join().unwrap();
}

fn fill(mut writer: std::io::PipeWriter) -> thread::JoinHandle<()> {
    thread::spawn(move || while writer.write_all(&[b'.'; 4096]).is_ok() {})
}
