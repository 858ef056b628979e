//! Table `[kafka]` of the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize, Serializer};

use super::oauth::{self, Login};

/// What a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Offsets and outputs in one Kafka transaction.
    ExactlyOnce,
    /// Outputs, then offsets: after a crash outputs may repeat, with the same ids.
    AtLeastOnce,
}

/// Where a group without committed offsets starts, if the model was not trained on the input topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    Earliest,
    Latest,
}

/// A value for librdkafka. One that is secret shows itself to nobody but librdkafka.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientValue {
    pub value: String,
    pub secret: bool,
}

/// What stands in place of a secret.
pub const REDACTED: &str = "********";

impl ClientValue {
    /// The value, or stars.
    pub fn shown(&self) -> &str {
        if self.secret { REDACTED } else { &self.value }
    }
}

impl fmt::Debug for ClientValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

impl Serialize for ClientValue {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.shown())
    }
}

/// Table `[kafka]`; `config/residua.toml` says what each key means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    pub brokers: String,
    pub input: String,
    pub group: String,
    pub anomalies: String,
    pub dead_letters: String,
    pub incidents: String,
    pub models: String,
    pub state: String,
    pub scores: String,
    pub reconstructions: String,
    pub delivery: Delivery,
    pub start: Start,
    pub instance_id: String,
    #[serde(with = "friendly")]
    pub commit_interval: Duration,
    #[serde(with = "friendly")]
    pub checkpoint_interval: Duration,
    #[serde(with = "friendly")]
    pub transaction_timeout: Duration,
    #[serde(with = "friendly")]
    pub request_timeout: Duration,
    #[serde(with = "friendly")]
    pub session_timeout: Duration,
    #[serde(with = "friendly")]
    pub heartbeat_interval: Duration,
    #[serde(with = "friendly")]
    pub max_poll_interval: Duration,
    pub queue_kbytes: u32,
    pub dead_letter_max_bytes: usize,
    pub allow_insecure: bool,
    /// Further settings of librdkafka, by its own names. Filled from `[kafka.client]`.
    #[serde(skip_deserializing)]
    pub client: BTreeMap<String, ClientValue>,
    #[serde(skip)]
    pub login: Login,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            brokers: String::new(),
            input: String::new(),
            group: String::new(),
            anomalies: String::new(),
            dead_letters: String::new(),
            incidents: String::new(),
            models: String::new(),
            state: String::new(),
            scores: String::new(),
            reconstructions: String::new(),
            delivery: Delivery::ExactlyOnce,
            start: Start::Earliest,
            instance_id: String::new(),
            commit_interval: Duration::from_millis(100),
            checkpoint_interval: Duration::from_secs(30),
            transaction_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            session_timeout: Duration::from_secs(20),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            queue_kbytes: 16_384,
            dead_letter_max_bytes: 900_000,
            allow_insecure: false,
            client: BTreeMap::new(),
            login: Login::default(),
        }
    }
}

impl KafkaSettings {
    /// A key of `[kafka.client]` that is missing for a login by OAUTHBEARER, if it is to be.
    pub fn missing_for_login(&self) -> Option<&'static str> {
        oauth::missing(self)
    }

    /// Names that were left empty, from those that were given.
    pub fn derive_names(&mut self) {
        let fill = |name: &mut String, derived: String| {
            if name.is_empty() {
                *name = derived;
            }
        };
        fill(&mut self.group, format!("residua-{}", self.input));
        fill(&mut self.anomalies, format!("{}.anomalies", self.input));
        fill(&mut self.dead_letters, format!("{}.dead-letters", self.input));
        fill(&mut self.incidents, format!("{}.incidents", self.input));
        fill(&mut self.models, format!("{}.models", self.group));
        fill(&mut self.state, format!("{}.state", self.group));
    }

    /// Keys and values for librdkafka, secrets in clear.
    pub(super) fn client_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.client.iter().map(|(k, v)| (k.as_str(), v.value.as_str()))
    }
}

/// Whether a librdkafka key holds a secret.
pub fn is_secret(key: &str) -> bool {
    ["password", "secret", "passphrase", "private.key.pem"].iter().any(|s| key.contains(s))
        || matches!(key, "ssl.key.pem" | "sasl.oauthbearer.config")
}

/// Why residua sets a librdkafka key itself, if it does.
pub fn owned(key: &str) -> Option<&'static str> {
    Some(match key {
        "bootstrap.servers" | "metadata.broker.list" => "set kafka.brokers",
        "group.id" => "set kafka.group",
        "group.instance.id" | "transactional.id" => "set kafka.instance_id, from which each worker's own is made",
        "client.id" => "it is always `residua`",
        "session.timeout.ms" => "set kafka.session_timeout",
        "heartbeat.interval.ms" => "set kafka.heartbeat_interval",
        "max.poll.interval.ms" => "set kafka.max_poll_interval",
        "transaction.timeout.ms" | "message.timeout.ms" | "delivery.timeout.ms" => "set kafka.transaction_timeout",
        "request.timeout.ms" => "set kafka.request_timeout",
        "queued.max.messages.kbytes" => "set kafka.queue_kbytes",
        "enable.auto.commit"
        | "auto.commit.enable"
        | "enable.auto.offset.store"
        | "enable.idempotence"
        | "isolation.level"
        | "log.connection.close"
        | "log.queue" => "the delivery promise rests on it, see kafka.delivery",
        "auto.offset.reset" => "set kafka.start",
        "message.max.bytes" => "the limit of each topic decides",
        "enable.partition.eof" | "statistics.interval.ms" | "partitioner" | "delivery.report.only.error" => {
            "residua depends on its own value"
        }
        "group.protocol" | "partition.assignment.strategy" => "residua is tested with librdkafka's default",
        "plugin.library.paths" => "it would load foreign code",
        _ => return None,
    })
}
