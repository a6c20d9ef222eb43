//! Bundles that are damaged, forged, signed by nobody who may, or that this node has no place for.

use http::Method;
use serde_json::{Value, json};
use tidegate::bundle::{self, Contents, Head, Item, ItemKind, Request, Role};
use tidegate::oci::{Algorithm, Digest, MediaType};

use super::{Sites, assert_done, assert_refused, one_image, run, text};
use crate::content::{Content, OCI_INDEX, OCI_MANIFEST};
use crate::harness::{Section, Setup};

/// Where the entries of a tar begin, with their names.
fn entries(tar: &[u8]) -> Vec<(usize, String)> {
    let (mut at, mut found) = (0, Vec::new());
    while tar[at] != 0 {
        let field = |range: std::ops::Range<usize>| {
            text(&tar[at + range.start..at + range.end]).trim_end_matches('\0').to_owned()
        };
        let size = usize::from_str_radix(&field(124..136), 8).unwrap();
        found.push((at, field(0..100)));
        at += 512 + size.next_multiple_of(512);
    }
    found
}

#[tokio::test]
async fn import_refuses_a_bundle_with_a_wrong_byte_anywhere() {
    let sites = Sites::start().await;
    let (image, whole) = one_image(&sites).await;
    let entries = entries(&whole);
    assert_eq!(entries[0].1, "oci-layout");
    // In every header, at the beginning, in the middle and at the end of every entry, and in the end.
    let mut places: Vec<usize> = vec![whole.len() - 1, whole.len() - 700];
    for (index, (at, _)) in entries.iter().enumerate() {
        let next = entries.get(index + 1).map_or(whole.len() - 1024, |(next, _)| *next);
        places.extend([*at, at + 130, at + 156, at + 300, at + 512, (at + 512).midpoint(next), next - 1]);
    }
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x20;
        std::fs::write(sites.path("bad.tar"), &bytes).unwrap();
        let output = sites.import(&["bad.tar"]).await;
        assert_eq!(output.status.code(), Some(1), "byte {place}: {output:?}");
        assert!(text(&output.stderr).contains("bad.tar is not imported: "), "byte {place}: {output:?}");
    }
    sites.assert_nothing_visible(&image).await;
    assert_done(&sites.import(&["whole.tar"]).await);
    sites.far.pull(&image).await;
}

#[tokio::test]
async fn import_refuses_what_is_cut_swapped_or_longer() {
    let sites = Sites::start().await;
    let (image, whole) = one_image(&sites).await;
    let entries = entries(&whole);
    let blobs: Vec<_> = entries.iter().filter(|(_, name)| name.starts_with("blobs/")).collect();
    let [.., one, other] = blobs[..] else { panic!("{entries:?}") };
    let end = whole.len() - 1024;
    let swapped = [&whole[..one.0], &whole[other.0..end], &whole[one.0..other.0], &whole[end..]].concat();
    let left_out = [&whole[..other.0], &whole[end..]].concat();
    let twice = [&whole[..end], &whole[other.0..]].concat();
    let two = [&whole[..], &whole[..]].concat();
    let foreign = [&whole[..one.0], &whole[entries[0].0..entries[1].0], &whole[one.0..]].concat();
    for (bytes, reason) in [
        (swapped, "is expected, and there is"),
        (left_out, "the end of the archive"),
        (twice, "is expected, and there is"),
        (two, "more data behind the bundle's end"),
        (foreign, "the file \"oci-layout\""),
        (Vec::new(), "cut off within oci-layout"),
        (b"not a tar at all".repeat(100), "this is not a bundle"),
    ] {
        std::fs::write(sites.path("bad.tar"), &bytes).unwrap();
        assert_refused(&sites.import(&["bad.tar"]).await, reason);
    }
    for length in [1, 511, 512, 1200, one.0, one.0 + 512, other.0 + 700, end, end + 512, whole.len() - 1] {
        std::fs::write(sites.path("bad.tar"), &whole[..length]).unwrap();
        assert_refused(&sites.import(&["bad.tar"]).await, "cut off within");
    }
    sites.assert_nothing_visible(&image).await;
    assert_refused(&sites.import(&["no-such-file.tar"]).await, "open no-such-file.tar");
}

