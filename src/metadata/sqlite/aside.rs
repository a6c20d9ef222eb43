//! What happens to the database's files as files: found, made room for, set aside.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::metadata::{MetadataError, Result};
use crate::runtime::Clock;

/// What is put between the name of a file that was set aside and when that was, in milliseconds.
const MARK: &str = ".damaged-";

/// How many damaged files are kept: for whoever wants to know what happened.
const KEPT: usize = 3;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// Makes the folder of the file.
pub(super) async fn create_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    tokio::fs::create_dir_all(parent).await.map_err(failed("create folder"))
}

/// Whether something lies there that can never be a database: a folder, a socket.
pub(super) async fn is_irregular(path: &Path) -> Result<bool> {
    Ok(find_metadata(path).await?.is_some_and(|metadata| !metadata.is_file()))
}

/// Whether the file holds anything: `SQLite` takes an empty one for a new database.
pub(super) async fn has_content(path: &Path) -> Result<bool> {
    Ok(find_metadata(path).await?.is_some_and(|metadata| metadata.len() > 0))
}

/// Which file has the name.
pub(super) async fn find_id(path: &Path) -> Result<Option<FileId>> {
    let found = find_metadata(path).await?;
    Ok(found.map(|metadata| FileId { device: metadata.dev(), inode: metadata.ino() }))
}

/// Renames the file and what belongs to it; returns its new name. Nothing may have it open. Of all that were set
/// aside, the latest few are kept.
pub(super) async fn set_aside(path: &Path, clock: &Clock) -> Result<PathBuf> {
    let kept = with_suffix(path, &format!("{MARK}{}", clock.now().as_millis()));
    // The log first: left behind, it would be played into the new database.
    for suffix in ["-wal", "-shm", ""] {
        match tokio::fs::rename(with_suffix(path, suffix), with_suffix(&kept, suffix)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(failed("set damaged index aside"))?,
        }
    }
    // What cannot be removed now only takes space.
    let _removed = remove_older(path).await;
    Ok(kept)
}

async fn remove_older(path: &Path) -> io::Result<()> {
    let prefix = with_suffix(path, MARK);
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let moment = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
        found.extend(moment.map(|moment| (moment, entry.path())));
    }
    let mut moments: Vec<_> = found.iter().map(|(moment, _)| *moment).collect();
    moments.sort_unstable();
    moments.dedup();
    let Some(oldest_kept) = moments.iter().rev().nth(KEPT - 1) else { return Ok(()) };
    for (_, path) in found.iter().filter(|(moment, _)| moment < oldest_kept) {
        if tokio::fs::metadata(path).await?.is_dir() {
            tokio::fs::remove_dir_all(path).await?;
        } else {
            tokio::fs::remove_file(path).await?;
        }
    }
    Ok(())
}

async fn find_metadata(path: &Path) -> Result<Option<std::fs::Metadata>> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at index")(error)),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> MetadataError {
    move |source| MetadataError::File { action, source }
}
