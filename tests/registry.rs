//! Goal: what a schema registry says, or does not say, becomes a schema or a reason, in bounded time. Method: a registry of this test run,
//! with and without TLS.

#[allow(dead_code, reason = "every test uses a part")]
#[path = "support/authority.rs"]
mod authority;
#[allow(dead_code, reason = "every test uses a part")]
#[path = "support/registry.rs"]
mod server;

use std::time::{Duration, Instant};

use residua::record::{NoSchema, SchemaText, WriterSchemas};
use residua::registry::{Registry, RegistrySettings, Then};
use serde_json::json;

use authority::{Authority, write};
use server::Mood;

fn settings(url: &str) -> RegistrySettings {
    RegistrySettings { url: url.to_owned(), timeout: Duration::from_millis(500), ..RegistrySettings::default() }
}

fn plain(schema: &str) -> Result<SchemaText, NoSchema> {
    Ok(SchemaText { schema: schema.to_owned(), references: vec![] })
}

#[test]
fn a_schema_is_asked_for_once() {
    let server = server::Registry::start();
    server.schema(7, "\"long\"");
    let registry = Registry::new(&settings(&format!("{}/", server.url))).unwrap();
    registry.check().unwrap();
    for _ in 0..3 {
        assert_eq!(registry.get(7), plain("\"long\""));
    }
    server.is(Mood::Refuses);
    assert_eq!(registry.get(7), plain("\"long\""));
    assert_eq!(server.asked().iter().filter(|(page, _)| page == "/schemas/ids/7").count(), 1);
}

#[test]
fn what_a_schema_refers_to_comes_before_it_and_once() {
    let server = server::Registry::start();
    let reference = |subject: &str, version: u32| json!({"name": "n", "subject": subject, "version": version});
    let refers = |schema: &str, to: serde_json::Value| json!({"schema": schema, "references": to}).to_string();
    server.put("/schemas/ids/1", &refers("top", json!([reference("a b/c", 2), reference("d", 1)])));
    server.put("/subjects/a%20b%2Fc/versions/2?deleted=true", &refers("upper", json!([reference("d", 1)])));
    server.put("/subjects/d/versions/1?deleted=true", &refers("lower", json!([])));
    let registry = Registry::new(&settings(&server.url)).unwrap();
    let references = ["lower", "upper"].map(str::to_owned).to_vec();
    assert_eq!(registry.get(1), Ok(SchemaText { schema: "top".to_owned(), references }));
    assert_eq!(server.asked().len(), 3, "{:?}", server.asked());

    // Without an end, as no registry would let it be.
    server.put("/schemas/ids/2", &refers("top", json!([reference("e", 1)])));
    for version in 1..200 {
        server.put(
            &format!("/subjects/e/versions/{version}?deleted=true"),
            &refers("x", json!([reference("e", version + 1)])),
        );
    }
    let no = registry.get(2).unwrap_err();
    assert!(no.why.contains("refers to more than 100 others") && !no.wait, "{no:?}");
}

