//! The faults of the demo: what they do to a pump or its sensors, and where the seed puts them.
//!
//! Sizes are shares of a sensor's normal range (`Sensor::span`), drawn by the seed between what a person would surely notice on
//! a chart and what a real defect reaches; durations are long enough for the load to move on meanwhile.

use std::fmt;
use std::ops::RangeInclusive;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::Serialize;

use super::sensors::{Reading, Sensor};

/// Faults in one round.
pub const FAULTS: usize = 10;

/// Records of a pump before its first fault and between two of its faults: twelve hours.
pub const GAP_STEPS: usize = 144;

/// How far back a fault looks into the readings of its pump: the longest stuck sensor, or the longest delay.
pub(super) const LOOK_BACK_STEPS: usize = 14 * HOUR + 1;

const HOUR: usize = 12;
const LONGEST_STEPS: usize = 36 * HOUR;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// One to three readings far off.
    Spike,
    /// The sensor repeats its last sound reading.
    StuckSensor,
    /// The sensor walks away from the truth in a straight line.
    SlowDrift,
    /// The sensor is off by a constant.
    LevelShift,
    /// The sensor reports its own readings of hours ago: within its normal range, but they belong to another load.
    BrokenCorrelation,
    /// The sensor is right on average, but noisy.
    AddedNoise,
    /// The pump wears out: less head and efficiency, more friction and vibration, until it is repaired.
    DyingPump,
}

/// A labelled fault. Steps count the records of a pump from 0; the first sound one after the fault is `end`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    pub pump: usize,
    /// Sensors that read otherwise than on a sound pump.
    pub sensors: Vec<Sensor>,
    pub start: usize,
    pub end: usize,
    /// Share of the sensor's normal range, with its sign; of a broken correlation the delay in steps; of a dying pump 1.
    pub size: f64,
}

impl FaultKind {
    pub const ALL: [FaultKind; 7] = [
        FaultKind::Spike,
        FaultKind::StuckSensor,
        FaultKind::SlowDrift,
        FaultKind::LevelShift,
        FaultKind::BrokenCorrelation,
        FaultKind::AddedNoise,
        FaultKind::DyingPump,
    ];

    fn duration_steps(self) -> RangeInclusive<usize> {
        match self {
            FaultKind::Spike => 1..=3,
            FaultKind::StuckSensor => 8 * HOUR..=14 * HOUR,
            FaultKind::SlowDrift => 18 * HOUR..=30 * HOUR,
            FaultKind::LevelShift | FaultKind::AddedNoise => 6 * HOUR..=12 * HOUR,
            FaultKind::BrokenCorrelation => 10 * HOUR..=14 * HOUR,
            FaultKind::DyingPump => 24 * HOUR..=LONGEST_STEPS,
        }
    }

    /// The sensors among which the seed chooses one; of a dying pump all that show it.
    fn sensors(self) -> &'static [Sensor] {
        match self {
            // Out of time is a fault only where the reading follows the load.
            FaultKind::StuckSensor | FaultKind::BrokenCorrelation => &[
                Sensor::Valve,
                Sensor::Flow,
                Sensor::Discharge,
                Sensor::Speed,
                Sensor::Current,
                Sensor::MotorTemperature,
                Sensor::BearingTemperature,
            ],
            FaultKind::DyingPump => &[
                Sensor::Flow,
                Sensor::Discharge,
                Sensor::Current,
                Sensor::MotorTemperature,
                Sensor::BearingTemperature,
                Sensor::Vibration,
            ],
            FaultKind::Spike | FaultKind::SlowDrift | FaultKind::LevelShift | FaultKind::AddedNoise => &Sensor::ALL,
        }
    }

    fn draw_size(self, rng: &mut ChaCha8Rng) -> f64 {
        let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        match self {
            FaultKind::Spike => sign * rng.random_range(0.5..0.8),
            FaultKind::SlowDrift => sign * rng.random_range(0.35..0.5),
            FaultKind::LevelShift => sign * rng.random_range(0.25..0.35),
            FaultKind::AddedNoise => rng.random_range(0.15..0.22),
            FaultKind::BrokenCorrelation => rng.random_range(7 * HOUR..=10 * HOUR) as f64,
            FaultKind::StuckSensor | FaultKind::DyingPump => 1.0,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FaultKind::Spike => "spike",
            FaultKind::StuckSensor => "stuck sensor",
            FaultKind::SlowDrift => "slow drift",
            FaultKind::LevelShift => "level shift",
            FaultKind::BrokenCorrelation => "broken correlation",
            FaultKind::AddedNoise => "added noise",
            FaultKind::DyingPump => "dying pump",
        })
    }
}

