//! The simulated plant of the demo: six pumps with ten sensors each, as records on a topic.
//!
//! Time is simulated: a record of every pump each five minutes, from a Monday midnight on. The first week is free of faults
//! and shows every load; after it, faults come in rounds (see `faults`). Everything is a function of the seed.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::faults::{self, FAULTS, Fault, FaultKind, LOOK_BACK_STEPS};
use super::pump::{Pump, STEP_MINUTES, Surroundings, Wander};
use super::sensors::{Reading, SENSORS, Sensor};
use super::wire::{self, PUMPS, Sent};

/// Records of each pump in a run, and in its first part, for training: one week, free of faults.
pub const RUN_STEPS: usize = 5_000;
pub const TRAINING_STEPS: usize = 7 * 24 * 12;

/// The same for all pumps together.
pub const RUN_RECORDS: usize = PUMPS * RUN_STEPS;
pub const TRAINING_RECORDS: usize = PUMPS * TRAINING_STEPS;

/// A round of faults: the run after its training part.
const ROUND_STEPS: usize = RUN_STEPS - TRAINING_STEPS;

/// Share of the readings that get lost on the way; half of them leave a null, half nothing.
const MISSING: f64 = 0.005;

/// Steps before the first record, for temperatures to forget where they started.
const SETTLING_STEPS: usize = 24 * 12;

/// What one pump reports at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct PlantRecord {
    /// From 0; `wire::pump_name` makes it the message key.
    pub pump: usize,
    /// Records of this pump before this one.
    pub step: usize,
    /// Event time, ms since the epoch; also in the JSON.
    pub time_ms: i64,
    pub json: Vec<u8>,
    /// The fault that is going on, as an index into `Plant::faults`.
    pub fault: Option<usize>,
}

/// Endless iterator of records in time order, pump by pump; a run is the first `RUN_RECORDS`. One round of ten faults falls on
/// the run after its training part, and one more on every further stretch of that length.
pub struct Plant {
    pumps: Vec<Pump>,
    earlier: Vec<VecDeque<Reading>>,
    room: Wander,
    tank: Tank,
    faults: Vec<Fault>,
    step: usize,
    pump: usize,
    around: Surroundings,
    weather_rng: ChaCha8Rng,
    plan_rng: ChaCha8Rng,
    tamper_rng: ChaCha8Rng,
    loss_rng: ChaCha8Rng,
}

impl Plant {
    pub fn new(seed: u64) -> Self {
        Self::with_noise(seed, 1.0)
    }

    /// The same plant, with other noise of its sensors: 0 for none.
    pub fn with_noise(seed: u64, noise: f64) -> Self {
        let stream = |number: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            rng
        };
        let mut weather_rng = stream(0);
        let room = Wander::over_minutes(0.3, 60.0, &mut weather_rng);
        let mut plant = Self {
            pumps: (0..PUMPS as u64).map(|pump| Pump::new(stream(10 + pump), noise)).collect(),
            earlier: vec![VecDeque::with_capacity(LOOK_BACK_STEPS + 1); PUMPS],
            room,
            tank: Tank { level: 0.0, filling: false },
            faults: Vec::new(),
            step: 0,
            pump: 0,
            around: Surroundings { hour: 0.0, room: 0.0, tank: 0.0 },
            weather_rng,
            plan_rng: stream(1),
            tamper_rng: stream(2),
            loss_rng: stream(3),
        };
        plant.plan_round(TRAINING_STEPS);
        plant.settle();
        plant
    }

    /// The faults of the present round and the one before it, by their start. A record's `fault` counts among them.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    #[cfg(test)]
    pub(super) fn without_faults(seed: u64) -> Self {
        let mut plant = Self::new(seed);
        plant.faults.clear();
        plant
    }

    fn plan_round(&mut self, first: usize) {
        // An endless plant must not remember endlessly; none lasts longer than its round.
        let gone = self.faults.len().saturating_sub(FAULTS);
        self.faults.drain(..gone);
        self.faults.extend(faults::plan(first, ROUND_STEPS, PUMPS, &mut self.plan_rng));
    }

    fn settle(&mut self) {
        for step in -(SETTLING_STEPS as i64)..0 {
            self.move_on(step);
            for pump in &mut self.pumps {
                pump.step(&self.around, 0.0);
            }
        }
        self.move_on(0);
    }

    /// Brings weather and tank to `step`.
    fn move_on(&mut self, step: i64) {
        let hour = step as f64 * STEP_MINUTES / 60.0;
        let day = (std::f64::consts::TAU * (hour - 15.0) / 24.0).cos();
        // Ventilation takes the extremes off.
        let weather = self.room.step(&mut self.weather_rng).clamp(-0.5, 0.5);
        self.around =
            Surroundings { hour, room: 22.0 + 3.0 * day + weather, tank: 14.0 + self.tank.step(&mut self.weather_rng) };
    }

    fn read_pump(&mut self) -> PlantRecord {
        let (pump, step) = (self.pump, self.step);
        let fault = self.faults.iter().position(|fault| fault.pump == pump && fault.is_active(step));
        let wear = fault.map_or(0.0, |fault| self.faults[fault].wear(step));
        let sound = self.pumps[pump].step(&self.around, wear);

        let mut reading = sound;
        let earlier = &mut self.earlier[pump];
        if let Some(fault) = fault {
            self.faults[fault].tamper(step, earlier.make_contiguous(), &mut reading, &mut self.tamper_rng);
        }
        if earlier.len() == LOOK_BACK_STEPS {
            earlier.pop_front();
        }
        earlier.push_back(sound);

        // A lost spike would be no spike.
        let never_lost = fault.map(|fault| &self.faults[fault]).filter(|fault| fault.kind == FaultKind::Spike);
        let never_lost = never_lost.and_then(|spike| spike.sensors.first().copied());
        let sent = self.send(reading, never_lost);
        let time_ms = wire::time_ms(step);
        PlantRecord { pump, step, time_ms, json: wire::to_json(time_ms, pump, &sent), fault }
    }

    /// Loses a few readings.
    fn send(&mut self, reading: Reading, never_lost: Option<Sensor>) -> [Sent; SENSORS] {
        Sensor::ALL.map(|sensor| {
            let (lost, null) = (self.loss_rng.random_bool(MISSING), self.loss_rng.random_bool(0.5));
            match (lost && never_lost != Some(sensor), null) {
                (false, _) => Sent::Value(reading[sensor as usize]),
                (true, true) => Sent::Null,
                (true, false) => Sent::Nothing,
            }
        })
    }
}

