//! What Grafana's dashboard linter asks, and that nothing is shown that does not exist.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::files::{deploy, exported, named, rules, text};

/// A query of a panel.
pub struct Query {
    pub panel: String,
    pub expr: String,
}

fn dashboards() -> Vec<Value> {
    let files = fs::read_dir(deploy("grafana/dashboards")).unwrap().map(|e| e.unwrap().path());
    files.map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).expect("JSON")).collect()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().expect("panels").iter().filter(|p| p["type"] != "row")
}

pub fn queries() -> Vec<Query> {
    let dashboards = dashboards();
    let queries = dashboards.iter().flat_map(panels).flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("queries").iter();
        targets.map(|target| Query {
            panel: panel["title"].as_str().unwrap().to_owned(),
            expr: target["expr"].as_str().expect("a query").to_owned(),
        })
    });
    queries.collect()
}

#[test]
fn dashboards_have_a_stable_name_and_the_variables_that_parts_of_a_fleet_are_chosen_by() {
    for dashboard in dashboards() {
        assert!(dashboard["uid"].as_str().is_some_and(|uid| uid.starts_with("residua")));
        assert_eq!((&dashboard["editable"], dashboard.get("id")), (&Value::Bool(false), None));
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<&str> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "job", "instance", "topic"]);
        assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
        for variable in &variables[1..] {
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
            assert_eq!(
                (&variable["multi"], &variable["includeAll"], &variable["allValue"]),
                (&true.into(), &true.into(), &".+".into())
            );
            // When the time range changes.
            assert_eq!(variable["refresh"], 2);
            assert!(variable["label"].as_str().is_some_and(|l| !l.is_empty()));
        }
        let rows: Vec<&str> = dashboard["panels"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["type"] == "row")
            .filter_map(|p| p["title"].as_str())
            .collect();
        assert_eq!(
            rows,
            ["Overview", "Anomalies and incidents", "Input", "Kafka", "Model and learning", "Output", "Resources"]
        );
    }
}

#[test]
fn panels_say_what_they_show_in_which_unit_and_of_which_instances() {
    for dashboard in dashboards() {
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()) && titles.insert(title), "{title} is there twice");
            assert!(panel["description"].as_str().is_some_and(|d| d.ends_with('.')), "{title}: no description");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}: no query");
            let mut refs = BTreeSet::new();
            for target in targets {
                assert!(refs.insert(target["refId"].as_str().unwrap()), "{title}: a query's name is there twice");
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
                check_query(title, target["expr"].as_str().unwrap());
            }
        }
    }
}

fn check_query(title: &str, expr: &str) {
    for metric in named(expr) {
        let selector = format!(r#"{metric}{{job=~"$job", instance=~"$instance", topic=~"$topic""#);
        assert_eq!(
            expr.matches(&metric).count(),
            expr.matches(&selector).count(),
            "{title}: {metric} is not chosen by the variables"
        );
        let counter = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| metric.ends_with(end));
        let over_time =
            ["rate(", "increase("].iter().map(|f| expr.matches(&format!("{f}{metric}{{")).count()).sum::<usize>();
        assert_eq!(over_time, if counter { expr.matches(&metric).count() } else { 0 }, "{title}: {metric} over time");
    }
    // An hour is said in the panel's description; no other range is written out.
    for range in expr.split('[').skip(1).map(|r| r.split(']').next().unwrap()) {
        let fits = match range {
            "$__rate_interval" => true,
            "$__range" => expr.contains("increase("),
            "1h" => title == "Series forgotten",
            _ => false,
        };
        assert!(fits, "{title}: range {range}");
    }
}

#[test]
fn metrics_that_are_shown_are_exported_and_metrics_that_are_exported_are_shown_or_alarm() {
    let exported = exported();
    let mut used = BTreeSet::new();
    for query in queries() {
        for metric in named(&query.expr) {
            assert!(exported.contains(&metric), "{}: {metric}", query.panel);
            used.insert(metric);
        }
    }
    used.extend(rules().iter().flat_map(|r| named(&r.expr)));
    let unused: Vec<&String> = exported.iter().filter(|m| m.starts_with("residua_") && !used.contains(*m)).collect();
    // The parts of a histogram that its quantiles are not made of.
    let parts = |m: &&&String| !(m.ends_with("_count") || m.ends_with("_sum"));
    assert_eq!(unused.iter().filter(parts).collect::<Vec<_>>(), Vec::<&&String>::new());
}

#[test]
fn alerts_that_panels_name_are_rules_and_every_rule_but_for_machines_has_its_panel() {
    let rules = rules();
    let board = text("grafana/dashboards/residua.json");
    let words = board.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.starts_with("Residua"));
    let shown: BTreeSet<&str> = words.collect();
    for name in &shown {
        assert!(rules.iter().any(|r| r.name == *name), "{name} is no rule");
    }
    let missing: Vec<&str> = rules.iter().map(|r| r.name.as_str()).filter(|r| !shown.contains(r)).collect();
    assert_eq!(missing, ["ResiduaCriticalAnomaly"]);
}
