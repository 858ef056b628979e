//! Reads file and environment with the `config` crate and lays them over each other.

use std::path::Path;

use config::{Environment, File, FileFormat, Source, ValueKind};
use serde_json::Value;

use super::ConfigError;

/// Environment variables begin with this and two underscores; two underscores part table and key.
const ENVIRONMENT_PREFIX: &str = "RESIDUA";
const ENVIRONMENT_SEPARATOR: &str = "__";

/// One value that somebody gave.
pub(super) struct Given {
    /// `table.key`
    pub key: String,
    pub value: Value,
    /// Path of the file or name of the variable.
    pub origin: String,
    pub from_environment: bool,
}

impl Given {
    /// What the value may stand for, the likeliest first.
    pub fn candidates(&self) -> Vec<Value> {
        let mut candidates = vec![self.value.clone()];
        if let (true, Some(text)) = (self.from_environment, self.value.as_str()) {
            candidates.extend(serde_json::from_str(text));
        }
        candidates
    }
}

/// Values from the file, then from the environment; a key given twice is there once, from the environment.
pub(super) fn read(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Given>, ConfigError> {
    let mut builder = config::Config::builder();
    if let Some(path) = file {
        // Read here first: what the crate says of a file that cannot be read does not name the reason.
        std::fs::read_to_string(path).map_err(|e| ConfigError::one(format!("read {}: {e}", path.display())))?;
        builder = builder.add_source(File::from(path).format(FileFormat::Toml));
    }
    let variables = environment.filter(|(name, _)| name.to_uppercase().starts_with("RESIDUA__")).collect();
    builder = builder.add_source(
        Environment::with_prefix(ENVIRONMENT_PREFIX)
            .prefix_separator(ENVIRONMENT_SEPARATOR)
            .separator(ENVIRONMENT_SEPARATOR)
            .source(Some(variables)),
    );
    let merged =
        builder.build().and_then(|c| c.collect()).map_err(|e| ConfigError::one(explain(file, &e.to_string())))?;
    let mut given = Vec::new();
    for (key, value) in merged {
        collect(key, value, file, &mut given);
    }
    given.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(given)
}

/// Line, column and reason of a TOML error, without the line itself: it may hold a secret.
fn explain(file: Option<&Path>, error: &str) -> String {
    let lines: Vec<&str> = error.lines().filter(|l| !l.contains('|') && !l.trim().is_empty()).collect();
    let shown = file.map(|f| f.display().to_string()).unwrap_or_default();
    let position =
        lines.iter().find(|l| l.contains("at line")).and_then(|l| l.split("at ").last()).unwrap_or("an unknown place");
    let reason = lines.iter().rev().find(|l| !l.contains("at line")).copied().unwrap_or("not TOML");
    let reason = reason.split(" in ").next().unwrap_or(reason);
    format!("read {shown}: {position}: {reason}")
}

fn collect(key: String, value: config::Value, file: Option<&Path>, out: &mut Vec<Given>) {
    let from_environment = value.origin() == Some("the environment");
    if let ValueKind::Table(table) = value.kind {
        for (name, inner) in table {
            collect(format!("{key}.{name}"), inner, file, out);
        }
        return;
    }
    let origin = match (from_environment, file) {
        (true, _) => format!(
            "{ENVIRONMENT_PREFIX}__{}",
            key.replacen('.', "__", if key.starts_with("kafka.client.") { 2 } else { 1 }).to_uppercase()
        ),
        (false, Some(path)) => path.display().to_string(),
        (false, None) => "built in".to_owned(),
    };
    out.push(Given { key, value: plain(value.kind), origin, from_environment });
}

fn plain(kind: ValueKind) -> Value {
    match kind {
        ValueKind::Nil | ValueKind::Table(_) => Value::Null,
        ValueKind::Boolean(b) => b.into(),
        ValueKind::I64(i) => i.into(),
        ValueKind::U64(u) => u.into(),
        ValueKind::I128(i) => i.to_string().into(),
        ValueKind::U128(u) => u.to_string().into(),
        ValueKind::Float(f) if f.is_finite() => f.into(),
        // JSON has no such number; as text it is refused by its name.
        ValueKind::Float(f) => f.to_string().into(),
        ValueKind::String(s) => s.into(),
        ValueKind::Array(a) => a.into_iter().map(|v| plain(v.kind)).collect::<Vec<_>>().into(),
    }
}

/// Keys and values of nested objects, `table.key`, in order. Keys inside `kafka.client` keep their own dots.
pub(super) fn flatten(tree: &Value) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (table, keys) in tree.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(inner) => flat.extend(inner.iter().map(|(k, v)| (format!("{table}.{key}.{k}"), v.clone()))),
                None => flat.push((format!("{table}.{key}"), value.clone())),
            }
        }
    }
    flat
}
