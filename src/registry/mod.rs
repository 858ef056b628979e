//! The schema registry: where the schemas of Avro messages are asked for, by the HTTP interface of Confluent's, which others have too.
//!
//! A worker waits for an answer, at most `schema_registry.timeout`; an id is asked for once, unless it cannot be had.

mod settings;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use settings::{RegistrySettings, Then};

use crate::record::{NoSchema, SchemaText, WriterSchemas};
use crate::web::{Client, Login, StatusCode, Trust};

/// Schemas and refusals kept at most, each, and bytes of schemas.
const KNOWN_MAX: usize = 1_000;
const KNOWN_BYTES_MAX: usize = 64 << 20;
/// For so long the registry is not asked again for what it could not give, nor for anything if it does not answer.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Schemas that one may refer to, at most, with those that they refer to.
const REFERENCES_MAX: usize = 100;
const CONTENT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// A registry that is asked.
pub struct Registry {
    client: Client,
    url: String,
    timeout: Duration,
    unknown: Then,
    unreachable: Then,
    known: Mutex<Known>,
}

/// What was asked for.
#[derive(Default)]
struct Known {
    schemas: HashMap<u32, SchemaText>,
    /// Bytes of all of them.
    bytes: usize,
    refused: HashMap<u32, (Instant, NoSchema)>,
    /// When it last did not answer, and why.
    away: Option<(Instant, NoSchema)>,
}

/// What comes back.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType", default = "avro")]
    kind: String,
    #[serde(default)]
    references: Vec<Reference>,
}

fn avro() -> String {
    "AVRO".to_owned()
}

/// Another schema, by the subject and version under which it was registered.
#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(rename = "error_code")]
    _code: u32,
    message: String,
}

/// Why there is no answer of use.
enum Failed {
    /// The registry says that there is no such thing, or there is something else.
    Unknown(String),
    /// It does not say anything.
    Unreachable(String),
}

impl Registry {
    /// # Errors
    /// A file of the settings cannot be read.
    pub fn new(settings: &RegistrySettings) -> Result<Registry, String> {
        let secret = |key: &str, file: &str| {
            let wrong = |why: String| format!("read schema_registry.{key} {file}: {why}");
            let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            match text.trim_end_matches(['\n', '\r']) {
                "" => Err(wrong("it is empty".to_owned())),
                secret if secret.contains(char::is_control) => Err(wrong("it has more lines than one".to_owned())),
                secret => Ok(secret.to_owned()),
            }
        };
        let (password, token);
        let login = match (settings.user.as_str(), settings.token_file.as_str()) {
            ("", "") => Login::Nobody,
            ("", file) => {
                token = secret("token_file", file)?;
                Login::Bearer(&token)
            }
            (user, _) => {
                password = secret("password_file", &settings.password_file)?;
                Login::User(user, &password)
            }
        };
        let client = Client::new(&Trust::Authorities(&settings.ca_file), &login)
            .map_err(|error| format!("read schema_registry.ca_file {}: {error}", settings.ca_file))?;
        Ok(Registry {
            client,
            url: settings.url.trim_end_matches('/').to_owned(),
            timeout: settings.timeout,
            unknown: settings.unknown,
            unreachable: settings.unreachable,
            known: Mutex::default(),
        })
    }

    /// Whether the registry answers as one.
    pub fn check(&self) -> Result<(), String> {
        match self.ask::<Vec<String>>("/schemas/types", Instant::now() + self.timeout) {
            Ok(_) | Err(Failed::Unknown(_)) => Ok(()),
            Err(Failed::Unreachable(why)) => Err(why),
        }
    }

    fn fetch(&self, id: u32) -> Result<SchemaText, Failed> {
        let deadline = Instant::now() + self.timeout;
        let schema: Answer = self.ask(&format!("/schemas/ids/{id}"), deadline)?;
        let (mut references, mut seen) = (vec![], vec![]);
        self.follow(&schema.references, deadline, &mut seen, &mut references)?;
        match schema.kind.as_str() {
            "AVRO" => Ok(SchemaText { schema: schema.schema, references }),
            other => Err(Failed::Unknown(format!("it is of kind {other}, expected AVRO"))),
        }
    }

