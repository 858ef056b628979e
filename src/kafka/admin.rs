//! Does Kafka have what residua needs? Topics, their shape, and the rights, tried and not guessed.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::client::{self, Quiet};
use super::error::{Context, Error, Result};
use super::settings::{Delivery, KafkaSettings};
use super::{Outgoing, Output};

/// A topic residua uses, and the shape it must have.
#[derive(Debug, Clone)]
pub struct Topic<'a> {
    pub role: &'static str,
    pub name: &'a str,
    /// Exact number of partitions, where one is needed.
    pub partitions: Option<i32>,
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
}

impl KafkaSettings {
    /// Every topic these settings use.
    pub fn topics(&self) -> Vec<Topic<'_>> {
        let mut topics = vec![
            Topic { role: "input", name: &self.input, partitions: None, compacted: false, written: false },
            Topic { role: "anomalies", name: &self.anomalies, partitions: None, compacted: false, written: true },
            Topic { role: "dead letters", name: &self.dead_letters, partitions: None, compacted: false, written: true },
            Topic { role: "models", name: &self.models, partitions: Some(1), compacted: true, written: true },
        ];
        if !self.scores.is_empty() {
            topics.push(Topic {
                role: "scores",
                name: &self.scores,
                partitions: None,
                compacted: false,
                written: true,
            });
        }
        topics
    }
}

fn consumer(settings: &KafkaSettings) -> Result<BaseConsumer<Quiet>> {
    client::reader(settings).create_with_context(Quiet).map_err(|source| Error::Client { role: "client", source })
}

/// Whether a broker answers within `timeout` and the input topic exists. Returns the number of its partitions.
pub fn reachable(settings: &KafkaSettings, timeout: Duration) -> Result<usize> {
    partitions(&consumer(settings)?, &settings.input, timeout)?
        .ok_or(Error::MissingTopic { topic: settings.input.clone() })
}

/// The topics that do not exist, with their roles.
pub fn missing_topics(settings: &KafkaSettings) -> Result<Vec<Topic<'_>>> {
    let consumer = consumer(settings)?;
    let mut missing = settings.topics();
    let mut failed = None;
    missing.retain(|t| match partitions(&consumer, t.name, settings.request_timeout) {
        Ok(found) => found.is_none(),
        Err(e) => {
            failed.get_or_insert(e);
            false
        }
    });
    failed.map_or(Ok(missing), Err)
}

fn partitions(consumer: &BaseConsumer<Quiet>, topic: &str, timeout: Duration) -> Result<Option<usize>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout).action("ask Kafka for its topics")?;
    let Some(found) = metadata.topics().first() else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(found.partitions().len())),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(Error::Call {
            action: "ask Kafka for a topic",
            source: rdkafka::error::KafkaError::MetadataFetch(code),
        }),
    }
}

/// Checks topics and rights, one finding each. Writes one probe record to every output inside a transaction that is aborted.
pub async fn check(settings: &KafkaSettings) -> Result<Vec<Check>> {
    let consumer = consumer(settings)?;
    let timeout = settings.request_timeout;
    let mut findings = Vec::new();
    for topic in settings.topics() {
        let finding = match partitions(&consumer, topic.name, timeout) {
            Err(e) if e.remedy() != super::Remedy::Stop => return Err(e),
            Err(e) => Finding::Bad(e.to_string()),
            Ok(None) => Finding::Bad("does not exist; --create-topics creates it".to_owned()),
            Ok(Some(n)) => shape(settings, &topic, n).await,
        };
        findings.push(Check { what: format!("{} topic `{}`", topic.role, topic.name), finding });
    }
    if findings.iter().all(|c| matches!(c.finding, Finding::Good(_))) {
        findings.push(Check {
            what: format!("read `{}` as group `{}`", settings.input, settings.group),
            finding: try_reading(settings),
        });
        for topic in settings.topics().iter().filter(|t| t.written) {
            findings
                .push(Check { what: format!("write `{}`", topic.name), finding: try_writing(settings, topic.name) });
        }
    }
    Ok(findings)
}

