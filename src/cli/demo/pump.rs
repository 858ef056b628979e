//! One pump: from demand and surroundings to what its sensors read.
//!
//! A centrifugal pump on a variable speed drive and a control valve. Head follows the affinity laws, flow is where the pump
//! curve meets the pipe, current follows from shaft power, temperatures lag behind the heat. Units: m3/h, m, bar, A, degrees C.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::sensors::{Reading, SENSORS, Sensor};

/// Simulated minutes between two records of a pump.
pub(super) const STEP_MINUTES: f64 = 5.0;

/// What all pumps of the plant share at one moment.
pub(super) struct Surroundings {
    /// Hours since the Monday midnight at which the run starts; negative while the plant settles before the first record.
    pub hour: f64,
    /// Air around the motors, degrees C.
    pub room: f64,
    /// Water level of the suction tank above the pumps, m.
    pub tank: f64,
}

/// A stationary random walk that is pulled back to zero (autoregressive of order 1).
pub(super) struct Wander {
    value: f64,
    keep: f64,
    kick: f64,
}

impl Wander {
    /// `deviation` is its standard deviation, `memory` the correlation from one step to the next. Starts in the stationary state.
    pub(super) fn new(deviation: f64, memory: f64, rng: &mut ChaCha8Rng) -> Self {
        let start: f64 = rng.sample(StandardNormal);
        Self { value: deviation * start, keep: memory, kick: deviation * (1.0 - memory * memory).sqrt() }
    }

    /// The same with the memory given as a time constant.
    pub(super) fn over_minutes(deviation: f64, minutes: f64, rng: &mut ChaCha8Rng) -> Self {
        Self::new(deviation, (-STEP_MINUTES / minutes).exp(), rng)
    }

    pub(super) fn step(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        let kick: f64 = rng.sample(StandardNormal);
        self.value = self.keep * self.value + self.kick * kick;
        self.value
    }
}

pub(super) struct Pump {
    build: Build,
    /// Water demand, valve and speed around what the load curve asks for.
    demand: Wander,
    valve: Wander,
    speed: Wander,
    noise: [Wander; SENSORS],
    /// Heat above the room, behind their first-order lags, K.
    motor_rise: f64,
    bearing_rise: f64,
    rng: ChaCha8Rng,
}

/// What makes a pump an individual: factors around 1, and by how many hours its consumers are early or late.
struct Build {
    head: f64,
    pipe: f64,
    efficiency: f64,
    winding: f64,
    bearing: f64,
    balance: f64,
    demand: f64,
    late_hours: f64,
}

impl Pump {
    /// `noise`: of the sensors, in that of sound ones.
    pub(super) fn new(mut rng: ChaCha8Rng, noise: f64) -> Self {
        let build = Build::new(&mut rng);
        let demand = Wander::over_minutes(0.03, 60.0, &mut rng);
        let valve = Wander::over_minutes(0.008, 30.0, &mut rng);
        let speed = Wander::over_minutes(0.003, 30.0, &mut rng);
        let noise = Sensor::ALL.map(|sensor| {
            let (deviation, memory) = sensor.noise();
            Wander::new(noise * deviation, memory, &mut rng)
        });
        Self { build, demand, valve, speed, noise, motor_rise: 20.0, bearing_rise: 20.0, rng }
    }

    /// The next reading of sound sensors. `wear` is 0 for a healthy pump and 1 for one about to fail.
    pub(super) fn step(&mut self, around: &Surroundings, wear: f64) -> Reading {
        let build = &self.build;
        let asked = build.demand * daily_load(around.hour - build.late_hours) * weekly_factor(around.hour);
        // The controller holds the pump between minimum flow and rated duty; most days reach both.
        let load = (asked + self.demand.step(&mut self.rng)).clamp(0.37, 0.83);
        let valve = (0.30 + 0.62 * load + self.valve.step(&mut self.rng)).clamp(0.1, 1.0);
        let speed = 0.70 + 0.28 * load + self.speed.step(&mut self.rng);

        // Pump: head = shut_off speed^2 - curve flow^2 (affinity laws). Pipe: head = lift + (pipe + valve) flow^2.
        let shut_off = 62.0 * build.head * (1.0 - 0.22 * wear) * speed * speed;
        let (curve, lift) = (1.33e-4, 12.0);
        let resistance = build.pipe * 2.2e-4 + 1.48e-4 / (valve * valve);
        let flow = ((shut_off - lift).max(0.0) / (curve + resistance)).sqrt();
        let head = shut_off - curve * flow * flow;
        let off_best = flow / speed / 270.0 - 1.0;

        let efficiency = 0.80 * build.efficiency * (1.0 - 0.6 * off_best * off_best) * (1.0 - 0.25 * wear);
        let shaft_watts = 9810.0 * flow / 3600.0 * head / efficiency;
        // 400 V, power factor of the working part times motor efficiency .81; 30 A of magnetising current at right angles.
        let current = (shaft_watts / (3f64.sqrt() * 400.0 * 0.81)).hypot(30.0);

        let motor_heat = 48.0 * build.winding * (current / 95.0).powi(2);
        let bearing_heat = (24.0 * build.bearing + 18.0 * wear) * speed * speed + 0.12 * head;
        self.motor_rise += (motor_heat - self.motor_rise) * lag(45.0);
        self.bearing_rise += (bearing_heat - self.bearing_rise) * lag(30.0);

        let suction = 0.0981 * (around.tank - 6.0e-5 * flow * flow);
        let vibration = build.balance * (2.2 * speed.powi(3) + 4.0 * off_best * off_best) * (1.0 + 1.2 * wear);
        self.measure([
            100.0 * valve,
            flow,
            suction,
            suction + 0.0981 * head,
            1480.0 * speed,
            current,
            around.room + self.motor_rise,
            around.room + self.bearing_rise,
            vibration,
            around.room,
        ])
    }

    fn measure(&mut self, mut truth: Reading) -> Reading {
        for (value, noise) in truth.iter_mut().zip(&mut self.noise) {
            *value += noise.step(&mut self.rng);
        }
        truth
    }
}

impl Build {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        // Sister pumps of one order: about one percent apart, never more than three.
        let mut factor = |deviation: f64| {
            let off: f64 = rng.sample(StandardNormal);
            1.0 + deviation * off.clamp(-2.0, 2.0)
        };
        Self {
            head: factor(0.007),
            pipe: factor(0.015),
            efficiency: factor(0.01),
            winding: factor(0.015),
            bearing: factor(0.015),
            balance: factor(0.015),
            demand: factor(0.015),
            late_hours: rng.random_range(-0.4..0.4),
        }
    }
}

/// Share of full demand over a day: least at three in the night, a first peak in the morning, the highest in the evening.
fn daily_load(hour: f64) -> f64 {
    let wave = |per_day: f64, from: f64| (std::f64::consts::TAU * per_day * (hour - from) / 24.0).cos();
    0.62 - 0.20 * wave(1.0, 3.5) - 0.09 * wave(2.0, 1.5)
}

/// Saturdays and Sundays ask for a little less, over four-hour slopes.
fn weekly_factor(hour: f64) -> f64 {
    let hour = hour.rem_euclid(168.0);
    let weekend = ((hour - 120.0) / 4.0).clamp(0.0, 1.0) * ((168.0 - hour) / 4.0).clamp(0.0, 1.0);
    1.0 - 0.05 * weekend
}

/// Share of the way to its target that a first-order lag goes in one step.
fn lag(minutes: f64) -> f64 {
    1.0 - (-STEP_MINUTES / minutes).exp()
}
