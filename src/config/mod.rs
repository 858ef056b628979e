//! The configuration: built-in defaults < file (TOML) < environment `RESIDUA__SECTION__KEY`.
//!
//! Each module owns the type of its table; this one puts them together, says where every value comes from, and refuses
//! what cannot work before anything starts. Everything wrong is reported at once.

mod client;
mod layers;
mod reload;
mod settings;
mod verify;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

pub use reload::TakenUp;
use serde::Serialize;
use serde_json::Value;
pub use settings::{LearningSettings, LogFormat, LogLevel, LogSettings, ServiceSettings};

use crate::detector::{DetectorSettings, SeriesSettings};
use crate::http::HttpSettings;
use crate::incident::IncidentSettings;
use crate::kafka::KafkaSettings;
use crate::metrics::MetricsSettings;
use crate::model::ModelSettings;
use crate::record::InputSettings;
use crate::registry::RegistrySettings;

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Config {
    pub kafka: KafkaSettings,
    pub input: InputSettings,
    pub schema_registry: RegistrySettings,
    pub learning: LearningSettings,
    pub model: ModelSettings,
    pub detector: DetectorSettings,
    pub series: SeriesSettings,
    pub incident: IncidentSettings,
    pub service: ServiceSettings,
    pub http: HttpSettings,
    pub metrics: MetricsSettings,
    pub log: LogSettings,
}

/// A configuration that passed all checks, and where its values come from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Key (`kafka.brokers`) to file or environment variable. Not in it: built in.
    origins: BTreeMap<String, String>,
}

/// Everything wrong with a configuration. Never contains a secret.
#[derive(Debug, thiserror::Error)]
#[error("bad configuration:\n  {}", problems.join("\n  "))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl ConfigError {
    fn one(problem: String) -> ConfigError {
        ConfigError { problems: vec![problem] }
    }
}

impl Config {
    /// Reads the layers. `environment` is the process's, or a test's own.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let given = layers::read(file, environment)?;
        let (client, given): (Vec<_>, Vec<_>) = given.into_iter().partition(|g| client::is_in(&g.key));
        let mut problems = Vec::new();
        let mut tables = Tables::of(&Config::default());
        let mut origins = BTreeMap::new();
        let mut refused = Vec::new();
        for value in given {
            match tables.put(&value) {
                Ok(()) => drop(origins.insert(value.key, value.origin)),
                Err(problem) => {
                    problems.push(problem);
                    refused.push(value.key);
                }
            }
        }
        let mut config = tables.into_config().map_err(ConfigError::one)?;
        config.kafka.derive_names();
        let (properties, their_origins) = client::read(client, &mut problems);
        config.kafka.client = properties;
        origins.extend(their_origins);
        // A refused value leaves its default behind; what does not fit that is not the user's doing.
        let doing = |problem: &String| !words(problem).any(|(word, _)| refused.iter().any(|key| key == word));
        let misfits = verify::problems(&config).into_iter().filter(doing);
        problems.extend(misfits.map(|problem| with_origins(&problem, &origins)));
        if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(ConfigError { problems }) }
    }
}

/// The words of a problem, each without the mark that ends it, and that mark.
fn words(problem: &str) -> impl Iterator<Item = (&str, &str)> {
    problem.split(' ').map(|word| word.split_at(word.trim_end_matches([':', ',', ';']).len()))
}

/// A problem that says where each key in it was set.
fn with_origins(problem: &str, origins: &BTreeMap<String, String>) -> String {
    let told = words(problem).map(|(word, mark)| match origins.get(word) {
        Some(origin) => format!("{word} ({origin}){mark}"),
        None => format!("{word}{mark}"),
    });
    told.collect::<Vec<_>>().join(" ")
}

impl Loaded {
    /// Prints every value with its origin, secrets as stars.
    pub fn describe(&self, out: &mut impl Write) -> io::Result<()> {
        let mut last = String::new();
        for (key, value) in layers::flatten(&self.redacted()) {
            let (table, name) = key.split_once('.').unwrap_or(("", &key));
            if table != last {
                writeln!(out, "{}[{table}]", if last.is_empty() { "" } else { "\n" })?;
                last = table.to_owned();
            }
            let origin = self.origins.get(&key).map_or("built in", String::as_str);
            writeln!(out, "{:<58} # {origin}", format!("{name} = {value}"))?;
        }
        Ok(())
    }

