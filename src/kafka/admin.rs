//! Does Kafka have what residua needs? Topics, their shape, and the rights, tried and not guessed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Attentive};
use super::error::{Context, Error, Result};
use super::oauth::{self, Login};
use super::settings::KafkaSettings;
use super::{Closing, Outgoing, Output};

/// Longest single wait for a record.
const POLL: Duration = Duration::from_millis(500);
/// Between two looks for a topic that was created.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Number of replicas that means the brokers' own default.
const BROKERS_DEFAULT: i32 = -1;

/// A topic residua uses, and the shape it must have.
#[derive(Debug, Clone)]
pub struct Topic<'a> {
    pub role: &'static str,
    pub name: &'a str,
    /// Exact number of partitions, where one is needed.
    pub partitions: Option<i32>,
    /// As many partitions as the input has.
    pub like_input: bool,
    pub compacted: bool,
    pub written: bool,
}

/// One line of the check.
#[derive(Debug)]
pub struct Check {
    pub what: String,
    pub finding: Finding,
}

#[derive(Debug)]
pub enum Finding {
    Good(String),
    Bad(String),
    Unknown(String),
}

impl KafkaSettings {
    /// Every topic these settings use.
    pub fn topics(&self) -> Vec<Topic<'_>> {
        let plain =
            |role, name, written| Topic { role, name, partitions: None, like_input: false, compacted: false, written };
        let mut topics = vec![
            plain("input", &self.input, false),
            plain("anomalies", &self.anomalies, true),
            plain("dead letters", &self.dead_letters, true),
            Topic { compacted: true, ..plain("incidents", &self.incidents, true) },
            Topic { partitions: Some(1), compacted: true, ..plain("models", &self.models, true) },
            Topic { like_input: true, compacted: true, ..plain("state", &self.state, true) },
        ];
        for (role, name) in [("scores", &self.scores), ("reconstructions", &self.reconstructions)] {
            if !name.is_empty() {
                topics.push(plain(role, name, true));
            }
        }
        topics
    }
}

fn consumer(settings: &KafkaSettings) -> Result<Closing<BaseConsumer<Attentive>>> {
    let made = client::consumer(&client::reader(settings), Attentive::new(Login::of(settings)), settings);
    made.map(|c| Closing::new("client", c)).map_err(|cause| Error::Client { role: "client", cause })
}

/// Whether a broker answers within `timeout` and the input topic exists. Returns the number of its partitions.
pub fn reachable(settings: &KafkaSettings, timeout: Duration) -> Result<usize> {
    let consumer = consumer(settings)?;
    partitions(&consumer, &settings.input, timeout)?.ok_or(Error::MissingTopic { topic: settings.input.clone() })
}

/// The topics that do not exist, with their roles; an error for one of the wrong shape. Waits for at most `timeout` in all.
pub fn missing_topics(settings: &KafkaSettings, timeout: Duration) -> Result<Vec<Topic<'_>>> {
    let deadline = Instant::now() + timeout;
    let consumer = consumer(settings)?;
    let (mut missing, mut of_input) = (Vec::new(), 0);
    for topic in settings.topics() {
        match partitions(&consumer, topic.name, deadline.saturating_duration_since(Instant::now()))? {
            None => missing.push(topic),
            Some(found) if topic.like_input && found < of_input => {
                return Err(Error::TooFewPartitions { topic: topic.name.to_owned(), found, expected: of_input });
            }
            Some(found) if topic.partitions.is_some_and(|wanted| found > wanted as usize) => {
                return Err(Error::TooManyPartitions { topic: topic.name.to_owned(), found, expected: 1 });
            }
            Some(found) if topic.role == "input" => of_input = found,
            Some(_) => {}
        }
    }
    Ok(missing)
}

