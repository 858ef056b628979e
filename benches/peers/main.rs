//! residua against what people use from Python, its parts and the whole program: tables of ratios. `make bench-peers` installs the libraries
//! into a virtual environment and runs this; PEERS_PYTHON is its interpreter. The whole program needs Kafka, which is started.
//!
//! Ours and theirs take turns, each for a few milliseconds, and the best of each counts. Without PEERS_PYTHON nothing is measured.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ndarray::s;
use residua::model::{Activation, ModelSettings, Trainer};
use residua::record::{Decoder, InputSettings, Schema};

mod latency;
#[path = "../support/network.rs"]
mod network;
mod program;
#[path = "../support/record.rs"]
mod record;
mod scaling;
#[path = "../../tests/support/mod.rs"]
mod support;

use network::{BATCH, Network, SHAPES, inputs, timed};
use record::{FIELDS, name, raw, records};

const ROUNDS: usize = 30;
/// Records of a step of training, and of an epoch.
const STEP: usize = 64;
const EPOCH: usize = 50_000;
/// Seconds that one turn takes, about.
const TURN: f64 = 0.02;

/// An autoencoder in training, epoch after epoch.
struct Training {
    trainer: Trainer,
    records: ndarray::Array2<f32>,
    at: usize,
}

impl Training {
    fn new(shape: [usize; 5]) -> Self {
        let settings = ModelSettings { batch: STEP, activation: Activation::Tanh, ..Default::default() };
        let trainer = Trainer::new([shape[0], shape[1], shape[2]], &settings);
        Self { trainer, records: inputs(EPOCH, shape[0]), at: 0 }
    }

    fn step(&mut self) {
        let rows = self.records.slice(s![self.at..(self.at + STEP).min(EPOCH), ..]);
        self.at = (self.at + STEP) % EPOCH.next_multiple_of(STEP);
        black_box(self.trainer.step(rows, rows));
    }
}

/// The process that runs the libraries.
struct Peers {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peers {
    fn start(python: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/peers.py");
        let mut process = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start PEERS_PYTHON={python}: {e}"));
        let (ask, answers) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        Self { process, ask, answers: BufReader::new(answers) }
    }

    /// Seconds for a record.
    fn took(&mut self, request: &str) -> f64 {
        writeln!(self.ask, "{request}").expect("ask");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().parse().unwrap_or_else(|_| panic!("{request}: expected seconds, got {line:?}"))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One line of the table. `ours` and `theirs`: seconds for a record, in one turn; they get how often.
fn compare(what: &str, rival: &str, ours: &mut dyn FnMut(usize) -> f64, theirs: &mut dyn FnMut(usize) -> f64) {
    let count = |once: f64| ((TURN / once) as usize).clamp(1, 1_000_000);
    let counts = [count(ours(1).max(1e-9)), count(theirs(1).max(1e-9))];
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        best = [best[0].min(ours(counts[0])), best[1].min(theirs(counts[1]))];
    }
    let [ours, theirs] = best;
    println!("{what:<38} {:>9.0} ns {:>9.0} ns {:>7.1}x {rival}", 1e9 * ours, 1e9 * theirs, theirs / ours);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, bootstrap, topic, count] = words.as_slice()
        && flag == "--consume"
    {
        return program::consume(bootstrap, topic, count.parse().expect("a number of records"));
    }
    let Ok(python) = std::env::var("PEERS_PYTHON") else {
        println!("nothing measured: PEERS_PYTHON is not set; use `make bench-peers`");
        return;
    };
    let mut peers = Peers::start(&python);
    println!("{:<38} {:>12} {:>12} {:>8}", "a record", "residua", "rival", "ratio");
    for shape in SHAPES {
        let mut network = Network::new(shape);
        let mut training = Training::new(shape);
        let shape = shape.map(|n| n.to_string()).join("-");
        compare(
            &format!("{shape} tanh, batches of {BATCH}"),
            "onnxruntime, one thread",
            &mut |count| timed(count.div_ceil(BATCH), || network.batch()) / BATCH as f64,
            &mut |count| peers.took(&format!("score {shape} {BATCH} {}", count.div_ceil(BATCH))),
        );
        compare(
            &format!("{shape} tanh, one at a time"),
            "onnxruntime, one thread",
            &mut |count| timed(count.div_ceil(BATCH), || network.alone()) / BATCH as f64,
            &mut |count| peers.took(&format!("score {shape} 1 {count}")),
        );
        compare(
            &format!("{shape} tanh, batches of {BATCH}"),
            "PyOD, decision_function, one thread",
            &mut |count| timed(count.div_ceil(BATCH), || network.batch()) / BATCH as f64,
            &mut |count| peers.took(&format!("pyod {shape} {BATCH} {}", count.div_ceil(BATCH))),
        );
        compare(
            &format!("{shape}, training, batches of {STEP}"),
            "torch, one thread, Adam",
            &mut |count| timed(count.div_ceil(STEP), || training.step()) / STEP as f64,
            &mut |count| peers.took(&format!("train {shape} {STEP} {}", count.div_ceil(STEP))),
        );
    }

    let schema =
        Schema::new((0..FIELDS).map(|field| name(field).parse().expect("a path")).collect()).expect("a schema");
    let mut decoder = Decoder::new(&InputSettings::default(), &schema).expect("a decoder");
    let (record, mut values) = (records().swap_remove(0), [0.0; FIELDS]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &record).expect("write the record");
    for rival in ["orjson", "msgspec"] {
        compare(
            &format!("JSON of {FIELDS} fields, {} bytes", record.len()),
            rival,
            &mut |count| timed(count, || assert!(decoder.decode(&raw(black_box(&record)), &mut values).is_ok())),
            &mut |count| peers.took(&format!("{rival} {} {count}", file.path().display())),
        );
    }
    println!();
    program::compare(&python);
}
