//! Goal: the same values make the same record in every format, and every message of each has a decided outcome. Method: seeded random
//! records, written by the formats' own libraries; rows of messages and what becomes of them. Those of Avro are in `formats_avro`.

use apache_avro::Schema as AvroSchema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::Arc;

use super::*;

/// A registry of one schema, id 7; 8 must be waited for, others are unknown.
pub(super) struct One(pub(super) SchemaText);

impl WriterSchemas for One {
    fn get(&self, id: u32) -> Result<SchemaText, NoSchema> {
        match id {
            7 => Ok(self.0.clone()),
            8 => Err(NoSchema { why: "nobody answers".to_owned(), wait: true }),
            _ => Err(NoSchema { why: "nobody knows it".to_owned(), wait: false }),
        }
    }
}

pub(super) fn one(schema: &str) -> Arc<One> {
    Arc::new(One(SchemaText { schema: schema.to_owned(), references: vec![] }))
}

pub(super) fn raw(value: &[u8]) -> RawRecord<'_> {
    let position = Position { partition: PartitionId(0), offset: Offset(0) };
    RawRecord { position, key: Some(b"p"), value: Some(value), timestamp_ms: Some(0), traceparent: None }
}

pub(super) fn header(id: u8, value: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, id], value].concat()
}

/// What becomes of a message, in words.
fn outcome(settings: &InputSettings, schema: &str, value: &[u8]) -> String {
    let Features::List(paths) = &settings.features else { panic!("a list") };
    let mut decoder = Decoder::new(settings, &Schema::new(paths.clone()).unwrap()).unwrap().with_schemas(one(schema));
    let mut values = vec![0.0; paths.len()];
    let outcome = match decoder.decode(&raw(value), &mut values) {
        Ok(decoded) => {
            let values = values.iter().map(|v| if v.is_nan() { "-".to_owned() } else { format!("{v:?}") });
            format!("{} | {} | {}", values.collect::<Vec<_>>().join(" "), decoded.series, decoded.time)
        }
        Err(refusal) => format!("{}: {refusal}", refusal.reason()),
    };
    // What is learned from is what is scored; without a list of features, it is not known yet that it would be refused for one.
    let push = |settings: &InputSettings| {
        History::new(settings)
            .unwrap()
            .with_schemas(one(schema))
            .push(&raw(value))
            .map_err(|r| format!("{}: {r}", r.reason()))
    };
    let refused = if outcome.contains(" | ") { Ok(()) } else { Err(outcome.clone()) };
    assert_eq!(push(settings), refused);
    let auto = push(&InputSettings { features: Features::Auto, ..settings.clone() });
    assert!(refused.is_err() || auto.is_ok(), "{auto:?}");
    outcome
}

#[track_caller]
pub(super) fn check(settings: Value, schema: &str, value: &[u8], expect: &str) {
    let settings: InputSettings = serde_json::from_value(settings).unwrap();
    let found = outcome(&settings, schema, value);
    let same = expect.strip_suffix("...").map_or(found == expect, |start| found.starts_with(start));
    assert!(same, "found    {found}\nexpected {expect}");
}

// --- the same values in every format ---

const COLUMNS: [&str; 6] = ["id", "at", "flow", "pump.bar", "on", "note"];

/// A record as JSON, with some values missing.
fn record(rng: &mut ChaCha8Rng) -> Value {
    let number = |rng: &mut ChaCha8Rng| match rng.random_range(0..6) {
        0 => Value::Null,
        1 => json!(rng.random_range(-1000..1000)),
        2 => json!(f64::from_bits(rng.next_u64()).clamp(-1e300, 1e300)),
        _ => json!(rng.random_range(-50.0..50.0)),
    };
    let id = ["pump 1", "", "größe", "a,\"b\"", "7"][rng.random_range(0..5)];
    let on = if rng.random() { json!(rng.random::<bool>()) } else { Value::Null };
    let (flow, bar) = (number(rng), number(rng));
    json!({"id": id, "at": rng.random_range(0..2_000_000_000_000i64), "flow": flow, "pump": {"bar": bar}, "on": on, "note": "x"})
}

