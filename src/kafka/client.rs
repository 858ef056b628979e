//! librdkafka's settings for each role residua plays, and its log lines.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;

use super::oauth::{self, Login};
use super::settings::{KafkaSettings, is_secret};

/// How often librdkafka reports lag and the brokers' answers, ms.
const STATISTICS_INTERVAL_MS: u64 = 2_000;
const SOCKET_TIMEOUT: &str = "socket.timeout.ms";
/// Longest wait for an answer before a connection is given up, unless `[kafka.client]` says otherwise.
const SOCKET_TIMEOUT_MS: u64 = 10_000;
const QUEUE_BACKOFF: &str = "fetch.queue.backoff.ms";
/// How soon librdkafka fetches again after its queue was full, unless `[kafka.client]` says otherwise. The queue is worked off in less than a tenth of
/// a second; librdkafka's own second would leave a worker idle for most of it while it catches up.
const QUEUE_BACKOFF_MS: u64 = 10;
/// What a producer queues at most: a few of the largest messages that Kafka can be made to take.
const QUEUE_KBYTES: u64 = 256 * 1024;

fn base(settings: &KafkaSettings) -> ClientConfig {
    let mut c = ClientConfig::new();
    // librdkafka's own minute is longer than a session: a connection that died without a word would cost the membership.
    c.set("client.id", "residua").set(SOCKET_TIMEOUT, SOCKET_TIMEOUT_MS.to_string());
    for (key, value) in settings.client_properties().filter(|(key, _)| !oauth::is_ours(key)) {
        c.set(key, value);
    }
    c.set("bootstrap.servers", &settings.brokers);
    c
}

/// Why librdkafka does not take this value for this key, if it does not. Never quotes the value of a secret, or of a key that it
/// does not know, which may be a secret mistyped.
pub fn refuses(key: &str, value: &str) -> Option<String> {
    if oauth::is_ours(key) {
        return oauth::refuses(key, value);
    }
    match ClientConfig::new().set(key, value).create_native_config() {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Some("librdkafka has no such key".to_owned())
        }
        Err(KafkaError::ClientConfig(..)) if is_secret(key) => Some("librdkafka refuses the value".to_owned()),
        Err(KafkaError::ClientConfig(_, why, ..)) => Some(format!("librdkafka refuses the value: {why}")),
        Err(_) | Ok(_) => None,
    }
}

fn ms(d: Duration) -> String {
    d.as_millis().to_string()
}

/// A member of the consumer group that reads the input.
pub(super) fn member(settings: &KafkaSettings, worker: usize) -> ClientConfig {
    let mut c = reader(settings);
    c.set("session.timeout.ms", ms(settings.session_timeout))
        .set("heartbeat.interval.ms", ms(settings.heartbeat_interval))
        .set("max.poll.interval.ms", ms(settings.max_poll_interval))
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string())
        .set("enable.partition.eof", "false")
        // Never skip silently: what was lost is counted before reading goes on.
        .set("auto.offset.reset", "error");
    if !settings.instance_id.is_empty() {
        c.set("group.instance.id", format!("{}-{worker}", settings.instance_id));
    }
    c
}

/// A consumer that is told what to read and never joins the group: for history, models and offsets.
pub(super) fn reader(settings: &KafkaSettings) -> ClientConfig {
    let mut c = base(settings);
    c.set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", settings.queue_kbytes.to_string())
        .set("enable.partition.eof", "true");
    if !settings.client.contains_key(QUEUE_BACKOFF) {
        c.set(QUEUE_BACKOFF, QUEUE_BACKOFF_MS.to_string());
    }
    c
}

