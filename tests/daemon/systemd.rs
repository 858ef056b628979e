//! What systemd hears of a unit with `Type=notify`: when it runs, how it stands, and nothing any more once a loop stands still.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::plant;
use crate::setting::{LONG, Setting, TRAINING_STEPS};
use crate::support::{self, PATIENCE, http_get, residua, wait_for};

/// systemd's end.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message, if one comes within a second.
    fn hear(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_for(text, LONG, || self.hear().filter(|heard| heard.contains(text)));
    }

    /// Whether the watchdog is fed within `within`.
    fn is_fed(&self, within: Duration) -> bool {
        let since = Instant::now();
        while since.elapsed() < within {
            if self.hear().is_some_and(|heard| heard.contains("WATCHDOG=1")) {
                return true;
            }
        }
        false
    }
}

#[test]
fn systemd_hears_how_it_stands_and_the_watchdog_starves_when_a_loop_stands_still() {
    let Some(broker) = support::kafka() else { return };
    let setting = Setting::new(broker, "notify", "transaction_timeout = \"2s\"");
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager(UnixDatagram::bind(dir.path().join("notify")).unwrap());
    manager.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let file = dir.path().join("residua.toml");
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = setting.config.replace("127.0.0.1:0", &address) + "liveness_timeout = \"10s\"\n";
    std::fs::write(&file, &config).unwrap();
    // A log that nobody reads, for later.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(["run", "--config"]).arg(&file).stderr(writer.try_clone().unwrap());
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "4000000");
    let mut process = Ended(command.spawn().unwrap());

    manager.wait_for("READY=1");
    manager.wait_for("STATUS=no model yet: WaitingForRecords");
    assert!(manager.is_fed(PATIENCE));
    broker.produce(&setting.topic, plant::records(1, 0..TRAINING_STEPS, &[]));
    manager.wait_for("STATUS=scoring");
    assert!(manager.is_fed(PATIENCE));

    // A full pipe holds up the worker that has something to say: another one joins its group.
    let filling = std::thread::spawn(move || {
        let mut writer = writer;
        while writer.write_all(&[b'.'; 4096]).is_ok() {}
    });
    let other = residua(&["run"], &setting.config);
    wait_for("/livez to fail", LONG, || http_get(&address, "/livez").filter(|r| r.status == 503));
    // What was sent before.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        manager.hear();
    }
    assert!(!manager.is_fed(Duration::from_secs(6)), "the watchdog is fed while a worker stands still");

    // Somebody reads it again: nothing was broken.
    drop(reader);
    filling.join().unwrap();
    wait_for("/livez to come back", LONG, || http_get(&address, "/livez").filter(|r| r.status == 200));
    assert!(manager.is_fed(PATIENCE));
    assert!(Command::new("kill").args(["-s", "TERM", &process.0.id().to_string()]).status().unwrap().success());
    manager.wait_for("STOPPING=1");
    assert!(process.0.wait().unwrap().success());
    drop(other);
}

/// Killed if the test ends before it.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