impl Iterator for Plant {
    type Item = PlantRecord;

    fn next(&mut self) -> Option<PlantRecord> {
        let beyond = self.step.checked_sub(RUN_STEPS);
        if self.pump == 0 && beyond.is_some_and(|beyond| beyond.is_multiple_of(ROUND_STEPS)) {
            self.plan_round(self.step);
        }
        let record = self.read_pump();
        self.pump += 1;
        if self.pump == PUMPS {
            self.pump = 0;
            self.step += 1;
            self.move_on(self.step as i64);
        }
        Some(record)
    }
}

/// The suction tank: its inlet opens at the lower float switch and closes at the upper one, about every hour and a half.
/// Like all that the pumps share it moves fast and within bounds, so that a week shows all it can do.
struct Tank {
    /// Around the middle between the switches, m.
    level: f64,
    filling: bool,
}

impl Tank {
    fn step(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        self.level += rng.random_range(0.8..1.2) * if self.filling { 0.08 } else { -0.03 };
        if self.level.abs() > 0.2 {
            self.filling = self.level < 0.0;
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::faults::GAP_STEPS;
    use super::super::wire::{START_MS, STEP_MS, pump_index, step_at};
    use super::*;

    #[test]
    fn a_run_is_a_function_of_the_seed() {
        let run = |seed| Plant::new(seed).take(RUN_RECORDS).collect::<Vec<_>>();
        assert!(run(7) == run(7));
        assert!(run(7) != run(8));
    }

    #[test]
    fn records_come_in_time_order_with_key_and_time_in_them() {
        for (i, record) in Plant::new(3).take(5_000).enumerate() {
            assert_eq!((record.step, record.pump), (i / PUMPS, i % PUMPS));
            assert_eq!(record.time_ms, START_MS + record.step as i64 * STEP_MS);
            let json: serde_json::Value = serde_json::from_slice(&record.json).unwrap();
            let time: Timestamp = json["time"].as_str().unwrap().parse().unwrap();
            assert_eq!(time.as_millisecond(), record.time_ms);
            assert_eq!(pump_index(json["pump"].as_str().unwrap()), Some(record.pump));
            assert_eq!(step_at(record.time_ms), Some(record.step));
        }
    }

    #[test]
    fn rounds_of_faults_go_on_after_the_run() {
        let mut plant = Plant::new(4);
        let faulty = |plant: &mut Plant| plant.take(RUN_RECORDS).filter(|record| record.fault.is_some()).count();
        assert!(faulty(&mut plant) > 0);
        assert!(faulty(&mut plant) > 0);
        assert!(plant.faults()[FAULTS..].iter().all(|fault| fault.start >= RUN_STEPS + GAP_STEPS));
        assert!(faulty(&mut plant) > 0 && faulty(&mut plant) > 0);
        assert_eq!(plant.faults().len(), 2 * FAULTS);
    }
}
