//! Goal: a network that residua exports computes in onnxruntime what it computes in residua. Method: real runs of `train file`, `score` and
//! `export`, then a Python program that feeds the same rows to onnxruntime and compares residuals and latent values.

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::{plant, without};

/// What `deploy/dev/setup --ci` makes.
fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let python = target.join("python/bin/python");
    if !python.is_file() {
        without("onnxruntime", &format!("{} is missing; deploy/dev/setup --ci makes it", python.display()));
        return None;
    }
    Some(python)
}

fn run(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|why| panic!("run {}: {why}", program.display()))
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn residua(args: &[&str]) -> Output {
    run(Path::new(env!("CARGO_BIN_EXE_residua")), args)
}

/// Machines of the plant as CSV; each `apart` times as large as the one before.
fn rows(machines: usize, steps: usize, apart: f64) -> String {
    let mut text = "machine,flow,speed,current,temp,in,out,vibration,valve\n".to_owned();
    for (i, record) in plant::records_of(machines, 1, 0..steps, &[]).iter().enumerate() {
        let machine = i % machines;
        let value: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        write!(text, "{}", plant::name(machine)).expect("text grows");
        for path in ["/flow", "/speed", "/motor/current", "/motor/temp", "/in", "/out", "/vibration", "/valve"] {
            let number = value.pointer(path).and_then(Value::as_f64).expect("a number");
            write!(text, ",{}", number * apart.powi(machine as i32)).expect("text grows");
        }
        text.push('\n');
    }
    text
}

