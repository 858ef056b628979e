//! When something happened, from a field of the record or from Kafka.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::scalar::{Scalar, kind_of_json};
use super::series::string;
use super::walk::wrong_type;
use super::{FieldPath, Refusal, TimestampFormat};

/// Milliseconds since 1970-01-01T00:00:00Z. Shown as RFC 3339 with milliseconds and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

impl EventTime {
    /// 0000-01-01T00:00:00.000Z
    pub const MIN: EventTime = EventTime(-62_167_219_200_000);
    /// 9999-12-30T22:00:00.000Z: the last one that stays in year 9999 at every offset from UTC.
    pub const MAX: EventTime = EventTime(253_402_207_200_000);

    fn within_bounds(ms: i128) -> Option<EventTime> {
        let ms = i64::try_from(ms).ok()?;
        (EventTime::MIN.0..=EventTime::MAX.0).contains(&ms).then_some(EventTime(ms))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The time that Kafka gives the record.
pub(super) fn from_kafka(timestamp_ms: Option<i64>) -> Result<EventTime, Refusal> {
    let ms = timestamp_ms.ok_or(Refusal::NoTimestamp)?;
    EventTime::within_bounds(ms.into()).ok_or_else(|| Refusal::BadTimestamp {
        place: "Kafka's timestamp".to_owned(),
        expected: TimestampFormat::Milliseconds.expected(),
        found: ms.to_string(),
    })
}

/// The time in a field. What is finer than a millisecond is cut off, but a number with a fraction is rounded to the nearest, because
/// its binary form lies beside what was written.
pub(super) fn from_field(field: &FieldPath, value: &Scalar<'_>, format: TimestampFormat) -> Result<EventTime, Refusal> {
    let time = match (value, format.unit_ns()) {
        (Scalar::Json(json), None) if kind_of_json(json) == "a string" => rfc3339(&string(json)?),
        (Scalar::Json(json), Some(unit_ns)) if kind_of_json(json) == "a number" => epoch(json, unit_ns),
        (Scalar::Text(text) | Scalar::Cell(text), None) => rfc3339(text),
        (Scalar::Cell(text), Some(unit_ns)) => epoch(text, unit_ns),
        (Scalar::Integer(units), Some(unit_ns)) => of_units(*units, unit_ns),
        (Scalar::Float(units), Some(unit_ns)) => of_fraction(*units, unit_ns),
        _ => return Err(wrong_type(field.as_str(), format.expected(), value.kind())),
    };
    time.ok_or_else(|| Refusal::BadTimestamp {
        place: format!("field `{field}`"),
        expected: format.expected(),
        found: value.to_string().chars().take(FOUND_MAX_CHARS).collect(),
    })
}

/// How much of a wrong timestamp a refusal shows.
const FOUND_MAX_CHARS: usize = 64;

impl TimestampFormat {
    fn expected(self) -> &'static str {
        match self {
            TimestampFormat::Rfc3339 => "an RFC 3339 time with an offset or Z",
            TimestampFormat::Seconds => "seconds since 1970",
            TimestampFormat::Milliseconds => "milliseconds since 1970",
            TimestampFormat::Microseconds => "microseconds since 1970",
            TimestampFormat::Nanoseconds => "nanoseconds since 1970",
        }
    }

    /// Nanoseconds per unit of a number.
    fn unit_ns(self) -> Option<i128> {
        match self {
            TimestampFormat::Rfc3339 => None,
            TimestampFormat::Seconds => Some(1_000_000_000),
            TimestampFormat::Milliseconds => Some(1_000_000),
            TimestampFormat::Microseconds => Some(1_000),
            TimestampFormat::Nanoseconds => Some(1),
        }
    }
}

const MS_NS: i128 = 1_000_000;

/// A leap second (`:60`) becomes the second before it.
fn rfc3339(text: &str) -> Option<EventTime> {
    let time: Timestamp = text.parse().ok()?;
    EventTime::within_bounds(time.as_nanosecond().div_euclid(MS_NS))
}

fn epoch(number: &str, unit_ns: i128) -> Option<EventTime> {
    match number.parse::<i128>() {
        Ok(units) => of_units(units, unit_ns),
        Err(_) => of_fraction(number.parse().ok()?, unit_ns),
    }
}

fn of_units(units: i128, unit_ns: i128) -> Option<EventTime> {
    EventTime::within_bounds(units.checked_mul(unit_ns)?.div_euclid(MS_NS))
}

fn of_fraction(units: f64, unit_ns: i128) -> Option<EventTime> {
    let ms = (units * (unit_ns as f64 / MS_NS as f64)).round();
    // Infinite and huge values saturate, and are out of bounds then.
    (!ms.is_nan()).then(|| EventTime::within_bounds(ms as i128)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_milliseconds_in_utc() {
        assert_eq!(EventTime(1_795_489_200_000).to_string(), "2026-11-24T03:00:00.000Z");
        assert_eq!(EventTime(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(EventTime::MIN.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(EventTime::MAX.to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(EventTime(i64::MAX).to_string(), "9223372036854775807 ms");
    }

    #[test]
    fn the_bounds_are_those_of_the_calendar() {
        assert_eq!(EventTime::MAX.0 / 1000, Timestamp::MAX.as_second());
        assert_eq!(EventTime::within_bounds(EventTime::MAX.0.into()), Some(EventTime::MAX));
        assert_eq!(EventTime::within_bounds(i128::from(EventTime::MAX.0) + 1), None);
        assert_eq!(EventTime::within_bounds(i128::from(EventTime::MIN.0) - 1), None);
        assert_eq!(EventTime::within_bounds(i128::MAX), None);
    }

    #[track_caller]
    fn check(format: TimestampFormat, json: &str, ms: Option<i64>) {
        let time = from_field(&"at".parse().unwrap(), &Scalar::Json(json), format);
        assert_eq!(time.ok(), ms.map(EventTime), "{json}");
    }

    #[test]
    fn epochs_in_every_unit_become_milliseconds() {
        use TimestampFormat::*;
        check(Seconds, "1795489200", Some(1_795_489_200_000));
        check(Seconds, "1795489200.1234", Some(1_795_489_200_123));
        check(Seconds, "-0.5", Some(-500));
        check(Seconds, "1e3", Some(1_000_000));
        check(Milliseconds, "1795489200123", Some(1_795_489_200_123));
        check(Milliseconds, "1795489200123.0", Some(1_795_489_200_123));
        check(Microseconds, "1795489200123999", Some(1_795_489_200_123));
        check(Microseconds, "-1", Some(-1));
        check(Nanoseconds, "1795489200123999999", Some(1_795_489_200_123));
        check(Nanoseconds, "18446744073709551615", Some(18_446_744_073_709));
        check(Seconds, "253402207200", Some(253_402_207_200_000));
        check(Seconds, "253402207201", None);
        check(Seconds, "1795489200123", None);
        check(Seconds, "1e400", None);
        check(Seconds, "-1e400", None);
        check(Nanoseconds, &"9".repeat(50), None);
    }
}
