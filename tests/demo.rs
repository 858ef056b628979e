//! Goal: the README's first command shows the main job working, whatever the seed. Method: run it as a user does, with
//! `--json`, for seeds 1 to 5 at the same time (each is paced, and mostly waits).

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn the_demo_finds_nine_of_ten_faults_with_at_most_one_false_incident_for_each_seed() {
    let runs: Vec<_> = (1..=5)
        .map(|seed| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
            command.args(["demo", "--json", "--seed", &seed.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
            (seed, command.spawn().expect("start the demo"))
        })
        .collect();
    let mut of_kinds = BTreeMap::<String, [u64; 2]>::new();
    for (seed, run) in runs {
        let ended = run.wait_with_output().expect("wait for the demo");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "seed {seed}: {said}");
        let summary: Value = serde_json::from_slice(&ended.stdout).expect("one JSON object on standard output");
        let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("no {key}: {summary}"));
        assert_eq!((number("faults_injected"), number("records")), (10, 30_000), "seed {seed}");
        assert!(number("faults_found") >= 9, "seed {seed}: {said}");
        assert!(number("false_incidents") <= 1, "seed {seed}: {said}");
        let kinds = summary["by_kind"].as_object().expect("kinds");
        for (kind, counts) in kinds {
            let [injected, found] = of_kinds.entry(kind.clone()).or_default();
            *injected += counts["injected"].as_u64().expect("a count");
            *found += counts["found"].as_u64().expect("a count");
        }
        assert!(
            said.contains("of 10 faults found") && said.contains("metrics while it ran: http://127.0.0.1:"),
            "{said}"
        );
    }
    assert_eq!(of_kinds.len(), 7, "{of_kinds:?}");
    assert!(of_kinds.values().all(|[injected, found]| 2 * found > *injected), "injected and found: {of_kinds:?}");
}
