//! The content that a scripted upstream holds, and the right answers about it, in the manner of the
//! distribution registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::answer::{Answer, to_index};
use super::request::{Kind, Request};
use crate::content::{Content, DOCKER_LIST, Image, OCI_INDEX, OCTETS};

/// All repositories of a registry.
#[derive(Default)]
pub(super) struct Model {
    repositories: BTreeMap<String, Repository>,
    /// Whether `referrers/` is known; registries older than OCI 1.1 answer 404.
    pub(super) without_referrers: bool,
    /// The most tags in a page, whatever `n` says.
    pub(super) page_limit: Option<usize>,
    /// `tags` of every list, word for word, where a test wants them wrong.
    pub(super) tags_json: Option<Value>,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    manifests: HashMap<String, Content>,
    blobs: HashMap<String, Bytes>,
}

impl Model {
    pub(super) fn add_image(&mut self, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.add_blob(&image.repository, blob);
        }
        self.add_manifest(&image.repository, &image.manifest);
        self.set_tag(&image.repository, &image.tag, &image.manifest.digest);
    }

    pub(super) fn add_blob(&mut self, repository: &str, blob: &Content) {
        let blobs = &mut self.repository(repository).blobs;
        blobs.insert(blob.digest.clone(), blob.bytes.clone());
    }

    /// Makes a manifest known under its digest, which a schema 1 body does not hash to, and under its
    /// sha512.
    pub(super) fn add_manifest(&mut self, repository: &str, manifest: &Content) {
        let manifests = &mut self.repository(repository).manifests;
        manifests.insert(manifest.digest.clone(), manifest.clone());
        manifests.insert(manifest.sha512(), manifest.clone());
    }

    pub(super) fn set_tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.repository(repository).tags.insert(tag.to_owned(), digest.to_owned());
    }

    pub(super) fn remove_blob(&mut self, repository: &str, digest: &str) {
        self.repository(repository).blobs.remove(digest);
    }

    pub(super) fn knows(&self, repository: &str) -> bool {
        self.repositories.contains_key(repository)
    }

    /// The right answer.
    pub(super) fn answer(&self, request: &Request, ignores_range: bool) -> Answer {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        }
        match request.kind {
            Kind::Ping => Answer::new(StatusCode::OK, "application/json", "{}"),
            Kind::Cdn => self.cdn(request, ignores_range),
            Kind::Other | Kind::Token => Answer::error(StatusCode::NOT_FOUND, "UNSUPPORTED"),
            kind => {
                let Some(repository) = self.repositories.get(&request.repository) else {
                    return Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
                };
                match kind {
                    Kind::Manifest => repository.manifest(request),
                    Kind::Blob => repository.blob(request, ignores_range),
                    Kind::Tags => self.tags(repository, request),
                    _ => self.referrers(repository, request),
                }
            }
        }
    }

    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    /// A store behind signed addresses: it does not know repositories, and takes a second kind of
    /// authorization for an error, as S3 and Azure do.
    fn cdn(&self, request: &Request, ignores_range: bool) -> Answer {
        if request.headers.contains_key(header::AUTHORIZATION) {
            return Answer::new(StatusCode::BAD_REQUEST, "application/xml", "<Error>InvalidArgument</Error>");
        }
        let found =
            self.repositories.values().find_map(|repository| repository.blobs.get(&request.reference));
        match found {
            Some(bytes) => content_answer(request, bytes, OCTETS, ignores_range),
            None => Answer::new(StatusCode::FORBIDDEN, "application/xml", "<Error>AccessDenied</Error>"),
        }
    }

    fn tags(&self, repository: &Repository, request: &Request) -> Answer {
        let last = request.parameters("last").pop().unwrap_or_default();
        let asked = request.parameters("n").pop().and_then(|n| n.parse::<usize>().ok());
        let limit = asked.unwrap_or(usize::MAX).min(self.page_limit.unwrap_or(usize::MAX));
        let rest: Vec<&String> = repository.tags.keys().filter(|tag| **tag > last).collect();
        let page: Vec<&String> = rest.iter().take(limit).copied().collect();
        let tags = self.tags_json.clone().unwrap_or_else(|| json!(page));
        let body = json!({ "name": request.repository, "tags": tags }).to_string();
        let answer = Answer::new(StatusCode::OK, "application/json", body);
        match page.last() {
            Some(end) if page.len() < rest.len() => {
                let name = &request.repository;
                answer.with("link", &format!("</v2/{name}/tags/list?last={end}&n={limit}>; rel=\"next\""))
            }
            _ => answer,
        }
    }

    fn referrers(&self, repository: &Repository, request: &Request) -> Answer {
        if self.without_referrers {
            return Answer::new(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n");
        }
        let wanted = request.parameters("artifactType").pop();
        let mut seen = BTreeSet::new();
        let mut listed = Vec::new();
        for manifest in repository.manifests.values() {
            let Ok(parsed) = serde_json::from_slice::<Value>(&manifest.bytes) else { continue };
            let about = parsed["subject"]["digest"].as_str() == Some(request.reference.as_str());
            let fits = wanted.as_deref().is_none_or(|wanted| parsed["artifactType"] == wanted);
            if about && fits && seen.insert(&manifest.digest) {
                let mut descriptor = manifest.descriptor();
                descriptor["artifactType"] = parsed["artifactType"].clone();
                listed.push(descriptor);
            }
        }
        let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed }).to_string();
        let answer = Answer::new(StatusCode::OK, OCI_INDEX, body);
        if wanted.is_some() { answer.with("oci-filters-applied", "artifactType") } else { answer }
    }
}

