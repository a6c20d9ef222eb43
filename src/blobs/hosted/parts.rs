//! Large content is sent to an object store in parts, some at once, and becomes one object when all are there.
//!
//! What was begun is ended: completed, or aborted after the last of its parts has ended, so that none comes after the
//! abort and stays. What a crash left is aborted by the next process.

use std::collections::VecDeque;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::multipart::PartId;
use object_store::path::Path;
use tokio_util::task::TaskTracker;

use super::journal::Begun;
use super::object::{Inner, crashed, if_found, joined};
use super::{HostedError, Result, StagedBlob, Step};

impl Inner {
    pub(super) async fn put_parts(&self, key: &Path, staged: &StagedBlob) -> Result<()> {
        self.reach(Step::BeginParts)?;
        let upload = self.ask("begin to send content", self.provider.multipart.create_multipart(key)).await?;
        let begun = Begun { key: key.to_string(), upload };
        let note = match self.note(begun.clone()).await {
            Ok(note) => note,
            Err(error) => {
                let _logged = self.abort(&begun).await;
                return Err(error);
            }
        };
        let sent = self.send_and_complete(key, &begun, staged).await;
        if sent.is_ok() || self.abort(&begun).await.is_ok() {
            self.remove_note(note).await;
        }
        sent
    }

    /// Aborts what earlier processes began, and returns how many of it.
    pub(super) async fn abort_abandoned(&self) -> Result<u64> {
        let journal = Arc::clone(&self.journal);
        let left = self.tasks.spawn_blocking(move || journal.find_left()).await;
        let left = left.map_err(|panicked| crashed("read notes", panicked))?;
        let left = left.map_err(|source| HostedError::disk("read notes", source))?;
        let mut aborted = 0;
        for (note, begun) in left {
            if self.abort(&begun).await.is_ok() {
                self.remove_note(note).await;
                aborted += 1;
            }
        }
        Ok(aborted)
    }

    async fn send_and_complete(&self, key: &Path, begun: &Begun, staged: &StagedBlob) -> Result<()> {
        let under_way = TaskTracker::new();
        let sent = self.send_parts(key, begun, staged, &under_way).await;
        // Also those that nobody waits for any more, because one failed.
        under_way.close();
        under_way.wait().await;
        let parts = sent?;
        self.reach(Step::CompleteParts)?;
        let complete = self.provider.multipart.complete_multipart(key, &begun.upload, parts);
        self.ask("complete content", complete).await.map(|_put| ())
    }

    async fn send_parts(
        &self,
        key: &Path,
        begun: &Begun,
        staged: &StagedBlob,
        under_way: &TaskTracker,
    ) -> Result<Vec<PartId>> {
        let (mut reader, mut sending, mut parts) = (staged.reader(), VecDeque::new(), Vec::new());
        let mut index = 0;
        loop {
            if !reader.is_at_end() && sending.len() < self.settings.parts_at_once() {
                // Before it is read: what waits for room takes none.
                let room = Arc::clone(&self.room).acquire_owned().await;
                let part;
                (reader, part) = self.read_staged(reader).await?;
                self.reach(Step::SendPart)?;
                let (multipart, key) = (Arc::clone(&self.provider.multipart), key.clone());
                let (upload, token) = (begun.upload.clone(), under_way.token());
                sending.push_back(self.send(async move {
                    let _until_sent = (room, token);
                    multipart.put_part(&key, &upload, index, part.into()).await
                }));
                index += 1;
            } else if let Some(next) = sending.pop_front() {
                parts.push(joined(next.await)?);
            } else {
                return Ok(parts);
            }
        }
    }

    /// Ends an upload at the store. One that is not there has ended.
    async fn abort(&self, begun: &Begun) -> Result<()> {
        let key = Path::from(begun.key.as_str());
        let abort = self.provider.multipart.abort_multipart(&key, &begun.upload);
        let aborted = if_found(self.ask("abort content", abort).await);
        if let Err(error) = &aborted {
            let cause = error.source().map(tracing::field::display);
            tracing::warn!(
                blob.key = %key, error = %error, cause,
                "parts of content stay at the object store until the next start"
            );
        }
        aborted.map(|_was_there| ())
    }

    async fn note(&self, begun: Begun) -> Result<PathBuf> {
        let journal = Arc::clone(&self.journal);
        let noted = self.tasks.spawn_blocking(move || journal.note(&begun)).await;
        let noted = noted.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        noted.map_err(|source| HostedError::disk("note what is begun", source))
    }

    async fn remove_note(&self, note: PathBuf) {
        // One that stays costs the next process a question.
        let _removed = self.tasks.spawn_blocking(move || std::fs::remove_file(note)).await;
    }
}
