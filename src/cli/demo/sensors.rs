//! The ten sensors of a pump: names on the wire, units, resolution, noise and normal range.

/// A reading of every sensor of one pump, indexed by `Sensor as usize`.
pub type Reading = [f64; SENSORS];

/// Sensors per pump.
pub const SENSORS: usize = 10;

/// In the order in which a record lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensor {
    Valve,
    Flow,
    Suction,
    Discharge,
    Speed,
    Current,
    MotorTemperature,
    BearingTemperature,
    Vibration,
    RoomTemperature,
}

impl Sensor {
    pub const ALL: [Sensor; SENSORS] = [
        Sensor::Valve,
        Sensor::Flow,
        Sensor::Suction,
        Sensor::Discharge,
        Sensor::Speed,
        Sensor::Current,
        Sensor::MotorTemperature,
        Sensor::BearingTemperature,
        Sensor::Vibration,
        Sensor::RoomTemperature,
    ];

    /// Field path in a record, `group.member` or a plain name.
    pub fn path(self) -> &'static str {
        self.data().path
    }

    /// Range that healthy pumps use over all loads; a sound sensor leaves it about once in a thousand records, and not by far.
    pub fn normal(self) -> (f64, f64) {
        (self.data().low, self.data().high)
    }

    /// Width of the normal range: the unit in which faults are sized.
    pub fn span(self) -> f64 {
        self.data().high - self.data().low
    }

    /// What a sound sensor adds to the truth: standard deviation, and its correlation from one record to the next.
    pub(super) fn noise(self) -> (f64, f64) {
        (self.data().noise, self.data().memory)
    }

    /// Decimals that the transmitter sends; its steps are well below the noise.
    pub(super) fn decimals(self) -> usize {
        self.data().decimals
    }

    /// Measuring range of the transmitter, where it saturates.
    pub(super) fn limits(self) -> (f64, f64) {
        self.data().limits
    }

    fn data(self) -> &'static SensorData {
        &DATA[self as usize]
    }
}

struct SensorData {
    path: &'static str,
    low: f64,
    high: f64,
    noise: f64,
    memory: f64,
    decimals: usize,
    limits: (f64, f64),
}

#[rustfmt::skip]
const DATA: [SensorData; SENSORS] = [
    SensorData { path: "valve.position",      low: 50.5,   high: 84.0,   noise: 0.4,   memory: 0.0, decimals: 1, limits: (0.0, 100.0) },    // % open
    SensorData { path: "flow",                low: 170.0,  high: 278.0,  noise: 2.0,   memory: 0.5, decimals: 1, limits: (0.0, 400.0) },    // m3/h
    SensorData { path: "pressure.suction",    low: 0.9,    high: 1.24,   noise: 0.008, memory: 0.3, decimals: 3, limits: (-1.0, 4.0) },     // bar
    SensorData { path: "pressure.discharge",  low: 4.58,   high: 5.41,   noise: 0.025, memory: 0.3, decimals: 3, limits: (0.0, 10.0) },     // bar
    SensorData { path: "motor.speed",         low: 1175.0, high: 1394.0, noise: 2.0,   memory: 0.0, decimals: 0, limits: (0.0, 1800.0) },   // 1/min
    SensorData { path: "motor.current",       low: 47.0,   high: 82.5,   noise: 0.7,   memory: 0.0, decimals: 1, limits: (0.0, 160.0) },    // A
    SensorData { path: "motor.temperature",   low: 30.5,   high: 59.5,   noise: 0.35,  memory: 0.0, decimals: 1, limits: (-40.0, 180.0) },  // degrees C
    SensorData { path: "bearing.temperature", low: 37.0,   high: 52.5,   noise: 0.3,   memory: 0.0, decimals: 1, limits: (-40.0, 150.0) },  // degrees C
    SensorData { path: "bearing.vibration",   low: 1.18,   high: 1.89,   noise: 0.015, memory: 0.5, decimals: 3, limits: (0.0, 25.0) },     // mm/s rms
    SensorData { path: "room.temperature",    low: 18.1,   high: 25.9,   noise: 0.2,   memory: 0.0, decimals: 1, limits: (-40.0, 85.0) },   // degrees C
];
