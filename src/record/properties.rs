//! Goal: the decoder agrees with a naive reading of the same rules on documents nobody thought of, and history with the
//! decoder. Method: seeded random and mutated documents; the reference resolves each path by itself on `serde_json::Value`.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

/// All members of an object, in order, with duplicates.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = vec![];
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// The JSON text at a path; None if it is absent.
fn resolve(text: &str, keys: &[String]) -> Option<Option<String>> {
    let Members(members) = serde_json::from_str(text).ok()?;
    let mut found = members.iter().filter(|(key, _)| *key == keys[0]);
    let (first, second) = (found.next(), found.next());
    match (first, second, &keys[1..]) {
        (_, Some(_), _) => None,
        (None, None, _) => Some(None),
        (Some((_, json)), None, []) => Some(Some(json.get().to_owned())),
        (Some((_, json)), None, _) if json.get() == "null" => Some(None),
        (Some((_, json)), None, rest) => resolve(json.get(), rest),
    }
}

fn feature(json: Option<&str>) -> Option<f64> {
    let Some(json) = json else { return Some(f64::NAN) };
    match serde_json::from_str(json).ok()? {
        Value::Null => Some(f64::NAN),
        Value::Bool(on) => Some(f64::from(u8::from(on))),
        Value::Number(number) => {
            let value = number.as_f64()?;
            assert_eq!(value.to_bits(), json.parse::<f64>().unwrap().to_bits(), "{json} is not read as Rust reads it");
            Some(value)
        }
        _ => None,
    }
}

fn series_of(json: &str) -> Option<String> {
    let text = match serde_json::from_str(json) {
        Ok(Value::String(text)) => text,
        _ if json.trim_start_matches('-').chars().all(|c| c.is_ascii_digit()) => json.to_owned(),
        _ => return None,
    };
    let text = match text.chars().any(char::is_control) {
        true => "0x".to_owned() + &text.bytes().map(|b| format!("{b:02x}")).collect::<String>(),
        false => text,
    };
    (text.len() <= 256).then_some(text)
}

fn time_of(json: &str) -> Option<i64> {
    let ms = match json.parse::<i64>() {
        Ok(ms) => ms,
        Err(_) => match serde_json::from_str(json).ok()? {
            Value::Number(ms) => ms.as_f64()?.round() as i64,
            _ => return None,
        },
    };
    (EventTime::MIN.0..=EventTime::MAX.0).contains(&ms).then_some(ms)
}

type Row = (Vec<u64>, String, i64);

/// Bits of the values, series, time; None for a refusal.
fn reference(settings: &InputSettings, schema: &Schema, value: &[u8]) -> Option<Row> {
    let text = std::str::from_utf8(value).ok()?;
    let mut values = vec![];
    for path in schema.paths() {
        values.push(feature(resolve(text, &path.keys())?.as_deref())?);
    }
    let missing = values.iter().filter(|v| v.is_nan()).count();
    let enough = if settings.missing == Missing::Reject { missing == 0 } else { missing < values.len() };
    let series = series_of(&resolve(text, &["id".to_owned()])??)?;
    let time = time_of(&resolve(text, &["meta".to_owned(), "at".to_owned()])??)?;
    enough.then(|| (values.iter().map(|v| v.to_bits()).collect(), series, time))
}

fn decoded(decoder: &mut Decoder, raw: &RawRecord<'_>, width: usize) -> Option<Row> {
    let mut values = vec![0.0; width];
    let record = decoder.decode(raw, &mut values).ok()?;
    Some((values.iter().map(|v| v.to_bits()).collect(), record.series.into_owned(), record.time.0))
}

