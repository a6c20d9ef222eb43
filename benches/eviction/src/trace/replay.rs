//! A trace from a file: one path of the registry protocol a line, as the published traces have them.

use std::collections::HashMap;

use fastrand::Rng;

use super::sizes::{layer_bytes, manifest_bytes};
use super::{Item, Request, Trace};

/// Reads lines as `v2/<name>/blobs/<digest>` and `v2/<name>/manifests/<reference>`; others are left out.
///
/// The lines have neither sizes nor times: each item is given a size from the same distribution as in
/// made-up traces, and the requests are spread evenly over `days`.
pub(crate) fn read(text: &str, days: f64, seed: u64) -> Trace {
    let mut random = Rng::with_seed(seed);
    let mut numbers = HashMap::new();
    let mut items = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.trim().rsplit('/');
        let (Some(last), Some(kind)) = (parts.next(), parts.next()) else { continue };
        let key = match kind {
            // Blobs are shared by all repositories, tags are not.
            "blobs" => last,
            "manifests" => line.trim(),
            _ => continue,
        };
        found.push(*numbers.entry(key).or_insert_with(|| {
            let is_manifest = kind == "manifests";
            let draw = if is_manifest { manifest_bytes } else { layer_bytes };
            items.push(Item { size_bytes: draw(&mut random), is_manifest });
            items.len() - 1
        }));
    }
    #[expect(clippy::cast_precision_loss, reason = "a fraction of a millisecond does not matter")]
    let step_ms = days * 86_400_000.0 / found.len().max(1) as f64;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds within the trace"
    )]
    let requests = found
        .iter()
        .enumerate()
        .map(|(place, item)| Request { at_ms: (place as f64 * step_ms) as u64, item: *item });
    Trace::tidy(&items, requests.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_one_for_all_repositories_and_tags_are_not() {
        let text =
            "v2/a/b/blobs/1\nv2\nv2/c/d/blobs/1\nv2/a/b/manifests/t\nv2/c/d/manifests/t\nv2/a/b/blobs/1";
        let trace = read(text, 1.0, 1);
        let items: Vec<_> = trace.requests.iter().map(|request| request.item).collect();
        assert_eq!(items, [0, 0, 1, 2, 0]);
        assert_eq!(trace.items.iter().filter(|item| item.is_manifest).count(), 2);
        assert_eq!(trace.requests[4].at_ms, 69_120_000);
    }
}
