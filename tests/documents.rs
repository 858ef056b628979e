//! Goal: documents tell the truth. Method: what they quote (files, keys, metrics, commands) must exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use residua::config::Config;

#[path = "support/exported.rs"]
mod exported;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut files = vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CHANGELOG.md")];
    files.extend(fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path()));
    files.retain(|file| file.extension().is_some_and(|ending| ending == "md")); // the others are their pictures
    assert!(files.len() >= 6, "documents are missing: {files:?}");
    files.into_iter().map(|f| (f.clone(), fs::read_to_string(f).unwrap())).collect()
}

/// What stands between single backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut count = 0;
    for (file, text) in documents() {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|l| !l.contains("://") && !l.starts_with('#')) {
            assert!(file.parent().unwrap().join(link).exists(), "{}: {link}", file.display());
            count += 1;
        }
        let is_path =
            |q: &&str| ["src/", "tests/", "config/", "docs/", "deploy/", "benches/"].iter().any(|p| q.starts_with(p));
        for path in quoted(&text).into_iter().filter(is_path) {
            assert!(root().join(path).exists(), "{}: {path}", file.display());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} files are named");
}

#[test]
fn every_key_that_a_document_names_is_known() {
    let config = serde_json::to_value(Config::default()).unwrap();
    let mut count = 0;
    for (file, text) in documents() {
        for key in quoted(&text) {
            let Some((table, name)) = key.split(" = ").next().and_then(|k| k.split_once('.')) else { continue };
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if let (true, Some(keys)) = (plain, config.get(table).and_then(|t| t.as_object())) {
                assert!(keys.contains_key(name), "{}: {key}", file.display());
                count += 1;
            }
        }
    }
    assert!(count > 5, "only {count} keys are named");
}

/// Of residua itself.
fn exported() -> BTreeSet<(String, String, String)> {
    exported::exported().into_iter().filter(|(name, ..)| name.starts_with("residua_")).collect()
}

#[test]
fn the_metrics_document_lists_every_metric_with_its_type_and_labels() {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|l| l.starts_with("| `residua_"));
    let listed: Vec<(String, String, String)> = rows
        .map(|row| {
            let cells: Vec<String> = row.split('|').map(|c| c.trim().replace('`', "")).collect();
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        })
        .collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), exported());
    assert_eq!(listed.len(), exported().len(), "a metric is listed twice");
    for (file, text) in documents() {
        for metric in quoted(&text).into_iter().filter(|q| q.starts_with("residua_")) {
            assert!(listed.iter().any(|(name, ..)| name == metric), "{}: {metric}", file.display());
        }
    }
}

#[test]
fn every_command_of_the_readme_is_a_command() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: String = readme.split("```").skip(1).step_by(2).collect();
    let commands: Vec<&str> = blocks.lines().filter_map(|l| l.strip_prefix("residua ")).collect();
    assert!(commands.len() >= 2, "{readme}");
    for line in commands {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap();
        let help = Command::new(env!("CARGO_BIN_EXE_residua")).args([command, "--help"]).output().unwrap();
        assert!(help.status.success(), "residua {command}");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for option in words.take_while(|w| *w != "#").filter(|w| w.starts_with("--")) {
            assert!(help.contains(option), "residua {command} {option}");
        }
    }
}
