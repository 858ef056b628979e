//! What was flagged against what was injected: incidents, faults found and when, false incidents.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::faults::{Fault, FaultKind};
use super::wire::{PUMPS, pump_index, pump_name, step_at, time_ms};

/// Flagged records of a pump at most this many records apart are one incident, and one that begins at most this many records
/// after a fault's end is still the fault's: a detector that smooths needs some records to forget.
pub const INCIDENT_GAP: usize = 10;

/// The fields of an alert, as it is on the wire, that the demo needs.
#[derive(Clone, Debug, Deserialize)]
pub struct Flagged {
    pub series: String,
    pub time: Timestamp,
    /// By share, the largest first.
    pub sensors: Vec<Cause>,
}

/// A sensor that an alert names.
#[derive(Clone, Debug, Deserialize)]
pub struct Cause {
    pub name: String,
    pub observed: Option<f64>,
    pub expected: f64,
    /// Of the whole error, 0 to 1.
    pub share: f64,
}

/// A record of the plant: which pump, and how many records of it came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub pump: usize,
    pub step: usize,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("place the alert for series {series:?} at {time}: the plant has no such record")]
pub struct ForeignAlert {
    series: String,
    time: Timestamp,
}

/// Flagged records of every pump by step, each with the sensor named first. Takes alerts in any order, and repeated ones.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    flagged: [BTreeMap<usize, String>; PUMPS],
}

/// The result of a run; what `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub faults_injected: usize,
    pub faults_found: usize,
    pub false_incidents: usize,
    /// Records of the plant, the training part included.
    pub records: u64,
    pub by_kind: BTreeMap<FaultKind, KindCount>,
    pub faults: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindCount {
    pub injected: usize,
    pub found: usize,
}

/// What became of one fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    pub kind: FaultKind,
    pub pump: String,
    pub sensors: Vec<&'static str>,
    /// Event times of the first faulty record and of the first sound one after it.
    pub start: Timestamp,
    pub end: Timestamp,
    /// How many records of the pump are faulty.
    pub lasts_records: usize,
    /// Which of them was flagged first, counted from 1; none: not found.
    pub found_after_records: Option<usize>,
    /// The sensor that this flagged record blames most.
    pub first_named: Option<String>,
}

impl Tally {
    /// Takes in an alert. The place is returned if it opens an incident rather than continuing one.
    pub fn flag(&mut self, alert: &Flagged) -> Result<Option<Place>, ForeignAlert> {
        let place = pump_index(&alert.series).zip(step_at(alert.time.as_millisecond()));
        let Some((pump, step)) = place else {
            return Err(ForeignAlert { series: alert.series.clone(), time: alert.time });
        };
        let near = step.saturating_sub(INCIDENT_GAP)..=step + INCIDENT_GAP;
        let opens = self.flagged[pump].range(near).next().is_none();
        let named = alert.sensors.first().map_or("", |cause| &cause.name);
        self.flagged[pump].entry(step).or_insert_with(|| named.to_owned());
        Ok(opens.then_some(Place { pump, step }))
    }

    /// Compares with the faults that are in the first `records` records of the plant.
    pub fn summary(&self, faults: &[Fault], records: u64) -> Summary {
        let injected = faults.iter().filter(|fault| ((fault.start * PUMPS + fault.pump) as u64) < records);
        let outcomes: Vec<Outcome> = injected.map(|fault| self.outcome(fault)).collect();
        let mut by_kind = BTreeMap::<FaultKind, KindCount>::new();
        for outcome in &outcomes {
            let count = by_kind.entry(outcome.kind).or_default();
            count.injected += 1;
            count.found += usize::from(outcome.found_after_records.is_some());
        }
        Summary {
            faults_injected: outcomes.len(),
            faults_found: by_kind.values().map(|count| count.found).sum(),
            false_incidents: self.false_incidents(faults),
            records,
            by_kind,
            faults: outcomes,
        }
    }

