//! What goes wrong with an upstream, and with a disk.

use std::time::Duration;

use fastrand::Rng;

use crate::upstream::{BlackHole, Kind, Upstream, any, everything, hang_up, serve, status, web_page};

/// A way in which an upstream fails until it is healed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Refused,
    BlackHole,
    Reset,
    HungUp,
    Status(u16),
    Throttled,
    WebPage,
    Silent,
    /// So many bytes a second.
    Slow(u64),
    /// The next transfers are cut at this position.
    Cut(u64),
    /// The next transfers go silent at this position.
    Stalls(u64),
    /// A byte of every blob that is so long is wrong.
    WrongBlobs(u64),
    /// A byte of every manifest is wrong.
    WrongManifests,
    TokensRefused,
}

impl Trouble {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let magnitude = rng.u32(1..=20);
        let position = rng.u64(..1 << magnitude);
        match rng.u8(..17) {
            0 => Self::Refused,
            1 => Self::BlackHole,
            2 => Self::Reset,
            3 => Self::HungUp,
            4 => Self::Status(*rng.choice(&[500, 502, 503]).unwrap()),
            5 => Self::Throttled,
            6 => Self::WebPage,
            7 => Self::Silent,
            8 => Self::Slow(rng.u64(200_000..1_000_000)),
            9 | 10 => Self::Cut(position),
            11 => Self::Stalls(position),
            // Most blobs are small.
            12..15 => Self::WrongBlobs(rng.u64(..100)),
            15 => Self::WrongManifests,
            _ => Self::TokensRefused,
        }
    }

    /// Begins. What is given back has to be kept until the end.
    pub(crate) async fn begin(self, upstream: &Upstream, rng: &mut Rng) -> Option<BlackHole> {
        let count = rng.usize(1..20);
        match self {
            Self::Refused => upstream.stop().await,
            Self::BlackHole => return Some(upstream.become_black_hole().await),
            Self::Reset => upstream.reset_connections().await,
            Self::HungUp => upstream.rule(everything(), hang_up()),
            Self::Status(code) => upstream.rule(everything(), status(code)),
            Self::Throttled => upstream.rule(everything(), status(429).header("retry-after", "1")),
            Self::WebPage => upstream.rule(everything(), web_page(200)),
            Self::Silent => upstream.rule(everything(), serve().delay_head(Duration::from_mins(2))),
            Self::Slow(rate) => upstream.rule(any(Kind::Blob), serve().rate(rate)),
            Self::Cut(position) => upstream.rule_times(count, any(Kind::Blob), serve().cut_at(position)),
            Self::Stalls(position) => upstream.rule_times(count, any(Kind::Blob), serve().stall_at(position)),
            Self::WrongBlobs(position) => upstream.rule(any(Kind::Blob), serve().flip_at(position)),
            Self::WrongManifests => upstream.rule(any(Kind::Manifest), serve().flip_at(20)),
            Self::TokensRefused => {
                upstream.expire_tokens();
                upstream.rule(any(Kind::Token), status(500));
            }
        }
        None
    }

    /// Ends; a black hole has been dropped before.
    pub(crate) async fn end(self, upstream: &Upstream) {
        upstream.heal();
        if matches!(self, Self::Refused | Self::BlackHole) {
            upstream.restart().await;
        }
    }
}

// The numbers of Linux; the same on every architecture that this runs on.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const STUCK: i32 = 0;

/// Lines for the shim: one fault of the disk.
pub(crate) fn disk_fault(rng: &mut Rng) -> Vec<String> {
    let skip = rng.usize(..4);
    let line = |call: &str, place: &str, errno: i32| format!("{call} {place} {errno} {skip}");
    let whole = |errno| {
        let calls = ["open_to_write", "write", "sync", "rename", "unlink"];
        let places = ["/incoming/", "/content/", "/index.sqlite3"];
        calls.iter().flat_map(|call| places.map(|place| line(call, place, errno))).collect()
    };
    match rng.u8(..11) {
        0 => vec![line("write", "/incoming/", ENOSPC)],
        1 => vec![line("write", "/incoming/", EIO)],
        2 => vec![line("sync", "/incoming/", EIO)],
        3 => vec![line("create", "/incoming/", EIO)],
        4 => vec![line("rename", "/content/", EIO)],
        5 => vec![line("read", "/content/", EIO)],
        6 => vec![line("open", "/content/", EIO)],
        7 => vec![line("write", "index.sqlite3", ENOSPC), line("sync", "index.sqlite3", ENOSPC)],
        8 => vec![line("write", "/incoming/", STUCK)],
        9 => vec![line("unlink", "/content/", EIO)],
        _ => whole(EROFS),
    }
}
