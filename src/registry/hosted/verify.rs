//! Use case: everything that is hosted is shown to be whole, from each tag to each byte.

use std::collections::HashSet;
use std::fmt;

use futures_util::StreamExt as _;

use super::{Hosting, HostingError, Result};
use crate::auth::RequestContext;
use crate::auth::policy;
use crate::metadata::catalogue::Presence;
use crate::oci::{Digest, Hasher, Manifest, RepositoryName, Tag};

/// What was looked at, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Repositories.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests, each once in a repository.
    pub manifests: u64,
    /// Blobs, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is not as it should be.
    pub faults: Vec<Fault>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub repository: RepositoryName,
    /// The tag or manifest that needs it.
    pub of: String,
    /// What.
    pub digest: Digest,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} needs {}: {}", self.repository, self.of, self.digest, self.reason)
    }
}

/// A walk that is under way.
struct Walk<'a> {
    hosting: &'a Hosting,
    verified: Verified,
    /// Blobs whose bytes were compared, and whether they agreed.
    blobs: HashSet<Digest>,
    damaged: HashSet<Digest>,
}

impl Hosting {
    /// Walks from every tag of every repository to its manifest and all that this lists, compares every digest with
    /// the bytes, and says what is not as it should be. Reads everything once.
    pub async fn verify(&self, context: &RequestContext) -> Result<Verified> {
        policy::require_administrator(context)?;
        let mut walk = Walk {
            hosting: self,
            verified: Verified::default(),
            blobs: HashSet::new(),
            damaged: HashSet::new(),
        };
        let mut after: Option<RepositoryName> = None;
        loop {
            let page = self.catalogue.list_repositories(Presence::Live, after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            after = page.last().map(|place| place.name.clone());
            for place in page {
                walk.repository(&place.name).await?;
            }
            if is_last {
                return Ok(walk.verified);
            }
        }
    }
}

impl Walk<'_> {
    async fn repository(&mut self, name: &RepositoryName) -> Result<()> {
        self.verified.repositories += 1;
        let mut seen = HashSet::new();
        let mut last: Option<Tag> = None;
        loop {
            let tags = self.hosting.catalogue.list_tags(name, last.as_ref(), PAGE).await?;
            for tag in &tags {
                // One that was deleted meanwhile needs nothing.
                if let Some(digest) = self.hosting.catalogue.find_tag(name, tag).await? {
                    self.verified.tags += 1;
                    self.manifests(name, tag.as_str(), digest, &mut seen).await?;
                }
            }
            if tags.len() < PAGE as usize {
                return Ok(());
            }
            last = tags.last().cloned();
        }
    }

    /// Looks at a manifest and all below it.
    async fn manifests(
        &mut self,
        name: &RepositoryName,
        of: &str,
        digest: Digest,
        seen: &mut HashSet<Digest>,
    ) -> Result<()> {
        let mut rest = vec![(of.to_owned(), digest, Need::Always)];
        while let Some((of, digest, need)) = rest.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let Some(found) = self.hosting.catalogue.find_manifest(name, &digest).await? else {
                // An index may list what is not here.
                if need == Need::Always {
                    self.fault(name, &of, digest, "the manifest is not there");
                }
                continue;
            };
            self.verified.manifests += 1;
            if Digest::of(digest.algorithm(), &found.payload) != digest {
                self.fault(name, &of, digest, "the manifest has another digest");
                continue;
            }
            let Ok(manifest) = Manifest::parse(&found.payload) else {
                self.fault(name, &of, digest, "the manifest cannot be read");
                continue;
            };
            for blob in manifest.blobs {
                let is_here = self.hosting.catalogue.find_blob(name, &blob.digest).await?;
                match is_here {
                    Some(record) => self.blob(name, &digest, blob.digest, record.size_bytes).await?,
                    // What lies elsewhere by its type is not asked for when it is pushed.
                    None if blob.media_type.as_str().contains("foreign")
                        || blob.media_type.as_str().contains("nondistributable") => {}
                    None => self.fault(name, &digest.to_string(), blob.digest, "the blob is not there"),
                }
            }
            let children = manifest.manifests.into_iter().map(|child| child.digest);
            rest.extend(children.map(|child| (digest.to_string(), child, Need::Perhaps)));
        }
        Ok(())
    }

    async fn blob(
        &mut self,
        name: &RepositoryName,
        of: &Digest,
        digest: Digest,
        size_bytes: u64,
    ) -> Result<()> {
        if self.blobs.insert(digest) {
            self.verified.blobs += 1;
            self.verified.bytes += size_bytes;
            if !self.agrees(digest, size_bytes).await? {
                self.damaged.insert(digest);
            }
        }
        if self.damaged.contains(&digest) {
            self.fault(name, &of.to_string(), digest, "the store does not have these bytes");
        }
        Ok(())
    }

    /// Whether the store has the bytes that the digest says.
    async fn agrees(&self, digest: Digest, size_bytes: u64) -> Result<bool> {
        let content = match self.hosting.open_stored(&digest, size_bytes).await {
            Ok(content) => content,
            Err(HostingError::ContentMissing(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(mut bytes) = self.hosting.store.read(&digest, 0..content.size_bytes()).await? else {
            return Ok(false);
        };
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(part) = bytes.next().await {
            hasher.update(&part?);
        }
        Ok(hasher.finish() == digest)
    }

    fn fault(&mut self, repository: &RepositoryName, of: &str, digest: Digest, reason: &'static str) {
        self.verified.faults.push(Fault {
            repository: repository.clone(),
            of: of.to_owned(),
            digest,
            reason,
        });
    }
}

/// Whether something has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    Perhaps,
}

/// How many items of a list are read at once.
const PAGE: u32 = 1000;
