//! Goal: a group that is killed, paused, rebalanced and cut off writes what an undisturbed one writes: nothing lost, nothing twice
//! (or, at least once: only the same again), and every score right, which shows that the state of every series survived.
//! Method: three instances with two workers on three brokers, 200 series in 8 partitions, 3,400 records a second, one kind of fault
//! after the other, as often as the table says times `--share`. Then one undisturbed instance reads the same input, and what
//! both wrote is compared line by line. Recovery is the time until every partition has output for a record written after the fault:
//! from the signal for kill -9, from the end of the fault for the others.
//!
//! `make test-faults` runs all of it (hours); without `--share` it is a short run, with 1,000 records a second. Arguments: `--share 0.1`, `--only kill,stop`,
//! `--delivery exactly-once`; `--only cost` measures instead what checkpoints and transactions cost, `--only memory` what one, a
//! thousand and a hundred thousand series take.

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod fleet;
mod memory;
mod stream;

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use fleet::Fleet;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedHeaders, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use stream::{MACHINES, PARTITIONS, Stream, Watch, position};
use support::proxy::Proxies;
use support::{Broker, Cluster, PATIENCE, plant, residua, wait_for};

/// Longest time after a fault until every partition has new output.
const RECOVERY_MAX: Duration = Duration::from_secs(240);
/// Memory that an instance may have in the worst moment: some 30 MiB at rest, and two workers' queues of 16 MiB from and to Kafka.
const MEMORY_MAX_MIB: u64 = 96;
const SESSION: Duration = Duration::from_secs(6);
/// Share of the faults if none is said: each that is asked for once.
const SHORT: f64 = f64::MIN_POSITIVE;
/// Steps of the plant that the model is learned from.
const TRAINING_STEPS: usize = 120;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Kill,
    Stop,
    Terminate,
    Storm,
    BrokerKill,
    BrokerRestart,
    Cut,
    Reset,
    Unlisted,
    Slow,
    HalfOpen,
    LostReply,
    LateEnd,
    Stall,
    Leaderless,
}

/// Name, what is done, and how often in the whole run.
const FAULTS: [(Fault, &str, &str, usize); 15] = [
    (Fault::Kill, "kill", "kill -9 of an instance", 200),
    (Fault::Stop, "stop", "SIGSTOP beyond the session, SIGCONT", 50),
    (Fault::Terminate, "term", "SIGTERM under load", 100),
    (Fault::Storm, "storm", "joins and leaves, 1 to 4 instances", 100),
    (Fault::BrokerKill, "broker-kill", "kill -9 of a broker", 25),
    (Fault::BrokerRestart, "broker-restart", "clean restart of a broker", 25),
    (Fault::Cut, "cut", "connections cut", 25),
    (Fault::Reset, "reset", "connections reset", 25),
    (Fault::Unlisted, "unlisted", "connections cut, then no broker named", 25),
    (Fault::Slow, "slow", "200 ms on every message", 25),
    (Fault::HalfOpen, "half-open", "connections that died silently", 25),
    (Fault::LostReply, "lost-reply", "lost reply to EndTxn", 25),
    (Fault::LateEnd, "late-end", "EndTxn that arrives late", 25),
    (Fault::Stall, "stall", "output topic stalled", 2),
    (Fault::Leaderless, "leaderless", "a third of the input without leader", 5),
];

struct Arguments {
    share: f64,
    only: Vec<String>,
    deliveries: Vec<&'static str>,
}

/// What one kind of fault did.
struct Row {
    delivery: &'static str,
    what: &'static str,
    times: usize,
    records: usize,
    rate: f64,
    repeated: usize,
    /// Time until every partition has new output, of each fault.
    recovery: Vec<Duration>,
    memory_mib: u64,
}

