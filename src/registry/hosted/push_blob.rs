//! Use cases: a blob comes into a hosted repository.
//!
//! The order of a push is the durability rule: the bytes are whole, compared with their digest and made durable; the
//! store has them for good; one transaction says that the repository has them; then it is acknowledged.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::timeout;

use super::{Hosting, HostingError, Result};
use crate::auth::RequestContext;
use crate::auth::policy::Action;
use crate::blobs::hosted::{StagedBlob, Upload, UploadError, UploadId};
use crate::metadata::catalogue::{BlobRecord, CatalogueError, Stamp};
use crate::oci::{Algorithm, Digest, RepositoryName};

/// What a client sends, as it comes.
pub type Body<'a> = BoxStream<'a, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    /// Its name.
    pub id: UploadId,
    /// How many bytes have come.
    pub offset_bytes: u64,
}

/// What became of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The repository has the blob.
    Done,
    /// The blob is not there, or not for this actor: it has to be uploaded.
    NotPossible,
}

/// What a client says of the bytes that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Where they begin.
    pub start: Option<u64>,
    /// How many they are.
    pub length_bytes: Option<u64>,
}

impl Hosting {
    /// Begins an upload; the repository comes into being with it. The digest is expected to be by `algorithm`.
    pub async fn start_upload(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<UploadStatus> {
        self.require(context, Action::Push, repository)?;
        let upload = self.uploads.begin(algorithm).await?;
        let (id, stamp) = (upload.id(), self.stamp(context));
        let name = id.to_string();
        let mut started = self.commit(self.catalogue.start_upload(repository, &name, &stamp)).await;
        if matches!(started, Err(HostingError::Catalogue(CatalogueError::RepositoryUnknown))) {
            self.create_repository(repository, &stamp).await?;
            started = self.commit(self.catalogue.start_upload(repository, &name, &stamp)).await;
        }
        if let Err(error) = started {
            // What cannot be removed now is an abandoned upload.
            let _cancelled = upload.cancel().await;
            return Err(error);
        }
        Ok(UploadStatus { id, offset_bytes: 0 })
    }

    /// Tells how far an upload is.
    pub async fn stat_upload(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<UploadStatus> {
        self.require(context, Action::Push, repository)?;
        let id = self.find_upload(repository, id).await?;
        let offset_bytes = self.uploads.find_offset(&id).await?.ok_or(UploadError::Unknown)?;
        Ok(UploadStatus { id, offset_bytes })
    }

    /// Takes the next bytes of an upload in, and makes them durable. Where the body breaks off, what came is kept.
    pub async fn append_upload(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        id: &str,
        announced: Announced,
        body: Body<'_>,
    ) -> Result<UploadStatus> {
        self.require(context, Action::Push, repository)?;
        let id = self.find_upload(repository, id).await?;
        let (upload, taken) = self.take_in(self.uploads.resume(&id).await?, announced, body).await?;
        let offset_bytes = upload.pause().await?;
        taken?;
        Ok(UploadStatus { id, offset_bytes })
    }

    /// Takes the last bytes of an upload in, and completes it. A repeated request, because the first answer was lost,
    /// succeeds.
    pub async fn finish_upload(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
        announced: Announced,
        body: Body<'_>,
    ) -> Result<()> {
        self.require(context, Action::Push, repository)?;
        let upload = match self.find_upload(repository, id).await {
            Ok(id) => self.uploads.resume(&id).await.map_err(HostingError::from),
            Err(error) => Err(error),
        };
        let upload = match upload {
            Err(
                error @ (HostingError::Upload(UploadError::Unknown)
                | HostingError::Catalogue(CatalogueError::UploadUnknown)),
            ) => {
                let found = self.catalogue.find_blob(repository, digest).await?;
                return found.map(|_record| self.note_use(repository, digest)).ok_or(error);
            }
            other => other?,
        };
        let (upload, taken) = self.take_in(upload, announced, body).await?;
        if let Err(error) = taken {
            upload.pause().await?;
            return Err(error);
        }
        self.complete(context, repository, upload, digest, Some(id)).await
    }

    /// Gives an upload up.
    pub async fn cancel_upload(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<()> {
        self.require(context, Action::Push, repository)?;
        let found = self.find_upload(repository, id).await?;
        match self.uploads.resume(&found).await {
            Ok(upload) => upload.cancel().await?,
            // A cancellation of before did not come to its end.
            Err(UploadError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
        self.commit(self.catalogue.remove_upload(repository, id)).await
    }

    /// Takes a whole blob in with one request.
    pub async fn push_blob(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        digest: &Digest,
        body: Body<'_>,
    ) -> Result<()> {
        self.require(context, Action::Push, repository)?;
        let upload = self.uploads.begin(digest.algorithm()).await?;
        let (upload, taken) = self.take_in(upload, Announced::default(), body).await?;
        if let Err(error) = taken {
            // Nobody knows its name.
            let _cancelled = upload.cancel().await;
            return Err(error);
        }
        self.complete(context, repository, upload, digest, None).await
    }

    /// Gives a repository a blob that another one has. Whether the actor may read there is asked first: a blob that is
    /// not for them is answered as one that is not there.
    pub async fn mount_blob(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Mounted> {
        self.require(context, Action::Push, repository)?;
        if self.catalogue.find_blob(repository, digest).await?.is_some() {
            self.note_use(repository, digest);
            return Ok(Mounted::Done);
        }
        let candidates = match from {
            Some(from) => vec![from.clone()],
            None => self.catalogue.list_repositories_with_blob(digest, CANDIDATES).await?,
        };
        let stamp = self.stamp(context);
        for from in candidates {
            if self.require(context, Action::Pull, &from).is_err() {
                continue;
            }
            match self.mount_from(repository, digest, &from, &stamp).await {
                Ok(()) => return Ok(Mounted::Done),
                Err(HostingError::Catalogue(
                    CatalogueError::BlobUnknown(_) | CatalogueError::BlobLeaving(_),
                )) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Mounted::NotPossible)
    }

    async fn mount_from(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
        stamp: &Stamp,
    ) -> Result<()> {
        // Only for what is there: a mount that fails creates nothing.
        if self.catalogue.find_blob(from, digest).await?.is_none() {
            return Err(CatalogueError::BlobUnknown(*digest).into());
        }
        let mounted = self.commit(self.catalogue.mount_blob(repository, digest, from, stamp)).await;
        if matches!(mounted, Err(HostingError::Catalogue(CatalogueError::RepositoryUnknown))) {
            self.create_repository(repository, stamp).await?;
            return self.commit(self.catalogue.mount_blob(repository, digest, from, stamp)).await;
        }
        mounted
    }

    /// Has the repository come into being, in a namespace that is there.
    pub(super) async fn create_repository(&self, repository: &RepositoryName, stamp: &Stamp) -> Result<()> {
        self.commit(self.catalogue.create_repository(repository, stamp)).await
    }

    /// Finds an upload of the repository by the name in a request.
    async fn find_upload(&self, repository: &RepositoryName, name: &str) -> Result<UploadId> {
        let id = name.parse().map_err(|_malformed| CatalogueError::UploadUnknown)?;
        let found = self.catalogue.find_upload(repository, name).await?;
        found.map(|_record| id).ok_or(HostingError::Catalogue(CatalogueError::UploadUnknown))
    }

    /// Takes a body in, network and disk overlapped. The inner result says whether all of it came; the upload has what
    /// did either way.
    async fn take_in(
        &self,
        mut upload: Upload,
        announced: Announced,
        mut body: Body<'_>,
    ) -> Result<(Upload, Result<()>)> {
        if let Some(start) = announced.start {
            upload.require_offset(start)?;
        }
        let first_bytes = upload.offset_bytes();
        let mut batch = next_batch(&mut body).await;
        let ended = loop {
            match batch.end {
                None => {
                    let (appended, next) = tokio::join!(upload.append(batch.parts), next_batch(&mut body));
                    (upload, batch) = (appended?, next);
                }
                Some(ended) => {
                    if !batch.parts.is_empty() {
                        upload = upload.append(batch.parts).await?;
                    }
                    break ended;
                }
            }
        };
        let found_bytes = upload.offset_bytes() - first_bytes;
        let taken = ended.and(match announced.length_bytes {
            Some(announced_bytes) if announced_bytes != found_bytes => {
                Err(HostingError::LengthContradicted { announced_bytes, found_bytes })
            }
            _ => Ok(()),
        });
        Ok((upload, taken))
    }

    /// Makes an upload content of the repository. The one place where a blob is acknowledged.
    async fn complete(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        upload: Upload,
        digest: &Digest,
        name: Option<&str>,
    ) -> Result<()> {
        // Before the bytes are in the store: nobody removes them between that and the record.
        self.commit(self.catalogue.announce_blob(digest, self.clock.now())).await?;
        let staged = match upload.complete(digest).await {
            Ok(staged) => staged,
            Err(error) => {
                if let Some(name) = name {
                    // It was given up. What stays of it is silent, and goes later.
                    let _removed = self.catalogue.remove_upload(repository, name).await;
                }
                return Err(error.into());
            }
        };
        self.keep(context, repository, staged, name).await
    }

    async fn keep(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        staged: StagedBlob,
        upload: Option<&str>,
    ) -> Result<()> {
        let (digest, size_bytes) = (*staged.digest(), staged.size_bytes());
        self.store.put(staged).await?;
        let blob = BlobRecord { digest, size_bytes, locations: vec![self.location.clone()] };
        let stamp = self.stamp(context);
        let mut recorded = self.commit(self.catalogue.record_blob(repository, &blob, upload, &stamp)).await;
        if matches!(recorded, Err(HostingError::Catalogue(CatalogueError::RepositoryUnknown))) {
            self.create_repository(repository, &stamp).await?;
            recorded = self.commit(self.catalogue.record_blob(repository, &blob, upload, &stamp)).await;
        }
        recorded
    }
}

/// Some bytes of a body.
struct Batch {
    parts: Vec<Bytes>,
    /// Whether the body ends behind them, and how.
    end: Option<Result<()>>,
}

/// The next bytes of a body, at least [`BATCH`] of them unless it ends before.
async fn next_batch(body: &mut Body<'_>) -> Batch {
    let mut parts = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH {
        let end = match timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(part))) => {
                bytes += part.len();
                parts.push(part);
                continue;
            }
            Ok(None) => Ok(()),
            Ok(Some(Err(broken))) => Err(HostingError::Body(broken)),
            Err(elapsed) => Err(HostingError::Body(Box::new(elapsed))),
        };
        return Batch { parts, end: Some(end) };
    }
    Batch { parts, end: None }
}

/// How much is written and hashed at once, in bytes.
const BATCH: usize = 1024 * 1024;

/// How long a client may send nothing in the middle of a body.
const SILENCE: Duration = Duration::from_mins(1);

/// How many repositories are tried for a mount that names none.
const CANDIDATES: u32 = 16;