#[test]
fn what_cannot_be_had_is_waited_for_or_not_as_configured_and_soon_asked_for_again() {
    let server = server::Registry::start();
    server.put("/schemas/ids/3", &json!({"schema": "message M {}", "schemaType": "PROTOBUF"}).to_string());
    for (unknown, unreachable) in [(Then::DeadLetter, Then::Wait), (Then::Wait, Then::DeadLetter)] {
        let fresh = || Registry::new(&RegistrySettings { unknown, unreachable, ..settings(&server.url) }).unwrap();
        let check = |registry: &Registry, id: u32, why: &str, then: Then| {
            let begun = Instant::now();
            let no = registry.get(id).unwrap_err();
            assert!(no.why.contains(why) && no.wait == (then == Then::Wait), "{id}: {no:?}");
            // Five times what one request may take, as machines are busy.
            assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
        };
        check(&fresh(), 3, "it is of kind PROTOBUF, expected AVRO", unknown);
        check(&fresh(), 4, "Schema not found", unknown);
        server.is(Mood::Error502);
        check(&fresh(), 5, "502 Bad Gateway", unreachable);
        server.is(Mood::Refuses);
        check(&fresh(), 6, &format!("ask {}/schemas/ids/6: ", server.url), unreachable);
        server.is(Mood::Silent);
        assert!(fresh().check().unwrap_err().contains("timeout"));
        let registry = fresh();
        check(&registry, 7, "timeout", unreachable);
        server.is(Mood::Answers);
        server.schema(7, "\"int\"");
        // Not again at once, for whichever schema, and then with another answer.
        let asked = server.asked().len();
        check(&registry, 7, "timeout", unreachable);
        check(&registry, 8, "timeout", unreachable);
        assert_eq!(server.asked().len(), asked);
        std::thread::sleep(Duration::from_millis(2_100));
        assert_eq!(registry.get(7), plain("\"int\""));
        server.put("/schemas/ids/7", "{}");
    }
    // What is no registry at all.
    let registry = Registry::new(&settings(&server.url)).unwrap();
    assert!(registry.get(7).unwrap_err().why.contains("no answer of a schema registry: missing field `schema`"));
    let nobody = Registry::new(&settings("http://127.0.0.1:1")).unwrap().get(1).unwrap_err();
    assert!(nobody.why.to_lowercase().contains("refused") && nobody.wait, "{nobody:?}");
}

#[test]
fn a_registry_is_trusted_by_its_certificate_and_told_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| write(dir.path(), name, text).to_str().unwrap().to_owned();
    let ours = Authority::new();
    let (certificate, key) = ours.issue("registry", &["127.0.0.1"]);
    let server = server::Registry::secure(&file("server.pem", &certificate), &file("server.key", &key));
    server.schema(1, "\"long\"");
    let ca_file = file("ca.pem", &ours.pem);
    let trusting = RegistrySettings { ca_file: ca_file.clone(), ..settings(&server.url) };
    let get = |settings: &RegistrySettings| Registry::new(settings).unwrap().get(1);
    assert_eq!(get(&trusting), plain("\"long\""));
    let password_file = file("password", "open:sesame\n");
    let (user, token_file) = ("Aladdin".to_owned(), file("token", "abc.def\n"));
    assert_eq!(get(&RegistrySettings { user, password_file, ..trusting.clone() }), plain("\"long\""));
    assert_eq!(get(&RegistrySettings { token_file, ..trusting.clone() }), plain("\"long\""));
    let sent: Vec<_> = server.asked().into_iter().map(|(_, authorization)| authorization).collect();
    assert_eq!(sent, ["", "Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==", "Bearer abc.def"]);

    let refused = |settings: &RegistrySettings| get(settings).unwrap_err().why.to_lowercase();
    assert!(
        refused(&settings(&server.url)).contains("certificate verify failed"),
        "{}",
        refused(&settings(&server.url))
    );
    let stranger = RegistrySettings { ca_file: file("stranger.pem", &Authority::new().pem), ..trusting.clone() };
    assert!(refused(&stranger).contains("certificate verify failed"), "{}", refused(&stranger));
    // A name that is not in the certificate.
    let other = RegistrySettings { url: server.url.replace("127.0.0.1", "localhost"), ..trusting.clone() };
    assert!(refused(&other).contains("certificate verify failed"), "{}", refused(&other));

    let wrong = |settings: RegistrySettings| Registry::new(&settings).err().unwrap_or_default();
    let missing = RegistrySettings { ca_file: "/no/such".to_owned(), ..trusting.clone() };
    assert!(wrong(missing).starts_with("read schema_registry.ca_file /no/such: "));
    let empty = RegistrySettings { ca_file: file("empty", ""), ..trusting.clone() };
    assert!(wrong(empty).ends_with("no certificate in it"));
    let token = RegistrySettings { token_file: "/no/such".to_owned(), ..trusting };
    assert!(wrong(token.clone()).starts_with("read schema_registry.token_file /no/such: "));
    let secret = |text: &str| wrong(RegistrySettings { token_file: file("secret", text), ..token.clone() });
    assert!(secret("\n").ends_with("it is empty"));
    assert!(secret("two\nlines\n").ends_with("it has more lines than one"));
}