    fn outcome(&self, fault: &Fault) -> Outcome {
        let first = self.flagged[fault.pump].range(fault.start..fault.end).next();
        Outcome {
            kind: fault.kind,
            pump: pump_name(fault.pump),
            sensors: fault.sensors.iter().map(|sensor| sensor.path()).collect(),
            start: time(fault.start),
            end: time(fault.end),
            lasts_records: fault.end - fault.start,
            found_after_records: first.map(|(step, _)| step - fault.start + 1),
            first_named: first.map(|(_, named)| named.clone()),
        }
    }

    fn false_incidents(&self, faults: &[Fault]) -> usize {
        let of_pump =
            |pump| incidents(&self.flagged[pump]).filter(move |&(first, last)| !excused(faults, pump, first, last));
        (0..PUMPS).map(|pump| of_pump(pump).count()).sum()
    }
}

/// The fault behind a flagged record: one going on, or over for at most `INCIDENT_GAP` records.
pub fn fault_behind(faults: &[Fault], place: Place) -> Option<&Fault> {
    faults.iter().find(|fault| explains(fault, place.pump, place.step, place.step))
}

fn excused(faults: &[Fault], pump: usize, first: usize, last: usize) -> bool {
    faults.iter().any(|fault| explains(fault, pump, first, last))
}

/// Whether an incident from `first` to `last`, both flagged, overlaps the fault or begins soon after its end.
fn explains(fault: &Fault, pump: usize, first: usize, last: usize) -> bool {
    fault.pump == pump && last >= fault.start && first < fault.end + INCIDENT_GAP
}

/// First and last flagged step of every incident.
fn incidents(flagged: &BTreeMap<usize, String>) -> impl Iterator<Item = (usize, usize)> {
    let mut steps = flagged.keys().copied().peekable();
    std::iter::from_fn(move || {
        let first = steps.next()?;
        let mut last = first;
        while let Some(step) = steps.next_if(|step| step - last <= INCIDENT_GAP) {
            last = step;
        }
        Some((first, last))
    })
}

