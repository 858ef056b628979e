//! What fits one key but not its neighbours, or not the world. Bounds are written positively, so that nothing slips through.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Config;
use crate::record::{Format, History};

/// Kafka's own limit for a topic name.
const TOPIC_NAME_MAX: usize = 249;

/// Everything wrong with values that are right each for itself.
pub(super) fn problems(c: &Config) -> Vec<String> {
    let mut p = Vec::new();
    names(c, &mut p);
    let missing = c.kafka.missing_for_login();
    p.extend(missing.map(|key| format!("kafka.client.{key}: missing; a login by OAUTHBEARER needs it")));
    insecure(c, &mut p);
    times(c, &mut p);
    numbers(c, &mut p);
    p
}

fn names(c: &Config, p: &mut Vec<String>) {
    let k = &c.kafka;
    let brokers = || k.brokers.split(',').map(str::trim).filter(|b| !b.is_empty());
    if brokers().next().is_none() {
        p.push("kafka.brokers: missing; expected host:port, or several parted by commas".to_owned());
    }
    for broker in brokers() {
        let port =
            broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            p.push(format!("kafka.brokers: `{broker}` is not host:port"));
        }
    }
    if k.input.is_empty() {
        p.push("kafka.input: missing; expected the topic with the sensor records".to_owned());
        return;
    }
    let topics = [
        ("kafka.input", &k.input),
        ("kafka.anomalies", &k.anomalies),
        ("kafka.dead_letters", &k.dead_letters),
        ("kafka.incidents", &k.incidents),
        ("kafka.models", &k.models),
        ("kafka.state", &k.state),
        ("kafka.scores", &k.scores),
        ("kafka.reconstructions", &k.reconstructions),
    ];
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, name) in topics.into_iter().filter(|(_, name)| !name.is_empty()) {
        let legal = |ch: char| ch.is_ascii_alphanumeric() || ".-_".contains(ch);
        if !(name.len() <= TOPIC_NAME_MAX && name.chars().all(legal) && name != "." && name != "..") {
            p.push(format!(
                "{key}: `{name}` is not a topic name: letters, digits, `.`, `-`, `_`, at most {TOPIC_NAME_MAX}"
            ));
        }
        if let Some(other) = seen.insert(name, key) {
            p.push(format!("{key}: `{name}` is also {other}; each topic must be another one"));
        }
    }
    if c.http.certificate_file.is_empty() != c.http.key_file.is_empty() {
        p.push("http.certificate_file: expected together with http.key_file, or neither".to_owned());
    }
    if !c.http.listen.is_empty() && c.http.listen.parse::<SocketAddr>().is_err() {
        p.push(format!("http.listen: `{}` is not an address like 127.0.0.1:9464, or empty for none", c.http.listen));
    }
}

/// What an eavesdropper could use. The mechanisms of SCRAM keep the password to themselves.
fn insecure(c: &Config, p: &mut Vec<String>) {
    if c.kafka.allow_insecure {
        return;
    }
    let value = |key: &str| c.kafka.client.get(key).map_or("", |v| v.value.as_str()).to_lowercase();
    let protocol = value("security.protocol");
    // Two names of one key.
    let mechanisms = [value("sasl.mechanism"), value("sasl.mechanisms")];
    let telling = mechanisms.iter().find(|m| matches!(m.as_str(), "plain" | "oauthbearer"));
    let instead = "or allow it with kafka.allow_insecure = true";
    if let (Some(mechanism), "sasl_plaintext") = (telling, protocol.as_str()) {
        p.push(format!(
            "kafka.client.security.protocol: SASL_PLAINTEXT with {} sends the secret without encryption; expected SASL_SSL, {instead}",
            mechanism.to_uppercase()
        ));
    }
    // As librdkafka reads it.
    if matches!(value("enable.ssl.certificate.verification").as_str(), "false" | "f" | "0") {
        p.push(format!(
            "kafka.client.enable.ssl.certificate.verification: without it residua trusts whoever answers; expected true, {instead}"
        ));
    }
    if value("sasl.oauthbearer.token.endpoint.url").starts_with("http://") {
        p.push(format!(
            "kafka.client.sasl.oauthbearer.token.endpoint.url: http:// sends the secret without encryption; expected https://, {instead}"
        ));
    }
    if value("ssl.endpoint.identification.algorithm") == "none" {
        p.push(format!(
            "kafka.client.ssl.endpoint.identification.algorithm: none trusts any certificate of the authority; expected https, {instead}"
        ));
    }
}

