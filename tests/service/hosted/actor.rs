//! Who talks to the registry: an address, a credential, and the steps of a push, one by one.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;

use crate::client::{Answer, Call, Client};
use crate::content::{ALL_TYPES, Content, Image};

/// Somebody who pushes and pulls.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(super) address: SocketAddr,
    pub(super) authorization: Option<String>,
}

impl Actor {
    pub(super) fn new(address: SocketAddr, authorization: Option<String>) -> Self {
        Self { address, authorization }
    }

    /// A request with the actor's credential.
    pub(super) fn call(&self, method: Method, path: &str) -> Call {
        let call = Client::new(self.address).call(method, path);
        match &self.authorization {
            Some(value) => call.header("authorization", value),
            None => call,
        }
    }

    pub(super) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub(super) fn head(&self, path: &str) -> Call {
        self.call(Method::HEAD, path)
    }

    pub(super) fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    pub(super) fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    pub(super) fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    pub(super) fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    // ---- blobs

    /// Begins an upload, and returns where it goes on.
    pub(super) async fn start_upload(&self, repository: &str) -> String {
        let answer = self.post(&format!("/v2/{repository}/blobs/uploads/")).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        location_of(&answer)
    }

    /// Sends a chunk that begins at this byte, and says so.
    pub(super) async fn send_chunk(&self, location: &str, first: usize, chunk: &[u8]) -> Answer {
        let range = format!("{first}-{}", first + chunk.len() - 1);
        let call = self.patch(location).header("content-range", &range);
        call.header("content-type", "application/octet-stream").body(chunk.to_vec()).send().await
    }

    /// Closes an upload with its last bytes, or with none.
    pub(super) async fn close_upload(&self, location: &str, digest: &str, rest: &Bytes) -> Answer {
        let call = self.put(&with_query(location, &format!("digest={digest}")));
        call.header("content-type", "application/octet-stream").body(rest.clone()).send().await
    }

    /// Pushes a blob by POST and PUT, under the digest it has by sha256.
    pub(super) async fn push_blob(&self, repository: &str, blob: &Content) -> Answer {
        self.push_bytes(repository, &blob.digest, &blob.bytes).await
    }

    /// Pushes bytes by POST and PUT, under this digest.
    pub(super) async fn push_bytes(&self, repository: &str, digest: &str, bytes: &Bytes) -> Answer {
        let location = self.start_upload(repository).await;
        let answer = self.close_upload(&location, digest, bytes).await;
        assert_eq!(answer.status, 201, "{digest}: {answer:?}");
        answer
    }

    // ---- manifests

    /// PUT of a manifest, whatever comes of it.
    pub(super) async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Content) -> Answer {
        let call = self.put(&format!("/v2/{repository}/manifests/{reference}"));
        call.header("content-type", &manifest.media_type).body(manifest.bytes.clone()).send().await
    }

    /// Pushes a manifest by tag or digest.
    pub(super) async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &Content,
    ) -> Answer {
        let answer = self.put_manifest(repository, reference, manifest).await;
        assert_eq!(answer.status, 201, "{repository}:{reference}: {answer:?}");
        answer
    }

    /// Pushes an image to its repository and tag, blobs first.
    pub(super) async fn push_image(&self, image: &Image) -> Answer {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(&image.repository, blob).await;
        }
        self.push_manifest(&image.repository, &image.tag, &image.manifest).await
    }

    // ---- pulling

    /// GET of a manifest, accepting every type.
    pub(super) async fn manifest(&self, repository: &str, reference: &str) -> Answer {
        self.get(&format!("/v2/{repository}/manifests/{reference}")).accept(&ALL_TYPES).send().await
    }

    /// GET of a blob.
    pub(super) async fn blob(&self, repository: &str, digest: &str) -> Answer {
        self.get(&format!("/v2/{repository}/blobs/{digest}")).send().await
    }

    /// Pulls a whole image by tag and compares every byte.
    pub(super) async fn pull_image(&self, image: &Image) {
        let manifest = self.manifest(&image.repository, &image.tag).await;
        assert_eq!((manifest.status, &manifest.body), (200, &image.manifest.bytes), "{}", image.tag_path());
        for blob in image.layers.iter().chain([&image.config]) {
            let answer = self.blob(&image.repository, &blob.digest).await;
            assert_eq!(answer.status, 200, "{}", blob.digest);
            assert!(answer.body == blob.bytes, "{} of {}", blob.digest, image.tag_path());
        }
    }

    /// All tags of a repository, in the order of the answer.
    pub(super) async fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.get(&format!("/v2/{repository}/tags/list")).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        tags_in(&answer)
    }
}

/// The tags in a list.
pub(super) fn tags_in(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let tags = list["tags"].as_array().unwrap_or_else(|| panic!("no tags in {list}"));
    tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

/// The path in the one `Location` of an answer.
pub(super) fn location_of(answer: &Answer) -> String {
    let all: Vec<_> = answer.headers.get_all("location").iter().collect();
    assert_eq!(all.len(), 1, "{answer:?}");
    path_of(all[0].to_str().unwrap())
}

/// The path of a URL that is absolute or begins with its path.
pub(super) fn path_of(url: &str) -> String {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => url,
    };
    assert!(path.starts_with('/') && !path.starts_with("//"), "clients cannot resolve {url}");
    path.to_owned()
}

/// A path with one more parameter.
pub(super) fn with_query(path: &str, parameter: &str) -> String {
    format!("{path}{}{parameter}", if path.contains('?') { '&' } else { '?' })
}

/// The path of the next page, where there is one.
pub(super) fn next_page(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    assert!(link.contains("rel=\"next\""), "{link}");
    let (target, _) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    Some(path_of(target))
}
