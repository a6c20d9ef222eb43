//! Lines of the log as text or JSON.
//!
//! Every request writes a line, so that a line's cost is a good part of a hit's. The values that requests have
//! (text, numbers) are copied, where the library's formats put each through the formatter several times; what
//! they write is the same. Terminals, which want colours, get the library's format.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::runtime::Clock;

/// Writes events, one a line, without colours.
pub(super) struct LineFormat(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (time, metadata) = (Clock::system().now().to_rfc3339_millis(), event.metadata());
        // Put together here: what is handed over costs a call through a table each time.
        let mut line = String::with_capacity(USUAL_LINE_BYTES);
        match self.0 {
            LogFormat::Text => {
                for part in [time.as_str(), padded(*metadata.level()), metadata.target(), ":"] {
                    line.push_str(part);
                }
                let mut fields = TextFields { line: &mut line, result: Ok(()) };
                event.record(&mut fields);
                fields.result?;
                line.push('\n');
            }
            LogFormat::Json => {
                line.push_str("{\"timestamp\":\"");
                line.push_str(time.as_str());
                line.push_str("\",\"level\":\"");
                line.push_str(metadata.level().as_str());
                line.push('"');
                let mut fields = JsonFields { line: &mut line, result: Ok(()) };
                event.record(&mut fields);
                fields.result?;
                line.push_str(",\"target\":");
                write_json_text(&mut line, metadata.target())?;
                line.push_str("}\n");
            }
        }
        out.write_str(&line)
    }
}

/// The level between its spaces, as wide as any other.
const fn padded(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => " ERROR ",
        tracing::Level::WARN => "  WARN ",
        tracing::Level::INFO => "  INFO ",
        tracing::Level::DEBUG => " DEBUG ",
        tracing::Level::TRACE => " TRACE ",
    }
}

/// The message, then ` name=value` for each field; text in quotes.
struct TextFields<'l> {
    line: &'l mut String,
    result: fmt::Result,
}

impl TextFields<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        let line = &mut *self.line;
        let name = || {
            line.write_char(' ')?;
            if field.name() != MESSAGE {
                line.write_str(field.name())?;
                line.write_char('=')?;
            }
            value(line)
        };
        if self.result.is_ok() {
            self.result = name();
        }
    }
}

impl Visit for TextFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == MESSAGE;
        self.write(field, |line| {
            if is_message {
                Printable(line).write_str(value)
            } else if is_plain(value) {
                line.write_char('"')?;
                line.write_str(value)?;
                line.write_char('"')
            } else {
                write!(line, "{value:?}")
            }
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, |line| write_number(line, value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &Causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |line| write!(Printable(line), "{value:?}"));
    }
}

/// An error and all that caused it, in one line.
struct Causes<'e>(&'e (dyn Error + 'static));

impl fmt::Debug for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut causes = std::iter::successors(self.0.source(), |error| Error::source(*error));
        causes.try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// `,"name":value` for each field.
struct JsonFields<'l> {
    line: &'l mut String,
    result: fmt::Result,
}

impl JsonFields<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        let line = &mut *self.line;
        let member = || {
            line.write_str(",\"")?;
            // Names of fields are identifiers and dots.
            line.write_str(field.name())?;
            line.write_str("\":")?;
            value(line)
        };
        if self.result.is_ok() {
            self.result = member();
        }
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |line| write_json_text(line, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |line| line.write_str(if value { "true" } else { "false" }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(
            field,
            |line| if value.is_finite() { write_number(line, value) } else { line.write_str("null") },
        );
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_debug(field, &Causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |line| {
            line.write_char('"')?;
            write!(JsonEscaped(line), "{value:?}")?;
            line.write_char('"')
        });
    }
}

fn write_json_text(line: &mut String, text: &str) -> fmt::Result {
    line.write_char('"')?;
    JsonEscaped(line).write_str(text)?;
    line.write_char('"')
}

/// A number as Rust's `{:?}` writes it. Times in milliseconds have three decimals, which are written without
/// a search for the shortest form.
fn write_number(line: &mut String, value: f64) -> fmt::Result {
    let thousandths = (value * 1000.0).round();
    #[expect(
        clippy::float_cmp,
        reason = "three decimals write a number only if they are the very same number"
    )]
    let is_exact = thousandths / 1000.0 == value && value.is_sign_positive() && thousandths < 1e12;
    if !is_exact {
        return write!(line, "{value:?}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just compared")]
    let thousandths = thousandths as u64;
    line.write_str(itoa::Buffer::new().format(thousandths / 1000))?;
    line.write_char('.')?;
    let rest = u32::try_from(thousandths % 1000).unwrap_or_default();
    let digits =
        [rest / 100, rest / 10 % 10, rest % 10].map(|digit| char::from_digit(digit, 10).unwrap_or('0'));
    let last = digits.iter().rposition(|digit| *digit != '0').unwrap_or(0);
    digits[..=last].iter().try_for_each(|digit| line.write_char(*digit))
}

/// Whether text needs no escape, in quotes or as JSON.
fn is_plain(text: &str) -> bool {
    all_bytes(text, |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// Looks at every byte, also behind one that fails: without a branch, many are looked at at once.
fn all_bytes(text: &str, holds: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |so_far, byte| so_far & holds(byte))
}

/// Escapes what could break a line, or change a terminal that shows it.
struct Printable<'l>(&'l mut String);

impl Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if all_bytes(text, |byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| {
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())
            } else {
                self.0.write_char(character)
            }
        })
    }
}

/// Escapes for the inside of a JSON string (RFC 8259, section 7).
struct JsonEscaped<'l>(&'l mut String);

impl Write for JsonEscaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| match character {
            '"' => self.0.write_str("\\\""),
            '\\' => self.0.write_str("\\\\"),
            '\n' => self.0.write_str("\\n"),
            character if character.is_control() => write!(self.0, "\\u{:04x}", u32::from(character)),
            character => self.0.write_char(character),
        })
    }
}

/// The name of the field that an event's text is in.
const MESSAGE: &str = "message";

/// As long as the line of a request usually is, and some room.
const USUAL_LINE_BYTES: usize = 768;
