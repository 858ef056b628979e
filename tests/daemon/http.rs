//! Pages in a world that is not kind: clients that are slow, and clients that may not see everything.

use std::io::Write;
use std::net::TcpStream;

use crate::plant::{self, MACHINES};
use crate::setting::{LONG, Setting, TRAINING_STEPS, address};
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
    for page in ["/metrics", "/status"] {
        assert_eq!(status(page, None), 401);
        assert_eq!(status(page, Some("Bearer open")), 401);
        assert_eq!(status(page, Some("open sesame")), 401);
        assert_eq!(status(page, Some("Bearer open sesame")), 200);
    }
    process.stop();
}
