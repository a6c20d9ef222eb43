//! `tidegate import`: has a running server take a bundle in.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::Value;

use super::admin_client::{ServerArguments, read_environment};
use super::meter::{Meter, tell};
use super::{Failure, Format, console};
use crate::bundle::PublicKey;
use crate::oci::encode_query;

/// How long the server may take to bring everything into place after the last byte.
const PATIENCE: Duration = Duration::from_mins(15);

/// How much is read at once, in bytes.
const PART: usize = 256 * 1024;

/// The type of a bundle.
const TAR: &str = "application/x-tar";

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "All of the bundle is verified before anything of it is served. To import it again does no harm.\n\n\
                        Example:\n  \
                        tidegate import images.tar\n  \
                        tidegate import --verify-key bundle.key.pub images.tar"
)]
pub(super) struct ImportArguments {
    /// The bundle, as `tidegate export` wrote it.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The public key that has to have signed it: a file, or the key itself (ed25519:…). Several: one of them.
    #[arg(long, value_name = "PUB")]
    verify_key: Vec<String>,
    /// Lets tags of the bundle replace what this server saw of them later.
    #[arg(long)]
    replace_tags: bool,
    #[command(flatten)]
    server: ServerArguments,
    /// How to print: lines for people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(arguments: &ImportArguments) -> Result<(), Failure> {
    let keys: Vec<_> = arguments
        .verify_key
        .iter()
        .map(|text| read_key(text))
        .collect::<Result<_, _>>()
        .map_err(Failure::Usage)?;
    let client = arguments.server.client(&read_environment())?;
    let shown = arguments.bundle.display();
    let mut file =
        File::open(&arguments.bundle).with_context(|| format!("open {shown}")).map_err(Failure::Failed)?;
    let length = file.metadata()?.len();
    let mut pairs: Vec<_> = keys.iter().map(|key| ("verify-key", key.to_string())).collect();
    if arguments.replace_tags {
        pairs.push(("replace-tags", String::new()));
    }
    let path = format!("/api/v1/import?{}", encode_query(&pairs));
    let mut meter = Meter::new(arguments.output, "importing", 0, length);
    let answer =
        client.upload(&path, (TAR, length), PATIENCE, |stream| send(&mut file, length, stream, &mut meter));
    meter.finish();
    let answer = answer.with_context(|| client.not_reached()).map_err(Failure::Failed)?;
    if !answer.is_ok() {
        return Err(Failure::Failed(anyhow!("{shown} is not imported: {}", answer.into_reason())));
    }
    let imported = answer.into_json().map_err(Failure::Failed)?;
    report(arguments.output, &imported)
}

/// A key by itself, or in a file.
fn read_key(text: &str) -> anyhow::Result<PublicKey> {
    if text.starts_with("ed25519:") {
        return text.parse().with_context(|| format!("\"{text}\""));
    }
    let content = fs::read_to_string(text).with_context(|| format!("read the public key {text}"))?;
    content.parse().with_context(|| format!("the file {text}"))
}

/// Sends just so much as was announced: a file that grows or shrinks meanwhile is none to import.
fn send(file: &mut File, length: u64, stream: &mut dyn Write, meter: &mut Meter) -> io::Result<()> {
    let mut buffer = vec![0; PART];
    let mut file = file.take(length);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
        meter.add(read as u64);
    }
}

fn report(format: Format, imported: &Value) -> Result<(), Failure> {
    if format == Format::Json {
        return Ok(tell(imported)?);
    }
    for image in imported["images"].as_array().into_iter().flatten() {
        let text = |key: &str| image[key].as_str().unwrap_or_default();
        let (name, digest, other) = (text("image"), text("digest"), text("other"));
        let line = match text("tag") {
            "moved" => format!("moved       {name} ({digest}, before {other})\n"),
            "kept" => format!(
                "kept        {name} stays at {other}, which was seen later than the bundle's {digest}; --replace-tags takes that\n"
            ),
            _ => format!("imported    {name} ({digest})\n"),
        };
        console::print(&line)?;
    }
    let number = |key: &str| imported[key].as_u64().unwrap_or(0);
    if number("evicted_items") > 0 {
        let (items, bytes) = (number("evicted_items"), number("evicted_bytes"));
        console::print(&format!("evicted     {items} items ({bytes} bytes), to make room\n"))?;
    }
    let signed = imported["signed_by"]
        .as_str()
        .map_or_else(|| "not signed".to_owned(), |key| format!("signed by {key}"));
    Ok(console::print(&format!(
        "{} items ({} bytes), {} of them new ({} bytes); {signed}\n",
        number("items"),
        number("bytes"),
        number("new_items"),
        number("new_bytes"),
    ))?)
}
