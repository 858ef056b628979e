//! Table `[metrics]` of the configuration.

use serde::{Deserialize, Serialize};

/// Table `[metrics]`; `config/residua.toml` says what each key means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    pub sensors: usize,
}
