//! Log lines on standard error: text for people, JSON for machines; of many that say the same, some.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{self, Format, FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, layer};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Lines from one place in the code within [`WINDOW`]; more are left out, which is said after the last and counted before the next one.
const LINES_MAX: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

static FILTER: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging; a second call changes nothing.
pub fn start(settings: &LogSettings) {
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    // Where the log cannot be written there is nowhere to say so, and trying to would end the process.
    let lines = layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match settings.format {
        LogFormat::Json => {
            let format = format::format().json().flatten_event(true).with_target(false);
            lines.fmt_fields(JsonFields::new()).event_format(Counting { format, json: true }).boxed()
        }
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).event_format(text()).boxed(),
    };
    let lines = lines.with_filter(Repeats::within(WINDOW));
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// From here on; without effect before [`start`].
pub fn set_level(level: LogLevel) {
    if let Some(handle) = FILTER.get() {
        // It fails only when the subscriber is gone, which it is not before the process is.
        let _ = handle.reload(filter(level));
    }
}

fn text() -> Counting<Format> {
    Counting { format: format::format().with_target(false), json: false }
}

fn filter(level: LogLevel) -> LevelFilter {
    LevelFilter::from_level(Level::from(level))
}

/// Bounds what is written of what comes again and again, as while Kafka is away for a night. As many entries as there are places in the code
/// that log.
struct Repeats {
    window: Duration,
    places: Mutex<HashMap<&'static str, Place>>,
}

struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Repeats {
    fn within(window: Duration) -> Repeats {
        Repeats { window, places: Mutex::default() }
    }

    /// Whether a line from there is written at this time, and what is to be said with it.
    fn see(&self, place: &'static str, now: Instant) -> Option<Said> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { since: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(place.since) >= self.window {
            (place.since, place.lines) = (now, 0);
        }
        if place.lines >= LINES_MAX {
            place.left_out += 1;
            return None;
        }
        place.lines += 1;
        Some(Said { left_out: std::mem::take(&mut place.left_out), is_last: place.lines == LINES_MAX })
    }
}

/// What is said beside a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Said {
    /// Lines left out before it.
    left_out: u64,
    /// Whether the next ones are.
    is_last: bool,
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // The name of an event is its file and line.
        let said = self.see(event.metadata().name(), Instant::now());
        said.is_some_and(|said| {
            SAID.set(said);
            true
        })
    }
}

thread_local! {
    /// What [`Repeats`] has to say with the line that is about to be written by this thread: an event within an event would be lost.
    static SAID: Cell<Said> = const { Cell::new(Said { left_out: 0, is_last: false }) };
}

/// A format, and around its line what is said of others like it.
struct Counting<F> {
    format: F,
    json: bool,
}

impl<F> Counting<F> {
    fn say(&self, writer: &mut Writer<'_>, said: &str, (name, number): (&str, u64)) -> fmt::Result {
        if self.json {
            writer.write_str(r#"{"timestamp":""#)?;
            SystemTime.format_time(writer)?;
            writeln!(writer, r#"","level":"INFO","message":"{said}","{name}":{number}}}"#)
        } else {
            SystemTime.format_time(writer)?;
            writeln!(writer, "  INFO {said} {name}={number}")
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Counting<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Said { left_out, is_last } = SAID.take();
        if left_out > 0 {
            self.say(&mut writer, "lines like the next one were left out", ("left_out", left_out))?;
        }
        self.format.format_event(context, writer.by_ref(), event)?;
        if is_last {
            let seconds = WINDOW.as_secs();
            self.say(
                &mut writer,
                "further lines like the last one are left out for a while",
                ("seconds_at_most", seconds),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_many_lines_from_one_place_some_are_written_and_of_others_all() {
        let written = Written::default();
        let writer = written.clone();
        let window = Duration::from_millis(500);
        let lines = layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(text())
            .with_filter(Repeats::within(window));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let trouble = |number: u32| tracing::warn!(number, "Kafka is in trouble");
            (0..100).for_each(trouble);
            tracing::info!("something else");
            let since = Instant::now();
            while since.elapsed() < window {
                std::thread::yield_now();
            }
            trouble(100);
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("Kafka is in trouble").count(), LINES_MAX as usize + 1, "{text}");
        let mut last = text.lines().rev();
        assert!(last.next().is_some_and(|l| l.contains("100")), "{text}");
        assert!(
            last.next().is_some_and(|l| l.ends_with("INFO lines like the next one were left out left_out=70")),
            "{text}"
        );
        assert_eq!(text.matches("something else").count(), 1, "{text}");
        let told = |line: &str| {
            line.ends_with("INFO further lines like the last one are left out for a while seconds_at_most=60")
        };
        assert_eq!(text.lines().position(told), Some(LINES_MAX as usize), "{text}");
    }

    #[test]
    fn what_was_left_out_is_counted_once_when_its_time_is_over() {
        let repeats = Repeats::within(WINDOW);
        let start = Instant::now();
        let seen: Vec<_> = (0..50).map(|_| repeats.see("here", start)).collect();
        assert_eq!(seen.iter().flatten().count(), 30);
        assert_eq!(seen.iter().flatten().position(|said| said.is_last), Some(29));
        assert_eq!(repeats.see("here", start + WINDOW), Some(Said { left_out: 20, is_last: false }));
        assert_eq!(repeats.see("here", start + WINDOW), Some(Said::default()));
    }
}
