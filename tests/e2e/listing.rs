//! What a root file system holds, one line a file, so that two of them can be compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Kind, mode, owner, and content of every file, by path from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing(BTreeMap<String, String>);

impl Listing {
    /// Looks at everything below `root`; the root itself is not listed.
    pub(crate) fn of(root: &Path) -> Self {
        let mut listing = Self::default();
        listing.add_directory(root, "");
        listing
    }

    /// Adds a regular file of root's with mode 0644.
    pub(crate) fn add_file(&mut self, path: &str, size: u64, sha256: &str) {
        self.0.insert(path.to_owned(), file_line(0o644, 0, 0, size, sha256));
    }

    /// Adds a directory of root's with mode 0755.
    pub(crate) fn add_empty_directory(&mut self, path: &str) {
        self.0.insert(path.to_owned(), "directory 755 0:0".to_owned());
    }

    /// Takes a path away.
    pub(crate) fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// The part whose paths `keep` accepts.
    pub(crate) fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(path, _)| keep(path)).map(|(p, l)| (p.clone(), l.clone())).collect())
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Requires that `self`, what a client unpacked, is `expected`; names the first paths that differ.
    pub(crate) fn require_same(&self, expected: &Self, what: &str) {
        let paths = self.0.keys().chain(expected.0.keys().filter(|path| !self.0.contains_key(*path)));
        let differences: Vec<String> = paths
            .filter(|path| self.0.get(*path) != expected.0.get(*path))
            .take(10)
            .map(|path| format!("{path}: {:?}, expected {:?}", self.0.get(path), expected.0.get(path)))
            .collect();
        assert!(differences.is_empty(), "{what} unpacked to other files:\n{}", differences.join("\n"));
    }

    fn add_directory(&mut self, directory: &Path, prefix: &str) {
        let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("read {}: {e}", directory.display()));
        for entry in entries {
            let entry = entry.expect("read an entry of a directory");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let line = describe(&entry.path());
            if line.starts_with("directory ") {
                self.add_directory(&entry.path(), &path);
            }
            self.0.insert(path, line);
        }
    }
}

/// The SHA-256 of what `reader` gives, in hexadecimal, and its length in bytes.
pub(crate) fn hash(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok((hex(&hasher.finalize()), length));
        }
        hasher.update(&buffer[..count]);
        length += count as u64;
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn describe(path: &Path) -> String {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("look at {}: {e}", path.display()));
    let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    let kind = metadata.file_type();
    if kind.is_dir() {
        format!("directory {mode:o} {uid}:{gid}")
    } else if kind.is_symlink() {
        let target = fs::read_link(path).expect("read a symbolic link");
        format!("link {uid}:{gid} {}", target.display())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {mode:o} {uid}:{gid} {}", metadata.rdev())
    } else {
        let file = File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        let (sha256, size) = hash(file).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        file_line(mode, uid, gid, size, &sha256)
    }
}

fn file_line(mode: u32, uid: u32, gid: u32, size: u64, sha256: &str) -> String {
    format!("file {mode:o} {uid}:{gid} {size} {sha256}")
}
