//! Platforms, as indexes name them and as people choose them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Why a text is no platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a platform is written os/architecture or os/architecture/variant: linux/amd64, linux/arm/v7")]
pub struct PlatformError;

impl Platform {
    /// What an index says of a manifest; `None` where it says nothing, or that it is of none
    /// (attestations are of `unknown/unknown`).
    pub(super) fn of_index(os: &str, architecture: &str, variant: Option<&str>) -> Option<Self> {
        let is_told = |text: &str| !text.is_empty() && text != "unknown";
        (is_told(os) && is_told(architecture)).then(|| Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.filter(|variant| !variant.is_empty()).map(str::to_owned),
        })
    }

    /// Whether a manifest of platform `other` is wanted where this one is.
    pub fn admits(&self, other: &Self) -> bool {
        let is_variant = match self.variant() {
            None => true,
            wanted => wanted == other.variant(),
        };
        self.os == other.os && self.architecture == other.architecture && is_variant
    }

    /// The variant, where it tells: `v8` is every arm64.
    fn variant(&self) -> Option<&str> {
        self.variant.as_deref().filter(|variant| self.architecture != "arm64" || *variant != "v8")
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let parts: Vec<_> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| is_word(part)) {
            return Err(PlatformError);
        }
        let variant = parts.get(2).map(|variant| (*variant).to_owned());
        Ok(Self { os: parts[0].to_owned(), architecture: parts[1].to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, PlatformError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_counts_where_it_is_asked_for() {
        let admits = |wanted: &str, other: &str| {
            wanted.parse::<Platform>().unwrap().admits(&other.parse::<Platform>().unwrap())
        };
        for (wanted, other, expected) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v8", true),
        ] {
            assert_eq!(admits(wanted, other), expected, "{wanted} {other}");
        }
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError), "{bad}");
        }
    }
}
