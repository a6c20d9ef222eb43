//! The parsed view of a manifest: what it lists, and of what type it is.
//!
//! The bytes are kept and served as they came; this view only stands beside them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Descriptor, Digest, DigestError, MediaType, Platform};

/// The configuration's type in Docker's images, which tells them from OCI's.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a manifest says that a cache needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type that the manifest declares in `mediaType`, or that its fields show.
    pub media_type: Option<MediaType>,
    /// Manifests that it lists (index, manifest list).
    pub manifests: Vec<Descriptor>,
    /// Blobs that it lists: configuration and layers.
    pub blobs: Vec<Descriptor>,
    /// The manifest that it refers to, if any.
    pub subject: Option<Descriptor>,
}

/// Why content is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or fields that count are of the wrong shape.
    #[error("manifest is not valid JSON of a known shape")]
    Malformed(#[source] serde_json::Error),
    /// It is index and image manifest at once, by its fields or against its `mediaType`. Such content
    /// means different things to different readers (CVE-2021-41190).
    #[error("manifest is of several kinds at once")]
    Ambiguous,
    /// It holds a digest that is none.
    #[error("manifest lists a malformed digest")]
    Digest(#[source] DigestError),
    /// It lists more than any real image.
    #[error("manifest lists more than {} items", Manifest::MAX_DESCRIPTORS)]
    TooLong,
}

/// The fields that count, borrowed from the content. Unknown fields are skipped without recursion; of
/// known ones, a second is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow, default)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    manifests: Option<Vec<Object<Listed<'a>>>>,
    #[serde(borrow, default)]
    config: Option<Object<Listed<'a>>>,
    #[serde(borrow, default)]
    layers: Option<Vec<Object<Listed<'a>>>>,
    #[serde(borrow, default)]
    blobs: Option<Vec<Object<Listed<'a>>>>,
    #[serde(borrow, default)]
    subject: Option<Object<Listed<'a>>>,
    #[serde(borrow, default)]
    fs_layers: Option<Vec<Object<FsLayer<'a>>>>,
    #[serde(default)]
    signatures: Option<IgnoredAny>,
}

/// A descriptor as written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    #[serde(borrow, default)]
    media_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
    size: u64,
    #[serde(borrow, default)]
    platform: Option<Made<'a>>,
}

/// What a manifest of an index is made for, as written. A platform of another shape is no fault of the
/// manifest: it is as if none were said.
#[derive(Deserialize)]
#[serde(untagged)]
enum Made<'a> {
    For {
        #[serde(borrow)]
        os: Cow<'a, str>,
        #[serde(borrow)]
        architecture: Cow<'a, str>,
        #[serde(borrow, default)]
        variant: Option<Cow<'a, str>>,
    },
    Otherwise(IgnoredAny),
}

/// A layer of schema 1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer<'a> {
    #[serde(borrow)]
    blob_sum: Cow<'a, str>,
}

/// A JSON object. Derived code would also take an array for a structure, by position, which no other
/// reader of manifests does.
struct Object<T>(T);

/// What the fields of a document make it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Index,
    Image,
    Artifact,
    Schema1,
    /// None of the fields that tell.
    Bare,
}

impl Manifest {
    /// The largest manifest that is taken, in bytes.
    pub const MAX_BYTES: usize = 64 * 1024 * 1024;

    /// The most descriptors that a manifest may list. Images have at most some hundreds of layers,
    /// artifacts and indexes some thousands of files or platforms.
    pub const MAX_DESCRIPTORS: usize = 16_384;

    /// Reads the view from a manifest's bytes.
    ///
    /// Descriptors whose digest is of an algorithm that is not supported here are left out.
    pub fn parse(content: &[u8]) -> Result<Self, ManifestError> {
        let Object(document): Object<Document<'_>> =
            serde_json::from_slice(content).map_err(ManifestError::Malformed)?;
        let shape = document.shape()?;
        let media_type = document.media_type(shape)?;
        if document.length() > Self::MAX_DESCRIPTORS {
            return Err(ManifestError::TooLong);
        }
        let mut blobs = Vec::new();
        blobs.extend(document.config.as_ref().map(|Object(config)| config.read()).transpose()?.flatten());
        for Object(listed) in document.layers.iter().chain(&document.blobs).flatten() {
            blobs.extend(listed.read()?);
        }
        for Object(layer) in document.fs_layers.iter().flatten() {
            blobs.extend(describe(&layer.blob_sum, MediaType::OCTET_STREAM, None)?);
        }
        let mut manifests = Vec::new();
        for Object(listed) in document.manifests.iter().flatten() {
            manifests.extend(listed.read()?);
        }
        let subject = document.subject.as_ref().map(|Object(subject)| subject.read()).transpose()?.flatten();
        Ok(Self { media_type, manifests, blobs, subject })
    }
}

