//! Content that lies, is too large, or is made to break the reader: the right error, nothing stored, bounded memory.

use http::Method;
use serde_json::{Value, json};

use super::actor::Actor;
use super::registry::Hosted;
use super::wire::Wire;
use crate::client::Answer;
use crate::content::{Content, DOCKER_LIST, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST};

const MIB: u64 = 1 << 20;

/// A node with an image, and how it looked before the attack.
struct Scene {
    hosted: Hosted,
    admin: Actor,
    image: Image,
    files: Vec<std::path::PathBuf>,
}

impl Scene {
    async fn new() -> Self {
        let hosted = Hosted::start_for_trouble().await;
        let admin = hosted.administrator();
        let image = Image::oci("acme/app", "1", &[1000, 2000]);
        admin.push_image(&image).await;
        let files = hosted.files();
        Self { hosted, admin, image, files }
    }

    /// The manifest of the image, changed.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut manifest: Value = serde_json::from_slice(&self.image.manifest.bytes).unwrap();
        change(&mut manifest);
        manifest
    }

    async fn put(&self, media_type: &str, body: impl Into<bytes::Bytes>) -> Answer {
        self.admin.put_manifest("acme/app", "evil", &Content::of(media_type, body)).await
    }

    /// Nothing came of it, and the node serves on.
    async fn require_unharmed(&self) {
        assert_eq!(self.admin.tags("acme/app").await, ["1"]);
        self.hosted.anonymous().pull_image(&self.image).await;
        assert_eq!(self.hosted.files(), self.files);
    }
}

#[tokio::test]
async fn a_media_type_that_contradicts_the_content_is_refused() {
    let scene = Scene::new().await;
    let image = scene.image.manifest.bytes.clone();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [scene.image.manifest.descriptor()] });
    let index = serde_json::to_vec(&index).unwrap();
    let silent = serde_json::to_vec(
        &scene.changed(|manifest| drop(manifest.as_object_mut().unwrap().remove("mediaType"))),
    );
    let silent = silent.unwrap();
    for (media_type, body) in [
        (OCI_INDEX, image.to_vec()),
        (DOCKER_MANIFEST, image.to_vec()),
        (DOCKER_LIST, image.to_vec()),
        ("text/html", image.to_vec()),
        (OCI_MANIFEST, index.clone()),
        (DOCKER_LIST, index),
        // It says nothing of itself, and still has the fields of an image.
        (OCI_INDEX, silent),
    ] {
        let answer = scene.put(media_type, body).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (400, "MANIFEST_INVALID"), "{media_type}");
    }
    scene.require_unharmed().await;
    // What is the type of anything says nothing, so that the manifest's own word counts.
    for media_type in ["application/json", "application/octet-stream"] {
        let answer = scene.put(media_type, image.clone()).await;
        assert!([201, 400].contains(&answer.status), "{media_type}: {answer:?}");
        if answer.status == 201 {
            let pulled = scene.admin.manifest("acme/app", "evil").await;
            assert_eq!(pulled.header("content-type"), Some(OCI_MANIFEST));
        }
    }
}

#[tokio::test]
async fn what_is_an_image_and_an_index_at_once_is_refused_under_either_name() {
    let scene = Scene::new().await;
    let child = scene.image.manifest.descriptor();
    for media_type in [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
        for keep_type in [true, false] {
            let both = scene.changed(|manifest| {
                manifest["manifests"] = json!([child]);
                manifest["mediaType"] = json!(media_type);
                if !keep_type {
                    manifest.as_object_mut().unwrap().remove("mediaType");
                }
            });
            let answer = scene.put(media_type, serde_json::to_vec(&both).unwrap()).await;
            answer.assert_error(400, "MANIFEST_INVALID");
        }
    }
    scene.require_unharmed().await;
}

#[tokio::test]
async fn a_field_that_stands_twice_is_refused() {
    let scene = Scene::new().await;
    let text = String::from_utf8(scene.image.manifest.bytes.to_vec()).unwrap();
    let config = scene.image.config.descriptor();
    for field in [
        "\"layers\": []".to_owned(),
        format!("\"config\": {config}"),
        format!("\"mediaType\": \"{OCI_MANIFEST}\""),
        "\"schemaVersion\": 2".to_owned(),
        "\"l\\u0061yers\": []".to_owned(),
    ] {
        let twice = text.replacen('{', &format!("{{ {field},"), 1);
        scene.put(OCI_MANIFEST, twice).await.assert_error(400, "MANIFEST_INVALID");
    }
    scene.require_unharmed().await;
}

