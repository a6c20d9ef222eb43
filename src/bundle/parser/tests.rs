use serde_json::json;

use super::*;
use crate::bundle::{Base, Image, ItemKind, Referrers, Request, Role, SigningKey};
use crate::oci::{Algorithm, Digest, MediaType};

/// Makes a description wrong.
type Spoil = fn(&mut Contents);

const CONTENT: [(ItemKind, Algorithm, &[u8]); 4] = [
    (ItemKind::Manifest, Algorithm::Sha256, b"{\"manifest\":1}"),
    (ItemKind::Blob, Algorithm::Sha256, b""),
    (ItemKind::Blob, Algorithm::Sha256, &[7; 1024]),
    (ItemKind::Blob, Algorithm::Sha512, &[8; 700]),
];

fn item((kind, algorithm, content): (ItemKind, Algorithm, &[u8])) -> Item {
    let media_type = (kind == ItemKind::Manifest).then_some(MediaType::OCI_MANIFEST);
    let digest = Digest::of(algorithm, content);
    Item { kind, digest, size_bytes: content.len() as u64, media_type }
}

fn sorted() -> Vec<(Item, &'static [u8])> {
    let mut items: Vec<_> = CONTENT.map(|content| (item(content), content.2)).into();
    items.sort_by_key(|(item, _)| (item.kind, item.digest));
    items
}

fn contents() -> Contents {
    let manifest = item(CONTENT[0]).digest;
    Contents {
        version: Contents::VERSION,
        signed_by: None,
        base: None,
        request: Request::default(),
        images: vec![Image {
            repository: "hub.test/library/app".parse().unwrap(),
            tag: Some("1".parse().unwrap()),
            digest: manifest,
            observed_at_ms: 5,
            role: Role::Image,
        }],
        referrers: vec![Referrers {
            repository: "hub.test/library/app".parse().unwrap(),
            subject: manifest,
            observed_at_ms: 6,
            descriptors: Vec::new(),
        }],
        content: sorted().into_iter().map(|(item, _)| item).collect(),
        from_base: Vec::new(),
    }
}

fn bundle_of(head: &Head) -> Vec<u8> {
    let mut bytes = head.to_bytes();
    for (item, content) in sorted() {
        bytes.extend(item_header(&item));
        bytes.extend(content);
        bytes.resize(bytes.len() + padding(item.size_bytes), 0);
    }
    bytes.resize(bytes.len() + END_BYTES, 0);
    bytes
}

fn bundle() -> Vec<u8> {
    bundle_of(&Head::new(contents(), None).unwrap())
}

/// Reads a bundle in parts of some size; gives the contents that were read, in order.
fn read_in_parts(bundle: &[u8], step: usize) -> Result<Vec<Vec<u8>>> {
    let mut parser = BundleParser::default();
    let mut read: Vec<Vec<u8>> = Vec::new();
    for part in bundle.chunks(step) {
        let mut input = Bytes::copy_from_slice(part);
        while let Some(event) = parser.read(&mut input)? {
            match event {
                Event::Begin(place) => {
                    assert_eq!(place, read.len());
                    read.push(Vec::new());
                }
                Event::Data(data) => read.last_mut().unwrap().extend(data),
                Event::End(place) => assert_eq!(place + 1, read.len()),
                Event::Head(_) => assert!(read.is_empty()),
            }
        }
        assert!(input.is_empty());
    }
    parser.finish()?;
    Ok(read)
}

fn error_of(bundle: &[u8]) -> String {
    read_in_parts(bundle, 4096).unwrap_err().to_string()
}

/// The bundle with one entry's header replaced.
fn with_header(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bundle = bundle();
    let place = bundle.windows(old.len()).position(|window| window == old).unwrap();
    bundle[place..place + new.len()].copy_from_slice(new);
    bundle
}

#[test]
fn a_bundle_reads_back_in_parts_of_any_size() {
    let bundle = bundle();
    let expected: Vec<_> = sorted().into_iter().map(|(_, content)| content.to_vec()).collect();
    for step in [1, 7, 512, 1 << 20] {
        assert_eq!(read_in_parts(&bundle, step).unwrap(), expected);
    }
    assert_eq!(Head::new(contents(), None).unwrap().bundle_bytes(), bundle.len() as u64);
    assert_eq!(bundle, self::bundle(), "the same content makes the same bytes");
}

#[test]
fn a_bundle_that_is_cut_anywhere_is_truncated() {
    let bundle = bundle();
    for end in (0..bundle.len()).step_by(97).chain([bundle.len() - 1]) {
        let error = read_in_parts(&bundle[..end], 1000).unwrap_err();
        assert!(matches!(error, BundleError::Truncated(_)), "{end}: {error}");
    }
}

#[test]
fn junk_behind_the_end_is_refused() {
    let mut bundle = bundle();
    bundle.push(0);
    assert!(matches!(read_in_parts(&bundle, 512), Err(BundleError::Trailing)));
}

