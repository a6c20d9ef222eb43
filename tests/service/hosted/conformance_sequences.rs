//! The kinds of content that registries are certified with, each through its whole life: pushed blob by blob, manifest
//! by manifest and tag by tag; listed, looked at, pulled; its referrers found; and deleted again, in the other order.

use bytes::Bytes;
use serde_json::{Value, json};

use super::actor::{Actor, location_of};
use super::registry::Hosted;
use crate::content::{Content, Image, OCI_INDEX, OCI_MANIFEST, sha512};

const REPOSITORY: &str = "acme/conformance";
const EXAMPLE: &str = "application/vnd.example.conformance.v1";

/// What is pushed together.
#[derive(Default)]
struct Load {
    blobs: Vec<(String, Bytes)>,
    manifests: Vec<Content>,
    tags: Vec<(String, Content)>,
    /// Digests of subjects, with how many refer to them.
    subjects: Vec<(String, usize)>,
    sha512: bool,
}

impl Load {
    fn blob(&mut self, blob: &Content) -> Value {
        let digest = if self.sha512 { blob.sha512() } else { blob.digest.clone() };
        self.blobs.push((digest.clone(), blob.bytes.clone()));
        json!({ "mediaType": blob.media_type, "digest": digest, "size": blob.size() })
    }

    /// Adds a manifest or index, and returns its descriptor.
    fn manifest(&mut self, manifest: &Value) -> Content {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let mut content = Content::json(media_type, manifest);
        if self.sha512 {
            content.digest = sha512(&content.bytes);
        }
        self.manifests.push(content.clone());
        content
    }

