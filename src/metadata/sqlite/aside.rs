//! What happens to the database's files as files: found, made room for, set aside.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::metadata::{MetadataError, Result};
use crate::runtime::Clock;

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

/// Renames the file and what belongs to it; returns its new name. Nothing may have it open.
pub(super) async fn set_aside(path: &Path, clock: &Clock) -> Result<PathBuf> {
    let kept = with_suffix(path, &format!(".damaged-{}", clock.now().as_millis()));
    // The log first: left behind, it would be played into the new database.
    for suffix in ["-wal", "-shm", ""] {
        match tokio::fs::rename(with_suffix(path, suffix), with_suffix(&kept, suffix)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(failed("set damaged index aside"))?,
        }
    }
    Ok(kept)
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