#[tokio::test]
async fn a_manifest_whose_descriptors_make_no_sense_is_refused() {
    let scene = Scene::new().await;
    let changes: [fn(&mut Value); 12] = [
        |manifest| manifest["layers"][0]["digest"] = json!("sha256:abc"),
        |manifest| manifest["layers"][0]["digest"] = json!("../../../etc/passwd"),
        |manifest| manifest["layers"][0]["digest"] = json!(7),
        |manifest| manifest["layers"][0]["size"] = json!(-1),
        |manifest| manifest["layers"][0]["size"] = json!("1000"),
        |manifest| manifest["layers"][0] = json!(null),
        |manifest| manifest["layers"] = json!({}),
        |manifest| manifest["config"] = json!(null),
        |manifest| drop(manifest.as_object_mut().unwrap().remove("config")),
        |manifest| manifest["config"]["digest"] = json!(""),
        |manifest| manifest["schemaVersion"] = json!(1),
        |manifest| {
            manifest["subject"] = json!({ "mediaType": "text/plain", "digest": "nonsense", "size": 1 });
        },
    ];
    for change in changes {
        let manifest = scene.changed(change);
        let answer = scene.put(OCI_MANIFEST, serde_json::to_vec(&manifest).unwrap()).await;
        assert_eq!(answer.status, 400, "{manifest}: {answer:?}");
        let code = answer.error_code();
        assert!(
            ["MANIFEST_INVALID", "DIGEST_INVALID", "SIZE_INVALID"].contains(&code.as_str()),
            "{manifest}: {code}"
        );
    }
    scene.require_unharmed().await;
}

#[tokio::test]
async fn json_that_is_made_to_break_readers_is_refused_in_bounded_memory() {
    let scene = Scene::new().await;
    let before = scene.hosted.tidegate.memory_bytes();
    let deep = 1_500_000;
    let text = String::from_utf8(scene.image.manifest.bytes.to_vec()).unwrap();
    let with = |field: String| text.replacen('{', &format!("{{ {field},"), 1);
    for (number, bomb) in [
        "[".repeat(3 << 20),
        "{\"a\":".repeat(700_000),
        with(format!("\"deep\": {}{}", "[".repeat(deep), "]".repeat(deep))),
        with(format!("\"annotations\": {}1{}", "{\"a\":".repeat(500_000), "}".repeat(500_000))),
        format!("{}{}", "\u{feff}", text),
        "1".repeat(3 << 20),
        format!("{text}{text}"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = scene.put(OCI_MANIFEST, bomb).await;
        assert_eq!(answer.status, 400, "bomb {number}: {answer:?}");
        assert_eq!(answer.error_code(), "MANIFEST_INVALID", "bomb {number}");
    }
    scene.require_unharmed().await;
    let grown = scene.hosted.tidegate.memory_bytes().saturating_sub(before);
    assert!(grown < 96 * MIB, "{grown} bytes more");
}

#[tokio::test]
async fn so_many_descriptors_of_what_is_missing_get_a_short_answer() {
    let scene = Scene::new().await;
    let layers: Vec<Value> = (0..24_000_u32)
        .map(|number| json!({ "mediaType": "a/b", "digest": format!("sha256:{number:064x}"), "size": 1 }))
        .collect();
    let manifest = scene.changed(|manifest| manifest["layers"] = json!(layers));
    let body = serde_json::to_vec(&manifest).unwrap();
    assert!(body.len() < 4 << 20);
    let answer = scene.put(OCI_MANIFEST, body).await;
    assert!([400, 404].contains(&answer.status), "{}", answer.status);
    assert!(["MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID"].contains(&answer.error_code().as_str()));
    assert!(answer.body.len() < 256 << 10, "{} bytes of errors", answer.body.len());
    // The same blob over and over is one blob.
    let one = json!({ "mediaType": "a/b", "digest": scene.image.layers[0].digest, "size": 1000 });
    let manifest = scene.changed(|manifest| manifest["layers"] = json!(vec![one; 5000]));
    let answer = scene.put(OCI_MANIFEST, serde_json::to_vec(&manifest).unwrap()).await;
    assert!([201, 400].contains(&answer.status), "{answer:?}");
    scene.hosted.anonymous().pull_image(&scene.image).await;
}

#[tokio::test]
async fn huge_strings_within_the_limit_are_kept_as_they_are() {
    let scene = Scene::new().await;
    let manifest = scene.changed(|manifest| {
        manifest["annotations"] = json!({ "long": "\u{1f40b}".repeat(500_000), "k".repeat(100_000): "" });
    });
    let content = Content::json(OCI_MANIFEST, &manifest);
    scene.admin.push_manifest("acme/app", "long", &content).await;
    assert!(scene.admin.manifest("acme/app", "long").await.body == content.bytes);
}

#[tokio::test]
async fn a_manifest_of_100_mib_is_413_before_it_fills_the_memory() {
    let scene = Scene::new().await;
    let before = scene.hosted.tidegate.memory_bytes();
    let headers = [("content-type", OCI_MANIFEST), ("content-length", "104857600")];
    // The length alone says enough, so that not a byte of it need be read.
    let mut wire = Wire::begin(&scene.admin, "PUT", "/v2/acme/app/manifests/evil", &headers).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 413, "{answer:?}");
    answer.error_code();
    // Of a stream nobody knows how long it is.
    let block = vec![b' '; 1 << 20];
    let headers = [("content-type", OCI_MANIFEST)];
    let mut wire = Wire::begin_chunked(&scene.admin, "PUT", "/v2/acme/app/manifests/evil", &headers).await;
    let mut sent = 0;
    while sent < 100 && wire.write_chunk(&block).await {
        sent += 1;
    }
    if sent == 100 {
        wire.end_chunks().await;
    }
    if let Some(answer) = wire.try_answer().await {
        assert_eq!(answer.status, 413, "{answer:?}");
    }
    scene.require_unharmed().await;
    let grown = scene.hosted.tidegate.memory_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes more");
}

