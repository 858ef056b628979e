//! Messages that are no records, of twenty kinds, and the reason each must be refused for.

use crate::support::Outgoing;

const GOOD: &str =
    r#""flow":10.1,"speed":10.2,"motor":{"current":10.3,"temp":10.1},"in":10,"out":10,"vibration":10,"valve":10"#;

/// Name of the kind, message value, reason label.
pub fn kinds() -> Vec<(&'static str, Option<Vec<u8>>, &'static str)> {
    let with = |field: &str| format!(r#"{{{GOOD},{field}}}"#);
    let instead = |from: &str, to: &str| format!("{{{GOOD}}}").replace(from, to);
    let kinds: Vec<(&str, Option<Vec<u8>>, &str)> = vec![
        ("tombstone", None, "tombstone"),
        ("empty", Some(vec![]), "empty"),
        ("plain text", Some(b"pump 3 is fine".to_vec()), "invalid_json"),
        ("cut off", Some(br#"{"flow":10.1,"spe"#.to_vec()), "invalid_json"),
        ("trailing bytes", Some(with(r#""x":1"#).into_bytes().into_iter().chain(*b" {}").collect()), "invalid_json"),
        ("array", Some(b"[10.1,10.2,10.3]".to_vec()), "not_an_object"),
        ("number", Some(b"42".to_vec()), "not_an_object"),
        (
            "invalid utf-8",
            Some([with(r#""x":""#).trim_end_matches('}').as_bytes(), b"\xff\xfe\"}"].concat()),
            "invalid_utf8",
        ),
        ("NaN", Some(instead("10.1", "NaN").into_bytes()), "invalid_json"),
        ("infinity", Some(instead("10.1", "-Infinity").into_bytes()), "invalid_json"),
        ("too large a number", Some(instead("\"flow\":10.1", "\"flow\":1e400").into_bytes()), "out_of_range"),
        ("numeric string", Some(instead("\"flow\":10.1", "\"flow\":\"10.1\"").into_bytes()), "wrong_type"),
        ("object as a number", Some(instead("\"flow\":10.1", "\"flow\":{\"v\":10.1}").into_bytes()), "wrong_type"),
        ("array as a number", Some(instead("\"flow\":10.1", "\"flow\":[10.1]").into_bytes()), "wrong_type"),
        ("number as a parent", Some(instead("{\"current\":10.3,\"temp\":10.1}", "7").into_bytes()), "wrong_type"),
        ("key twice", Some(with(r#""flow":10.1"#).into_bytes()), "duplicate_field"),
        ("parent twice", Some(with(r#""motor":{"temp":1}"#).into_bytes()), "duplicate_field"),
        ("no known field", Some(br#"{"hello":1}"#.to_vec()), "no_values"),
        ("byte order mark", Some([b"\xef\xbb\xbf", with(r#""x":1"#).as_bytes()].concat()), "invalid_json"),
        ("a megabyte of noise", Some(vec![b'x'; 950_000]), "invalid_json"),
    ];
    assert_eq!(kinds.len(), 20);
    kinds
}

/// `count` broken messages, the kinds in turn; each carries its kind in the header `kind`.
pub fn messages(count: usize) -> Vec<Outgoing> {
    let kinds = kinds();
    (0..count)
        .map(|i| {
            let (kind, value, _) = &kinds[i % kinds.len()];
            // Half a megabyte of noise each time would be a test of the disk; the large kind is sent a few times only.
            let value = if *kind == "a megabyte of noise" && i >= 5 * kinds.len() {
                Some(b"x".to_vec())
            } else {
                value.clone()
            };
            Outgoing {
                key: Some(format!("broken-{}", i % 7).into_bytes()),
                value,
                headers: vec![("kind".to_owned(), kind.as_bytes().to_vec()), ("trace".to_owned(), vec![0, 1, 255])],
                ..Outgoing::default()
            }
        })
        .collect()
}
