//! Pages in a world that is not kind: clients that are slow, and clients that may not see everything.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use residua::web::{Client, Login, Trust};

use crate::plant::{self, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address};
use crate::support::authority::Authority;
use crate::support::{self, http_get, http_get_with, wait_for};

const SLOW: usize = 1_000;

#[test]
fn a_thousand_slow_clients_keep_nobody_waiting() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "slow", "");
    let process = setting.start_trained();
    let address = address(&process);
    wait_for("readiness", LONG, || http_get(&address, "/readyz").filter(|r| r.status == 200));
    // Each has begun a request and does not end it.
    let mut slow: Vec<TcpStream> = Vec::with_capacity(SLOW);
    for number in 0..SLOW {
        let mut stream = TcpStream::connect(&address).unwrap_or_else(|e| panic!("connection {number}: {e}"));
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
        slow.push(stream);
        if number % 100 == 99 {
            for page in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(
                    http_get(&address, page).map(|r| r.status),
                    Some(200),
                    "{page} beside {number} slow clients"
                );
            }
        }
    }
    broker.produce(&setting.topic, plant::records(2, TRAINING_STEPS..TRAINING_STEPS + 50, &[]));
    setting.wait_until_settled(&broker.read(&setting.topic));
    assert_eq!(setting.scores().len(), 50 * MACHINES);
    drop(slow);
    process.stop();
}

#[test]
fn with_a_token_only_the_probes_answer_to_everybody() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "token", "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let config = format!("{}token_file = \"{}\"\n", setting.config, file.display());
    let ended = support::residua(&["run"], &config).wait(LONG);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains("http.token_file") && ended.stderr.contains(file.to_str().unwrap()), "{ended:?}");

    std::fs::write(&file, "open sesame\n").unwrap();
    let process = support::residua(&["run"], &config);
    let address = address(&process);
    let status = |page: &str, token: Option<&str>| {
        let header = token.map(|token| ("Authorization", token));
        http_get_with(&address, page, header.as_slice()).expect("an answer").status
    };
    assert_eq!(status("/livez", None), 200);
    assert_eq!(status("/readyz", None), 503, "it learns");
    assert_eq!(status("/", None), 200, "it holds nothing, and asks for the token");
    assert_eq!((status("/events", None), status("/events", Some("Bearer open"))), (401, 401));
    let mut events = TcpStream::connect(&address).unwrap();
    events.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer open sesame\r\n\r\n").unwrap();
    let mut lines = BufReader::new(events).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
    let event = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&event).unwrap()["state"], "learning");
    for page in ["/metrics", "/status"] {
        assert_eq!(status(page, None), 401);
        assert_eq!(status(page, Some("Bearer open")), 401);
        assert_eq!(status(page, Some("open sesame")), 401);
        assert_eq!(status(page, Some("Bearer open sesame")), 200);
    }
    process.stop();
}

#[test]
fn without_the_live_page_nothing_is_told_of_sensors() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "no-page", "");
    let process = support::residua(&["run"], &format!("{}page = false\n", setting.config));
    let address = address(&process);
    let page = |path: &str| http_get(&address, path).expect("an answer");
    assert_eq!((page("/").status, page("/").body.as_str()), (200, "residua: /metrics /livez /readyz /status\n"));
    assert_eq!((page("/events").status, page("/metrics").status), (404, 200));
    process.stop();
}

#[test]
fn pages_are_encrypted_with_a_certificate_that_may_be_renewed() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "https", "");
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| dir.path().join(name));
    let ours = Authority::new();
    std::fs::write(&ca, &ours.pem).unwrap();
    let config = format!(
        "{}certificate_file = \"{}\"\nkey_file = \"{}\"\n",
        setting.config,
        certificate.display(),
        key.display()
    );
    // In place of what was there, as whoever renews it should.
    let place = |(pem, private): (String, String)| {
        for (file, text) in [(&key, private), (&certificate, pem)] {
            std::fs::write(file.with_extension("new"), text).unwrap();
            std::fs::rename(file.with_extension("new"), file).unwrap();
        }
    };
    let refused = |what: &str, says: &str| {
        let ended = support::residua(&["run"], &config).wait(LONG);
        assert_eq!(ended.status.code(), Some(78), "{what}: {ended:?}");
        assert!(ended.stderr.contains(says), "{what}: {ended:?}");
    };
    refused("no file", &format!("read http.certificate_file {}: ", certificate.display()));
    let (pem, _) = ours.issue("residua", &["127.0.0.1"]);
    place((pem, ours.issue("residua", &["127.0.0.1"]).1));
    refused("another certificate's key", &format!("read http.key_file {}: ", key.display()));

    place(ours.issue("residua", &["127.0.0.1"]));
    let process = support::residua(&["run"], &config);
    let line = process.wait_for_line("metrics and health on https://", LONG);
    let address = line.split("https://").nth(1).unwrap().trim_end_matches('/').to_owned();
    let get = |authority: &std::path::Path, page: &str| {
        let client = Client::new(&Trust::Authorities(authority.to_str().unwrap()), &Login::Nobody).unwrap();
        client
            .get(&format!("https://{address}{page}"), "*/*", Duration::from_secs(20))
            .map(|(status, _)| status.as_u16())
    };
    assert_eq!(get(&ca, "/livez"), Ok(200));
    assert_eq!(get(&ca, "/metrics"), Ok(200));
    assert_eq!(http_get(&address, "/livez").map(|reply| reply.status), None, "in the clear");
    // The health check of this machine itself asks no authority.
    let probe = format!("https://{address}/livez");
    let probed = Command::new(env!("CARGO_BIN_EXE_residua")).args(["probe", &probe]).output().unwrap();
    assert!(probed.status.success() && probed.stdout == b"ok\n", "{probed:?}");
    // Clients that begin to connect and say nothing more.
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert_eq!(get(&ca, "/livez"), Ok(200));
    drop(silent);

    // What is broken is not taken up, and what is renewed is, without a restart.
    place(("no certificate".to_owned(), "no key".to_owned()));
    assert_eq!(get(&ca, "/livez"), Ok(200));
    process.wait_for_line("the one before it stays in use", LONG);
    let (theirs, other) = (Authority::new(), dir.path().join("other.pem"));
    std::fs::write(&other, &theirs.pem).unwrap();
    place(theirs.issue("residua", &["127.0.0.1"]));
    assert_eq!(get(&other, "/livez"), Ok(200));
    assert!(get(&ca, "/livez").unwrap_err().contains("certificate verify failed"));
    process.stop();
}