#[tokio::test]
async fn import_wants_the_signature_that_is_asked_for() {
    let sites = Sites::start().await;
    let image = sites.upstream.make_image("library/app", "1", &[3000]);
    for name in ["own.key", "other.key"] {
        assert_done(&run(sites.road.path(), "", &["key", "create", "--output", name]).await);
    }
    sites.export_all("unsigned.tar", &["app:1"]).await;
    sites.export_all("signed.tar", &["app:1", "--sign", "own.key"]).await;
    let refused = sites.import(&["--verify-key", "own.key.pub", "unsigned.tar"]).await;
    assert_refused(&refused, "the bundle is not signed, and a signature by ed25519:");
    let refused = sites.import(&["--verify-key", "other.key.pub", "signed.tar"]).await;
    assert_refused(&refused, "the bundle is signed by ed25519:");
    // Altered so that it agrees with itself, but not with its signature.
    let bytes = std::fs::read(sites.path("signed.tar")).unwrap();
    let place = bytes.windows(8).position(|window| window == b"\"images\"").unwrap();
    let altered = [&bytes[..place], b"\"imagfs\"", &bytes[place + 8..]].concat();
    std::fs::write(sites.path("altered.tar"), altered).unwrap();
    assert_eq!(sites.import(&["altered.tar"]).await.status.code(), Some(1));
    let field = b"\"observed_at_ms\": 1";
    let place = bytes.windows(field.len()).position(|window| window == field).unwrap();
    let mut altered = bytes.clone();
    altered[place + field.len() - 1] = b'2';
    std::fs::write(sites.path("altered.tar"), altered).unwrap();
    assert_refused(&sites.import(&["altered.tar"]).await, "signature is not valid");
    sites.assert_nothing_visible(&image).await;
    let key = std::fs::read_to_string(sites.path("own.key.pub")).unwrap();
    let done =
        sites.import(&["--verify-key", "other.key.pub", "--verify-key", key.trim(), "signed.tar"]).await;
    assert_done(&done);
    assert!(text(&done.stdout).contains(&format!("signed by {}", key.trim())), "{done:?}");
    sites.far.pull(&image).await;
    // What the configuration wants, nobody can leave out.
    let strict = Setup::new().site(&format!("offline = true\nbundle_keys = [{:?}]", key.trim()));
    let strict = strict.upstream(Section::hub(&sites.upstream)).with_warnings().start().await;
    let server = strict.admin_url();
    let refused = run(sites.road.path(), &server, &["import", "unsigned.tar"]).await;
    assert_refused(&refused, "a signature by ed25519:");
    let other = ["import", "--verify-key", "other.key.pub", "signed.tar"];
    assert_refused(&run(sites.road.path(), &server, &other).await, "the bundle is signed by");
    assert_done(&run(sites.road.path(), &server, &["import", "signed.tar"]).await);
    strict.pull(&image).await;
}

