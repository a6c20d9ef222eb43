//! Lines of the log leave the process through a thread of their own.
//!
//! A line costs its caller a copy, and many lines one system call. Nothing is lost: where the output
//! cannot keep up, callers wait for room, as they would for the output itself, and
//! [`LineWriter::close`] comes back when the last line is out. Lines after that are written by their
//! callers.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The most bytes that wait for the output; a line more may stand above it.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// The pause after each write, which lets lines gather. The first line after a silence leaves at once.
const PAUSE: Duration = Duration::from_millis(2);

/// Buffers keep this much for the next lines.
const KEPT_BYTES: usize = 64 * 1024;

/// Takes lines, and writes them in the order in which they came. Cloning gives another handle to the
/// same lines.
#[derive(Clone)]
pub(super) struct LineWriter {
    shared: Arc<Shared>,
}

/// Where lines wait. The output is not asked while `lines` is locked, except when there is no thread.
pub(super) struct Shared {
    lines: Mutex<Lines>,
    /// Something waits, or the end has come: for the thread.
    filled: Condvar,
    /// There is room, or the end has come: for callers.
    taken: Condvar,
    output: Mutex<Box<dyn Write + Send>>,
}

struct Lines {
    waiting: Vec<u8>,
    state: State,
}

/// What the thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Writes, or pauses: it looks for lines by itself.
    Awake,
    /// Waits to be told of a line.
    Asleep,
    /// Writes what there is, and ends.
    Ending,
    /// There is none.
    Gone,
}

impl LineWriter {
    /// Starts the thread that writes to `output`. Where there can be none, callers write.
    pub(super) fn start(output: impl Write + Send + 'static) -> Self {
        let lines = Lines { waiting: Vec::new(), state: State::Awake };
        let shared = Arc::new(Shared {
            lines: Mutex::new(lines),
            filled: Condvar::new(),
            taken: Condvar::new(),
            output: Mutex::new(Box::new(output)),
        });
        let writes = Arc::clone(&shared);
        if thread::Builder::new().name("log".to_owned()).spawn(move || writes.run()).is_err() {
            lock(&shared.lines).state = State::Gone;
        }
        Self { shared }
    }

    /// Comes back when every line is with the output. Later ones are written by their callers.
    pub(super) fn close(&self) {
        let shared = &self.shared;
        let mut lines = lock(&shared.lines);
        if lines.state == State::Gone {
            return;
        }
        lines.state = State::Ending;
        shared.filled.notify_one();
        while lines.state != State::Gone {
            lines = shared.taken.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn run(&self) {
        let _gone = Gone(self);
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            self.write_out(&batch);
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
            let lines = lock(&self.lines);
            if lines.state == State::Awake {
                drop(self.filled.wait_timeout(lines, PAUSE));
            }
        }
    }

    /// Waits for lines and takes them; false where the end has come and there are none.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut lines = lock(&self.lines);
        while lines.waiting.is_empty() {
            if lines.state == State::Ending {
                return false;
            }
            lines.state = State::Asleep;
            lines = self.filled.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut lines.waiting, batch);
        self.taken.notify_all();
        true
    }

    fn push(&self, line: &[u8]) {
        let mut lines = lock(&self.lines);
        while lines.waiting.len() >= MAX_WAITING_BYTES && lines.state != State::Gone {
            lines = self.taken.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
        if lines.state == State::Gone {
            return self.write_out(line);
        }
        lines.waiting.extend_from_slice(line);
        let sleeps = lines.state == State::Asleep;
        if sleeps {
            lines.state = State::Awake;
        }
        drop(lines);
        if sleeps {
            self.filled.notify_one();
        }
    }

    /// There is nobody to tell that the log cannot be written.
    fn write_out(&self, lines: &[u8]) {
        let mut output = lock(&self.output);
        let _ = output.write_all(lines).and_then(|()| output.flush());
    }
}

/// Says that the thread has ended, however it did.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let mut lines = lock(&self.0.lines);
        lines.state = State::Gone;
        let rest = std::mem::take(&mut lines.waiting);
        self.0.write_out(&rest);
        self.0.taken.notify_all();
    }
}

/// One line at a time: the formatter hands each over in one piece.
impl Write for &Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Shared;

    fn make_writer(&'a self) -> Self::Writer {
        &self.shared
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// No test waits longer for anything.
    const LONG: Duration = Duration::from_secs(30);

    /// An output that hands on what it is given, as far as it is let.
    struct Output {
        written: mpsc::Sender<Vec<u8>>,
        gate: Arc<Mutex<()>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = lock(&self.gate);
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer() -> (LineWriter, mpsc::Receiver<Vec<u8>>, Arc<Mutex<()>>) {
        let (written, receiver) = mpsc::channel();
        let gate = Arc::default();
        (LineWriter::start(Output { written, gate: Arc::clone(&gate) }), receiver, gate)
    }

    fn say(writer: &LineWriter, line: &str) {
        writer.make_writer().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_line_leaves_without_another_one_behind_it() {
        let (writer, written, _gate) = writer();
        for line in ["one\n", "two\n", "three\n"] {
            say(&writer, line);
            assert_eq!(written.recv_timeout(LONG).unwrap(), line.as_bytes());
        }
    }

    #[test]
    fn the_lines_of_many_callers_stay_whole_in_order_and_complete() {
        let (writer, written, _gate) = writer();
        thread::scope(|scope| {
            for caller in 0..8 {
                let writer = &writer;
                scope.spawn(move || (0..1000).for_each(|line| say(writer, &format!("{caller} {line}\n"))));
            }
        });
        writer.close();
        let text = String::from_utf8(written.try_iter().flatten().collect()).unwrap();
        for caller in 0..8 {
            let own = text.lines().filter_map(|line| line.strip_prefix(&format!("{caller} ")));
            assert!(own.eq((0..1000).map(|line| line.to_string())), "{text}");
        }
    }

    #[test]
    fn where_the_output_is_stuck_callers_wait_and_nothing_is_dropped() {
        let (writer, written, gate) = writer();
        let shut = lock(&gate);
        let line = "x".repeat(MAX_WAITING_BYTES / 8);
        let (progress, said) = mpsc::channel();
        thread::scope(|scope| {
            let (writer, line) = (&writer, &line);
            scope.spawn(move || {
                for number in 0..64 {
                    say(writer, line);
                    progress.send(number).unwrap();
                }
            });
            // The thread holds one batch, and one more waits: never all 64 lines.
            let waiting = || lock(&writer.shared.lines).waiting.len();
            while waiting() < MAX_WAITING_BYTES {
                said.recv_timeout(LONG).unwrap();
            }
            assert!(waiting() <= MAX_WAITING_BYTES + line.len());
            assert!(said.try_iter().count() < 32, "the caller goes on");
            drop(shut);
        });
        writer.close();
        assert_eq!(written.try_iter().map(|batch| batch.len()).sum::<usize>(), 64 * line.len());
    }

    #[test]
    fn closing_waits_for_the_output_and_later_lines_are_not_lost() {
        let (writer, written, _gate) = writer();
        say(&writer, "last words\n");
        writer.close();
        assert_eq!(written.try_recv().unwrap(), b"last words\n");
        say(&writer, "from the grave\n");
        assert_eq!(written.try_recv().unwrap(), b"from the grave\n");
        writer.close();
    }
}
