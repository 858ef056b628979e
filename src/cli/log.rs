//! Log lines on standard error: text for people, JSON for machines.

use tracing::Level;

use crate::config::{LogFormat, LogSettings};

/// Starts logging; a second call changes nothing.
pub fn start(settings: &LogSettings) {
    let level: Level = settings.level.into();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    let _ = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
}
