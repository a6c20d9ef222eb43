//! What the metrics tell of bundles.

use super::interruptions::begin_import;
use super::{Sites, assert_done, one_image};
use crate::harness::{Tidegate, until};

async fn count(node: &Tidegate, name: &str, label: (&str, &str)) -> f64 {
    node.metrics().await.sum(name, &[label])
}

#[tokio::test]
async fn bundles_are_counted_by_how_they_end() {
    let sites = Sites::start().await;
    let plans = async |result| count(&sites.near, "tidegate_bundle_plans_total", ("result", result)).await;
    let imports = async |result| count(&sites.far, "tidegate_bundle_imports_total", ("result", result)).await;
    let (_, whole) = one_image(&sites).await;
    let second = sites.upstream.make_image("library/app", "2", &[500]);
    sites.export_all("delta.tar", &["app:1", "app:2", "--since", "whole.tar"]).await;
    assert_ne!(sites.export(&["--output", "no.tar", "app:none"]).await.status.code(), Some(0));
    assert_ne!(sites.export(&["--output", "no.tar", "app:none*"]).await.status.code(), Some(0));
    for (result, expected) in [("planned", 3.0), ("failed", 1.0), ("unfit", 1.0)] {
        let found = plans(result).await;
        assert!((found - expected).abs() < 0.1, "{result}: {found}");
    }
    let given_bytes = sites.near.metrics().await.sum("tidegate_bundle_export_bytes_total", &[]);
    assert!(given_bytes > 73_500.0 && given_bytes < 80_000.0, "{given_bytes}");

    let _refused = sites.import(&["delta.tar"]).await;
    let stream = begin_import(&sites.far, &whole, whole.len() / 2).await;
    let _busy = sites.import(&["whole.tar"]).await;
    drop(stream);
    until("the end of what was broken off", async || imports("broken_off").await > 0.5).await;
    std::fs::write(sites.path("bad.tar"), b"not a bundle").unwrap();
    let _refused = sites.import(&["bad.tar"]).await;
    for _ in 0..2 {
        assert_done(&sites.import(&["whole.tar"]).await);
    }
    assert_done(&sites.import(&["delta.tar"]).await);
    for (result, expected) in
        [("imported", 3.0), ("base_missing", 1.0), ("busy", 1.0), ("broken_off", 1.0), ("refused", 1.0)]
    {
        let found = imports(result).await;
        assert!((found - expected).abs() < 0.1, "{result}: {found}");
    }
    let bytes =
        async |content| count(&sites.far, "tidegate_bundle_import_bytes_total", ("content", content)).await;
    assert!(bytes("new").await > 73_500.0 && bytes("known").await > 73_000.0);
    sites.far.pull(&second).await;
}
