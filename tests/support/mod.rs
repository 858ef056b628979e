//! What tests need from outside: a real Kafka ([`kafka`]), its topics ([`Broker`]), the running binary ([`residua`])
//! and a look at its HTTP pages ([`http_get`]).
//!
//! The broker is started by `deploy/dev/kafka` when the first test asks for it, shared by everything that runs from one
//! checkout, and stopped by its watcher when `cargo test` is over, however it ended. Topic names are random ([`topic`]),
//! so tests need not know of each other. Every wait has a deadline, and panics with what it waited for.
// Each test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod authority;
mod http;
pub mod login;
pub mod plant;
mod process;
mod protocol;
pub mod proxy;
pub mod registry;
pub mod rights;
mod topics;

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{self as os, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use http::{Reply, http_get, http_get_with, metric};
pub use process::{Finished, Process, residua};
pub use topics::{Deliveries, Isolation, Message, Outgoing, send, settle};

/// The script that starts and stops Kafka.
pub const KAFKA_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/dev/kafka");
/// Longer than anything on a loaded machine should take; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The script's exit code where a machine cannot run Kafka: no Java, no Maven, no Docker, no network.
const IMPOSSIBLE_HERE: i32 = 3;

/// A running Kafka. Topics are handled by its methods.
#[derive(Debug)]
pub struct Broker {
    /// "host:port", or several of them with commas.
    pub bootstrap: String,
}

/// The Kafka that all tests share, or `None` where this machine cannot run one: then one line on standard error says
/// which test was skipped, and the test returns.
///
/// # Panics
/// Where there should have been one: it did not start, or `RESIDUA_REQUIRE_KAFKA=1` is set.
pub fn kafka() -> Option<&'static Broker> {
    static SHARED: OnceLock<Result<Broker, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let mut start = Command::new(KAFKA_SCRIPT);
        start.args(["start", "--while", &os::id().to_string()]);
        // `cargo test` runs one test program after the other: holding the broker for cargo keeps it between them.
        if let Some(cargo) = cargo_id() {
            start.args(["--while", &cargo.to_string()]);
        }
        started(start)
    });
    shared.as_ref().map_err(|why| skip(why)).ok()
}

/// Like [`kafka`], but 1 or 3 brokers of one test's own, in `dir`: for faults.
pub fn cluster(dir: &Path, brokers: u32) -> Option<Cluster> {
    cluster_with(dir, brokers, &[])
}

/// The same, with more options of the script.
pub fn cluster_with(dir: &Path, brokers: u32, more: &[&str]) -> Option<Cluster> {
    let mut start = Command::new(KAFKA_SCRIPT);
    start
        .args(["start", "--brokers", &brokers.to_string(), "--while", &os::id().to_string(), "--dir"])
        .arg(dir)
        .args(more);
    let broker = started(start).map_err(|why| skip(&why)).ok()?;
    Some(Cluster { broker, dir: dir.to_owned() })
}

/// A Kafka of one test's own. Stopped when dropped.
pub struct Cluster {
    pub broker: Broker,
    dir: PathBuf,
}

impl Cluster {
    /// Runs a command of the script on this cluster: `&["kill", "2"]`, `&["start-broker", "2"]`, `&["status"]`. Its
    /// standard output.
    #[track_caller]
    pub fn control(&self, args: &[&str]) -> String {
        let output =
            Command::new(KAFKA_SCRIPT).args(args).arg("--dir").arg(&self.dir).output().expect("run the script");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn stop(&self) {
        self.control(&["stop"]);
    }
}

/// Lines of a broker's log that a failed test shows.
const LOG_LINES: usize = 150;

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            // It goes with the cluster, and says what the client can only guess.
            let telling = |line: &&str| ["oordinator", "WARN", "ERROR"].iter().any(|word| line.contains(word));
            for log in (1..=3).map(|n| self.dir.join(format!("broker-{n}/log"))).filter(|log| log.exists()) {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().filter(telling).collect();
                println!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
            }
        }
        let stopped = Command::new(KAFKA_SCRIPT).args(["stop", "--dir"]).arg(&self.dir).stderr(Stdio::null()).status();
        assert!(thread::panicking() || stopped.is_ok_and(|status| status.success()), "cannot stop the cluster");
    }
}

/// Runs a `start` command; the reason if this machine cannot run Kafka.
fn started(mut start: Command) -> Result<Broker, String> {
    let output = start.output().expect("run deploy/dev/kafka");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(IMPOSSIBLE_HERE) {
        let why = said.lines().last().unwrap_or("no reason given");
        return Err(why.trim_start_matches("kafka: ").to_owned());
    }
    assert!(output.status.success(), "cannot start Kafka:\n{said}");
    Ok(Broker { bootstrap: String::from_utf8_lossy(&output.stdout).trim().to_owned() })
}

/// Runs Prometheus' `promtool` with this input; `None` where it is missing, as with [`kafka`] (`RESIDUA_REQUIRE_PROMTOOL=1`).
pub fn promtool(args: &[&str], input: &str) -> Option<os::Output> {
    let mut started = Command::new("promtool");
    started.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match started.spawn() {
        Ok(child) => child,
        Err(why) => {
            without("promtool", &why.to_string());
            return None;
        }
    };
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("write to promtool");
    Some(child.wait_with_output().expect("the end of promtool"))
}

fn skip(why: &str) {
    without("Kafka", why);
}

/// Says in one line that a test was skipped, or fails where that is not allowed.
pub fn without(tool: &str, why: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    let required = std::env::var(format!("RESIDUA_REQUIRE_{}", tool.to_uppercase()));
    assert!(required.as_deref() != Ok("1"), "{test} needs {tool}: {why}");
    // Not `eprintln!`: the test harness would hide it when the test passes. One write: lines must not mix.
    let line = format!("SKIPPED (no {tool}): {test}: {why}\n");
    io::stderr().write_all(line.as_bytes()).expect("write to stderr");
}

/// The process id of the `cargo` that started this test program, if one did.
fn cargo_id() -> Option<u32> {
    let name = fs::read_to_string(format!("/proc/{}/comm", parent_id())).ok()?;
    name.starts_with("cargo").then(parent_id)
}

/// A topic name (or group name) that nobody else uses, beginning with `name`.
pub fn topic(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos();
    format!("{name}-{:x}-{:x}-{}", os::id(), nanos & 0xffff_ffff_ffff, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Tries until there is a value. For what cannot be waited for in another way: looks every 20 ms.
///
/// # Panics
/// After `within`, with `what` was missing.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