    /// Adds an image with its blobs; `change` makes it special.
    fn image(&mut self, seed: u64, change: impl FnOnce(&mut Value)) -> Content {
        let config = Content::of(
            "application/vnd.oci.image.config.v1+json",
            format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"seed\":{seed}}}"),
        );
        let mut layer = Content::blob(seed, 600);
        "application/vnd.oci.image.layer.v1.tar+gzip".clone_into(&mut layer.media_type);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": self.blob(&config), "layers": [self.blob(&layer)],
        });
        change(&mut manifest);
        self.manifest(&manifest)
    }

    fn index(&mut self, children: &[&Content], change: impl FnOnce(&mut Value)) -> Content {
        let children: Vec<Value> = children.iter().map(|child| child.descriptor()).collect();
        let mut index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children });
        change(&mut index);
        self.manifest(&index)
    }

    fn tag(&mut self, tag: &str, manifest: &Content) {
        self.tags.push((tag.to_owned(), manifest.clone()));
    }

    /// An artifact: the empty configuration, and one blob of the type.
    fn artifact(&mut self, seed: u64, change: impl FnOnce(&mut Value)) -> Content {
        let empty = self.blob(&Content::of("application/vnd.oci.empty.v1+json", "{}"));
        let mut layer = Content::blob(seed, 300);
        EXAMPLE.clone_into(&mut layer.media_type);
        let layer = self.blob(&layer);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": EXAMPLE, "config": empty, "layers": [layer],
        });
        change(&mut manifest);
        self.manifest(&manifest)
    }

    // ---- its life

    /// Pushes, looks, pulls and deletes, twice: what was deleted may come again.
    async fn live(self) {
        let hosted = Hosted::start().await;
        for _ in 0..2 {
            self.push(&hosted.administrator()).await;
            self.look(&hosted.anonymous()).await;
            self.delete(&hosted.administrator()).await;
        }
    }

    async fn push(&self, actor: &Actor) {
        for (digest, bytes) in &self.blobs {
            actor.push_bytes(REPOSITORY, digest, bytes).await;
        }
        for manifest in &self.manifests {
            let answer = actor.push_manifest(REPOSITORY, &manifest.digest, manifest).await;
            require_subject(manifest, answer.header("oci-subject"));
            assert_eq!(answer.header("docker-content-digest"), Some(manifest.digest.as_str()));
            let pulled = actor.get(&location_of(&answer)).accept(&[OCI_INDEX, OCI_MANIFEST]).send().await;
            assert_eq!((pulled.status, &pulled.body), (200, &manifest.bytes));
        }
        for (tag, manifest) in &self.tags {
            let answer = if self.sha512 {
                // Only by digest can a client say that it means another algorithm.
                let path = format!("/v2/{REPOSITORY}/manifests/{}?tag={tag}", manifest.digest);
                let call = actor.put(&path).header("content-type", &manifest.media_type);
                let answer = call.body(manifest.bytes.clone()).send().await;
                assert_eq!(
                    (answer.status, answer.header("oci-tag")),
                    (201, Some(tag.as_str())),
                    "{answer:?}"
                );
                answer
            } else {
                actor.push_manifest(REPOSITORY, tag, manifest).await
            };
            require_subject(manifest, answer.header("oci-subject"));
        }
    }

    async fn look(&self, actor: &Actor) {
        let mut tags: Vec<&str> = self.tags.iter().map(|(tag, _)| tag.as_str()).collect();
        tags.sort_unstable();
        assert_eq!(actor.tags(REPOSITORY).await, tags);
        let by_digest = self.manifests.iter().map(|manifest| (manifest.digest.as_str(), manifest));
        let by_tag = self.tags.iter().map(|(tag, manifest)| (tag.as_str(), manifest));
        for (reference, manifest) in by_digest.chain(by_tag) {
            let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
            for (call, body) in [(actor.head(&path), &Bytes::new()), (actor.get(&path), &manifest.bytes)] {
                let answer = call.accept(&[OCI_INDEX, OCI_MANIFEST]).send().await;
                assert_eq!((answer.status, &answer.body), (200, body), "{reference}");
                assert_eq!(answer.header("content-type"), Some(manifest.media_type.as_str()));
                assert_eq!(answer.header("content-length"), Some(manifest.size().to_string().as_str()));
                assert_eq!(
                    answer.header("docker-content-digest"),
                    Some(manifest.digest.as_str()),
                    "{reference}"
                );
            }
        }
        for (digest, bytes) in &self.blobs {
            let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
            for (call, body) in [(actor.head(&path), &Bytes::new()), (actor.get(&path), bytes)] {
                let answer = call.send().await;
                assert_eq!((answer.status, &answer.body), (200, body), "{digest}");
                assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
                assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
            }
        }
        for (subject, count) in &self.subjects {
            let list = actor.get(&format!("/v2/{REPOSITORY}/referrers/{subject}")).send().await;
            assert_eq!(list.json()["manifests"].as_array().unwrap().len(), *count, "{subject}");
        }
    }

    async fn delete(&self, actor: &Actor) {
        let tags = self.tags.iter().map(|(tag, _)| format!("manifests/{tag}"));
        let manifests = self.manifests.iter().rev().map(|manifest| format!("manifests/{}", manifest.digest));
        let blobs = self.blobs.iter().map(|(digest, _)| format!("blobs/{digest}"));
        let mut seen = std::collections::HashSet::new();
        for path in tags.chain(manifests).chain(blobs).filter(|path| seen.insert(path.clone())) {
            let path = format!("/v2/{REPOSITORY}/{path}");
            assert_eq!(actor.delete(&path).send().await.status, 202, "{path}");
            assert_eq!(actor.head(&path).send().await.status, 404, "{path}");
        }
        assert!(actor.tags(REPOSITORY).await.is_empty());
    }
}

/// The subject is answered where there is one.
fn require_subject(manifest: &Content, said: Option<&str>) {
    let manifest: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    assert_eq!(said, manifest["subject"]["digest"].as_str());
}

#[tokio::test]
async fn sequence_01_an_image() {
    let mut load = Load::default();
    let image = load.image(1, |_| ());
    load.tag("image", &image);
    load.live().await;
}

#[tokio::test]
async fn sequence_02_an_image_without_layers() {
    let mut load = Load::default();
    let image = load.image(1, |manifest| manifest["layers"] = json!([]));
    load.tag("no-layers", &image);
    load.live().await;
}

#[tokio::test]
async fn sequence_03_an_image_with_a_large_manifest() {
    let mut load = Load::default();
    let image = load.image(1, |manifest| {
        let notes = (0..390).map(|number| (format!("large-{number}"), json!("A".repeat(10_000))));
        manifest["annotations"] = Value::Object(notes.collect());
    });
    load.tag("large", &image);
    load.live().await;
}

#[tokio::test]
async fn sequence_04_an_index_over_two_platforms_and_one_over_indexes_and_an_empty_one() {
    let mut load = Load::default();
    let images = [load.image(1, |_| ()), load.image(2, |_| ())];
    let index = load.index(&[&images[0], &images[1]], |_| ());
    let empty = load.index(&[], |_| ());
    let nested = load.index(&[&index, &empty], |_| ());
    for (tag, manifest) in [("index", &index), ("empty-index", &empty), ("index-of-index", &nested)] {
        load.tag(tag, manifest);
    }
    load.live().await;
}