#[test]
fn no_byte_outside_of_contents_can_be_altered() {
    let bundle = bundle();
    let contents: Vec<_> = sorted().into_iter().map(|(_, content)| content).collect();
    for place in (0..bundle.len()).step_by(13) {
        let mut altered = bundle.clone();
        altered[place] ^= 0x20;
        if let Ok(read) = read_in_parts(&altered, 4096) {
            assert_ne!(read, contents, "byte {place} counts for nothing");
        }
    }
}

#[test]
fn what_the_description_does_not_say_is_no_entry() {
    let first = item(CONTENT[0]);
    let header = item_header(&first);
    let mut link = header.clone();
    link[156] = b'2';
    let sum: u32 = link
        .iter()
        .enumerate()
        .map(|(place, byte)| if (148..156).contains(&place) { 32 } else { u32::from(*byte) })
        .sum();
    link[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let twice = item_header(&sorted()[1].0);
    for (new, told) in [
        (link, "the link \"blobs/sha256/"),
        (tar::header("../../etc/passwd", first.size_bytes), "the file \"../../etc/passwd\""),
        (tar::header("/etc/passwd", first.size_bytes), "the file \"/etc/passwd\""),
        (tar::header(&first.path(), 1 << 40), "an extended header"),
        (twice, "the file \"blobs/sha256/a99c"),
        (vec![0; BLOCK], "the end of the archive"),
        (vec![b'x'; BLOCK], "no header of a tar archive"),
    ] {
        let error = error_of(&with_header(&header, &new[..BLOCK]));
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn something_else_is_no_bundle() {
    for bytes in [vec![b'x'; 4096], tar::header("manifest.json", 10), vec![0; 4096]] {
        let error = error_of(&bytes);
        assert!(error.contains("not a bundle of tidegate"), "{error}");
    }
}

#[test]
fn a_description_of_any_size_is_not_read() {
    let mut bytes = tar::header(LAYOUT_PATH, LAYOUT.len() as u64);
    bytes.extend(LAYOUT);
    bytes.resize(bytes.len() + padding(LAYOUT.len() as u64), 0);
    bytes.extend(tar::header(INDEX_PATH, 17 << 20));
    assert!(error_of(&bytes).contains("split the bundle"));
}

#[test]
fn a_signature_is_checked_and_can_be_required() {
    let (key, _) = SigningKey::generate().unwrap();
    let (other, _) = SigningKey::generate().unwrap();
    let signed = Head::new(contents(), Some(&key)).unwrap();
    read_in_parts(&bundle_of(&signed), 4096).unwrap();
    assert!(signed.require_signature(&[other.public(), key.public()]).is_ok());
    assert!(matches!(signed.require_signature(&[other.public()]), Err(BundleError::OtherKey { .. })));
    let plain = Head::new(contents(), None).unwrap();
    assert!(plain.require_signature(&[]).is_ok());
    assert!(matches!(plain.require_signature(&[key.public()]), Err(BundleError::Unsigned { .. })));

    let index = index_of(&signed);
    let altered = String::from_utf8(signed.json.clone())
        .unwrap()
        .replace("\"observed_at_ms\": 5", "\"observed_at_ms\": 9");
    let signature = base64_of(signed.signature.as_ref().unwrap());
    let result = Head::from_parts(altered.into_bytes(), &index, Some(&signature));
    assert!(matches!(result, Err(BundleError::Signature)));
    assert!(matches!(Head::from_parts(signed.json.clone(), &index, None), Err(BundleError::Signature)));
}

#[test]
fn a_description_that_contradicts_itself_is_refused() {
    let wrongs: [(Spoil, &str); 8] = [
        (|contents| contents.content.reverse(), "out of order"),
        (|contents| contents.content.insert(0, contents.content[0].clone()), "twice"),
        (|contents| contents.from_base.push(contents.content[1].clone()), "no base"),
        (|contents| contents.images.push(contents.images[0].clone()), "twice"),
        (|contents| contents.images[0].digest = Digest::of(Algorithm::Sha256, b"?"), "not listed"),
        (|contents| contents.images[0].digest = contents.content[1].digest, "not listed"),
        (|contents| contents.content[0].media_type = None, "no type"),
        (|contents| contents.content[1].size_bytes = u64::MAX, "more than there can be"),
    ];
    for (spoil, told) in wrongs {
        let mut contents = contents();
        spoil(&mut contents);
        if told == "no base" {
            contents.content.remove(1);
        }
        let error = Contents::parse(&serde_json::to_vec(&contents).unwrap()).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    let later = json!({ "version": 2, "news": true });
    assert!(matches!(Contents::parse(later.to_string().as_bytes()), Err(BundleError::Version(2))));
    let mut twice = contents();
    twice.base = Some(Base { id: twice.images[0].digest, file: "old.tar".to_owned() });
    twice.from_base.push(twice.content[1].clone());
    assert!(Head::new(twice, None).unwrap_err().to_string().contains("listed twice"));
}

fn index_of(head: &Head) -> Vec<u8> {
    crate::bundle::index::index_json(head.contents())
}

fn base64_of(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes()
}
