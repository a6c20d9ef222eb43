//! The description of a bundle: what it holds, by whose names, and what it leaves to its base.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{BundleError, PublicKey, Result};
use crate::oci::{Digest, Manifest, MediaType, Platform, RepositoryName, Tag};

/// What a bundle holds. Nothing of it is believed but after [`Contents::parse`] has looked at it, and then
/// only that it does not contradict itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// The version of the format.
    pub version: u64,
    /// The key that the bundle is signed with.
    #[serde(with = "optional_text")]
    pub signed_by: Option<PublicKey>,
    /// The bundle that this one goes on from.
    pub base: Option<Base>,
    /// What was asked for.
    pub request: Request,
    /// Manifests by their names, in order of these.
    pub images: Vec<Image>,
    /// Which manifests refer to which, in order of (repository, subject). A manifest without an entry is one
    /// that nobody asked about.
    pub referrers: Vec<Referrers>,
    /// What lies in this bundle: manifests, then blobs, both in order of their digests.
    pub content: Vec<Item>,
    /// What the names need as well and what the base or its own bases hold, in the same order.
    pub from_base: Vec<Item>,
}

/// The bundle that another goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The digest of its description.
    #[serde(with = "text")]
    pub id: Digest,
    /// The name of its file, for people.
    pub file: String,
}

/// What the maker of a bundle asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The images, as they were written.
    pub images: Vec<String>,
    /// The platforms; none is what the exporting node's configuration says, or all.
    #[serde(with = "text_list")]
    pub platforms: Vec<Platform>,
    /// Whether signatures and other referrers were to come along.
    pub referrers: bool,
}

/// A manifest and one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The repository with its registry in front, as clients spell it: `docker.io/library/alpine`.
    #[serde(with = "text")]
    pub repository: RepositoryName,
    /// The tag; `None` where it was asked for by digest.
    #[serde(with = "optional_text")]
    pub tag: Option<Tag>,
    /// The manifest or index.
    #[serde(with = "text")]
    pub digest: Digest,
    /// When upstream last said that the tag points there, in milliseconds since the Unix epoch.
    pub observed_at_ms: u64,
    /// Why it is here.
    pub role: Role,
}

/// Why a named manifest is in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It was asked for.
    Image,
    /// Its tag says that it belongs to one that was: `sha256-….sig`.
    Companion,
}

/// The manifests that refer to another, as upstream lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referrers {
    /// The repository with its registry in front.
    #[serde(with = "text")]
    pub repository: RepositoryName,
    /// What they refer to.
    #[serde(with = "text")]
    pub subject: Digest,
    /// When upstream said so, in milliseconds since the Unix epoch.
    pub observed_at_ms: u64,
    /// Their descriptors, as upstream wrote them.
    pub descriptors: Vec<Value>,
}

/// Some content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its digest.
    #[serde(with = "text")]
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// A manifest's type.
    #[serde(with = "media_type", default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
}

/// What kind of content an item is. In this order in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// A manifest or an index.
    Manifest,
    /// Configuration or layer.
    Blob,
}

impl Contents {
    /// The version of the format that is written.
    pub const VERSION: u64 = 1;

    /// The largest description that is read, in bytes: some 50,000 items.
    pub const MAX_BYTES: usize = 16 * 1024 * 1024;

    /// The most values in it, some more than as many bytes of items have: each takes more memory than text.
    const MAX_VALUES: usize = 1024 * 1024;

