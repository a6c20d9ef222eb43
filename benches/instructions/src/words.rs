//! The cases that need no state: what every request has parsed, and digests.

use std::hint::black_box;

use http::Method;
use tidegate::oci::{Algorithm, Digest, RangeSet};
use tidegate::server::route;

const BLOB: &str =
    "/v2/library/nginx/blobs/sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
const MANIFEST: &str = "/v2/library/nginx/manifests/1.27-alpine";
const NAMESPACE: &str = "ns=docker.io";
const DIGEST: &str = "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
const RANGES: &str = "bytes=0-1023, 4096-8191, -500";

/// A size that blobs have in requests that read lazily, in bytes.
const BLOB_BYTES: u64 = 1 << 30;

/// What is hashed at once, in bytes.
const HASHED_BYTES: usize = 64 << 10;

/// Runs a case by its name.
///
/// Fails where there is no such case, or where it does not do what it is to show.
pub(crate) fn run(case: &str, count: u64) -> anyhow::Result<()> {
    match case {
        "route-blob" => repeat(count, || Ok(route::parse(&Method::GET, black_box(BLOB), None)?)),
        "route-manifest" => {
            repeat(count, || Ok(route::parse(&Method::GET, black_box(MANIFEST), black_box(Some(NAMESPACE)))?))
        }
        "digest-parse" => repeat(count, || Ok(black_box(DIGEST).parse::<Digest>()?)),
        "digest-write" => {
            let digest: Digest = DIGEST.parse()?;
            repeat(count, || Ok(black_box(digest).to_string()))
        }
        "digest-of-64-kib" => {
            let content = vec![0x5a; HASHED_BYTES];
            repeat(count, || Ok(Digest::of(Algorithm::Sha256, black_box(&content))))
        }
        "range" => repeat(count, || {
            let ranges = RangeSet::parse(black_box(RANGES))?;
            let ranges = ranges.ok_or_else(|| anyhow::anyhow!("the ranges were not understood"))?;
            Ok(ranges.resolve(black_box(BLOB_BYTES))?)
        }),
        other => anyhow::bail!("there is no case {other}"),
    }
}

fn repeat<T>(count: u64, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<()> {
    for _ in 0..count {
        black_box(work()?);
    }
    Ok(())
}
