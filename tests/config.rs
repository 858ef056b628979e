//! Goal: a configuration is right or refused with words that help; nobody ever sees a secret. Method: a corpus of files,
//! each invalid one with a part of its error; the environment is an argument.

use std::fs;
use std::path::{Path, PathBuf};

use residua::config::{Config, ConfigError, Loaded};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SECRET: &str = "hunter2";

fn corpus(kind: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(Path::new(ROOT).join("tests/config").join(kind))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    assert!(files.len() >= 2, "the corpus {kind} is empty");
    files
}

fn load(file: &Path, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    Config::load(Some(file), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn smallest() -> PathBuf {
    Path::new(ROOT).join("tests/config/valid/smallest.toml")
}

fn described(loaded: &Loaded) -> String {
    let mut text = Vec::new();
    loaded.describe(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn every_valid_file_loads_and_hides_its_secrets() {
    for file in corpus("valid") {
        let loaded = load(&file, &[]).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let shown = format!("{} {:?} {}", described(&loaded), loaded, loaded.redacted());
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn every_invalid_file_is_refused_in_helpful_words_without_its_secrets() {
    for file in corpus("invalid") {
        let expected = fs::read_to_string(file.with_extension("err")).unwrap();
        let expected = expected.trim().replace("FILE", &file.display().to_string());
        let error = load(&file, &[]).map(|_| ()).expect_err(&file.display().to_string());
        let said = format!("{error} {error:?}");
        assert!(error.to_string().contains(&expected), "{}\nexpected {expected}\nsaid {error}", file.display());
        assert!(!said.contains(SECRET), "{said}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let environment =
        [("RESIDUA__SERVICE__WORKERS", "none"), ("RESIDUA__NONSENSE__KEY", "1"), ("RESIDUA__KAFKA__STRAT", "latest")];
    let error = load(&smallest(), &environment).unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
    assert!(error.to_string().contains("RESIDUA__SERVICE__WORKERS"), "{error}");
    assert!(error.to_string().contains("the nearest is kafka.start"), "{error}");
    // Values that do not fit each other too, but not what a refused value left behind.
    let environment = [("RESIDUA__KAFKA__SESSION_TIMEOUT", "soon"), ("RESIDUA__KAFKA__HEARTBEAT_INTERVAL", "40s")];
    let error = load(&smallest(), &environment).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    let environment = [("RESIDUA__LEARNING__MIN_RECORDS", "9"), ("RESIDUA__SERVICE__WORKER", "1")];
    let error = load(&smallest(), &environment).unwrap_err();
    assert_eq!(error.problems.len(), 2, "{error}");
    assert!(error.to_string().contains("learning.min_records (RESIDUA__LEARNING__MIN_RECORDS): 9 is not"), "{error}");
}

#[test]
fn environment_overrides_file_overrides_defaults_and_each_origin_is_told() {
    let full = Path::new(ROOT).join("tests/config/valid/full.toml");
    let environment = [
        ("RESIDUA__KAFKA__GROUP", "42"),
        ("RESIDUA__SERVICE__WORKERS", "3"),
        ("RESIDUA__INPUT__FEATURES", r#"["a","b"]"#),
        ("RESIDUA__KAFKA__CLIENT__SASL_PASSWORD", "hunter2-too"),
        ("RESIDUA__MODEL__WINDOW", "7"),
        ("PATH", "/bin"),
    ];
    let loaded = load(&full, &environment).unwrap();
    let c = &loaded.config;
    assert_eq!((c.kafka.group.as_str(), c.service.workers), ("42", 3));
    assert_eq!(c.kafka.models, "42.models");
    assert_eq!(c.kafka.anomalies, "plant.sensors.anomalies");
    assert_eq!(c.kafka.client["sasl.password"].value, "hunter2-too");
    assert_eq!(c.kafka.client["socket.keepalive.enable"].value, "true");
    assert_eq!(serde_json::to_value(&c.input).unwrap()["features"], serde_json::json!(["a", "b"]));
    assert_eq!(serde_json::to_value(&c.model).unwrap()["window"], 7);
    let text = described(&loaded);
    let line = |key: &str| {
        text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    };
    assert!(line("workers").ends_with("# RESIDUA__SERVICE__WORKERS"), "{text}");
    assert!(line("delivery").ends_with("full.toml"), "{text}");
    assert!(line("queue_kbytes").ends_with("# built in"), "{text}");
    assert!(
        line("client.sasl.password").contains("********") && line("client.sasl.password").ends_with("SASL_PASSWORD"),
        "{text}"
    );
}

#[test]
fn a_secret_is_read_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "hunter2\n").unwrap();
    let variable = ("RESIDUA__KAFKA__CLIENT__SASL_PASSWORD_FILE", file.to_str().unwrap());
    let loaded = load(&smallest(), &[variable]).unwrap();
    assert_eq!(loaded.config.kafka.client["sasl.password"].value, SECRET);
    assert!(!described(&loaded).contains(SECRET));
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/no/such/file.toml"), &[]).unwrap_err();
    assert!(error.to_string().contains("/no/such/file.toml"), "{error}");
}

#[test]
fn the_annotated_file_is_the_defaults_and_names_every_key() {
    let path = Path::new(ROOT).join("config/residua.toml");
    let must = [("RESIDUA__KAFKA__BROKERS", "localhost:9092"), ("RESIDUA__KAFKA__INPUT", "sensors")];
    let annotated = load(&path, &must).unwrap();
    assert_eq!(annotated.config, load(&smallest(), &[]).unwrap().config);
    let text = fs::read_to_string(path).unwrap();
    let keys = annotated.redacted();
    let mut count = 0;
    for (table, values) in keys.as_object().unwrap() {
        assert!(text.contains(&format!("[{table}]")), "[{table}]");
        for key in values.as_object().unwrap().keys().filter(|k| *k != "client") {
            let given = |l: &str| l.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(text.lines().any(given), "{table}.{key} is not in config/residua.toml");
            count += 1;
        }
    }
    assert!(count > 40, "only {count} keys");
}
