//! Runs of records as rows: what is told of each, and that it does not depend on where it was remembered in between.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::record::PartitionId;

fn settings(open: &str, quiet: &str) -> IncidentSettings {
    IncidentSettings { open: open.parse().unwrap(), quiet: quiet.parse().unwrap(), ..IncidentSettings::default() }
}

/// What is told of records with these scores, a second apart: `offset change start-count`. From 1 a score is flagged. The tracker is
/// written and read again before each record.
fn told(settings: &IncidentSettings, scores: &[f64]) -> Vec<String> {
    let mut tracker = Tracker::default();
    let mut all = Vec::new();
    for (i, &score) in scores.iter().enumerate() {
        let mut bytes = Vec::new();
        tracker.encode(&mut bytes);
        let again = Tracker::decode(&bytes, 2).unwrap();
        assert_eq!(again, tracker);
        tracker = again;
        let (offset, time) = (Offset(i as i64), EventTime(1_000 * i as i64));
        let seen = Seen { offset, time, score, flagged: score >= 1.0, parts: &[3.0, 1.0] };
        tracker.see(settings, &seen, &mut |change, incident| {
            all.push(format!("{i} {} {}-{}", change.name(), incident.start.0, incident.count));
        });
    }
    all
}

#[track_caller]
fn check(open: &str, quiet: &str, scores: &[f64], expect: &[&str]) {
    assert_eq!(told(&settings(open, quiet), scores), expect, "{open}, {quiet}: {scores:?}");
}

#[test]
fn a_run_of_anomalous_records_is_one_incident() {
    check("1 of 1", "2 records", &[0.5; 5], &[]);
    check("1 of 1", "2 records", &[0.5, 1.0, 0.5, 0.5, 0.5], &["1 opened 1-1", "3 closed 1-1"]);
    check(
        "1 of 1",
        "3 records",
        &[1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2, 0.2],
        &["0 opened 0-1", "1 updated 0-2", "3 updated 0-4", "7 closed 0-5"],
    );
    // Still open at the end.
    check("1 of 1", "3 records", &[1.0, 0.2, 0.2], &["0 opened 0-1"]);
    check(
        "1 of 1",
        "1 record",
        &[1.0, 0.2, 1.0, 0.2],
        &["0 opened 0-1", "1 closed 0-1", "2 opened 2-1", "3 closed 2-1"],
    );
}

#[test]
fn flapping_is_one_incident() {
    let flapping: Vec<f64> = (0..40).map(|i| if i % 7 == 0 { 1.1 } else { 0.4 }).collect();
    let told = told(&settings("1 of 1", "10 records"), &flapping);
    assert_eq!(told.iter().filter(|t| t.contains("opened")).count(), 1, "{told:?}");
}

#[test]
fn n_of_m_opens_with_the_first_of_them_as_its_start() {
    check("2 of 3", "2 records", &[1.0, 0.2, 0.2, 1.0, 0.2, 0.2, 1.0], &[]);
    check("2 of 3", "2 records", &[0.2, 1.0, 0.2, 1.0, 0.2, 0.2], &["3 opened 1-2", "5 closed 1-2"]);
    check("3 of 3", "1 record", &[1.0, 1.0, 1.0, 0.2], &["2 opened 0-3", "3 closed 0-3"]);
}

#[test]
fn a_higher_peak_is_told_and_a_little_more_is_not() {
    check("1 of 1", "9 records", &[1.0, 1.1, 1.2, 1.9, 2.0], &["0 opened 0-1", "1 updated 0-2", "3 updated 0-4"]);
    let peaks: Vec<f64> = (0..1_000_000).map(|i| 1.0 + f64::from(i) / 1_000.0).collect();
    let told = told(&settings("1 of 1", "9 records"), &peaks);
    assert!(told.len() < 60, "{} events of a million records", told.len());
}

#[test]
fn quiet_in_event_time_closes_with_the_next_record_however_late() {
    let settings = settings("1 of 1", "5s");
    assert_eq!(settings.quiet, Span::Time(Duration::from_secs(5)));
    let mut tracker = Tracker::default();
    let mut all = Vec::new();
    // (second, score); out of order within the quiet time, then a gap.
    for (i, (second, score)) in
        [(0, 1.0), (3, 0.2), (1, 0.2), (5, 1.0), (4, 0.2), (11, 1.0), (20, 0.1)].into_iter().enumerate()
    {
        let seen = Seen {
            offset: Offset(i as i64),
            time: EventTime(1_000 * second),
            score,
            flagged: score >= 1.0,
            parts: &[1.0],
        };
        tracker.see(&settings, &seen, &mut |change, incident| {
            all.push(format!("{i} {} {}-{}", change.name(), incident.start.0, incident.count));
        });
    }
    assert_eq!(all, ["0 opened 0-1", "3 updated 0-2", "5 closed 0-2", "5 opened 5-1", "6 closed 5-1"]);
    assert!(tracker.open().is_none());
}

