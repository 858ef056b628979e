//! An alert in one sentence.

use super::{Alert, Sensor};

/// How many sensors a sentence names.
const NAMED_MAX: usize = 3;
/// A sensor after the first is named if it made at least this part of the error.
const NAMED_SHARE_MIN: f64 = 0.05;

/// "pump-3: flow is 1.2 where 3.4 was expected (62 % of the error), then pressure 9.1 instead of 7.7 (20 %)"
pub(super) fn sentence(alert: &Alert<'_>) -> String {
    let mut sentence = String::new();
    if !alert.series.is_empty() {
        sentence += alert.series;
        sentence += ": ";
    }
    let named = |(rank, s): &(usize, &Sensor<'_>)| s.share > 0.0 && (*rank == 0 || s.share >= NAMED_SHARE_MIN);
    let observed = alert.sensors.iter().filter_map(|s| Some((s, s.observed?)));
    let mut any = false;
    for (rank, (sensor, value)) in observed.enumerate().take(NAMED_MAX) {
        if !named(&(rank, sensor)) {
            break;
        }
        any = true;
        let (name, share) = (sensor.name, percent(sensor.share));
        let (value, expected) = short_pair(value, sensor.expected);
        sentence += &match rank {
            0 => format!("{name} is {value} where {expected} was expected ({share} of the error)"),
            _ => format!(", then {name} {value} instead of {expected} ({share})"),
        };
    }
    if !any {
        sentence += &format!("the record as a whole is unusual (score {})", short(alert.score, DIGITS));
    }
    if alert.record_score < 1.0 {
        sentence +=
            &format!("; earlier records keep the score up, this one alone has {}", short(alert.record_score, 2));
    }
    match alert.sensors.iter().filter(|s| s.imputed).count() {
        0 => {}
        1 => sentence += "; 1 sensor gave no value",
        n => sentence += &format!("; {n} sensors gave no value"),
    }
    sentence
}

/// Significant digits of a number in a sentence.
const DIGITS: usize = 4;
/// Enough to tell any two floats apart.
const DIGITS_MAX: usize = 17;

/// Two numbers in short form, with as many digits as it takes to tell them apart.
fn short_pair(a: f64, b: f64) -> (String, String) {
    let pairs = (DIGITS..=DIGITS_MAX).map(|digits| (short(a, digits), short(b, digits)));
    let told_apart = pairs.clone().find(|(a, b)| a != b);
    told_apart.unwrap_or_else(|| (short(a, DIGITS), short(b, DIGITS)))
}

/// A number rounded to `digits` significant digits, without trailing zeros, with an exponent if it is very large or small.
/// Digits before the point are all shown below a billion: 12345 and 12346 are not ten apart.
fn short(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if (10f64.powi(digits as i32)..1e9).contains(&value.abs()) {
        return format!("{value:.0}");
    }
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..9).contains(&exponent) {
        // Reading the rounded text back gives the float nearest to it, which is shown with the digits it was rounded to.
        let rounded: f64 = scientific.parse().unwrap_or(value);
        return format!("{rounded}");
    }
    format!("{}e{exponent}", trimmed(mantissa))
}

fn trimmed(mantissa: &str) -> &str {
    if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa }
}