fn at<'a>(record: &'a Value, path: &str) -> &'a Value {
    record.pointer(&["/", &path.replace('.', "/")].concat()).unwrap()
}

fn csv(record: &Value) -> Vec<u8> {
    let mut line = ::csv::Writer::from_writer(vec![]);
    let cells = COLUMNS.map(|path| match at(record, path) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    line.write_record(&cells).unwrap();
    line.into_inner().unwrap()
}

pub(super) fn datum(schema: &AvroSchema, value: Avro) -> Vec<u8> {
    GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
}

const AVRO: &str = r#"{"type":"record","name":"R","namespace":"n","fields":[
    {"name":"id","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"note","type":["null",{"type":"array","items":"string"}],"default":null},
    {"name":"flow","type":["null","double"]},
    {"name":"pump","type":{"type":"record","name":"P","fields":[{"name":"bar","type":["null","double"]}]}},
    {"name":"on","type":["boolean","null"]}]}"#;

fn avro(record: &Value) -> Vec<u8> {
    let optional = |value: &Value, null: u32, some: fn(&Value) -> Avro| match value {
        Value::Null => Avro::Union(null, Box::new(Avro::Null)),
        value => Avro::Union(1 - null, Box::new(some(value))),
    };
    let double = |value: &Value| Avro::Double(value.as_f64().unwrap());
    let words = Avro::Array(vec![Avro::String("a".to_owned()), Avro::String("b".to_owned())]);
    let fields = [
        ("id", Avro::String(record["id"].as_str().unwrap().to_owned())),
        ("at", Avro::TimestampMillis(record["at"].as_i64().unwrap())),
        ("note", Avro::Union(1, Box::new(words))),
        ("flow", optional(&record["flow"], 0, double)),
        ("pump", Avro::Record(vec![("bar".to_owned(), optional(&record["pump"]["bar"], 0, double))])),
        ("on", optional(&record["on"], 1, |on| Avro::Boolean(on.as_bool().unwrap()))),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value)).to_vec();
    header(7, &datum(&AvroSchema::parse_str(AVRO).unwrap(), Avro::Record(fields)))
}

fn settings(format: &str, features: Value) -> InputSettings {
    let columns = if format == "csv" { json!(COLUMNS) } else { json!([]) };
    serde_json::from_value(json!({"format": format, "csv_columns": columns, "features": features, "series_field": "id",
        "timestamp_field": "at", "timestamp_format": "ms"}))
    .unwrap()
}

/// A record as a message.
type Write = fn(&Value) -> Vec<u8>;

