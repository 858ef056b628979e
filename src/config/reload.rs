//! What of a configuration can change while residua runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Config, ConfigError, layers, verify};
use crate::detector::DetectorSettings;
use crate::http::HttpSettings;
use crate::kafka::KafkaSettings;

/// A newer configuration, as far as it can be taken up.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenUp {
    pub config: Config,
    /// Keys that have another value now.
    pub changed: Vec<String>,
    /// Keys that have another value after the next start.
    pub pending: Vec<String>,
}

impl Config {
    /// # Errors
    /// What can be taken up does not fit what stays.
    pub fn take_up(&self, newer: &Config) -> Result<TakenUp, ConfigError> {
        let config = self.tuned(newer);
        let problems = verify::problems(&config);
        if !problems.is_empty() {
            let told = problems.into_iter().map(|p| format!("{p}; with what stays until the next start")).collect();
            return Err(ConfigError { problems: told });
        }
        Ok(TakenUp { changed: self.differences(&config), pending: config.differences(newer), config })
    }

    /// This one, with what can change of `newer`. What is not here is a part of the clients, the model, or the process itself.
    fn tuned(&self, newer: &Config) -> Config {
        let mut config = self.clone();
        let KafkaSettings { commit_interval, checkpoint_interval, .. } = newer.kafka;
        (config.kafka.commit_interval, config.kafka.checkpoint_interval) = (commit_interval, checkpoint_interval);
        config.detector = DetectorSettings { profile: self.detector.profile, ..newer.detector.clone() };
        config.series = newer.series.clone();
        config.incident = newer.incident.clone();
        config.service.drain_timeout = newer.service.drain_timeout;
        config.http = HttpSettings {
            liveness_timeout: newer.http.liveness_timeout,
            readiness_timeout: newer.http.readiness_timeout,
            ..self.http.clone()
        };
        config.log.level = newer.log.level;
        config
    }

    /// Keys in which they differ, secrets too.
    fn differences(&self, other: &Config) -> Vec<String> {
        let (mine, others) = (values(self), values(other));
        let mut keys: Vec<String> = mine.keys().chain(others.keys()).cloned().collect();
        keys.sort();
        keys.dedup();
        let secret = |key: &str| {
            let name = key.strip_prefix("kafka.client.")?;
            Some(self.kafka.client.get(name) != other.kafka.client.get(name))
        };
        keys.retain(|key| secret(key).unwrap_or_else(|| mine.get(key) != others.get(key)));
        keys
    }
}

fn values(config: &Config) -> BTreeMap<String, Value> {
    layers::flatten(&serde_json::to_value(config).unwrap_or_default()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let needed = [("KAFKA__BROKERS", "localhost:9092"), ("KAFKA__INPUT", "sensors")];
        let all = needed.iter().chain(settings).map(|(k, v)| (format!("RESIDUA__{k}"), (*v).to_owned()));
        Config::load(None, all).unwrap().config
    }

    #[track_caller]
    fn check(settings: &[(&str, &str)], changed: &[&str], pending: &[&str]) {
        let taken = config(&[]).take_up(&config(settings)).unwrap();
        assert_eq!((taken.changed, taken.pending), (strings(changed), strings(pending)));
    }

    fn strings(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|k| (*k).to_owned()).collect()
    }

    #[test]
    fn what_can_change_changes_and_the_rest_waits_for_a_start() {
        check(&[], &[], &[]);
        check(&[("DETECTOR__ALARMS", "1 per 500 records")], &["detector.alarms"], &[]);
        check(&[("DETECTOR__PROFILE", "fast"), ("SERIES__MAX", "7")], &["series.max"], &["detector.profile"]);
        check(
            &[("INCIDENT__OPEN", "2 of 5"), ("KAFKA__GROUP", "g")],
            &["incident.open"],
            &["kafka.group", "kafka.models", "kafka.state"],
        );
        check(
            &[("HTTP__LISTEN", "127.0.0.1:1"), ("HTTP__LIVENESS_TIMEOUT", "60s")],
            &["http.liveness_timeout"],
            &["http.listen"],
        );
        check(&[("LOG__LEVEL", "debug"), ("LOG__FORMAT", "json")], &["log.level"], &["log.format"]);
    }

    #[test]
    fn a_secret_that_changed_is_named_and_not_shown() {
        let old = config(&[("KAFKA__CLIENT__SASL_PASSWORD", "one")]);
        let taken = old.take_up(&config(&[("KAFKA__CLIENT__SASL_PASSWORD", "two")])).unwrap();
        assert_eq!((taken.changed, taken.pending), (vec![], strings(&["kafka.client.sasl.password"])));
    }

    #[test]
    fn what_does_not_fit_what_stays_is_refused() {
        let long = [
            ("KAFKA__COMMIT_INTERVAL", "20s"),
            ("KAFKA__TRANSACTION_TIMEOUT", "60s"),
            ("HTTP__LIVENESS_TIMEOUT", "200s"),
        ];
        let refused = config(&[]).take_up(&config(&long)).unwrap_err().to_string();
        assert!(
            refused.contains("2 x kafka.commit_interval = 40s must be at most kafka.transaction_timeout = 15s"),
            "{refused}"
        );
    }
}
