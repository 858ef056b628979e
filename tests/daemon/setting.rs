//! What every test of the daemon needs: topics of its own, a configuration, and a look at what came out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::plant::{self, MACHINES};
use crate::support::{self, Broker, Message, PATIENCE, Process, residua, wait_for};

/// Of the input and the outputs.
const PARTITIONS: &str = "4";
/// Steps of the plant that a model is learned from.
pub const TRAINING_STEPS: usize = 200;
/// As long as a debug build on a loaded machine may take.
pub const LONG: Duration = Duration::from_secs(240);

/// Topics of one test, and a configuration for them.
pub struct Setting<'a> {
    pub broker: &'a Broker,
    pub topic: String,
    pub config: String,
}

impl Setting<'_> {
    /// Creates the topics with the program itself. `more`: further keys of `[kafka]`, in which `{topic}` stands for the input.
    pub fn new<'a>(broker: &'a Broker, name: &str, more: &str) -> Setting<'a> {
        let topic = support::topic(name);
        let more = more.replace("{topic}", &topic);
        let config = format!(
            "[kafka]\nbrokers = \"{}\"\ninput = \"{topic}\"\nscores = \"{topic}.scores\"\n{more}\n[learning]\nmin_records = {}\n\
             [detector]\nalarms = \"1 per 100000 records\"\n[service]\nworkers = 2\n[http]\nlisten = \"127.0.0.1:0\"\n",
            broker.bootstrap,
            TRAINING_STEPS * MACHINES,
        );
        let checked =
            residua(&["check", "--connect", "--create-topics", "--partitions", PARTITIONS], &config).wait(PATIENCE);
        assert!(checked.status.success(), "{checked:?}");
        Setting { broker, topic, config }
    }

    pub fn start(&self) -> Process {
        residua(&["run"], &self.config)
    }

    /// Trains on a clean stretch and waits until the workers hold partitions.
    pub fn start_trained(&self) -> Process {
        self.broker.produce(&self.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
        let process = self.start();
        process.wait_for_line("partitions assigned", LONG);
        process
    }

    pub fn scores(&self) -> Vec<Message> {
        self.broker.read(&format!("{}.scores", self.topic))
    }

    pub fn dead_letters(&self) -> Vec<Message> {
        self.broker.read(&format!("{}.dead-letters", self.topic))
    }

    /// Waits until the group has committed the end of every partition.
    pub fn wait_until_settled(&self, input: &[Message]) {
        self.wait_until_settled_by(&format!("residua-{}", self.topic), input);
    }

    /// The same for another group.
    pub fn wait_until_settled_by(&self, group: &str, input: &[Message]) {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for m in input {
            let end = ends.entry(m.partition).or_default();
            *end = (*end).max(m.offset + 1);
        }
        wait_for("the group to commit the end of the input", LONG, || {
            let committed = self.broker.committed(group, &self.topic);
            ends.iter().all(|(p, end)| committed[*p as usize].is_some_and(|c| c >= *end)).then_some(())
        });
    }

    /// Ids of all inputs after the training range.
    pub fn expected(&self, input: &[Message], trained: &HashMap<i32, i64>) -> BTreeSet<String> {
        let after = input.iter().filter(|m| m.offset >= trained.get(&m.partition).copied().unwrap_or(0));
        after.map(|m| format!("{}-{}-{}", self.topic, m.partition, m.offset)).collect()
    }
}

/// Ends of the training range: how many records each partition had then.
pub fn ends(input: &[Message]) -> HashMap<i32, i64> {
    let mut ends = HashMap::new();
    for m in input {
        let end = ends.entry(m.partition).or_insert(0);
        *end = (m.offset + 1).max(*end);
    }
    ends
}

pub fn line(m: &Message) -> Value {
    serde_json::from_slice(m.value.as_deref().unwrap_or_default()).expect("a JSON line")
}

pub fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_else(|| panic!("no text {key} in {v}"))
}

/// Address from the line that announces it.
pub fn address(process: &Process) -> String {
    let line = process.wait_for_line("metrics and health on http://", PATIENCE);
    line.split("http://").nth(1).expect("an address").trim_end_matches('/').to_owned()
}