/// A producer; with a transactional id where one is given.
pub(super) fn writer(settings: &KafkaSettings, transactional_id: Option<&str>) -> ClientConfig {
    let mut c = base(settings);
    // Whatever this process logs: what it says of lost connections is needed.
    c.set_log_level(RDKafkaLogLevel::Info);
    c.set("enable.idempotence", "true")
        // As Java's clients do, so that a key goes to the same partition whoever writes it.
        .set("partitioner", "murmur2_random")
        // Whatever a topic accepts: the topic's own limit decides.
        .set("message.max.bytes", "67108864")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string())
        .set("message.timeout.ms", ms(settings.transaction_timeout))
        .set("request.timeout.ms", ms(settings.request_timeout.min(settings.transaction_timeout)));
    if let Some(id) = transactional_id {
        c.set("transactional.id", id).set("transaction.timeout.ms", ms(settings.transaction_timeout));
        // librdkafka takes no longer one here.
        if !settings.client.contains_key(SOCKET_TIMEOUT) {
            c.set(SOCKET_TIMEOUT, ms(settings.transaction_timeout.min(Duration::from_millis(SOCKET_TIMEOUT_MS))));
        }
    }
    c
}

/// Client for metadata, administration and checks.
pub(super) fn admin(settings: &KafkaSettings) -> ClientConfig {
    base(settings)
}

/// librdkafka's own log lines, at the level at which they concern a person.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::*;
    match level {
        // librdkafka retries whatever it reports here; what it gives up on comes back as an error of a call.
        Emerg | Alert | Critical | Error | Warning => tracing::warn!(target: "residua::kafka", facility, "{message}"),
        Notice | Info => tracing::info!(target: "residua::kafka", facility, "{message}"),
        Debug => tracing::debug!(target: "residua::kafka", facility, "{message}"),
    }
}

/// Events that are taken at once.
const HEARD_MAX: usize = 100;

/// A consumer that can be asked for anything at once.
pub(super) fn consumer<C: ConsumerContext>(
    config: &ClientConfig,
    context: C,
    settings: &KafkaSettings,
) -> KafkaResult<BaseConsumer<C>> {
    let consumer = config.create_with_context(context)?;
    oauth::log_in(&consumer, settings);
    Ok(consumer)
}

/// A context that only logs.
pub(super) struct Quiet(pub Login);

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.token()
    }
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "residua::kafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

/// A context that remembers why brokers do not answer, for who asks them something once: the call itself fails with less.
pub(super) struct Attentive {
    login: Login,
    heard: Mutex<String>,
}

impl Attentive {
    pub fn new(login: Login) -> Attentive {
        Attentive { login, heard: Mutex::default() }
    }

    fn hear(&self, what: &str) {
        // Where it comes from is said twice.
        let what = what.rsplit_once("]: ").map_or(what, |(_, rest)| rest);
        what.clone_into(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was heard last; empty if nothing was.
    pub fn heard(consumer: &BaseConsumer<Attentive>) -> String {
        // It is told where the client is asked for records, of which there are none.
        (0..HEARD_MAX).for_each(|_| drop(consumer.poll(Duration::ZERO)));
        std::mem::take(&mut *consumer.context().heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Attentive {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.login.token()
    }
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Every try again says the same; the caller says it once.
        if facility == "FAIL" {
            self.hear(message);
        } else {
            log(level, facility, message);
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.hear(reason);
        }
    }
}

impl ConsumerContext for Attentive {}

#[cfg(test)]
mod tests {
    use super::super::settings::ClientValue;
    use super::*;

    #[test]
    fn a_full_queue_is_not_waited_for_longer_than_it_lasts() {
        let mut settings = KafkaSettings::default();
        assert_eq!(member(&settings, 0).get(QUEUE_BACKOFF), Some("10"));
        assert_eq!(writer(&settings, None).get(QUEUE_BACKOFF), None, "a warning of librdkafka");
        let value = ClientValue { value: "500".to_owned(), secret: false };
        settings.client.insert(QUEUE_BACKOFF.to_owned(), value);
        assert_eq!(reader(&settings).get(QUEUE_BACKOFF), Some("500"));
    }
}
