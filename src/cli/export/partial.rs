//! A bundle that is being written, and goes on where an earlier process left it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

use super::write_end;
use crate::bundle::{BundleParser, Event, Head, item_header, padding};
use crate::oci::Hasher;

/// How much is read at once, in bytes.
const PART: usize = 256 * 1024;

/// The file `BUNDLE.partial`.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    length_bytes: u64,
}

/// What an earlier process left.
pub(super) struct Found {
    pub(super) head: Head,
    /// How many items are whole, and have their digests.
    pub(super) whole_items: usize,
    /// Where the last of them ends.
    pub(super) offset_bytes: u64,
}

impl Partial {
    /// Opens or makes the file for a bundle, for this process alone.
    pub(super) fn open(output: &Path) -> anyhow::Result<Self> {
        let mut path = output.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let shown = path.display();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("open {shown}"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_locked| anyhow!("{shown} is being written by another export: wait for its end"))?;
        let length_bytes = file.metadata()?.len();
        Ok(Self { file, path, length_bytes })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Looks at what is there already, and hashes it again. `None` where that is too little to go on with.
    pub(super) fn resume(&mut self) -> anyhow::Result<Option<Found>> {
        let mut parser = BundleParser::default();
        let (mut head, mut whole_items, mut hasher) = (None, 0, None);
        let mut buffer = vec![0; PART];
        self.file.rewind()?;
        'read: loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            let mut input = Bytes::copy_from_slice(&buffer[..read]);
            loop {
                let event = match parser.read(&mut input) {
                    Ok(event) => event,
                    // Behind the head, what is damaged is written anew.
                    Err(_damaged) if head.is_some() => break 'read,
                    Err(error) => {
                        let shown = self.path.display();
                        bail!("{shown} is no unfinished bundle: remove it ({error})");
                    }
                };
                match event {
                    None => break,
                    Some(Event::Head(found)) => head = Some(found),
                    Some(Event::Begin(place)) => {
                        let item = head.as_ref().and_then(|head| head.contents().content.get(place));
                        hasher = item.map(|item| Hasher::new(item.digest.algorithm()));
                    }
                    Some(Event::Data(bytes)) => {
                        if let Some(hasher) = &mut hasher {
                            hasher.update(&bytes);
                        }
                    }
                    Some(Event::End(place)) => {
                        let item = head.as_ref().and_then(|head| head.contents().content.get(place));
                        let found = hasher.take().map(Hasher::finish);
                        if item.map(|item| item.digest) != found {
                            break 'read;
                        }
                        whole_items = place + 1;
                    }
                }
            }
        }
        let Some(head) = head else { return Ok(None) };
        let offset_bytes = offset_of(&head, whole_items);
        Ok(Some(Found { head: Head::clone(&head), whole_items, offset_bytes }))
    }

    /// Goes to where the next item begins, and writes what stands before the first where that is it. Gives the
    /// place in bytes.
    pub(super) fn begin(&mut self, head: &Head, whole_items: usize) -> anyhow::Result<u64> {
        let offset_bytes = offset_of(head, whole_items);
        let begun = (|| {
            if whole_items == 0 {
                self.file.set_len(0)?;
                self.file.rewind()?;
                self.file.write_all(&head.to_bytes())?;
            }
            // Zeros behind the last item that are missing come of this, too.
            self.file.set_len(offset_bytes)?;
            self.file.seek(SeekFrom::Start(offset_bytes))
        })();
        begun.with_context(|| format!("write {}", self.path.display()))
    }

    /// Removes the file, of which there is nothing to go on with.
    pub(super) fn discard(&self) {
        // What cannot be removed is written over by the next try.
        let _removed = fs::remove_file(&self.path);
    }

    /// Ends the bundle and gives it its name.
    pub(super) fn finish(mut self, output: &Path) -> anyhow::Result<()> {
        let written = write_end(&mut self.file).and_then(|()| self.file.sync_all());
        written.with_context(|| format!("write {}", self.path.display()))?;
        let renamed =
            fs::rename(&self.path, output).and_then(|()| File::open(directory_of(output))?.sync_all());
        renamed.with_context(|| format!("rename {} to {}", self.path.display(), output.display()))
    }

    /// The position in the file.
    pub(super) fn position(&mut self) -> io::Result<u64> {
        self.file.stream_position()
    }

    /// Takes everything from a position on back.
    pub(super) fn rewind_to(&mut self, position: u64) -> io::Result<()> {
        self.file.set_len(position)?;
        self.file.seek(SeekFrom::Start(position)).map(drop)
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The directory that a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where so many items end.
fn offset_of(head: &Head, items: usize) -> u64 {
    let content = head.contents().content.iter().take(items);
    let bytes = content
        .map(|item| item_header(item).len() as u64 + item.size_bytes + padding(item.size_bytes) as u64);
    head.to_bytes().len() as u64 + bytes.sum::<u64>()
}
