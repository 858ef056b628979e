//! Goal: what `deploy` ships fits together and runs. Method: read the files, and start the program as they do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `residua ARGS` with nothing of the caller's `RESIDUA__...` environment.
fn residua(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RESIDUA__")) {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

/// There is such a command, and its help names every option.
fn known(words: &[&str]) {
    let help = residua(&[&words[..1], &["--help"]].concat());
    assert!(help.status.success(), "residua {}", words[0]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for option in words.iter().filter(|w| w.starts_with("--")) {
        assert!(help.contains(option), "residua {} {option}", words[0]);
    }
}

#[test]
fn configurations_that_are_shipped_are_sound() {
    let pods = yaml("deploy/kubernetes/configmap.yaml");
    for (of, config) in [
        ("deploy/compose/residua.toml", text("deploy/compose/residua.toml").as_str()),
        ("deploy/kubernetes/configmap.yaml", pods["data"]["residua.toml"].as_str().expect("a configuration")),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), config).unwrap();
        let checked = residua(&["check", "--config", file.path().to_str().unwrap()]);
        assert!(checked.status.success(), "{of}: {checked:?}");
    }
}

#[test]
fn compose_watches_as_deploy_prometheus_does() {
    let compose = yaml("deploy/compose.yml");
    let inline: Value = serde_saphyr::from_str(compose["configs"]["prometheus"]["content"].as_str().unwrap()).unwrap();
    let file = text("deploy/prometheus/prometheus.yml");
    let renamed = file.replace("localhost:9464", "residua:9464").replace("localhost:9093", "alertmanager:9093");
    assert_eq!(inline, serde_saphyr::from_str::<Value>(&renamed).unwrap());
}

#[test]
fn compose_runs_commands_that_there_are_and_the_kafka_of_the_tests() {
    let compose = yaml("deploy/compose.yml");
    for service in ["topics", "plant"] {
        let words: Vec<&str> =
            compose["services"][service]["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        known(&words);
    }
    let version =
        text("deploy/dev/pom.xml").split("<kafka.version>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert_eq!(compose["services"]["kafka"]["image"], format!("apache/kafka:{version}"));
    // As many records as the plant has before its first fault.
    let config = text("deploy/compose/residua.toml");
    let minimum = config.lines().find_map(|l| l.strip_prefix("min_records = ")).unwrap();
    assert_eq!(minimum.parse::<usize>().unwrap(), 6 * 7 * 24 * 12);
    // Folders that are mounted exist, and compose cannot write what stands in its own file where nothing may be written.
    for (name, service) in compose["services"].as_object().unwrap() {
        for config in service["configs"].as_array().into_iter().flatten() {
            let source = &compose["configs"][config["source"].as_str().unwrap()];
            let file = source["file"].as_str().map(|f| root().join("deploy").join(f));
            assert!(file.as_ref().is_none_or(|f| f.exists()), "{name}: {source}");
            assert!(file.is_some() || service["read_only"] != true, "{name}: {source}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let path = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(root().join("deploy").join(path).exists(), "{name}: {path}");
        }
    }
}

#[test]
fn image_and_unit_run_commands_that_there_are() {
    let docker = text("deploy/docker/Dockerfile");
    let mut commands = 0;
    for line in docker.lines().filter(|l| ["ENTRYPOINT", "CMD", "HEALTHCHECK"].iter().any(|word| l.starts_with(word))) {
        let words: Vec<String> = serde_json::from_str(&line[line.find('[').unwrap()..]).expect("a list of words");
        let words: Vec<&str> = words.iter().map(String::as_str).filter(|w| *w != "/usr/local/bin/residua").collect();
        if !words.is_empty() {
            known(&words);
            commands += 1;
        }
    }
    assert_eq!(commands, 2, "what it runs, and how it is asked whether it is well");
    let unit = text("deploy/systemd/residua.service");
    for line in unit.lines().filter(|l| l.starts_with("ExecStart")) {
        let words: Vec<&str> = line.split_once('=').unwrap().1.split(' ').collect();
        assert_eq!(words[0], "/usr/local/bin/residua");
        known(&words[1..]);
    }
    // They are variables that residua knows.
    let secret = tempfile::NamedTempFile::new().unwrap();
    let shipped = [docker.as_str(), &unit, &text("deploy/kubernetes/statefulset.yaml")].concat();
    for (key, value) in [
        ("RESIDUA__HTTP__LISTEN", "0.0.0.0:9464"),
        ("RESIDUA__KAFKA__INSTANCE_ID", "residua-0"),
        ("RESIDUA__KAFKA__CLIENT__SASL_PASSWORD_FILE", secret.path().to_str().unwrap()),
    ] {
        assert!(shipped.contains(key), "{key}");
        let file = root().join("deploy/compose/residua.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
        let checked = command.args(["check", "--config"]).arg(file).env(key, value).output().unwrap();
        assert!(
            checked.status.success() && String::from_utf8_lossy(&checked.stdout).contains(key),
            "{key}: {checked:?}"
        );
    }
}

/// The image's root as its build makes it: the program runs by what is in there alone.
#[test]
fn the_image_has_all_that_the_program_is_linked_with() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let made = Command::new(root().join("deploy/docker/rootfs"))
        .arg(env!("CARGO_BIN_EXE_residua"))
        .arg(&image)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let files = files(&image);
    let loader =
        files.iter().find(|f| f.file_name().unwrap().to_string_lossy().starts_with("ld-linux")).expect("a loader");
    let libraries: Vec<String> = files
        .iter()
        .filter(|f| f.to_string_lossy().contains(".so"))
        .map(|f| f.parent().unwrap().display().to_string())
        .collect();
    let program = image.join("usr/local/bin/residua");
    let run = |args: &[&str]| {
        let mut command = Command::new(loader);
        command.args(["--inhibit-cache", "--library-path", &libraries.join(":")]).args(args).arg(&program);
        command.output().unwrap()
    };
    let listed = String::from_utf8_lossy(&run(&["--list"]).stdout).into_owned();
    for line in listed.lines().filter(|l| l.contains("=>") || l.contains('/')) {
        assert!(line.contains("vdso") || line.contains(image.to_str().unwrap()), "from outside of the image: {line}");
    }
    assert!(listed.contains("libc.so"), "{listed}");
    assert!(files.iter().all(|f| !f.to_string_lossy().ends_with("/sh")), "a shell");
    assert!(files.iter().any(|f| f.ends_with("etc/ssl/certs/ca-certificates.crt")));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
