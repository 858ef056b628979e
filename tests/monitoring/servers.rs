//! Prometheus, Alertmanager and a webhook, each on a free port of loopback.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{self, PATIENCE, Process, http_get, wait_for};

/// A Prometheus that looks every half a second.
pub struct Prometheus {
    _process: Process,
    address: String,
}

impl Prometheus {
    /// With this configuration and these rules, files of `dir`. None where there is no Prometheus on this machine, as with Kafka.
    pub fn start(dir: &Path, config: &str, rules: &str) -> Option<Prometheus> {
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        fs::write(dir.join("residua.rules.yml"), rules).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
        command.args(["--web.listen-address=127.0.0.1:0", "--query.lookback-delta=30s"]);
        let (process, address) = listening(command, "prometheus")?;
        let prometheus = Prometheus { _process: process, address };
        wait_for("Prometheus", PATIENCE, || http_get(&prometheus.address, "/-/ready").filter(|r| r.status == 200));
        Some(prometheus)
    }

    /// Samples of an instant query.
    #[track_caller]
    pub fn query(&self, expr: &str) -> Vec<Value> {
        let reply = http_get(&self.address, &format!("/api/v1/query?query={}", encoded(expr))).expect("an answer");
        let read: Value = serde_json::from_str(&reply.body).expect("JSON");
        assert_eq!(read["status"], "success", "{expr}: {read}");
        read["data"]["result"].as_array().expect("samples").clone()
    }

    /// Names of the alerts that fire.
    pub fn firing(&self) -> Vec<String> {
        let alerts = self.query(r#"ALERTS{alertstate="firing"}"#);
        alerts.iter().map(|a| a["metric"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub fn wait_for_alert(&self, name: &str, within: Duration) {
        wait_for(&format!("{name} to fire"), within, || self.firing().iter().any(|n| n == name).then_some(()));
    }
}

/// An Alertmanager with this configuration. None as with Prometheus.
pub fn alertmanager(dir: &Path, config: &str) -> Option<(Process, String)> {
    fs::write(dir.join("alertmanager.yml"), config).unwrap();
    let name =
        ["prometheus-alertmanager", "alertmanager"].into_iter().find(|name| in_path(name)).unwrap_or("alertmanager");
    let mut command = Command::new(name);
    command.arg(format!("--config.file={}", dir.join("alertmanager.yml").display()));
    command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
    // No cluster.
    command.args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="]);
    listening(command, name)
}

fn in_path(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Starts a server of the Prometheus family, and reads from its log where it listens.
fn listening(command: Command, name: &str) -> Option<(Process, String)> {
    if !in_path(name) {
        support::without("prometheus", &format!("{name} is not installed"));
        return None;
    }
    let process = Process::spawn(command);
    let line = process.wait_for_line("msg=\"Listening on\"", PATIENCE);
    let address = line.split("address=").nth(1).expect("an address").trim().to_owned();
    Some((process, address))
}

/// A page that takes notifications of Alertmanager; each comes out as JSON.
pub fn webhook() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let notification = stream.ok().and_then(|stream| take(stream).ok());
            if notification.is_some_and(|n| sender.send(n).is_err()) {
                return;
            }
        }
    });
    (address, receiver)
}

/// Reads one POST and answers that all is well.
fn take(stream: TcpStream) -> std::io::Result<Value> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 0 && line.trim() != "" {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(serde_json::from_slice(&body)?)
}

fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