impl Fault {
    pub fn is_active(&self, step: usize) -> bool {
        (self.start..self.end).contains(&step)
    }

    /// How far the pump itself is worn at `step`, 0 to 1; 0 where only a sensor is at fault.
    pub(super) fn wear(&self, step: usize) -> f64 {
        if self.kind == FaultKind::DyingPump && self.is_active(step) { self.progress(step) } else { 0.0 }
    }

    /// Changes `reading`, taken at `step`, as the faulty sensor would. `earlier` holds the pump's readings before it as sound
    /// sensors gave them, oldest first, the last one from `step - 1`.
    pub(super) fn tamper(&self, step: usize, earlier: &[Reading], reading: &mut Reading, rng: &mut ChaCha8Rng) {
        if !self.is_active(step) || self.kind == FaultKind::DyingPump {
            return;
        }
        let back = |steps: usize| &earlier[earlier.len() - steps];
        for &sensor in &self.sensors {
            let index = sensor as usize;
            let (low, high) = match self.kind {
                FaultKind::BrokenCorrelation => sensor.normal(),
                _ => sensor.limits(),
            };
            let offset = self.size * sensor.span();
            let value = match self.kind {
                FaultKind::Spike | FaultKind::LevelShift => reading[index] + offset,
                FaultKind::SlowDrift => reading[index] + offset * self.progress(step),
                FaultKind::AddedNoise => reading[index] + offset * rng.sample::<f64, _>(StandardNormal),
                FaultKind::StuckSensor => back(step - self.start + 1)[index],
                FaultKind::BrokenCorrelation => back(self.size as usize)[index],
                FaultKind::DyingPump => reading[index],
            };
            reading[index] = value.clamp(low, high);
        }
    }

    /// Share of the fault's time that has passed after the record at `step`.
    fn progress(&self, step: usize) -> f64 {
        (step - self.start + 1) as f64 / (self.end - self.start) as f64
    }
}

