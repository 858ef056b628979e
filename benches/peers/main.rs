//! residua against its limits and what people use from Python, its parts and the whole program: a table of ratios. `make bench-peers` installs
//! the libraries into a virtual environment and runs this; PEERS_PYTHON is its interpreter. The whole program needs Kafka, which is started.
//!
//! Ours and theirs take turns, each for a few milliseconds, and the best of each counts. Without PEERS_PYTHON nothing is measured.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

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
mod table;
#[path = "../support/training.rs"]
mod training;

use network::{BATCH, Network, SHAPES, multiply_adds, peak, timed};
use record::{FIELDS, decode_by_value, name, raw, records};
use table::Goal;
use training::{STEP, Training};

const ROUNDS: usize = 30;
/// Seconds that one turn takes, about.
const TURN: f64 = 0.02;

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
fn compare(
    what: &str,
    rival: &str,
    goal: Goal,
    ours: &mut dyn FnMut(usize) -> f64,
    theirs: &mut dyn FnMut(usize) -> f64,
) {
    let count = |once: f64| ((TURN / once) as usize).clamp(1, 1_000_000);
    let counts = [count(ours(1).max(1e-9)), count(theirs(1).max(1e-9))];
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        best = [best[0].min(ours(counts[0])), best[1].min(theirs(counts[1]))];
    }
    table::line(what, rival, best[0], best[1], goal);
}

/// The goals of a shape: share of the peak; times as fast as onnxruntime in batches and one at a time; as PyOD; as torch.
const GOALS: [[f64; 5]; 3] =
    [[0.6, 2.5, 40.0, 100.0, 25.0], [0.75, 1.4, 10.0, 100.0, 10.0], [0.85, 1.15, 4.0, 100.0, 4.5]];

fn networks(peers: &mut Peers) {
    for (shape, [of_peak, batches, alone, pyod, training]) in SHAPES.into_iter().zip(GOALS) {
        let (mut network, mut trained) = (Network::new(shape), Training::new(shape));
        let most = multiply_adds(shape) as f64;
        let shape = shape.map(|n| n.to_string()).join("-");
        let [in_batches, one_by_one] =
            [format!("{shape} tanh, batches of {BATCH}"), format!("{shape} tanh, one at a time")];
        let mut batch = |count: usize| timed(count.div_ceil(BATCH), || network.batch()) / BATCH as f64;
        compare(&in_batches, "multiply-adds of one core at most", Goal::Share(of_peak), &mut batch, &mut |_| {
            most * peak()
        });
        compare(&in_batches, "onnxruntime, one thread", Goal::Faster(batches), &mut batch, &mut |count| {
            peers.took(&format!("score {shape} {BATCH} {}", count.div_ceil(BATCH)))
        });
        compare(&in_batches, "PyOD, decision_function, one thread", Goal::Faster(pyod), &mut batch, &mut |count| {
            peers.took(&format!("pyod {shape} {BATCH} {}", count.div_ceil(BATCH)))
        });
        compare(
            &one_by_one,
            "onnxruntime, one thread",
            Goal::Faster(alone),
            &mut |count| timed(count.div_ceil(BATCH), || network.alone()) / BATCH as f64,
            &mut |count| peers.took(&format!("score {shape} 1 {count}")),
        );
        compare(
            &format!("{shape}, training, batches of {STEP}"),
            "torch, one thread, Adam",
            Goal::Faster(training),
            &mut |count| timed(count.div_ceil(STEP), || trained.step()) / STEP as f64,
            &mut |count| peers.took(&format!("train {shape} {STEP} {}", count.div_ceil(STEP))),
        );
    }
}

fn decoding(peers: &mut Peers) {
    let names: Vec<String> = (0..FIELDS).map(name).collect();
    let schema = Schema::new(names.iter().map(|name| name.parse().expect("a path")).collect()).expect("a schema");
    let mut decoder = Decoder::new(&InputSettings::default(), &schema).expect("a decoder");
    let (records, mut values, mut tree, mut at) = (records(), [0.0; FIELDS], [0.0; FIELDS], 0);
    let json = format!("JSON of {FIELDS} fields, {} bytes", records[0].len());
    let mut stable =
        |count| timed(count, || assert!(decoder.decode(&raw(black_box(&records[0])), &mut values).is_ok()));
    let mut by_value = |count| timed(count, || decode_by_value(black_box(&records[0]), &names, black_box(&mut tree)));
    compare(&json, "serde_json Value", Goal::Faster(10.0), &mut stable, &mut by_value);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &records[0]).expect("write the record");
    for (rival, goal) in [("orjson", 5.0), ("msgspec", 3.0)] {
        compare(&json, &format!("{rival}, to a list of values"), Goal::Faster(goal), &mut stable, &mut |count| {
            peers.took(&format!("{rival} {} {count}", file.path().display()))
        });
    }
    let mut any_order = |count| {
        timed(count, || {
            at = (at + 1) % records.len();
            assert!(decoder.decode(&raw(black_box(&records[at])), &mut values).is_ok());
        })
    };
    let what = format!("{json}, keys in any order");
    compare(&what, "serde_json Value", Goal::Faster(6.0), &mut any_order, &mut by_value);
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
    table::head();
    networks(&mut peers);
    decoding(&mut peers);
    program::compare(&python);
}