fn partitions(consumer: &BaseConsumer<Attentive>, topic: &str, timeout: Duration) -> Result<Option<usize>> {
    let action = "ask Kafka for its topics";
    let metadata = consumer.fetch_metadata(Some(topic), timeout).map_err(|cause| match Attentive::heard(consumer) {
        heard if heard.is_empty() => Error::Call { action, cause },
        heard => Error::Unanswered { action, cause, heard },
    })?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(found.partitions().len())),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(Error::Call { action: "ask Kafka for a topic", cause: KafkaError::MetadataFetch(code) }),
    }
}

/// Checks topics and rights, one finding each. Reads what residua reads; writes one probe record to every output and one
/// offset to the group, inside transactions that are aborted.
pub async fn check(settings: &KafkaSettings) -> Result<Vec<Check>> {
    let consumer = consumer(settings)?;
    let timeout = settings.request_timeout;
    let mut findings = Vec::new();
    let mut of_input = None;
    for mut topic in settings.topics() {
        if topic.like_input {
            topic.partitions = of_input;
        }
        let finding = match partitions(&consumer, topic.name, timeout) {
            Err(e) if e.remedy() != super::Remedy::Stop => return Err(e),
            Err(e) => Finding::Bad(e.to_string()),
            Ok(None) => Finding::Bad("does not exist; --create-topics creates it".to_owned()),
            Ok(Some(n)) => {
                of_input.get_or_insert(n as i32); // the first of the topics
                shape(settings, &topic, n).await
            }
        };
        findings.push(Check { what: format!("{} topic `{}`", topic.role, topic.name), finding });
    }
    if !findings.iter().any(|c| matches!(c.finding, Finding::Bad(_))) {
        for topic in [&settings.input, &settings.models, &settings.state] {
            findings.push(Check { what: format!("read `{topic}`"), finding: tried(try_reading(settings, topic)) });
        }
        let mut probe = |what, finding| findings.push(Check { what, finding });
        probe(format!("commit as group `{}`", settings.group), tried(try_committing(settings)));
        for topic in settings.topics().iter().filter(|t| t.written) {
            probe(format!("write `{}`", topic.name), tried(try_writing(settings, topic.name)));
        }
    }
    Ok(findings)
}

async fn shape(settings: &KafkaSettings, topic: &Topic<'_>, found: usize) -> Finding {
    if let Some(wanted) = topic.partitions.map(|n| n as usize)
        && (found < wanted || found > wanted && !topic.like_input)
    {
        return Finding::Bad(format!("has {found} partitions, expected {wanted}"));
    }
    if !topic.written {
        return Finding::Good(format!("{found} partitions"));
    }
    match cleanup_policy(settings, topic.name).await {
        Err(e) => Finding::Unknown(format!("{found} partitions; its cleanup.policy could not be read ({e})")),
        Ok(None) => Finding::Good(format!("{found} partitions")),
        Ok(Some(p)) if topic.compacted && p != "compact" => Finding::Bad(format!(
            "has cleanup.policy={p}, expected compact: with retention what it holds would be lost"
        )),
        Ok(Some(p)) if !topic.compacted && p.contains("compact") => Finding::Bad(format!(
            "has cleanup.policy={p}, expected delete: compaction keeps one message of a series, and takes none without a key"
        )),
        Ok(Some(p)) => Finding::Good(format!("{found} partitions, cleanup.policy={p}")),
    }
}

async fn cleanup_policy(settings: &KafkaSettings, topic: &str) -> Result<Option<String>> {
    let admin = admin(settings)?;
    let found = admin
        .describe_configs(
            &[ResourceSpecifier::Topic(topic)],
            &AdminOptions::new().request_timeout(Some(settings.request_timeout)),
        )
        .await
        .action("describe a topic")?;
    match found.into_iter().next() {
        Some(Ok(resource)) => Ok(resource.get("cleanup.policy").and_then(|e| e.value.clone())),
        Some(Err(code)) => Err(Error::Call { action: "describe a topic", cause: KafkaError::AdminOp(code) }),
        None => Ok(None),
    }
}

fn tried(result: Result<()>) -> Finding {
    match result {
        Ok(()) => Finding::Good("allowed".to_owned()),
        Err(e) => Finding::Bad(e.to_string()),
    }
}

