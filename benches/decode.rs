//! What decoding one record costs: a JSON object of 38 numbers, 559 bytes, with the decoder and with `serde_json::Value`.
//! The third case gives the decoder the keys in another order each time, so that it never guesses the next one. The others are the same values
//! in other formats; Avro also with its reference library, which makes a tree of everything.

use std::hint::black_box;
use std::sync::Arc;

use apache_avro::Schema as AvroSchema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use residua::record::{Decoder, InputSettings, NoSchema, Schema, SchemaText, WriterSchemas};
use serde_json::Value;

#[path = "support/record.rs"]
mod record;

use record::{FIELDS, RECORD_BYTES, decode_by_value, name, raw, records};

/// A registry of one schema.
struct One(String);

impl WriterSchemas for One {
    fn get(&self, _: u32) -> Result<SchemaText, NoSchema> {
        Ok(SchemaText { schema: self.0.clone(), references: vec![] })
    }
}

fn csv(record: &Value, names: &[String]) -> Vec<u8> {
    names.iter().map(|name| record[name].to_string()).collect::<Vec<_>>().join(",").into_bytes()
}

fn message_pack(record: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(record).expect("an object")
}

fn avro_schema(names: &[String]) -> String {
    let fields: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name, "type": "double"})).collect();
    serde_json::json!({"type": "record", "name": "R", "fields": fields}).to_string()
}

/// With the header of a schema registry.
fn avro(record: &Value, names: &[String]) -> Vec<u8> {
    let doubles = names.iter().flat_map(|name| record[name].as_f64().expect("a number").to_le_bytes());
    [0, 0, 0, 0, 1].into_iter().chain(doubles).collect()
}

fn bench(c: &mut Criterion) {
    let names: Vec<String> = (0..FIELDS).map(name).collect();
    let schema = Schema::new(names.iter().map(|name| name.parse().expect("a path")).collect()).expect("a schema");
    let mut decoder = Decoder::new(&InputSettings::default(), &schema).expect("a decoder");
    let records = records();
    let (mut values, mut expect) = ([0.0; FIELDS], [0.0; FIELDS]);
    decoder.decode(&raw(&records[5]), &mut values).expect("a record");
    decode_by_value(&records[5], &names, &mut expect);
    assert_eq!(values, expect);

    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(RECORD_BYTES as u64));
    group.bench_function("decoder", |b| {
        b.iter(|| decoder.decode(black_box(&raw(&records[0])), black_box(&mut values)).is_ok());
    });
    group.bench_function("serde_json value", |b| {
        b.iter(|| decode_by_value(black_box(&records[0]), &names, black_box(&mut values)));
    });
    let mut at = 0;
    group.bench_function("decoder, keys in changing order", |b| {
        b.iter(|| {
            at = (at + 1) % records.len();
            decoder.decode(black_box(&raw(&records[at])), black_box(&mut values)).is_ok()
        });
    });

    let record: Value = serde_json::from_slice(&records[0]).expect("the record is JSON");
    let expect = values;
    for (format, bytes) in
        [("csv", csv(&record, &names)), ("messagepack", message_pack(&record)), ("avro", avro(&record, &names))]
    {
        let columns = if format == "csv" { names.clone() } else { vec![] };
        let settings = serde_json::json!({"format": format, "csv_columns": columns});
        let settings: InputSettings = serde_json::from_value(settings).expect("sound settings");
        let decoder = Decoder::new(&settings, &schema).expect("a decoder");
        let mut decoder = decoder.with_schemas(Arc::new(One(avro_schema(&names))));
        decoder.decode(&raw(&bytes), &mut values).expect("a record");
        assert!(values.iter().zip(expect).all(|(a, b)| a.to_bits() == b.to_bits()), "{format}");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format, |b| {
            b.iter(|| decoder.decode(black_box(&raw(&bytes)), black_box(&mut values)).is_ok());
        });
    }
    let (schema, bytes) = (AvroSchema::parse_str(&avro_schema(&names)).expect("a schema"), avro(&record, &names));
    let reader = GenericDatumReader::builder(&schema).build().expect("a reader");
    group.bench_function("apache_avro value", |b| {
        b.iter(|| {
            let Ok(Avro::Record(fields)) = reader.read_value(&mut black_box(&bytes[5..])) else { panic!("a record") };
            for ((_, field), value) in fields.iter().zip(&mut values) {
                *value = if let Avro::Double(number) = field { *number } else { f64::NAN };
            }
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
