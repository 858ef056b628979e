//! Names of sensors as a label, which is why there are no more of them than somebody asked for.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::IntCounterVec;

/// Stands for all the others.
const OTHERS: &str = "(others)";

pub(super) struct Sensors {
    counter: IntCounterVec,
    max: usize,
    named: Mutex<HashSet<String>>,
}

impl Sensors {
    pub fn new(counter: IntCounterVec, max: usize) -> Sensors {
        Sensors { counter, max, named: Mutex::default() }
    }

    /// Counts anomalies of a sensor, by its name if it is one of the first.
    pub fn add(&self, sensor: &str, count: u64) {
        if self.max == 0 {
            return;
        }
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let known = named.contains(sensor) || named.len() < self.max && named.insert(sensor.to_owned());
        let label = if known { sensor } else { OTHERS };
        self.counter.with_label_values(&[label]).inc_by(count);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn no_more_sensors_are_named_than_somebody_asked_for() {
        for (max, expect) in [(0, [0, 0, 0, 0]), (1, [5, 0, 0, 7]), (2, [5, 3, 0, 4])] {
            let counter = IntCounterVec::new(Opts::new("a", "a"), &["sensor"]).unwrap();
            let sensors = Sensors::new(counter.clone(), max);
            for (name, count) in [("flow", 2), ("speed", 3), ("temp", 4), ("flow", 3)] {
                sensors.add(name, count);
            }
            assert_eq!(["flow", "speed", "temp", OTHERS].map(|name| counter.with_label_values(&[name]).get()), expect);
        }
    }
}
