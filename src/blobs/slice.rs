//! A part of an open file that goes to a socket without being read.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise, sendfile};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::BlobFile;

/// How far apart the bytes are that are looked at to tell whether a part is in the page cache. The system
/// reads ahead in pieces no smaller than this.
const PROBE_STEP: u64 = 128 * 1024;

/// How far behind a part the disk is told to read ahead, in bytes.
const READ_AHEAD: u64 = 4 * 1024 * 1024;

/// A part of an open file. The file may be cut shorter by somebody else at any time: whoever sends the part
/// learns it then.
#[derive(Clone, Debug)]
pub struct FileSlice {
    file: Arc<File>,
    range: Range<u64>,
}

impl FileSlice {
    pub(super) const fn new(file: Arc<File>, range: Range<u64>) -> Self {
        Self { file, range }
    }

    /// The part that is still to be sent, as positions in the file.
    pub const fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// The file, to be read.
    pub fn file(&self) -> BlobFile {
        BlobFile { file: Arc::clone(&self.file), size_bytes: 0 }
    }

    /// Leaves out what was sent otherwise.
    pub fn skip(&mut self, count: usize) {
        self.range.start = self.range.end.min(self.range.start + count as u64);
    }

    /// Whether all of it was sent.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Sends from the front of the part what `socket` takes, by sendfile(2), and returns how many bytes
    /// that was. None means that the file ends before the part does.
    ///
    /// Of the errors, [`is_socket_error`] tells whose they are.
    pub fn send_to(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut offset = self.range.start;
        let length = usize::try_from(self.range.end - offset).unwrap_or(usize::MAX);
        let sent = sendfile(socket, &*self.file, Some(&mut offset), length)?;
        self.range.start += sent as u64;
        Ok(sent)
    }

    /// Whether the part can be sent without waiting for the disk, as far as a few looks tell. Does not
    /// block; where the file system cannot tell, the answer is no.
    pub fn is_resident(&self) -> bool {
        self.probes().all(|offset| {
            let mut byte = [0];
            let mut buffers = [IoSliceMut::new(&mut byte)];
            // Other errors come again where the bytes are sent, and are judged there.
            !matches!(
                preadv2(&*self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT),
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
            )
        })
    }

    /// Brings the part into the page cache, and starts to read what follows. Blocks.
    pub fn load(&self) -> io::Result<()> {
        let length = NonZeroU64::new(self.range.end - self.range.start + READ_AHEAD);
        // Advice: a file system that does not take it reads the bytes all the same.
        let _taken = fadvise(&*self.file, self.range.start, length, Advice::WillNeed);
        for offset in self.probes() {
            // Fewer bytes than asked for are noticed where the part is sent.
            let _count = self.file.read_at(&mut [0], offset)?;
        }
        Ok(())
    }

    /// Positions over the whole part: the first byte, the last, and some between.
    fn probes(&self) -> impl Iterator<Item = u64> + use<> {
        let last = self.range.end.saturating_sub(1);
        self.range
            .clone()
            .step_by(usize::try_from(PROBE_STEP).unwrap_or(usize::MAX))
            .chain((!self.range.is_empty()).then_some(last))
    }
}

/// Whether an error of [`FileSlice::send_to`] is about the connection, not about the file.
pub fn is_socket_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::WouldBlock
    )
}

/// Reads what of `buffer` is in the page cache at `offset`, without blocking. Returns how many bytes came.
pub(super) fn read_resident(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut have = 0;
    while have < buffer.len() {
        let mut buffers = [IoSliceMut::new(&mut buffer[have..])];
        match preadv2(file, &mut buffers, offset + have as u64, ReadWriteFlags::NOWAIT) {
            Ok(count @ 1..) => have += count,
            Ok(0) | Err(_) => break,
        }
    }
    have
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn slice(content: &[u8], range: Range<u64>) -> FileSlice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        FileSlice::new(Arc::new(file), range)
    }

    #[test]
    fn a_slice_sends_its_part_and_no_more() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut slice = slice(b"0123456789", 2..7);
        assert_eq!(slice.send_to(&server).unwrap(), 5);
        assert!(slice.is_empty());
        drop(server);
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "23456");
    }

    #[test]
    fn a_file_that_ends_early_sends_nothing() {
        let (_client, server) = UnixStream::pair().unwrap();
        let mut slice = slice(b"0123", 4..7);
        assert_eq!(slice.send_to(&server).unwrap(), 0);
        assert_eq!(slice.range(), &(4..7));
    }

    #[test]
    fn a_client_that_left_is_no_fault_of_the_file() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        let error = slice(b"0123456789", 0..7).send_to(&server).unwrap_err();
        assert!(is_socket_error(&error), "{error}");
    }

    #[test]
    fn a_loaded_slice_is_resident() {
        let content = vec![7; 300 * 1024];
        let slice = slice(&content, 1000..300 * 1024);
        assert_eq!(slice.probes().collect::<Vec<_>>(), [1000, 132_072, 263_144, 307_199]);
        slice.load().unwrap();
        let mut read = vec![0; content.len()];
        if read_resident(&slice.file, &mut read, 0) == content.len() {
            assert!(slice.is_resident());
        }
    }
}
