//! How real clients push, request by request (section 2 of what is known about clients; items 98 and 100 to 104).
//!
//! Each script does what its client does and believes what its client believes: the ones that learn from `/v2/` alone
//! whether a credential is wanted show none where it says 200.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::actor::{Actor, location_of, with_query};
use super::registry::Hosted;
use super::wire::Wire;
use crate::client::{Answer, Call};
use crate::content::{Content, DOCKER_LIST, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, artifact_about};

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// A parameter of a challenge, which is quoted.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

fn escaped(text: &str) -> String {
    text.replace(':', "%3A").replace('/', "%2F").replace(',', "%2C")
}

fn basic(hosted: &Hosted) -> String {
    format!("Basic {}", STANDARD.encode(format!("admin:{}", hosted.password)))
}

/// Whoever learns from a 401 what to show, and then shows a token of this scope.
async fn answer_challenge(hosted: &Hosted, refused: &Answer, scope: &str) -> Actor {
    assert_eq!(refused.status, 401, "{refused:?}");
    assert_eq!(refused.headers.get_all("www-authenticate").iter().count(), 1, "{refused:?}");
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer "), "{challenge}");
    let realm = parameter(challenge, "realm").unwrap();
    let service = parameter(challenge, "service").unwrap();
    let here = format!("http://{}/", hosted.tidegate.address());
    let path = realm.strip_prefix(here.as_str()).unwrap_or_else(|| panic!("{realm} is not here"));
    let query = format!("account=admin&scope={}&service={}", escaped(scope), escaped(&service));
    let call = hosted.anonymous().get(&format!("/{path}?{query}")).header("authorization", &basic(hosted));
    let answer = call.send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.json();
    assert_eq!(token["token"], token["access_token"], "{token}");
    assert!(token["expires_in"].as_u64().is_some_and(|seconds| seconds >= 60), "{token}");
    hosted.actor(Some(format!("Bearer {}", token["token"].as_str().unwrap())))
}

/// Whoever believes `/v2/`.
async fn ping(hosted: &Hosted, scope: &str) -> Actor {
    let answer = hosted.anonymous().get("/v2/").send().await;
    if answer.status == 401 { answer_challenge(hosted, &answer, scope).await } else { hosted.anonymous() }
}

/// An image whose manifests and blobs are pushed by a script.
fn image(tag: &str) -> Image {
    Image::oci("acme/app", tag, &[70_000, 500])
}

fn blobs(image: &Image) -> impl Iterator<Item = &Content> {
    image.layers.iter().chain([&image.config])
}

fn blob_path(blob: &Content) -> String {
    format!("/v2/acme/app/blobs/{}", blob.digest)
}

fn with_headers(call: Call, headers: &[(&str, &str)]) -> Call {
    headers.iter().fold(call, |call, (name, value)| call.header(name, value))
}

/// Requires a status that the client takes, and nothing but that.
#[track_caller]
fn require(answer: &Answer, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status), "{answer:?}");
}

