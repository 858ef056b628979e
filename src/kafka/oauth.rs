//! SASL OAUTHBEARER with client credentials: tokens of an OpenID provider (RFC 6749, section 4.4), under the names that librdkafka has for it.
//! librdkafka's own way needs libcurl, which its build here does not find.

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use serde::Deserialize;

use super::settings::KafkaSettings;
use crate::web;

const METHOD: &str = "sasl.oauthbearer.method";
const CLIENT: &str = "sasl.oauthbearer.client.id";
const SECRET: &str = "sasl.oauthbearer.client.secret";
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const SCOPE: &str = "sasl.oauthbearer.scope";
const AUTHORITIES: &str = "https.ca.location";

/// Longest wait for a token; whoever polls a client waits so long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For so long the provider is not asked again after it failed; librdkafka asks after ten seconds.
const FAILED_FOR: Duration = Duration::from_secs(9);
/// How long a new client may take until it asks for its token.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether residua itself reads this key, not librdkafka.
pub(super) fn is_ours(key: &str) -> bool {
    [METHOD, CLIENT, SECRET, ENDPOINT, SCOPE, AUTHORITIES].contains(&key)
}

/// Why the value of a key that is ours cannot be, if so.
pub(super) fn refuses(key: &str, value: &str) -> Option<String> {
    match key {
        METHOD if value != "oidc" => Some(format!("`{value}` is not `oidc`, the only method there is")),
        ENDPOINT if !value.starts_with("http://") && !value.starts_with("https://") => {
            Some(format!("`{value}` begins with neither http:// nor https://"))
        }
        CLIENT | SECRET if value.is_empty() => Some("it is empty".to_owned()),
        _ => None,
    }
}

/// What is missing for a login with tokens, if there is to be one.
pub(super) fn missing(settings: &KafkaSettings) -> Option<&'static str> {
    let wanted = [METHOD, CLIENT, SECRET, ENDPOINT];
    wanted.into_iter().find(|key| is_chosen(settings) && !settings.client.contains_key(*key))
}

/// Whether clients log in with tokens.
pub(super) fn is_chosen(settings: &KafkaSettings) -> bool {
    let is = |key: &str| settings.client.get(key).is_some_and(|v| v.value.eq_ignore_ascii_case("oauthbearer"));
    is("sasl.mechanism") || is("sasl.mechanisms")
}

/// Where tokens come from; shared by all clients of one configuration.
#[derive(Clone, Default)]
pub struct Login(Arc<OnceLock<Result<Provider, String>>>);

/// One is as good as another: what they hold follows from the settings beside them.
impl PartialEq for Login {
    fn eq(&self, _: &Login) -> bool {
        true
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

struct Provider {
    client: web::Client,
    endpoint: String,
    id: String,
    scope: String,
    last: Mutex<Last>,
}

/// What the provider last said.
#[derive(Default)]
struct Last {
    token: Option<Token>,
    failed: Option<(Instant, String)>,
}

#[derive(Clone)]
struct Token {
    text: String,
    issued: SystemTime,
    ends: SystemTime,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds; some send a text.
    #[serde(default)]
    expires_in: serde_json::Value,
}

thread_local! {
    /// How often a client that this thread polls has asked.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

impl Login {
    /// That of the settings, made with the first use.
    pub(super) fn of(settings: &KafkaSettings) -> Login {
        settings.login.0.get_or_init(|| Provider::new(settings));
        settings.login.clone()
    }

    /// For librdkafka, which asks again when four fifths of a token's time are over.
    pub(super) fn token(&self) -> Result<OAuthToken, Box<dyn StdError>> {
        ASKED.set(ASKED.get() + 1);
        let provider = match self.0.get() {
            Some(Ok(provider)) => provider,
            Some(Err(why)) => return Err(why.clone().into()),
            None => return Err("nobody is to log in".into()),
        };
        let token = provider.token()?;
        Ok(OAuthToken {
            token: token.text,
            principal_name: provider.id.clone(),
            lifetime_ms: token.ends.duration_since(UNIX_EPOCH)?.as_millis() as i64,
        })
    }
}

/// A client asks for its token where it is polled, and one that is asked for metadata at once is not.
pub(super) fn log_in<C: ConsumerContext>(consumer: &BaseConsumer<C>, settings: &KafkaSettings) {
    if !is_chosen(settings) {
        return;
    }
    let (before, started) = (ASKED.get(), Instant::now());
    while ASKED.get() == before && started.elapsed() < ASK_TIMEOUT {
        // Nothing is assigned yet, so there is no record that could be lost.
        drop(consumer.poll(Duration::from_millis(20)));
    }
}

/// Renews the token of a client to which nothing is assigned, where that is due.
pub(super) fn stay_logged_in<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    drop(consumer.poll(Duration::ZERO));
}

impl Provider {
    fn new(settings: &KafkaSettings) -> Result<Provider, String> {
        let value = |key: &str| settings.client.get(key).map_or("", |v| v.value.as_str());
        let login = web::Login::User(value(CLIENT), value(SECRET));
        let client = web::Client::new(&web::Trust::Authorities(value(AUTHORITIES)), &login)
            .map_err(|why| format!("read kafka.client.{AUTHORITIES} {}: {why}", value(AUTHORITIES)))?;
        Ok(Provider {
            client,
            endpoint: value(ENDPOINT).to_owned(),
            id: value(CLIENT).to_owned(),
            scope: value(SCOPE).to_owned(),
            last: Mutex::default(),
        })
    }

    fn token(&self) -> Result<Token, String> {
        // Held while the provider is asked: what one client asks for, another needs too.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let fresh = |token: &&Token| {
            let (age, life) = (now.duration_since(token.issued), token.ends.duration_since(token.issued));
            matches!((age, life), (Ok(age), Ok(life)) if age < life / 2)
        };
        if let Some(token) = last.token.as_ref().filter(fresh) {
            return Ok(token.clone());
        }
        let lately = last.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILED_FOR).map(|(_, why)| why.clone());
        let asked = lately.map_or_else(|| self.ask(now), Err);
        match asked {
            Ok(token) => {
                *last = Last { token: Some(token.clone()), failed: None };
                Ok(token)
            }
            Err(why) => {
                // Several clients in a row must not wait for it, each as long.
                if last.failed.as_ref().is_none_or(|(at, _)| at.elapsed() >= FAILED_FOR) {
                    last.failed = Some((Instant::now(), why.clone()));
                }
                // One that is good for a while yet is better than none.
                last.token.clone().filter(|token| token.ends > now + TIMEOUT).ok_or(why)
            }
        }
    }