fn times(c: &Config, p: &mut Vec<String>) {
    let k = &c.kafka;
    let ms = Duration::from_millis;
    let day = Duration::from_secs(24 * 3600);
    for (key, value, low, high) in [
        ("kafka.commit_interval", k.commit_interval, ms(1), Duration::from_secs(60)),
        ("kafka.checkpoint_interval", k.checkpoint_interval, ms(1_000), Duration::from_secs(3_600)),
        ("kafka.transaction_timeout", k.transaction_timeout, ms(1_000), Duration::from_secs(900)),
        ("kafka.request_timeout", k.request_timeout, ms(1_000), Duration::from_secs(900)),
        ("kafka.session_timeout", k.session_timeout, ms(1_000), Duration::from_secs(3_600)),
        ("kafka.heartbeat_interval", k.heartbeat_interval, ms(100), Duration::from_secs(3_600)),
        ("kafka.max_poll_interval", k.max_poll_interval, ms(1_000), day),
        // No single request, closing of a client included, is waited for longer than 5 s.
        ("http.liveness_timeout", c.http.liveness_timeout, ms(10_000), day),
        ("http.readiness_timeout", c.http.readiness_timeout, ms(3_000), day),
        ("service.drain_timeout", c.service.drain_timeout, ms(100), Duration::from_secs(3_600)),
    ] {
        if !(low <= value && value <= high) {
            p.push(format!("{key}: {value:?} is not between {low:?} and {high:?}"));
        }
    }
    // Event times are milliseconds.
    for (key, value) in [("series.gap", c.series.gap), ("series.idle", c.series.idle)] {
        if !(value.is_zero() || ms(1) <= value) {
            p.push(format!("{key}: {value:?} is neither 0s nor at least 1ms"));
        }
    }
    let mut at_most = |a: (&str, Duration), b: (&str, Duration), why: &str| {
        if a.1 > b.1 {
            p.push(format!("{} = {:?} must be at most {} = {:?}: {why}", a.0, a.1, b.0, b.1));
        }
    };
    at_most(
        ("2 x kafka.commit_interval", k.commit_interval * 2),
        ("kafka.transaction_timeout", k.transaction_timeout),
        "a transaction must outlive its commit interval",
    );
    if !c.schema_registry.url.is_empty() {
        at_most(
            ("2 x schema_registry.timeout", c.schema_registry.timeout * 2),
            ("kafka.transaction_timeout", k.transaction_timeout),
            "a worker that waits for a schema must not lose its transaction",
        );
    }
    // A full queue may be waited for so long, and then the commit.
    let longest_turn = ("2 x kafka.transaction_timeout", k.transaction_timeout * 2);
    at_most(
        longest_turn,
        ("kafka.max_poll_interval", k.max_poll_interval),
        "a worker that waits for a transaction must stay in the group",
    );
    at_most(
        longest_turn,
        ("http.liveness_timeout", c.http.liveness_timeout),
        "a worker that waits for a transaction must not look dead",
    );
    at_most(
        ("3 x kafka.heartbeat_interval", k.heartbeat_interval * 3),
        ("kafka.session_timeout", k.session_timeout),
        "a member that misses two heartbeats is healthy",
    );
    at_most(
        ("kafka.session_timeout", k.session_timeout),
        ("kafka.max_poll_interval", k.max_poll_interval),
        "librdkafka refuses it otherwise",
    );
}

fn numbers(c: &Config, p: &mut Vec<String>) {
    let mut between = |key: &str, value: usize, low: usize, high: usize| {
        if !(low <= value && value <= high) {
            p.push(format!("{key}: {value} is not between {low} and {high}"));
        }
    };
    between("service.workers", c.service.workers, 1, 256);
    between("kafka.queue_kbytes", c.kafka.queue_kbytes as usize, 1, 2_097_151);
    between("kafka.dead_letter_max_bytes", c.kafka.dead_letter_max_bytes, 0, 64 << 20);
    between("metrics.sensors", c.metrics.sensors, 0, 1_000);
    between("series.max", c.series.max, 1, 100_000_000);
    between("learning.min_records", c.learning.min_records, 50, 100_000_000);
    between("learning.max_records", c.learning.max_records, 50, 100_000_000);
    if c.learning.min_records > c.learning.max_records {
        p.push(format!(
            "learning.min_records = {} must not be more than learning.max_records = {}",
            c.learning.min_records, c.learning.max_records
        ));
    }
    if !(0.0..=1.0).contains(&c.incident.hold) {
        p.push(format!("incident.hold: {} is not between 0 and 1", c.incident.hold));
    }
    p.extend(c.model.check().err().map(|e| e.to_string()));
    p.extend(c.schema_registry.problems(c.input.format == Format::Avro));
    match c.input.problems() {
        none if none.is_empty() => p.extend(History::new(&c.input).err().map(|e| format!("input.features: {e}"))),
        some => p.extend(some),
    }
}
