//! Records that are not JSON: the same values give the same scores, and a schema that cannot be had loses nothing.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::Value;

use crate::plant::{self, Fault, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address, ends, line, text};
use crate::support::registry::{Mood, Registry};
use crate::support::{self, Message, Outgoing, PATIENCE, http_get, metric, wait_for};

const COLUMNS: [&str; 9] = ["site", "flow", "speed", "motor.current", "motor.temp", "in", "out", "vibration", "valve"];

fn at<'a>(record: &'a Value, path: &str) -> &'a Value {
    record.pointer(&["/", &path.replace('.', "/")].concat()).unwrap()
}

fn csv(record: &Value) -> Vec<u8> {
    let cells = COLUMNS.map(|path| match at(record, path) {
        Value::String(text) => text.clone(),
        number => number.to_string(),
    });
    cells.join(",").into_bytes()
}

fn message_pack(record: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(record).unwrap()
}

/// Of the plant's records, with one field more for another id.
fn schema(more: &str) -> String {
    let double = |name: &str| format!(r#"{{"name":"{name}","type":"double"}}"#);
    let motor = format!(
        r#"{{"name":"motor","type":{{"type":"record","name":"Motor","fields":[{},{}]}}}}"#,
        double("current"),
        double("temp")
    );
    let fields = ["flow", "speed", "in", "out", "vibration", "valve"].map(double).join(",");
    format!(
        r#"{{"type":"record","name":"Pump","fields":[{fields},{motor},{{"name":"site","type":["null","string"]}}{more}]}}"#
    )
}

fn avro_of(id: u8, more: Option<(&str, Avro)>, schema: &str) -> impl Fn(&Value) -> Vec<u8> + use<> {
    let schema = Schema::parse_str(schema).unwrap();
    let more = more.map(|(name, value)| (name.to_owned(), value));
    move |record| {
        let double = |path: &str| Avro::Double(at(record, path).as_f64().unwrap());
        let field = |name: &str, value: Avro| (name.to_owned(), value);
        let motor = Avro::Record(vec![field("current", double("motor.current")), field("temp", double("motor.temp"))]);
        let mut fields: Vec<_> =
            ["flow", "speed", "in", "out", "vibration", "valve"].map(|name| field(name, double(name))).into();
        fields.push(field("motor", motor));
        fields.push(field("site", Avro::Union(1, Box::new(Avro::String("north".to_owned())))));
        fields.extend(more.clone());
        let datum = GenericDatumWriter::builder(&schema).build().unwrap();
        [vec![0, 0, 0, 0, id], datum.write_value_to_vec(Avro::Record(fields)).unwrap()].concat()
    }
}

/// A record as a message.
type Write = dyn Fn(&Value) -> Vec<u8>;

fn written(records: Vec<Outgoing>, write: &Write) -> Vec<Outgoing> {
    let value = |record: &Outgoing| write(&serde_json::from_slice(record.value.as_deref().unwrap()).unwrap());
    records.into_iter().map(|record| Outgoing { value: Some(value(&record)), ..record }).collect()
}

/// By partition and offset: score and verdict.
fn scores(setting: &Setting<'_>) -> BTreeMap<String, (String, bool)> {
    let of = |message: &Message| {
        let line = line(message);
        let place = text(&line, "id").trim_start_matches(&setting.topic).to_owned();
        (place, (line["score"].to_string(), line["flagged"].as_bool().unwrap()))
    };
    setting.scores().iter().map(of).collect()
}

#[test]
fn the_same_values_give_the_same_scores_in_every_format() {
    let Some(broker) = support::kafka() else { return };
    let registry = Registry::start();
    registry.schema(1, &schema(""));
    let columns = serde_json::to_string(&COLUMNS).unwrap();
    let avro = avro_of(1, None, &schema(""));
    let json = |record: &Value| record.to_string().into_bytes();
    let formats: [(&str, String, &Write); 4] = [
        ("json", String::new(), &json),
        ("csv", format!("[input]\nformat = \"csv\"\ncsv_columns = {columns}"), &csv),
        ("messagepack", "[input]\nformat = \"messagepack\"".to_owned(), &message_pack),
        ("avro", format!("[input]\nformat = \"avro\"\n[schema_registry]\nurl = \"{}\"", registry.url), &avro),
    ];
    let fault = Fault { machine: 3, sensor: 4, from: TRAINING_STEPS + 20, to: TRAINING_STEPS + 40, size: 2.0 };
    let mut found = vec![];
    for (format, more, write) in formats {
        let setting = Setting::new(broker, format, &more);
        broker.produce(&setting.topic, written(plant::records(1, 0..TRAINING_STEPS, &[]), write));
        let process = setting.start();
        process.wait_for_line("partitions assigned", LONG);
        let later = plant::records(2, TRAINING_STEPS..TRAINING_STEPS + 60, &[fault]);
        broker.produce(&setting.topic, written(later, write));
        setting.wait_until_settled(&broker.read(&setting.topic));
        let ended = process.stop();
        assert!(ended.status.success(), "{format}: {ended:?}");
        assert_eq!(setting.dead_letters().len(), 0, "{format}");
        found.push(scores(&setting));
    }
    assert_eq!(found[0].len(), 60 * MACHINES);
    assert!(found[0].values().any(|(_, flagged)| *flagged));
    for other in &found[1..] {
        assert!(*other == found[0], "{:?}", other.iter().zip(&found[0]).find(|(a, b)| a != b));
    }
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|(page, _)| page == "/schemas/ids/1").count(), 1, "{asked:?}");
}