async fn shape(settings: &KafkaSettings, topic: &Topic<'_>, found: usize) -> Finding {
    if let Some(wanted) = topic.partitions
        && found != wanted as usize
    {
        return Finding::Bad(format!("has {found} partitions, expected {wanted}"));
    }
    let policy = match topic.compacted {
        true => cleanup_policy(settings, topic.name).await,
        false => Ok(None),
    };
    match policy {
        Err(e) => Finding::Good(format!("{found} partitions; its cleanup.policy could not be read ({e})")),
        Ok(Some(p)) if !p.contains("compact") => {
            Finding::Bad(format!("has cleanup.policy={p}, expected compact: with retention the model would be lost"))
        }
        Ok(Some(p)) => Finding::Good(format!("{found} partitions, cleanup.policy={p}")),
        Ok(None) => Finding::Good(format!("{found} partitions")),
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
        Some(Err(code)) => {
            Err(Error::Call { action: "describe a topic", source: rdkafka::error::KafkaError::AdminOp(code) })
        }
        None => Ok(None),
    }
}

/// Reads on behalf of the group without joining it: committed offsets need the right on the group, watermarks the one on the topic.
fn try_reading(settings: &KafkaSettings) -> Finding {
    let attempt = || -> Result<()> {
        let consumer = consumer(settings)?;
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition(&settings.input, 0);
        let committed =
            consumer.committed_offsets(list, settings.request_timeout).action("fetch the committed offsets")?;
        for e in committed.elements() {
            e.error().action("fetch the committed offsets")?;
        }
        consumer
            .fetch_watermarks(&settings.input, 0, settings.request_timeout)
            .action("fetch the ends of a partition")?;
        Ok(())
    };
    match attempt() {
        Ok(()) => Finding::Good("allowed".to_owned()),
        Err(e) => Finding::Bad(e.to_string()),
    }
}

fn try_writing(settings: &KafkaSettings, topic: &str) -> Finding {
    if settings.delivery == Delivery::AtLeastOnce {
        return Finding::Good("not tried: without transactions a probe would stay in the topic".to_owned());
    }
    let attempt = || -> Result<()> {
        let id = format!("{}-check", settings.group);
        let started = std::time::Instant::now();
        let mut output = Output::connect(settings, &id, &|| started.elapsed() < settings.request_timeout)?;
        output.begin()?;
        // A key, because a compacted topic takes nothing without.
        let value = br#"{"probe":"residua check, aborted"}"#;
        output.send(Outgoing { topic, key: Some(b"probe"), value: Some(value), ..Outgoing::default() })?;
        let written = output.delivered();
        output.abort()?;
        output.close();
        written
    };
    match attempt() {
        Ok(()) => Finding::Good("allowed".to_owned()),
        Err(e) => Finding::Bad(e.to_string()),
    }
}

fn admin(settings: &KafkaSettings) -> Result<AdminClient<DefaultClientContext>> {
    client::admin(settings).create().map_err(|source| Error::Client { role: "administrator", source })
}

/// Creates the topics that are missing, with as many partitions as the input has (the input itself: `partitions`).
/// Returns the names of those created.
pub async fn create_topics(
    settings: &KafkaSettings,
    partitions_of_input: i32,
    replication: i32,
) -> Result<Vec<String>> {
    let consumer = consumer(settings)?;
    let input = partitions(&consumer, &settings.input, settings.request_timeout)?;
    let like_input = input.map_or(partitions_of_input, |n| n as i32);
    let mut created = Vec::new();
    for topic in settings.topics() {
        if partitions(&consumer, topic.name, settings.request_timeout)?.is_some() {
            continue;
        }
        let mut wanted =
            NewTopic::new(topic.name, topic.partitions.unwrap_or(like_input), TopicReplication::Fixed(replication));
        if topic.compacted {
            wanted = wanted.set("cleanup.policy", "compact").set("max.message.bytes", "67108864");
        }
        let options = AdminOptions::new().request_timeout(Some(settings.request_timeout));
        let results = admin(settings)?.create_topics(&[wanted], &options).await.action("create a topic")?;
        for result in results {
            match result {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    return Err(Error::Call {
                        action: "create a topic",
                        source: rdkafka::error::KafkaError::AdminOp(code),
                    });
                }
            }
        }
    }
    Ok(created)
}
