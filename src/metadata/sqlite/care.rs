//! How the file of an index does, while it is used.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Home, SqliteIndex, aside, migrate, open_file, options, pool_options};
use crate::metadata::{IndexCare, MetadataError, Result};

#[async_trait]
impl IndexCare for SqliteIndex {
    fn doubt_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.doubt)
    }

    async fn find_damage(&self) -> Result<Option<String>> {
        if self.writer.is_closed() {
            return Ok(Some("it is not open".to_owned()));
        }
        let Some(home) = &self.home else {
            let mut connection = self.writer.pool().acquire().await?;
            return check(&mut connection).await;
        };
        let found = aside::find_id(&home.path).await?;
        if found != *home.file.lock().unwrap_or_else(PoisonError::into_inner) {
            let what = if found.is_some() { "another file is in its place" } else { "its file is gone" };
            return Ok(Some(what.to_owned()));
        }
        // A connection of its own: those that are used remember pages, and would not see what the disk has.
        let connected =
            options(&home.path).create_if_missing(false).pragma("query_only", "ON").connect().await;
        let mut connection = match connected.map_err(MetadataError::from) {
            Err(error) if error.is_damage() => return Ok(Some(error.to_string())),
            connected => connected?,
        };
        let damage = check(&mut connection).await;
        connection.close().await?;
        damage
    }

    async fn begin_anew(&self) -> Result<PathBuf> {
        let Some(home) = &self.home else { return self.begin_anew_in_memory().await };
        let mut replaced_at = home.replaced_at.lock().await;
        // Nothing may have it open when it is renamed: the last connection to close would take the log of the
        // new one for its own.
        self.close().await;
        let kept = aside::set_aside(&home.path, &home.clock).await?;
        let (writer, readers) = open_file(&home.path).await?;
        home.note_file().await?;
        self.readers.replace(readers);
        self.writer.replace(writer);
        *replaced_at = Some(Instant::now());
        Ok(kept)
    }
}

impl SqliteIndex {
    async fn begin_anew_in_memory(&self) -> Result<PathBuf> {
        let only = pool_options(1).connect("sqlite::memory:").await?;
        migrate(&only).await?;
        self.close().await;
        self.readers.replace(only.clone());
        self.writer.replace(only);
        Ok(PathBuf::new())
    }
}

impl Home {
    async fn note_file(&self) -> Result<()> {
        let file = aside::find_id(&self.path).await?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

/// Walks every page. Does not compare indexes with their tables, which takes many times as long.
async fn check(connection: &mut SqliteConnection) -> Result<Option<String>> {
    match sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(MetadataError::from)
    {
        Ok(told) => Ok(Some(told).filter(|told: &String| told != "ok")),
        Err(error) if error.is_damage() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}
