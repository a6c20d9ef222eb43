//! `tidegate warm`: has a running server make images complete, and shows how that goes.

mod images;
mod progress;

use std::collections::HashMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use self::progress::Reporter;
use super::admin_client::{ServerArguments, read_environment};
use super::{Failure, Format};
use crate::oci::Platform;
use crate::runtime::DayWindow;

/// How often the server is asked.
const PERIOD: Duration = Duration::from_millis(200);

/// The largest file of images.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "tidegate warm [OPTIONS] <IMAGE>...\n       tidegate warm [OPTIONS] --file <FILE>"
)]
#[command(after_help = "Example:\n  \
    tidegate warm docker.io/library/alpine:3 'ghcr.io/owner/app:v1.*' --platform linux/amd64\n  \
    tidegate warm --file docker-compose.yml\n  \
    kubectl get pods -A -o yaml | tidegate warm --file - --output json\n\n\
    Interrupted, this command ends, and the server goes on.\n\n\
    Exit codes: 0 every image is complete, 1 some image is not, 2 bad usage.")]
pub(super) struct WarmArguments {
    /// Images, as clients write them; * in the tag stands for any text.
    #[arg(value_name = "IMAGE", required_unless_present = "file")]
    images: Vec<String>,
    /// A list of images (one a line), a docker-compose file, or Kubernetes manifests; - is standard input.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// A platform to fetch, such as linux/arm64 [default: what the server's configuration says].
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// Leaves signatures, attestations and other referrers out.
    #[arg(long)]
    no_referrers: bool,
    /// The most bytes a second, such as 10MiB.
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::parse_rate)]
    bandwidth: Option<u64>,
    /// The part of the day in which anything is fetched, such as "22:00-06:00 +02:00"; UTC where nothing is said.
    #[arg(long, value_name = "WINDOW")]
    window: Option<DayWindow>,
    #[command(flatten)]
    server: ServerArguments,
    /// How to print: bars and lines for people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(arguments: &WarmArguments) -> Result<(), Failure> {
    let environment = read_environment();
    let order = arguments.order(&environment).map_err(Failure::Usage)?;
    let client = arguments.server.client(&environment)?;
    let started = client.call("POST", "/api/v1/warm", Some(&order)).map_err(Failure::Failed)?;
    let path = started["id"].as_str().map(|id| format!("/api/v1/warm/{id}"));
    let path =
        path.ok_or_else(|| Failure::Failed(anyhow!("the server does not say how the job is called")))?;
    let mut reporter = Reporter::new(arguments.output, std::io::stderr().is_terminal());
    loop {
        let job = client.call("GET", &path, None).map_err(Failure::Failed)?;
        reporter.show(&job)?;
        if job["is_over"] == true {
            reporter.finish(&job)?;
            return judge(&job);
        }
        std::thread::sleep(PERIOD);
    }
}

impl WarmArguments {
    /// The order for the server.
    fn order(&self, environment: &HashMap<String, String>) -> anyhow::Result<Value> {
        let images = collect_images(&self.images, &self.file, environment)?;
        let platforms: Vec<_> = self.platform.iter().map(ToString::to_string).collect();
        let mut order = json!({ "images": images, "platforms": platforms, "referrers": !self.no_referrers });
        if let Some(bytes) = self.bandwidth {
            order["bandwidth_bytes"] = bytes.into();
        }
        if let Some(window) = self.window {
            order["window"] = window.to_string().into();
        }
        Ok(order)
    }
}

/// All images that are named, by hand or in files, each once.
pub(super) fn collect_images(
    named: &[String],
    files: &[PathBuf],
    environment: &HashMap<String, String>,
) -> anyhow::Result<Vec<String>> {
    let mut images = named.to_vec();
    for path in files {
        let text = read(path).with_context(|| format!("read {}", path.display()))?;
        let found = images::find(path, &text, environment);
        images.extend(found.with_context(|| format!("{}", path.display()))?);
    }
    let mut seen = std::collections::HashSet::new();
    images.retain(|image| seen.insert(image.clone()));
    Ok(images)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let source: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let length = source.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(anyhow!("it is larger than 16 MiB: give it in parts"));
    }
    Ok(text)
}

/// Fails unless every image is complete.
fn judge(job: &Value) -> Result<(), Failure> {
    let images = job["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<_> = images
        .iter()
        .filter(|image| image["state"] != "complete")
        .map(|image| {
            let reason = image["reason"].as_str().unwrap_or("it was not begun");
            format!("\n  {}: {reason}", image["image"].as_str().unwrap_or_default())
        })
        .collect();
    if lines.is_empty() && job["state"] == "complete" {
        return Ok(());
    }
    let cancelled = if job["state"] == "cancelled" { ", the job was cancelled" } else { "" };
    let (count, all) = (lines.len(), images.len());
    Err(Failure::Failed(anyhow!("{count} of {all} images are not complete{cancelled}:{}", lines.concat())))
}
