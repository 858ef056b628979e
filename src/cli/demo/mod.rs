//! `residua demo`: a simulated plant with labelled faults, an embedded broker, and the very service of `run`.
//!
//! The plant is written to a topic as fast as the demo tells it; the service learns from its first part and scores the
//! rest; the demo reads the anomalies topic as anybody would, and compares it with the faults it injected.

mod faults;
mod plant;
mod pump;
mod sensors;
mod sheet;
mod show;
mod tally;
#[cfg(test)]
mod trial;
mod wire;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use plant::{Plant, RUN_RECORDS, TRAINING_RECORDS};
use show::Style;
use tally::{Flagged, Tally};

use crate::config::{Config, Loaded};
use crate::kafka::{self, EmbeddedBroker, KafkaSettings, Outgoing, Output, TopicReader};
use crate::service::{Service, Stage, unreachable, wait_for_end};

const INPUT: &str = "plant";
const PARTITIONS: i32 = 3;
/// Where `--serve` listens: the built-in default, which a Prometheus configuration names.
const USUAL_ADDRESS: &str = "127.0.0.1:9464";
/// How long the scored part of the stream takes to arrive.
const STREAM_TIME: Duration = Duration::from_secs(30);
/// Records written between two pauses of the paced stream.
const BURST: usize = 60;
/// Longest the demo may take, whatever happens.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Longest wait for an alert before looking at the clock.
const LOOK: Duration = Duration::from_millis(50);
/// After the last record is scored, the time in which the last alerts must have arrived.
const LAST_ALERTS: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    /// Of the plant, its faults and the model
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the summary as one JSON object on standard output, everything else on standard error
    #[arg(long)]
    json: bool,
    /// Keep the plant and residua running after the summary, for Prometheus and Grafana, until interrupted; at this address, where
    /// Prometheus looks
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = USUAL_ADDRESS)]
    serve: Option<String>,
    /// Only the plant: its records to topic `plant` of this Kafka, for a residua of your own, until interrupted
    #[arg(long, value_name = "BROKERS", conflicts_with_all = ["json", "serve"])]
    plant_to: Option<String>,
    /// Only the plant: 30000 records as a CSV file, the first 12096 without a fault, with a column `label`, for `train`, `backtest`, `project`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "serve", "plant_to"])]
    plant_file: Option<PathBuf>,
    /// The same file as it would be if no sensor added noise: the truth for `denoise`
    #[arg(long, requires = "plant_file")]
    without_noise: bool,
}

/// Runs the demo. Fails only if it could not run: a fault that is not found is a result.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(file) = &args.plant_file {
        let written = || format!("write {}", file.display());
        let out = io::BufWriter::new(File::create(file).with_context(written)?);
        let noise = if args.without_noise { 0.0 } else { 1.0 };
        return sheet::write(Plant::with_noise(args.seed, noise), out).with_context(written);
    }
    if let Some(brokers) = &args.plant_to {
        return plant_to(brokers, args.seed);
    }
    let broker = EmbeddedBroker::start()?;
    let loaded = configure(broker.address(), args.seed, args.serve.as_deref())?;
    super::log::start(&loaded.config.log);
    for topic in loaded.config.kafka.topics() {
        broker.create_topic(topic.name, topic.partitions.unwrap_or(PARTITIONS))?;
    }
    let mut screen = Screen::new(args.json);
    screen.say(&format!(
        "residua demo: 6 pumps with 10 sensors each, simulated; 10 faults hidden in the stream (seed {}).\n\
         Broker in this process at {}; nothing was installed, nothing is kept.",
        args.seed,
        broker.address()
    ))?;
    let kafka = loaded.config.kafka.clone();
    let mut plant = Plant::new(args.seed);
    write_training(&kafka, &mut plant)?;
    let service = Service::start(loaded.config)?;
    let metrics_url = service.http_address().map(|a| format!("http://{a}/metrics")).unwrap_or_default();
    let ended = watch(args, &kafka, plant, &service, &mut screen, &metrics_url);
    service.stop();
    let stopped = service.join();
    ended?;
    stopped?;
    Ok(())
}