#[tokio::test]
async fn sequence_05_artifacts_with_a_blob_and_without_and_an_index_of_them() {
    let mut load = Load::default();
    let artifact = load.artifact(1, |_| ());
    let bare = load.artifact(2, |manifest| manifest["layers"] = json!([manifest["config"].clone()]));
    let index = load.index(&[&artifact, &bare], |index| index["artifactType"] = json!(EXAMPLE));
    for (tag, manifest) in [("artifact", &artifact), ("bare", &bare), ("artifact-index", &index)] {
        load.tag(tag, manifest);
    }
    load.live().await;
}

#[tokio::test]
async fn sequence_06_artifacts_about_an_image_and_an_index_about_an_index() {
    let mut load = Load::default();
    let image = load.image(1, |_| ());
    load.tag("image", &image);
    load.image(2, |manifest| manifest["subject"] = image.descriptor());
    for seed in [3, 4] {
        let artifact = load.artifact(seed, |manifest| {
            manifest["subject"] = image.descriptor();
            manifest["annotations"] = json!({ "org.example.seed": seed.to_string() });
        });
        load.tag(&format!("tagged-artifact-{seed}"), &artifact);
    }
    let index = load.index(&[&image], |_| ());
    let about = load.index(&[&image], |about| about["subject"] = index.descriptor());
    load.tag("about-index", &about);
    load.subjects = vec![(image.digest, 3), (index.digest, 1)];
    load.live().await;
}

#[tokio::test]
async fn sequence_07_an_artifact_about_what_is_not_there() {
    let mut load = Load::default();
    let missing = Content::of(OCI_MANIFEST, "missing content");
    let artifact = load.artifact(1, |manifest| manifest["subject"] = missing.descriptor());
    load.tag("tagged-artifact", &artifact);
    load.subjects = vec![(missing.digest, 1)];
    load.live().await;
}

#[tokio::test]
async fn sequence_08_descriptors_with_data_and_fields_that_nobody_knows() {
    let mut load = Load::default();
    let data = load.image(1, |manifest| manifest["config"]["data"] = json!("e30="));
    let custom = load.image(2, |manifest| {
        manifest["org.example.custom"] = json!({ "any": ["thing", 1, null] });
        manifest["layers"][0]["org.example.custom"] = json!("thing");
    });
    for (tag, manifest) in [("data-field", &data), ("custom-fields", &custom)] {
        load.tag(tag, manifest);
    }
    load.live().await;
}

#[tokio::test]
async fn sequence_09_layers_that_are_kept_elsewhere() {
    let mut load = Load::default();
    let foreign = Content::blob(99, 10);
    let image = load.image(1, |manifest| {
        manifest["layers"].as_array_mut().unwrap().push(json!({
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": foreign.digest, "size": 123_456, "urls": ["https://store.example.com/layer"],
        }));
    });
    load.tag("non-distributable", &image);
    load.live().await;
}

#[tokio::test]
async fn sequence_10_everything_by_sha512() {
    let mut load = Load { sha512: true, ..Load::default() };
    let images = [load.image(1, |_| ()), load.image(2, |_| ())];
    let index = load.index(&[&images[0], &images[1]], |_| ());
    let artifact = load.artifact(3, |manifest| manifest["subject"] = index.descriptor());
    for (tag, manifest) in [("index", &index), ("image", &images[0]), ("artifact", &artifact)] {
        load.tag(tag, manifest);
    }
    load.subjects = vec![(index.digest, 1)];
    load.live().await;
}

#[tokio::test]
async fn sequence_11_a_zero_byte_blob_and_the_empty_json() {
    let ways: [fn(&Content) -> String; 2] = [|blob| blob.digest.clone(), Content::sha512];
    for digest_of in ways {
        let mut load = Load::default();
        for text in ["", "{}"] {
            let blob = Content::of("text/plain", text);
            load.blobs.push((digest_of(&blob), blob.bytes));
        }
        let image = load.image(1, |_| ());
        load.tag("beside", &image);
        load.live().await;
    }
}

#[tokio::test]
async fn sequence_12_an_image_of_docker() {
    let hosted = Hosted::start().await;
    let image = Image::docker("acme/app", "1", &[500, 600]);
    hosted.administrator().push_image(&image).await;
    hosted.anonymous().pull_image(&image).await;
}