#[test]
fn the_same_values_make_the_same_record_in_every_format() {
    let formats: [(&str, Write); 4] = [
        ("json", |record| record.to_string().into_bytes()),
        ("csv", csv),
        ("messagepack", |record| rmp_serde::to_vec_named(record).unwrap()),
        ("avro", avro),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (mut records, mut seen) = (vec![], [0; 2]);
    while records.len() < 2_000 {
        let record = record(&mut rng);
        let outcomes = formats.map(|(format, write)| {
            let settings = settings(format, json!(["flow", "pump.bar", "on"]));
            outcome(&settings, AVRO, &write(&record))
        });
        // An empty cell is no text, so a line has no series then.
        let same = if record["id"] == "" { &outcomes[2..] } else { &outcomes[..] };
        assert!(same.iter().all(|outcome| *outcome == outcomes[0]), "{record}: {outcomes:#?}");
        seen[usize::from(outcomes[0].contains(" | "))] += 1;
        records.push(record);
    }
    assert!(seen.iter().all(|&count| count > 20), "{seen:?}");

    records.retain(|record| record["id"] != "");
    let learned = formats.map(|(format, write)| {
        let mut history = History::new(&settings(format, json!("auto"))).unwrap().with_schemas(one(AVRO));
        records.iter().for_each(|record| history.push(&raw(&write(record))).unwrap());
        let table = history.finish().unwrap();
        let bits: Vec<u64> = table.values.iter().map(|v| v.to_bits()).collect();
        (table.schema, bits, table.series)
    });
    assert_eq!(learned[0].0.names().collect::<Vec<_>>(), ["flow", "on", "pump.bar"]);
    assert!(learned.iter().all(|table| *table == learned[0]));
}

#[test]
fn any_bytes_become_a_record_or_a_reason_and_history_agrees() {
    let formats: [(&str, Write); 3] =
        [("csv", csv), ("messagepack", |record| rmp_serde::to_vec_named(record).unwrap()), ("avro", avro)];
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (format, write) in formats {
        let settings = settings(format, json!(["flow", "pump.bar", "on"]));
        let mut reasons = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            let mut bytes = write(&record(&mut rng));
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..4) {
                    0 => bytes[at] = rng.random(),
                    1 => bytes[at] ^= 1 << rng.random_range(0..8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, rng.random()),
                }
            }
            let outcome = outcome(&settings, AVRO, &bytes);
            reasons.insert(if outcome.contains(" | ") {
                "a record".to_owned()
            } else {
                outcome.split(':').next().unwrap().to_owned()
            });
        }
        assert!(reasons.len() >= 5, "{format}: {reasons:?}");
    }
}

// --- lines ---

