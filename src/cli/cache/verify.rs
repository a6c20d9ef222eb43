//! `tidegate cache verify`: has a running server compare what it has stored with its digests.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use super::{Filter, Shared};
use crate::cli::table::size;
use crate::cli::{Failure, Format, console};

/// How often the server is asked.
const PERIOD: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate cache verify\n  \
    tidegate cache verify --repository docker.io/library/alpine --rate 20MiB\n  \
    tidegate cache verify --kind manifest --no-heal --output json\n\n\
    Where nothing says which content is meant, it is all of it, and the index. What is damaged is not served any \
    more in any case. Interrupted, this command ends, and the server goes on.\n\n\
    Exit codes: 0 all is sound or healed, 1 something is not, or could not be looked at, 2 bad usage.")]
pub(in crate::cli) struct VerifyArguments {
    #[command(flatten)]
    filter: Filter,
    /// Leaves what is damaged to the next pull, and does not fetch it again now.
    #[arg(long)]
    no_heal: bool,
    /// The most bytes a second, such as 20MiB [default: as fast as the disk is].
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::parse_rate)]
    rate: Option<u64>,
    #[command(flatten)]
    shared: Shared,
}

pub(super) fn run(arguments: &VerifyArguments) -> Result<(), Failure> {
    let parameters = arguments.filter.parameters().into_iter();
    let mut order: Map<String, Value> =
        parameters.map(|(name, value)| (name.to_owned(), value.into())).collect();
    order.insert("heal".to_owned(), (!arguments.no_heal).into());
    order.extend(arguments.rate.map(|rate| ("rate_bytes".to_owned(), rate.into())));
    let client = arguments.shared.client()?;
    let path = "/api/v1/cache/verify";
    let started = client.call("POST", path, Some(&order.into())).map_err(Failure::Failed)?;
    let mut reporter = Reporter::new(arguments.shared.output);
    loop {
        let job = client.call("GET", path, None).map_err(Failure::Failed)?;
        if job["id"] != started["id"] {
            let fault =
                anyhow!("another verification was begun when this one was over: its end was not seen");
            return Err(Failure::Failed(fault));
        }
        reporter.show(&job)?;
        if job["is_over"] == true {
            reporter.finish(&job)?;
            return judge(&job);
        }
        std::thread::sleep(PERIOD);
    }
}

/// Prints what is new.
struct Reporter {
    format: Format,
    bar: Option<ProgressBar>,
    /// What was last printed of each item, by digest.
    told: HashMap<String, Value>,
}

impl Reporter {
    fn new(format: Format) -> Self {
        let bar = (format == Format::Text && io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(
                "[{bar:30}] {bytes} of {total_bytes} ({bytes_per_sec}, {eta} left) {msg}",
            );
            // One that were wrong would only look plain.
            let style = style.unwrap_or_else(|_fault| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { format, bar, told: HashMap::new() }
    }

    fn show(&mut self, job: &Value) -> io::Result<()> {
        for finding in job["findings"].as_array().into_iter().flatten() {
            let digest = finding["digest"].as_str().unwrap_or_default();
            if self.told.get(digest) == Some(finding) {
                continue;
            }
            self.told.insert(digest.to_owned(), finding.clone());
            if self.format == Format::Json {
                console::print(&format!("{finding}\n"))?;
            } else if finding["state"] != "healing" {
                self.print_line(&describe(finding))?;
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_length(number(job, "bytes"));
            bar.set_position(number(job, "checked_bytes"));
            bar.set_message(format!("{} of {} items", number(job, "checked_items"), number(job, "items")));
        }
        Ok(())
    }

    fn finish(&self, job: &Value) -> io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.format == Format::Json {
            let mut end = job.clone();
            // They were told one by one.
            if let Some(members) = end.as_object_mut() {
                members.remove("findings");
            }
            return console::print(&format!("{end}\n"));
        }
        if job["index"] == "replaced" {
            console::print("the index was damaged; it was set aside and built anew\n")?;
        }
        console::print(&format!(
            "verified {} items ({}): {} damaged, {} healed, {} could not be looked at\n",
            number(job, "checked_items"),
            size(&job["checked_bytes"]),
            number(job, "damaged"),
            number(job, "healed"),
            number(job, "unchecked"),
        ))
    }

    fn print_line(&self, line: &str) -> io::Result<()> {
        let print = || console::print(&format!("{line}\n"));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

fn describe(finding: &Value) -> String {
    let text = |key: &str| finding[key].as_str().unwrap_or_default();
    let damage = finding["damage"].as_str().unwrap_or("unknown");
    let reason = finding["reason"].as_str().map_or_else(String::new, |reason| format!(": {reason}"));
    let (state, kind, digest, bytes) =
        (text("state"), text("kind"), text("digest"), size(&finding["size_bytes"]));
    format!("{state:<9}  {damage:<10}  {kind:<8}  {digest} ({bytes}){reason}")
}

/// Fails unless everything was looked at, and all that was damaged is back.
fn judge(job: &Value) -> Result<(), Failure> {
    let fail = |reason: String| Err(Failure::Failed(anyhow!(reason)));
    match job["state"].as_str() {
        Some("cancelled") => return fail("somebody stopped the verification".to_owned()),
        Some("failed") => {
            let reason = job["reason"].as_str().unwrap_or("no reason is told");
            return fail(format!("the verification could not go on: {reason}"));
        }
        _ => {}
    }
    let lost = number(job, "damaged").saturating_sub(number(job, "healed"));
    let unchecked = number(job, "unchecked");
    if lost + unchecked == 0 {
        return Ok(());
    }
    let damaged = "items are damaged and not back; they are not served, and fetched when they are asked for";
    fail(format!("{lost} {damaged}; {unchecked} items could not be looked at"))
}

fn number(job: &Value, key: &str) -> u64 {
    job[key].as_u64().unwrap_or(0)
}