    /// Reads a description, and refuses one that contradicts itself.
    pub fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        require_few_values(json)?;
        // By itself first: what a later version adds is not a fault of shape.
        let Versioned { version } = serde_json::from_slice(json).map_err(BundleError::Unreadable)?;
        if version != Self::VERSION {
            return Err(BundleError::Version(version));
        }
        let contents: Self = serde_json::from_slice(json).map_err(BundleError::Unreadable)?;
        contents.check()?;
        Ok(contents)
    }

    /// The description as it stands in the bundle.
    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut json = serde_json::to_vec_pretty(self).map_err(BundleError::Unreadable)?;
        json.push(b'\n');
        require_few_values(&json)?;
        Ok(json)
    }

    /// The sum of the sizes of what lies in the bundle, in bytes.
    pub fn content_bytes(&self) -> u64 {
        self.content.iter().fold(0, |sum, item| sum.saturating_add(item.size_bytes))
    }

    fn check(&self) -> Result<()> {
        let wrong = |text: String| BundleError::Contradiction(text);
        let mut known = HashMap::new();
        for list in [&self.content, &self.from_base] {
            if !list.is_sorted_by(|one, next| (one.kind, one.digest) < (next.kind, next.digest)) {
                return Err(wrong("content is listed twice or out of order".to_owned()));
            }
            for item in list {
                item.check()?;
                if known.insert(item.digest, item).is_some() {
                    return Err(wrong(format!("{} is listed twice", item.digest)));
                }
            }
        }
        if self.base.is_none() && !self.from_base.is_empty() {
            return Err(wrong("content is left to a base, and no base is named".to_owned()));
        }
        self.check_sum()?;
        let mut names = HashSet::new();
        for image in &self.images {
            let is_manifest = known.get(&image.digest).is_some_and(|item| item.kind == ItemKind::Manifest);
            if !is_manifest {
                return Err(wrong(format!("{image} points to {}, which is not listed", image.digest)));
            }
            if !names.insert(image.to_string()) {
                return Err(wrong(format!("{image} is there twice")));
            }
        }
        let mut subjects = HashSet::new();
        for list in &self.referrers {
            if !subjects.insert((&list.repository, list.subject)) {
                return Err(wrong(format!("the referrers of {} are there twice", list.subject)));
            }
        }
        Ok(())
    }

    fn check_sum(&self) -> Result<()> {
        let sizes = self.content.iter().chain(&self.from_base).map(|item| item.size_bytes);
        let sum = sizes.into_iter().try_fold(0_u64, u64::checked_add);
        // Room for headers and padding on top.
        if sum.is_none_or(|sum| sum > u64::MAX / 2) {
            return Err(BundleError::contradiction("the sizes add up to more than there can be"));
        }
        Ok(())
    }
}

/// Fails before JSON is read that would take many times its size in memory. Counts at least as many values as
/// there are: marks within texts are counted, too.
fn require_few_values(json: &[u8]) -> Result<()> {
    let values = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > Contents::MAX_VALUES {
        return Err(BundleError::contradiction(format!("it has more than {} values", Contents::MAX_VALUES)));
    }
    Ok(())
}

impl Item {
    /// Where it lies in the bundle.
    pub(super) fn path(&self) -> String {
        format!("blobs/{}/{}", self.digest.algorithm().as_str(), self.digest.hex())
    }

    fn check(&self) -> Result<()> {
        match self.kind {
            ItemKind::Manifest if self.media_type.is_none() => {
                Err(BundleError::contradiction(format!("manifest {} has no type", self.digest)))
            }
            ItemKind::Manifest if self.size_bytes > Manifest::MAX_BYTES as u64 => {
                Err(BundleError::contradiction(format!("manifest {} is larger than any", self.digest)))
            }
            ItemKind::Manifest | ItemKind::Blob => Ok(()),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.repository),
            None => write!(f, "{}@{}", self.repository, self.digest),
        }
    }
}

/// Values that are written as text.
mod text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};

    pub(super) fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The same, or `null`.
mod optional_text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<T, S>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: fmt::Display,
        S: Serializer,
    {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse()).transpose().map_err(serde::de::Error::custom)
    }
}

/// Lists of such values.
mod text_list {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};

    pub(super) fn serialize<T: fmt::Display, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}

/// Media types, which are read more leniently elsewhere.
mod media_type {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, MediaType, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<MediaType>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(MediaType::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<MediaType>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let parsed = MediaType::parse(&text).filter(|parsed| parsed.as_str() == text);
        parsed.map(Some).ok_or_else(|| D::Error::custom("not a media type"))
    }
}
