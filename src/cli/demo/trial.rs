//! Tests of the plant as a whole: what a run must be like for its faults to be a fair trial. Method: whole runs of several
//! seeds, read back from their JSON, beside the same runs without faults.

use super::faults::{FAULTS, Fault, FaultKind, GAP_STEPS};
use super::plant::{Plant, PlantRecord, RUN_RECORDS, RUN_STEPS, TRAINING_STEPS};
use super::sensors::{Reading, SENSORS, Sensor};
use super::wire::PUMPS;

/// A run with what a reader gets of it: NaN where a reading is missing.
struct Run {
    faults: Vec<Fault>,
    records: Vec<PlantRecord>,
    readings: Vec<Reading>,
}

impl Run {
    fn of(plant: &mut Plant) -> Run {
        let records: Vec<PlantRecord> = plant.by_ref().take(RUN_RECORDS).collect();
        let readings = records.iter().map(|record| parse(&record.json)).collect();
        Run { faults: plant.faults().to_vec(), records, readings }
    }

    fn faulty(seed: u64) -> Run {
        Run::of(&mut Plant::new(seed))
    }

    fn sound(seed: u64) -> Run {
        Run::of(&mut Plant::without_faults(seed))
    }

    fn reading(&self, pump: usize, step: usize) -> &Reading {
        &self.readings[step * PUMPS + pump]
    }

    /// What a sensor read in the given steps, of all pumps.
    fn column(&self, sensor: Sensor, steps: std::ops::Range<usize>) -> Vec<f64> {
        let rows = &self.readings[steps.start * PUMPS..steps.end * PUMPS];
        rows.iter().map(|row| row[sensor as usize]).filter(|value| !value.is_nan()).collect()
    }
}

fn parse(json: &[u8]) -> Reading {
    let record: serde_json::Value = serde_json::from_slice(json).unwrap();
    Sensor::ALL.map(|sensor| {
        let value = sensor.path().split('.').try_fold(&record, |value, name| value.get(name));
        value.and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN)
    })
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let number = values.len() as f64;
    let mean = values.iter().sum::<f64>() / number;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / number;
    (mean, variance.sqrt())
}

#[test]
fn missing_readings_leave_a_null_or_nothing_and_valid_json() {
    let run = Run::faulty(11);
    let missing = run.readings.iter().flatten().filter(|value| value.is_nan()).count();
    let nulls: usize =
        run.records.iter().map(|record| String::from_utf8_lossy(&record.json).matches("null").count()).sum();
    let readings = (RUN_RECORDS * SENSORS) as f64;
    let (missing, nulls) = (missing as f64 / readings, nulls as f64 / readings);
    assert!((0.0045..0.0055).contains(&missing), "{missing}");
    assert!((0.0022..0.0028).contains(&nulls), "{nulls}");
}

#[test]
fn records_are_about_250_bytes() {
    let sizes: Vec<usize> = Plant::new(5).take(RUN_RECORDS).map(|record| record.json.len()).collect();
    let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    assert!((240.0..275.0).contains(&mean), "{mean}");
    assert!(sizes.iter().all(|size| (150..300).contains(size)));
}

#[test]
fn the_training_part_is_sound_and_later_labels_are_the_faults() {
    for seed in 0..5 {
        let run = Run::faulty(seed);
        assert_eq!(run.faults.len(), FAULTS);
        assert!(run.faults.iter().all(|fault| fault.start >= TRAINING_STEPS + GAP_STEPS));
        for record in &run.records {
            let fault = run.faults.iter().position(|fault| fault.pump == record.pump && fault.is_active(record.step));
            assert_eq!(record.fault, fault);
            assert!(record.step >= TRAINING_STEPS || fault.is_none());
        }
    }
}

/// A week against the next one, without faults: means within 3 % of the normal range, spread within 5 %.
#[test]
fn the_plant_is_stationary() {
    for seed in 0..5 {
        let run = Run::sound(seed);
        for sensor in Sensor::ALL {
            let (mean, deviation) = mean_and_deviation(&run.column(sensor, 0..TRAINING_STEPS));
            let (later, spread) = mean_and_deviation(&run.column(sensor, TRAINING_STEPS..2 * TRAINING_STEPS));
            let moved = (later - mean) / sensor.span();
            assert!(moved.abs() < 0.03, "seed {seed} {sensor:?}: mean {mean} then {later}");
            assert!((spread / deviation - 1.0).abs() < 0.05, "seed {seed} {sensor:?}: {deviation} then {spread}");
        }
    }
}

