//! Platforms: what an image of an index is made for (OCI image specification, "Image Index").

use std::fmt;
use std::str::FromStr;

/// An operating system, an architecture, and perhaps a variant of it: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Why a text is no platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a platform is written os/architecture or os/architecture/variant, such as linux/amd64")]
pub struct PlatformError;

impl Platform {
    /// Puts a platform together from the fields of a descriptor; `None` where one of them breaks the grammar.
    pub fn from_parts(os: &str, architecture: &str, variant: Option<&str>) -> Option<Self> {
        let variant = variant.filter(|variant| !variant.is_empty());
        [Some(os), Some(architecture), variant].into_iter().flatten().all(is_word).then(|| Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }

    /// The platform that this program was built for, in the words of images.
    pub fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Whether who wants this platform wants `other`: without a variant, every variant is meant. What arm64
    /// and amd64 begin with (`v8`, `v1`) may be left out on either side.
    pub fn covers(&self, other: &Self) -> bool {
        let is_of_kind = self.os == other.os && self.architecture == other.architecture;
        is_of_kind && (self.variant.is_none() || self.telling_variant() == other.telling_variant())
    }

    /// Whether it stands for no platform at all: build tools put attestations into an index as
    /// `unknown/unknown`, and nobody runs those.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    fn telling_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            (_, variant) => variant,
        }
    }
}

fn is_word(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_good)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        let (Some(os), Some(architecture), None) = (os, architecture, parts.next()) else {
            return Err(PlatformError);
        };
        if variant == Some("") {
            return Err(PlatformError);
        }
        Self::from_parts(os, architecture, variant).ok_or(PlatformError)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_are_read_as_they_are_written() {
        for good in ["linux/amd64", "linux/arm/v7", "windows/amd64", "linux/arm64/v8"] {
            assert_eq!(platform(good).to_string(), good);
        }
        for bad in ["", "linux", "amd64", "linux/", "/amd64", "linux/arm/", "a/b/c/d", "linux/am d64", "*"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError), "{bad}");
        }
        assert!(Platform::own().to_string().parse::<Platform>().is_ok());
    }

    #[test]
    fn a_platform_without_a_variant_covers_every_variant() {
        for (wanted, offered, covers) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm/v7", "linux/arm", false),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/amd64/v1", "linux/amd64", true),
            ("linux/amd64/v3", "linux/amd64", false),
        ] {
            assert_eq!(platform(wanted).covers(&platform(offered)), covers, "{wanted} {offered}");
        }
    }
}