fn main() {
    let Some(arguments) = arguments() else { return };
    let dir = tempfile::tempdir().expect("create a folder");
    let place = dir.path().join("kafka");
    let Some(cluster) = support::cluster(&place, 3) else { return };
    let proxies = Proxies::start(&place, 3).expect("start the proxies");
    let model = dir.path().join("m.safetensors");
    train(&cluster.broker, &model);
    let lab = Lab { cluster: &cluster, proxies: &proxies, model: &model, delivery: "exactly-once" };
    match arguments.only.as_slice() {
        [only] if only == "cost" => return cost::run(&lab),
        [only] if only == "memory" => return memory::run(&lab),
        _ => {}
    }
    let mut rows = Vec::new();
    for delivery in &arguments.deliveries {
        for (fault, name, what, full) in FAULTS {
            let times = (full as f64 * arguments.share).ceil() as usize;
            if times == 0 || !arguments.only.is_empty() && !arguments.only.iter().any(|o| o == name) {
                continue;
            }
            eprintln!("{delivery}: {what}, {times} times");
            let lab = Lab { delivery, ..lab };
            rows.push(lab.run(fault, name, what, times, arguments.share));
            eprintln!("{}", line(&rows[rows.len() - 1]));
        }
    }
    println!("\n{HEAD}");
    rows.iter().for_each(|row| println!("{}", line(row)));
    println!("\ntest result: ok. {} passed; 0 failed", rows.len());
}

/// None if another test of `cargo test` is wanted.
fn arguments() -> Option<Arguments> {
    let mut found = Arguments { share: 0.0, only: Vec::new(), deliveries: vec!["exactly-once", "at-least-once"] };
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        let mut value = || given.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--share" => found.share = value().parse().expect("--share needs a number, 1 for all faults of the table"),
            "--only" => found.only = value().split(',').map(str::to_owned).collect(),
            "--delivery" => {
                let wanted = value();
                found.deliveries.retain(|d| *d == wanted);
                assert!(!found.deliveries.is_empty(), "--delivery must be exactly-once or at-least-once");
            }
            "--list" => return None,
            // Of the harness of the other tests.
            flag if flag.starts_with('-') => {}
            filter if "faults".contains(filter) => {}
            _ => return None,
        }
    }
    for name in &found.only {
        let known = name == "cost" || name == "memory" || FAULTS.iter().any(|f| f.1 == name);
        assert!(known, "--only {name}: expected cost, memory, or some of {:?}", FAULTS.map(|f| f.1));
    }
    if found.share == 0.0 {
        // A part of `cargo test`: a fault of the process, one of the network, and what no other test has three brokers for.
        found.share = SHORT;
        if found.only.is_empty() {
            found.only = ["kill", "lost-reply", "leaderless"].map(str::to_owned).to_vec();
        }
    }
    Some(found)
}

