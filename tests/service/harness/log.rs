//! The log of a running server: kept, searched, and in the end checked.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex};

use super::{Setup, level_of};

/// All lines so far, of both streams.
#[derive(Clone, Default)]
pub(super) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    /// Reads a stream of the process until it ends, on a thread of its own.
    pub(super) fn follow(&self, stream: impl Read + Send + 'static) {
        let lines = Arc::clone(&self.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                lines.lock().unwrap().push(line);
            }
        });
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(super) fn lines_with(&self, text: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Fails on a panic of the server, on errors, and on warnings, unless the test expects them.
    pub(super) fn check(&self, setup: &Setup) {
        for line in self.lines() {
            let level = level_of(&line);
            let bad = match level.as_deref() {
                Some("ERROR") => true,
                Some("WARN") => !setup.expects_warnings(),
                Some(_) => false,
                None => line.contains("panicked at"),
            };
            assert!(!bad || setup.expects_line(&line), "unexpected in the log: {line}");
        }
    }

    /// Shows the last lines to whoever reads why a test failed.
    #[expect(clippy::print_stderr, reason = "shown by the test runner where the test fails")]
    pub(super) fn print_tail(&self) {
        let lines = self.lines();
        eprintln!("---- the server's log");
        for line in lines.iter().skip(lines.len().saturating_sub(60)) {
            eprintln!("{line}");
        }
    }
}
