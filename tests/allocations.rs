//! Decoding, observing and judging take no memory per record once they run: what a record needs is there from the records before it.

use std::ops::ControlFlow;
use std::sync::Arc;

use residua::detector::{Arrival, Detector, DetectorSettings, SeriesSettings, Verdict};
use residua::incident::IncidentSettings;
use residua::model::{Model, ModelSettings, Profile, TrainingSource};
use residua::record::{Decoder, InputSettings, Offset, PartitionId, Position, RawRecord, Schema, Table};

const SERIES: usize = 50;
const FEATURES: usize = 8;
const BATCH: usize = 256;
/// The buffers find their size, and every series gets its thresholds.
const WARM_BATCHES: usize = 400;
const BATCHES: usize = 400;

/// Memory for what is told of an incident: its own, its parts, and those of the copy that is told.
const PER_TOLD: usize = 4;

/// A plant at work, with a machine that is off for a while now and then.
fn value(record: usize, feature: usize) -> f64 {
    let (series, step) = (record % SERIES, record / SERIES);
    let fault = if series == 7 && step % 500 > 480 { 9.0 } else { 0.0 };
    let noise = ((record * 31 + feature * 17) as f64 * 12.9898).sin() * 0.3;
    ((step as f64 / 10.0 + series as f64).sin() * (feature + 1) as f64) + noise + fault
}

/// The same without an order: records have nothing to do with each other.
fn row(record: usize, feature: usize) -> f64 {
    let fault = if record.is_multiple_of(2_003) { 9.0 } else { 0.0 };
    let random = ((record * FEATURES + feature) as f64 * 12.9898).sin() * 43_758.545_3;
    random - random.floor() + fault
}

fn message(record: usize, value: fn(usize, usize) -> f64) -> String {
    let members: Vec<String> = (0..FEATURES).map(|f| format!("\"s{f}\":{:.5}", value(record, f))).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn a_record_takes_no_memory_in_steady_state() {
    takes_no_memory(value, SERIES, true);
    takes_no_memory(row, 1, false);
}

/// The records of `value`, of which every so many-th is learned from.
fn takes_no_memory(value: fn(usize, usize) -> f64, every: usize, ordered: bool) {
    let names = (0..FEATURES).map(|f| format!("s{f}").parse().expect("a path")).collect();
    let schema = Schema::new(names).expect("names are distinct");
    let rows = 2_000;
    let table = Table {
        schema,
        values: (0..rows).flat_map(|row| (0..FEATURES).map(move |f| value(row * every, f))).collect(),
        series: vec![0; rows],
        names: vec![],
    };
    let source = TrainingSource::File { name: "here".to_owned(), rows };
    let model =
        Model::fit(&table, &ModelSettings::default(), Profile::Balanced, source, &mut |_, _| ControlFlow::Continue(()))
            .expect("a model");
    assert_eq!(model.ordered(), ordered);
    let model = Arc::new(model);
    let mut decoder = Decoder::new(&InputSettings::default(), model.schema()).expect("a decoder");
    let mut detector = Detector::new(
        Arc::clone(&model),
        &DetectorSettings::default(),
        &SeriesSettings::default(),
        &IncidentSettings::default(),
    );
    let names: Vec<String> = (0..SERIES).map(|s| format!("machine-{s}")).collect();
    let messages: Vec<String> = (0..(WARM_BATCHES + BATCHES) * BATCH).map(|record| message(record, value)).collect();
    let mut values = vec![0.0; FEATURES];
    let mut run = |batches: std::ops::Range<usize>| {
        let (mut flagged, mut told) = (0, 0);
        for record in batches.start * BATCH..batches.end * BATCH {
            let raw = RawRecord {
                position: Position { partition: PartitionId(0), offset: Offset(record as i64) },
                key: Some(names[record % SERIES].as_bytes()),
                value: Some(messages[record].as_bytes()),
                timestamp_ms: Some((record / SERIES) as i64 * 60_000),
                traceparent: None,
            };
            let decoded = decoder.decode(&raw, &mut values).expect("a record");
            detector.observe(Arrival { position: raw.position, series: &decoded.series, time: decoded.time }, &values);
            if (record + 1) % BATCH == 0 {
                let is_flagged = |v: &&Verdict| matches!(v, Verdict::Scored { flagged: true, .. });
                flagged += detector.judge().iter().filter(is_flagged).count();
                told += detector.told().len();
            }
        }
        (flagged, told)
    };
    run(0..WARM_BATCHES);
    let (mut flagged, mut told) = (0, 0);
    let taken = allocation_counter::measure(|| (flagged, told) = run(WARM_BATCHES..WARM_BATCHES + BATCHES));
    println!("{taken:?} for {} records, {flagged} flagged, {told} told", BATCHES * BATCH);
    assert!(flagged > 0 && told > 0, "nothing was found, which may take memory");
    assert!(taken.count_total <= (PER_TOLD * told) as u64, "{taken:?}");
    // An incident that was open before may have ended.
    assert!(taken.count_current <= 0, "{taken:?}");
}