#[tokio::test]
async fn names_digests_and_uploads_that_are_paths_lead_nowhere() {
    let scene = Scene::new().await;
    let hex = "a".repeat(64);
    for name in [
        "acme/../secret",
        "acme/..",
        "acme/%2e%2e/secret",
        "acme/%2E%2E%2Fsecret",
        "acme//app",
        "acme/app/",
        "acme/./app",
        "acme/app%00",
        "acme/app%0a",
        "acme\\app",
        "acme/%252e%252e/app",
        "acme/app%20",
        "acme/\u{e4}pp",
    ] {
        let name = name.replace('\u{e4}', "%C3%A4");
        let manifest = scene.image.manifest.bytes.to_vec();
        for (method, path, body) in [
            (Method::POST, format!("/v2/{name}/blobs/uploads/"), Vec::new()),
            (Method::PUT, format!("/v2/{name}/manifests/1"), manifest),
            (Method::GET, format!("/v2/{name}/tags/list"), Vec::new()),
            (Method::DELETE, format!("/v2/{name}/manifests/1"), Vec::new()),
            (Method::POST, format!("/v2/acme/app/blobs/uploads/?mount=sha256:{hex}&from={name}"), Vec::new()),
        ] {
            let mount = path.contains("mount=");
            let call =
                scene.admin.call(method.clone(), &path).header("content-type", OCI_MANIFEST).body(body);
            let answer = call.send().await;
            // A mount from nowhere begins an upload.
            let expected: &[u16] = if mount { &[202, 400] } else { &[400, 404] };
            assert!(expected.contains(&answer.status), "{method} {path}: {answer:?}");
            if answer.status == 202 {
                let cancelled = scene.admin.delete(&super::actor::location_of(&answer)).send().await;
                assert_eq!(cancelled.status, 204);
            }
        }
    }
    for digest in
        ["..%2F..%2Fetc%2Fpasswd", "sha256:..%2F..%2F..%2Fx", "sha256:%2e%2e", "sha256%3A..", "sha256:", ":"]
    {
        for path in [format!("/v2/acme/app/blobs/{digest}"), format!("/v2/acme/app/manifests/{digest}")] {
            for method in [Method::GET, Method::DELETE] {
                let answer = scene.admin.call(method.clone(), &path).send().await;
                assert!([400, 404].contains(&answer.status), "{method} {path}: {answer:?}");
            }
        }
    }
    scene.require_unharmed().await;
}
