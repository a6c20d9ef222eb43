//! From the bytes of a bundle to verified files that nobody can find yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use super::ImportError;
use crate::blobs::{BlobError, FillFile, StagedFiles};
use crate::bundle::{BundleError, BundleParser, Event, Head, Item, ItemKind, PublicKey};
use crate::oci::{Digest, Hasher, Manifest};
use crate::registry::core::Core;
use crate::registry::{Repository, Spelling};

/// How much content is written and hashed at once, in bytes.
const BATCH: usize = 1024 * 1024;

/// How long the next bytes may be waited for.
const SILENCE: Duration = Duration::from_mins(2);

/// The most bytes of manifests: all of them are read, and what they list is kept in memory.
const MAX_MANIFEST_BYTES: u64 = 128 * 1024 * 1024;

/// How many missing parts of a base are looked up before it is called missing.
const TOLD_PARTS: usize = 3;

/// A bundle that is being read.
pub(super) struct Staging<'a> {
    core: &'a Arc<Core>,
    /// Of each list that is not empty, one has to have signed it.
    keys: [&'a [PublicKey]; 2],
    staged: Option<Staged>,
    /// The item that is being read.
    sink: Sink,
    /// What came of it, where it is a manifest.
    manifest: Option<Vec<u8>>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

/// A bundle that was read to its end.
pub(super) struct Staged {
    pub(super) head: Arc<Head>,
    /// The repositories of its images, as they are called here.
    pub(super) repositories: BTreeMap<String, Repository>,
    /// What manifests list, by their digests; those that the bundle holds.
    pub(super) views: BTreeMap<Digest, Manifest>,
    /// Content that was not here.
    pub(super) files: StagedFiles,
    /// Its digests.
    pub(super) new: BTreeSet<Digest>,
}

/// Where the content of an item goes.
enum Sink {
    Nowhere,
    /// It is not here.
    File(Box<FillFile>),
    /// It is here: it is only compared.
    Compared(Box<Hasher>),
}

impl<'a> Staging<'a> {
    pub(super) fn new(core: &'a Arc<Core>, keys: [&'a [PublicKey]; 2]) -> Self {
        Self {
            core,
            keys,
            staged: None,
            sink: Sink::Nowhere,
            manifest: None,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Reads all of a bundle. Dropped at an await point, or after an error, nothing of it stays.
    pub(super) async fn run<S>(mut self, mut source: S) -> Result<Staged, ImportError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let (mut parser, mut input) = (BundleParser::default(), Bytes::new());
        loop {
            let event;
            (parser, input, event) = self.parse(parser, input).await?;
            match event {
                Some(Event::Head(head)) => self.begin(head).await?,
                Some(Event::Begin(place)) => self.open(place).await?,
                Some(Event::Data(bytes)) => self.take(bytes).await?,
                Some(Event::End(place)) => self.close(place).await?,
                None => match timeout(SILENCE, source.next()).await {
                    Err(_elapsed) => return Err(ImportError::Silent { seconds: SILENCE.as_secs() }),
                    Ok(None) => break,
                    Ok(Some(bytes)) => input = bytes.map_err(ImportError::Source)?,
                },
            }
        }
        parser.finish()?;
        // The parser has seen the end, and so the head.
        self.staged.ok_or(ImportError::Internal)
    }

    /// Reads on; the description, which may be long, where that may block.
    async fn parse(
        &self,
        mut parser: BundleParser,
        mut input: Bytes,
    ) -> Result<(BundleParser, Bytes, Option<Event>), ImportError> {
        if self.staged.is_some() || input.is_empty() {
            let event = parser.read(&mut input)?;
            return Ok((parser, input, event));
        }
        let work = move || {
            let event = parser.read(&mut input)?;
            Ok::<_, BundleError>((parser, input, event))
        };
        Ok(self.core.tasks.spawn_blocking(work).await.map_err(|_panic| ImportError::Internal)??)
    }

    /// Refuses what can be refused before any content has come.
    async fn begin(&mut self, head: Arc<Head>) -> Result<(), ImportError> {
        for keys in self.keys {
            head.require_signature(keys)?;
        }
        let contents = head.contents();
        let names = self.core.names.load_full();
        let mut repositories = BTreeMap::new();
        for image in &contents.images {
            let name = image.repository.as_str();
            let resolved = names.resolve(&Spelling { ns: None, prefix: None, name, own_hosts: &[] });
            let repository =
                resolved.map_err(|reason| ImportError::Name { image: image.to_string(), reason })?;
            repositories.insert(name.to_owned(), repository);
        }
        let manifests = contents.content.iter().chain(&contents.from_base);
        let manifests = manifests.filter(|item| item.kind == ItemKind::Manifest);
        let size_bytes = manifests.map(|item| item.size_bytes).sum();
        if size_bytes > MAX_MANIFEST_BYTES {
            return Err(ImportError::TooManyManifests { size_bytes, limit_bytes: MAX_MANIFEST_BYTES });
        }
        self.require_base(&head).await?;
        let new = self.require_room(&head).await?;
        let files = StagedFiles::new(self.core.tasks.clone());
        self.staged = Some(Staged { head, repositories, views: BTreeMap::new(), files, new });
        Ok(())
    }

    async fn require_base(&self, head: &Head) -> Result<(), ImportError> {
        let contents = head.contents();
        let Some(base) = &contents.base else { return Ok(()) };
        let mut missing = Vec::new();
        for item in &contents.from_base {
            if !is_here(self.core, item).await? {
                missing.push(item.digest.to_string());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let count = missing.len();
        missing.truncate(TOLD_PARTS);
        Err(ImportError::BaseMissing {
            file: base.file.clone(),
            id: Box::new(base.id),
            count,
            first: missing.join(", "),
        })
    }

    /// Which items are not here; fails where there is no room for them.
    async fn require_room(&self, head: &Head) -> Result<BTreeSet<Digest>, ImportError> {
        let contents = head.contents();
        let all = contents.content.iter().chain(&contents.from_base);
        let all_bytes = all.fold(0_u64, |sum, item| sum.saturating_add(item.size_bytes));
        let budget_bytes = self.core.evictor.budget_bytes();
        if all_bytes > budget_bytes {
            return Err(ImportError::OverBudget { needed_bytes: all_bytes, budget_bytes });
        }
        let (mut new, mut needed_bytes) = (BTreeSet::new(), 0_u64);
        for item in &contents.content {
            if !is_here(self.core, item).await? {
                new.insert(item.digest);
                needed_bytes = needed_bytes.saturating_add(item.size_bytes);
            }
        }
        let space = self.core.blobs.space().await?;
        let min_free_bytes = self.core.evictor.min_free_bytes(Some(space));
        let free_bytes = space.free_bytes;
        if needed_bytes.saturating_add(min_free_bytes) > free_bytes && needed_bytes > 0 {
            return Err(ImportError::NoRoom { needed_bytes, free_bytes, min_free_bytes });
        }
        Ok(new)
    }

    async fn open(&mut self, place: usize) -> Result<(), ImportError> {
        let staged = self.staged.as_ref().ok_or(ImportError::Internal)?;
        let item = staged.head.contents().content.get(place).ok_or(ImportError::Internal)?;
        self.manifest = (item.kind == ItemKind::Manifest).then(Vec::new);
        self.sink = if staged.new.contains(&item.digest) {
            Sink::File(Box::new(self.core.blobs.begin(&item.digest, Some(item.size_bytes)).await?))
        } else {
            Sink::Compared(Box::new(Hasher::new(item.digest.algorithm())))
        };
        Ok(())
    }

    async fn take(&mut self, bytes: Bytes) -> Result<(), ImportError> {
        if let Some(manifest) = &mut self.manifest {
            // No longer than manifests are, by the description.
            manifest.extend_from_slice(&bytes);
        }
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        if self.batch_bytes >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ImportError> {
        let parts = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if parts.is_empty() {
            return Ok(());
        }
        self.sink = match std::mem::replace(&mut self.sink, Sink::Nowhere) {
            Sink::Nowhere => return Err(ImportError::Internal),
            Sink::File(file) => Sink::File(Box::new(file.append(parts).await?)),
            Sink::Compared(mut hasher) => {
                let work = move || {
                    for part in parts {
                        hasher.update(&part);
                    }
                    hasher
                };
                let hashed = self.core.tasks.spawn_blocking(work).await;
                Sink::Compared(hashed.map_err(|_panic| ImportError::Internal)?)
            }
        };
        Ok(())
    }

    async fn close(&mut self, place: usize) -> Result<(), ImportError> {
        let staged = self.staged.as_ref().ok_or(ImportError::Internal)?;
        let head = Arc::clone(&staged.head);
        let item = head.contents().content.get(place).ok_or(ImportError::Internal)?;
        self.flush().await?;
        let sink = std::mem::replace(&mut self.sink, Sink::Nowhere);
        let staged = self.staged.as_mut().ok_or(ImportError::Internal)?;
        match sink {
            Sink::Nowhere => return Err(ImportError::Internal),
            Sink::File(file) => match file.verify() {
                Ok(verified) => staged.files.add(verified).await?,
                Err(BlobError::DigestMismatch { expected, found }) => {
                    return Err(BundleError::Digest { expected, found }.into());
                }
                Err(error) => return Err(error.into()),
            },
            Sink::Compared(hasher) => {
                let found = hasher.finish();
                if found != item.digest {
                    let (expected, found) = (Box::new(item.digest), Box::new(found));
                    return Err(BundleError::Digest { expected, found }.into());
                }
            }
        }
        if let Some(body) = self.manifest.take() {
            let parsed = self.core.tasks.spawn_blocking(move || Manifest::parse(&body).ok()).await;
            // What cannot be parsed is served all the same: it lists nothing.
            if let Some(view) = parsed.map_err(|_panic| ImportError::Internal)? {
                staged.views.insert(item.digest, view);
            }
        }
        Ok(())
    }
}

/// Whether an item is stored here, by its name and size.
pub(super) async fn is_here(core: &Core, item: &Item) -> Result<bool, ImportError> {
    Ok(core.blobs.find_size(&item.digest).await? == Some(item.size_bytes))
}
