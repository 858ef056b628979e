//! `[kafka.client]`: any key of librdkafka but those residua owns; every secret also from a file, as `<key>_file`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::layers::Given;
use crate::kafka::{ClientValue, is_secret, owned, refuses};

/// How keys of this table begin.
pub(super) const PREFIX: &str = "kafka.client";
const FILE_SUFFIX: &str = "_file";

/// Whether a key is the table, or in it.
pub(super) fn is_in(key: &str) -> bool {
    key.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Values for librdkafka, and the origin of each by its full key.
pub(super) type Client = (BTreeMap<String, ClientValue>, BTreeMap<String, String>);

/// Reads the table. Problems name key and origin, never a value.
pub(super) fn read(given: Vec<Given>, problems: &mut Vec<String>) -> Client {
    let mut client: Client = Default::default();
    // What comes later wins: first the file, then the environment, which may write a key in another way.
    let (environment, file): (Vec<_>, Vec<_>) = given.into_iter().partition(|g| g.from_environment);
    for layer in [file, environment] {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for value in layer {
            match entry(&value) {
                Err(why) => problems.push(format!("{} ({}): {why}", value.key, value.origin)),
                Ok((key, _)) if seen.contains_key(&key) => {
                    problems.push(format!("{} ({}): given twice, also as {}", value.key, value.origin, seen[&key]));
                }
                Ok((key, entry)) => {
                    seen.insert(key.clone(), value.key);
                    client.1.insert(format!("{PREFIX}.{key}"), value.origin);
                    client.0.insert(key, entry);
                }
            }
        }
    }
    client
}

fn entry(given: &Given) -> Result<(String, ClientValue), String> {
    let written = given.key.strip_prefix(PREFIX).and_then(|k| k.strip_prefix('.')).ok_or("expected a table")?;
    let (name, from_file) = match written.strip_suffix(FILE_SUFFIX) {
        Some(name) if is_secret(&dotted(name)) => (dotted(name), true),
        _ => (dotted(written), false),
    };
    if let Some(instead) = owned(&name) {
        return Err(format!("residua sets this itself: {instead}"));
    }
    let value = match &given.value {
        Value::String(s) => s.clone(),
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        _ => return Err("expected a text, a number or a boolean".to_owned()),
    };
    let secret = is_secret(&name);
    let value = match from_file {
        false => value,
        true => {
            let text = std::fs::read_to_string(&value).map_err(|e| format!("read the file {value}: {e}"))?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
    };
    if let Some(why) = refuses(&name, &value) {
        return Err(why);
    }
    Ok((name, ClientValue { value, secret }))
}

/// In the environment a dot cannot be written; librdkafka's keys have no underscores.
fn dotted(key: &str) -> String {
    key.replace('_', ".")
}
