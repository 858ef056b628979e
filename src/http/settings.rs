//! Table `[http]` of the configuration.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize};

/// Table `[http]`; `config/residua.toml` says what each key means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: String,
    /// Whether there is a live page.
    pub page: bool,
    /// Empty: everybody may see everything.
    pub token_file: String,
    /// Both for HTTPS, or neither.
    pub certificate_file: String,
    pub key_file: String,
    #[serde(with = "friendly")]
    pub liveness_timeout: Duration,
    #[serde(with = "friendly")]
    pub readiness_timeout: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            listen: "127.0.0.1:9464".to_owned(),
            page: true,
            token_file: String::new(),
            certificate_file: String::new(),
            key_file: String::new(),
            liveness_timeout: Duration::from_secs(30),
            readiness_timeout: Duration::from_secs(30),
        }
    }
}
