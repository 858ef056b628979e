//! What systemd is told of a unit with `Type=notify`: that it runs, how it stands, and that its loops turn. Nothing where nobody listens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::http::Probe;

/// Between two looks at how it stands.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Systemd {
    /// Silence after which systemd ends the process, if it does.
    watchdog: Option<Duration>,
    fed: Option<Instant>,
    looked: Option<Instant>,
    said: String,
}

impl Systemd {
    /// The unit has started: what it waits for from now on is told as its status.
    pub fn started() -> Systemd {
        tell(&[NotifyState::Ready]);
        Systemd { watchdog: sd_notify::watchdog_enabled(), fed: None, looked: None, said: String::new() }
    }

    /// To be called several times a second. The watchdog is fed only while all loops turn.
    pub fn tick(&mut self, live: impl FnOnce() -> Probe, ready: impl FnOnce() -> Probe) {
        if let Some(watchdog) = self.watchdog
            && self.fed.is_none_or(|at| at.elapsed() >= watchdog / 4)
            && live().is_ok()
        {
            tell(&[NotifyState::Watchdog]);
            self.fed = Some(Instant::now());
        }
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            self.looked = Some(Instant::now());
            let status = ready().map_or_else(|why| why.join("; "), |()| "scoring".to_owned());
            if status != self.said {
                tell(&[NotifyState::Status(&status)]);
                self.said = status;
            }
        }
    }

    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "tell systemd");
    }
}