fn raw(offset: i64, value: &[u8]) -> RawRecord<'_> {
    let position = Position { partition: PartitionId(0), offset: Offset(offset) };
    RawRecord { position, key: None, value: Some(value), timestamp_ms: None, traceparent: None }
}

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-0",
    "-0.0",
    "1.5",
    "-273.15",
    "0.1",
    "1e3",
    "1E-7",
    "5e-324",
    "1e-400",
    "1e308",
    "1e400",
    "true",
    "false",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "0.30000000000000004",
    "2.2250738585072011e-308",
    "179769313486231580793728971405301e276",
    "1.00000000000000011102230246251565",
    "null",
];
const OTHERS: &[&str] = &[
    "\"1\"",
    "\"p-3\"",
    "\"\\u00e9\"",
    "\"\\ud800\"",
    "\"\\n\"",
    "\"\"",
    "[]",
    "[1,[2]]",
    "{}",
    "{\"a\":1}",
    "{\"\\ud800\":1}",
    "{\"bar\":1}",
    "{\"at\":2}",
    "[[[[[[[[{}]]]]]]]]",
    "NaN",
    "01",
    "\"é\"",
];
const KEYS: &[&str] =
    &["flow", "id", "meta", "pump", "temp", "x", "bar", "at", "fl\\u006fw", "pump.bar", "", "\\ud800", "é", "y"];

fn pick<'a>(rng: &mut ChaCha8Rng, from: &[&'a str]) -> &'a str {
    from[rng.random_range(0..from.len())]
}

fn number(rng: &mut ChaCha8Rng) -> String {
    match rng.random_range(0..4) {
        0 => pick(rng, NUMBERS).to_owned(),
        1 => format!("{:?}", f64::from_bits(rng.random::<u64>() & !(1 << 62))),
        2 => format!("{}.{}e{}", rng.random_range(-9..10), rng.random::<u64>(), rng.random_range(-330..310)),
        _ => format!("{:.3}", rng.random_range(-100.0..100.0)),
    }
}

