//! Goal: the house keeps its three floors. Method: read the sources as text and look at every `use` and every path.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Floors from the top; a module may use modules of lower floors only, edges and core each only what is named.
const SHELL: [&str; 4] = ["cli", "service", "pipeline", "config"];
const EDGES: [&str; 5] = ["kafka", "metrics", "http", "registry", "web"];
/// Core modules in the order in which each may use the ones after it.
const CORE: [&str; 4] = ["detector", "incident", "model", "record"];

/// A crate, and the only modules that may name it.
const OWNED: [(&str, &[&str]); 12] = [
    ("rdkafka", &["kafka"]),
    ("prometheus", &["metrics"]),
    ("tokio", &["service", "http"]),
    ("hyper", &["http"]),
    ("sd_notify", &["service"]),
    ("ureq", &["web"]),
    ("openssl", &["web", "http", "kafka"]),
    ("rmp_serde", &["record"]),
    ("ndarray", &["model"]),
    ("prost", &["model"]),
    ("fearless_simd", &["model", "record"]),
    ("smartcore", &["model", "cli"]),
];

/// What the pure floor must not name.
const IMPURE: [&str; 8] =
    ["std::fs", "std::env", "std::thread", "std::net", "std::process", "Instant", "SystemTime", "tracing"];

const LINES_MAX: usize = 600;

/// Every source file with its top-level module, comments and tests left out of the text.
fn sources() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code: String = text
                    .split("#[cfg(test)]\nmod tests {")
                    .next()
                    .unwrap_or_default()
                    .lines()
                    .map(|l| l.split("//").next().unwrap_or_default())
                    .fold(String::new(), |all, l| all + l + "\n");
                found.push((module(&path), path, code));
            }
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn module(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules of this crate named as `crate::x` in the code.
fn used(code: &str) -> Vec<String> {
    let names = code.split("crate::").skip(1);
    names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

fn may_use(from: &str, to: &str) -> bool {
    let shell = |m: &str| SHELL.iter().position(|s| *s == m);
    let core = |m: &str| CORE.iter().position(|s| *s == m);
    match (from, to) {
        ("main" | "lib", _) => true,
        _ if from == to => true,
        // Settings belong to the module they configure, so configuration knows the types of every module but `cli`.
        ("config", _) => to != "cli" && to != "pipeline",
        ("service", "config" | "pipeline") => true,
        (_, _) if shell(from).is_some() => match shell(to) {
            Some(below) => shell(from) < Some(below),
            None => true,
        },
        // The client that asks others over HTTP.
        ("kafka" | "registry", "web") => true,
        (_, _) if EDGES.contains(&from) => core(to).is_some(),
        _ => matches!((core(from), core(to)), (Some(a), Some(b)) if a < b),
    }
}

#[test]
fn imports_only_point_down() {
    let mut wrong = Vec::new();
    for (from, path, code) in sources() {
        for to in used(&code) {
            let known = SHELL.contains(&to.as_str()) || EDGES.contains(&to.as_str()) || CORE.contains(&to.as_str());
            if known && !may_use(&from, &to) {
                wrong.push(format!("{}: `{from}` may not use `{to}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_outside_crate_has_its_modules() {
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (from, path, code) in sources() {
        for (name, owners) in OWNED {
            if code.contains(&format!("{name}::")) {
                *seen.entry(name).or_default() += 1;
                if !owners.contains(&from.as_str()) {
                    wrong.push(format!("{}: only {owners:?} may name `{name}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), OWNED.len(), "a crate that nobody names is on the list: {seen:?}");
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for (from, path, code) in sources() {
        if CORE.contains(&from.as_str()) {
            wrong.extend(IMPURE.iter().filter(|i| code.contains(*i)).map(|i| format!("{} names {i}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The fuzz target includes the core as it is, and names its crates itself; it needs a nightly compiler, so nothing else would notice.
#[test]
fn the_fuzz_target_has_the_crates_of_the_core() {
    let manifest = |at: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(at)).unwrap();
    let (own, fuzz) = (manifest("Cargo.toml"), manifest("fuzz/Cargo.toml"));
    let dependencies = own.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let core: Vec<String> =
        sources().into_iter().filter(|(from, ..)| CORE.contains(&from.as_str())).map(|(.., code)| code).collect();
    let (mut seen, mut wrong) = (0, Vec::new());
    for line in dependencies.lines().filter(|line| line.contains(" = ")) {
        let name = line.split(" = ").next().unwrap();
        let path = format!("{}::", name.replace('-', "_"));
        let named = |code: &String| code.match_indices(&path).any(|(at, _)| !code[..at].ends_with([':', '_', '.']));
        if core.iter().any(named) {
            seen += 1;
            if !fuzz.lines().any(|other| other == line) {
                wrong.push(line);
            }
        }
    }
    assert!(seen > 10, "the crates of the core were not found");
    assert!(wrong.is_empty(), "fuzz/Cargo.toml lacks, or has otherwise: {wrong:?}");
}

#[test]
fn no_file_is_unsafe_and_none_is_a_hall() {
    for (_, path, code) in sources() {
        assert!(!code.contains("unsafe ") && !code.contains("unsafe{"), "{} is unsafe", path.display());
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, at most {LINES_MAX}", path.display());
    }
}

/// The compiler puts `array::map` and `array::from_fn` into the code around them in one program and not in the next; where it does not, every vector
/// goes through memory, and the kernel takes twice as long. A loop over the places is always put there.
#[test]
fn no_vector_is_made_by_a_closure_of_an_array() {
    let through_closure = |line: &&str| line.contains("simd") && (line.contains("from_fn(") || line.contains(".map("));
    let mut seen = 0;
    for (_, path, code) in sources().iter().filter(|(.., code)| code.contains("use fearless_simd")) {
        seen += 1;
        let found: Vec<&str> = code.lines().filter(through_closure).collect();
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
    assert!(seen > 2, "the vector code was not found");
    assert!(through_closure(&"let sums = [bias.map(|bias| f32x16::splat(simd, bias)); G];"));
}

#[test]
fn the_rule_itself_can_fail() {
    assert!(!may_use("record", "model"));
    assert!(!may_use("kafka", "metrics"));
    assert!(!may_use("pipeline", "service"));
    assert!(!may_use("model", "kafka"));
    assert!(may_use("pipeline", "kafka"));
    assert!(may_use("detector", "record"));
}