fn time(step: usize) -> Timestamp {
    Timestamp::from_millisecond(time_ms(step)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::sensors::Sensor;
    use super::*;

    fn alert(pump: usize, step: usize) -> Flagged {
        let cause = Cause { name: format!("sensor of {step}"), observed: Some(1.0), expected: 2.0, share: 1.0 };
        Flagged { series: pump_name(pump), time: time(step), sensors: vec![cause] }
    }

    /// A level shift of pump 2 from record 100 on.
    fn fault(end: usize) -> Fault {
        Fault { kind: FaultKind::LevelShift, pump: 2, sensors: vec![Sensor::Flow], start: 100, end, size: 0.3 }
    }

    #[track_caller]
    fn check(flagged: &[(usize, usize)], found_after_records: Option<usize>, false_incidents: usize) {
        let mut forwards = Tally::default();
        let mut backwards = Tally::default();
        for &(pump, step) in flagged {
            forwards.flag(&alert(pump, step)).unwrap();
        }
        for &(pump, step) in flagged.iter().rev().chain(flagged) {
            backwards.flag(&alert(pump, step)).unwrap();
        }
        let summary = forwards.summary(&[fault(120)], 30_000);
        assert_eq!(summary.faults[0].found_after_records, found_after_records, "{flagged:?}");
        assert_eq!(summary.false_incidents, false_incidents, "{flagged:?}");
        assert_eq!(summary.faults_found, usize::from(found_after_records.is_some()), "{flagged:?}");
        assert_eq!(backwards.summary(&[fault(120)], 30_000), summary, "order or repetition matters: {flagged:?}");
    }

    #[test]
    fn faults_are_found_by_flagged_records_inside_them_and_incidents_elsewhere_are_false() {
        check(&[], None, 0);
        check(&[(2, 100)], Some(1), 0);
        check(&[(2, 119)], Some(20), 0);
        check(&[(2, 105), (2, 106), (2, 119)], Some(6), 0);
        // Another pump.
        check(&[(1, 105)], None, 1);
        // Before and after; ten records after the end are the fault's echo.
        check(&[(2, 99)], None, 1);
        check(&[(2, 120)], None, 0);
        check(&[(2, 129)], None, 0);
        check(&[(2, 130)], None, 1);
        // An incident that begins before the fault and reaches into it is no false one, whatever it says about the fault.
        check(&[(2, 90), (2, 100)], Some(1), 0);
        check(&[(2, 89), (2, 100)], Some(1), 1);
        // One that goes on after the fault is the same incident as long as no gap exceeds ten records.
        check(&[(2, 115), (2, 125), (2, 135), (2, 145)], Some(16), 0);
        check(&[(2, 115), (2, 125), (2, 136)], Some(16), 1);
        // Over the fault without a flagged record in it: not found, nor false.
        check(&[(2, 95), (2, 97), (2, 121)], None, 1);
        check(&[(0, 10), (0, 20), (0, 31), (4, 31)], None, 3);
    }

    #[test]
    fn an_alert_opens_an_incident_unless_a_flagged_record_is_near() {
        let mut tally = Tally::default();
        let mut opens = |pump, step| tally.flag(&alert(pump, step)).unwrap().is_some();
        assert!(opens(1, 50));
        assert!(!opens(1, 50));
        assert!(!opens(1, 60));
        assert!(opens(1, 71));
        assert!(opens(2, 60));
        assert!(!opens(1, 40));
    }

    #[test]
    fn an_alert_of_no_record_of_the_plant_is_an_error() {
        let mut tally = Tally::default();
        let unknown = Flagged { series: "pump-7".into(), ..alert(0, 5) };
        let between = Flagged { time: Timestamp::from_millisecond(time_ms(5) + 1).unwrap(), ..alert(0, 5) };
        let before = Flagged { time: Timestamp::UNIX_EPOCH, ..alert(0, 5) };
        for foreign in [unknown, between, before] {
            let error = tally.flag(&foreign).unwrap_err();
            assert!(error.to_string().starts_with("place the alert for series \"pump-"), "{error}");
        }
        assert_eq!(tally.summary(&[], 0).false_incidents, 0);
    }

    #[test]
    fn faults_beyond_the_records_read_are_not_counted() {
        let summary = |records| Tally::default().summary(&[fault(120)], records).faults_injected;
        assert_eq!(summary(602), 0);
        assert_eq!(summary(603), 1);
    }

    #[test]
    fn a_fault_behind_a_record_is_on_its_pump_and_not_long_over() {
        let faults = [fault(120)];
        let behind = |pump, step| fault_behind(&faults, Place { pump, step }).is_some();
        assert!(behind(2, 100) && behind(2, 129));
        assert!(!behind(2, 99) && !behind(2, 130) && !behind(1, 110));
    }

    #[test]
    fn alerts_are_read_from_the_wire() {
        let json = r#"{"id":"sensors-3-9","time":"2026-03-02T00:10:00.000Z","series":"pump-3","score":2.3,"sensors":[
            {"name":"flow","observed":null,"expected":3.4,"share":0.0,"imputed":true}],"other_share":0.0}"#;
        let place = Tally::default().flag(&serde_json::from_str(json).unwrap());
        assert_eq!(place, Ok(Some(Place { pump: 2, step: 2 })));
    }

    #[test]
    fn the_summary_in_json_counts_by_kind() {
        let mut tally = Tally::default();
        tally.flag(&alert(2, 103)).unwrap();
        let spike = Fault { kind: FaultKind::Spike, start: 300, end: 301, ..fault(120) };
        let json = serde_json::to_value(tally.summary(&[fault(120), spike], 30_000)).unwrap();
        let expect = serde_json::json!({
            "faults_injected": 2, "faults_found": 1, "false_incidents": 0, "records": 30_000,
            "by_kind": {"level_shift": {"injected": 1, "found": 1}, "spike": {"injected": 1, "found": 0}},
            "faults": [
                {"kind": "level_shift", "pump": "pump-3", "sensors": ["flow"], "start": "2026-03-02T08:20:00Z",
                 "end": "2026-03-02T10:00:00Z", "lasts_records": 20, "found_after_records": 4, "first_named": "sensor of 103"},
                {"kind": "spike", "pump": "pump-3", "sensors": ["flow"], "start": "2026-03-03T01:00:00Z",
                 "end": "2026-03-03T01:05:00Z", "lasts_records": 1, "found_after_records": null, "first_named": null},
            ],
        });
        assert_eq!(json, expect);
    }
}