/// Spreads `FAULTS` faults, each kind at least once, over `steps` steps from `first` on: one begins in each of ten equal parts,
/// on a pump that has been sound for at least `GAP_STEPS`, and all end `GAP_STEPS` before the last step.
pub(super) fn plan(first: usize, steps: usize, pumps: usize, rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let mut kinds = FaultKind::ALL;
    kinds.shuffle(rng);
    let mut kinds = [&kinds[..], &kinds[..FAULTS - kinds.len()]].concat();
    kinds.shuffle(rng);

    let part = (steps - LONGEST_STEPS - 2 * GAP_STEPS) / FAULTS;
    let mut sound_from = vec![first; pumps];
    let mut faults = Vec::with_capacity(FAULTS);
    for (i, kind) in kinds.into_iter().enumerate() {
        let start = first + GAP_STEPS + i * part + rng.random_range(0..part / 2);
        let rested: Vec<usize> = (0..pumps).filter(|&pump| sound_from[pump] + GAP_STEPS <= start).collect();
        // A fault and the gap after it reach over fewer than four parts, so of six pumps two have always rested.
        let Some(&pump) = rested.choose(rng) else {
            continue;
        };
        let end = start + rng.random_range(kind.duration_steps());
        let sensors = match kind {
            FaultKind::DyingPump => kind.sensors().to_vec(),
            _ => kind.sensors().choose(rng).into_iter().copied().collect(),
        };
        sound_from[pump] = end;
        faults.push(Fault { kind, pump, sensors, start, end, size: kind.draw_size(rng) });
    }
    faults
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const FIRST: usize = 2_000;
    const STEPS: usize = 3_000;
    const PUMPS: usize = 6;

    fn plan_of(seed: u64) -> Vec<Fault> {
        plan(FIRST, STEPS, PUMPS, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn every_plan_has_ten_faults_and_all_kinds() {
        for seed in 0..1_000 {
            let faults = plan_of(seed);
            assert_eq!(faults.len(), FAULTS, "seed {seed}");
            for kind in FaultKind::ALL {
                let number = faults.iter().filter(|fault| fault.kind == kind).count();
                assert!((1..=2).contains(&number), "seed {seed}: {number} of {kind}");
            }
        }
    }

    #[test]
    fn faults_keep_their_distance_and_their_duration() {
        for seed in 0..1_000 {
            let faults = plan_of(seed);
            assert!(faults.is_sorted_by_key(|fault| fault.start), "seed {seed}");
            for (i, fault) in faults.iter().enumerate() {
                let fits = fault.start >= FIRST + GAP_STEPS && fault.end + GAP_STEPS <= FIRST + STEPS;
                assert!(fits, "seed {seed}: {fault:?}");
                let lasts = fault.end - fault.start;
                assert!(fault.kind.duration_steps().contains(&lasts), "seed {seed}: {fault:?}");
                let mut before = faults[..i].iter().filter(|before| before.pump == fault.pump);
                assert!(before.all(|before| before.end + GAP_STEPS <= fault.start), "seed {seed}: {fault:?}");
            }
        }
    }

    #[test]
    fn seeds_reach_every_pump_and_every_sensor_of_a_kind() {
        let faults: Vec<Fault> = (0..200).flat_map(plan_of).collect();
        for pump in 0..PUMPS {
            assert!(faults.iter().any(|fault| fault.pump == pump), "pump {pump}");
        }
        for kind in FaultKind::ALL {
            let mut of_kind = faults.iter().filter(|fault| fault.kind == kind);
            let first = of_kind.next().unwrap().sensors.clone();
            match kind {
                FaultKind::DyingPump => assert_eq!(first, kind.sensors()),
                _ => assert!(of_kind.any(|fault| fault.sensors != first), "{kind}"),
            }
        }
        assert_eq!(plan_of(7), plan_of(7));
        assert_ne!(plan_of(7), plan_of(8));
    }

    #[track_caller]
    fn check(kind: FaultKind, size: f64, step: usize, expect: f64) {
        let flow = Sensor::Flow;
        let fault = Fault { kind, pump: 0, sensors: vec![flow], start: 200, end: 220, size };
        // Sound flow is 200 plus a twentieth of the step.
        let sound = |step: usize| {
            let mut reading = [1.0; crate::cli::demo::sensors::SENSORS];
            reading[flow as usize] = 200.0 + 0.05 * step as f64;
            reading
        };
        let earlier: Vec<Reading> = (step - LOOK_BACK_STEPS..step).map(sound).collect();
        let mut reading = sound(step);
        fault.tamper(step, &earlier, &mut reading, &mut ChaCha8Rng::seed_from_u64(0));
        let changed = reading[flow as usize] - sound(step)[flow as usize];
        assert!((changed - expect).abs() < 1e-9, "{kind} at {step}: changed by {changed}, not {expect}");
        reading[flow as usize] = sound(step)[flow as usize];
        assert_eq!(reading, sound(step), "{kind} touched another sensor");
    }

    #[test]
    fn each_kind_changes_its_sensor_in_its_own_way() {
        let span = Sensor::Flow.span();
        check(FaultKind::Spike, 0.6, 200, 0.6 * span);
        check(FaultKind::LevelShift, -0.3, 219, -0.3 * span);
        check(FaultKind::SlowDrift, 0.4, 200, 0.4 * span / 20.0);
        check(FaultKind::SlowDrift, 0.4, 219, 0.4 * span);
        check(FaultKind::StuckSensor, 1.0, 200, -0.05);
        check(FaultKind::StuckSensor, 1.0, 219, -1.0);
        check(FaultKind::BrokenCorrelation, 100.0, 210, -5.0);
        check(FaultKind::DyingPump, 1.0, 210, 0.0);
        for before_or_after in [199, 220] {
            for kind in FaultKind::ALL {
                check(kind, 1.0, before_or_after, 0.0);
            }
        }
        // The transmitter saturates.
        check(FaultKind::Spike, -9.0, 200, -210.0);
    }

    #[test]
    fn only_a_dying_pump_wears() {
        for kind in FaultKind::ALL {
            let fault = Fault { kind, pump: 0, sensors: vec![], start: 10, end: 20, size: 1.0 };
            let wear = [9, 10, 19, 20].map(|step| fault.wear(step));
            let expect = if kind == FaultKind::DyingPump { [0.0, 0.1, 1.0, 0.0] } else { [0.0; 4] };
            assert_eq!(wear, expect, "{kind}");
        }
    }
}
