//! Images as people write them: `docker.io/library/alpine:3`, by tag, by digest, or by a glob over tags.

use std::fmt;
use std::str::FromStr;

use super::{Digest, Reference, Tag};

/// One image of a repository, or those whose tags match a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePattern {
    name: String,
    selector: Selector,
}

/// Which manifests of a repository are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One.
    One(Reference),
    /// All whose tag matches; `*` stands for any text.
    Tags(String),
}

/// Why a text names no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImagePatternError {
    /// The part in front of tag and digest.
    #[error("the name holds what no repository name holds, or is empty")]
    Name,
    /// The part after the colon.
    #[error("the tag holds what no tag holds, or is empty or too long")]
    Tag,
    /// The part after the at sign.
    #[error("the digest is malformed")]
    Digest,
}

impl ImagePattern {
    /// Registry and repository, as written; the registry may be missing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which manifests are meant.
    pub const fn selector(&self) -> &Selector {
        &self.selector
    }
}

impl FromStr for ImagePattern {
    type Err = ImagePatternError;

    /// Reads `NAME`, `NAME:TAG`, `NAME:GLOB`, `NAME@DIGEST` and `NAME:TAG@DIGEST`, where the digest counts. Without
    /// either, the tag is `latest`, as clients have it.
    fn from_str(text: &str) -> Result<Self, ImagePatternError> {
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => {
                (text, Some(digest.parse::<Digest>().map_err(|_fault| ImagePatternError::Digest)?))
            }
            None => (text, None),
        };
        let path = text.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match text[path..].find(':') {
            Some(colon) => (&text[..path + colon], Some(&text[path + colon + 1..])),
            None => (text, None),
        };
        let selector = match (tag.unwrap_or("latest"), digest) {
            (tag, None) if tag.contains('*') => {
                // A star may stand for nothing: what is left has to be the beginning of a tag, or its middle.
                let rest = tag.replace('*', "x");
                rest.parse::<Tag>().map_err(|_fault| ImagePatternError::Tag)?;
                Selector::Tags(tag.to_owned())
            }
            (tag, digest) => {
                let tag = tag.parse::<Tag>().map_err(|_fault| ImagePatternError::Tag)?;
                Selector::One(digest.map_or(Reference::Tag(tag), Reference::Digest))
            }
        };
        if is_name(name) {
            Ok(Self { name: name.to_owned(), selector })
        } else {
            Err(ImagePatternError::Name)
        }
    }
}

/// Whether it may be a registry and a repository; which ones there are, the configuration knows.
fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-' | b':')
    };
    name.len() <= 512 && name.split('/').all(|part| !part.is_empty() && part.bytes().all(is_good))
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::One(Reference::Digest(digest)) => write!(f, "{}@{digest}", self.name),
            Selector::One(Reference::Tag(tag)) => write!(f, "{}:{tag}", self.name),
            Selector::Tags(glob) => write!(f, "{}:{glob}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_read_as_clients_write_them() {
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"x");
        for (text, name, rest) in [
            ("alpine", "alpine", ":latest".to_owned()),
            ("docker.io/library/alpine:3", "docker.io/library/alpine", ":3".to_owned()),
            ("registry.test:5000/a/b", "registry.test:5000/a/b", ":latest".to_owned()),
            ("registry.test:5000/a/b:v1.*", "registry.test:5000/a/b", ":v1.*".to_owned()),
            ("a/b:*", "a/b", ":*".to_owned()),
            (&format!("a/b:1@{digest}"), "a/b", format!("@{digest}")),
        ] {
            let pattern: ImagePattern = text.parse().unwrap();
            assert_eq!((pattern.name(), pattern.to_string()), (name, format!("{name}{rest}")));
        }
        for (bad, fault) in [
            ("", ImagePatternError::Name),
            ("a//b", ImagePatternError::Name),
            ("A/b", ImagePatternError::Name),
            ("a b", ImagePatternError::Name),
            ("https://a/b", ImagePatternError::Name),
            ("a/*", ImagePatternError::Name),
            ("a:", ImagePatternError::Tag),
            ("a:x y", ImagePatternError::Tag),
            ("a:-*", ImagePatternError::Tag),
            ("a@sha256:12", ImagePatternError::Digest),
        ] {
            assert_eq!(bad.parse::<ImagePattern>(), Err(fault), "{bad}");
        }
    }
}
