//! Goal: every kind of message has a decided outcome. Method: rows of messages and the exact record or refusal each becomes.
//! `docs/records.md` says the same in words.

use super::*;

/// Decodes one message with three features and compares what comes of it, in words.
#[track_caller]
fn check_message(settings: &str, key: Option<&[u8]>, timestamp_ms: Option<i64>, value: Option<&[u8]>, expect: &str) {
    let settings = format!(r#"{{"features":["flow","pump.bar","on"]{settings}}}"#);
    let settings: InputSettings = serde_json::from_str(&settings).unwrap();
    let Features::List(paths) = &settings.features else { panic!("a list") };
    let schema = Schema::new(paths.clone()).unwrap();
    let position = Position { partition: PartitionId(0), offset: Offset(0) };
    let raw = RawRecord { position, key, value, timestamp_ms, traceparent: None };

    let mut decoder = Decoder::new(&settings, &schema).unwrap();
    let mut values = [0.0; 3];
    let refusal = match decoder.decode(&raw, &mut values) {
        Ok(decoded) => {
            let values = values.map(|v| if v.is_nan() { "-".to_owned() } else { format!("{v:?}") }).join(" ");
            assert_eq!(format!("{values} | {} | {}", decoded.series, decoded.time), expect);
            None
        }
        Err(refusal) => {
            assert_eq!(format!("{}: {refusal}", refusal.reason()), expect);
            assert!(Refusal::REASONS.contains(&refusal.reason()));
            Some(refusal)
        }
    };
    // What is learned from is what is scored.
    assert_eq!(History::new(&settings).unwrap().push(&raw).err(), refusal);
}

/// A value that becomes a record with these values: flow, pump.bar, on.
#[track_caller]
fn check_values(value: impl AsRef<[u8]>, expect: &str) {
    let expect = format!("{expect} | p | 1970-01-01T00:00:00.000Z");
    check_message("", Some(b"p"), Some(0), Some(value.as_ref()), &expect);
}

#[track_caller]
fn check_refused(value: impl AsRef<[u8]>, expect: &str) {
    check_message("", Some(b"p"), Some(0), Some(value.as_ref()), expect);
}

#[track_caller]
fn check_key(key: Option<&[u8]>, expect: &str) {
    check_message("", key, Some(0), Some(br#"{"flow":1}"#), expect);
}

#[track_caller]
fn check_series(json: &str, expect: &str) {
    let value = format!(r#"{{"flow":1,"id":{json}}}"#);
    check_message(r#","series_field":"id""#, None, Some(0), Some(value.as_bytes()), expect);
}

#[track_caller]
fn check_time(format: &str, json: &str, expect: &str) {
    let settings = format!(r#","timestamp_field":"at","timestamp_format":"{format}""#);
    let value = format!(r#"{{"at":{json},"flow":1}}"#);
    check_message(&settings, Some(b"p"), None, Some(value.as_bytes()), expect);
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + "1" + &close.repeat(depth)
}

#[test]
fn numbers_are_values() {
    check_values(r#"{"flow":1.5,"pump":{"bar":2},"on":true}"#, "1.5 2.0 1.0");
    check_values(" \t\r\n{ \"flow\" : 1.5 , \"on\" : false }\n", "1.5 - 0.0");
    check_values(r#"{"flow":-0.0,"on":-0}"#, "-0.0 - -0.0");
    check_values(r#"{"flow":1e-400,"on":5e-324}"#, "0.0 - 5e-324");
    check_values(r#"{"flow":1.7976931348623157e308,"on":1E+2}"#, "1.7976931348623157e308 - 100.0");
    check_values(
        r#"{"flow":18446744073709551615,"on":9007199254740993}"#,
        "1.8446744073709552e19 - 9007199254740992.0",
    );
    check_values(r#"{"flow":-9223372036854775808}"#, "-9.223372036854776e18 - -");
    check_values(r#"{"flow":123456789012345678901234567890}"#, "1.2345678901234568e29 - -");
    // Halfway between two floats: correctly rounded to the even one, and up with one digit more.
    check_values(r#"{"flow":1.00000000000000011102230246251565}"#, "1.0 - -");
    check_values(r#"{"flow":1.000000000000000111022302462515655}"#, "1.0000000000000002 - -");
    check_values(r#"{"flow":2.2250738585072011e-308}"#, "2.225073858507201e-308 - -");
}

#[test]
fn numbers_beyond_the_range_and_no_numbers_are_refused() {
    let beyond = |field| {
        format!("out_of_range: expect a finite number in field `{field}`, found one beyond the range of a 64-bit float")
    };
    check_refused(r#"{"flow":1e400}"#, &beyond("flow"));
    check_refused(r#"{"pump":{"bar":-1e309}}"#, &beyond("pump.bar"));
    check_refused(format!(r#"{{"on":{}}}"#, "9".repeat(400)), &beyond("on"));
    check_refused(
        r#"{"flow":NaN}"#,
        "invalid_json: expect one JSON object, found an error in it: expected value at line 1 column 9",
    );
    check_refused(
        r#"{"flow":Infinity}"#,
        "invalid_json: expect one JSON object, found an error in it: expected value at line 1 column 9",
    );
    check_refused(
        r#"{"flow":-Infinity}"#,
        "invalid_json: expect one JSON object, found an error in it: invalid number at line 1 column 10",
    );
    for number in ["01", "+1", ".5", "1.", "0x10", "1e", "1_000", "--1"] {
        let settings: InputSettings = serde_json::from_str(r#"{"features":["flow"]}"#).unwrap();
        let value = format!(r#"{{"flow":{number}}}"#);
        let position = Position { partition: PartitionId(0), offset: Offset(0) };
        let raw =
            RawRecord { position, key: None, value: Some(value.as_bytes()), timestamp_ms: Some(0), traceparent: None };
        let refusal = History::new(&settings).unwrap().push(&raw).unwrap_err();
        assert_eq!(refusal.reason(), "invalid_json", "{number}");
    }
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    let wrong = |field: &str, expected: &str, found: &str| {
        format!("wrong_type: expect {expected} in field `{field}`, found {found}")
    };
    let number = "a number or boolean";
    check_refused(r#"{"flow":"1.5"}"#, &wrong("flow", number, "a string"));
    check_refused(r#"{"flow":[1]}"#, &wrong("flow", number, "an array"));
    check_refused(r#"{"flow":{"value":1}}"#, &wrong("flow", number, "an object"));
    check_refused(r#"{"flow":1,"pump":3}"#, &wrong("pump", "an object", "a number"));
    check_refused(r#"{"flow":1,"pump":-3}"#, &wrong("pump", "an object", "a number"));
    check_refused(r#"{"flow":1,"pump":1e400}"#, &wrong("pump", "an object", "a number"));
    check_refused(r#"{"flow":1,"pump":"x"}"#, &wrong("pump", "an object", "a string"));
    check_refused(r#"{"flow":1,"pump":true}"#, &wrong("pump", "an object", "a boolean"));
    check_refused(r#"{"flow":1,"pump":[{"bar":1}]}"#, &wrong("pump", "an object", "an array"));
    check_refused(r#"{"flow":1,"pump":{"bar":"2"}}"#, &wrong("pump.bar", number, "a string"));
}

#[test]
fn absent_and_null_values_are_missing() {
    check_values(r#"{"flow":1}"#, "1.0 - -");
    check_values(r#"{"flow":null,"pump":{"bar":null},"on":1}"#, "- - 1.0");
    check_values(r#"{"flow":1,"pump":null}"#, "1.0 - -");
    check_values(r#"{"flow":1,"pump":{}}"#, "1.0 - -");
    let none = "no_values: expect a value in at least one of 3 features, found none";
    check_refused("{}", none);
    check_refused(r#"{"flow":null,"other":1}"#, none);
    let reject = |value: &str, expect: &str| {
        check_message(r#","missing":"reject""#, None, Some(0), Some(value.as_bytes()), expect);
    };
    reject(r#"{"flow":1,"pump":{"bar":2},"on":0}"#, "1.0 2.0 0.0 |  | 1970-01-01T00:00:00.000Z");
    reject(r#"{"flow":1,"on":0}"#, "missing_field: expect field `pump.bar`, found nothing or null");
    reject(r#"{"flow":null,"pump":{"bar":2},"on":0}"#, "missing_field: expect field `flow`, found nothing or null");
}

#[test]
fn needed_keys_come_once() {
    let twice = |field| format!("duplicate_field: expect field `{field}` once, found it twice");
    check_refused(r#"{"flow":1,"flow":1}"#, &twice("flow"));
    check_refused(r#"{"flow":null,"flow":1}"#, &twice("flow"));
    check_refused(r#"{"flow":1,"fl\u006fw":1}"#, &twice("flow"));
    check_refused(r#"{"pump":{"bar":1},"pump":{"other":1}}"#, &twice("pump"));
    check_refused(r#"{"pump":{"bar":1,"bar":2}}"#, &twice("pump.bar"));
    check_values(r#"{"x":1,"flow":1,"x":2,"pump":{"y":1,"y":2}}"#, "1.0 - -");
}

#[test]
fn keys_are_compared_unescaped_and_dots_are_part_of_them() {
    check_values(r#"{"fl\u006Fw":1,"\u0070ump":{"b\u0061r":2}}"#, "1.0 2.0 -");
    check_values(r#"{"pump.bar":5,"flow":1,"":7,"FLOW":9}"#, "1.0 - -");
    let settings: InputSettings = serde_json::from_str(r#"{"features":["pump\\.bar","a\\\\b"]}"#).unwrap();
    let mut history = History::new(&settings).unwrap();
    let position = Position { partition: PartitionId(0), offset: Offset(0) };
    let value: &[u8] = br#"{"pump.bar":5,"a\\b":6,"pump":{"bar":7}}"#;
    history
        .push(&RawRecord { position, key: None, value: Some(value), timestamp_ms: Some(0), traceparent: None })
        .unwrap();
    assert_eq!(history.finish().unwrap().values, [5.0, 6.0]);
}

#[test]
fn what_nobody_needs_is_skipped() {
    check_values(r#"{"flow":1,"x":1e400,"y":"\ud800","z":["deep",{"flow":2}]}"#, "1.0 - -");
    check_values(format!(r#"{{"x":{},"flow":1}}"#, nested("[", "]", 10_000)), "1.0 - -");
    check_values(format!(r#"{{"x":{},"flow":1}}"#, nested(r#"{"a":"#, "}", 10_000)), "1.0 - -");
    let number = "wrong_type: expect a number or boolean in field `flow`, found ";
    check_refused(format!(r#"{{"flow":{}}}"#, nested("[", "]", 10_000)), &format!("{number}an array"));
    check_refused(format!(r#"{{"flow":{}}}"#, nested(r#"{"a":"#, "}", 10_000)), &format!("{number}an object"));
    check_refused(
        format!(r#"{{"pump":{}}}"#, nested("[", "]", 10_000)),
        "wrong_type: expect an object in field `pump`, found an array",
    );
    // On the way to a needed value everything beside it is skipped at any depth.
    check_values(format!(r#"{{"pump":{{"x":{},"bar":1}}}}"#, nested("[", "]", 10_000)), "- 1.0 -");
    // Size does not matter.
    check_values(format!(r#"{{"text":"{}","flow":1}}"#, "x".repeat(1 << 20)), "1.0 - -");
    check_values(format!(r#"{{"list":[{}1],"flow":1}}"#, "1,".repeat(1 << 19)), "1.0 - -");
}

#[test]
fn the_value_is_one_json_object() {
    check_message("", Some(b"p"), Some(0), None, "tombstone: expect a record, found no value (a tombstone)");
    check_refused("", "empty: expect a record, found an empty value");
    let not = |found| format!("not_an_object: expect an object with the fields of a record, found {found}");
    check_refused(r#"[{"flow":1}]"#, &not("an array"));
    check_refused("1", &not("a number"));
    check_refused("-1.5", &not("a number"));
    check_refused("1e400", &not("a number"));
    check_refused(r#""{\"flow\":1}""#, &not("a string"));
    check_refused("true", &not("a boolean"));
    check_refused("null", &not("null"));
    check_refused(nested("[", "]", 10_000), &not("an array"));

    let bad = |error| format!("invalid_json: expect one JSON object, found an error in it: {error}");
    check_refused(" ", &bad("EOF while parsing a value at line 1 column 1"));
    check_refused("\0", &bad("expected value at line 1 column 1"));
    check_refused("flow=1", &bad("expected ident at line 1 column 2"));
    check_refused(r#"{"flow":1"#, &bad("EOF while parsing an object at line 1 column 9"));
    check_refused(r#"{"flow":1}}"#, &bad("trailing characters at line 1 column 11"));
    check_refused("{\"flow\":1}\n{\"flow\":2}", &bad("trailing characters at line 2 column 1"));
    check_refused("{\"flow\":1}\0", &bad("trailing characters at line 1 column 11"));
    check_refused(r#"{"flow":1,}"#, &bad("trailing comma at line 1 column 11"));
    check_refused(r#"{flow:1}"#, &bad("key must be a string at line 1 column 2"));
    check_refused(r#"{'flow':1}"#, &bad("key must be a string at line 1 column 2"));
    check_refused(r#"{"flow":1,"x":[1,]}"#, &bad("expected value at line 1 column 18"));
    check_refused(
        "{\"flow\":1,\"x\":\"a\nb\"}",
        &bad("control character (\\u0000-\\u001F) found while parsing a string at line 1 column 16"),
    );
    check_refused("\u{feff}{\"flow\":1}", &bad("a byte order mark before it"));
    check_refused(b"\x00\x00\x00\x00\x07\x02flow", &bad("expected value at line 1 column 1"));
}

#[test]
fn the_value_is_utf_8_everywhere() {
    let bad = |at| format!("invalid_utf8: expect UTF-8, found an invalid byte at {at}");
    check_refused(b"{\"fl\xffw\":1}", &bad(4));
    check_refused(b"{\"flow\":1,\"x\":\"\xc3\x28\"}", &bad(15));
    check_refused(b"{\"flow\":1,\"\xed\xa0\x80\":1}", &bad(11));
    check_refused(b"\xff\xfe{\x00", &bad(0));
    check_values("{\"größe\":\"µ\",\"flow\":1}", "1.0 - -");
    // Half a surrogate pair is valid UTF-8 as an escape, but no text: no key, and no needed string.
    check_refused(
        r#"{"\ud800":1,"flow":1}"#,
        "invalid_json: expect one JSON object, found an error in it: unexpected end of hex escape at line 1 column 9",
    );
}

#[test]
fn the_key_is_the_series() {
    let series = |text: &str| format!("1.0 - - | {text} | 1970-01-01T00:00:00.000Z");
    check_key(Some(b"pump-3"), &series("pump-3"));
    check_key(Some("größe 3".as_bytes()), &series("größe 3"));
    check_key(None, &series(""));
    check_key(Some(b""), &series(""));
    check_key(Some(b"\x00\x00\x01\xff"), &series("0x000001ff"));
    check_key(Some(b"a\nb"), &series("0x610a62"));
    check_key(Some("a\u{85}".as_bytes()), &series("0x61c285"));
    check_key(Some(&[b'x'; 256]), &series(&"x".repeat(256)));
    check_key(Some(&[b'x'; 257]), "series_too_long: expect a series of at most 256 bytes, found 257");
    check_key(Some(&[0xff; 127]), &series(&format!("0x{}", "ff".repeat(127))));
    check_key(Some(&[0xff; 128]), "series_too_long: expect a series of at most 256 bytes, found 258");
    check_key(Some(&[0x01; 128]), "series_too_long: expect a series of at most 256 bytes, found 258");
}

#[test]
fn a_field_can_be_the_series() {
    let series = |text: &str| format!("1.0 - - | {text} | 1970-01-01T00:00:00.000Z");
    check_series(r#""pump-3""#, &series("pump-3"));
    check_series(r#""p\u00fcmp\"""#, &series("pümp\""));
    check_series(r#""""#, &series(""));
    check_series("17", &series("17"));
    check_series("-17", &series("-17"));
    check_series("18446744073709551616", &series("18446744073709551616"));
    check_series(r#""a\nb""#, &series("0x610a62"));
    check_series(
        &format!("\"{}\"", "x".repeat(257)),
        "series_too_long: expect a series of at most 256 bytes, found 257",
    );
    check_series(&"9".repeat(300), "series_too_long: expect a series of at most 256 bytes, found 300");
    let wrong = |found| format!("wrong_type: expect a string or an integer in field `id`, found {found}");
    check_series("1.0", &wrong("a number that is no integer"));
    check_series("1e3", &wrong("a number that is no integer"));
    check_series("true", &wrong("a boolean"));
    check_series(r#"["a"]"#, &wrong("an array"));
    check_series(&nested(r#"{"a":"#, "}", 10_000), &wrong("an object"));
    check_series("null", "missing_field: expect field `id`, found nothing or null");
    check_series(r#""a","id":"a""#, "duplicate_field: expect field `id` once, found it twice");
    check_series(
        r#""\ud800""#,
        "invalid_json: expect one JSON object, found an error in it: unexpected end of hex escape at line 1 column 8",
    );
    let id: &[u8] = br#"{"flow":1}"#;
    let absent = "missing_field: expect field `id`, found nothing or null";
    check_message(r#","series_field":"id""#, Some(b"key"), Some(0), Some(id), absent);
}

#[test]
fn time_is_read_in_rfc_3339() {
    let at = |time: &str| format!("1.0 - - | p | {time}");
    let check = |json: &str, expect: &str| check_time("rfc3339", json, expect);
    check(r#""2026-11-24T03:00:00Z""#, &at("2026-11-24T03:00:00.000Z"));
    check(r#""2026-11-24t03:00:00.1239999z""#, &at("2026-11-24T03:00:00.123Z"));
    check(r#""2026-11-24T03:00:00.5+05:30""#, &at("2026-11-23T21:30:00.500Z"));
    check(r#""2026-11-24 03:00:00-08:00""#, &at("2026-11-24T11:00:00.000Z"));
    check(r#""2026-11-24T03:00:00\u005a""#, &at("2026-11-24T03:00:00.000Z"));
    check(r#""2016-12-31T23:59:60Z""#, &at("2016-12-31T23:59:59.000Z"));
    check(r#""0000-01-01T00:00:00Z""#, &at("0000-01-01T00:00:00.000Z"));
    let bad = |found: &str| {
        format!(
            "bad_timestamp: expect an RFC 3339 time with an offset or Z between the years 0000 and 9999 in field `at`, found `{found}`"
        )
    };
    check(r#""2026-11-24T03:00:00""#, &bad(r#""2026-11-24T03:00:00""#));
    check(r#""2026-11-24""#, &bad(r#""2026-11-24""#));
    check(r#""2026-02-30T00:00:00Z""#, &bad(r#""2026-02-30T00:00:00Z""#));
    check(r#""-000001-12-31T23:59:59Z""#, &bad(r#""-000001-12-31T23:59:59Z""#));
    check(r#""10000-01-01T00:00:00Z""#, &bad(r#""10000-01-01T00:00:00Z""#));
    check(r#""""#, &bad(r#""""#));
    check(&format!("\"{}\"", "é".repeat(100)), &bad(&format!("\"{}", "é".repeat(63))));
    let wrong = |found| format!("wrong_type: expect an RFC 3339 time with an offset or Z in field `at`, found {found}");
    check("1795489200", &wrong("a number"));
    check("{}", &wrong("an object"));
    check("null", "missing_field: expect field `at`, found nothing or null");
    check(r#""2026-11-24T03:00:00Z","at":1"#, "duplicate_field: expect field `at` once, found it twice");
}

#[test]
fn time_is_read_as_an_epoch_in_each_unit() {
    let at = |time: &str| format!("1.0 - - | p | {time}");
    check_time("s", "1795489200", &at("2026-11-24T03:00:00.000Z"));
    check_time("s", "1795489200.123", &at("2026-11-24T03:00:00.123Z"));
    check_time("ms", "1795489200123", &at("2026-11-24T03:00:00.123Z"));
    check_time("us", "1795489200123999", &at("2026-11-24T03:00:00.123Z"));
    check_time("ns", "1795489200123999999", &at("2026-11-24T03:00:00.123Z"));
    check_time("s", "-1", &at("1969-12-31T23:59:59.000Z"));
    check_time("ns", "-1", &at("1969-12-31T23:59:59.999Z"));
    let bad = |unit: &str, found: &str| {
        format!(
            "bad_timestamp: expect {unit} since 1970 between the years 0000 and 9999 in field `at`, found `{found}`"
        )
    };
    check_time("s", "1795489200123", &bad("seconds", "1795489200123"));
    check_time("s", "1e400", &bad("seconds", "1e400"));
    check_time("ms", "-62167219200001", &bad("milliseconds", "-62167219200001"));
    let wrong = |unit: &str, found: &str| format!("wrong_type: expect {unit} since 1970 in field `at`, found {found}");
    check_time("s", r#""1795489200""#, &wrong("seconds", "a string"));
    check_time("us", "true", &wrong("microseconds", "a boolean"));
    check_time("ns", "null", "missing_field: expect field `at`, found nothing or null");
}

#[test]
fn time_without_a_field_is_kafkas() {
    let value: Option<&[u8]> = Some(br#"{"flow":1}"#);
    let at = |ms, expect: &str| check_message("", None, ms, value, expect);
    at(Some(1_795_489_200_123), "1.0 - - |  | 2026-11-24T03:00:00.123Z");
    at(None, "no_timestamp: expect a timestamp of Kafka, found none");
    at(
        Some(i64::MAX),
        "bad_timestamp: expect milliseconds since 1970 between the years 0000 and 9999 in Kafka's timestamp, found `9223372036854775807`",
    );
}

#[test]
fn a_listed_field_can_serve_twice() {
    let both = r#","series_field":"flow","timestamp_field":"on","timestamp_format":"s""#;
    let check = |value: &str, expect: &str| check_message(both, None, None, Some(value.as_bytes()), expect);
    check(r#"{"flow":7,"on":60.5}"#, "7.0 - 60.5 | 7 | 1970-01-01T00:01:00.500Z");
    let number = "wrong_type: expect a number or boolean in field";
    check(r#"{"flow":"7","on":60}"#, &format!("{number} `flow`, found a string"));
    check(r#"{"flow":7,"on":[60]}"#, &format!("{number} `on`, found an array"));
    check(
        r#"{"flow":7,"on":1e400}"#,
        "out_of_range: expect a finite number in field `on`, found one beyond the range of a 64-bit float",
    );
    check(r#"{"flow":null,"on":60}"#, "missing_field: expect field `flow`, found nothing or null");
}

#[test]
fn a_decoder_fits_its_model() {
    let schema = |texts: &[&str]| Schema::new(texts.iter().map(|t| t.parse().unwrap()).collect()).unwrap();
    let settings: InputSettings = serde_json::from_str(r#"{"features":["a","b"]}"#).unwrap();
    assert!(Decoder::new(&settings, &schema(&["b", "a"])).is_ok());
    let refused = |features: &[&str]| Decoder::new(&settings, &schema(features)).unwrap_err().to_string();
    let message = "use a model of the features in input.features; ";
    assert_eq!(refused(&["a"]), format!("{message}`b` is listed, but not in the model"));
    assert_eq!(refused(&["a", "b", "c"]), format!("{message}`c` is in the model, but not listed"));
    let settings: InputSettings = serde_json::from_str(r#"{"series_field":"a"}"#).unwrap();
    let nested = Decoder::new(&settings, &schema(&["a.x"])).unwrap_err().to_string();
    assert_eq!(nested, "read `a` either as a value or as an object, found a field `a.x` inside it");
}
