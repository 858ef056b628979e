//! Goal: whatever is cut off between two effects of the worker's loop, nothing is lost, nothing is told twice (or only word for
//! word), and every score and incident is that of a run that nothing disturbed.
//! Method: the core with a log, a state and outputs in memory, driven as `src/pipeline` drives it. Ten thousand seeds; each crashes
//! at its own effect and then at random ones, and now and then a transaction is aborted instead.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use residua::detector::{Arrival, Detector, DetectorSettings, SeriesSettings, Verdict};
use residua::incident::IncidentSettings;
use residua::model::{Auto, Model, ModelSettings, Profile, TrainingSource};
use residua::record::{EventTime, History, InputSettings, NextOffset, Offset, PartitionId, Position, RawRecord};

const SEEDS: u64 = 10_000;
const RECORDS: i64 = 40;
const PARTITION: PartitionId = PartitionId(0);

#[derive(Clone, Copy, PartialEq)]
enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

struct Record {
    series: String,
    time: EventTime,
    values: [f64; 3],
}

/// What survives a process.
#[derive(Default)]
struct Kafka {
    committed: i64,
    marker: Option<Vec<u8>>,
    states: BTreeMap<String, Vec<u8>>,
    lines: Vec<String>,
}

/// What is written and not yet committed.
#[derive(Default)]
struct Transaction {
    lines: Vec<String>,
    states: Vec<(String, Option<Vec<u8>>)>,
    marker: Option<Vec<u8>>,
}

/// The process is gone.
struct Crash;

/// Counts effects, and crashes at one of them.
struct Effects {
    done: usize,
    crash_at: usize,
}

impl Effects {
    fn next(&mut self) -> Result<(), Crash> {
        self.done += 1;
        if self.done == self.crash_at { Err(Crash) } else { Ok(()) }
    }
}

fn record(random: &mut impl Rng, load: &mut f64) -> [f64; 3] {
    *load = 0.8 * *load + random.random_range(-1.0..1.0);
    [1.0, -2.0, 0.5].map(|by| 10.0 + by * *load + random.random_range(-0.1..0.1))
}

fn model() -> Arc<Model> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut history, mut load) = (History::new(&InputSettings::default()).expect("sound settings"), 0.0);
    for offset in 0..600 {
        let [a, b, c] = record(&mut random, &mut load);
        let value = format!(r#"{{"a":{a},"b":{b},"c":{c}}}"#);
        let position = Position { partition: PARTITION, offset: Offset(offset) };
        let (key, value, timestamp_ms) = (Some(&b"s"[..]), Some(value.as_bytes()), Some(offset));
        history.push(&RawRecord { position, key, value, timestamp_ms, traceparent: None }).expect("a sound record");
    }
    let source = TrainingSource::File { name: "simulation".to_owned(), rows: 600 };
    let settings = ModelSettings { steps: 50, window: Auto::Fixed(2), ..ModelSettings::default() };
    let table = history.finish().expect("enough records");
    Arc::new(
        Model::fit(&table, &settings, Profile::Balanced, source, &mut |_, _| ControlFlow::Continue(()))
            .expect("enough records"),
    )
}

/// Series come and go, with gaps, late records and faults.
fn log(random: &mut impl Rng) -> Vec<Record> {
    let (mut load, mut clock) = (0.0, 0);
    (0..RECORDS)
        .map(|_| {
            clock += if random.random_bool(0.03) { 100_000 } else { random.random_range(-1_000..3_000) };
            let mut values = record(random, &mut load);
            if random.random_bool(0.2) {
                values[1] += 3.0;
            }
            let series = format!("s{}", random.random_range(0..4u8).min(random.random_range(0..4u8)));
            Record { series, time: EventTime(clock), values }
        })
        .collect()
}

struct Simulation {
    model: Arc<Model>,
    detector: DetectorSettings,
    series: SeriesSettings,
    incidents: IncidentSettings,
}

impl Simulation {
    /// One process from its start to the end of the log, or to a crash.
    fn run(
        &self,
        log: &[Record],
        kafka: &mut Kafka,
        delivery: Delivery,
        effects: &mut Effects,
        random: &mut impl Rng,
    ) -> Result<(), Crash> {
        let mut detector = Detector::new(Arc::clone(&self.model), &self.detector, &self.series, &self.incidents);
        let mut at = self.take_over(log, kafka, &mut detector);
        while at < RECORDS {
            let batch = at..(at + random.random_range(1..6)).min(RECORDS);
            let mut open = Transaction::default();
            for offset in batch.clone() {
                effects.next()?;
                observe(&mut detector, log, offset);
            }
            for line in judged(&mut detector, log, batch.start) {
                effects.next()?;
                let to = if delivery == Delivery::ExactlyOnce { &mut open.lines } else { &mut kafka.lines };
                to.push(line);
            }
            let next = batch.end;
            if kafka.marker.is_none() || random.random_bool(0.3) {
                let marker = detector.checkpoint(PARTITION, NextOffset(next), |series, state| {
                    open.states.push((series.to_owned(), state.map(<[u8]>::to_vec)));
                });
                open.marker = Some(marker);
            }
            effects.next()?;
            if random.random_bool(0.05) {
                // Aborted: the process lives on, and goes back to the last commit.
                detector.forget();
                at = self.take_over(log, kafka, &mut detector);
                continue;
            }
            kafka.commit(open, next);
            effects.next()?;
            at = next;
        }
        Ok(())
    }