impl Repository {
    fn manifest(&self, request: &Request) -> Answer {
        let by_tag = !request.reference.contains(':');
        let digest = if by_tag { self.tags.get(&request.reference) } else { Some(&request.reference) };
        let Some(mut found) = digest.and_then(|digest| self.manifests.get(digest)) else {
            return Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        };
        if by_tag && !accepts(request, &found.media_type) {
            match self.first_child(found).filter(|_| found.media_type == DOCKER_LIST) {
                Some(child) => found = child,
                None if found.media_type == OCI_INDEX => {
                    return Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
                }
                None => {}
            }
        }
        // A registry computes sha512 only for those who ask by it.
        let digest = if by_tag { &found.digest } else { &request.reference };
        let etag = format!("\"{digest}\"");
        let answer = if request.header("if-none-match") == Some(&etag) {
            Answer::new(StatusCode::NOT_MODIFIED, &found.media_type, "")
        } else {
            Answer::new(StatusCode::OK, &found.media_type, found.bytes.clone())
        };
        answer.with("docker-content-digest", digest).with("etag", &etag)
    }

    /// The manifest for linux/amd64, which comes first in what tests make.
    fn first_child(&self, list: &Content) -> Option<&Content> {
        let parsed: Value = serde_json::from_slice(&list.bytes).ok()?;
        self.manifests.get(parsed["manifests"][0]["digest"].as_str()?)
    }

    fn blob(&self, request: &Request, ignores_range: bool) -> Answer {
        match self.blobs.get(&request.reference) {
            Some(bytes) => content_answer(request, bytes, OCTETS, ignores_range)
                .with("docker-content-digest", &request.reference)
                .with("etag", &format!("\"{}\"", request.reference)),
            None => Answer::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        }
    }
}

/// The whole, or the one range asked for; several at once get the 501 of ghcr's store.
fn content_answer(request: &Request, bytes: &Bytes, media_type: &str, ignores_range: bool) -> Answer {
    let size = bytes.len() as u64;
    let range = request.header("range").filter(|_| !ignores_range);
    if range.is_some_and(|range| range.contains(',')) {
        return Answer::new(StatusCode::NOT_IMPLEMENTED, "text/html", "<h1>Not Implemented</h1>");
    }
    match range.and_then(|range| range.strip_prefix("bytes=")).map(|range| resolve(range, size)) {
        None => Answer::new(StatusCode::OK, media_type, bytes.clone()).with("accept-ranges", "bytes"),
        Some(Some((first, last))) => {
            let part = bytes.slice(to_index(first)..=to_index(last));
            Answer::new(StatusCode::PARTIAL_CONTENT, media_type, part)
                .with("accept-ranges", "bytes")
                .with("content-range", &format!("bytes {first}-{last}/{size}"))
                .at(first)
        }
        Some(None) => Answer::error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID")
            .with("content-range", &format!("bytes */{size}")),
    }
}

/// First and last position of `a-b`, `a-` or `-n`; `None` where it lies outside.
fn resolve(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (None, Some(suffix)) => (size.saturating_sub(suffix), size.checked_sub(1)?),
        (Some(first), last) => (first, last.unwrap_or(u64::MAX).min(size.checked_sub(1)?)),
        (None, None) => return None,
    };
    (first <= last).then_some((first, last))
}

fn accepts(request: &Request, media_type: &str) -> bool {
    let mut lines = request.headers.get_all(header::ACCEPT).iter().peekable();
    lines.peek().is_none()
        || lines
            .flat_map(|line| line.to_str().unwrap().split(','))
            .any(|accepted| [media_type, "*/*"].contains(&accepted.split(';').next().unwrap().trim()))
}
