//! Standard output and standard error of commands.

use std::io::{self, Write};

/// Prints data. A reader that went away (`| head`) is no failure.
pub(super) fn print(text: &str) -> io::Result<()> {
    tolerate_closed_pipe(write_all(io::stdout().lock(), text))
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    print(&format!("{text}\n"))
}

/// Tells people something that is no data: a fault or a hint. There is nobody to tell when that
/// fails.
pub(super) fn complain(text: &str) {
    let _ = write_all(io::stderr().lock(), &format!("{text}\n"));
}

fn write_all(mut stream: impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

fn tolerate_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