fn percent(share: f64) -> String {
    match (share * 100.0).round() {
        0.0 => "<1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{EventTime, Offset, PartitionId, Position};

    fn sensor(name: &str, observed: impl Into<Option<f64>>, expected: f64, share: f64) -> Sensor<'_> {
        let observed = observed.into();
        Sensor { name, observed, expected, share, imputed: observed.is_none() }
    }

    #[track_caller]
    fn check(series: &str, sensors: &[Sensor<'_>], expect: &str) {
        let position = Position { partition: PartitionId(0), offset: Offset(0) };
        let (topic, model, time) = ("t", "m", EventTime(0));
        let alert = Alert {
            topic,
            position,
            time,
            series,
            score: 2.3149,
            record_score: 3.0,
            incident: None,
            model,
            sensors,
            other_share: 0.0,
        };
        assert_eq!(sentence(&alert), expect);
    }

    #[test]
    fn an_ordinary_record_after_strange_ones_is_not_accused() {
        let position = Position { partition: PartitionId(0), offset: Offset(0) };
        let (score, record_score, sensors) = (1.25, 0.4213, &[sensor("flow", 1.0, 1.1, 1.0)]);
        let (topic, series, model, time) = ("t", "p", "m", EventTime(0));
        let alert = Alert {
            topic,
            position,
            time,
            series,
            score,
            record_score,
            incident: None,
            model,
            sensors,
            other_share: 0.0,
        };
        let expect = "p: flow is 1 where 1.1 was expected (100 % of the error); earlier records keep the score up, this one alone has 0.42";
        assert_eq!(sentence(&alert), expect);
    }

    #[test]
    fn a_sentence_names_the_sensors_that_made_the_error() {
        let [flow, pressure] = [sensor("flow", 1.2, 3.4, 0.62), sensor("pressure", 9.1, 7.7, 0.2)];
        let [valve, heat] = [sensor("valve", 0.0, 1.0, 0.1), sensor("heat", 50.0, 40.0, 0.08)];
        let one = "flow is 1.2 where 3.4 was expected (62 % of the error)";
        check("pump-3", &[flow], &format!("pump-3: {one}"));
        check("", &[flow], one);
        check("pump-3", &[flow, pressure], &format!("pump-3: {one}, then pressure 9.1 instead of 7.7 (20 %)"));
        let three = format!("{one}, then pressure 9.1 instead of 7.7 (20 %), then valve 0 instead of 1 (10 %)");
        check("", &[flow, pressure, valve, heat], &three);
    }

    #[test]
    fn small_shares_are_not_worth_a_word() {
        let [flow, rest] = [sensor("flow", 1.0, 3.0, 0.96), sensor("rest", 1.0, 1.1, 0.04)];
        check("", &[flow, rest], "flow is 1 where 3 was expected (96 % of the error)");
        check("", &[sensor("flow", 1.0, 3.0, 0.004)], "flow is 1 where 3 was expected (<1 % of the error)");
    }

    #[test]
    fn missing_sensors_are_counted() {
        let flow = sensor("flow", 1.0, 3.0, 1.0);
        let [a, b] = [sensor("a", None, 3.0, 0.0), sensor("b", None, 4.0, 0.0)];
        check("", &[flow, a], "flow is 1 where 3 was expected (100 % of the error); 1 sensor gave no value");
        check("", &[flow, a, b], "flow is 1 where 3 was expected (100 % of the error); 2 sensors gave no value");
        check("p", &[a], "p: the record as a whole is unusual (score 2.315); 1 sensor gave no value");
        check("p", &[], "p: the record as a whole is unusual (score 2.315)");
    }

    #[track_caller]
    fn check_short(value: f64, expect: &str) {
        assert_eq!(short(value, DIGITS), expect);
    }

    #[test]
    fn numbers_are_short() {
        check_short(0.0, "0");
        check_short(-0.0, "0");
        check_short(1.0, "1");
        check_short(-273.16, "-273.2");
        check_short(0.1 + 0.2, "0.3");
        check_short(9_999.96, "10000");
        check_short(-99_999.4, "-99999");
        check_short(12_345_678.0, "12345678");
        check_short(1_234_567_890.0, "1.235e9");
        check_short(0.000_123_456, "0.0001235");
        check_short(0.000_012, "1.2e-5");
        check_short(1e-300, "1e-300");
        check_short(f64::MAX, "1.798e308");
    }

    #[test]
    fn observed_and_expected_have_enough_digits_to_differ() {
        assert_eq!(short_pair(12_345.0, 12_346.0), ("12345".to_owned(), "12346".to_owned()));
        assert_eq!(short_pair(1.0, 1.000_01), ("1".to_owned(), "1.00001".to_owned()));
        assert_eq!(short_pair(1.0, 2.0), ("1".to_owned(), "2".to_owned()));
        assert_eq!(short_pair(0.3, 0.1 + 0.2), ("0.3".to_owned(), "0.30000000000000004".to_owned()));
        assert_eq!(short_pair(5.0, 5.0), ("5".to_owned(), "5".to_owned()));
    }
}
