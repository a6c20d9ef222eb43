//! `tidegate prune`, `tidegate collect` and `tidegate verify`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Shared, text};
use crate::cli::table::{count, size};
use crate::cli::{Failure, Format, console};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate prune --dry-run\n  \
    tidegate prune --namespace acme\n\n\
    The server does this by itself every hour. What goes can be restored as if somebody had deleted it.")]
pub(in crate::cli) struct PruneArguments {
    /// Only of this namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only tells which tags would go.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate collect --dry-run\n  \
    tidegate collect\n\n\
    The server does this by itself every hour. Nothing goes that can still be restored, or that came within a day.")]
pub(in crate::cli) struct CollectArguments {
    /// Only tells what would go.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate verify\n\n\
    Reads everything that is hosted once. Exits with 1 where something is not as it should be. What is cached is verified \
    by `tidegate cache verify`.")]
pub(in crate::cli) struct VerifyArguments {
    #[command(flatten)]
    shared: Shared,
}

pub(in crate::cli) fn run_verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let shared = &arguments.shared;
    let client = shared.client()?;
    let verified = client.call("POST", "/api/v1/verify", Some(&json!({}))).map_err(Failure::Failed)?;
    let faults = verified["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
    match shared.output {
        Format::Json => console::print_json(&verified)?,
        Format::Text => {
            for fault in faults {
                let [repository, of, digest, reason] =
                    ["repository", "of", "digest", "reason"].map(|key| text(fault, key));
                console::print(&format!("{repository}: {of} needs {digest}: {reason}\n"))?;
            }
            let [tags, manifests, blobs] = ["tags", "manifests", "blobs"].map(|key| count(&verified[key]));
            let bytes = size(&verified["bytes"]);
            console::print(&format!(
                "{tags} tags, {manifests} manifests, {blobs} blobs ({bytes}) were compared\n"
            ))?;
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(anyhow::anyhow!("{} items are not as they should be", faults.len())))
}

pub(in crate::cli) fn run_prune(arguments: &PruneArguments) -> Result<(), Failure> {
    let PruneArguments { namespace, dry_run, shared } = arguments;
    let order = json!({ "namespace": namespace, "dry_run": dry_run });
    shared.order("POST", "/api/v1/prune", Some(&order), |pruned| {
        let verb = if *dry_run { "would go" } else { "went" };
        let line = |tag: &Value| {
            let [repository, name, digest] = ["repository", "name", "digest"].map(|key| text(tag, key));
            format!("{repository}:{name} ({digest})\n")
        };
        let lines: String = pruned["tags"].as_array().into_iter().flatten().map(line).collect();
        let [removed, looked_at] = ["removed", "looked_at"].map(|key| count(&pruned[key]));
        format!("{lines}{removed} of {looked_at} tags {verb}\n")
    })
}

pub(in crate::cli) fn run_collect(arguments: &CollectArguments) -> Result<(), Failure> {
    const PATH: &str = "/api/v1/collection";
    let CollectArguments { dry_run, shared } = arguments;
    if *dry_run {
        let words = |removed: &Value| describe("would remove", removed);
        return shared.order("POST", PATH, Some(&json!({ "dry_run": true })), words);
    }
    let client = shared.client()?;
    let begun = client.call("POST", PATH, Some(&json!({}))).map_err(Failure::Failed)?;
    let run = loop {
        let state = client.call("GET", PATH, None).map_err(Failure::Failed)?;
        if state["last"]["number"].as_u64() >= begun["number"].as_u64() {
            break state["last"].clone();
        }
        if state["running"].is_null() {
            let cut = "the server was restarted meanwhile; its next collection goes on";
            return Err(Failure::Failed(anyhow::anyhow!(cut)));
        }
        std::thread::sleep(POLL);
    };
    match shared.output {
        Format::Json => console::print_json(&run)?,
        Format::Text => console::print(&describe("removed", &run["removed"]))?,
    }
    match run["outcome"].as_str() {
        Some("complete") => Ok(()),
        outcome => Err(Failure::Failed(anyhow::anyhow!(
            "the collection was {}: {}",
            outcome.unwrap_or("lost"),
            run["error"].as_str().unwrap_or("the next one goes on")
        ))),
    }
}

fn describe(verb: &str, removed: &Value) -> String {
    let [repositories, manifests, blobs, strays, uploads] =
        ["repositories", "manifests", "blobs", "strays", "uploads"].map(|key| count(&removed[key]));
    format!(
        "{verb} {repositories} repositories, {manifests} manifests, {blobs} blobs, {strays} unknown objects, \
         {uploads} uploads: {}\n",
        size(&removed["freed_bytes"])
    )
}

/// How often it is asked whether a collection has ended.
const POLL: Duration = Duration::from_millis(200);
