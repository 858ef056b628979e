//! A page in headless Chromium, over its remote debugging protocol.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::support::{PATIENCE, Process, wait_for, without};

/// One page. Dropped, the browser ends.
pub struct Browser {
    socket: WebSocket<TcpStream>,
    calls: u64,
    _process: Process,
    _profile: TempDir,
}

impl Browser {
    /// Opens the address; `None` without Chromium.
    pub fn open(url: &str) -> Option<Browser> {
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| runs(name))
        else {
            without(
                "chromium",
                "none of chromium, chromium-browser, google-chrome is there; deploy/dev/setup --ci installs it",
            );
            return None;
        };
        let profile = tempfile::tempdir().expect("create a folder");
        let mut command = Command::new(program);
        // Of a sandbox within a container there may be none, and nothing but our own page is shown.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--remote-debugging-port=0", "--window-size=1280,1400"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
        let process = Process::spawn(command);
        let line = process.wait_for_line("DevTools listening on ws://", PATIENCE);
        let whole = line.split("on ").nth(1).expect("an address").trim();
        let address = whole.split("ws://").nth(1).and_then(|rest| rest.split('/').next()).expect("host and port");
        let mut browser = Browser { socket: connect(address, whole), calls: 0, _process: process, _profile: profile };
        let target = wait_for("the page to open", PATIENCE, || {
            let all = browser.call("Target.getTargets", json!({}));
            let mut pages = all["targetInfos"].as_array()?.iter().filter(|target| target["type"] == "page");
            Some(pages.next()?["targetId"].as_str()?.to_owned())
        });
        browser.socket = connect(address, &format!("ws://{address}/devtools/page/{target}"));
        Some(browser)
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// If the browser refuses, or does not answer.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": parameters});
        self.socket.send(Message::text(call.to_string())).expect("ask the browser");
        loop {
            let message = self.socket.read().expect("an answer of the browser");
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }
}

fn connect(address: &str, url: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).expect("connect to the browser");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
    tungstenite::client(url, stream).expect("talk to the browser").0
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
