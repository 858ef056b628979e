//! What a person sees of the demo: a line per incident, and the table at the end.

use std::fmt::Display;
use std::io::{self, Write};

use jiff::Timestamp;

use super::faults::Fault;
use super::tally::{Cause, Flagged, Outcome, Summary};

/// Sensors named in an incident's line.
const NAMED: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Coloured,
}

#[derive(Clone, Copy)]
enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
}

impl Style {
    /// Colours only on a terminal, and never where the variable `NO_COLOR` is set and not empty (no-color.org).
    pub fn choose(is_terminal: bool, no_color: Option<&str>) -> Style {
        match (is_terminal, no_color.unwrap_or_default()) {
            (true, "") => Style::Coloured,
            _ => Style::Plain,
        }
    }

    /// `text`, already padded to its column, in a colour.
    fn paint(self, colour: Colour, text: impl Display) -> String {
        let code = match colour {
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Dim => "2",
        };
        match self {
            Style::Plain => text.to_string(),
            Style::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// One line for the alert that opened an incident: when, which pump, the fault behind it, and the sensors that made the error.
pub fn incident(out: &mut impl Write, style: Style, alert: &Flagged, fault: Option<&Fault>) -> io::Result<()> {
    let time = style.paint(Colour::Dim, minute(alert.time));
    let behind = match fault {
        Some(fault) => style.paint(Colour::Green, format!("{:18}", fault.kind)),
        None => style.paint(Colour::Yellow, format!("{:18}", "no fault")),
    };
    let causes: Vec<String> = alert.sensors.iter().take(NAMED).map(cause).collect();
    writeln!(out, "{time}  {}  {behind}  {}", alert.series, causes.join(", "))
}

/// One row per fault, then the totals.
pub fn table(out: &mut impl Write, style: Style, summary: &Summary) -> io::Result<()> {
    let head = format!("{:18}  {:6}  {:19}  {:16}  {:>7}  found", "fault", "pump", "sensor", "begins", "records");
    writeln!(out, "{}", style.paint(Colour::Dim, head))?;
    for outcome in &summary.faults {
        row(out, style, outcome)?;
    }
    let (found, injected) = (summary.faults_found, summary.faults_injected);
    let found = style.paint(
        if found == injected { Colour::Green } else { Colour::Red },
        format!("{found} of {} found", count(injected, "fault")),
    );
    let wrong = style.paint(
        if summary.false_incidents == 0 { Colour::Green } else { Colour::Yellow },
        count(summary.false_incidents, "false incident"),
    );
    writeln!(out, "\n{found}, {wrong}, {} records", summary.records)
}

fn row(out: &mut impl Write, style: Style, outcome: &Outcome) -> io::Result<()> {
    let sensors = match outcome.sensors[..] {
        [one] => one.to_owned(),
        ref several => count(several.len(), "sensor"),
    };
    let found = match outcome.found_after_records {
        Some(records) => style.paint(Colour::Green, format!("after {}", count(records, "record"))),
        None => style.paint(Colour::Red, "NOT FOUND"),
    };
    let (kind, pump, lasts) = (outcome.kind, &outcome.pump, outcome.lasts_records);
    writeln!(out, "{kind:18}  {pump:6}  {sensors:19}  {:16}  {lasts:>7}  {found}", minute(outcome.start))
}

fn cause(cause: &Cause) -> String {
    let observed = cause.observed.map_or("missing".to_owned(), short);
    let share = (100.0 * cause.share).round();
    format!("{} {observed} instead of {} ({share} %)", cause.name, short(cause.expected))
}

/// Four significant digits; a reading needs no more.
fn short(value: f64) -> String {
    let whole_digits = value.abs().max(1.0).log10() as usize + 1;
    format!("{value:.*}", 4usize.saturating_sub(whole_digits))
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::faults::FaultKind;
    use super::super::sensors::Sensor;
    use super::super::tally::Tally;
    use super::super::wire::pump_name;
    use super::*;

    fn faults() -> Vec<Fault> {
        let shift = Fault {
            kind: FaultKind::LevelShift,
            pump: 2,
            sensors: vec![Sensor::Flow],
            start: 2100,
            end: 2220,
            size: 0.3,
        };
        let spike = Fault {
            kind: FaultKind::Spike,
            pump: 0,
            sensors: vec![Sensor::BearingTemperature],
            start: 2300,
            end: 2302,
            ..shift
        };
        let dying = Fault {
            kind: FaultKind::DyingPump,
            pump: 5,
            sensors: Sensor::ALL[1..7].to_vec(),
            start: 2500,
            end: 2900,
            ..shift
        };
        let apart = Fault {
            kind: FaultKind::BrokenCorrelation,
            pump: 1,
            sensors: vec![Sensor::Valve],
            start: 3000,
            end: 3100,
            ..shift
        };
        vec![shift, spike, dying, apart]
    }

    fn alert(pump: usize, time: &str, causes: &[(&str, Option<f64>, f64, f64)]) -> Flagged {
        let cause = |&(name, observed, expected, share): &(&str, Option<f64>, f64, f64)| Cause {
            name: name.into(),
            observed,
            expected,
            share,
        };
        Flagged { series: pump_name(pump), time: time.parse().unwrap(), sensors: causes.iter().map(cause).collect() }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_incident_is_one_line_with_the_fault_behind_it() {
        let causes = [
            ("flow", Some(210.26), 251.0, 0.62),
            ("motor.current", None, 64.049, 0.2),
            ("valve.position", Some(1.0), 2.0, 0.1),
        ];
        let alert = alert(2, "2026-03-09T07:05:00Z", &causes);
        let fault = &faults()[0];
        assert_eq!(
            text(|out| incident(out, Style::Plain, &alert, Some(fault))),
            "2026-03-09 07:05  pump-3  level shift         flow 210.3 instead of 251.0 (62 %), motor.current missing instead of 64.05 (20 %)\n",
        );
        assert_eq!(
            text(|out| incident(out, Style::Plain, &alert, None)),
            "2026-03-09 07:05  pump-3  no fault            flow 210.3 instead of 251.0 (62 %), motor.current missing instead of 64.05 (20 %)\n",
        );
    }

    #[test]
    fn the_table_says_of_every_fault_whether_it_was_found() {
        let mut tally = Tally::default();
        for (pump, time) in [
            (2, "2026-03-09T07:00:00Z"),
            (0, "2026-03-09T23:45:00Z"),
            (5, "2026-03-10T20:20:00Z"),
            (4, "2026-03-11T00:00:00Z"),
        ] {
            tally.flag(&alert(pump, time, &[])).unwrap();
        }
        let expect = "\
fault               pump    sensor               begins            records  found
level shift         pump-3  flow                 2026-03-09 07:00      120  after 1 record
spike               pump-1  bearing.temperature  2026-03-09 23:40        2  after 2 records
dying pump          pump-6  6 sensors            2026-03-10 16:20      400  after 49 records
broken correlation  pump-2  valve.position       2026-03-12 10:00      100  NOT FOUND

3 of 4 faults found, 1 false incident, 30000 records
";
        assert_eq!(text(|out| table(out, Style::Plain, &tally.summary(&faults(), 30_000))), expect);
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let summary = Tally::default().summary(&faults(), 30_000);
        let plain = text(|out| table(out, Style::Plain, &summary));
        let mut coloured = text(|out| table(out, Style::Coloured, &summary));
        assert!(coloured.contains("\x1b[31mNOT FOUND\x1b[0m"), "{coloured}");
        for code in ["\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn colours_need_a_terminal_and_no_objection() {
        assert_eq!(Style::choose(true, None), Style::Coloured);
        assert_eq!(Style::choose(true, Some("")), Style::Coloured);
        assert_eq!(Style::choose(true, Some("1")), Style::Plain);
        assert_eq!(Style::choose(false, None), Style::Plain);
    }

    #[test]
    fn readings_have_four_digits() {
        let cases = [
            (0.0, "0.000"),
            (0.12345, "0.123"),
            (-1.5, "-1.500"),
            (12.345, "12.35"),
            (1450.4, "1450"),
            (123456.0, "123456"),
        ];
        for (value, expect) in cases {
            assert_eq!(short(value), expect);
        }
    }
}
