//! Goal: whatever bytes arrive, a record is judged with finite numbers or refused with a reason, and nothing panics.
//! Method: a million payloads from a seeded generator (mutated records, random bytes) through decoder and detector.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use residua::detector::{Arrival, Detector, DetectorSettings, SeriesSettings, Verdict};
use residua::incident::IncidentSettings;
use residua::model::{Model, ModelSettings, Profile, TrainingSource};
use residua::record::{Decoder, History, InputSettings, Offset, PartitionId, Position, RawRecord, Refusal};

const PAYLOADS: i64 = 1_000_000;
const BATCH: usize = 256;
/// A reason is a header of the dead letter: it must not grow with what is refused.
const REASON_BYTES_MAX: usize = 1_024;
const PIECES: [&str; 24] = [
    "null",
    "true",
    "1e400",
    "-1e308",
    "1e-400",
    "NaN",
    "Infinity",
    "\"1.5\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "{\"a\":",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{10ffff}",
    "\"",
    ",",
    ":",
    "}",
    "]",
    "-0",
    "9007199254740993",
    "{\"motor\":{\"temp\":1}}",
];

/// The next record of a plant whose `load` has a memory.
fn record(load: &mut f64, random: &mut impl Rng) -> Vec<u8> {
    *load = 0.9 * *load + random.random_range(-0.1..0.1);
    let load = *load;
    let mut noise = || random.random_range(-0.05..0.05);
    format!(
        r#"{{"flow":{:.4},"motor":{{"current":{:.4},"temp":{:.3}}},"site":"north","valve":{},"machine":"pump-{}"}}"#,
        10.0 + load + noise(),
        5.0 - 2.0 * load + noise(),
        40.0 + 3.0 * load + noise(),
        load > 0.0,
        (load * 10.0) as i64,
    )
    .into_bytes()
}

fn raw<'a>(offset: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>, timestamp_ms: Option<i64>) -> RawRecord<'a> {
    let position = Position { partition: PartitionId(0), offset: Offset(offset) };
    RawRecord { position, key, value, timestamp_ms, traceparent: None }
}

/// Some bytes are changed, cut, doubled, or replaced by what parsers stumble over.
fn mutate(bytes: &mut Vec<u8>, random: &mut impl Rng) {
    for _ in 0..random.random_range(0..4) {
        let (from, to) = (random.random_range(0..=bytes.len()), random.random_range(0..=bytes.len()));
        let span = from.min(to)..from.max(to);
        match random.random_range(0..6) {
            0 => bytes[span].iter_mut().take(4).for_each(|b| *b = random.random()),
            1 => drop(bytes.drain(span)),
            2 => bytes.truncate(from),
            3 => {
                let copy = bytes[span].to_vec();
                bytes.splice(from..from, copy);
            }
            4 => {
                let piece = PIECES[random.random_range(0..PIECES.len())].as_bytes();
                bytes.splice(from..from, piece.iter().copied());
            }
            _ => {
                // In the place of a number, so that what is around it stays sound.
                let digits = |b: &u8| b.is_ascii_digit() || *b == b'.';
                let Some(start) = bytes.iter().skip(from).position(digits).map(|at| at + from) else { continue };
                let end = bytes[start..].iter().position(|b| !digits(b)).map_or(bytes.len(), |n| start + n);
                let piece = PIECES[random.random_range(0..PIECES.len())].as_bytes();
                bytes.splice(start..end, piece.iter().copied());
            }
        }
        bytes.truncate(4_096);
    }
}

fn model(settings: &InputSettings, random: &mut impl Rng) -> Arc<Model> {
    let mut history = History::new(settings).expect("sound settings");
    let mut load = 0.0;
    for offset in 0..2_000 {
        history
            .push(&raw(offset, Some(b"pump"), Some(&record(&mut load, random)), Some(offset)))
            .expect("a sound record");
    }
    let table = history.finish().expect("enough records");
    let source = TrainingSource::File { name: "fuzz".to_owned(), rows: 2_000 };
    let training = ModelSettings { steps: 100, ..ModelSettings::default() };
    Arc::new(
        Model::fit(&table, &training, Profile::Balanced, source, &mut |_, _| ControlFlow::Continue(()))
            .expect("enough records"),
    )
}

#[test]
fn a_million_payloads_are_each_judged_or_refused_once() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let settings = InputSettings::default();
    let model = model(&settings, &mut random);
    assert!(model.ordered());
    let mut decoder = Decoder::new(&settings, model.schema()).expect("the model's features");
    let series = SeriesSettings { max: 1_000, ..SeriesSettings::default() };
    let mut detector =
        Detector::new(Arc::clone(&model), &DetectorSettings::default(), &series, &IncidentSettings::default());
    let mut values = vec![0.0; model.schema().len()];
    let (mut judged, mut scored, mut refused, mut waiting) = (0i64, 0i64, BTreeMap::<&str, i64>::new(), 0);
    let mut load = 0.0;
    for offset in 0..PAYLOADS {
        let mut payload = match random.random_range(0..20) {
            0 => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
            _ => record(&mut load, &mut random),
        };
        mutate(&mut payload, &mut random);
        let mut key = b"pump-1".to_vec();
        if random.random_range(0..10) == 0 {
            mutate(&mut key, &mut random);
        }
        let value = (random.random_range(0..1_000) != 0).then_some(payload.as_slice());
        let time = (random.random_range(0..1_000) != 0).then(|| random.random::<i64>() >> random.random_range(0..64));
        let raw = raw(offset, Some(&key), value, time);
        match decoder.decode(&raw, &mut values) {
            Ok(decoded) => {
                let arrival = Arrival { position: raw.position, series: &decoded.series, time: decoded.time };
                detector.observe(arrival, &values);
                waiting += 1;
            }
            Err(refusal) => {
                let why = refusal.to_string();
                assert!(!why.is_empty() && why.len() <= REASON_BYTES_MAX, "{} bytes: {why}", why.len());
                *refused.entry(refusal.reason()).or_default() += 1;
            }
        }
        if waiting == BATCH || offset == PAYLOADS - 1 {
            let verdicts = detector.judge();
            assert_eq!(verdicts.len(), waiting);
            for verdict in verdicts {
                // The others are the first of their series.
                if let Verdict::Scored { score, .. } = verdict {
                    assert!(score.is_finite() && *score >= 0.0, "{score}");
                    scored += 1;
                }
            }
            judged += waiting as i64;
            waiting = 0;
        }
    }
    assert!(detector.series_count() <= 1_000);
    assert_eq!(judged + refused.values().sum::<i64>(), PAYLOADS);
    assert!(scored > PAYLOADS / 10 && refused.len() > 6, "the generator is too tame: {scored} scored, {refused:?}");
    assert!(refused.keys().all(|reason| Refusal::REASONS.contains(reason)));
}