#[tokio::test]
async fn containerd_pushes_by_one_put_and_authorizes_itself_when_it_is_asked() {
    let hosted = Hosted::start().await;
    let agent = ("user-agent", "containerd/2.2.0");
    let image = image("1");
    let types = format!("{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*");
    let mut actor = hosted.anonymous();
    for blob in blobs(&image) {
        let head = with_headers(actor.head(&blob_path(blob)), &[agent, ("accept", "*/*")]).send().await;
        require(&head, &[404]);
        let post = async |actor: &Actor| {
            with_headers(actor.post("/v2/acme/app/blobs/uploads/"), &[agent]).send().await
        };
        let mut answer = post(&actor).await;
        if actor.authorization.is_none() {
            // The scope is the challenge's, and what the client thinks itself.
            let scope = parameter(answer.header("www-authenticate").unwrap(), "scope").unwrap();
            assert_eq!(scope, "repository:acme/app:pull,push");
            actor = answer_challenge(&hosted, &answer, &scope).await;
            answer = post(&actor).await;
        }
        require(&answer, &[202]);
        let put = with_query(&location_of(&answer), &format!("digest={}", escaped(&blob.digest)));
        let put = with_headers(actor.put(&put), &[agent, OCTETS]).body(blob.bytes.clone()).send().await;
        require(&put, &[200, 201, 202, 204]);
        assert_eq!(put.header("docker-content-digest"), Some(blob.digest.as_str()));
    }
    let head = with_headers(actor.head(&image.tag_path()), &[agent, ("accept", &types)]).send().await;
    require(&head, &[404]);
    let put = with_headers(actor.put(&image.tag_path()), &[agent, ("content-type", OCI_MANIFEST)]);
    require(&put.body(image.manifest.bytes.clone()).send().await, &[200, 201, 202, 204]);
    let head = with_headers(actor.head(&image.tag_path()), &[agent, ("accept", &types)]).send().await;
    assert_eq!(
        head.header("docker-content-digest"),
        Some(image.manifest.digest.as_str()),
        "it need not push again"
    );
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn containerd_mounts_within_a_registry_and_streams_what_is_empty() {
    let hosted = Hosted::start().await;
    let base = Content::blob(1, 5000);
    hosted.administrator().push_blob("acme/base", &base).await;
    let refused = hosted.anonymous().post("/v2/acme/app/blobs/uploads/").send().await;
    // Two scopes in one token, as a mount needs.
    let scopes = "repository:acme/app:pull,push&scope=repository:acme/base:pull";
    let actor = answer_challenge(&hosted, &refused, scopes).await;
    let mount = format!("/v2/acme/app/blobs/uploads/?from=acme%2Fbase&mount={}", escaped(&base.digest));
    require(&actor.post(&mount).send().await, &[201]);
    require(&actor.head(&blob_path(&base)).send().await, &[200]);
    let empty = Content::blob(2, 0);
    let location = actor.start_upload("acme/app").await;
    let path = with_query(&location, &format!("digest={}", escaped(&empty.digest)));
    let mut wire = Wire::begin_chunked(&actor, "PUT", &path, &[OCTETS]).await;
    wire.end_chunks().await;
    require(&wire.answer().await, &[201]);
}

#[tokio::test]
async fn docker_logs_in_and_pushes_by_one_patch_without_a_length() {
    let hosted = Hosted::start().await;
    let agent = ("user-agent", "docker/24.0.7 go/go1.20.10 os/linux arch/amd64");
    let login = hosted.anonymous().get("/v2/").send().await;
    require(&login, &[401]);
    let image = Image::docker("acme/app", "1", &[70_000, 500]);
    let actor = ping(&hosted, "repository:acme/app:pull,push").await;
    for blob in blobs(&image) {
        require(&with_headers(actor.head(&blob_path(blob)), &[agent]).send().await, &[404]);
        let mount = format!("/v2/acme/app/blobs/uploads/?from=acme%2Fbase&mount={}", escaped(&blob.digest));
        let mounted = with_headers(actor.post(&mount), &[agent]).send().await;
        require(&mounted, &[202]);
        require(&with_headers(actor.delete(&location_of(&mounted)), &[agent]).send().await, &[204]);
        let post = with_headers(actor.post("/v2/acme/app/blobs/uploads/"), &[agent]).send().await;
        require(&post, &[202]);
        assert!(post.header("docker-upload-uuid").is_some(), "{post:?}");
        let mut wire = Wire::begin_chunked(&actor, "PATCH", &location_of(&post), &[agent]).await;
        for part in blob.bytes.chunks(32_768) {
            wire.write_chunk(part).await;
        }
        wire.end_chunks().await;
        let patch = wire.answer().await;
        require(&patch, &[202]);
        assert_eq!(patch.header("docker-upload-uuid"), post.header("docker-upload-uuid"));
        assert_eq!(patch.header("range"), Some(format!("0-{}", blob.bytes.len() - 1).as_str()));
        let put = with_query(&location_of(&patch), &format!("digest={}", escaped(&blob.digest)));
        require(&with_headers(actor.put(&put), &[agent]).send().await, &[201]);
        let stat = with_headers(actor.head(&blob_path(blob)), &[agent]).send().await;
        assert_eq!(
            (stat.status, stat.header("content-length")),
            (200, Some(blob.size().to_string().as_str()))
        );
    }
    let put = with_headers(actor.put(&image.tag_path()), &[agent, ("content-type", DOCKER_MANIFEST)]);
    let put = put.body(image.manifest.bytes.clone()).send().await;
    require(&put, &[201]);
    assert_eq!(put.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn podman_buildah_and_skopeo_push_by_one_patch_and_an_empty_put() {
    let hosted = Hosted::start().await;
    let own = [
        ("user-agent", "containers/5.34.0 (github.com/containers/image)"),
        ("docker-distribution-api-version", "registry/2.0"),
    ];
    let image = image("1");
    let actor = ping(&hosted, "repository:acme/app:pull,push").await;
    for (index, blob) in blobs(&image).enumerate() {
        require(&with_headers(actor.head(&blob_path(blob)), &own).send().await, &[404]);
        let post = with_headers(actor.post("/v2/acme/app/blobs/uploads/"), &own).send().await;
        require(&post, &[202]);
        let location = location_of(&post);
        let patch = if index == 0 {
            // The size of what is compressed on the way is not known.
            let mut wire = Wire::begin_chunked(&actor, "PATCH", &location, &[own[0], own[1], OCTETS]).await;
            wire.write_chunk(&blob.bytes).await;
            wire.end_chunks().await;
            wire.answer().await
        } else {
            with_headers(actor.patch(&location), &[own[0], own[1], OCTETS])
                .body(blob.bytes.clone())
                .send()
                .await
        };
        require(&patch, &[202]);
        let put = with_query(&location_of(&patch), &format!("digest={}", escaped(&blob.digest)));
        require(&with_headers(actor.put(&put), &[own[0], own[1], OCTETS]).send().await, &[201]);
    }
    let put = with_headers(actor.put(&image.tag_path()), &[own[0], own[1], ("content-type", OCI_MANIFEST)]);
    require(&put.body(image.manifest.bytes.clone()).send().await, &[201]);
    // It asks for signatures in the old place when it may, and takes 404 in the registry's JSON for none.
    let signature = format!("/v2/acme/app/manifests/{}.sig", image.manifest.digest.replace(':', "-"));
    actor.get(&signature).send().await.assert_error(404, "MANIFEST_UNKNOWN");
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn crane_ko_and_kaniko_push_by_patch_and_mount_with_an_origin() {
    let hosted = Hosted::start().await;
    let image = image("1");
    hosted.administrator().push_blob("acme/base", &image.layers[0]).await;
    let json_type = ("content-type", "application/json");
    let actor = ping(&hosted, "repository:acme/app:push,pull").await;
    let entitled = hosted.bearer(&["repository:acme/app:push,pull", "repository:acme/base:pull"]).await;
    for blob in blobs(&image) {
        require(&actor.head(&blob_path(blob)).send().await, &[404]);
        let mount = format!(
            "/v2/acme/app/blobs/uploads/?from=acme%2Fbase&mount={}&origin=registry.test",
            escaped(&blob.digest)
        );
        let answer = with_headers(entitled.post(&mount), &[json_type]).send().await;
        require(&answer, &[201, 202]);
        assert_eq!(answer.status == 201, blob.digest == image.layers[0].digest, "{answer:?}");
        if answer.status == 201 {
            continue;
        }
        let mut wire = Wire::begin_chunked(&actor, "PATCH", &location_of(&answer), &[]).await;
        wire.write_chunk(&blob.bytes).await;
        wire.end_chunks().await;
        let patch = wire.answer().await;
        require(&patch, &[202, 204, 201]);
        let put = with_query(&location_of(&patch), &format!("digest={}", escaped(&blob.digest)));
        require(&with_headers(actor.put(&put), &[OCTETS]).send().await, &[201]);
    }
    let put = with_headers(actor.put(&image.tag_path()), &[("content-type", OCI_MANIFEST)]);
    require(&put.body(image.manifest.bytes.clone()).send().await, &[200, 201, 202]);
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn oras_and_helm_push_by_one_put_and_trust_in_the_referrers() {
    let hosted = Hosted::start().await;
    let image = image("1");
    // It learns of the wanted credential from the failing request, and reuses it for the PUT.
    let refused = hosted.anonymous().post("/v2/acme/app/blobs/uploads/").send().await;
    let actor = answer_challenge(&hosted, &refused, "repository:acme/app:pull,push").await;
    for blob in blobs(&image) {
        require(&actor.head(&blob_path(blob)).send().await, &[404]);
        let post = actor.post("/v2/acme/app/blobs/uploads/").send().await;
        require(&post, &[202]);
        let put = with_query(&location_of(&post), &format!("digest={}", escaped(&blob.digest)));
        let put = with_headers(actor.put(&put), &[OCTETS]).body(blob.bytes.clone()).send().await;
        require(&put, &[201]);
    }
    let put = with_headers(actor.put(&image.tag_path()), &[("content-type", OCI_MANIFEST)]);
    let put = put.body(image.manifest.bytes.clone()).send().await;
    require(&put, &[201]);
    assert_eq!(put.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
    // Whether there are referrers at all it finds out with a digest that nothing has.
    let zero = format!("/v2/acme/app/referrers/sha256:{}", "0".repeat(64));
    let probe = actor.get(&zero).header("accept", OCI_INDEX).send().await;
    assert_eq!((probe.status, probe.header("content-type")), (200, Some(OCI_INDEX)));
    for text in ["{}".to_owned(), format!("about {}", image.manifest.digest)] {
        actor.push_blob("acme/app", &Content::of("text/plain", text)).await;
    }
    let artifact = artifact_about(&image.manifest, "application/vnd.example.sbom");
    let answer = actor.push_manifest("acme/app", &artifact.digest, &artifact).await;
    assert_eq!(answer.header("oci-subject"), Some(image.manifest.digest.as_str()), "or it writes a tag");
    let head = actor.head(&image.tag_path()).header("accept", OCI_MANIFEST).send().await;
    for name in ["content-type", "content-length", "docker-content-digest"] {
        assert!(head.header(name).is_some(), "{name}: {head:?}");
    }
}

#[tokio::test]
async fn regclient_mounts_without_from_and_goes_on_where_it_is_told() {
    let hosted = Hosted::start().await;
    let image = image("1");
    let refused = hosted.anonymous().post("/v2/acme/app/blobs/uploads/").send().await;
    let actor = answer_challenge(&hosted, &refused, "repository:acme/app:pull,push").await;
    for (index, blob) in blobs(&image).enumerate() {
        let mount = format!("/v2/acme/app/blobs/uploads/?mount={}", escaped(&blob.digest));
        let answer = actor.post(&mount).header("content-length", "0").send().await;
        require(&answer, &[201, 202]);
        let location = location_of(&answer);
        if index > 0 {
            let put = with_query(&location, &format!("digest={}", escaped(&blob.digest)));
            require(
                &with_headers(actor.put(&put), &[OCTETS]).body(blob.bytes.clone()).send().await,
                &[201, 204],
            );
            continue;
        }
        // The chunked way, with a chunk that was lost.
        require(&actor.send_chunk(&location, 0, &blob.bytes[..30_000]).await, &[202]);
        let gap = actor.send_chunk(&location, 60_000, &blob.bytes[60_000..]).await;
        assert!((400..500).contains(&gap.status), "{gap:?}");
        let status = actor.get(&location).send().await;
        require(&status, &[204]);
        assert_eq!(status.header("range"), Some("0-29999"));
        let rest = actor.send_chunk(&location_of(&status), 30_000, &blob.bytes[30_000..]).await;
        require(&rest, &[202]);
        assert_eq!(rest.header("range"), Some("0-69999"));
        require(
            &actor.close_upload(&location_of(&rest), &escaped(&blob.digest), &Bytes::new()).await,
            &[201, 204],
        );
    }
    actor.push_manifest("acme/app", "1", &image.manifest).await;
    let sha512 = Content::blob(9, 3000);
    let post = actor.post("/v2/acme/app/blobs/uploads/?digest-algorithm=sha512").send().await;
    require(&post, &[202]);
    let close = actor.close_upload(&location_of(&post), &escaped(&sha512.sha512()), &sha512.bytes).await;
    require(&close, &[201, 204]);
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn jib_pushes_by_patch_with_scopes_that_are_not_escaped() {
    let hosted = Hosted::start().await;
    let image = image("1");
    let refused = hosted.anonymous().post("/v2/acme/app/blobs/uploads/").send().await;
    let service = parameter(refused.header("www-authenticate").unwrap(), "service").unwrap();
    let scopes = "scope=repository:acme/app:pull,push&scope=repository:acme/base:pull";
    let path = format!("/token?service={service}&{scopes}");
    let token = hosted.anonymous().get(&path).header("authorization", &basic(&hosted)).send().await;
    assert_eq!(token.status, 200, "{token:?}");
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let actor = hosted.actor(Some(format!("Bearer {token}")));
    for blob in blobs(&image) {
        require(&actor.head(&blob_path(blob)).header("accept", "").send().await, &[404]);
        let mount = format!("/v2/acme/app/blobs/uploads/?mount={}&from=acme/base", blob.digest);
        let post = with_headers(actor.post(&mount), &[OCTETS, ("accept", "")]).send().await;
        require(&post, &[202]);
        let patch = with_headers(actor.patch(&location_of(&post)), &[OCTETS, ("accept", "")]);
        let patch = patch.body(blob.bytes.clone()).send().await;
        require(&patch, &[202]);
        let put = with_query(&location_of(&patch), &format!("digest={}", blob.digest));
        require(&with_headers(actor.put(&put), &[("accept", "")]).send().await, &[201]);
    }
    let put = with_headers(actor.put(&image.tag_path()), &[("content-type", OCI_MANIFEST), ("accept", "")]);
    let put = put.body(image.manifest.bytes.clone()).send().await;
    require(&put, &[201]);
    assert_eq!(put.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn rust_oci_client_pushes_in_chunks_with_ranges() {
    let hosted = Hosted::start().await;
    let image = image("1");
    let actor = ping(&hosted, "repository:acme/app:pull,push").await;
    for blob in blobs(&image) {
        let post = actor.post("/v2/acme/app/blobs/uploads/").header("content-length", "0").send().await;
        require(&post, &[202]);
        let mut location = location_of(&post);
        for (index, part) in blob.bytes.chunks(16_384).enumerate() {
            let patch = actor.send_chunk(&location, index * 16_384, part).await;
            require(&patch, &[202]);
            location = location_of(&patch);
        }
        let put = with_query(&location, &format!("digest={}", blob.digest));
        require(&actor.put(&put).header("content-length", "0").send().await, &[201]);
    }
    let put = with_headers(actor.put(&image.tag_path()), &[("content-type", OCI_MANIFEST)]);
    require(&put.body(image.manifest.bytes.clone()).send().await, &[201]);
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn a_helm_chart_is_kept_and_found_by_its_version() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let config = Content::of(
        "application/vnd.cncf.helm.config.v1+json",
        r#"{"name":"chart","version":"1.2.3+build.4"}"#,
    );
    let mut layer = Content::blob(1, 4000);
    layer.media_type = "application/vnd.cncf.helm.chart.content.v1.tar+gzip".to_owned();
    let provenance = Content::of("application/vnd.cncf.helm.chart.provenance.v1.prov", "signed");
    for blob in [&config, &layer, &provenance] {
        admin.push_blob("acme/charts/chart", blob).await;
    }
    let manifest = json!({
        "schemaVersion": 2, "config": config.descriptor(), "layers": [provenance.descriptor(), layer.descriptor()],
        "annotations": { "org.opencontainers.image.title": "chart" },
    });
    let manifest = Content::json(OCI_MANIFEST, &manifest);
    // A plus sign is no part of a tag.
    admin.push_manifest("acme/charts/chart", "1.2.3_build.4", &manifest).await;
    assert_eq!(hosted.anonymous().tags("acme/charts/chart").await, ["1.2.3_build.4"]);
    let pulled =
        hosted.anonymous().get("/v2/acme/charts/chart/manifests/1.2.3_build.4").accept(&[OCI_MANIFEST]);
    let pulled = pulled.send().await;
    assert_eq!((pulled.header("content-type"), &pulled.body), (Some(OCI_MANIFEST), &manifest.bytes));
    assert_eq!(hosted.anonymous().blob("acme/charts/chart", &layer.digest).await.body, layer.bytes);
}

/// A signature as cosign makes it.
fn signature(subject: &Content, bundle: bool) -> (Vec<Content>, Content) {
    let layer_type = if bundle {
        "application/vnd.dev.sigstore.bundle.v0.3+json"
    } else {
        "application/vnd.dev.cosign.simplesigning.v1+json"
    };
    let layer = Content::of(layer_type, format!("{{\"critical\":{{\"image\":\"{}\"}}}}", subject.digest));
    let config =
        Content::of("application/vnd.oci.image.config.v1+json", "{\"rootfs\":{\"type\":\"layers\"}}");
    let mut manifest: Value = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": [layer.descriptor()],
    });
    if bundle {
        manifest["artifactType"] = json!(layer_type);
        manifest["subject"] = subject.descriptor();
    } else {
        manifest["layers"][0]["annotations"] = json!({ "dev.cosignproject.cosign/signature": "MEUCIQ" });
    }
    (vec![layer, config], Content::json(OCI_MANIFEST, &manifest))
}

#[tokio::test]
async fn cosign_signs_by_tag_and_by_referrer() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = image("1");
    admin.push_image(&image).await;
    let tag = format!("{}.sig", image.manifest.digest.replace(':', "-"));
    hosted.anonymous().manifest("acme/app", &tag).await.assert_error(404, "MANIFEST_UNKNOWN");
    for (bundle, reference) in [(false, tag.as_str()), (true, "")] {
        let (blobs, manifest) = signature(&image.manifest, bundle);
        for blob in &blobs {
            admin.push_blob("acme/app", blob).await;
        }
        let reference = if bundle { &manifest.digest } else { reference };
        admin.push_manifest("acme/app", reference, &manifest).await;
        let pulled = hosted.anonymous().manifest("acme/app", reference).await;
        assert_eq!(pulled.body, manifest.bytes);
        assert_eq!(hosted.anonymous().blob("acme/app", &blobs[0].digest).await.body, blobs[0].bytes);
        let path = format!("/v2/acme/app/referrers/{}", image.manifest.digest);
        let list = hosted.anonymous().get(&path).header("accept", OCI_INDEX).send().await;
        assert_eq!(list.header("content-type"), Some(OCI_INDEX));
        let listed = list.json()["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["digest"] == manifest.digest.as_str());
        assert_eq!(listed, bundle);
    }
}
