//! Runs one case of the micro-benchmarks: `tidegate-instructions CASE COUNT`.
//!
//! Measures nothing itself: `benches/instructions/run` has the instructions counted from outside, for two
//! counts, so that what a start costs cancels out.

mod node;
mod words;

use anyhow::Context as _;

use self::node::Node;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().context("which case?")?;
    let count = arguments.next().context("how many times?")?.parse().context("read the count")?;
    match case.as_str() {
        "manifest-by-digest" => Node::with_manifest()?.pull_by_digest(count),
        "manifest-by-tag" => Node::with_manifest()?.pull_by_tag(count),
        other => words::run(other, count),
    }
}
