//! Memory in which a file is read part by part.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{BlobFile, Result};

/// How many parts are kept at hand. More are with their reader at once only where it is slow.
const KEPT_PARTS: usize = 4;

/// The memory of parts that were given out. One that nobody has any more is read into again: a new one would be
/// zeroed, and might come from the system page by page.
#[derive(Debug, Default)]
pub struct ReadBuffers {
    /// Handles to the parts, the oldest first.
    given: VecDeque<Bytes>,
}

impl ReadBuffers {
    /// Reads a part as [`BlobFile::read_exact_at`] does.
    pub async fn read_exact_at(&mut self, file: &BlobFile, offset: u64, length: usize) -> Result<Bytes> {
        let part = file.fill_exact_at(offset, self.take(length)).await?;
        if self.given.len() < KEPT_PARTS {
            self.given.push_back(part.clone());
        }
        Ok(part)
    }

    /// Memory of `length` bytes, whatever they are.
    fn take(&mut self, length: usize) -> BytesMut {
        let oldest = self.given.pop_front_if(|part| part.is_unique());
        let mut buffer = oldest.and_then(|part| part.try_into_mut().ok()).unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;

    fn file(content: &[u8]) -> BlobFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        BlobFile::new(Arc::new(file), content.len() as u64)
    }

    #[tokio::test]
    async fn a_part_that_nobody_has_any_more_gives_its_memory_to_the_next() {
        let (file, mut buffers) = (file(b"0123456789"), ReadBuffers::default());
        let first = buffers.read_exact_at(&file, 0, 4).await.unwrap();
        let place = first.as_ptr();
        assert_eq!(first, "0123");
        drop(first);
        let second = buffers.read_exact_at(&file, 4, 4).await.unwrap();
        assert_eq!((&second[..], second.as_ptr()), (&b"4567"[..], place));
        drop(second);
        let last = buffers.read_exact_at(&file, 8, 2).await.unwrap();
        assert_eq!((&last[..], last.as_ptr()), (&b"89"[..], place));
    }

    #[tokio::test]
    async fn a_part_that_somebody_has_stays_as_it_is() {
        let (file, mut buffers) = (file(b"0123456789"), ReadBuffers::default());
        let mut parts = Vec::new();
        for offset in 0..10 {
            parts.push(buffers.read_exact_at(&file, offset, 1).await.unwrap());
        }
        assert_eq!(parts.concat(), b"0123456789");
        assert!(buffers.given.len() <= KEPT_PARTS);
    }

    #[tokio::test]
    async fn a_part_that_cannot_be_read_is_an_error() {
        let (file, mut buffers) = (file(b"0123456789"), ReadBuffers::default());
        assert!(buffers.read_exact_at(&file, 8, 4).await.is_err());
    }
}
