//! Shows how much of a bundle is done: a bar on a terminal, nothing elsewhere, lines for machines.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Format, console};

/// How often machines are told.
const PERIOD: Duration = Duration::from_secs(1);

/// How much is done of a bundle.
pub(super) struct Meter {
    format: Format,
    bar: Option<ProgressBar>,
    total_bytes: u64,
    done_bytes: u64,
    told_at: Instant,
}

impl Meter {
    /// Begins at `done_bytes`; `verb` says what is done with the bytes.
    pub(super) fn new(format: Format, verb: &'static str, done_bytes: u64, total_bytes: u64) -> Self {
        let bar = (format == Format::Text && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total_bytes).with_position(done_bytes).with_message(verb);
            let template = "{msg} [{bar:30}] {bytes} of {total_bytes} ({bytes_per_sec}, {eta})";
            // One that were wrong would only look plain.
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_fault| ProgressStyle::default_bar()));
            bar
        });
        Self { format, bar, total_bytes, done_bytes, told_at: Instant::now() }
    }

    /// Notes that more is done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.set(self.done_bytes.saturating_add(bytes));
    }

    /// Notes how much is done.
    pub(super) fn set(&mut self, done_bytes: u64) {
        self.done_bytes = done_bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(done_bytes);
        }
        if self.format == Format::Json && self.told_at.elapsed() >= PERIOD {
            self.told_at = Instant::now();
            // Who does not listen any more hears of the end neither.
            let _told = tell(
                &json!({ "state": "running", "done_bytes": done_bytes, "total_bytes": self.total_bytes }),
            );
        }
    }

    /// Says something to people without spoiling the bar.
    pub(super) fn complain(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| console::complain(text)),
            None => console::complain(text),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line for machines.
pub(super) fn tell(value: &Value) -> io::Result<()> {
    console::print(&format!("{value}\n"))
}
