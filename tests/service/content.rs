//! Content as registries hold it: deterministic blobs, manifests of every kind, whole images.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
pub(crate) const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub(crate) const OCTETS: &str = "application/octet-stream";

/// The `Accept` lines of podman and skopeo: every type there is.
pub(crate) const ALL_TYPES: [&str; 6] =
    [OCI_MANIFEST, DOCKER_MANIFEST, SCHEMA1_SIGNED, SCHEMA1, DOCKER_LIST, OCI_INDEX];

/// Bytes with their type and digest.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
    pub(crate) digest: String,
}

impl Content {
    /// A blob of pseudo-random bytes that only the seed and the size decide.
    pub(crate) fn blob(seed: u64, size_bytes: usize) -> Self {
        Self::of(OCTETS, pseudo_random(seed, size_bytes))
    }

    /// Content of these bytes, named by their sha256.
    pub(crate) fn of(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        Self { media_type: media_type.to_owned(), bytes, digest }
    }

    /// Content of this JSON, indented as registries' clients write it, so that re-encoding it would
    /// change its digest.
    pub(crate) fn json(media_type: &str, value: &Value) -> Self {
        Self::of(media_type, serde_json::to_vec_pretty(value).unwrap())
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }

    pub(crate) fn sha512(&self) -> String {
        sha512(&self.bytes)
    }

    /// A digest of right form that this content does not have: the last hexadecimal digit differs.
    pub(crate) fn another_digest(&self) -> String {
        let mut digest = self.digest.clone();
        let last = digest.pop();
        digest.push(if last == Some('0') { '1' } else { '0' });
        digest
    }
}

/// An image in one repository.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) manifest: Content,
    pub(crate) config: Content,
    pub(crate) layers: Vec<Content>,
}

impl Image {
    /// An OCI image with layers of these sizes; other repositories, tags and sizes make other bytes.
    pub(crate) fn oci(repository: &str, tag: &str, layer_sizes: &[usize]) -> Self {
        Self::build(repository, tag, layer_sizes, OCI_MANIFEST)
    }

    /// The same as Docker's version 2, schema 2.
    pub(crate) fn docker(repository: &str, tag: &str, layer_sizes: &[usize]) -> Self {
        Self::build(repository, tag, layer_sizes, DOCKER_MANIFEST)
    }

    /// An OCI image of given layers.
    pub(crate) fn of_layers(repository: &str, tag: &str, layers: Vec<Content>) -> Self {
        Self::assemble(repository, tag, layers, OCI_MANIFEST)
    }

    fn build(repository: &str, tag: &str, layer_sizes: &[usize], media_type: &str) -> Self {
        let seed = seed_of(&format!("{repository}:{tag}:{media_type}"));
        let layers = (0_u64..)
            .zip(layer_sizes)
            .map(|(index, &size)| Content::blob(seed.wrapping_add(index), size))
            .collect();
        Self::assemble(repository, tag, layers, media_type)
    }

    fn assemble(repository: &str, tag: &str, layers: Vec<Content>, media_type: &str) -> Self {
        let docker = media_type == DOCKER_MANIFEST;
        let config_type = if docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        let layer_type = if docker {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        } else {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        };
        let config = Content::json(
            config_type,
            &json!({ "architecture": "amd64", "os": "linux", "config": { "Env": [format!("IMAGE={repository}:{tag}")] } }),
        );
        let listed: Vec<Value> = layers
            .iter()
            .map(
                |layer| json!({ "mediaType": layer_type, "digest": layer.digest, "size": layer.bytes.len() }),
            )
            .collect();
        let manifest = Content::json(
            media_type,
            &json!({ "schemaVersion": 2, "mediaType": media_type, "config": config.descriptor(), "layers": listed }),
        );
        Self { repository: repository.to_owned(), tag: tag.to_owned(), manifest, config, layers }
    }

    /// The path of the manifest by tag, for a client that names no registry.
    pub(crate) fn tag_path(&self) -> String {
        format!("/v2/{}/manifests/{}", self.repository, self.tag)
    }

    /// The path of the manifest by digest.
    pub(crate) fn digest_path(&self) -> String {
        format!("/v2/{}/manifests/{}", self.repository, self.manifest.digest)
    }

