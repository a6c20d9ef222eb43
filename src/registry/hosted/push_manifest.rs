//! Use case: a manifest comes into a hosted repository.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::{EXPIRES_AFTER, Hosting, HostingError, Result};
use crate::auth::RequestContext;
use crate::auth::policy::Action;
use crate::metadata::catalogue::{CatalogueError, ManifestPush, ManifestRecord};
use crate::oci::{Algorithm, Descriptor, Digest, MediaType, PushedManifest, Reference, RepositoryName, Tag};

/// The largest manifest that is taken, in bytes: no client pulls larger ones.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// A manifest as a client sends it.
#[derive(Clone, Debug)]
pub struct ManifestBody {
    /// Its type, where the request says one.
    pub media_type: Option<MediaType>,
    /// Its bytes.
    pub payload: Bytes,
}

/// What a manifest was taken in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedAs {
    /// Its digest.
    pub digest: Digest,
    /// The manifest that it is about, and is listed for from now on.
    pub subject: Option<Digest>,
    /// The tags that point to it.
    pub tags: Vec<Tag>,
}

impl Hosting {
    /// Takes a manifest in, by tag or by digest, with further tags for it. Nothing of it is visible before all of it is
    /// durable.
    ///
    /// Errors: it is no manifest, or another than its digest and type say; blobs that it lists are not in the
    /// repository; a tag may not be moved.
    pub async fn push_manifest(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        reference: &Reference,
        further_tags: Vec<Tag>,
        body: ManifestBody,
    ) -> Result<PushedAs> {
        self.require(context, Action::Push, repository)?;
        let ManifestBody { media_type, payload } = body;
        let algorithm = match reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = hash(algorithm, &payload).await;
        let mut tags = further_tags;
        match reference {
            Reference::Digest(expected) if *expected != digest => {
                let expected = Box::new(*expected);
                return Err(HostingError::DigestMismatch { expected, found: Box::new(digest) });
            }
            Reference::Digest(_) => {}
            Reference::Tag(tag) => tags.insert(0, tag.clone()),
        }
        tags.dedup();
        let pushed = PushedManifest::parse(&payload, media_type)?;
        self.require_sizes(repository, &pushed).await?;
        let allowed = self.policy_of(repository).await?;
        for tag in &tags {
            let current = self.catalogue.find_tag(repository, tag).await?;
            allowed.require_mutable(tag, current.as_ref(), Some(&digest))?;
        }
        let label = self.find_expiry_label(&pushed).await?;
        let tags_expire_at = allowed.tags_expire_at(label.as_deref(), &tags, self.clock.now());
        let subject = pushed.subject;
        let push = ManifestPush {
            manifest: ManifestRecord {
                digest,
                media_type: pushed.media_type,
                artifact_type: pushed.artifact_type,
                subject,
                annotations: pushed.annotations,
                payload,
            },
            blobs: pushed.blobs.into_iter().map(|blob| blob.digest).collect(),
            children: pushed.children.into_iter().map(|child| child.digest).collect(),
            missing_children: allowed.missing_children.into(),
            immutable_tags: tags.iter().filter(|tag| allowed.is_immutable(tag)).cloned().collect(),
            tags: tags.clone(),
            tags_expire_at,
        };
        let stamp = self.stamp(context);
        let mut recorded = self.commit(self.catalogue.push_manifest(repository, &push, &stamp)).await;
        if matches!(recorded, Err(HostingError::Catalogue(CatalogueError::RepositoryUnknown)))
            && push.blobs.is_empty()
        {
            // An index may be the first that comes into a repository.
            self.create_repository(repository, &stamp).await?;
            recorded = self.commit(self.catalogue.push_manifest(repository, &push, &stamp)).await;
        }
        recorded?;
        Ok(PushedAs { digest, subject, tags })
    }

    /// Finds out after what time the tags go, as the manifest or the configuration of an image says it.
    async fn find_expiry_label(&self, pushed: &PushedManifest) -> Result<Option<String>> {
        if let Some(annotation) = pushed.annotations.get(EXPIRES_AFTER) {
            return Ok(Some(annotation.clone()));
        }
        let is_config = |blob: &&Descriptor| CONFIGURATIONS.contains(&blob.media_type.as_str());
        let Some(config) = pushed.blobs.iter().find(is_config) else { return Ok(None) };
        let size_bytes = config.size_bytes.filter(|size_bytes| *size_bytes <= MAX_CONFIGURATION_BYTES);
        let Some(size_bytes) = size_bytes else { return Ok(None) };
        let Some(mut parts) = self.store.read(&config.digest, 0..size_bytes).await? else { return Ok(None) };
        let mut content = Vec::new();
        while let Some(part) = parts.next().await {
            content.extend_from_slice(&part?);
        }
        // A configuration that cannot be read says nothing.
        let read: Option<Configuration> = serde_json::from_slice(&content).ok();
        let labels = read.and_then(|read| read.config).and_then(|config| config.labels);
        Ok(labels.and_then(|mut labels| labels.remove(EXPIRES_AFTER)))
    }

    /// Fails where a blob has another size than the manifest says: clients would stumble over it at every pull.
    async fn require_sizes(&self, repository: &RepositoryName, pushed: &PushedManifest) -> Result<()> {
        for blob in &pushed.blobs {
            let found = self.catalogue.find_blob(repository, &blob.digest).await?;
            let Some(found) = found else { return Err(CatalogueError::BlobUnknown(blob.digest).into()) };
            match blob.size_bytes {
                Some(said_bytes) if said_bytes != found.size_bytes => {
                    let (digest, found_bytes) = (Box::new(blob.digest), found.size_bytes);
                    return Err(HostingError::SizeContradicted { digest, said_bytes, found_bytes });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What counts of an image's configuration (OCI image specification, "Image Configuration").
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<Execution>,
}

#[derive(Deserialize)]
struct Execution {
    #[serde(default, rename = "Labels")]
    labels: Option<HashMap<String, String>>,
}

/// The types of configurations that have labels.
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Larger configurations are not looked into.
const MAX_CONFIGURATION_BYTES: u64 = 4 * 1024 * 1024;

/// Hashes where it may take its time.
async fn hash(algorithm: Algorithm, payload: &Bytes) -> Digest {
    if payload.len() <= SMALL {
        return Digest::of(algorithm, payload);
    }
    let bytes = payload.clone();
    let hashed = tokio::task::spawn_blocking(move || Digest::of(algorithm, &bytes)).await;
    hashed.unwrap_or_else(|_panicked| Digest::of(algorithm, payload))
}

/// What is hashed in less time than it takes to hand it to another thread.
const SMALL: usize = 64 * 1024;
