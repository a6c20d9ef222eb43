//! A manifest as it is pushed: read strictly, because who pushes can mend it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Descriptor, Digest, Manifest, ManifestError, MediaType};

/// What a registry that takes a manifest in needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedManifest {
    /// Its type.
    pub media_type: MediaType,
    /// `artifactType`; of an image manifest without one, the type of its configuration.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// The blobs that have to be in the repository: all but those that lie elsewhere by their type.
    pub blobs: Vec<Descriptor>,
    /// The manifests that it lists.
    pub children: Vec<Descriptor>,
}

/// Why a manifest is not taken in. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub enum PushedManifestError {
    /// It is no manifest.
    #[error("{}", told(.0))]
    Manifest(#[from] ManifestError),
    /// A field is missing or of the wrong shape.
    #[error("manifest is malformed: {0}")]
    Malformed(String),
    /// What the request says of its type contradicts the content.
    #[error("Content-Type says {said}, and the manifest says {found}")]
    TypeContradicted {
        /// The type that the request states.
        said: MediaType,
        /// The type that the content shows.
        found: MediaType,
    },
    /// It is of a type that no client could use.
    #[error("manifests of type {0} are not taken: push an OCI or Docker (schema 2) manifest or index")]
    TypeUnsupported(MediaType),
    /// Its type cannot be told.
    #[error("the type of the manifest is said neither by Content-Type nor by the manifest")]
    TypeUnknown,
}

/// The fields that a cache does not need.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(borrow, default)]
    artifact_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    config: Option<Listed<'a>>,
    #[serde(borrow, default)]
    layers: Option<Vec<Listed<'a>>>,
    #[serde(borrow, default)]
    blobs: Option<Vec<Listed<'a>>>,
    #[serde(borrow, default)]
    manifests: Option<Vec<Listed<'a>>>,
    #[serde(borrow, default)]
    subject: Option<Listed<'a>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    #[serde(borrow, default)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

impl PushedManifest {
    /// Reads a manifest that is pushed as `said`, where the request says anything.
    pub fn parse(content: &[u8], said: Option<MediaType>) -> Result<Self, PushedManifestError> {
        let view = Manifest::parse(content)?;
        if depth_of(content) > MAX_DEPTH {
            return Err(PushedManifestError::Malformed(format!(
                "it is nested more than {MAX_DEPTH} levels deep"
            )));
        }
        let document: Document<'_> = serde_json::from_slice(content)
            .map_err(|error| PushedManifestError::Malformed(error.to_string()))?;
        let media_type = decide_type(&view, &document, said)?;
        document.check(&media_type)?;
        let artifact_type = match (&document.artifact_type, &document.config) {
            (Some(own), _) if !own.is_empty() => Some(own.to_string()),
            (_, Some(config)) if media_type == MediaType::OCI_MANIFEST => {
                config.media_type.as_deref().map(str::to_owned)
            }
            _ => None,
        };
        let lies_elsewhere = |blob: &Descriptor| {
            let text = blob.media_type.as_str();
            FOREIGN.iter().any(|foreign| text.starts_with(foreign))
        };
        Ok(Self {
            media_type,
            artifact_type,
            annotations: document.annotations.unwrap_or_default(),
            subject: view.subject.map(|subject| subject.digest),
            blobs: view.blobs.into_iter().filter(|blob| !lies_elsewhere(blob)).collect(),
            children: view.manifests,
        })
    }
}

impl Document<'_> {
    /// Holds it against what its type asks for (OCI image specification, "Image Manifest", "Image Index").
    fn check(&self, media_type: &MediaType) -> Result<(), PushedManifestError> {
        let fail = |reason: &str| Err(PushedManifestError::Malformed(reason.to_owned()));
        if *media_type == MediaType::parse(ARTIFACT).unwrap_or(MediaType::OCTET_STREAM) {
            return self.check_digests();
        }
        if self.schema_version != Some(2) {
            return fail("schemaVersion must be 2");
        }
        if media_type.is_index() {
            if self.manifests.is_none() {
                return fail("an index needs the field manifests");
            }
        } else if self.config.is_none() {
            return fail("an image manifest needs the field config");
        } else if self.layers.is_none() {
            return fail("an image manifest needs the field layers");
        }
        self.check_digests()
    }

    /// What is listed by a digest that nothing here is stored by could never be served.
    fn check_digests(&self) -> Result<(), PushedManifestError> {
        let lists = [&self.layers, &self.blobs, &self.manifests];
        let listed = lists.into_iter().flatten().flatten().chain(&self.config).chain(&self.subject);
        for listed in listed {
            if let Err(error) = listed.digest.parse::<Digest>() {
                return Err(PushedManifestError::Malformed(format!("{}: {error}", shown(&listed.digest))));
            }
        }
        Ok(())
    }
}

/// The type that the content declares wins, the request must not contradict it; where it declares none, the
/// request says it, if the fields allow that.
fn decide_type(
    view: &Manifest,
    document: &Document<'_>,
    said: Option<MediaType>,
) -> Result<MediaType, PushedManifestError> {
    // What is no type of a manifest says nothing: "application/json", "application/octet-stream".
    let said = said.filter(is_taken_or_odd);
    let declared = document.media_type.as_deref().and_then(MediaType::parse);
    let media_type = match (said, declared, &view.media_type) {
        (Some(said), Some(found), _) if said != found => {
            return Err(PushedManifestError::TypeContradicted { said, found });
        }
        (Some(said), None, Some(shown)) if said.is_index() != shown.is_index() => {
            return Err(PushedManifestError::TypeContradicted { said, found: shown.clone() });
        }
        (_, Some(declared), _) => declared,
        (Some(said), None, _) => said,
        (None, None, Some(shown)) => shown.clone(),
        (None, None, None) => return Err(PushedManifestError::TypeUnknown),
    };
    if is_taken(&media_type) { Ok(media_type) } else { Err(PushedManifestError::TypeUnsupported(media_type)) }
}

