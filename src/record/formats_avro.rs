//! Goal: every Avro message has a decided outcome, and a sound one is read as the reference library reads it. Method: rows of messages and what
//! becomes of them; random schemas, values and damage.

use std::sync::Arc;

use apache_avro::Schema as AvroSchema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::formats::{One, check, datum, header, one, raw};
use super::*;

#[test]
fn avro_has_decided_outcomes() {
    let settings = json!({"format": "avro", "features": ["flow", "pump.bar"]});
    let fine = |values: &str| format!("{values} | p | 1970-01-01T00:00:00.000Z");
    let of = |flow: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"flow","type":{flow}}}]}}"#);
    let flow = |kind: &str, value: &[u8], expect: &str| check(settings.clone(), &of(kind), &header(7, value), expect);
    flow(r#""double""#, &1.5f64.to_le_bytes(), &fine("1.5 -"));
    flow(r#""float""#, &0.1f32.to_le_bytes(), &fine("0.10000000149011612 -"));
    flow(r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x0f], &fine("-2147483648.0 -"));
    flow(r#""long""#, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &fine("-9.223372036854776e18 -"));
    flow(r#""boolean""#, &[1], &fine("1.0 -"));
    flow(r#"["null","long"]"#, &[2, 3], &fine("-2.0 -"));
    flow(r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#, &[4, 0xff, 0x00], &fine("-2.56 -"));
    flow(
        r#"{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":4,"scale":1}"#,
        &[0, 15],
        &fine("1.5 -"),
    );
    let none = "no_values: expect a value in at least one of 2 features, found none";
    flow(r#"["null","long"]"#, &[0], none);
    flow(r#""double""#, &f64::NAN.to_le_bytes(), none);
    flow(r#""double""#, &f64::INFINITY.to_le_bytes(), "out_of_range: expect a finite number in field `flow`...");
    let wrong = |found: &str| format!("wrong_type: expect a number or boolean in field `flow`, found {found}");
    flow(r#""string""#, &[2, b'1'], &wrong("a string"));
    flow(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, &[2], &wrong("a string"));
    flow(r#""bytes""#, &[2, b'1'], &wrong("bytes"));
    flow(r#"{"type":"array","items":"long"}"#, &[0], &wrong("an array"));
    flow(r#"{"type":"map","values":"long"}"#, &[0], &wrong("an object"));
    let invalid = |error: &str| {
        format!("invalid_avro: expect an Avro message of a schema registry, found an error in it: {error}")
    };
    flow(r#""double""#, &[0; 7], &invalid("it ends where 8 bytes are due"));
    flow(r#""double""#, &[0; 9], &invalid("1 bytes after it"));
    flow(r#""boolean""#, &[2], &invalid("a boolean of [2]"));
    flow(r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x1f], &invalid("-4294967296 where a 32-bit number is due"));
    flow(r#""long""#, &[0xff; 11], &invalid("a number of more than ten bytes"));
    flow(r#"["null","long"]"#, &[4], &invalid("branch 2 of 2"));
    flow(r#"["null","long"]"#, &[1], &invalid("branch -1 of 2"));
    flow(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, &[4], &invalid("symbol 2 of 2"));
    flow(r#""string""#, &[1], &invalid("a length of -1"));

    let bytes = |value: &[u8], expect: &str| check(settings.clone(), &of(r#""double""#), value, expect);
    let no_header = invalid("it begins with no zero byte and schema id");
    bytes(br#"{"flow":1}"#, &no_header);
    bytes(&[0, 0, 0, 7], &no_header);
    bytes(&header(7, &[]), &invalid("it ends where 8 bytes are due"));
    let no = |why: &str| format!("no_schema: expect an Avro message whose schema can be had, found schema {why}");
    bytes(&header(9, &[0; 8]), &no("9: nobody knows it"));
    bytes(&[0, 0xff, 0xff, 0xff, 0xff, 1], &no_header);
    bytes(&header(8, &[0; 8]), &no("8: nobody answers"));
    let schema =
        |schema: &str, why: &str| check(settings.clone(), schema, &header(7, &[0; 8]), &no(&format!("7: {why}")));
    let none = |why: &str| format!("it is no schema of Avro: {why}");
    schema("{", "it is no JSON: EOF...");
    schema("7", &none("a type that is neither name, list nor object"));
    schema(r#"{"type":"recor"}"#, &none("no type `recor`"));
    schema(r#"{"type":"record","name":"A"}"#, &none("record without `fields`"));
    schema(r#"{"type":"record","fields":[]}"#, &none("a type without `name`"));
    schema(r#"{"type":"record","name":"A","fields":[{"type":"int"}]}"#, &none("a field without `name`"));
    schema(r#"{"type":"record","name":"A","fields":[{"name":"x"}]}"#, &none("field `x` without `type`"));
    schema(r#"{"type":"record","name":"A","fields":[{"name":"x","type":"B"}]}"#, &none("no type `B`"));
    schema(r#"{"type":"fixed","name":"A","size":-1}"#, &none("fixed of a `size` that is none"));
    schema(
        r#"[{"type":"fixed","name":"A","size":1},{"type":"enum","name":"A","symbols":[]}]"#,
        &none("`A` is defined twice"),
    );
    schema(&format!("[{}\"int\"]", "\"int\",".repeat(65_536)), &none("more than 65536 types"));
    schema(&"[".repeat(2_000), "it is no JSON: recursion limit exceeded...");
    schema(&" ".repeat((1 << 20) + 1), "it is longer than 1048576 bytes");
    let top = |schema: &str, value: &[u8], expect: &str| check(settings.clone(), schema, &header(7, value), expect);
    top(r#""long""#, &[2], "not_an_object: expect an object with the fields of a record, found a number");
    top(r#"{"type":"map","values":"long"}"#, &[2, 8, b'f', b'l', b'o', b'w', 6, 0], &fine("3.0 -"));
    top(r#"{"type":"map","values":"long"}"#, &[1, 12, 8, b'f', b'l', b'o', b'w', 6, 0], &fine("3.0 -"));

    // A list that is as deep as it likes, and an array of more nulls than there is time for.
    let list =
        r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"]},{"name":"flow","type":"long"}]}"#;
    top(list, &[2, 2, 0, 2, 4, 6], &fine("3.0 -"));
    top(list, &vec![2; 1_000_000], &invalid("values more than 128 levels deep"));
    let nulls = r#"{"type":"record","name":"R","fields":[{"name":"n","type":{"type":"array","items":"null"}},{"name":"flow","type":"long"}]}"#;
    let many = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    top(nulls, &[&many[..], &[0, 2]].concat(), &fine("1.0 -"));
    // Records without any bytes, each two of the next.
    let mut doubled = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
    for level in 1..100 {
        doubled = format!(
            r#"{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":{doubled}}},{{"name":"b","type":"R{}"}}]}}"#,
            level - 1
        );
    }
    check(settings.clone(), &of("\"double\""), &header(7, &1.5f64.to_le_bytes()), &fine("1.5 -"));
    let levels: Vec<String> = (1..30).map(|level| format!(r#"{{"name":"f{level}","type":{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":"R{0}"}},{{"name":"b","type":"R{0}"}}]}}}}"#, level - 1)).collect();
    let flat = format!(
        r#"{{"type":"record","name":"Top","fields":[{{"name":"f0","type":{{"type":"record","name":"R0","fields":[]}}}},{}]}}"#,
        levels.join(",")
    );
    top(&flat, &[], &invalid("more than 1048576 values"));
    top(&doubled, &[], "no_schema: ...");
    let strings = nulls.replace("\"null\"", "\"string\"");
    top(&strings, &[&many[..], &[0, 2]].concat(), &invalid("it ends where ..."));
}

#[test]
fn a_message_waits_only_for_a_schema_that_may_come() {
    let settings: InputSettings = serde_json::from_value(json!({"format": "avro", "features": ["flow"]})).unwrap();
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"flow","type":"double"}]}"#;
    let mut history = History::new(&settings).unwrap().with_schemas(one(schema));
    assert_eq!(history.wait_for(&raw(&header(8, &[0; 8]))), Some("schema 8: nobody answers".to_owned()));
    assert_eq!(history.wait_for(&raw(&header(9, &[0; 8]))), None);
    assert_eq!(history.wait_for(&raw(&header(7, &[0; 8]))), None);
    assert_eq!(history.wait_for(&raw(b"no such message")), None);
    // What is read again was not refused, so it waits.
    let Features::List(paths) = &settings.features else { panic!("a list") };
    let mut decoder = Decoder::new(&settings, &Schema::new(paths.clone()).unwrap()).unwrap().with_schemas(one(schema));
    assert_eq!(decoder.wait_for(&raw(&header(9, &[0; 8])), true), Some("schema 9: nobody knows it".to_owned()));
    assert_eq!(decoder.wait_for(&raw(&header(9, &[0; 8])), false), None);
    assert_eq!(history.push(&raw(&header(7, &[0; 8]))), Ok(()));
}

#[test]
fn schemas_may_use_the_names_of_others() {
    let schema = r#"{"type":"record","name":"R","namespace":"n","fields":[
        {"name":"pump","type":"n.P"},{"name":"spare","type":["null","P"]},{"name":"flow","type":"long"}]}"#;
    let pump = r#"{"type":"record","name":"P","namespace":"n","fields":[{"name":"bar","type":"m.Bar"}]}"#;
    let bar =
        r#"{"type":"fixed","name":"Bar","namespace":"m","size":1,"logicalType":"decimal","precision":2,"scale":1}"#;
    let settings: InputSettings =
        serde_json::from_value(json!({"format": "avro", "features": ["flow", "pump.bar"]})).unwrap();
    let text = SchemaText { schema: schema.to_owned(), references: vec![bar.to_owned(), pump.to_owned()] };
    let Features::List(paths) = &settings.features else { panic!("a list") };
    let decoder = Decoder::new(&settings, &Schema::new(paths.clone()).unwrap()).unwrap();
    let mut values = [0.0; 2];
    decoder.with_schemas(Arc::new(One(text))).decode(&raw(&header(7, &[15, 2, 16, 6])), &mut values).unwrap();
    assert_eq!(values, [3.0, 1.5]);
}

/// A random type of Avro, and a value of it.
fn random_type(rng: &mut ChaCha8Rng, names: &mut usize, depth: usize) -> (Value, Avro) {
    let branch = rng.random_range(0..if depth == 0 { 11 } else { 14 });
    *names += 1;
    let name = format!("N{names}");
    match branch {
        0 => (json!("null"), Avro::Null),
        1 => (json!("boolean"), Avro::Boolean(rng.random())),
        2 => (json!("int"), Avro::Int(rng.random::<i32>() >> rng.random_range(0..31))),
        3 => (json!("long"), Avro::Long(rng.random::<i64>() >> rng.random_range(0..63))),
        4 => (json!("float"), Avro::Float(rng.random_range(-9.0..9.0))),
        5 => (json!("double"), Avro::Double(rng.random_range(-9.0..9.0))),
        6 => (json!("bytes"), Avro::Bytes(vec![7; rng.random_range(0..5)])),
        7 => (json!("string"), Avro::String("ä".repeat(rng.random_range(0..5)))),
        8 => {
            let size = rng.random_range(1..5);
            (json!({"type": "fixed", "name": name, "size": size}), Avro::Fixed(size, vec![9; size]))
        }
        9 => (json!({"type": "enum", "name": name, "symbols": ["A", "B"]}), Avro::Enum(1, "B".to_owned())),
        10 => (
            json!({"type": "long", "logicalType": "timestamp-micros"}),
            Avro::TimestampMicros(rng.random_range(0..1 << 40)),
        ),
        11 => {
            let (item, value) = random_type(rng, names, depth - 1);
            (json!({"type": "array", "items": item}), Avro::Array(vec![value; rng.random_range(0..4)]))
        }
        12 => {
            let (item, value) = random_type(rng, names, depth - 1);
            (json!({"type": "map", "values": item}), Avro::Map([("k".to_owned(), value)].into_iter().collect()))
        }
        _ => {
            let (schema, value) = random_record(rng, names, depth - 1, &name);
            (schema, value)
        }
    }
}

fn random_record(rng: &mut ChaCha8Rng, names: &mut usize, depth: usize, name: &str) -> (Value, Avro) {
    let (mut fields, mut values) = (vec![], vec![]);
    for index in 0..rng.random_range(1..6) {
        let (schema, value) = random_type(rng, names, depth);
        let field = format!("f{index}");
        // A union of null and null is none.
        let (schema, value) = match rng.random() {
            true if schema != "null" => (json!(["null", schema]), Avro::Union(1, Box::new(value))),
            _ => (schema, value),
        };
        fields.push(json!({"name": field, "type": schema}));
        values.push((field, value));
    }
    (json!({"type": "record", "name": name, "fields": fields}), Avro::Record(values))
}

/// All numbers at the top of a record and in records inside, as features: what the reference library says of them.
fn numbers(prefix: &str, record: &Avro, into: &mut Vec<(String, f64)>) {
    let Avro::Record(fields) = record else { panic!("a record") };
    for (name, value) in fields {
        let value = if let Avro::Union(_, inside) = value { inside } else { value };
        let path = format!("{prefix}{name}");
        match value {
            Avro::Boolean(on) => into.push((path, f64::from(*on))),
            Avro::Int(number) => into.push((path, f64::from(*number))),
            Avro::Long(number) | Avro::TimestampMicros(number) => into.push((path, *number as f64)),
            Avro::Float(number) => into.push((path, f64::from(*number))),
            Avro::Double(number) => into.push((path, *number)),
            Avro::Record(_) => numbers(&format!("{path}."), value, into),
            _ => {}
        }
    }
}

#[test]
fn avro_is_read_as_its_reference_library_reads_it() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut counts = [0; 3];
    for _ in 0..1_500 {
        let (schema, value) = random_record(&mut rng, &mut 0, 3, "Top");
        let text = schema.to_string();
        let parsed = AvroSchema::parse_str(&text).unwrap();
        let whole = datum(&parsed, value);
        let mut expect = vec![];
        let reader = GenericDatumReader::builder(&parsed).build().unwrap();
        numbers("", &reader.read_value(&mut &whole[..]).unwrap(), &mut expect);
        if expect.is_empty() {
            continue;
        }
        let settings = json!({"format": "avro", "features": expect.iter().map(|(path, _)| path).collect::<Vec<_>>()});
        let settings: InputSettings = serde_json::from_value(settings).unwrap();
        let Features::List(paths) = &settings.features else { panic!("a list") };
        let schema = Schema::new(paths.clone()).unwrap();
        let mut decoder = Decoder::new(&settings, &schema).unwrap().with_schemas(one(&text));
        let mut values = vec![0.0; expect.len()];
        decoder.decode(&raw(&header(7, &whole)), &mut values).unwrap();
        assert_eq!(values, expect.iter().map(|(_, value)| *value).collect::<Vec<_>>(), "{text}");
        counts[0] += 1;
        // Whatever the bytes: what one refuses the other does, and what both take is the same.
        for _ in 0..20 {
            let mut broken = whole.clone();
            match rng.random_range(0..3) {
                0 => broken.truncate(rng.random_range(0..whole.len().max(1))),
                // No lengths beyond what the reference would reserve memory for.
                _ if !broken.is_empty() => {
                    let at = rng.random_range(0..broken.len());
                    broken[at] ^= 1 << rng.random_range(0..7);
                }
                _ => {}
            }
            let mut rest = &broken[..];
            let reference = reader.read_value(&mut rest);
            let ours = decoder.decode(&raw(&header(7, &broken)), &mut values).err();
            let sound = reference.is_ok() && rest.is_empty();
            match (&ours, reference) {
                (Some(Refusal::InvalidAvro { error }), _) => {
                    // The reference takes the end of all bytes for a null.
                    assert!(!sound || error.starts_with("it ends where"), "{text} {broken:?}: {error}");
                }
                (refused, Ok(value)) => {
                    assert!(sound, "{text} {broken:?}: {refused:?}");
                    let mut expect = vec![];
                    numbers("", &value, &mut expect);
                    let found = paths.iter().map(FieldPath::to_string).zip(values.iter().copied());
                    let found: Vec<_> = found.filter(|(_, value)| !value.is_nan()).collect();
                    expect.retain(|(path, value)| !value.is_nan() && paths.iter().any(|p| p.as_str() == path));
                    assert!(refused.is_some() || found == expect, "{text} {broken:?}: {found:?} {expect:?}");
                }
                (refused, Err(error)) => panic!("{text} {broken:?}: {refused:?}, and the reference: {error}"),
            }
            counts[1 + usize::from(sound)] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
}