#[tokio::test]
async fn import_refuses_names_that_mean_nothing_and_what_has_no_room() {
    let sites = Sites::start_with(|far| far.max_size("1MiB")).await;
    let image = sites.upstream.make_image("library/app", "1", &[1_200_000]);
    sites.export_all("large.tar", &["app:1"]).await;
    assert_refused(&sites.import(&["large.tar"]).await, "storage.max_size is 1048576: raise it");
    sites.assert_nothing_visible(&image).await;
    let small = sites.upstream.make_image("library/small", "1", &[10]);
    sites.export_all("small.tar", &["small:1"]).await;
    let other = Setup::new().upstream(Section::of_url("other.test", "https://other.invalid"));
    let other = other.with_warnings().start().await;
    let refused = run(sites.road.path(), &other.admin_url(), &["import", "small.tar"]).await;
    assert_refused(
        &refused,
        "hub.test/library/small:1 cannot be served here: registry hub.test is not configured",
    );
    let crowded = Setup::new().upstream(Section::hub(&sites.upstream)).storage("min_free = \"1000TiB\"");
    let crowded = crowded.with_warnings().start().await;
    let refused = run(sites.road.path(), &crowded.admin_url(), &["import", "small.tar"]).await;
    assert_refused(&refused, "are to stay so (storage.min_free), and 0 to evict: make room");
    assert_done(&sites.import(&["small.tar"]).await);
    sites.far.pull(&small).await;
    // Nobody else's machine, and no page in a browser.
    let call = sites.far.admin().call(Method::POST, "/api/v1/import").header("origin", "http://evil.invalid");
    assert_eq!(call.send().await.status, 403);
    assert_eq!(sites.far.admin().get("/api/v1/import").send().await.status, 405);
}

/// Changes a description and the entries of the items behind it.
type Forgery = dyn Fn(&mut Value, &mut Vec<Vec<u8>>);

/// Puts another description and other items into a bundle that is not signed, as somebody could who means harm.
fn forge(whole: &[u8], change: impl FnOnce(&mut Value, &mut Vec<Vec<u8>>)) -> Vec<u8> {
    let places = entries(whole);
    let end = whole.len() - 1024;
    let entry = |index: usize| {
        let next = places.get(index + 1).map_or(end, |(next, _)| *next);
        whole[places[index].0..next].to_vec()
    };
    let description = places.iter().position(|(_, name)| name == "tidegate/contents.json").unwrap();
    let mut items: Vec<_> = (description + 1..places.len()).map(entry).collect();
    let old = entry(description);
    let json = text(&old[512..]).trim_end_matches('\0');
    let mut contents: Value = serde_json::from_str(json).unwrap();
    change(&mut contents, &mut items);
    let json = contents.to_string();
    let mut forged =
        [&whole[..places[description].0], &header(&old[..512], json.len())[..], json.as_bytes()].concat();
    forged.resize(forged.len().next_multiple_of(512), 0);
    forged.extend(items.concat());
    forged.extend([0; 1024]);
    forged
}