    fn ask(&self, now: SystemTime) -> Result<Token, String> {
        let mut form = vec![("grant_type", "client_credentials")];
        if !self.scope.is_empty() {
            form.push(("scope", &self.scope));
        }
        let asked = |why: String| format!("ask {} for a token: {why}", self.endpoint);
        let (status, body) = self.client.post(&self.endpoint, &form, TIMEOUT).map_err(asked)?;
        if !status.is_success() {
            let why = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(200).collect::<String>();
            return Err(asked(format!("{status} {why}")));
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| asked(format!("no token in the answer: {error}")))?;
        let seconds = answer.expires_in.as_f64().or_else(|| answer.expires_in.as_str()?.parse().ok());
        let told = || now.checked_add(Duration::try_from_secs_f64(seconds?).ok()?);
        let ends = expiry(&answer.access_token).or_else(told);
        let ends =
            ends.ok_or_else(|| asked("neither the token nor the answer says how long it is good for".to_owned()))?;
        Ok(Token { text: answer.access_token, issued: now, ends })
    }
}

/// The end of a JSON web token (RFC 7519, section 4.1.4), if it is one that has an end.
fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?.replace('-', "+").replace('_', "/");
    let padding = "=".repeat((4 - payload.len() % 4) % 4);
    let claims = openssl::base64::decode_block(&(payload + &padding)).ok()?;
    let exp = serde_json::from_slice::<Claims>(&claims).ok()?.exp;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(exp).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_own_end_counts() {
        let token = |claims: &str| {
            format!("e30.{}.c2ln", openssl::base64::encode_block(claims.as_bytes()).trim_end_matches('='))
        };
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(expiry(&token(r#"{"exp":1800000000}"#)), at(1_800_000_000));
        assert_eq!(expiry(&token(r#"{"exp":1800000000.0,"sub":"ab>?"}"#)), at(1_800_000_000));
        for other in [
            token(r#"{"sub":"a"}"#),
            token(r#"{"exp":-1}"#),
            token(r#"{"exp":1e300}"#),
            "opaque".to_owned(),
            "a.*.b".to_owned(),
        ] {
            assert_eq!(expiry(&other), None, "{other}");
        }
    }

    #[test]
    fn values_are_looked_at() {
        assert_eq!(refuses(METHOD, "default").unwrap(), "`default` is not `oidc`, the only method there is");
        assert_eq!(
            refuses(ENDPOINT, "provider/token").unwrap(),
            "`provider/token` begins with neither http:// nor https://"
        );
        assert_eq!(refuses(SECRET, "").unwrap(), "it is empty");
        assert_eq!(refuses(SCOPE, ""), None);
        assert!(is_ours(METHOD) && !is_ours("sasl.mechanism"));
    }
}
