//! From the bytes of a bundle to verified files that nobody can find yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use super::ImportError;
use super::audit::{is_here, is_sound, require_base, require_sound_base};
use super::read::Reader;
use super::room::{DiskRoom, Present};
use crate::blobs::{BlobError, FillFile, StagedFiles};
use crate::bundle::{BundleError, Contents, Event, Head, Item, ItemKind, PublicKey};
use crate::oci::{Digest, Hasher, Manifest};
use crate::registry::core::Core;
use crate::registry::{Evicted, Hold, Repository, Spelling};

/// How much content is written and hashed at once, in bytes.
const BATCH: usize = 1024 * 1024;

/// The most bytes of manifests: all of them are read, and what they list is kept in memory.
const MAX_MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// The most parts that manifests list, and that repositories have, all together.
pub(super) const MAX_PARTS: usize = 256 * 1024;

/// A bundle that was read to its end.
pub(super) struct Staged {
    pub(super) head: Arc<Head>,
    /// The repositories of its images, as they are called here.
    pub(super) repositories: BTreeMap<String, Repository>,
    /// What manifests list, by their digests; those that the bundle holds.
    pub(super) views: Views,
    /// Content that was not here.
    pub(super) files: StagedFiles,
    /// Its digests.
    pub(super) new: BTreeSet<Digest>,
    /// What had to go for it.
    pub(super) evicted: Evicted,
    /// Keeps what it relies on from being evicted.
    pub(super) hold: Hold,
}

/// Manifests by their digests.
#[derive(Default)]
pub(super) struct Views {
    by_digest: BTreeMap<Digest, Manifest>,
    /// How many parts they list.
    parts: usize,
}

/// A bundle that is being read.
struct Staging<'a> {
    core: &'a Arc<Core>,
    staged: Staged,
    room: DiskRoom<'a>,
    /// The item that is being read.
    sink: Sink,
    /// What came of it, where it is a manifest.
    manifest: Option<Vec<u8>>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

/// Where the content of an item goes.
enum Sink {
    Nowhere,
    /// It is not here.
    File(Box<FillFile>),
    /// It is here: it is only compared.
    Compared(Box<Hasher>),
}

/// Reads all of a bundle; one of each list of keys that is not empty has to have signed it. Dropped at an await point,
/// or after an error, nothing of it stays.
pub(super) async fn stage<S>(
    core: &Arc<Core>,
    keys: [&[PublicKey]; 2],
    source: S,
) -> Result<Staged, ImportError>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
{
    let mut reader = Reader::new(core, source);
    let head = reader.read_head().await?;
    for keys in keys {
        head.require_signature(keys)?;
    }
    let mut staging = Staging::begin(core, Arc::clone(&head)).await?;
    // What is here is hashed while the rest comes.
    tokio::try_join!(staging.read_items(&mut reader), require_sound_base(core, head.contents()))?;
    Ok(Staged { evicted: staging.room.evicted(), ..staging.staged })
}

impl<'a> Staging<'a> {
    /// Refuses what can be refused before any content has come.
    async fn begin(core: &'a Arc<Core>, head: Arc<Head>) -> Result<Self, ImportError> {
        let contents = head.contents();
        let repositories = resolve(core, contents)?;
        let manifests = items_of(contents).filter(|item| item.kind == ItemKind::Manifest);
        let size_bytes = manifests.map(|item| item.size_bytes).sum();
        if size_bytes > MAX_MANIFEST_BYTES {
            return Err(ImportError::TooManyManifests { size_bytes, limit_bytes: MAX_MANIFEST_BYTES });
        }
        // Before anything is found to be here.
        let hold = core.evictor.hold(items_of(contents).map(|item| item.digest).collect()).await;
        require_base(core, contents).await?;
        let mut here: HashSet<_> = contents.from_base.iter().map(|item| item.digest).collect();
        let mut new = BTreeSet::new();
        for item in &contents.content {
            if is_here(core, item).await? {
                here.insert(item.digest);
            } else {
                new.insert(item.digest);
            }
        }
        Present { contents, here }.require_room(core).await?;
        let (views, files) = (Views::default(), StagedFiles::new(core.tasks.clone()));
        Ok(Self {
            core,
            staged: Staged { head, repositories, views, files, new, evicted: Evicted::default(), hold },
            room: DiskRoom::new(core),
            sink: Sink::Nowhere,
            manifest: None,
            batch: Vec::new(),
            batch_bytes: 0,
        })
    }

    async fn read_items<S>(&mut self, reader: &mut Reader<'_, S>) -> Result<(), ImportError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        while let Some(event) = reader.next().await? {
            match event {
                Event::Head(_) => return Err(ImportError::Internal),
                Event::Begin(place) => self.open(place).await?,
                Event::Data(bytes) => self.take(bytes).await?,
                Event::End(place) => self.close(place).await?,
            }
        }
        Ok(())
    }

    async fn open(&mut self, place: usize) -> Result<(), ImportError> {
        let head = Arc::clone(&self.staged.head);
        let item = head.contents().content.get(place).ok_or(ImportError::Internal)?;
        self.manifest = (item.kind == ItemKind::Manifest).then(Vec::new);
        // What is here and altered was removed, and comes anew.
        if !self.staged.new.contains(&item.digest) && !is_sound(self.core, item).await? {
            self.staged.new.insert(item.digest);
        }
        self.sink = if self.staged.new.contains(&item.digest) {
            self.room.take(item.size_bytes).await?;
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
        self.flush().await?;
        let head = Arc::clone(&self.staged.head);
        let item = head.contents().content.get(place).ok_or(ImportError::Internal)?;
        match std::mem::replace(&mut self.sink, Sink::Nowhere) {
            Sink::Nowhere => return Err(ImportError::Internal),
            Sink::File(file) => match file.verify() {
                Ok(verified) => self.staged.files.add(verified).await?,
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
                self.staged.views.add(item.digest, view)?;
            }
        }
        Ok(())
    }
}

impl Views {
    /// Adds a manifest; fails where all of them list too much.
    pub(super) fn add(&mut self, digest: Digest, view: Manifest) -> Result<(), ImportError> {
        self.parts = self.parts.saturating_add(view.manifests.len()).saturating_add(view.blobs.len());
        if self.parts > MAX_PARTS {
            return Err(ImportError::TooManyParts { limit: MAX_PARTS });
        }
        self.by_digest.insert(digest, view);
        Ok(())
    }

    pub(super) fn find(&self, digest: &Digest) -> Option<&Manifest> {
        self.by_digest.get(digest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Digest, &Manifest)> {
        self.by_digest.iter()
    }
}

/// The repositories of the images, as they are called here.
fn resolve(core: &Core, contents: &Contents) -> Result<BTreeMap<String, Repository>, ImportError> {
    let names = core.names.load_full();
    let mut repositories = BTreeMap::new();
    for image in &contents.images {
        let name = image.repository.as_str();
        if repositories.contains_key(name) {
            continue;
        }
        let resolved = names.resolve(&Spelling { ns: None, prefix: None, name, own_hosts: &[] });
        let repository = resolved.map_err(|reason| ImportError::Name { image: image.to_string(), reason })?;
        repositories.insert(name.to_owned(), repository);
    }
    Ok(repositories)
}

fn items_of(contents: &Contents) -> impl Iterator<Item = &Item> {
    contents.content.iter().chain(&contents.from_base)
}
