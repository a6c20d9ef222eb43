//! `tidegate cache`: looks at what a running server has cached, verifies and purges it.

mod verify;

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use self::verify::VerifyArguments;
use super::admin_client::{AdminClient, ServerArguments, read_environment};
use super::table::{Table, count, size};
use super::{Failure, Format, console};
use crate::oci::{Digest, Tag, encode_query};

#[derive(Debug, clap::Subcommand)]
pub(super) enum CacheCommand {
    /// Sums up what is cached, by upstream, beside the budget.
    Stats(StatsArguments),
    /// Lists what is cached, or which images are complete.
    List(ListArguments),
    /// Pins images: neither evicted nor purged until they are unpinned.
    Pin(PinArguments),
    /// Removes pins.
    Unpin(UnpinArguments),
    /// Removes content and all that is known of it; the next pull asks upstream.
    Purge(PurgeArguments),
    /// Compares what is stored with its digests; what is damaged is removed and fetched again.
    Verify(VerifyArguments),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate cache stats\n  tidegate cache stats --output json")]
pub(super) struct StatsArguments {
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate cache list --repository docker.io/library/alpine\n  \
    tidegate cache list --min-size 1GiB --unused-for 30d --output json\n  \
    tidegate cache list --incomplete")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: Filter,
    /// Lists whole images instead, and whether all of them is here.
    #[arg(long)]
    images: bool,
    /// Only images that are complete.
    #[arg(long, conflicts_with = "incomplete")]
    complete: bool,
    /// Only images of which something is missing.
    #[arg(long)]
    incomplete: bool,
    /// Lists pins instead.
    #[arg(long, conflicts_with_all = ["images", "complete", "incomplete"])]
    pins: bool,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate cache pin docker.io/library/alpine:3\n\n\
    All of the image is pinned (index, manifests, configurations, layers, referrers), also what of it comes \
    later. By tag, the pin follows the tag.")]
pub(super) struct PinArguments {
    /// Images as clients write them, by tag or digest; something of them has to be here.
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate cache unpin docker.io/library/alpine:3")]
pub(super) struct UnpinArguments {
    /// Images as `tidegate cache list --pins` has them.
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate cache purge --repository docker.io/library/alpine --tag 3.19\n  \
    tidegate cache purge --unused-for 90d --dry-run\n  \
    tidegate cache purge --all\n\n\
    With --tag or --digest, a manifest takes along what nothing else in its repository uses. What another \
    repository or image uses stays on the disk.")]
pub(super) struct PurgeArguments {
    #[command(flatten)]
    filter: Filter,
    /// Everything.
    #[arg(long)]
    all: bool,
    /// Only tells what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    shared: Shared,
}

/// What every one of these commands takes.
#[derive(Debug, clap::Args)]
struct Shared {
    #[command(flatten)]
    server: ServerArguments,
    /// How to print: tables for people, or JSON.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Which content is meant: what agrees with all that is given.
#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Only of this registry, such as docker.io.
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only of this repository, such as docker.io/library/alpine.
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Only what this tag points to.
    #[arg(long, value_name = "TAG")]
    tag: Option<Tag>,
    /// Only this content.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// Only blobs, or only manifests.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only what was stored so long ago or longer, such as 30d.
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    stored_for: Option<Duration>,
    /// Only what was not used for so long or longer, such as 30d.
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    unused_for: Option<Duration>,
    /// Only what is so large or larger, such as 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    min_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Blob,
    Manifest,
}

impl Filter {
    /// The parameters of the API, as its paths and orders have them.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let kind = self.kind.map(|kind| match kind {
            Kind::Blob => "blob".to_owned(),
            Kind::Manifest => "manifest".to_owned(),
        });
        let seconds = |duration: &Duration| duration.as_secs().to_string();
        [
            ("upstream", self.upstream.clone()),
            ("repository", self.repository.clone()),
            ("tag", self.tag.as_ref().map(ToString::to_string)),
            ("digest", self.digest.as_ref().map(ToString::to_string)),
            ("kind", kind),
            ("stored_for_seconds", self.stored_for.as_ref().map(seconds)),
            ("unused_for_seconds", self.unused_for.as_ref().map(seconds)),
            ("min_size_bytes", self.min_size.map(|bytes| bytes.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

impl Shared {
    fn client(&self) -> Result<AdminClient, Failure> {
        self.server.client(&read_environment())
    }
}

pub(super) fn run(command: &CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Stats(arguments) => stats(&arguments.shared),
        CacheCommand::List(arguments) => list(arguments),
        CacheCommand::Pin(arguments) => pin(arguments),
        CacheCommand::Unpin(arguments) => unpin(arguments),
        CacheCommand::Purge(arguments) => purge(arguments),
        CacheCommand::Verify(arguments) => verify::run(arguments),
    }
}

fn stats(shared: &Shared) -> Result<(), Failure> {
    let stats = shared.client()?.call("GET", "/api/v1/cache/stats", None).map_err(Failure::Failed)?;
    if shared.output == Format::Json {
        return Ok(console::print_json(&stats)?);
    }
    let mut table = Table::new(&["UPSTREAM", "TAGS", "MANIFESTS", "BLOBS", "SIZE", "PINNED"]);
    let mut add = |name: &str, sums: &Value| {
        let counts = ["tags", "manifests", "blobs"].map(|key| count(&sums[key]));
        let [tags, manifests, blobs] = counts;
        table.add([
            name.to_owned(),
            tags,
            manifests,
            blobs,
            size(&sums["bytes"]),
            size(&sums["pinned_bytes"]),
        ]);
    };
    for upstream in stats["upstreams"].as_array().into_iter().flatten() {
        add(upstream["name"].as_str().unwrap_or_default(), upstream);
    }
    add("all, each content once", &stats["total"]);
    let (budget, free) = (size(&stats["budget_bytes"]), size(&stats["free_bytes"]));
    console::print(&format!(
        "{table}\nbudget {budget}, free on the disk {free} (of which {} are to stay free)\n",
        size(&stats["min_free_bytes"])
    ))?;
    Ok(())
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let Shared { output, .. } = arguments.shared;
    if arguments.pins {
        return list_pins(arguments);
    }
    let wants_images = arguments.images || arguments.complete || arguments.incomplete;
    let mut parameters = arguments.filter.parameters();
    if wants_images
        && let Some((name, _)) =
            parameters.iter().find(|(name, _)| !["upstream", "repository"].contains(name))
    {
        let name = name.trim_end_matches("_seconds").trim_end_matches("_bytes").replace('_', "-");
        let fault = anyhow::anyhow!(
            "--{name} is for content and not for images: leave it out, or leave \
            --images, --complete and --incomplete out"
        );
        return Err(Failure::Usage(fault));
    }
    for (name, given) in [("complete", arguments.complete), ("incomplete", arguments.incomplete)] {
        if given {
            parameters.push((name, "true".to_owned()));
        }
    }
    let (path, key) =
        if wants_images { ("/api/v1/cache/images", "images") } else { ("/api/v1/cache/entries", "entries") };
    let client = arguments.shared.client()?;
    let mut last: Option<String> = None;
    loop {
        let mut query = parameters.clone();
        query.extend(last.map(|last| ("last", last)));
        let page = client.call("GET", &format!("{path}?{}", encode_query(&query)), None);
        let page = page.map_err(Failure::Failed)?;
        let rows = page[key].as_array().map(Vec::as_slice).unwrap_or_default();
        match output {
            Format::Json => {
                let lines: Vec<_> = rows.iter().map(|row| format!("{row}\n")).collect();
                console::print(&lines.concat())?;
            }
            Format::Text if rows.is_empty() => {}
            Format::Text if wants_images => console::print(&describe_images(rows).to_string())?,
            Format::Text => console::print(&describe_entries(rows).to_string())?,
        }
        last = page["next"].as_str().map(str::to_owned);
        if last.is_none() {
            return Ok(());
        }
    }
}

fn list_pins(arguments: &ListArguments) -> Result<(), Failure> {
    if let Some((name, _)) = arguments.filter.parameters().first() {
        return Err(Failure::Usage(anyhow::anyhow!("{name} does not limit --pins: leave one of them out")));
    }
    let client = arguments.shared.client()?;
    let answer = client.call("GET", "/api/v1/cache/pins", None).map_err(Failure::Failed)?;
    let mut table = Table::new(&["IMAGE", "REASON", "SINCE", "ITEMS", "SIZE"]);
    for pin in answer["pins"].as_array().into_iter().flatten() {
        if arguments.shared.output == Format::Json {
            console::print(&format!("{pin}\n"))?;
            continue;
        }
        let [image, reason, since] = ["image", "reason", "pinned_at"].map(|key| text(pin, key));
        let items = format!("{} of {}", count(&pin["stored"]), count(&pin["items"]));
        table.add([image, reason, since, items, size(&pin["stored_bytes"])]);
    }
    if arguments.shared.output == Format::Text && !table.is_empty() {
        console::print(&table.to_string())?;
    }
    Ok(())
}

fn pin(arguments: &PinArguments) -> Result<(), Failure> {
    let client = arguments.shared.client()?;
    for image in &arguments.images {
        let order = json!({ "image": image });
        let pinned = client.call("POST", "/api/v1/cache/pins", Some(&order)).map_err(Failure::Failed)?;
        let (items, bytes) = (count(&pinned["stored"]), size(&pinned["stored_bytes"]));
        console::print(&match arguments.shared.output {
            Format::Json => format!("{pinned}\n"),
            Format::Text => format!("pinned {} ({items} items here, {bytes})\n", text(&pinned, "image")),
        })?;
    }
    Ok(())
}

fn unpin(arguments: &UnpinArguments) -> Result<(), Failure> {
    let client = arguments.shared.client()?;
    for image in &arguments.images {
        let path = format!("/api/v1/cache/pins?{}", encode_query(&[("image", image)]));
        let unpinned = client.call("DELETE", &path, None).map_err(Failure::Failed)?;
        console::print(&match arguments.shared.output {
            Format::Json => format!("{unpinned}\n"),
            Format::Text => format!("unpinned {image}\n"),
        })?;
    }
    Ok(())
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

fn tags(row: &Value) -> String {
    let tags: Vec<_> = row["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if tags.is_empty() { "-".to_owned() } else { tags.join(",") }
}

fn describe_entries(rows: &[Value]) -> Table<7> {
    let mut table = Table::new(&["REPOSITORY", "TAGS", "KIND", "SIZE", "LAST USED", "PINNED", "DIGEST"]);
    for row in rows {
        let [repository, kind, used, digest] =
            ["repository", "kind", "last_used_at", "digest"].map(|key| text(row, key));
        let pinned = if row["is_pinned"] == true { "yes" } else { "-" };
        table.add([repository, tags(row), kind, size(&row["size_bytes"]), used, pinned.to_owned(), digest]);
    }
    table
}

fn describe_images(rows: &[Value]) -> Table<6> {
    let mut table = Table::new(&["REPOSITORY", "TAGS", "STATE", "SIZE", "MISSING", "DIGEST"]);
    for row in rows {
        let [repository, state, digest] = ["repository", "state", "digest"].map(|key| text(row, key));
        let missing = match row["missing_parts"].as_u64() {
            None | Some(0) => "-".to_owned(),
            Some(1) => "1 part".to_owned(),
            Some(parts) => format!("{parts} parts"),
        };
        table.add([repository, tags(row), state, size(&row["stored_bytes"]), missing, digest]);
    }
    table
}

fn purge(arguments: &PurgeArguments) -> Result<(), Failure> {
    let parameters = arguments.filter.parameters();
    if parameters.is_empty() != arguments.all {
        let fault = if arguments.all {
            "--all is said beside what limits it: leave one of them out"
        } else {
            "nothing says what is to be purged: name --upstream, --repository, --tag, --digest, --kind, \
             --stored-for, --unused-for or --min-size; or say --all"
        };
        return Err(Failure::Usage(anyhow::anyhow!(fault)));
    }
    let mut order: Map<String, Value> =
        parameters.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    order.insert("all".to_owned(), arguments.all.into());
    order.insert("dry_run".to_owned(), arguments.dry_run.into());
    let client = arguments.shared.client()?;
    let purged = client.call("POST", "/api/v1/cache/purge", Some(&order.into())).map_err(Failure::Failed)?;
    match arguments.shared.output {
        Format::Json => console::print_json(&purged)?,
        Format::Text => console::print(&describe_purge(&purged))?,
    }
    match purged["stuck"].as_u64() {
        None | Some(0) => Ok(()),
        Some(stuck) => Err(Failure::Failed(anyhow::anyhow!(
            "{stuck} items could not be removed: look at the server's log and its disk, and purge again"
        ))),
    }
}

fn describe_purge(purged: &Value) -> String {
    let verb = if purged["dry_run"] == true { "would purge" } else { "purged" };
    let [tags, manifests, blobs] = ["tags", "manifests", "blobs"].map(|key| count(&purged[key]));
    let text =
        format!("{verb} {tags} tags, {manifests} manifests, {blobs} blobs: {}\n", size(&purged["bytes"]));
    let stays = |key: &str, why: &str| {
        let kept = purged[key].as_u64().filter(|kept| *kept > 0)?;
        Some(format!("{kept} items ({}) stay on the disk: {why}\n", size(&purged[format!("{key}_bytes")])))
    };
    let shared = stays("shared", "others use them").unwrap_or_default();
    text + &shared + &stays("pinned", "they are pinned").unwrap_or_default()
}