/// An object that is mostly a record, with now and then a strange key or value.
fn document(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let at = rng.random_range(0..2_000_000_000_000i64);
    let mut members = vec![
        format!("\"id\":\"pump-{}\"", rng.random_range(0..5)),
        format!("\"meta\":{{\"at\":{at},\"y\":1}}"),
        format!("\"pump\":{{\"x\":[1,2],\"bar\":{}}}", number(rng)),
    ];
    for key in ["flow", "temp"] {
        members.push(format!("\"{key}\":{}", number(rng)));
    }
    for _ in 0..rng.random_range(0..3) {
        let value = if rng.random() { number(rng) } else { pick(rng, OTHERS).to_owned() };
        let member = format!("\"{}\":{value}", pick(rng, KEYS));
        match rng.random_range(0..4) {
            0 => members.push(member),
            1 => members.push(format!("\"pump\":{{{member}}}")),
            _ => {
                let at = rng.random_range(0..members.len());
                members[at] = member;
            }
        }
    }
    for _ in 0..members.len() {
        let (a, b) = (rng.random_range(0..members.len()), rng.random_range(0..members.len()));
        members.swap(a, b);
    }
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn mutate(rng: &mut ChaCha8Rng, document: &mut Vec<u8>) {
    let at = rng.random_range(0..document.len());
    let end = rng.random_range(at..document.len().min(at + 20));
    match rng.random_range(0..6) {
        0 => document[at] ^= 1 << rng.random_range(0..8),
        1 => document[at] = *b"{}[]\",:\\-0.eEn \t".get(rng.random_range(0..16)).unwrap(),
        2 => drop(document.drain(at..end)),
        3 => {
            let copy = document[at..end].to_vec();
            document.splice(end..end, copy);
        }
        4 => drop(document.splice(at..at, pick(rng, OTHERS).bytes())),
        _ => document.truncate(at.max(1)),
    }
}

fn settings(rest: &str) -> InputSettings {
    let both = r#""series_field":"id","timestamp_field":"meta.at","timestamp_format":"ms""#;
    serde_json::from_str(&format!("{{{both}{rest}}}")).unwrap()
}

#[test]
fn the_decoder_agrees_with_a_naive_reading() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for missing in ["impute", "reject"] {
        let list = format!(r#","features":["temp","flow","pump.bar","pump.y.z"],"missing":"{missing}""#);
        let list = if missing == "reject" { list.replace(r#","pump.y.z""#, "") } else { list };
        let settings = settings(&list);
        let Features::List(paths) = &settings.features else { panic!("a list") };
        let schema = Schema::new(paths.clone()).unwrap();
        let mut decoder = Decoder::new(&settings, &schema).unwrap();
        let (mut records, mut refusals) = (0, 0);
        for round in 0..20_000 {
            let mut value = document(&mut rng);
            for _ in 0..rng.random_range(0..2) * (round % 3) {
                mutate(&mut rng, &mut value);
            }
            let row = decoded(&mut decoder, &raw(round, &value), schema.len());
            let expect = reference(&settings, &schema, &value);
            assert_eq!(row, expect, "{}", String::from_utf8_lossy(&value));
            *if row.is_some() { &mut records } else { &mut refusals } += 1;
        }
        assert!(records > 4_000 && refusals > 4_000, "{records} records, {refusals} refusals");
    }
}

/// A blank, or seldom something else, after some of the commas and colons.
fn spaced(rng: &mut ChaCha8Rng, value: &[u8]) -> Vec<u8> {
    let often = rng.random_range(0.0..1.0);
    let mut text = Vec::with_capacity(2 * value.len());
    for &byte in value {
        text.push(byte);
        if matches!(byte, b',' | b':') && rng.random_bool(often) {
            text.push(if rng.random_range(0..50) == 0 { b"-0x\t\"1"[rng.random_range(0..6)] } else { b' ' });
        }
    }
    text
}

/// Documents that readers of JSON have stumbled over, or may: what `make fuzz` begins with.
const SEEDS: [&[u8]; 16] = [
    include_bytes!("../../fuzz/seeds/control.json"),
    include_bytes!("../../fuzz/seeds/cut.json"),
    include_bytes!("../../fuzz/seeds/digits.json"),
    include_bytes!("../../fuzz/seeds/escaped.json"),
    include_bytes!("../../fuzz/seeds/long_text.json"),
    include_bytes!("../../fuzz/seeds/mark.json"),
    include_bytes!("../../fuzz/seeds/missing.json"),
    include_bytes!("../../fuzz/seeds/other_members.json"),
    include_bytes!("../../fuzz/seeds/plain.json"),
    include_bytes!("../../fuzz/seeds/ranges.json"),
    include_bytes!("../../fuzz/seeds/reordered.json"),
    include_bytes!("../../fuzz/seeds/spaced.json"),
    include_bytes!("../../fuzz/seeds/trailing.json"),
    include_bytes!("../../fuzz/seeds/twice.json"),
    include_bytes!("../../fuzz/seeds/wrong_types.json"),
    include_bytes!("../../fuzz/seeds/zeros.json"),
];

/// So many documents, unless this variable said another number when the test was compiled.
const DIFFERENTIAL: usize = 300_000;
const DOCUMENTS: Option<&str> = option_env!("RESIDUA_DOCUMENTS");

#[test]
fn what_is_read_fast_is_read_as_the_whole_grammar_reads_it() {
    let rounds = DOCUMENTS.map_or(DIFFERENTIAL, |n| n.parse().expect("a number of documents"));
    let mut rng = ChaCha8Rng::seed_from_u64(rounds as u64);
    let list = settings(r#","features":["temp","flow","pump.bar","y.z","é"]"#);
    let Features::List(paths) = &list.features else { panic!("a list") };
    let schema = Schema::new(paths.clone()).unwrap();
    let mut decoder = Decoder::new(&list, &schema).unwrap();
    let (mut fast, mut slow) = ([0.0; 5], [0.0; 5]);
    let mut counts = [0; 2];
    for round in 0..rounds {
        let mut value = match round % 16 {
            1 | 5 => SEEDS[round / 16 % SEEDS.len()].to_vec(),
            _ => document(&mut rng),
        };
        if round % 8 == 0 {
            // Digits at the borders of what a float holds.
            let text = String::from_utf8(value).unwrap();
            let digits: String =
                (0..rng.random_range(1..25)).map(|_| char::from(rng.random_range(b'0'..=b'9'))).collect();
            let point = rng.random_range(1..=digits.len());
            let number = format!("{}.{}", digits[..point].trim_start_matches('0'), &digits[point..]);
            value = text.replacen("\"flow\":", &format!("\"flow\":{number}, \"_\":"), 1).into_bytes();
        }
        if round % 8 < 4 {
            value = spaced(&mut rng, &value);
        }
        for _ in 0..rng.random_range(0..2) * (round % 4) {
            mutate(&mut rng, &mut value);
        }
        let Ok(text) = std::str::from_utf8(&value) else { continue };
        let found = decoder.fast_and_slow(text, &mut fast, &mut slow);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        if let (Some(fast_found), slow_found) = found {
            assert_eq!(Ok(fast_found), slow_found, "{text}");
            assert_eq!(bits(&fast), bits(&slow), "{text}");
            counts[0] += 1;
        } else {
            counts[1] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > rounds / 10), "{counts:?} read fast, and not");
}

/// Between the members of one record there may be blanks or none.
#[test]
fn blanks_where_there_were_none_before_and_none_where_there_were() {
    let list = settings(r#","features":["temp","flow","bar"]"#);
    let Features::List(paths) = &list.features else { panic!("a list") };
    let mut decoder = Decoder::new(&list, &Schema::new(paths.clone()).unwrap()).unwrap();
    let (mut fast, mut slow) = ([0.0; 3], [0.0; 3]);
    for text in [
        r#"{"temp": 1.5,"flow":-2.5,"bar":25}"#,
        r#"{"temp":1.5,"flow": -2.5, "bar": 25}"#,
        r#"{"temp":1.5, "flow":-2.5,"bar":25}"#,
        r#"{"temp": 1.5, "flow": -2.5,"bar":25}"#,
    ] {
        let (found, _) = decoder.fast_and_slow(text, &mut fast, &mut slow);
        assert!(found.is_some(), "{text} is not read fast");
        assert_eq!((fast, slow), ([1.5, -2.5, 25.0], [1.5, -2.5, 25.0]), "{text}");
    }
    for text in
        [r#"{"temp":1, "flow":2,x"bar":3}"#, r#"{"temp":1, "flow":2,""bar":3}"#, r#"{"temp": 1,"flow":x2,"bar":3}"#]
    {
        let (found, _) = decoder.fast_and_slow(text, &mut fast, &mut slow);
        assert!(found.is_none(), "{text} is read fast");
    }
}

#[test]
fn history_keeps_what_the_decoder_of_its_schema_accepts() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut kept, mut dropped) = (0, 0);
    for round in 0..400 {
        let missing = if round % 2 == 0 { "impute" } else { "reject" };
        let settings = settings(&format!(r#","missing":"{missing}""#));
        let mut history = History::new(&settings).unwrap();
        let mut documents: Vec<Vec<u8>> = (0..50).map(|_| document(&mut rng)).collect();
        for _ in 0..5 {
            let at = rng.random_range(0..documents.len());
            mutate(&mut rng, &mut documents[at]);
        }
        for (offset, value) in documents.iter().enumerate().rev() {
            let _ = history.push(&raw(offset as i64, value));
        }
        let accepted = history.accepted();
        let Ok(table) = history.finish() else { continue };
        let mut decoder = Decoder::new(&settings, &table.schema).unwrap();
        let width = table.schema.len();
        let expect =
            documents.iter().enumerate().filter_map(|(at, value)| decoded(&mut decoder, &raw(at as i64, value), width));
        let expect: Vec<Vec<u64>> = expect.map(|(values, _, _)| values).collect();
        let rows = (0..table.rows()).map(|row| table.row(row).iter().map(|v| v.to_bits()).collect());
        assert_eq!(rows.collect::<Vec<Vec<u64>>>(), expect, "round {round}");
        kept += table.rows();
        dropped += accepted - table.rows();
    }
    assert!(kept > 1_000 && dropped > 1_000, "{kept} kept, {dropped} dropped");
}