    /// Restores and replays; where to go on.
    fn take_over(&self, log: &[Record], kafka: &Kafka, detector: &mut Detector) -> i64 {
        let mut from = kafka.committed;
        if let Some(marker) = &kafka.marker {
            let states = kafka.states.iter().map(|(name, state)| (name.as_str(), state.as_slice()));
            let (next, unreadable) =
                detector.restore(PARTITION, marker, states, NextOffset(kafka.committed)).expect("a sound checkpoint");
            assert_eq!(unreadable, 0);
            from = next.0;
            assert!(from <= kafka.committed, "a checkpoint beyond what is committed");
        } else {
            assert_eq!(kafka.committed, 0, "the first commit writes a checkpoint");
        }
        for offset in from..kafka.committed {
            observe(detector, log, offset);
        }
        detector.judge();
        kafka.committed
    }
}

impl Kafka {
    fn commit(&mut self, open: Transaction, next: i64) {
        self.lines.extend(open.lines);
        for (series, state) in open.states {
            match state {
                Some(bytes) => drop(self.states.insert(series, bytes)),
                None => drop(self.states.remove(&series)),
            }
        }
        self.marker = open.marker.or(self.marker.take());
        self.committed = next;
    }
}

fn observe(detector: &mut Detector, log: &[Record], offset: i64) {
    let Record { series, time, values } = &log[offset as usize];
    let position = Position { partition: PARTITION, offset: Offset(offset) };
    detector.observe(Arrival { position, series, time: *time }, values);
}

/// What is written of each record of the batch that begins at `first`.
fn judged(detector: &mut Detector, log: &[Record], first: i64) -> Vec<String> {
    let verdicts = detector.judge().to_vec();
    let mut lines = Vec::new();
    for (i, verdict) in verdicts.iter().enumerate() {
        let told: Vec<String> = detector
            .told()
            .iter()
            .filter(|told| told.index == Some(i))
            .map(|told| format!("{} {:?} {:?}", told.series, told.change, told.incident))
            .collect();
        let why = match verdict {
            Verdict::Warming => String::new(),
            Verdict::Scored { .. } => format!("{:?}", detector.explain(i).sensors),
        };
        lines.push(format!("{} {} {verdict:?} {told:?} {why}", first + i as i64, log[first as usize + i].series));
    }
    lines
}

#[test]
fn a_crash_between_any_two_effects_changes_nothing_of_what_is_written() {
    let simulation = Simulation {
        model: model(),
        // Generous, so that there are incidents.
        detector: DetectorSettings {
            alarms: "1 per 6 records".parse().expect("a budget"),
            ..DetectorSettings::default()
        },
        series: SeriesSettings { max: 3, idle: Duration::from_secs(40), gap: Duration::from_secs(50) },
        incidents: IncidentSettings {
            quiet: "3 records".parse().expect("a quiet time"),
            ..IncidentSettings::default()
        },
    };
    let (mut crashes, mut repeats, mut incidents, mut effects_seen) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let delivery = if seed % 2 == 0 { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let log = log(&mut random);
        let mut calm = Detector::new(
            Arc::clone(&simulation.model),
            &simulation.detector,
            &simulation.series,
            &simulation.incidents,
        );
        let mut expected: HashMap<String, String> = HashMap::new();
        for offset in 0..RECORDS {
            observe(&mut calm, &log, offset);
            let line = judged(&mut calm, &log, offset).remove(0);
            incidents += usize::from(line.contains("Opened"));
            expected.insert(offset.to_string(), line);
        }
        let mut kafka = Kafka::default();
        // Every effect of a whole run in turn, then some soon after one another.
        let mut crash_at = 1 + (seed / 2) as usize % 120;
        for _ in 0..4 {
            let mut effects = Effects { done: 0, crash_at };
            crashes += usize::from(simulation.run(&log, &mut kafka, delivery, &mut effects, &mut random).is_err());
            effects_seen = effects_seen.max(effects.done);
            crash_at = random.random_range(1..40);
        }
        let mut effects = Effects { done: 0, crash_at: usize::MAX };
        assert!(simulation.run(&log, &mut kafka, delivery, &mut effects, &mut random).is_ok());
        let mut written: HashMap<String, String> = HashMap::new();
        for line in kafka.lines {
            let offset = line.split(' ').next().expect("an offset").to_owned();
            assert_eq!(expected.get(&offset), Some(&line), "seed {seed}: wrong");
            let again = written.insert(offset, line).is_some();
            assert!(!again || delivery == Delivery::AtLeastOnce, "seed {seed}: repeated");
            repeats += usize::from(again);
        }
        assert_eq!(written.len(), expected.len(), "seed {seed}: lost");
    }
    assert!(crashes > 20_000 && effects_seen > 100, "{crashes} crashes, up to effect {effects_seen}");
    assert!(repeats > 1_000 && incidents > 10_000, "{repeats} repeats, {incidents} incidents: too few to tell");
}