/// The line that the comparison prints, for network `network` of a model of these rows.
fn compared(python: &Path, rows: &str, train: &[&str], network: usize, wanted: &str) -> String {
    let dir = tempfile::tempdir().expect("create a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let [data, model, scores, onnx] = ["rows.csv", "m.safetensors", "scores.csv", "m.onnx"].map(at);
    std::fs::write(&data, rows).expect("write the rows");
    let series = ["--series", "machine"];
    done(&residua(&[&["train", "file", &data, "--out", &model, "--steps", "300"], &series[..], train].concat()));
    done(&residua(&[&["score", &data, "--model", &model, "--out", &scores], &series[..]].concat()));
    let number = network.to_string();
    let said = done(&residua(&["export", &model, "--onnx", &onnx, "--network", &number]));
    assert!(said.starts_with(&format!("network {network}: ")), "{said}");
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx/check.py");
    let said = done(&run(python, &[check, &data, &scores, &onnx, wanted]));
    println!("{train:?}, network {network}: {said}");
    said
}

/// How much at most residuals, and latent values, differ.
#[track_caller]
fn largest(said: &str, at_least: usize) -> (f64, f64) {
    let words: Vec<&str> = said.split([' ', ',']).collect();
    let after = |word: &str| -> f64 {
        let at = words.iter().position(|w| *w == word).unwrap_or_else(|| panic!("no {word} in {said}"));
        words[at + 3].trim().parse().unwrap_or_else(|_| panic!("no number after {word} in {said}"))
    };
    let count: usize = words[0].parse().expect("a count");
    assert!(count >= at_least, "{said}");
    let latent = said.rsplit(' ').next().and_then(|word| word.trim().parse().ok()).expect("a number at the end");
    (after("residuals"), latent)
}

#[test]
fn residuals_and_latent_values_are_those_of_onnxruntime() {
    let Some(python) = python() else { return };
    let alike = rows(3, 900, 1.0);
    let (residual, _) = largest(&compared(&python, &alike, &[], 1, "--residuals"), 2_600);
    assert!(residual > 0.0 && residual <= 1e-5, "{residual}");
    // The network that ranks sees the slow average too.
    let (_, latent) = largest(&compared(&python, &alike, &[], 0, "--latent"), 2_600);
    assert!(latent > 0.0 && latent <= 1e-5, "{latent}");
    let (residual, _) =
        largest(&compared(&python, &alike, &["--profile", "fast", "--activation", "tanh"], 0, "--residuals"), 2_600);
    assert!(residual > 0.0 && residual <= 1e-5, "{residual}");
}

#[test]
fn where_series_have_scales_of_their_own_these_are_in_the_file() {
    let Some(python) = python() else { return };
    let apart = rows(4, 900, 30.0);
    let (residual, _) = largest(&compared(&python, &apart, &[], 1, "--residuals"), 3_500);
    assert!(residual > 0.0 && residual <= 1e-5, "{residual}");
}

#[test]
fn python_opens_models_and_a_network_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("create a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (data, model) = (at("rows.csv"), at("m.safetensors"));
    std::fs::write(&data, rows(1, 400, 1.0)).expect("write the rows");
    done(&residua(&["train", "file", &data, "--ignore", "machine", "--out", &model, "--steps", "50"]));
    let refused = residua(&["export", &model, "--onnx", &at("m.onnx"), "--network", "2"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--network 2: the model has 2, counted from 0"), "{said}");
    let Some(python) = python() else { return };
    let program = "import safetensors.numpy, sys; print(*sorted(safetensors.numpy.load_file(sys.argv[1])))";
    let tensors = done(&run(&python, &["-c", program, &model]));
    assert!(tensors.contains("weight") && tensors.contains("mean"), "{tensors}");
}

#[test]
fn networks_from_elsewhere_compute_what_they_do_in_onnxruntime() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("create a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let [data, network, model, scores] = ["rows.csv", "net.onnx", "m.safetensors", "scores.csv"].map(at);
    std::fs::write(&data, rows(1, 900, 1.0)).expect("write the rows");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx/foreign.py");
    let kinds = [
        ("torch", "standard", "-3-", 1),
        ("keras", "min-max", "-2-", 1),
        ("whole", "raw", "-3-", 1),
        ("window", "standard", "24-4-24", 3),
        ("deep", "standard", "8-7-6-5-3-5-6-7-8", 1),
    ];
    for (kind, scaled, layers, window) in kinds {
        done(&run(&python, &[script, "make", kind, &data, &network]));
        let import = ["import", "--onnx", &network, &data, "--ignore", "machine", "--scaled", scaled, "--out", &model];
        let said = done(&residua(&import));
        assert!(said.contains("calibrated on 900 rows"), "{kind}: {said}");
        let facts = done(&residua(&["inspect", &model]));
        assert!(facts.contains("network net.onnx, trained elsewhere") && facts.contains(layers), "{kind}: {facts}");
        assert!(facts.contains(&format!("window       {window} ")), "{kind}: {facts}");
        done(&residua(&["score", &data, "--model", &model, "--out", &scores]));
        let said = done(&run(&python, &[script, "check", kind, &data, &scores, &network]));
        println!("{kind}: {said}");
        let (count, off) = said.split_once(" rows compared, residuals differ by ").expect("figures");
        let off: f64 = off.trim().parse().expect("a number");
        assert!(count.parse::<usize>().expect("a count") > 890 && off > 0.0 && off <= 1e-5, "{kind}: {said}");
    }
}

#[test]
fn other_graphs_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("create a folder");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let [data, model, network, again] = ["rows.csv", "m.safetensors", "net.onnx", "again.safetensors"].map(at);
    std::fs::write(&data, rows(1, 400, 1.0)).expect("write the rows");
    let train = ["train", "file", &data, "--ignore", "machine", "--out", &model, "--steps", "50"];
    done(&residua(&[&train[..], &["--profile", "fast"]].concat()));
    done(&residua(&["export", &model, "--onnx", &network]));
    let import = |network: &str| {
        residua(&["import", "--onnx", network, &data, "--ignore", "machine", "--scaled", "raw", "--out", &again])
    };
    // It ends with the residual, and takes values that are limited: more than layers.
    let refused = import(&network);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("operator Clip, expected one of Gemm"), "{said}");
    std::fs::write(at("notes.onnx"), "no network").expect("write a file");
    let refused = import(&at("notes.onnx"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("notes.onnx: read ONNX"), "{said}");
}