/// The plant alone, to a Kafka that has the topic.
fn plant_to(brokers: &str, seed: u64) -> anyhow::Result<()> {
    let loaded = configure(brokers.to_owned(), seed, None)?;
    super::log::start(&loaded.config.log);
    let kafka = loaded.config.kafka;
    kafka::reachable(&kafka, kafka.request_timeout).map_err(|cause| unreachable(brokers.to_owned(), cause))?;
    let mut plant = Plant::new(seed);
    write_training(&kafka, &mut plant)?;
    println!("{TRAINING_RECORDS} records without a fault are in topic {INPUT}; now the stream. Stop with Ctrl-C.");
    let stream = Stream::start(&kafka, plant, RUN_RECORDS - TRAINING_RECORDS, true);
    wait_for_end(|| stream.thread.is_finished())?;
    stream.end()
}

/// The configuration of `run`, with what a plant in a minute needs.
fn configure(brokers: String, seed: u64, serve: Option<&str>) -> anyhow::Result<Loaded> {
    // Nobody needs to know the port of a run that ends in a minute; Prometheus does.
    let listen = serve.unwrap_or("127.0.0.1:0");
    let settings = [
        ("KAFKA__BROKERS", brokers),
        ("KAFKA__INPUT", INPUT.to_owned()),
        ("INPUT__TIMESTAMP_FIELD", "time".to_owned()),
        ("LEARNING__HISTORY", "0s".to_owned()),
        ("LEARNING__MIN_RECORDS", TRAINING_RECORDS.to_string()),
        ("MODEL__SEED", seed.to_string()),
        // About three false alarms a year: the plant sends 1,728 records a day.
        ("DETECTOR__ALARMS", "1 per 200000 records".to_owned()),
        ("HTTP__LISTEN", listen.to_owned()),
        ("METRICS__SENSORS", "20".to_owned()),
        ("LOG__LEVEL", "warn".to_owned()),
    ];
    let settings = settings.into_iter().map(|(key, value)| (format!("RESIDUA__{key}"), value));
    Ok(Config::load(None, settings)?)
}

/// Where the demo prints.
struct Screen {
    out: Box<dyn Write>,
    style: Style,
    json: bool,
}