#[test]
fn sound_sensors_use_their_normal_range_and_hardly_leave_it() {
    for seed in 0..5 {
        let run = Run::sound(seed);
        for sensor in Sensor::ALL {
            let (low, high) = sensor.normal();
            let values = run.column(sensor, 0..RUN_STEPS);
            let outside = values.iter().filter(|value| !(low..=high).contains(*value)).count();
            assert!(outside * 250 < values.len(), "seed {seed} {sensor:?}: {outside} of {}", values.len());
            let tenth = sensor.span() / 10.0;
            let low_ones = values.iter().filter(|value| **value < low + tenth).count();
            let high_ones = values.iter().filter(|value| **value > high - tenth).count();
            assert!(low_ones > 20 && high_ones > 20, "seed {seed} {sensor:?}: {low_ones} low, {high_ones} high");
        }
    }
}

#[test]
fn sensors_follow_the_load_together() {
    let run = Run::sound(2);
    let load: Vec<f64> = run.readings.iter().map(|row| row[Sensor::Speed as usize]).collect();
    for sensor in
        [Sensor::Valve, Sensor::Flow, Sensor::Current, Sensor::Discharge, Sensor::Vibration, Sensor::MotorTemperature]
    {
        let pairs = load.iter().zip(&run.readings).map(|(load, row)| (*load, row[sensor as usize]));
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.filter(|(x, y)| !x.is_nan() && !y.is_nan()).unzip();
        let ((mean_x, sd_x), (mean_y, sd_y)) = (mean_and_deviation(&x), mean_and_deviation(&y));
        let covariance = x.iter().zip(&y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / x.len() as f64;
        let correlation = covariance / (sd_x * sd_y);
        assert!(correlation > 0.9, "{sensor:?}: {correlation}");
    }
}

/// Against the same plant without its faults: nothing else differs, and every fault moves a sensor by a fifth of its normal range.
#[test]
fn faults_change_their_sensors_and_nothing_else() {
    for seed in 0..5 {
        let (faulty, sound) = (Run::faulty(seed), Run::sound(seed));
        let near = |pump: usize, step: usize| {
            let cooling = |fault: &Fault| {
                if fault.kind == FaultKind::DyingPump { GAP_STEPS } else { 0 }
            };
            faulty
                .faults
                .iter()
                .any(|fault| fault.pump == pump && (fault.start..fault.end + cooling(fault)).contains(&step))
        };
        for (with, without) in faulty.records.iter().zip(&sound.records) {
            assert!(with.json == without.json || near(with.pump, with.step), "seed {seed}: {with:?}");
        }
        for fault in &faulty.faults {
            let steps = fault.start..fault.end;
            let largest = |&sensor: &Sensor| {
                let read = |run: &Run, step| run.reading(fault.pump, step)[sensor as usize];
                let change = |step| (read(&faulty, step) - read(&sound, step)).abs() / sensor.span();
                steps.clone().map(change).fold(0.0, f64::max)
            };
            let changes: Vec<f64> = fault.sensors.iter().map(largest).collect();
            let most = changes.iter().copied().fold(0.0, f64::max);
            // The vibration of a dying pump more than doubles.
            let limit = if fault.kind == FaultKind::DyingPump { 3.5 } else { 1.0 };
            assert!((0.2..limit).contains(&most), "seed {seed}: {changes:?} by {fault:?}");
            assert!(changes.iter().all(|change| *change > 0.05), "seed {seed}: {changes:?} by {fault:?}");
        }
    }
}

#[test]
fn a_broken_correlation_leaves_every_sensor_in_its_normal_range() {
    let (mut readings, mut outside) = (0, 0);
    for seed in 0..20 {
        let run = Run::faulty(seed);
        for fault in run.faults.iter().filter(|fault| fault.kind == FaultKind::BrokenCorrelation) {
            for step in fault.start..fault.end {
                let reading = run.reading(fault.pump, step);
                for sensor in Sensor::ALL {
                    let ((low, high), value) = (sensor.normal(), reading[sensor as usize]);
                    let inside = value.is_nan() || (low..=high).contains(&value);
                    assert!(inside || !fault.sensors.contains(&sensor), "seed {seed}: {value} in {fault:?}");
                    readings += 1;
                    outside += usize::from(!inside);
                }
            }
        }
    }
    // The other sensors are sound, and leave their range as rarely as ever.
    assert!(readings > 20_000 && outside * 250 < readings, "{outside} of {readings}");
}