/// The header of a tar entry, for another size.
fn header(old: &[u8], size: usize) -> Vec<u8> {
    let mut header = old.to_vec();
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[tokio::test]
async fn import_refuses_what_agrees_with_itself_and_is_not_whole() {
    let sites = Sites::start().await;
    let (image, whole) = one_image(&sites).await;
    let cases: [(&str, &Forgery); 5] = [
        ("bundle is not complete", &|contents, items| {
            contents["content"].as_array_mut().unwrap().pop();
            items.pop();
        }),
        ("which belongs to none of its images", &|contents, items| {
            let stray = Content::blob(99, 700);
            let path = format!("blobs/{}", stray.digest.replace(':', "/"));
            let mut entry = items[1][..512].to_vec();
            entry[..path.len()].copy_from_slice(path.as_bytes());
            let mut entry = [&header(&entry, 700)[..], &stray.bytes].concat();
            entry.resize(512 + 1024, 0);
            // In order, as the format wants it; the manifest stays first.
            let content = contents["content"].as_array_mut().unwrap();
            let is_after = |item: &Value| item["digest"].as_str().unwrap() > stray.digest.as_str();
            let place = content.iter().skip(1).position(is_after).map_or(content.len(), |place| place + 1);
            content.insert(place, json!({ "kind": "blob", "digest": stray.digest, "size_bytes": 700 }));
            items.insert(place, entry);
        }),
        ("description of the bundle's contents is wrong", &|contents, _| {
            contents["images"][0]["digest"] = Content::blob(1, 1).digest.into();
        }),
        ("cannot be read", &|contents, _| contents["more"] = json!(1)),
        ("version 2 of the format", &|contents, _| contents["version"] = json!(2)),
    ];
    for (reason, change) in cases {
        std::fs::write(sites.path("bad.tar"), forge(&whole, change)).unwrap();
        let refused = sites.import(&["bad.tar"]).await;
        assert_eq!(refused.status.code(), Some(1), "{reason}");
        let told = text(&refused.stderr);
        assert!(told.contains(reason), "{reason} in {told}");
    }
    sites.assert_nothing_visible(&image).await;
    let same = forge(&whole, |_, _| {});
    std::fs::write(sites.path("same.tar"), same).unwrap();
    assert_done(&sites.import(&["same.tar"]).await);
}

#[tokio::test]
async fn import_says_why_also_where_most_of_the_bundle_was_not_read() {
    let sites = Sites::start().await;
    sites.upstream.make_image("library/app", "1", &[30 << 20]);
    sites.export_all("large.tar", &["app:1"]).await;
    assert_done(&run(sites.road.path(), "", &["key", "create", "--output", "own.key"]).await);
    for _ in 0..10 {
        let refused = sites.import(&["--verify-key", "own.key.pub", "large.tar"]).await;
        assert_refused(&refused, "the bundle is not signed");
    }
}

/// A bundle of one index that lists `children`, under these names.
fn wide(names: &[String], children: usize) -> Vec<u8> {
    let listed = |number: usize| {
        let digest = Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        json!({ "mediaType": OCI_MANIFEST, "digest": digest.to_string(), "size": 1 })
    };
    let manifests: Vec<_> = (0..children).map(listed).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }).to_string();
    let digest = Digest::of(Algorithm::Sha256, index.as_bytes());
    let media_type = MediaType::parse(OCI_INDEX);
    let item = Item { kind: ItemKind::Manifest, digest, size_bytes: index.len() as u64, media_type };
    let image = |name: &String| bundle::Image {
        repository: name.parse().unwrap(),
        tag: Some("1".parse().unwrap()),
        digest,
        observed_at_ms: 1,
        role: Role::Image,
    };
    let contents = Contents {
        version: Contents::VERSION,
        signed_by: None,
        base: None,
        request: Request::default(),
        images: names.iter().map(image).collect(),
        referrers: Vec::new(),
        content: vec![item.clone()],
        from_base: Vec::new(),
    };
    let mut bundle = Head::new(contents, None).unwrap().to_bytes();
    bundle.extend([bundle::item_header(&item), index.into_bytes()].concat());
    bundle.resize(bundle.len() + bundle::padding(item.size_bytes) + bundle::END_BYTES, 0);
    bundle
}

#[tokio::test]
async fn import_of_a_bundle_that_means_harm_is_refused_in_bounded_memory() {
    let sites = Sites::start().await;
    let (image, whole) = one_image(&sites).await;
    let before = sites.far.peak_memory_bytes();
    // Small as text, large as values.
    let deep =
        forge(&whole, |contents, _| contents["referrers"][0]["descriptors"] = json!(vec![0; 8_000_000]));
    std::fs::write(sites.path("deep.tar"), deep).unwrap();
    assert_refused(&sites.import(&["deep.tar"]).await, "it has more than 1048576 values");
    // Each of many repositories would have all that a large index lists: forty million rights.
    let names: Vec<_> = (0..10_000).map(|number| format!("hub.test/team/{number}")).collect();
    std::fs::write(sites.path("wide.tar"), wide(&names, 4_000)).unwrap();
    assert_refused(&sites.import(&["wide.tar"]).await, "more than 262144 parts");
    let used_bytes = sites.far.peak_memory_bytes() - before;
    assert!(used_bytes < 256 << 20, "{used_bytes}");
    sites.assert_nothing_visible(&image).await;
}