#[test]
fn a_registry_that_does_not_answer_makes_records_wait_and_loses_none() {
    let Some(broker) = support::kafka() else { return };
    let registry = Registry::start();
    let wider = schema(r#",{"name":"count","type":"long"}"#);
    registry.schema(1, &schema(""));
    let more =
        format!("[input]\nformat = \"avro\"\n[schema_registry]\nurl = \"{}\"\ntimeout = \"200ms\"\n", registry.url);
    let mut setting = Setting::new(broker, "waiting", &more);
    setting.config = setting.config.replace("[http]\n", "[http]\nreadiness_timeout = \"3s\"\n");
    let old = avro_of(1, None, &schema(""));
    let new = avro_of(2, Some(("count", Avro::Long(7))), &wider);
    // While it learns, too: nothing of use can be read yet.
    registry.is(Mood::Refuses);
    broker.produce(&setting.topic, written(plant::records(1, 0..TRAINING_STEPS, &[]), &old));
    let process = setting.start();
    process.wait_for_line("schema 1: ask http://", PATIENCE);
    registry.is(Mood::Answers);
    process.wait_for_line("partitions assigned", LONG);
    let address = address(&process);
    let trained = ends(&broker.read(&setting.topic));

    registry.is(Mood::Silent);
    let later = |steps| plant::records(2, TRAINING_STEPS + steps..TRAINING_STEPS + steps + 10, &[]);
    // Some before, one machine's new ones, some after: the others of its partition wait with it, and nobody else.
    broker.produce(&setting.topic, written(later(0), &old));
    let ours = |record: &Outgoing| record.key.as_deref() == Some(plant::name(1).as_bytes());
    broker.produce(&setting.topic, written(later(10).into_iter().filter(ours).collect(), &new));
    broker.produce(&setting.topic, written(later(10).into_iter().filter(|r| !ours(r)).collect(), &old));
    let input = broker.read(&setting.topic);
    let partition = input.iter().find(|m| m.key.as_deref() == Some(plant::name(1).as_bytes())).unwrap().partition;
    let others: Vec<_> = input.iter().filter(|m| m.partition != partition).cloned().collect();
    setting.wait_until_settled(&others);
    let new_schema = |m: &&Message| m.value.as_deref().is_some_and(|value| value[4] == 2);
    let first = input.iter().filter(new_schema).map(|m| m.offset).min().unwrap();
    wait_for("what came before it to be committed", LONG, || {
        let committed = broker.committed(&format!("residua-{}", setting.topic), &setting.topic)[partition as usize];
        (committed == Some(first)).then_some(())
    });
    wait_for("/readyz to say so", PATIENCE, || http_get(&address, "/readyz").filter(|reply| reply.status == 503));
    let waiting = || metric(&http_get(&address, "/metrics").unwrap().body, "residua_waiting_partitions");
    assert_eq!(waiting(), 1.0);
    assert_eq!(http_get(&address, "/livez").unwrap().status, 200);
    let said = process.stderr();
    assert!(said.contains("these partitions wait") && said.contains("schema 2: ask http://"), "{said}");

    // It answers, and of one schema that it knows nothing.
    registry.schema(2, &wider);
    registry.is(Mood::Answers);
    setting.wait_until_settled(&input);
    let nobodys = avro_of(9, None, &schema(""));
    broker.produce(&setting.topic, written(later(20).into_iter().filter(ours).take(3).collect(), &nobodys));
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    wait_for("/readyz to be well", PATIENCE, || http_get(&address, "/readyz").filter(|reply| reply.status == 200));
    assert_eq!(waiting(), 0.0);

    // Killed before the next checkpoint: its successor reads these again, and waits for a schema even where its records would be dead letters.
    let mixed = |from| {
        let with = |record: Outgoing| written(vec![record.clone()], if ours(&record) { &new as &Write } else { &old });
        later(from).into_iter().flat_map(with).collect::<Vec<_>>()
    };
    broker.produce(&setting.topic, mixed(30));
    setting.wait_until_settled(&broker.read(&setting.topic));
    process.signal("KILL");
    drop(process);
    registry.forget(2);
    let process = setting.start();
    process.wait_for_line("schema 2: Schema not found", LONG);
    assert_eq!(setting.dead_letters().len(), 3);
    registry.schema(2, &wider);
    broker.produce(&setting.topic, mixed(40));
    let input = broker.read(&setting.topic);
    setting.wait_until_settled(&input);
    let ended = process.stop();
    assert!(ended.status.success() && !ended.stderr.contains("ERROR"), "{ended:?}");

    let letters = setting.dead_letters();
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        let header = |name: &str| String::from_utf8_lossy(letter.header(name).unwrap()).into_owned();
        assert_eq!(header("__connect.errors.exception.class.name"), "no_schema");
        assert!(header("__connect.errors.exception.message").ends_with("found schema 9: Schema not found"));
    }
    let mut expected = setting.expected(&input, &trained);
    expected.retain(|id| {
        !letters.iter().any(|letter| {
            let header = |name: &str| String::from_utf8_lossy(letter.header(name).unwrap()).into_owned();
            *id == format!(
                "{}-{}-{}",
                setting.topic,
                header("__connect.errors.partition"),
                header("__connect.errors.offset")
            )
        })
    });
    let scored: Vec<_> = setting.scores().iter().map(|m| text(&line(m), "id").to_owned()).collect();
    assert_eq!(scored.len(), expected.len(), "nothing twice");
    assert!(scored.iter().all(|id| expected.contains(id)));
}
