//! Goal: the commands that need no Kafka do what their help says, and refuse bad input with its name, what it is and what was
//! expected. Method: the binary, on files.

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use support::{PATIENCE, residua};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_residua")).args(args).output().expect("run residua")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8") + &String::from_utf8_lossy(&output.stderr)
}

/// Two machines, three sensors that a hidden load drives; `b` of machine 1 is stuck for the last 40 rows.
fn plant(rows: usize) -> String {
    let mut csv = "timestamp,machine,a,b,c,note,label\n".to_owned();
    for row in 0..rows {
        let (machine, stuck) = (row % 2, row % 2 == 1 && row >= rows - 80);
        let step = (row / 2) as f64;
        let load = (step / 17.0).sin() + 0.5 * (step / 5.3 + machine as f64).cos();
        let noise = |k: f64| 0.02 * ((step * k).sin() * 43_758.545).fract();
        let b = if stuck { 9.0 } else { 2.0 * load + noise(1.7) };
        let c = -load + noise(2.9);
        writeln!(csv, "{row},m{machine},{},{b},{c},text,{}", load + noise(1.1), u8::from(stuck)).unwrap();
    }
    csv
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("residua.toml");
    std::fs::write(&config, "[kafka]\nbrokers = \"localhost:9092\"\ninput = \"sensors\"\n").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut check = Command::new(env!("CARGO_BIN_EXE_residua"));
    let done = check.args(["check", "--config", path(&config)]).stdout(writer).output().expect("run residua");
    assert_eq!(done.status.code(), Some(141), "{}", said(&done));
    assert_eq!(said(&done), "");
}

#[test]
fn a_file_is_learned_inspected_and_backtested() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, model, scores) = (dir.path().join("p.csv"), dir.path().join("m.safetensors"), dir.path().join("s.csv"));
    std::fs::write(&csv, plant(3_000)).unwrap();
    let columns = ["--series", "machine", "--ignore", "note"];

    let train = ["train", "file", path(&csv), "--out", path(&model), "--ignore", "label"];
    let trained = run(&[&train[..], &columns].concat());
    assert!(trained.status.success(), "{}", said(&trained));
    let first = std::fs::read(&model).unwrap();
    assert!(run(&[&train[..], &columns].concat()).status.success());
    assert!(first == std::fs::read(&model).unwrap(), "the same file and settings gave another model");

    let inspected = run(&["inspect", path(&model)]);
    let shown = said(&inspected);
    assert!(inspected.status.success(), "{shown}");
    let fingerprint = said(&trained).split_whitespace().nth(1).unwrap().to_owned();
    for expect in [
        &format!("sha256 {fingerprint}")[..],
        "file p.csv, 3000 rows",
        "features     3",
        "\n  a         100 %",
        "\n  c         100 %",
        "ranks",
    ] {
        assert!(shown.contains(expect), "no {expect:?} in {shown}");
    }

    let backtest = ["backtest", path(&csv), "--train-rows", "2000", "--label", "label", "--out", path(&scores)];
    let tested = run(&[&backtest[..], &columns].concat());
    let shown = said(&tested);
    assert!(tested.status.success(), "{shown}");
    let figure = |name: &str| -> f64 {
        let line = shown.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {shown}"));
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    assert!(figure("ROC-AUC") > 0.95 && figure("average precision") > 0.9, "{shown}");
    let written = std::fs::read_to_string(&scores).unwrap();
    let mut lines = written.lines();
    assert_eq!(lines.next(), Some("row,score,flagged"));
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 1_000);
    for (row, cells) in (2_000..).zip(&rows) {
        let (score, flagged): (f64, &str) = (cells[1].parse().unwrap(), cells[2]);
        assert_eq!(cells[0], row.to_string());
        assert_eq!(flagged == "1", score >= 1.0, "{cells:?}");
    }
}

