//! What was begun at an object store and must not be left there: uploads in parts, which cost money until somebody ends
//! them, and which stores show nowhere.
//!
//! One file an upload, made before its first part is sent and removed after its end. Those that an earlier process
//! left are what the next one aborts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The notes of one process, in a directory that only one process at a time uses.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    /// What the names of this process's notes begin with.
    process: String,
}

/// An upload in parts, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The key of the object that it was to become.
    pub(super) key: String,
    /// The store's name for it.
    pub(super) upload: String,
}

impl Journal {
    /// Takes a directory into use, making it where it is missing. Blocks.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), process: format!("{:016x}-", fastrand::u64(..)) })
    }

    /// Notes what was begun, and returns the note. Blocks.
    pub(super) fn note(&self, begun: &Begun) -> io::Result<PathBuf> {
        let path = self.directory.join(format!("{}{:016x}", self.process, fastrand::u64(..)));
        let mut file = File::create_new(&path)?;
        file.write_all(&serde_json::to_vec(begun)?)?;
        file.sync_data()?;
        Ok(path)
    }

    /// The notes that earlier processes left. One that cannot be read was cut short before anything was sent, and is
    /// removed. Blocks.
    pub(super) fn find_left(&self) -> io::Result<Vec<(PathBuf, Begun)>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&self.process) {
                continue;
            }
            match serde_json::from_slice(&fs::read(entry.path())?) {
                Ok(begun) => left.push((entry.path(), begun)),
                Err(_cut_short) => fs::remove_file(entry.path())?,
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_earlier_processes_began_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun { key: "sha256/ab".to_owned(), upload: "7".to_owned() };
        let earlier = Journal::open(folder.path()).unwrap();
        let note = earlier.note(&begun).unwrap();
        assert!(earlier.find_left().unwrap().is_empty());
        fs::write(folder.path().join("cut-short"), "{\"key\"").unwrap();
        let later = Journal::open(folder.path()).unwrap();
        later.note(&Begun { upload: "8".to_owned(), ..begun.clone() }).unwrap();
        assert_eq!(later.find_left().unwrap(), [(note, begun)]);
        assert!(!folder.path().join("cut-short").exists());
    }
}
