//! The topic of cleaned records: one for each scored record, nearer to the truth than what was read, with faults still in it.

use std::collections::BTreeMap;

use crate::plant::{self, Fault};
use crate::setting::{Setting, TRAINING_STEPS, line, text};
use crate::support::{self, Message};

/// What the sensor `motor.current` would read without noise and faults.
fn truth(message: &Message) -> f64 {
    let n = String::from_utf8(message.header("n").expect("its number").to_vec()).expect("text");
    let (machine, step) = n.split_once(':').expect("machine and step");
    let (machine, step): (f64, f64) = (machine.parse().expect("a number"), step.parse().expect("a number"));
    10.0 + 1.1 * (step / 37.0 + machine).sin() + 1.3 * (step / 91.0 + 2.0 * machine).cos()
}

#[test]
fn every_scored_record_is_there_with_less_noise_and_all_of_its_faults() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "clean", "reconstructions = \"{topic}.clean\"");
    let process = setting.start_trained();
    let shifted = [Fault { machine: 3, sensor: 2, from: TRAINING_STEPS + 50, to: usize::MAX, size: 20.0 }];
    let mut records = plant::records(2, TRAINING_STEPS..TRAINING_STEPS + 100, &shifted);
    let without = String::from_utf8(records[3_000].value.clone().unwrap_or_default()).expect("text");
    let (_, rest) = without.split_once(',').expect("several sensors");
    records[3_000].value = Some(format!("{{\"flow\":null,{rest}").into_bytes());
    broker.produce(&setting.topic, records);
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    process.stop();

    let scored = setting.scores();
    let scored = scored.iter().map(line).filter(|line| !line["score"].is_null());
    let mut ids: Vec<String> = scored.map(|line| text(&line, "id").to_owned()).collect();
    let cleaned = broker.read(&format!("{}.clean", setting.topic));
    let lines: Vec<_> = cleaned.iter().map(line).collect();
    let mut found: Vec<String> = lines.iter().map(|line| text(line, "id").to_owned()).collect();
    ids.sort();
    found.sort();
    assert!(ids.len() > 1_000 && ids == found, "{} scored, {} cleaned", ids.len(), found.len());

    let by_id: BTreeMap<String, &Message> =
        input.iter().map(|m| (format!("{}-{}-{}", setting.topic, m.partition, m.offset), m)).collect();
    let (mut before, mut after, mut faulty, mut filled) = (0.0, 0.0, 0, 0);
    for (message, line) in cleaned.iter().zip(&lines) {
        assert_eq!(message.key.as_deref(), Some(text(line, "series").as_bytes()));
        let values = line["values"].as_object().expect("values");
        assert_eq!(values.len(), 8, "{line}");
        let of = by_id[text(line, "id")];
        let (current, record) = (values["motor.current"].as_f64().expect("a number"), crate::setting::line(of));
        let observed = record["motor"]["current"].as_f64().expect("a number");
        if observed > 20.0 {
            faulty += 1;
            assert!(current > 20.0, "{record} {line}");
            continue;
        }
        before += (observed - truth(of)).powi(2);
        after += (current - truth(of)).powi(2);
        if line["missing"][0] == "flow" {
            filled += 1;
            assert!((6.0..14.0).contains(&values["flow"].as_f64().expect("a number")), "{line}");
        } else {
            assert_eq!(line["missing"], serde_json::json!([]));
        }
    }
    assert!(faulty > 10 && filled == 1, "{faulty} with the fault, {filled} filled in");
    assert!(after < 0.7 * before, "square error before {before}, after {after}");
}