#[test]
fn the_quality_over_datasets_is_the_mean_of_backtests() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--series", "machine", "--ignore", "note"];
    let mut manifest = "dataset,series,rows,train_rows\n".to_owned();
    let mut figures = Vec::new();
    for (dataset, rows) in [("first", 3_000), ("second", 2_200)] {
        std::fs::create_dir(dir.path().join(dataset)).unwrap();
        let csv = dir.path().join(dataset).join("plant.csv.gz");
        std::fs::write(&csv, plant(rows)).unwrap();
        writeln!(manifest, "{dataset},plant,{rows},{}", rows - 1_000).unwrap();
        let (train_rows, out) = ((rows - 1_000).to_string(), dir.path().join("scores.csv"));
        let backtest = ["backtest", path(&csv), "--train-rows", &train_rows, "--label", "label", "--out", path(&out)];
        let shown = said(&run(&[&backtest[..], &options].concat()));
        let line = shown.lines().find(|l| l.starts_with("average precision")).unwrap_or_else(|| panic!("{shown}"));
        figures.push(line.split_whitespace().last().unwrap().parse::<f64>().unwrap());
    }
    std::fs::write(dir.path().join("MANIFEST.csv"), manifest).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/dev/quality");
    let mut command = Command::new(script);
    command.arg(dir.path()).args(options).env("RESIDUA", env!("CARGO_BIN_EXE_residua"));
    let output = command.output().expect("run the script");
    let shown = said(&output);
    assert!(output.status.success(), "{shown}");
    let of = |name: &str| -> f64 {
        let line = shown.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {shown}"));
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    for (name, expect) in [("first", figures[0]), ("second", figures[1]), ("mean", (figures[0] + figures[1]) / 2.0)] {
        assert!((of(name) - expect).abs() < 6e-4, "{name}: expected {expect} in {shown}");
    }
}

/// What a score says must not depend on what comes later.
#[test]
fn a_backtest_does_not_look_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let scores = |name: &str, csv: &str| {
        let (file, out) = (dir.path().join(name), dir.path().join("scores.csv"));
        std::fs::write(&file, csv).unwrap();
        let args = ["backtest", path(&file), "--train-rows", "1000", "--ignore", "note", "--ignore", "label"];
        let output = run(&[&args[..], &["--series", "machine", "--out", path(&out)]].concat());
        assert!(output.status.success(), "{}", said(&output));
        std::fs::read_to_string(out).unwrap()
    };
    let whole = plant(2_000);
    let shorter: String = whole.lines().take(1 + 1_500).map(|l| format!("{l}\n")).collect();
    let (long, short) = (scores("same.csv", &whole), scores("same.csv", &shorter));
    assert_eq!(short.lines().count(), 501);
    assert!(long.starts_with(&short), "scores of the same rows differ");
}

#[track_caller]
fn refused(args: &[&str], code: i32, expect: &[&str]) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    for text in expect {
        assert!(said(&output).contains(text), "no {text:?} in {}", said(&output));
    }
}

#[test]
fn bad_files_are_refused_with_the_place_and_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, out) = (dir.path().join("p.csv"), dir.path().join("out"));
    std::fs::write(&csv, plant(200)).unwrap();
    let backtest = |rows: &'static str| ["backtest", path(&csv), "--out", path(&out), "--train-rows", rows];
    refused(&backtest("100"), 1, &["line 2", "\"machine\"", "expected a number", "\"m0\"", "--ignore"]);
    refused(&[&backtest("100")[..], &["--ignore", "nope"]].concat(), 1, &["\"nope\"", "machine, a, b, c"]);
    let columns = ["--series", "machine", "--ignore", "note"];
    refused(&[&backtest("200")[..], &columns].concat(), 1, &["learn from 200 rows", "fewer than its 200"]);
    refused(&[&backtest("5")[..], &columns].concat(), 1, &["learn from 5 records"]);
    let label = ["--series", "machine", "--ignore", "note", "--label", "a"];
    refused(&[&backtest("100")[..], &label].concat(), 1, &["line 2", "label \"a\"", "expected 0 or 1"]);
    refused(&["backtest", "no/such.csv", "--out", "x", "--train-rows", "9"], 1, &["no/such.csv"]);
    refused(&["inspect", path(&csv)], 1, &["p.csv", "not a safetensors file"]);
    refused(&["check", "--config", "no/such.toml"], 78, &["no/such.toml"]);
}

