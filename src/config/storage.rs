//! `[storage]`: where cached content lies and how much of it there may be.

use std::path::PathBuf;
use std::time::Duration;

use super::fault::Problem;
use super::{HostedStoreConfig, quantity};

/// `[storage]`
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The node's own directory.
    pub path: PathBuf,
    /// The byte budget of cached content.
    pub max_size_bytes: u64,
    /// How much of the disk stays free.
    pub min_free: MinFree,
    /// The byte budget of manifests and resolutions kept in memory.
    pub memory_bytes: u64,
    /// How what is stored is compared with its digests.
    pub scrub: ScrubConfig,
    /// How long what nobody needs is kept before the collection of hosted content takes it.
    pub collection_grace: Duration,
    /// Where hosted blobs are kept; `None` where that is under `path`.
    pub object_store: Option<HostedStoreConfig>,
}

/// How what is stored is compared with its digests in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubConfig {
    /// How long after the last time; zero is never.
    pub every: Duration,
    /// The most bytes a second that are read.
    pub rate_bytes: u64,
}

/// How much of a disk is to stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk, at most 90.
    Percent(u8),
}

impl MinFree {
    /// The bytes that are to stay free on a disk of `total_bytes`.
    pub fn of(self, total_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // Divided first: sizes near the type's end must not overflow.
            Self::Percent(percent) => total_bytes / 100 * u64::from(percent),
        }
    }

    /// Reads a size, or a number and `%`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        const REMEDY: &str = "write a size such as \"10GiB\", or a share of the disk from \"0%\" to \"90%\"";
        let Some(number) = text.trim().strip_suffix('%') else {
            let size = quantity::parse_size(text);
            return size.map(Self::Bytes).map_err(|problem| Problem::new(problem.reason, REMEDY));
        };
        match number.trim().parse() {
            Ok(percent @ 0..=90) => Ok(Self::Percent(percent)),
            _ => Err(Problem::new(format!("\"{text}\" is not a share of the disk"), REMEDY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_to_stay_free_is_a_size_or_a_share() {
        assert_eq!(MinFree::parse("2%"), Ok(MinFree::Percent(2)));
        assert_eq!(MinFree::parse("10GiB"), Ok(MinFree::Bytes(10 << 30)));
        assert_eq!(MinFree::Percent(2).of(1000), 20);
        assert_eq!(MinFree::Bytes(7).of(1000), 7);
        for bad in ["", "%", "91%", "-1%", "1.5%", "10", "much"] {
            assert!(MinFree::parse(bad).unwrap_err().remedy.contains("90%"), "{bad}");
        }
    }
}
