//! What a trace is like, to be set beside what is published of real ones.

use super::Trace;

/// Figures of the blobs of a trace, and of its manifests.
#[derive(Clone, Debug)]
pub(crate) struct Statistics {
    /// All requests.
    pub(crate) requests: usize,
    /// All items.
    pub(crate) items: usize,
    /// The bytes of all items.
    pub(crate) working_set_bytes: u64,
    /// The bytes of all answers.
    pub(crate) requested_bytes: u64,
    /// Requests of manifests for each request of a blob.
    pub(crate) manifests_per_blob: f64,
    /// The share of the blobs' requests that the most popular 1 % of the blobs have.
    pub(crate) top_percent: f64,
    /// The share of the blobs that are requested once.
    pub(crate) once: f64,
    /// The share of the blobs that are requested twice at most.
    pub(crate) twice: f64,
    /// The quartiles, and the ninth decile, of the blob requests from one of a blob to its next.
    pub(crate) distances: [usize; 4],
    /// The mean size of a blob answer in bytes.
    pub(crate) mean_bytes: f64,
    /// The shares of the blobs below 1 MB and below 10 MB.
    pub(crate) small: [f64; 2],
    /// The shares of the blob requests for more than 64 MiB and more than 256 MiB.
    pub(crate) large: [f64; 2],
}

impl Statistics {
    /// Looks at a trace.
    pub(crate) fn of(trace: &Trace) -> Self {
        let blobs: Vec<usize> = trace
            .requests
            .iter()
            .map(|request| request.item)
            .filter(|item| !trace.items[*item].is_manifest)
            .collect();
        let mut counts = vec![0_usize; trace.items.len()];
        let mut last = vec![None; trace.items.len()];
        let mut distances = Vec::new();
        for (now, item) in blobs.iter().enumerate() {
            counts[*item] += 1;
            if let Some(before) = last[*item].replace(now) {
                distances.push(now - before);
            }
        }
        counts.retain(|count| *count > 0);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        distances.sort_unstable();
        let top: usize = counts[..counts.len().div_ceil(100)].iter().sum();
        let at_most = |most| share(counts.iter().filter(|count| **count <= most).count(), counts.len());
        let size_of = |item: &usize| trace.items[*item].size_bytes;
        let requested = |least| share(blobs.iter().filter(|item| size_of(item) > least).count(), blobs.len());
        let sizes: Vec<_> =
            trace.items.iter().filter(|item| !item.is_manifest).map(|item| item.size_bytes).collect();
        let below = |bytes| share(sizes.iter().filter(|size| **size < bytes).count(), sizes.len());
        #[expect(clippy::cast_precision_loss, reason = "a mean to three places")]
        let mean_bytes = blobs.iter().map(size_of).sum::<u64>() as f64 / blobs.len().max(1) as f64;
        Self {
            requests: trace.requests.len(),
            items: trace.items.len(),
            working_set_bytes: trace.working_set_bytes(),
            requested_bytes: trace.requests.iter().map(|request| size_of(&request.item)).sum(),
            manifests_per_blob: share(trace.requests.len() - blobs.len(), blobs.len()),
            top_percent: share(top, blobs.len()),
            once: at_most(1),
            twice: at_most(2),
            distances: [25, 50, 75, 90]
                .map(|percent| distances.get(distances.len() * percent / 100).copied().unwrap_or(0)),
            mean_bytes,
            small: [below(1_000_000), below(10_000_000)],
            large: [requested(64 << 20), requested(256 << 20)],
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share to three places")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