#[test]
fn a_good_configuration_is_shown_with_what_series_may_take() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("residua.toml");
    std::fs::write(
        &file,
        "[kafka]\nbrokers = \"here:9092\"\ninput = \"sensors\"\n[input]\nfeatures = [\"a\", \"b\"]\n",
    )
    .unwrap();
    let output = run(&["check", "--config", path(&file)]);
    assert!(output.status.success(), "{}", said(&output));
    for text in ["memory: about ", "2 features, profile balanced", "series.max = 100000 at most "] {
        assert!(said(&output).contains(text), "no {text:?} in {}", said(&output));
    }
}

#[test]
fn a_bad_configuration_ends_with_78_and_names_everything_wrong() {
    let config = "[kafka]\nbrokers = \"here:9092\"\ninputs = \"sensors\"\n[service]\nworkers = 0\n";
    for command in ["check", "run"] {
        let ended = residua(&[command], config).wait(PATIENCE);
        assert_eq!(ended.status.code(), Some(78), "{ended:?}");
        for text in ["kafka.inputs", "input", "residua.toml"] {
            assert!(ended.stderr.contains(text), "no {text:?} in {}", ended.stderr);
        }
    }
}

/// This build of librdkafka refuses the key, and says so with its value.
#[test]
fn a_secret_that_librdkafka_refuses_is_not_shown() {
    let config = "[kafka]\nbrokers = \"127.0.0.1:9\"\ninput = \"sensors\"\nrequest_timeout = \"1s\"\n[kafka.client]\n\
                  \"sasl.oauthbearer.client.secret\" = \"hush-hush\"\n[http]\nlisten = \"\"\n";
    for command in [&["check", "--connect"][..], &["run"], &["train", "topic", "--out", "m"]] {
        let ended = residua(command, config).wait(PATIENCE);
        assert!(!ended.status.success(), "{ended:?}");
        assert!(!ended.stderr.contains("hush-hush") && !ended.stdout.contains("hush-hush"), "{ended:?}");
    }
}

#[test]
fn a_model_file_that_is_not_there_or_of_other_features_ends_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, model) = (dir.path().join("p.csv"), dir.path().join("m.safetensors"));
    std::fs::write(&csv, plant(600)).unwrap();
    let columns = ["--series", "machine", "--ignore", "note", "--ignore", "label"];
    let trained = run(&[&["train", "file", path(&csv), "--out", path(&model)], &columns[..]].concat());
    assert!(trained.status.success(), "{}", said(&trained));
    let broker = residua::kafka::EmbeddedBroker::start().expect("a broker");
    for topic in ["sensors", "sensors.anomalies", "sensors.dead-letters", "sensors.incidents", "residua-sensors.state"]
    {
        broker.create_topic(topic, 1).expect("a topic");
    }
    for (file, features, expect) in [("no/such", "\"auto\"", "no/such"), (path(&model), "[\"a\", \"zzz\"]", "zzz")] {
        let config = format!(
            "[kafka]\nbrokers = \"{}\"\ninput = \"sensors\"\n[input]\nfeatures = {features}\n[learning]\nmodel_file = \"{file}\"\n\
             [http]\nlisten = \"\"\n",
            broker.address()
        );
        let ended = residua(&["run"], &config).wait(PATIENCE);
        assert_eq!(ended.status.code(), Some(78), "{ended:?}");
        assert!(ended.stderr.contains("learning.model_file") && ended.stderr.contains(expect), "{ended:?}");
    }
}
