//! What scoring one record of 38 features costs: `Detector` in batches of 256 and one record at a time, against the arithmetic of
//! the profile `fast` as loops over `Vec<Vec<f32>>`.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use residua::detector::{Arrival, Detector, DetectorSettings, SeriesSettings};
use residua::incident::IncidentSettings;
use residua::model::{Auto, Model, ModelSettings, Profile, TrainingSource};
use residua::record::{EventTime, Offset, PartitionId, Position, Schema, Table};

const FEATURES: usize = 38;
const HIDDEN: usize = 24;
const CODE: usize = 8;
const BATCH: usize = 256;
const TRAINING: usize = 2_000;
const SERIES: [&str; 4] = ["pump-1", "pump-2", "pump-3", "pump-4"];

/// Each sensor remembers: records have an order in time, and all networks of the profile look at them.
fn records(rows: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut sensors = [0.0; FEATURES];
    let mut next = || {
        sensors = sensors.map(|v| 0.9 * v + rng.random_range(-1.0..1.0));
        sensors
    };
    (0..rows).flat_map(|_| next()).collect()
}

/// Records that have nothing to do with each other.
fn rows_of_a_table(rows: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..rows * FEATURES).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn detector(profile: Profile, of: fn(usize) -> Vec<f64>) -> Detector {
    let names = (0..FEATURES).map(|j| format!("s{j:02}").parse()).collect::<Result<_, _>>().expect("names are paths");
    let schema = Schema::new(names).expect("names are distinct");
    let table = Table { schema, values: of(TRAINING), series: vec![0; TRAINING], names: vec![] };
    let settings = ModelSettings {
        hidden: Auto::Fixed(HIDDEN),
        bottleneck: Auto::Fixed(CODE),
        steps: 50,
        ..ModelSettings::default()
    };
    let source = TrainingSource::File { name: "bench".to_owned(), rows: TRAINING };
    let model = Model::fit(&table, &settings, profile, source, &mut |_, _| ControlFlow::Continue(()))
        .expect("the table is large enough");
    Detector::new(
        Arc::new(model),
        &DetectorSettings::default(),
        &SeriesSettings::default(),
        &IncidentSettings::default(),
    )
}

fn arrival(record: usize) -> Arrival<'static> {
    let position = Position { partition: PartitionId(0), offset: Offset(record as i64) };
    Arrival { position, series: SERIES[record % SERIES.len()], time: EventTime(record as i64) }
}

/// Weights, one vector per output.
fn matrix(inputs: usize, outputs: usize) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    (0..outputs).map(|_| (0..inputs).map(|_| rng.random_range(-0.3..0.3)).collect()).collect()
}

fn dot(weights: &[Vec<f32>], input: &[f32]) -> Vec<f32> {
    weights.iter().map(|row| row.iter().zip(input).map(|(w, x)| w * x).sum()).collect()
}

/// Network, residual, and whitening of it and of its slow average, for one record, the way a first draft would do it.
fn naive(layers: &[Vec<Vec<f32>>; 4], whitening: &[Vec<f32>], record: &[f64]) -> f32 {
    let x: Vec<f32> = record.iter().map(|v| *v as f32).collect();
    let mut y = x.clone();
    for (l, weights) in layers.iter().enumerate() {
        y = dot(weights, &y);
        if l % 2 == 0 {
            y.iter_mut().for_each(|v| *v = v.max(0.0));
        }
    }
    let residual: Vec<f32> = y.iter().zip(&x).map(|(y, x)| y - x).collect();
    let square = |of: &[f32]| dot(whitening, of).iter().map(|w| w * w).sum::<f32>();
    let slow: Vec<f32> = residual.iter().map(|r| 0.03 * r).collect();
    square(&residual) + square(&slow)
}

fn score(c: &mut Criterion) {
    let mut group = c.benchmark_group("score 38 features");
    group.throughput(Throughput::Elements(BATCH as u64));
    let in_order = Profile::ALL.map(|profile| (profile.name(), profile, records as fn(usize) -> Vec<f64>));
    for (name, profile, of) in
        in_order.into_iter().chain([("without an order", Profile::Balanced, rows_of_a_table as _)])
    {
        let mut detector = detector(profile, of);
        assert_eq!(detector.model().ordered(), name != "without an order");
        let values = of(BATCH);
        let rows: Vec<&[f64]> = values.chunks_exact(FEATURES).collect();
        group.bench_function(format!("{name}, batch of 256"), |b| {
            b.iter(|| {
                for (i, row) in rows.iter().enumerate() {
                    detector.observe(arrival(i), row);
                }
                black_box(detector.judge().len())
            });
        });
        group.bench_function(format!("{name}, one at a time"), |b| {
            b.iter(|| {
                for (i, row) in rows.iter().enumerate() {
                    detector.observe(arrival(i), row);
                    black_box(detector.judge());
                }
            });
        });
    }
    let layers = [matrix(FEATURES, HIDDEN), matrix(HIDDEN, CODE), matrix(CODE, HIDDEN), matrix(HIDDEN, FEATURES)];
    let whitening = matrix(FEATURES, FEATURES);
    let values = records(BATCH);
    let rows: Vec<&[f64]> = values.chunks_exact(FEATURES).collect();
    group.bench_function("naive loops", |b| {
        b.iter(|| rows.iter().map(|row| naive(&layers, &whitening, row)).sum::<f32>());
    });
    group.finish();
}

criterion_group!(benches, score);
criterion_main!(benches);
