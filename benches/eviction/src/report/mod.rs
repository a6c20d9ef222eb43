//! The text about eviction in `benches/RESULTS.md`.

mod choice;
mod words;

use std::fmt::Write as _;

use crate::Named;
use crate::measure::{Contender, Ratios, table};
use crate::options::Options;
use crate::policy::{Rank, Rules};
use crate::production;
use crate::trace::{Statistics, Trace};

/// Simulates everything and writes the section.
pub(crate) fn write(traces: &[Named], options: &Options) -> anyhow::Result<String> {
    let tables: Vec<_> = traces
        .iter()
        .map(|named| {
            table(&named.trace, &capacities(&named.trace), &CONTENDERS.map(|(_, contender)| contender))
        })
        .collect();
    let mut text = words::introduction(traces, options);
    text += &traces_table(traces);
    text += words::SOURCES;
    for (title, ratio) in MEASURES {
        for (named, rows) in traces.iter().zip(&tables) {
            text += &ratios_table(title, named.name, rows, ratio);
        }
    }
    text += &choice::write(traces, &tables);
    text += &evictor_table(&traces[0])?;
    Ok(text)
}

/// The capacities that are simulated, in bytes.
fn capacities(trace: &Trace) -> [u64; PERCENTS.len()] {
    PERCENTS.map(|percent| trace.working_set_bytes() / 100 * percent)
}

fn traces_table(traces: &[Named]) -> String {
    let statistics: Vec<_> = traces.iter().map(|named| Statistics::of(&named.trace)).collect();
    let mut text = String::from("\n| measure | published |");
    for named in traces {
        _ = write!(text, " {} |", named.name);
    }
    text += "\n| --- | --: |";
    text += &" --: |".repeat(traces.len());
    text.push('\n');
    for (name, published, cell) in words::STATISTICS {
        _ = write!(text, "| {name} | {published} |");
        for statistics in &statistics {
            _ = write!(text, " {} |", cell(statistics));
        }
        text.push('\n');
    }
    text
}

fn ratios_table(title: &str, name: &str, rows: &[Vec<Ratios>], ratio: fn(&Ratios) -> f64) -> String {
    let mut text = format!("\n### {title}, `{name}`\n\n{}", percent_heading("policy"));
    for ((policy, _), cells) in CONTENDERS.iter().zip(rows) {
        text += &line(policy, cells.iter().map(|cell| format!("{:.1}", 100.0 * ratio(cell))));
    }
    text
}

/// Runs the evictor itself over the first part of a trace, and says how much it did.
///
/// Fails where the model of segmented LRU, which all other tables show, hits anything else.
fn evictor_table(named: &Named) -> anyhow::Result<String> {
    let mut trace = named.trace.clone();
    trace.requests.truncate(EVICTOR_REQUESTS);
    let trace = trace.only_requested();
    let mut text = words::evictor(trace.requests.len(), named.name);
    let columns = ["hits of objects %", "hits of bytes %", "runs", "items evicted", "items a run"];
    text += &heading("cache size", &columns.map(str::to_owned));
    for (percent, capacity_bytes) in PERCENTS.iter().zip(capacities(&trace)) {
        let (hits, work) = production::replay(&trace, capacity_bytes)?;
        let modelled = crate::measure::replay(&trace, capacity_bytes, Contender::Segmented(Rules::TIDEGATE));
        anyhow::ensure!(
            hits == modelled,
            "the model of segmented LRU is not the evictor any more, at {percent} %: {modelled:?}, not {hits:?}"
        );
        let ratios = hits.ratios();
        text += &line(
            &format!("{percent} %"),
            [
                format!("{:.1}", 100.0 * ratios.objects),
                format!("{:.1}", 100.0 * ratios.bytes),
                work.runs.to_string(),
                work.items.to_string(),
                a_run(work.items, work.runs),
            ],
        );
    }
    Ok(text)
}

#[expect(clippy::cast_precision_loss, reason = "a mean to one place")]
fn a_run(count: u64, runs: u64) -> String {
    format!("{:.1}", count as f64 / runs.max(1) as f64)
}

fn percent_heading(first: &str) -> String {
    heading(first, &PERCENTS.map(|percent| format!("{percent} %")))
}

fn heading(first: &str, columns: &[String]) -> String {
    let rule = " --: |".repeat(columns.len());
    format!("{}| --- |{rule}\n", line(first, columns.iter().cloned()))
}

fn line(first: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<_> = cells.into_iter().collect();
    format!("| {first} | {} |\n", cells.join(" | "))
}

/// The sizes of the cache, in percent of the working set.
const PERCENTS: [u64; 5] = [1, 5, 10, 25, 50];

/// How much of a trace the evictor itself is run over: each request costs it statements of SQL.
const EVICTOR_REQUESTS: usize = 4_000;

type Measure = fn(&Ratios) -> f64;

const MEASURES: [(&str, Measure); 2] = [
    ("Byte hit ratio in percent", |ratios| ratios.bytes),
    ("Object hit ratio in percent", |ratios| ratios.objects),
];

const CONTENDERS: [(&str, Contender); 10] = [
    ("**Tidegate** (segmented LRU)", Contender::Segmented(Rules::TIDEGATE)),
    ("FIFO", Contender::Ranked(Rank::Arrival)),
    ("LRU", Contender::Ranked(Rank::LastUse)),
    ("LFU", Contender::Ranked(Rank::Uses)),
    ("LFU-DA (GDSF for bytes)", Contender::Ranked(Rank::AgedUses)),
    ("GDSF (for objects)", Contender::Ranked(Rank::AgedUsesPerByte)),
    ("SIEVE", Contender::Sieve),
    ("S3-FIFO", Contender::S3Fifo),
    ("clairvoyant: Belady's rule", Contender::Clairvoyant),
    ("upper bound: PFOO-L", Contender::Bound),
];

/// How many of the contenders know the past only; they come first.
const ONLINE: usize = 8;