#[test]
fn lines_have_decided_outcomes() {
    let with = |more: Value| {
        let mut settings =
            json!({"format": "csv", "csv_columns": ["t", "flow", "note", "bar"], "features": ["flow", "bar"]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let line = |line: &str, expect: &str| check(with(json!({})), "", line.as_bytes(), expect);
    line("x,1.5,y,-2e3", "1.5 -2000.0 | p | 1970-01-01T00:00:00.000Z");
    line(" x , 1.5 , y , true \r\n", "1.5 1.0 | p | 1970-01-01T00:00:00.000Z");
    line("x,,\"a,\n\"\"b\"\"\",NaN", "no_values: expect a value in at least one of 2 features, found none");
    line("x,\"1\",\"a,\n\"\"b\"\"\",FALSE", "1.0 0.0 | p | 1970-01-01T00:00:00.000Z");
    let invalid = |found: &str| format!("invalid_csv: expect one line with the cells of a record, found {found}");
    line("x,1,y", &invalid("3 cells where input.csv_columns has 4 columns"));
    line("x,1,y,2,", &invalid("5 cells where input.csv_columns has 4 columns"));
    line("x,1,y,2\nx,1,y,2", &invalid("more than one line"));
    line("x,1,\"y\",2\nx,1,y,2", &invalid("more than one line"));
    line("x,one,y,2", "wrong_type: expect a number or boolean in field `flow`, found a string");
    line("x,inf,y,2", "wrong_type: expect a number or boolean in field `flow`, found a string");
    line(
        "x,1e999,y,2",
        "out_of_range: expect a finite number in field `flow`, found one beyond the range of a 64-bit float",
    );
    check(with(json!({})), "", b"x,1,\xff,2", "invalid_utf8: expect UTF-8, found an invalid byte at 4");

    let semicolons = with(json!({"csv_delimiter": ";", "series_field": "note", "timestamp_field": "t"}));
    check(
        semicolons.clone(),
        "",
        b"2026-03-09T00:00:00Z;1,5;a;2",
        "wrong_type: expect a number or boolean in field `flow`...",
    );
    check(semicolons.clone(), "", b"2026-03-09T00:00:00Z;1.5;007;2", "1.5 2.0 | 007 | 2026-03-09T00:00:00.000Z");
    check(semicolons, "", b"2026-03-09;1.5;a;2", "bad_timestamp: expect an RFC 3339 time with an offset or Z...");
    let seconds = with(json!({"timestamp_field": "t", "timestamp_format": "s"}));
    check(seconds.clone(), "", b"1.5,1,a,2", "1.0 2.0 | p | 1970-01-01T00:00:01.500Z");
    check(seconds.clone(), "", b"now,1,a,2", "bad_timestamp: expect seconds since 1970...");
    check(seconds, "", b",1,a,2", "missing_field: expect field `t`, found nothing or null");
}

#[test]
fn columns_must_be_there() {
    let new = |columns: Value, more: Value| {
        let mut settings = json!({"format": "csv", "csv_columns": columns});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let settings: InputSettings = serde_json::from_value(settings).unwrap();
        (settings.problems(), History::new(&settings).err().map(|e| e.to_string()))
    };
    let no_column = |path: &str| Some(format!("read `{path}` from a line; input.csv_columns names no such column"));
    assert_eq!(new(json!(["a"]), json!({"features": ["a", "b"]})), (vec![], no_column("b")));
    assert_eq!(new(json!(["a"]), json!({"series_field": "id"})), (vec![], no_column("id")));
    assert_eq!(new(json!(["a", "id"]), json!({"series_field": "id"})), (vec![], None));
    let problems = |columns, more| new(columns, more).0.join("; ");
    assert_eq!(
        problems(json!([]), json!({})),
        "input.csv_columns: missing; expected the names of a line's columns, in order"
    );
    assert_eq!(problems(json!(["a", "b", "a"]), json!({})), "input.csv_columns: `a` is there twice");
    assert_eq!(
        problems(json!(["a", ""]), json!({})),
        "input.csv_columns: name every key in field path \"\", found an empty one"
    );
    let delimiter = "input.csv_delimiter: '°' is not one ASCII character besides quote and line end";
    assert_eq!(problems(json!(["a"]), json!({"csv_delimiter": "°"})), delimiter);
    assert_eq!(
        problems(json!(["a"]), json!({"format": "json"})),
        "input.csv_columns: given, but input.format is not \"csv\""
    );
}

// --- MessagePack ---

#[test]
fn message_pack_has_decided_outcomes() {
    let settings = |more: Value| {
        let mut settings = json!({"format": "messagepack", "features": ["flow", "pump.bar"]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let bytes = |value: &[u8], expect: &str| check(settings(json!({})), "", value, expect);
    let pack = |value: Value, expect: &str| bytes(&rmp_serde::to_vec_named(&value).unwrap(), expect);
    let fine = |values: &str| format!("{values} | p | 1970-01-01T00:00:00.000Z");
    pack(json!({"flow": 1.5, "pump": {"bar": true}, "more": [1, {"x": null}]}), &fine("1.5 1.0"));
    pack(json!({"flow": 18446744073709551615u64, "pump": null}), &fine("1.8446744073709552e19 -"));
    // {"flow": 0.1 of 32 bits}, then keys that are no texts: 1, nil, [1], {1: 2}, a byte string, an extension.
    let flow = [&[0x81, 0xa4], b"flow".as_slice(), &[0xca, 0x3d, 0xcc, 0xcc, 0xcd]].concat();
    bytes(&flow, &fine("0.10000000149011612 -"));
    let strange = [0x01, 1, 0xc0, 1, 0x91, 1, 1, 0x81, 1, 2, 1, 0xc4, 1, b'a', 1, 0xd4, 5, 0, 1];
    bytes(&[&[0x87], &flow[1..], &strange].concat(), &fine("0.10000000149011612 -"));
    // NaN, and what is infinite.
    let of = |value: &[u8]| {
        [&[0x82, 0xa4], b"flow".as_slice(), value, &[0xa4], b"pump", &[0x81, 0xa3], b"bar", &[7]].concat()
    };
    bytes(&of(&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]), &fine("- 7.0"));
    bytes(&of(&[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]), "out_of_range: expect a finite number in field `flow`...");
    let wrong = |found: &str| format!("wrong_type: expect a number or boolean in field `flow`, found {found}");
    bytes(&of(&[0xa1, b'1']), &wrong("a string"));
    bytes(&of(&[0xc4, 1, 1]), &wrong("bytes"));
    bytes(&of(&[0xd6, 0xff, 0, 0, 0, 1]), &wrong("an extension type"));
    bytes(&of(&[0x90]), &wrong("an array"));
    bytes(&of(&[0x80]), &wrong("an object"));
    pack(json!({"pump": 1}), "wrong_type: expect an object in field `pump`, found a number");
    pack(json!([1]), "not_an_object: expect an object with the fields of a record, found an array");
    pack(json!("x"), "not_an_object: expect an object with the fields of a record, found a string");
    bytes(&[&[0x82], &flow[1..], &flow[1..]].concat(), "duplicate_field: expect field `flow` once, found it twice");
    let invalid = "invalid_messagepack: expect one map in MessagePack, found an error in it: ";
    for cut in 1..flow.len() {
        bytes(&flow[..cut], &[invalid, "..."].concat());
    }
    for more in [&[0xc0][..], &[0x00], &[0x91], &[0xc1], &[0xdb, 0xff]] {
        bytes(&[&flow[..], more].concat(), &[invalid, "bytes after it"].concat());
    }
    let deep = |levels| [&[0x82], &flow[1..], &[0xa1, b'd'], &vec![0x91; levels][..], &[1]].concat();
    bytes(&deep(100), &fine("0.10000000149011612 -"));
    bytes(&deep(100_000), &[invalid, "..."].concat());
    // An array of 4 billion that is not there.
    bytes(&[&[0x82], &flow[1..], &[0xa1, b'd', 0xdd, 0xff, 0xff, 0xff, 0xff]].concat(), &[invalid, "..."].concat());

    let fields = settings(json!({"series_field": "id", "timestamp_field": "t"}));
    let pack =
        |value: Value, expect: &str| check(fields.clone(), "", &rmp_serde::to_vec_named(&value).unwrap(), expect);
    pack(json!({"flow": 1, "id": -7, "t": "2026-03-09T00:00:00Z"}), "1.0 - | -7 | 2026-03-09T00:00:00.000Z");
    pack(json!({"flow": 1, "id": "a\tb", "t": "2026-03-09T00:00:00Z"}), "1.0 - | 0x610962 | 2026-03-09T00:00:00.000Z");
    pack(
        json!({"flow": 1, "id": 1.5, "t": ""}),
        "wrong_type: expect a string or an integer in field `id`, found a number that is no integer",
    );
    pack(
        json!({"flow": 1, "id": [], "t": ""}),
        "wrong_type: expect a string or an integer in field `id`, found an array",
    );
    pack(json!({"flow": 1, "id": null, "t": ""}), "missing_field: expect field `id`, found nothing or null");
    pack(
        json!({"flow": 1, "id": 1, "t": 5}),
        "wrong_type: expect an RFC 3339 time with an offset or Z in field `t`, found a number",
    );
    let seconds = settings(json!({"timestamp_field": "t", "timestamp_format": "s"}));
    let pack =
        |value: Value, expect: &str| check(seconds.clone(), "", &rmp_serde::to_vec_named(&value).unwrap(), expect);
    pack(json!({"flow": 1, "t": 1.5}), "1.0 - | p | 1970-01-01T00:00:01.500Z");
    pack(json!({"flow": 1, "t": -1}), "1.0 - | p | 1969-12-31T23:59:59.000Z");
    pack(
        json!({"flow": 1, "t": 1e30}),
        "bad_timestamp: expect seconds since 1970 between the years 0000 and 9999 in field `t`...",
    );
    pack(json!({"flow": 1, "t": "1"}), "wrong_type: expect seconds since 1970 in field `t`, found a string");
}