/// Fetches from the end of the first partition: a record or the news that there is none, where reading is allowed.
fn try_reading(settings: &KafkaSettings, topic: &str) -> Result<()> {
    let consumer = consumer(settings)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::End).action("name a partition")?;
    consumer.assign(&list).action("read a topic")?;
    let deadline = Instant::now() + settings.request_timeout;
    while Instant::now() < deadline {
        match consumer.poll(POLL) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(cause)) => {
                let error = Error::Call { action: "read a topic", cause };
                if error.remedy() == super::Remedy::Stop {
                    return Err(error);
                }
            }
            None => {}
        }
    }
    Err(Error::Timeout { action: "read a topic", after: settings.request_timeout })
}

/// Adds an offset of the group to a transaction that is aborted, without joining the group.
fn try_committing(settings: &KafkaSettings) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&settings.input, 0, Offset::Offset(0)).action("name an offset")?;
    let consumer = consumer(settings)?;
    let group = consumer.group_metadata().ok_or(Error::Timeout { action: "name the group", after: Duration::ZERO })?;
    let mut output = probe(settings)?;
    let added = output.add_offsets(offsets, Arc::new(group));
    output.abort()?;
    output.close();
    added
}

fn try_writing(settings: &KafkaSettings, topic: &str) -> Result<()> {
    let mut output = probe(settings)?;
    // A key, because a compacted topic takes nothing without.
    let value = br#"{"probe":"residua check, aborted"}"#;
    output.send(Outgoing { topic, key: Some(b"probe"), value: Some(value), ..Outgoing::default() })?;
    let written = output.delivered();
    output.abort()?;
    output.close();
    written
}

/// An open transaction.
fn probe(settings: &KafkaSettings) -> Result<Output> {
    let started = Instant::now();
    let wanted = || started.elapsed() < settings.request_timeout;
    let mut output = Output::transactional(settings, &format!("{}-check", settings.group), &wanted)?;
    output.begin()?;
    Ok(output)
}

fn admin(settings: &KafkaSettings) -> Result<AdminClient<DefaultClientContext>> {
    if oauth::is_chosen(settings) {
        return Err(Error::NoAdministrator);
    }
    client::admin(settings).create().map_err(|cause| Error::Client { role: "administrator", cause })
}

/// Creates the topics that are missing, with as many partitions as the input has; the input itself only with
/// `partitions_of_input`, since a missing input is more often a misspelt one. Without `replication`, with as many replicas as is
/// the brokers' default. Returns the names of those created, once brokers know them or the request timeout is over.
pub async fn create_topics(
    settings: &KafkaSettings,
    partitions_of_input: Option<i32>,
    replication: Option<i32>,
) -> Result<Vec<String>> {
    let consumer = consumer(settings)?;
    let input = partitions(&consumer, &settings.input, settings.request_timeout)?;
    let like_input = input.map(|n| n as i32).or(partitions_of_input);
    let like_input = like_input.ok_or_else(|| Error::MissingInput { topic: settings.input.clone() })?;
    let mut created = Vec::new();
    for topic in settings.topics() {
        if partitions(&consumer, topic.name, settings.request_timeout)?.is_some() {
            continue;
        }
        let mut wanted = NewTopic::new(
            topic.name,
            topic.partitions.unwrap_or(like_input),
            TopicReplication::Fixed(replication.unwrap_or(BROKERS_DEFAULT)),
        );
        if topic.compacted {
            wanted = wanted.set("cleanup.policy", "compact").set("max.message.bytes", "67108864");
        }
        let options = AdminOptions::new().request_timeout(Some(settings.request_timeout));
        let results = admin(settings)?.create_topics(&[wanted], &options).await.action("create a topic")?;
        for result in results {
            match result {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(Error::NotCreated { topic, code }),
            }
        }
    }
    // What the controller has created a broker may not know yet.
    let deadline = Instant::now() + settings.request_timeout;
    for name in &created {
        while partitions(&consumer, name, settings.request_timeout)?.is_none() && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    Ok(created)
}
