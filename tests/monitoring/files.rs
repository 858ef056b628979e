//! The files of `deploy` that watch residua, and the metrics there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::exported::exported as every_metric;
use crate::support;

pub fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

pub fn text(path: &str) -> String {
    let path = deploy(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An alert rule.
pub struct Rule {
    pub group: String,
    pub name: String,
    pub expr: String,
    pub severity: String,
    pub summary: String,
    pub runbook: String,
}

pub fn rules() -> Vec<Rule> {
    let read: Value = serde_saphyr::from_str(&text("prometheus/residua.rules.yml")).expect("YAML");
    let mut rules = Vec::new();
    for group in read["groups"].as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            let word = |at: &Value| at.as_str().unwrap_or_else(|| panic!("a text is missing in {rule}")).to_owned();
            rules.push(Rule {
                group: word(&group["name"]),
                name: word(&rule["alert"]),
                expr: word(&rule["expr"]),
                severity: word(&rule["labels"]["severity"]),
                summary: word(&rule["annotations"]["summary"]),
                runbook: word(&rule["annotations"]["runbook_url"]),
            });
        }
    }
    rules
}

/// Names of all metrics, of residua and of its process; a histogram's with all three endings.
pub fn exported() -> BTreeSet<String> {
    let names = every_metric().into_iter().flat_map(|(name, kind, _)| match kind.as_str() {
        "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
        _ => vec![name],
    });
    names.collect()
}

/// Names of metrics of residua and its process in a query.
pub fn named(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|w| w.starts_with("residua_") || w.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_configuration_and_rules_and_finds_that_they_fire_when_they_should() {
    let run = |args: &[&str]| {
        let Some(ended) = support::promtool(args, "") else { return };
        assert!(ended.status.success(), "{args:?}: {ended:?}");
    };
    let path = |p: &str| deploy(p).display().to_string();
    run(&["check", "config", &path("prometheus/prometheus.yml")]);
    run(&["check", "rules", "--lint-fatal", &path("prometheus/residua.rules.yml")]);
    run(&["test", "rules", &path("prometheus/residua.rules.test.yml")]);
}

#[test]
fn every_rule_is_tried_has_a_severity_a_summary_and_a_heading_that_says_what_to_do() {
    let tried = text("prometheus/residua.rules.test.yml");
    let operating = fs::read_to_string(deploy("../docs/operating.md")).unwrap();
    let headings: BTreeSet<&str> = operating.lines().filter_map(|l| l.strip_prefix("### ")).collect();
    let rules = rules();
    assert!(rules.len() >= 20);
    for rule in &rules {
        assert!(rule.name.starts_with("Residua") && !rule.summary.is_empty(), "{}", rule.name);
        assert!(["critical", "warning", "info"].contains(&rule.severity.as_str()), "{}", rule.name);
        assert!(["residua-health", "residua-data-and-model", "residua-anomalies"].contains(&rule.group.as_str()));
        assert_eq!(rule.runbook, format!("docs/operating.md#{}", rule.name.to_lowercase()));
        assert!(headings.contains(rule.name.as_str()), "no heading {} in docs/operating.md", rule.name);
        assert_eq!(tried.matches(&format!("- name: {}\n", rule.name)).count(), 1, "{}", rule.name);
    }
    for heading in headings.iter().filter(|h| h.starts_with("Residua")) {
        assert!(rules.iter().any(|r| r.name == *heading), "docs/operating.md has {heading}, which is no rule");
    }
}

#[test]
fn rules_name_only_metrics_that_are_exported() {
    let exported = exported();
    for rule in rules() {
        for metric in named(&rule.expr) {
            assert!(exported.contains(&metric), "{}: {metric}", rule.name);
        }
    }
}

/// What `tracing::error!` says in the sources, up to the first comma.
#[test]
fn every_error_in_the_log_is_explained() {
    let operating = fs::read_to_string(deploy("../docs/operating.md")).unwrap();
    let mut folders = vec![deploy("../src")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for call in fs::read_to_string(&path).unwrap().split("tracing::error!(").skip(1) {
                let statement = call.split(");").next().unwrap_or(call);
                // The message is the last text of the call; what comes before formats a field.
                let said = statement.rsplit('"').nth(1).unwrap_or_default();
                let start = said.split([',', ';', ':']).next().unwrap_or_default();
                assert!(!start.is_empty() && operating.contains(start), "docs/operating.md does not explain: {said}");
                count += 1;
            }
        }
    }
    assert!(count >= 4, "only {count} errors were found");
}