impl Document<'_> {
    fn length(&self) -> usize {
        let lists = [&self.manifests, &self.layers, &self.blobs];
        let listed: usize = lists.into_iter().flatten().map(Vec::len).sum();
        listed + self.fs_layers.as_ref().map_or(0, Vec::len)
    }

    fn shape(&self) -> Result<Shape, ManifestError> {
        let shown = [
            (Shape::Index, self.manifests.is_some()),
            (Shape::Image, self.config.is_some() || self.layers.is_some()),
            (Shape::Artifact, self.blobs.is_some()),
            (Shape::Schema1, self.fs_layers.is_some()),
        ];
        let mut shapes = shown.into_iter().filter_map(|(shape, is_shown)| is_shown.then_some(shape));
        match (shapes.next(), shapes.next()) {
            (None, _) => Ok(Shape::Bare),
            (Some(shape), None) => Ok(shape),
            (Some(_), Some(_)) => Err(ManifestError::Ambiguous),
        }
    }

    /// The declared type, which must not contradict the fields; else the type that they show.
    fn media_type(&self, shape: Shape) -> Result<Option<MediaType>, ManifestError> {
        if let Some(declared) = self.media_type.as_deref().and_then(MediaType::parse) {
            let contradicts = if declared.is_index() {
                !matches!(shape, Shape::Index | Shape::Bare)
            } else {
                declared.is_manifest() && shape == Shape::Index
            };
            return if contradicts { Err(ManifestError::Ambiguous) } else { Ok(Some(declared)) };
        }
        Ok(match shape {
            // Docker's list, unlike OCI's index, must say its type.
            Shape::Index => Some(MediaType::OCI_INDEX),
            Shape::Image if self.config_type() == Some(DOCKER_CONFIG) => Some(MediaType::DOCKER_MANIFEST),
            Shape::Image => Some(MediaType::OCI_MANIFEST),
            Shape::Schema1 if self.signatures.is_some() => Some(MediaType::DOCKER_SCHEMA1_SIGNED),
            Shape::Schema1 => Some(MediaType::DOCKER_SCHEMA1),
            Shape::Artifact | Shape::Bare => None,
        })
    }

    fn config_type(&self) -> Option<&str> {
        self.config.as_ref()?.0.media_type.as_deref()
    }
}

impl Listed<'_> {
    fn read(&self) -> Result<Option<Descriptor>, ManifestError> {
        let media_type = self.media_type.as_deref().and_then(MediaType::parse);
        let described =
            describe(&self.digest, media_type.unwrap_or(MediaType::OCTET_STREAM), Some(self.size))?;
        let platform = self.platform.as_ref().and_then(Made::read);
        Ok(described.map(|descriptor| Descriptor { platform, ..descriptor }))
    }
}