    /// Adds the schemas referred to, each after those that it refers to. As deep as the registry let it be registered, which takes no rings.
    fn follow(
        &self,
        references: &[Reference],
        deadline: Instant,
        seen: &mut Vec<(String, u32)>,
        texts: &mut Vec<String>,
    ) -> Result<(), Failed> {
        for Reference { subject, version } in references {
            let name = (subject.clone(), *version);
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            if seen.len() > REFERENCES_MAX {
                return Err(Failed::Unknown(format!("it refers to more than {REFERENCES_MAX} others")));
            }
            // What a schema refers to may have been deleted since; it is still what it was.
            let page = format!("/subjects/{}/versions/{version}?deleted=true", percent(subject));
            let answer: Answer = self.ask(&page, deadline)?;
            self.follow(&answer.references, deadline, seen, texts)?;
            texts.push(answer.schema);
        }
        Ok(())
    }

    fn ask<T: DeserializeOwned>(&self, page: &str, deadline: Instant) -> Result<T, Failed> {
        let url = format!("{}{page}", self.url);
        let unreachable = |why: String| Failed::Unreachable(format!("ask {url}: {why}"));
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let (status, body) = self.client.get(&url, CONTENT, left).map_err(unreachable)?;
        if !status.is_success() {
            return Err(match serde_json::from_slice::<Complaint>(&body) {
                Ok(complaint) if is_about_the_question(status) => Failed::Unknown(complaint.message),
                Ok(complaint) => unreachable(format!("{status}: {}", complaint.message)),
                // What answers so may be anything but a registry.
                Err(_) => unreachable(status.to_string()),
            });
        }
        serde_json::from_slice(&body).map_err(|error| unreachable(format!("no answer of a schema registry: {error}")))
    }
}

/// Whether the registry has understood who asks, and has no such thing; not that it is busy, or does not know who asks.
fn is_about_the_question(status: StatusCode) -> bool {
    status.is_client_error() && ![401, 403, 407, 408, 429].contains(&status.as_u16())
}

/// What is no unreserved character (RFC 3986, section 2.3) as its bytes.
fn percent(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            // Writing into a String cannot fail.
            other => drop(write!(escaped, "%{other:02X}")),
        }
    }
    escaped
}

impl WriterSchemas for Registry {
    fn get(&self, id: u32) -> Result<SchemaText, NoSchema> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let known = known();
            if let Some(text) = known.schemas.get(&id) {
                return Ok(text.clone());
            }
            let lately = known.refused.get(&id).into_iter().chain(&known.away);
            if let Some((_, no)) = lately.into_iter().find(|(since, _)| since.elapsed() < REFUSED_FOR) {
                return Err(no.clone());
            }
        }
        // Asked by whoever needs it: a worker waits for its own question, not for those of others.
        let fetched = self.fetch(id);
        let mut known = known();
        match fetched {
            Ok(text) => {
                known.away = None;
                known.keep(id, &text);
                Ok(text)
            }
            Err(Failed::Unknown(why)) => {
                known.away = None;
                let no = NoSchema { why, wait: self.unknown == Then::Wait };
                if known.refused.len() >= KNOWN_MAX {
                    known.refused.clear();
                }
                known.refused.insert(id, (Instant::now(), no.clone()));
                Err(no)
            }
            Err(Failed::Unreachable(why)) => {
                let no = NoSchema { why, wait: self.unreachable == Then::Wait };
                known.away = Some((Instant::now(), no.clone()));
                Err(no)
            }
        }
    }
}

impl Known {
    fn keep(&mut self, id: u32, text: &SchemaText) {
        let bytes = text.schema.len() + text.references.iter().map(String::len).sum::<usize>();
        if self.schemas.len() >= KNOWN_MAX || self.bytes + bytes > KNOWN_BYTES_MAX {
            self.schemas.clear();
            self.bytes = 0;
        }
        if self.schemas.insert(id, text.clone()).is_none() {
            self.bytes += bytes;
        }
    }
}
