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
use crate::web::{Client, Login, Trust};

/// Schemas and refusals kept at most.
const KNOWN_MAX: usize = 1_000;
/// For so long the registry is not asked again for what it could not give.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Schemas that one may refer to, at most, with those that they refer to.
const REFERENCES_MAX: usize = 100;
const CONTENT: &str = "application/vnd.schemaregistry.v1+json, application/json";
/// Confluent's codes for subjects, versions and ids that do not exist.
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];

/// A registry that is asked.
pub struct Registry {
    client: Client,
    url: String,
    timeout: Duration,
    unknown: Then,
    unreachable: Then,
    known: Mutex<HashMap<u32, Known>>,
}

enum Known {
    Schema(SchemaText),
    Refused { since: Instant, no: NoSchema },
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
    error_code: u32,
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
        let secret = |key: &str, file: &str| match std::fs::read_to_string(file) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => Err(format!("read schema_registry.{key} {file}: {error}")),
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
            let page = format!("/subjects/{}/versions/{version}", percent(subject));
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
                // What answers 404 without this may be anything but a registry.
                Ok(complaint) if complaint.is_unknown() => Failed::Unknown(complaint.message),
                Ok(complaint) => unreachable(format!("{status}: {}", complaint.message)),
                Err(_) => unreachable(status.to_string()),
            });
        }
        serde_json::from_slice(&body).map_err(|error| unreachable(format!("no answer of a schema registry: {error}")))
    }
}

impl Complaint {
    fn is_unknown(&self) -> bool {
        NOT_FOUND.contains(&self.error_code)
    }
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
        // Held while the registry is asked: what one worker asks for, another needs too.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(Known::Schema(text)) => return Ok(text.clone()),
            Some(Known::Refused { since, no }) if since.elapsed() < REFUSED_FOR => return Err(no.clone()),
            _ => {}
        }
        let answer = self.fetch(id).map_err(|failed| {
            let (why, then) = match failed {
                Failed::Unknown(why) => (why, self.unknown),
                Failed::Unreachable(why) => (why, self.unreachable),
            };
            NoSchema { why, wait: then == Then::Wait }
        });
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let entry = match &answer {
            Ok(text) => Known::Schema(text.clone()),
            Err(no) => Known::Refused { since: Instant::now(), no: no.clone() },
        };
        known.insert(id, entry);
        answer
    }
}