#[test]
fn settings_are_read_and_written_and_nonsense_is_refused() {
    for text in ["1 of 1", "3 of 64"] {
        assert_eq!(text.parse::<NOfM>().unwrap().to_string(), text);
    }
    for text in ["", "0 of 1", "2 of 1", "1 of 65", "1 in 2", "-1 of 3", "1 of 2 of 3"] {
        assert!(text.parse::<NOfM>().is_err(), "{text}");
    }
    for (text, quiet) in [
        ("10 records", Span::Records(10)),
        ("1 record", Span::Records(1)),
        ("5m", Span::Time(Duration::from_secs(300))),
    ] {
        assert_eq!(text.parse(), Ok(quiet), "{text}");
        assert_eq!(quiet.to_string().parse(), Ok(quiet), "{text}");
    }
    for text in ["", "0 records", "0s", "10", "-5m", "soon", "1.5 records"] {
        assert!(text.parse::<Span>().is_err(), "{text}");
    }
}

#[test]
fn stored_bytes_that_are_no_tracker_are_refused_and_never_panic() {
    let mut tracker = Tracker::default();
    let seen = Seen { offset: Offset(7), time: EventTime(1), score: 2.0, flagged: true, parts: &[1.0, 0.0] };
    let candidate = settings("2 of 3", "1 record");
    tracker.see(&candidate, &seen, &mut |_, _| panic!("one of two"));
    let mut waiting = Vec::new();
    tracker.encode(&mut waiting);
    tracker.see(&candidate, &seen, &mut |_, _| {});
    let mut open = Vec::new();
    tracker.encode(&mut open);
    assert_eq!((waiting.len(), open.len()), (33, 81));
    for good in [waiting, open] {
        for cut in 0..good.len() {
            assert_eq!(Tracker::decode(&good[..cut], 2), None);
        }
        assert_eq!(Tracker::decode(&[&good[..], &[0]].concat(), 2), None);
    }
    assert_eq!(Tracker::decode(&[77], 2), None);
    assert_eq!(Tracker::decode(&[[OPEN].as_slice(), &[0xff; 80]].concat(), 2), None);
}

#[test]
fn an_event_on_the_wire_keeps_to_the_schema_and_speaks_plainly() {
    let schema: Value = serde_json::from_str(include_str!("../../deploy/schema/incident.schema.json")).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let names: Vec<String> = (0..12).map(|i| format!("f{i}")).collect();
    let parts: Vec<f32> = (0..12).map(|i| if i == 3 { 60.0 } else { 1.0 }).collect();
    let mut tracker = Tracker::default();
    let mut events: Vec<(Value, String)> = Vec::new();
    for (i, score) in [1.2, 3.6, 0.1].into_iter().enumerate() {
        let (offset, time) = (Offset(40 + i as i64), EventTime(1_795_489_200_000 + 1_000 * i as i64));
        let seen = Seen { offset, time, score, flagged: score >= 1.0, parts: &parts };
        tracker.see(&settings("1 of 1", "1 record"), &seen, &mut |change, incident| {
            let (topic, series, model) = ("sensors", "pump-3", "9f2c1a00ffee1234");
            let event = Event { change, incident, topic, partition: PartitionId(2), series, model, names: &names };
            let mut wire = Vec::new();
            event.write(&mut wire);
            events.push((serde_json::from_slice(&wire).unwrap(), event.summary()));
        });
    }
    assert_eq!(events.len(), 3);
    for (event, summary) in &events {
        assert!(schema.is_valid(event), "{event}");
        assert_eq!((event["id"].as_str(), event["summary"].as_str()), (Some("sensors-2-40"), Some(summary.as_str())));
        let shares: f64 = event["sensors"].as_array().unwrap().iter().map(|s| s["share"].as_f64().unwrap()).sum();
        assert!((shares + event["other_share"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(event["sensors"][0]["name"], "f3");
    }
    assert_eq!(
        (events[0].0["severity"].as_str(), events[2].0["severity"].as_str()),
        (Some("warning"), Some("critical"))
    );
    assert_eq!(
        events[2].1,
        "pump-3: anomalous from 2026-11-24T03:00:00.000Z to 2026-11-24T03:00:01.000Z, 2 records, peak score 3.60, mostly f3 (85 %)"
    );
    assert!(events[0].1.starts_with("pump-3: anomalous since 2026-11-24T03:00:00.000Z, 1 record, peak score 1.20"));
}
