//! Simulates eviction policies over registry-like traces, Tidegate's own code among them, and writes the
//! tables of `benches/RESULTS.md` about eviction.
//!
//! Nothing here depends on the machine or its clock: the same arguments give the same text.

mod measure;
mod options;
mod policy;
mod production;
mod report;
mod section;
mod trace;

use anyhow::Context as _;

use self::options::Options;
use self::trace::{Model, Trace, VARIANTS};

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut traces: Vec<Named> = VARIANTS.iter().map(|model| Named::made(model, &options)).collect();
    if let Some(path) = &options.replay {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let note =
            "the order of requests of a public excerpt of the traces themselves; sizes and times are made up";
        let trace = trace::read(&text, VARIANTS[0].days, options.seed);
        anyhow::ensure!(!trace.requests.is_empty(), "{} has no path of a blob or manifest", path.display());
        traces.push(Named { name: "replay", note, trace });
    }
    let text = report::write(&traces, &options)?;
    if let Some(path) = &options.write {
        return section::write_into(path, &text);
    }
    section::print(&text);
    Ok(())
}

/// A trace under its name.
pub(crate) struct Named {
    /// What the tables call it.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) note: &'static str,
    /// Its requests.
    pub(crate) trace: Trace,
}

impl Named {
    fn made(model: &Model, options: &Options) -> Self {
        let model = Model { pulls: model.pulls / options.parts, ..*model };
        Self { name: model.name, note: model.note, trace: trace::make(&model, options.seed) }
    }
}