fn is_taken(media_type: &MediaType) -> bool {
    (media_type.is_manifest() && !media_type.is_schema1()) || media_type.as_str() == ARTIFACT
}

fn is_taken_or_odd(said: &MediaType) -> bool {
    !matches!(said.as_str(), "application/json" | "application/octet-stream" | "text/plain")
}

/// How deeply objects and arrays of a JSON document lie in each other. Readers skip fields that they do not know, however
/// deep these are; the clients that pull may not.
fn depth_of(content: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = content.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Goes to the end of a string whose first quotation mark is behind.
fn skip_string<'a>(bytes: &mut impl Iterator<Item = &'a u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// What a client is told of content that is no manifest.
fn told(error: &ManifestError) -> String {
    match error {
        ManifestError::Malformed(cause) => format!("{error}: {cause}"),
        ManifestError::Digest(cause) => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

/// A digest as a client wrote it, for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_default).collect()
}

/// The artifact manifest of the release candidates of OCI 1.1, which some clients still push.
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// How deep a manifest may be. Those that are pushed have less than ten levels; the JSON readers of some clients stop at
/// this depth.
const MAX_DEPTH: usize = 128;

/// What layers are called that clients get elsewhere.
const FOREIGN: [&str; 2] =
    ["application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable."];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn item(media_type: &str) -> String {
        let digest = Digest::of(Algorithm::Sha256, media_type.as_bytes());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#)
    }

    fn image(fields: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]{fields}}}"#,
            item("application/x.config"),
            item("a/layer")
        )
    }

    fn parse(content: &str, said: Option<&str>) -> Result<PushedManifest, PushedManifestError> {
        PushedManifest::parse(content.as_bytes(), said.and_then(MediaType::parse))
    }

    #[test]
    fn the_artifact_type_is_said_or_is_that_of_the_configuration() {
        let type_of = |fields: &str| parse(&image(fields), None).unwrap().artifact_type;
        assert_eq!(type_of("").as_deref(), Some("application/x.config"));
        assert_eq!(type_of(r#","artifactType":"a/b""#).as_deref(), Some("a/b"));
        let index = r#"{"schemaVersion":2,"manifests":[],"artifactType":"a/i","annotations":{"k":"v"}}"#;
        let index = parse(index, None).unwrap();
        assert_eq!((index.artifact_type.as_deref(), index.annotations["k"].as_str()), (Some("a/i"), "v"));
        assert_eq!(index.media_type, MediaType::OCI_INDEX);
    }

    #[test]
    fn what_the_request_says_must_agree_with_the_content() {
        let (manifest, index) = (MediaType::OCI_MANIFEST, MediaType::OCI_INDEX);
        let docker = MediaType::DOCKER_MANIFEST;
        assert_eq!(parse(&image(""), Some(docker.as_str())).unwrap().media_type, docker);
        assert_eq!(parse(&image(""), Some("application/json")).unwrap().media_type, manifest);
        let declared = image(&format!(r#","mediaType":"{manifest}""#));
        for (content, said) in [(&declared, docker.as_str()), (&image(""), index.as_str())] {
            let error = parse(content, Some(said)).unwrap_err();
            assert!(matches!(error, PushedManifestError::TypeContradicted { .. }), "{error}");
        }
        for said in ["text/html", MediaType::DOCKER_SCHEMA1.as_str()] {
            let error = parse(&image(""), Some(said)).unwrap_err();
            assert!(matches!(error, PushedManifestError::TypeUnsupported(_)), "{error}");
        }
        assert!(matches!(parse("{}", None), Err(PushedManifestError::TypeUnknown)));
    }

    #[test]
    fn what_is_missing_or_misshapen_is_named() {
        let unknown = item("a/b").replace("sha256:", "blake3:");
        for (content, named) in [
            (image("").replace("\"schemaVersion\":2", "\"schemaVersion\":1"), "schemaVersion"),
            (format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, item("a/b")), "config"),
            (format!(r#"{{"schemaVersion":2,"config":{}}}"#, item("a/b")), "layers"),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, MediaType::OCI_INDEX), "manifests"),
            (image(r#","annotations":{"a":1}"#), "expected a string"),
            (image(&format!(r#","subject":{unknown}"#)), "neither sha256 nor sha512"),
            ("<html>".to_owned(), "expected value"),
        ] {
            let error = parse(&content, None).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_no_client_could_read_for_its_depth_is_refused() {
        let nested = |levels: usize| {
            let brackets = "[".repeat(levels) + &"]".repeat(levels);
            image(&format!(r#","custom":{brackets},"annotations":{{"a":"[[\\\"[[","b\\\\":"]"}}"#))
        };
        assert_eq!(
            parse(&nested(MAX_DEPTH - 1), None).map(|_| ()).map_err(|error| error.to_string()),
            Ok(())
        );
        for levels in [MAX_DEPTH, 1_000_000] {
            let error = parse(&nested(levels), None).unwrap_err().to_string();
            assert!(error.contains("levels deep"), "{error}");
        }
    }

    #[test]
    fn layers_that_lie_elsewhere_are_not_asked_for() {
        let foreign = item("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let content = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{foreign}]}}"#, item("a/c"));
        assert_eq!(parse(&content, None).unwrap().blobs.len(), 1);
    }
}