    /// The path of a layer.
    pub(crate) fn layer_path(&self, index: usize) -> String {
        self.blob_path(&self.layers[index])
    }

    /// The path of a blob in this image's repository.
    pub(crate) fn blob_path(&self, blob: &Content) -> String {
        format!("/v2/{}/blobs/{}", self.repository, blob.digest)
    }
}

/// An index (or Docker list) over images for `linux/amd64`, `linux/arm64` and so on.
pub(crate) fn index_of(media_type: &str, images: &[&Image]) -> Content {
    let architectures = ["amd64", "arm64", "s390x", "riscv64"];
    let manifests: Vec<Value> = images
        .iter()
        .zip(architectures)
        .map(|(image, architecture)| {
            let mut descriptor = image.manifest.descriptor();
            descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
            descriptor
        })
        .collect();
    Content::json(media_type, &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }))
}

/// An artifact of this type that refers to `subject`.
pub(crate) fn artifact_about(subject: &Content, artifact_type: &str) -> Content {
    let empty = Content::of("application/vnd.oci.empty.v1+json", "{}");
    let note = Content::of("text/plain", format!("about {}", subject.digest));
    Content::json(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
            "config": empty.descriptor(), "layers": [note.descriptor()], "subject": subject.descriptor(),
        }),
    )
}

/// A signed schema 1 manifest and the digest a registry states for it: that of the payload without
/// the signatures, which the body does not hash to.
pub(crate) fn schema1(repository: &str, tag: &str, layer: &Content) -> Content {
    let payload = format!(
        "{{\n   \"schemaVersion\": 1,\n   \"name\": \"{repository}\",\n   \"tag\": \"{tag}\",\n   \"architecture\": \"amd64\",\n   \"fsLayers\": [\n      {{\n         \"blobSum\": \"{}\"\n      }}\n   ],\n   \"history\": [\n      {{\n         \"v1Compatibility\": \"{{}}\"\n      }}\n   ]",
        layer.digest
    );
    let unsigned = format!("{payload}\n}}");
    let signed = format!(
        "{payload},\n   \"signatures\": [\n      {{\n         \"signature\": \"c2lnbmVk\"\n      }}\n   ]\n}}"
    );
    Content {
        media_type: SCHEMA1_SIGNED.to_owned(),
        bytes: Bytes::from(signed),
        digest: sha256(unsigned.as_bytes()),
    }
}

/// The sha256 digest as registries write it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}

/// The sha512 digest as registries write it.
pub(crate) fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hexadecimal(&Sha512::digest(bytes)))
}

/// A gzip stream that holds `bytes` uncompressed (RFC 1951, section 3.2.4); its check sum is zero,
/// which nobody who passes it on untouched can notice.
pub(crate) fn gzip_stored(bytes: &[u8]) -> Bytes {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    stream.extend_from_slice(&length.to_le_bytes());
    stream.extend_from_slice(&(!length).to_le_bytes());
    stream.extend_from_slice(bytes);
    stream.extend_from_slice(&[0; 4]);
    stream.extend_from_slice(&u32::from(length).to_le_bytes());
    Bytes::from(stream)
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn seed_of(text: &str) -> u64 {
    let hash = Sha256::digest(text.as_bytes());
    u64::from_le_bytes(hash[..8].try_into().unwrap())
}

/// Blocks of a generated megabyte, each marked with its number: unoptimised builds stay fast and no
/// two blocks are alike.
fn pseudo_random(seed: u64, size_bytes: usize) -> Vec<u8> {
    const BLOCK: usize = 1 << 20;
    let mut generator = fastrand::Rng::with_seed(seed);
    let mut block = vec![0; BLOCK.min(size_bytes)];
    generator.fill(&mut block);
    let mut bytes = Vec::with_capacity(size_bytes);
    for number in 0_u64.. {
        let wanted = BLOCK.min(size_bytes - bytes.len());
        if wanted == 0 {
            break;
        }
        for (byte, mark) in block.iter_mut().zip(number.to_le_bytes()) {
            *byte ^= mark;
        }
        bytes.extend_from_slice(&block[..wanted]);
    }
    bytes
}