/// What happened when, to be read beside what the instances said (`RESIDUA_FAULTS_LOG=1`).
fn log(what: std::fmt::Arguments<'_>) {
    if std::env::var_os("RESIDUA_FAULTS_LOG").is_some() {
        let since_midnight = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis() % 86_400_000;
        let (seconds, ms) = (since_midnight / 1_000, since_midnight % 1_000);
        eprintln!("{:02}:{:02}:{:02}.{ms:03} {what}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    }
}

const HEAD: &str = "delivery       fault                                times   records   per s  lost  repeated  wrong  recovery s (median, most)  MiB";

fn line(row: &Row) -> String {
    let mut recovery: Vec<f64> = row.recovery.iter().map(Duration::as_secs_f64).collect();
    recovery.sort_by(f64::total_cmp);
    let (median, most) = (recovery.get(recovery.len() / 2), recovery.last());
    format!(
        "{:<14} {:<36} {:>5} {:>9} {:>7.0} {:>5} {:>9} {:>6} {:>18.1} {:>8.1} {:>4}",
        row.delivery,
        row.what,
        row.times,
        row.records,
        row.rate,
        0,
        row.repeated,
        0,
        median.unwrap_or(&0.0),
        most.unwrap_or(&0.0),
        row.memory_mib
    )
}

/// A model with windows, so that a series without its past would score otherwise.
fn train(broker: &Broker, model: &Path) {
    let topic = support::topic("learn");
    broker.create_topic(&topic, PARTITIONS as i32, &[]);
    broker.produce(&topic, plant::records_of(MACHINES, 1, 0..TRAINING_STEPS, &[]));
    let config = format!(
        "[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\n[model]\nwindow = 3\nsteps = 200\n[learning]\nmin_records = {}\n",
        broker.bootstrap,
        TRAINING_STEPS * MACHINES
    );
    let trained =
        residua(&["train", "topic", "--out", model.to_str().expect("a path in UTF-8")], &config).wait(PATIENCE * 4);
    assert!(trained.status.success(), "{trained:?}");
}

struct Lab<'a> {
    cluster: &'a Cluster,
    proxies: &'a Proxies,
    model: &'a Path,
    delivery: &'static str,
}

impl Lab<'_> {
    fn run(&self, fault: Fault, name: &str, what: &'static str, times: usize, share: f64) -> Row {
        let broker = &self.cluster.broker;
        let topic = support::topic(name);
        match fault {
            // One copy of each partition: with its broker it is gone.
            Fault::Leaderless => {
                broker.create_topic_with(&topic, PARTITIONS as i32, 1, &[("min.insync.replicas", "1")])
            }
            _ => broker.create_topic(&topic, PARTITIONS as i32, &[]),
        }
        let proxied = matches!(
            fault,
            Fault::Cut
                | Fault::Reset
                | Fault::Unlisted
                | Fault::Slow
                | Fault::HalfOpen
                | Fault::LostReply
                | Fault::LateEnd
        );
        let brokers = if proxied { &self.proxies.bootstrap } else { &broker.bootstrap };
        // Members of a storm come and go for good; the others come back under their names.
        let instance = if fault == Fault::Storm { "" } else { "INSTANCE" };
        let wild = self.config(&topic, "wild", brokers, self.delivery, instance);
        let calm = self.config(&topic, "calm", &broker.bootstrap, "exactly-once", "calm");
        for config in [&wild, &calm] {
            let made = residua(&["check", "--connect", "--create-topics"], config).wait(PATIENCE);
            assert!(made.status.success(), "{made:?}");
        }
        let mut fleet = Fleet::start(&wild, 3);
        let rate = if share == SHORT { stream::RATE_SHORT } else { stream::RATE };
        let stream = Stream::start(broker, &topic, 1_000, rate);
        let watch = Watch::start(broker, &format!("{topic}-wild.scores"));
        let mut recovery = Vec::new();
        // First all of them at work.
        self.await_output(Instant::now(), &mut fleet, &stream, &watch, &topic);
        for round in 0..times {
            fleet.await_members();
            // At any moment between two checkpoints.
            std::thread::sleep(Duration::from_millis(200 + (round as u64 * 617) % 2_300));
            log(format_args!("disturb, {} records", stream.written()));
            let mut since = Instant::now();
            match fault {
                Fault::Leaderless => self.leaderless(round, &mut fleet, &stream, &watch, &topic),
                Fault::Kill => {
                    let name = fleet.kill(round);
                    if round % 5 == 4 {
                        // Back so late that others have taken over.
                        recovery.push(self.await_output(since, &mut fleet, &stream, &watch, &topic));
                        since = Instant::now();
                    }
                    fleet.revive(name);
                }
                _ => self.disturb(fault, round, &mut fleet, &topic, share),
            }
            log(format_args!("disturbed"));
            if fault != Fault::Kill {
                since = Instant::now();
            }
            recovery.push(self.await_output(since, &mut fleet, &stream, &watch, &topic));
            if times >= 10 && round % (times / 10) == 0 {
                eprintln!("  {} of {times}, {} records", round + 1, stream.written());
            }
        }
        let (records, rate) = stream.end();
        self.await_end(&topic, "wild");
        let memory_mib = fleet.end();
        assert!(memory_mib <= MEMORY_MAX_MIB, "{memory_mib} MiB: expected at most {MEMORY_MAX_MIB}, whatever happens");
        let undisturbed = Fleet::start(&calm, 1);
        self.await_end(&topic, "calm");
        undisturbed.end();
        let repeated = self.compare(&topic, records);
        Row { delivery: self.delivery, what, times, records, rate, repeated, recovery, memory_mib }
    }

    fn config(&self, topic: &str, group: &str, brokers: &str, delivery: &str, instance: &str) -> String {
        format!(
            "[kafka]\nbrokers = \"{brokers}\"\ninput = \"{topic}\"\ngroup = \"{topic}-{group}\"\ninstance_id = \"{instance}\"\n\
             scores = \"{topic}-{group}.scores\"\nanomalies = \"{topic}-{group}.anomalies\"\n\
             dead_letters = \"{topic}-{group}.dead-letters\"\nincidents = \"{topic}-{group}.incidents\"\ndelivery = \"{delivery}\"\n\
             session_timeout = \"{}s\"\nheartbeat_interval = \"1s\"\ntransaction_timeout = \"5s\"\nrequest_timeout = \"10s\"\n\
             checkpoint_interval = \"2s\"\n[learning]\nmodel_file = \"{}\"\n[service]\nworkers = 2\n[http]\nlisten = \"\"\n\
             ",
            SESSION.as_secs(),
            self.model.display()
        )
    }

    fn disturb(&self, fault: Fault, round: usize, fleet: &mut Fleet, topic: &str, share: f64) {
        let broker = (round % 3 + 1).to_string();
        match fault {
            Fault::Stop => fleet.pause(round, SESSION * 2),
            Fault::Terminate => fleet.restart(round),
            // Between 1 and 4 instances, never the same way for long.
            Fault::Storm if fleet.size() == 1 || fleet.size() < 4 && !(round * 7 / 3).is_multiple_of(2) => fleet.join(),
            Fault::Storm => fleet.leave(round),
            Fault::BrokerKill => {
                self.cluster.control(&["kill", &broker]);
                std::thread::sleep(Duration::from_secs(3));
                self.cluster.control(&["start-broker", &broker]);
            }
            Fault::BrokerRestart => {
                self.cluster.control(&["stop-broker", &broker]);
                self.cluster.control(&["start-broker", &broker]);
            }
            Fault::Cut => self.proxies.cut(Duration::from_secs(2)),
            Fault::Reset => self.proxies.reset(),
            Fault::Unlisted => {
                self.proxies.cut(Duration::from_secs(6));
                // Whether clients lose all their brokers hangs on when they ask.
                let _ = self.proxies.unlist(Duration::from_millis(100 << (round % 5)));
            }
            Fault::Slow => self.proxies.slow(Duration::from_millis(200), Duration::from_secs(5)),
            Fault::HalfOpen => self.proxies.silence(),
            Fault::LostReply => {
                assert!(self.proxies.lose_end_of_transaction(PATIENCE), "no transaction ended within {PATIENCE:?}");
            }
            Fault::LateEnd => {
                let answer = self.proxies.delay_end_of_transaction(PATIENCE);
                log(format_args!("a late request to end a transaction was answered with {answer:?}"));
                // Also a broker that does not get to it at once must not carry it out.
                assert!(answer.is_some_and(|error| error != 0), "a late request to end a transaction: {answer:?}");
            }
            Fault::Kill | Fault::Leaderless => unreachable!("they look at the output meanwhile"),
            Fault::Stall => self.stall(fleet, topic, Duration::from_secs(if share < 1.0 { 30 } else { 180 })),
        }
    }

    /// The scores topic takes nothing for a while: more copies are asked for than there are brokers.
    fn stall(&self, fleet: &mut Fleet, topic: &str, time: Duration) {
        let scores = format!("{topic}-wild.scores");
        self.require_copies(&scores, "4");
        let until = Instant::now() + time;
        while Instant::now() < until {
            fleet.look();
            std::thread::sleep(Duration::from_secs(1));
        }
        self.require_copies(&scores, "2");
    }

    fn require_copies(&self, topic: &str, copies: &str) {
        let admin: AdminClient<DefaultClientContext> =
            self.cluster.broker.client().create().expect("create an admin client");
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("min.insync.replicas", copies);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("build a runtime");
        let done = runtime.block_on(admin.alter_configs([&change], &AdminOptions::new())).expect("ask for a change");
        done.into_iter().for_each(|result| drop(result.expect("change a topic")));
    }

    /// A broker dies with the only copy of its partitions, and an instance comes back meanwhile: the others must be read.
    fn leaderless(&self, round: usize, fleet: &mut Fleet, stream: &Stream, watch: &Watch, topic: &str) {
        let broker = round % 3 + 1;
        let others = self.led_by(topic, |leader| leader != broker as i32);
        assert!(!others.is_empty() && others.len() < PARTITIONS, "broker {broker} leads all partitions, or none");
        self.cluster.control(&["kill", &broker.to_string()]);
        wait_for("the loss to be noticed", RECOVERY_MAX, || {
            (self.led_by(topic, |leader| leader >= 0).len() == others.len()).then_some(())
        });
        let name = fleet.kill(round);
        fleet.revive(name);
        self.await_output_of(&others, Instant::now(), fleet, stream, watch, topic);
        self.cluster.control(&["start-broker", &broker.to_string()]);
    }

    fn led_by(&self, topic: &str, wanted: impl Fn(i32) -> bool) -> Vec<usize> {
        let consumer: BaseConsumer = self.cluster.broker.client().create().expect("create a consumer");
        let metadata = wait_for("the leaders of the partitions", PATIENCE, || {
            consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()
        });
        let partitions = metadata.topics()[0].partitions().iter();
        partitions.filter(|p| wanted(p.leader())).map(|p| p.id() as usize).collect()
    }

    /// Waits until every partition has output for a record written after now; how long after `since` that is.
    fn await_output(&self, since: Instant, fleet: &mut Fleet, stream: &Stream, watch: &Watch, topic: &str) -> Duration {
        let all: Vec<usize> = (0..PARTITIONS).collect();
        self.await_output_of(&all, since, fleet, stream, watch, topic)
    }

    /// The same for some partitions.
    fn await_output_of(
        &self,
        partitions: &[usize],
        since: Instant,
        fleet: &mut Fleet,
        stream: &Stream,
        watch: &Watch,
        topic: &str,
    ) -> Duration {
        // Written after the fault: what the partitions hold now and one more round of all machines.
        let enough = stream.written() + 2 * MACHINES;
        wait_for("the stream to go on", RECOVERY_MAX, || (stream.written() >= enough).then_some(()));
        let marks = self.ends_of(partitions, topic);
        let mut looked = Instant::now();
        while !partitions.iter().zip(&marks).all(|(&p, mark)| watch.seen()[p] >= *mark) {
            assert!(
                since.elapsed() < RECOVERY_MAX,
                "no new output for {RECOVERY_MAX:?}: {:?} of {marks:?}",
                watch.seen()
            );
            std::thread::sleep(Duration::from_millis(20));
            if looked.elapsed() > Duration::from_secs(1) {
                fleet.look();
                looked = Instant::now();
            }
        }
        since.elapsed()
    }

    /// The offset of the last record of each partition.
    fn ends(&self, topic: &str) -> Vec<i64> {
        let all: Vec<usize> = (0..PARTITIONS).collect();
        self.ends_of(&all, topic)
    }

    fn ends_of(&self, partitions: &[usize], topic: &str) -> Vec<i64> {
        let consumer: BaseConsumer = self.cluster.broker.client().create().expect("create a consumer");
        partitions
            .iter()
            .map(|&partition| {
                wait_for("the end of a partition", PATIENCE, || {
                    consumer
                        .fetch_watermarks(topic, partition as i32, Duration::from_secs(5))
                        .ok()
                        .map(|(_, high)| high - 1)
                })
            })
            .collect()
    }

    fn await_end(&self, topic: &str, group: &str) {
        let ends = self.ends(topic);
        wait_for("the group to commit the end of the input", RECOVERY_MAX * 2, || {
            let committed = self.cluster.broker.committed(&format!("{topic}-{group}"), topic);
            ends.iter().zip(committed).all(|(end, c)| c.is_some_and(|c| c > *end)).then_some(())
        });
    }

    /// Every record of the input once in both topics, with the same line; repeats, where they may be, with the same line too.
    /// Returns the number of repeats.
    fn compare(&self, topic: &str, records: usize) -> usize {
        let (mut repeated, mut outcomes) = (0, 0);
        for output in ["scores", "dead-letters", "anomalies", "incidents"] {
            let (calm, none) = self.lines(&format!("{topic}-calm.{output}"));
            let (wild, again) = self.lines(&format!("{topic}-wild.{output}"));
            let count = |lines: &[Vec<u64>]| lines.iter().flatten().filter(|line| **line != 0).count();
            assert_eq!(none, 0, "the undisturbed group repeats itself");
            if output == "scores" || output == "dead-letters" {
                outcomes += count(&calm);
            }
            assert!(count(&calm) > 0, "nothing to compare in {output}");
            for (partition, (calm, wild)) in calm.iter().zip(&wild).enumerate() {
                let at = |lines: &[u64], i: usize| lines.get(i).copied().unwrap_or(0);
                let (mut lost, mut wrong) = (Vec::new(), Vec::new());
                for i in 0..calm.len().max(wild.len()) {
                    match (at(calm, i), at(wild, i)) {
                        (a, b) if a == b => {}
                        (_, 0) => lost.push(i),
                        _ => wrong.push(i),
                    }
                }
                let few = |all: &[usize]| all.iter().take(5).copied().collect::<Vec<_>>();
                assert!(
                    lost.is_empty() && wrong.is_empty(),
                    "{output} of partition {partition}: {} lost {:?}, {} wrong {:?}",
                    lost.len(),
                    few(&lost),
                    wrong.len(),
                    few(&wrong)
                );
            }
            assert!(self.delivery == "at-least-once" || again == 0, "{again} repeated in {output}");
            repeated += again;
        }
        assert_eq!(outcomes, records, "the undisturbed group did not score or refuse every record");
        repeated
    }

    /// A hash of what was written of each record of the input, by partition and offset (0: nothing), and how many lines came again, word
    /// for word. Of an incident's first record, several lines may be written.
    fn lines(&self, topic: &str) -> (Vec<Vec<u64>>, usize) {
        let ends: Vec<i64> = self.ends(topic).iter().map(|last| last + 1).collect();
        let mut config = self.cluster.broker.client();
        config.set("group.id", "compare").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("create a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..ends.len() {
            list.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a valid start");
        }
        consumer.assign(&list).expect("assign all partitions");
        let (mut lines, mut seen) = (vec![Vec::new(); PARTITIONS], HashSet::new());
        let (mut again, mut open) = (0, ends.len());
        let deadline = Instant::now() + RECOVERY_MAX * 2;
        while open > 0 {
            assert!(Instant::now() < deadline, "no end of {topic}");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let line = message.payload().unwrap_or_default();
                    let mut hash = DefaultHasher::new();
                    line.hash(&mut hash);
                    let (partition, offset) = match message.headers() {
                        Some(headers) if headers.count() > 0 => refused(headers, &mut hash),
                        _ => position(line),
                    };
                    let hash = hash.finish().max(1);
                    let of = &mut lines[partition];
                    of.resize(of.len().max(offset as usize + 1), 0);
                    if seen.insert(hash) {
                        of[offset as usize] ^= hash;
                    } else {
                        again += 1;
                    }
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
                _ => {}
            }
        }
        (lines, again)
    }
}

/// Partition and offset of a dead letter's record; all that its headers say goes into the hash, but for the group that says it.
fn refused(headers: &BorrowedHeaders, hash: &mut DefaultHasher) -> (usize, i64) {
    let mut at = (None, None);
    for header in headers.iter() {
        let value = header.value.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        match header.key {
            "__connect.errors.connector.name" => continue,
            "__connect.errors.partition" => at.0 = value.parse().ok(),
            "__connect.errors.offset" => at.1 = value.parse().ok(),
            _ => {}
        }
        (header.key, value).hash(hash);
    }
    (at.0.expect("the partition of a dead letter"), at.1.expect("the offset of a dead letter"))
}
