//! A JSON record of 38 numbers.

use residua::record::{Offset, PartitionId, Position, RawRecord};
use serde_json::Value;

pub const FIELDS: usize = 38;
pub const RECORD_BYTES: usize = 559;

pub fn name(field: usize) -> String {
    format!("s{field:02}")
}

/// The record with every `step`-th key after the other; 1 is the order of the schema.
pub fn record(step: usize) -> Vec<u8> {
    let member = |field: usize| {
        // Six digits after the point, five in the first fields, which makes up the size.
        let digits = if field < 12 { 5 } else { 6 };
        format!("\"{}\":{:.digits$}", name(field), ((field * field) as f64 * 0.618_034).fract())
    };
    let members: Vec<String> = (0..FIELDS).map(|at| member(at * step % FIELDS)).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

/// In as many orders of the keys as there are steps without a common divisor with 38, which visit every key once.
pub fn records() -> Vec<Vec<u8>> {
    let records: Vec<Vec<u8>> = (1..FIELDS).step_by(2).filter(|step| *step != 19).map(record).collect();
    assert!(records.iter().all(|record| record.len() == RECORD_BYTES), "{} bytes", records[0].len());
    records
}

pub fn raw(value: &[u8]) -> RawRecord<'_> {
    let position = Position { partition: PartitionId(0), offset: Offset(0) };
    RawRecord { position, key: Some(b"pump-3"), value: Some(value), timestamp_ms: Some(0), traceparent: None }
}

/// The usual way: a tree of everything, then one lookup per feature.
pub fn decode_by_value(bytes: &[u8], names: &[String], values: &mut [f64]) {
    let tree: Value = serde_json::from_slice(bytes).expect("the record is JSON");
    for (name, value) in names.iter().zip(values) {
        *value = tree.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    }
}