    /// The values as JSON, secrets as stars.
    pub fn redacted(&self) -> Value {
        // Settings are strings, numbers and lists of strings.
        serde_json::to_value(&self.config).unwrap_or_default()
    }
}

/// The tables as JSON while they are being filled.
struct Tables(serde_json::Map<String, Value>);

impl Tables {
    fn of(config: &Config) -> Tables {
        match serde_json::to_value(config) {
            Ok(Value::Object(tables)) => Tables(tables),
            _ => Tables(serde_json::Map::new()),
        }
    }

    /// Sets one key, if its type takes the value. A value from the environment is text, and may stand for a number.
    fn put(&mut self, given: &layers::Given) -> Result<(), String> {
        let refuse = |why: String| format!("{} ({}): {why}", given.key, given.origin);
        let (table, key) = given.key.split_once('.').unwrap_or((&given.key, ""));
        let known = self.0.get(table).and_then(Value::as_object);
        let Some(before) = known.and_then(|t| t.get(key)) else {
            return Err(refuse(format!("no such key; {}", self.nearest(&given.key))));
        };
        let before = before.clone();
        let mut why = String::new();
        for candidate in given.candidates() {
            self.0[table][key] = candidate;
            match check_table(table, &self.0[table]) {
                Ok(()) => return Ok(()),
                Err(e) if why.is_empty() => why = e,
                Err(_) => {}
            }
        }
        self.0[table][key] = before;
        Err(refuse(with_value(&why, &given.value)))
    }

    fn nearest(&self, key: &str) -> String {
        let known = layers::flatten(&Value::Object(self.0.clone())).into_iter().map(|(k, _)| k);
        match known.map(|k| (strsim::damerau_levenshtein(&k, key), k)).min() {
            Some((distance, k)) if distance <= key.len().max(6) / 2 => format!("the nearest is {k}"),
            _ => format!("the tables are {}", self.0.keys().cloned().collect::<Vec<_>>().join(", ")),
        }
    }

    fn into_config(self) -> Result<Config, String> {
        let table = |name: &str| self.0.get(name).cloned().unwrap_or_default();
        fn read<T: serde::de::DeserializeOwned>(v: Value) -> Result<T, String> {
            serde_json::from_value(v).map_err(|e| e.to_string())
        }
        Ok(Config {
            kafka: read(without_client(table("kafka")))?,
            input: read(table("input"))?,
            schema_registry: read(table("schema_registry"))?,
            learning: read(table("learning"))?,
            model: read(table("model"))?,
            detector: read(table("detector"))?,
            series: read(table("series"))?,
            incident: read(table("incident"))?,
            service: read(table("service"))?,
            http: read(table("http"))?,
            metrics: read(table("metrics"))?,
            log: read(table("log"))?,
        })
    }
}

fn without_client(mut kafka: Value) -> Value {
    if let Some(table) = kafka.as_object_mut() {
        table.remove("client");
    }
    kafka
}

/// A type's complaint, with the value it is about. Tables hold no secrets: those of `[kafka.client]` do not come here.
fn with_value(why: &str, value: &Value) -> String {
    let shown = value.to_string();
    // jiff's words for it are about its parser.
    if why.contains("\"friendly\" duration") {
        return format!("{shown} is not a duration like 100ms, 30s or 1h 30m");
    }
    if why.contains(shown.trim_matches('"')) { why.to_owned() } else { format!("{why}, got {shown}") }
}

/// Whether a table has the right types.
fn check_table(name: &str, table: &Value) -> Result<(), String> {
    fn read<T: serde::de::DeserializeOwned>(v: &Value) -> Result<(), String> {
        T::deserialize(v).map(drop).map_err(|e| e.to_string())
    }
    match name {
        "kafka" => read::<KafkaSettings>(&without_client(table.clone())),
        "input" => read::<InputSettings>(table),
        "schema_registry" => read::<RegistrySettings>(table),
        "learning" => read::<LearningSettings>(table),
        "model" => read::<ModelSettings>(table),
        "detector" => read::<DetectorSettings>(table),
        "series" => read::<SeriesSettings>(table),
        "incident" => read::<IncidentSettings>(table),
        "service" => read::<ServiceSettings>(table),
        "http" => read::<HttpSettings>(table),
        "metrics" => read::<MetricsSettings>(table),
        "log" => read::<LogSettings>(table),
        _ => Err("no such table".to_owned()),
    }
}
