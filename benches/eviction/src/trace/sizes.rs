//! Sizes of layers and manifests.

use fastrand::Rng;

/// Draws the size of a layer in bytes: between the quantiles, its logarithm is even.
pub(crate) fn layer_bytes(random: &mut Rng) -> u64 {
    at_quantile(&LAYERS, random.f64())
}

/// Draws the size of a manifest in bytes.
pub(crate) fn manifest_bytes(random: &mut Rng) -> u64 {
    random.u64(500..4_000)
}

fn at_quantile(table: &[(f64, f64)], quantile: f64) -> u64 {
    let upper = table.iter().position(|(share, _)| quantile < *share).unwrap_or(table.len() - 1).max(1);
    let ((from, low), (to, high)) = (table[upper - 1], table[upper]);
    let part = (quantile - from) / (to - from);
    let bytes = (low.ln() + part * (high.ln() - low.ln())).exp();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 100 and 2^32")]
    let bytes = bytes.round() as u64;
    bytes
}

/// Share of the layers, and the size in bytes that they are smaller than.
///
/// 65 % below 1 MB and 80 % below 10 MB are those of the paper; the small ones are those of a sample of
/// its traces of 554 blobs; the large ones are the shares of the requests of all its traces that were
/// answered with more than 64 MiB, 256 MiB and 1 GiB. The largest is assumed.
const LAYERS: [(f64, f64); 11] = [
    (0.0, 100.0),
    (0.10, 215.0),
    (0.25, 975.0),
    (0.50, 14_700.0),
    (0.65, 1e6),
    (0.80, 1e7),
    (0.90, 3.1e7),
    (0.9414, 67_108_864.0),
    (0.9944, 268_435_456.0),
    (0.999_51, 1_073_741_824.0),
    (1.0, 4_294_967_296.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_table() {
        for (quantile, bytes) in LAYERS {
            #[expect(clippy::cast_precision_loss, reason = "smaller than 2^53")]
            let found = at_quantile(&LAYERS, quantile) as f64;
            assert!((found / bytes - 1.0).abs() < 0.01, "{quantile}: {found} for {bytes}");
        }
    }
}