impl Screen {
    fn new(json: bool) -> Screen {
        let terminal = if json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let style = Style::choose(terminal, std::env::var("NO_COLOR").ok().as_deref());
        let out: Box<dyn Write> = if json { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        Screen { out, style, json }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }
}

/// A producer for the plant's own records: no transactions, it is not residua's.
fn plant_output(kafka: &KafkaSettings) -> anyhow::Result<Output> {
    Ok(Output::plain(kafka)?)
}

fn write_one(output: &mut Output, plant: &mut Plant) -> anyhow::Result<()> {
    let record = plant.next().context("the plant is endless")?;
    let key = wire::pump_name(record.pump);
    let (key, value) = (Some(key.as_bytes()), Some(record.json.as_slice()));
    output.send(Outgoing { topic: INPUT, key, value, timestamp_ms: Some(record.time_ms), ..Outgoing::default() })?;
    Ok(())
}

fn write_training(kafka: &KafkaSettings, plant: &mut Plant) -> anyhow::Result<()> {
    let mut output = plant_output(kafka)?;
    output.begin()?;
    for _ in 0..TRAINING_RECORDS {
        write_one(&mut output, plant)?;
    }
    output.commit_alone()?;
    output.close();
    Ok(())
}

/// The plant goes on, at an even pace, on a thread of its own.
struct Stream {
    thread: JoinHandle<anyhow::Result<()>>,
    written: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Stream {
    /// Writes `first` records, and then on and on if `endless`.
    fn start(kafka: &KafkaSettings, mut plant: Plant, first: usize, endless: bool) -> Stream {
        let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended, kafka) = (Arc::clone(&written), Arc::clone(&stop), kafka.clone());
        let pause = STREAM_TIME.mul_f64(BURST as f64 / first as f64);
        let thread = std::thread::spawn(move || {
            let mut output = plant_output(&kafka)?;
            let begun = Instant::now();
            let mut bursts = 0;
            while !ended.load(Ordering::Relaxed) && (endless || count.load(Ordering::Relaxed) < first) {
                output.begin()?;
                for _ in 0..BURST.min(if endless { BURST } else { first - count.load(Ordering::Relaxed) }) {
                    write_one(&mut output, &mut plant)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                output.commit_alone()?;
                bursts += 1;
                std::thread::sleep((begun + pause * bursts).saturating_duration_since(Instant::now()));
            }
            output.close();
            Ok(())
        });
        Stream { thread, written, stop }
    }

    fn end(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| bail!("the plant's thread panicked"))
    }
}

fn watch(
    args: &Args,
    kafka: &KafkaSettings,
    plant: Plant,
    service: &Service,
    screen: &mut Screen,
    metrics_url: &str,
) -> anyhow::Result<()> {
    screen.say(&format!("Learning from the first {TRAINING_RECORDS} records; metrics at {metrics_url}"))?;
    let deadline = Instant::now() + TIME_MAX;
    wait_until(deadline, service, "learn", || service.learning().stage == Stage::Done && service.ready())?;
    let model = service.model().context("a model in force")?;
    screen.say(&format!(
        "Learned model {} with {} features. Now the stream, and what residua makes of it:\n",
        model.fingerprint(),
        model.schema().len()
    ))?;

    let faults = plant.faults().to_vec();
    let scored_records = RUN_RECORDS - TRAINING_RECORDS;
    let reader = TopicReader::at_beginning(kafka, &kafka.anomalies, PARTITIONS)?;
    let stream = Stream::start(kafka, plant, scored_records, args.serve.is_some());
    // The first records of each pump only fill its window.
    let judged = || {
        let [_, scored, warming, _] = service.metrics().totals();
        scored + warming
    };
    let mut tally = Tally::default();
    let mut all_scored: Option<Instant> = None;
    while all_scored.is_none_or(|at| at.elapsed() < LAST_ALERTS) {
        if service.stopping() || Instant::now() > deadline {
            bail!("the demo did not end in time: {} of {scored_records} records judged", judged());
        }
        if args.serve.is_none()
            && stream.thread.is_finished()
            && stream.written.load(Ordering::Relaxed) < scored_records
        {
            stream.end().context("write the plant's records")?;
            bail!("the plant ended early");
        }
        if let Some(bytes) = reader.next(LOOK) {
            let alert: Flagged = serde_json::from_slice(&bytes).context("read an alert")?;
            if let Some(place) = tally.flag(&alert)? {
                show::incident(&mut screen.out, screen.style, &alert, tally::fault_behind(&faults, place))?;
            }
        } else if all_scored.is_none() && judged() >= scored_records as u64 {
            all_scored = Some(Instant::now());
        }
    }
    let records = TRAINING_RECORDS as u64 + judged();
    let summary = tally.summary(&faults, records);
    screen.say("")?;
    show::table(&mut screen.out, screen.style, &summary)?;
    screen.say(&format!("metrics while it ran: {metrics_url}"))?;
    if screen.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    if args.serve.is_some() {
        let page = metrics_url.trim_end_matches("metrics");
        screen.say(&format!("Still running, with new faults now and then; live at {page}. Stop with Ctrl-C."))?;
        service.wait_for_signal(None)?;
    }
    debug_assert!(stream.written.load(Ordering::Relaxed) >= scored_records);
    stream.end()
}

fn wait_until(deadline: Instant, service: &Service, what: &str, done: impl Fn() -> bool) -> anyhow::Result<()> {
    while !done() {
        if service.stopping() {
            bail!("the service ended before it could {what}");
        }
        if Instant::now() > deadline {
            bail!("the service did not {what} in time");
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
