//! `[[warm]]`: images that are to be here ahead of time.

use std::time::Duration;

use crate::oci::{ImagePattern, Platform};
use crate::runtime::{DayTime, DayWindow};

/// One `[[warm]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmConfig {
    /// Images, or globs over tags.
    pub images: Vec<ImagePattern>,
    /// Platforms; empty where `[[upstream]]` or `[site]` says.
    pub platforms: Vec<Platform>,
    /// Whether referrers are fetched, too.
    pub referrers: bool,
    /// When.
    pub schedule: WarmSchedule,
    /// The part of the day in which anything is fetched; `None` is all of it.
    pub window: Option<DayWindow>,
    /// The most bytes a second.
    pub bandwidth_bytes: Option<u64>,
    /// The most blobs at once.
    pub concurrency: usize,
}

/// When images are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmSchedule {
    /// So long after the last time.
    Every(Duration),
    /// At this time of each day.
    Daily(DayTime),
}
