//! Table `[schema_registry]` of the configuration.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as friendly;
use serde::{Deserialize, Serialize};

/// Table `[schema_registry]`; `config/residua.toml` says what each key means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    pub url: String,
    /// With the password in a file, for HTTP's basic authentication.
    pub user: String,
    pub password_file: String,
    /// For `Authorization: Bearer`.
    pub token_file: String,
    /// Certificates of authorities, PEM; empty: those of the system.
    pub ca_file: String,
    pub allow_insecure: bool,
    #[serde(with = "friendly")]
    pub timeout: Duration,
    pub unknown: Then,
    pub unreachable: Then,
}

/// What becomes of records whose schema cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Their partition waits, and the schema is asked for again.
    Wait,
    /// They are dead letters.
    DeadLetter,
}

fn is_address(url: &str) -> bool {
    url.parse::<crate::web::Uri>()
        .is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none())
}

impl Default for RegistrySettings {
    fn default() -> Self {
        let nothing = String::new;
        RegistrySettings {
            url: nothing(),
            user: nothing(),
            password_file: nothing(),
            token_file: nothing(),
            ca_file: nothing(),
            allow_insecure: false,
            timeout: Duration::from_secs(2),
            unknown: Then::DeadLetter,
            unreachable: Then::Wait,
        }
    }
}

impl RegistrySettings {
    /// What fits one key but not another. `needed`: whether the input's records need a registry.
    pub fn problems(&self, needed: bool) -> Vec<String> {
        let mut problems = vec![];
        let mut wrong = |key: &str, why: &str| problems.push(format!("schema_registry.{key}: {why}"));
        match (needed, self.url.as_str()) {
            (true, "") => wrong(
                "url",
                "missing; expected the address of the registry with the schemas of input.format = \"avro\"",
            ),
            (false, url) if !url.is_empty() => wrong("url", "given, but input.format is not \"avro\""),
            (_, "") => {}
            (_, url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                wrong("url", &format!("`{url}` begins with neither http:// nor https://"));
            }
            (_, url) if !is_address(url) => wrong("url", &format!("`{url}` is no address")),
            // It would be shown where configurations and errors are.
            (_, url) if url.contains('@') => {
                wrong("url", "has a user in it; expected schema_registry.user and password_file")
            }
            _ => {}
        }
        if self.user.is_empty() != self.password_file.is_empty() {
            wrong("user", "expected together with schema_registry.password_file, or neither");
        }
        if !self.user.is_empty() && !self.token_file.is_empty() {
            wrong("token_file", "given beside schema_registry.user; expected one of them");
        }
        let secret = !self.user.is_empty() || !self.token_file.is_empty();
        if secret && self.url.starts_with("http://") && !self.allow_insecure {
            wrong(
                "url",
                "http:// sends the secret without encryption; expected https://, or allow it with schema_registry.allow_insecure = true",
            );
        }
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(5));
        if !(least <= self.timeout && self.timeout <= most) {
            wrong("timeout", &format!("{:?} is not between {least:?} and {most:?}", self.timeout));
        }
        problems
    }
}
