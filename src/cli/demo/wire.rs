//! A record of the plant on the wire: its JSON, its key and its time.

use std::io::Write as _;

use jiff::Timestamp;

use super::sensors::{SENSORS, Sensor};

pub const PUMPS: usize = 6;

/// Time between two records of a pump, ms.
pub const STEP_MS: i64 = 300_000;

/// 2026-03-02T00:00:00Z, a Monday, ms since the epoch: the event time of the first records.
pub const START_MS: i64 = 1_772_409_600_000;

/// Message key and series of a pump: `pump-1` to `pump-6`.
pub fn pump_name(pump: usize) -> String {
    format!("pump-{}", pump + 1)
}

/// The pump of a series, none for any other text.
pub fn pump_index(name: &str) -> Option<usize> {
    (0..PUMPS).find(|&pump| pump_name(pump) == name)
}

/// Event time of the records of a step, ms since the epoch.
pub fn time_ms(step: usize) -> i64 {
    START_MS + step as i64 * STEP_MS
}

/// The step of an event time, none where no record can have it.
pub fn step_at(time_ms: i64) -> Option<usize> {
    let since = time_ms.checked_sub(START_MS)?;
    (since % STEP_MS == 0).then(|| usize::try_from(since / STEP_MS).ok())?
}

/// What arrives of a reading.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    Value(f64),
    Null,
    Nothing,
}

/// The value of a record: `{"time":..,"pump":..,"valve":{"position":..},..}`: sensors of one group follow each other in `Sensor::ALL`.
pub(super) fn to_json(time_ms: i64, pump: usize, sent: &[Sent; SENSORS]) -> Vec<u8> {
    let time = Timestamp::from_millisecond(time_ms).unwrap_or_default();
    let mut json = Vec::with_capacity(320);
    let mut open = "";
    // Writing into a vector cannot fail.
    let _ = write!(json, r#"{{"time":"{time}","pump":"{}""#, pump_name(pump));
    for (sensor, sent) in Sensor::ALL.into_iter().zip(sent) {
        let (group, member) = sensor.path().rsplit_once('.').unwrap_or(("", sensor.path()));
        if matches!(sent, Sent::Nothing) {
            continue;
        }
        let mut first = false;
        if group != open {
            if !open.is_empty() {
                json.push(b'}');
            }
            if !group.is_empty() {
                let _ = write!(json, r#","{group}":{{"#);
                first = true;
            }
            open = group;
        }
        let comma = if first { "" } else { "," };
        let _ = match sent {
            Sent::Value(value) => {
                write!(json, r#"{comma}"{member}":{value:.*}"#, sensor.decimals())
            }
            Sent::Null | Sent::Nothing => write!(json, r#"{comma}"{member}":null"#),
        };
    }
    if !open.is_empty() {
        json.push(b'}');
    }
    json.push(b'}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_keys_are_read_back() {
        assert_eq!(step_at(time_ms(4_999)), Some(4_999));
        assert_eq!(pump_index(&pump_name(5)), Some(5));
        assert_eq!(Timestamp::from_millisecond(START_MS).unwrap().to_string(), "2026-03-02T00:00:00Z");
        assert_eq!([step_at(START_MS - STEP_MS), step_at(START_MS + 1), step_at(i64::MIN)], [None; 3]);
        assert_eq!(["pump-0", "pump-7", "pump-01", ""].map(pump_index), [None; 4]);
    }

    #[test]
    fn a_record_lists_its_sensors_in_groups() {
        let mut sent = [1.0, 222.25, 1.125, 5.0, 1300.4, 66.0, 44.0, 45.0, 1.5, 21.0].map(Sent::Value);
        let text = |sent: &[Sent; SENSORS]| String::from_utf8(to_json(time_ms(1), 2, sent)).unwrap();
        assert_eq!(
            text(&sent),
            concat!(
                r#"{"time":"2026-03-02T00:05:00Z","pump":"pump-3","valve":{"position":1.0},"flow":222.2,"#,
                r#""pressure":{"suction":1.125,"discharge":5.000},"motor":{"speed":1300,"current":66.0,"temperature":44.0},"#,
                r#""bearing":{"temperature":45.0,"vibration":1.500},"room":{"temperature":21.0}}"#
            )
        );
        for sensor in [Sensor::Valve, Sensor::Suction, Sensor::Vibration] {
            sent[sensor as usize] = Sent::Nothing;
        }
        for sensor in [Sensor::Flow, Sensor::Speed, Sensor::RoomTemperature] {
            sent[sensor as usize] = Sent::Null;
        }
        assert_eq!(
            text(&sent),
            concat!(
                r#"{"time":"2026-03-02T00:05:00Z","pump":"pump-3","flow":null,"pressure":{"discharge":5.000},"#,
                r#""motor":{"speed":null,"current":66.0,"temperature":44.0},"bearing":{"temperature":45.0},"room":{"temperature":null}}"#
            )
        );
        let nothing = to_json(START_MS, 0, &[Sent::Nothing; SENSORS]);
        assert_eq!(nothing, br#"{"time":"2026-03-02T00:00:00Z","pump":"pump-1"}"#);
    }
}
