//! The log: to standard error, as text or JSON, with times in UTC and a level that can change.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use super::line_format::LineFormat;
use super::line_writer::LineWriter;
use crate::config::{LogFormat, LoggingConfig};

/// Changes the level of the running log. Dropping it, also in a panic, waits until every line is out.
pub struct LogHandle {
    filter: Filter,
    writer: Option<LineWriter>,
}

/// What is let through.
type Filter = reload::Handle<Targets, Registry>;

/// That the level stayed as it was.
#[derive(Debug, thiserror::Error)]
#[error("change the log level")]
pub struct SetLevelError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl LogHandle {
    /// Lets through what `level` says from now on: `info`, or `info,tidegate::upstream=debug`.
    ///
    /// Fails where that is no level, or this log is not the process's; the level then stays.
    pub fn set_level(&self, level: &str) -> Result<(), SetLevelError> {
        let targets = level.parse::<Targets>().map_err(|error| SetLevelError(error.into()))?;
        self.filter.reload(targets).map_err(|error| SetLevelError(error.into()))
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }
}

/// Starts the process's log. Where there is one already (a test's, or that of a second server in the
/// same process), that one stays and the handle changes nothing.
pub fn init(config: &LoggingConfig) -> LogHandle {
    let writer = LineWriter::start(io::stderr());
    let (subscriber, filter) = subscriber(config, io::stderr().is_terminal(), writer.clone());
    // The only failure is that there is one already.
    let _ = subscriber.try_init();
    LogHandle { filter, writer: Some(writer) }
}

/// A log that writes to `writer`, and its filter.
fn subscriber<W>(config: &LoggingConfig, is_terminal: bool, writer: W) -> (impl SubscriberInitExt, Filter)
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    // `config` has checked the level; `info` is for those who made one up.
    let info = || Targets::new().with_default(LevelFilter::INFO);
    let targets = config.level.parse::<Targets>().unwrap_or_else(|_| info());
    let (layer_filter, filter) = reload::Layer::new(targets);
    let layer = fmt::layer().with_writer(writer);
    let layer = if is_terminal && config.format == LogFormat::Text {
        layer.boxed()
    } else {
        layer.with_ansi(false).event_format(LineFormat(config.format)).boxed()
    };
    (tracing_subscriber::registry().with(layer.with_filter(layer_filter)), filter)
}

/// Has this thread log to `writer`, as JSON, until the guard is dropped.
#[cfg(test)]
pub(crate) fn capture<W>(writer: W) -> tracing::subscriber::DefaultGuard
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    // Whoever logs a line for the first time, on whatever thread, decides for all whether anybody wants it. This one wants
    // every line, keeps none, and is there for good.
    let _unless_it_is_there = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let config = LoggingConfig { format: LogFormat::Json, level: "info".to_owned() };
    subscriber(&config, false, writer).0.set_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat, level: &str, events: impl FnOnce(&LogHandle)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = LoggingConfig { format, level: level.to_owned() };
        let (subscriber, filter) = subscriber(&config, false, move || writer.clone());
        let guard = subscriber.set_default();
        events(&LogHandle { filter, writer: None });
        drop(guard);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_utc_times_and_no_colours_off_a_terminal() {
        let text =
            log(LogFormat::Text, "info", |_| tracing::info!(repository.name = "library/nginx", "pulled"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(
            rest,
            " INFO tidegate::telemetry::logging::tests: pulled repository.name=\"library/nginx\"\n"
        );
    }

    #[test]
    fn json_has_one_object_a_line_with_fields_beside_the_message() {
        let text =
            log(LogFormat::Json, "info", |_| tracing::info!(repository.name = "library/nginx", "pulled"));
        let object: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(object["message"], "pulled");
        assert_eq!(object["repository.name"], "library/nginx");
        assert_eq!(object["level"], "INFO");
        assert_eq!(object["target"], "tidegate::telemetry::logging::tests");
    }

    /// One event with a value of each kind, some of them hostile.
    fn say_everything() {
        tracing::warn!(
            text = "a\"b\n\u{1b}[31m\u{9b}é",
            shown = %"c\nd\te",
            debugged = ?"f\"g",
            count = 7_u64,
            loss = -7_i64,
            is_so = true,
            whole_ms = 6.0,
            part_ms = 0.25,
            fine_ms = 12.345,
            finer = 0.000_1,
            negative = -1.5,
            endless = f64::INFINITY,
            missing = None::<u64>,
            "{}",
            "h\u{1b}i"
        );
    }

    #[test]
    fn text_shows_values_as_rust_does_and_nothing_that_breaks_a_line() {
        let text = log(LogFormat::Text, "info", |_| say_everything());
        let (_, fields) = text.split_once("tests: ").unwrap();
        assert_eq!(
            fields,
            "h\\u{1b}i text=\"a\\\"b\\n\\u{1b}[31m\\u{9b}é\" shown=c\\nd\\te debugged=\"f\\\"g\" count=7 loss=-7 \
             is_so=true whole_ms=6.0 part_ms=0.25 fine_ms=12.345 finer=0.0001 negative=-1.5 endless=inf\n"
        );
    }

    #[test]
    fn json_has_values_of_their_types_on_one_line() {
        let text = log(LogFormat::Json, "info", |_| say_everything());
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(char::is_control), "{line}");
        let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
        let time = object.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert_eq!(time.as_str().map(str::len), Some("2026-11-24T11:05:40.123Z".len()));
        let expected = serde_json::json!({
            "level": "WARN", "message": "h\u{1b}i", "text": "a\"b\n\u{1b}[31m\u{9b}é", "shown": "c\nd\te",
            "debugged": "\"f\\\"g\"", "count": 7, "loss": -7, "is_so": true, "whole_ms": 6.0, "part_ms": 0.25,
            "fine_ms": 12.345, "finer": 0.0001, "negative": -1.5, "endless": null,
            "target": "tidegate::telemetry::logging::tests",
        });
        assert_eq!(object, expected);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("index is not written")]
    struct Unwritten(#[source] io::Error);

    #[test]
    fn errors_come_with_what_caused_them() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = log(format, "info", |_| {
                let error = Unwritten(io::Error::other("disk \"on\" fire"));
                tracing::warn!(error = &error as &dyn std::error::Error, "failed");
            });
            let plain = text.replace('\\', "");
            assert!(plain.contains("index is not written: disk \"on\" fire"), "{text}");
        }
    }

    #[test]
    fn the_level_changes_while_running_and_a_bad_one_does_not() {
        let text = log(LogFormat::Text, "warn", |handle| {
            tracing::info!("one");
            handle.set_level("info").unwrap();
            tracing::info!("two");
            assert!(handle.set_level("tidegate=loud").is_err());
            tracing::info!("three");
            handle.set_level("info,tidegate=off").unwrap();
            tracing::info!("four");
        });
        let said: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(said, ["two", "three"]);
    }
}