impl Made<'_> {
    fn read(&self) -> Option<Platform> {
        match self {
            Self::For { os, architecture, variant } => {
                Platform::from_parts(os, architecture, variant.as_deref())
            }
            Self::Otherwise(_) => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Makes a descriptor, or `None` where its digest is of an algorithm that is not supported.
fn describe(
    digest: &str,
    media_type: MediaType,
    size_bytes: Option<u64>,
) -> Result<Option<Descriptor>, ManifestError> {
    match digest.parse::<Digest>() {
        Ok(digest) => Ok(Some(Descriptor { media_type, digest, size_bytes, platform: None })),
        Err(DigestError::UnsupportedAlgorithm) => Ok(None),
        Err(error @ DigestError::Malformed) => Err(ManifestError::Digest(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    /// A descriptor of the content `text`, as JSON.
    fn item(media_type: &str, text: &str) -> String {
        let (digest, size) = (digest(text), text.len());
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},"annotations":{{"a":[]}}}}"#
        )
    }

    fn parse(content: &str) -> Manifest {
        Manifest::parse(content.as_bytes()).unwrap()
    }

    fn digests(descriptors: &[Descriptor]) -> Vec<Digest> {
        descriptors.iter().map(|descriptor| descriptor.digest).collect()
    }

    #[test]
    fn an_image_lists_its_configuration_and_layers() {
        let (config, layer, subject) = (item("a/config", "c"), item("a/layer", "ll"), item(OCI, "sss"));
        let content = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{config},"layers":[{layer},{layer}],"subject":{subject}}}"#
        );
        let manifest = parse(&content);
        assert_eq!(manifest.media_type, Some(MediaType::OCI_MANIFEST));
        assert_eq!(digests(&manifest.blobs), [digest("c"), digest("ll"), digest("ll")]);
        assert_eq!(manifest.blobs[1].size_bytes, Some(2));
        assert_eq!(manifest.blobs[1].media_type.as_str(), "a/layer");
        assert_eq!(manifest.manifests, []);
        assert_eq!(manifest.subject.unwrap().digest, digest("sss"));
    }

    #[test]
    fn an_index_lists_manifests() {
        let content =
            format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, item(OCI, "a"), item("bad type", "b"));
        let manifest = parse(&content);
        assert_eq!(manifest.media_type, Some(MediaType::OCI_INDEX));
        assert_eq!(digests(&manifest.manifests), [digest("a"), digest("b")]);
        assert_eq!(manifest.manifests[1].media_type, MediaType::OCTET_STREAM);
        assert_eq!(manifest.blobs, []);
    }

    #[test]
    fn a_schema_1_manifest_lists_blobs_of_unknown_size() {
        let layer = format!(r#"{{"blobSum":"{}"}}"#, digest("l"));
        let content =
            format!(r#"{{"schemaVersion":1,"fsLayers":[{layer}],"history":[{{}}],"signatures":[{{}}]}}"#);
        let manifest = parse(&content);
        assert_eq!(manifest.media_type, Some(MediaType::DOCKER_SCHEMA1_SIGNED));
        assert_eq!(digests(&manifest.blobs), [digest("l")]);
        assert_eq!(manifest.blobs[0].size_bytes, None);
    }

    #[test]
    fn an_artifact_manifest_lists_blobs() {
        let content = format!(
            r#"{{"mediaType":"application/x.artifact","blobs":[{}],"artifactType":7}}"#,
            item("a/b", "b")
        );
        assert_eq!(digests(&parse(&content).blobs), [digest("b")]);
        assert_eq!(parse(&content).media_type.unwrap().as_str(), "application/x.artifact");
    }

    #[test]
    fn an_index_says_what_its_manifests_are_made_for() {
        let listed = item(OCI, "m");
        let made = |platform: &str| {
            let content = format!(r#"{{"manifests":[{{"platform":{platform},{}]}}"#, &listed[1..]);
            parse(&content).manifests[0].platform.as_ref().map(ToString::to_string)
        };
        let said = r#"{"os":"linux","architecture":"arm","variant":"v7","os.features":["x"]}"#;
        assert_eq!(made(said).as_deref(), Some("linux/arm/v7"));
        assert_eq!(made(r#"{"os":"linux","architecture":"amd64"}"#).as_deref(), Some("linux/amd64"));
        let deep = format!("{}{}", "[".repeat(20), "]".repeat(20));
        for odd in ["null", "7", "{}", r#"{"os":"linux"}"#, r#"{"os":"a/b","architecture":"c"}"#, &deep] {
            assert_eq!(made(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_missing_type_is_told_from_the_fields() {
        let config = item(DOCKER_CONFIG, "c");
        for (content, expected) in [
            (format!(r#"{{"config":{config},"layers":[]}}"#), Some(MediaType::DOCKER_MANIFEST)),
            (r#"{"layers":[],"manifests":null}"#.to_owned(), Some(MediaType::OCI_MANIFEST)),
            (r#"{"manifests":[]}"#.to_owned(), Some(MediaType::OCI_INDEX)),
            (r#"{"fsLayers":[]}"#.to_owned(), Some(MediaType::DOCKER_SCHEMA1)),
            (r#"{"mediaType":"nonsense","layers":[]}"#.to_owned(), Some(MediaType::OCI_MANIFEST)),
            ("{}".to_owned(), None),
        ] {
            assert_eq!(parse(&content).media_type, expected, "{content}");
        }
    }

    #[test]
    fn content_of_several_kinds_is_refused() {
        let index = MediaType::OCI_INDEX;
        for content in [
            r#"{"manifests":[],"layers":[]}"#.to_owned(),
            format!(r#"{{"manifests":[],"config":{}}}"#, item("a/b", "c")),
            r#"{"fsLayers":[],"layers":[]}"#.to_owned(),
            format!(r#"{{"mediaType":"{index}","layers":[]}}"#),
            format!(r#"{{"mediaType":"{OCI}","manifests":[]}}"#),
        ] {
            let error = Manifest::parse(content.as_bytes()).unwrap_err();
            assert!(matches!(error, ManifestError::Ambiguous), "{content}: {error}");
        }
    }

    #[test]
    fn digests_of_unknown_algorithms_are_left_out_and_malformed_ones_refused() {
        let known = item("a/b", "x");
        let other = known.replace("sha256:", "blake3:");
        let content = format!(r#"{{"layers":[{other},{known}],"subject":{other}}}"#);
        assert_eq!(digests(&parse(&content).blobs), [digest("x")]);
        assert_eq!(parse(&content).subject, None);
        let broken = known.replace("sha256:", "sha256:Z");
        let error = Manifest::parse(format!(r#"{{"layers":[{broken}]}}"#).as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::Digest(_)), "{error}");
    }

    #[test]
    fn content_that_is_no_manifest_is_an_error() {
        let (deep, nested) = ("[".repeat(100_000), format!(r#"{{"x":{}"#, "[".repeat(100_000)));
        for content in [
            "",
            "null",
            "[]",
            "7",
            "{",
            "<html>",
            "{} x",
            r#"{"layers":{}}"#,
            r#"{"layers":[["a/b","sha256:ab",1]]}"#,
            r#"{"layers":[{}]}"#,
            r#"{"layers":[],"layers":[]}"#,
            r#"{"mediaType":7}"#,
            r#"{"config":{"digest":"sha256:ab","size":-1}}"#,
            &deep,
            &nested,
        ] {
            let error = Manifest::parse(content.as_bytes()).unwrap_err();
            assert!(matches!(error, ManifestError::Malformed(_)), "{error}");
        }
        let many = vec![item("a/b", "x"); Manifest::MAX_DESCRIPTORS + 1].join(",");
        let error = Manifest::parse(format!(r#"{{"layers":[{many}]}}"#).as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::TooLong), "{error}");
    }
}
