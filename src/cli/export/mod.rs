//! `tidegate export`: writes images to a bundle, from a running server.

mod content;
mod partial;
mod retry;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use rustix::fs::statvfs;
use serde_json::json;

use self::content::Source;
use self::partial::Partial;
use self::retry::{Trouble, persist};
use super::admin_client::{AdminClient, ServerArguments, read_environment};
use super::meter::{Meter, tell};
use super::warm::collect_images;
use super::{Failure, Format, console};
use crate::bundle::{
    Base, BundleParser, Contents, END_BYTES, Event, Head, Plan, Request, SigningKey, padding,
};
use crate::oci::{ImagePattern, Platform};

/// How long the server may take to find out what an image needs.
const PLAN_PATIENCE: Duration = Duration::from_mins(15);

/// How often people see that something goes on.
const TICK: Duration = Duration::from_millis(200);

/// The arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "What is being written is called BUNDLE.partial. An export that was interrupted goes on there when the\n\
                        same command is run again.\n\n\
                        Example:\n  \
                        tidegate export --output images.tar docker.io/library/alpine:3 --platform linux/amd64\n  \
                        tidegate export --output more.tar --since images.tar --file images.txt --sign bundle.key"
)]
pub(super) struct ExportArguments {
    /// Images, such as docker.io/library/alpine:3; a * in the tag stands for any text.
    #[arg(value_name = "IMAGE", required_unless_present = "file")]
    images: Vec<String>,
    /// A file with images: a list with one a line, a docker-compose file or Kubernetes manifests; - is standard input.
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The bundle to write; it must not exist.
    #[arg(long, value_name = "BUNDLE")]
    output: PathBuf,
    /// An earlier bundle that the other side has: only what it lacks is written.
    #[arg(long, value_name = "OLDBUNDLE")]
    since: Option<PathBuf>,
    /// The private key to sign the bundle with, as `tidegate key create` makes it.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// A platform to carry, such as linux/arm64 [default: what the server's configuration says, else all].
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// Leaves signatures, attestations and other referrers out.
    #[arg(long)]
    no_referrers: bool,
    #[command(flatten)]
    server: ServerArguments,
    /// How to print: bars and lines for people, or one JSON object a line.
    #[arg(long = "format", value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// What is to be written.
struct Order {
    request: Request,
    base: Option<(Base, Contents)>,
    key: Option<SigningKey>,
}

pub(super) fn run(arguments: &ExportArguments) -> Result<(), Failure> {
    let environment = read_environment();
    let order = arguments.order(&environment).map_err(Failure::Usage)?;
    let client = arguments.server.client(&environment)?;
    export(arguments, &order, &client).map_err(Failure::Failed)
}

fn export(arguments: &ExportArguments, order: &Order, client: &AdminClient) -> anyhow::Result<()> {
    let output = &arguments.output;
    if output.try_exists().with_context(|| format!("look at {}", output.display()))? {
        bail!("{} exists already: choose another name, or move it away", output.display());
    }
    let mut partial = Partial::open(output)?;
    let (head, mut written) = match partial.resume()? {
        Some(found) => {
            order.require_same(&found.head, partial.path())?;
            console::complain(&format!(
                "going on with {}, which holds {} of {} bytes",
                partial.path().display(),
                found.offset_bytes,
                found.head.bundle_bytes()
            ));
            (found.head, found.whole_items)
        }
        None => (order.plan(client, arguments.format).inspect_err(|_fault| partial.discard())?, 0),
    };
    require_room(output, &head, &partial)?;
    let offset_bytes = partial.begin(&head, written)?;
    let mut meter = Meter::new(arguments.format, "exporting", offset_bytes, head.bundle_bytes());
    let source = Source::new(client, head.contents());
    while source.write(written, &mut partial, &mut meter).with_context(|| {
        format!("{} keeps what is written: run the same command again to go on", partial.path().display())
    })? {
        written += 1;
    }
    partial.finish(output)?;
    meter.finish();
    report(arguments, &head)
}

fn report(arguments: &ExportArguments, head: &Head) -> anyhow::Result<()> {
    let (contents, id) = (head.contents(), head.id());
    let shown = arguments.output.display();
    let images = contents.images.iter().filter(|image| image.role == crate::bundle::Role::Image);
    if arguments.format == Format::Json {
        let images: Vec<_> = images
            .map(|image| json!({ "image": image.to_string(), "digest": image.digest.to_string() }))
            .collect();
        return Ok(tell(&json!({
            "state": "complete",
            "bundle": id.to_string(),
            "file": shown.to_string(),
            "bytes": head.bundle_bytes(),
            "images": images,
            "items": contents.content.len(),
            "from_base": contents.from_base.len(),
            "signed_by": contents.signed_by.map(|key| key.to_string()),
        }))?);
    }
    let mut text = String::new();
    for image in images {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "exported    {image} ({})", image.digest);
    }
    let (items, bytes) = (contents.content.len(), head.bundle_bytes());
    let _ = writeln!(text, "{shown}: {items} items, {bytes} bytes, {id}");
    Ok(console::print(&text)?)
}

impl ExportArguments {
    fn order(&self, environment: &HashMap<String, String>) -> anyhow::Result<Order> {
        let images = collect_images(&self.images, &self.file, environment)?;
        for image in &images {
            image.parse::<ImagePattern>().with_context(|| format!("image \"{image}\""))?;
        }
        let base = self.since.as_deref().map(read_base).transpose()?;
        let key = self.sign.as_deref().map(read_key).transpose()?;
        let request = Request { images, platforms: self.platform.clone(), referrers: !self.no_referrers };
        Ok(Order { request, base, key })
    }
}

impl Order {
    /// Has the server find out what is needed.
    fn plan(&self, client: &AdminClient, format: Format) -> anyhow::Result<Head> {
        let mut plan = Plan::default();
        let platforms: Vec<_> = self.request.platforms.iter().map(ToString::to_string).collect();
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        for image in &self.request.images {
            if let Some(bar) = &bar {
                bar.set_message(format!("planning {image}"));
                bar.enable_steady_tick(TICK);
            }
            let order =
                json!({ "image": image, "platforms": platforms, "referrers": self.request.referrers });
            let found = persist(
                &mut (),
                |()| {
                    let answer = client.open("/api/v1/export", &order, PLAN_PATIENCE);
                    let answer = answer.with_context(|| client.not_reached()).map_err(Trouble::Lasting)?;
                    if answer.is_ok() { Ok(answer) } else { Err(Trouble::of(answer)) }
                },
                |(), error| {
                    console::complain(&format!("{error:#}; trying again"));
                    Ok(())
                },
            );
            let found = serde_json::from_value(found.context("nothing is written")?.into_json()?);
            plan.merge(found.context("the server's plan is not understood: is it of another version?")?);
        }
        if let Some(bar) = &bar {
            bar.finish_and_clear();
        }
        for note in std::mem::take(&mut plan.notes) {
            console::complain(&format!("note: {note}"));
        }
        let base = self.base.as_ref().map(|(base, contents)| (base.clone(), contents));
        let head = Head::new(plan.into_contents(self.request.clone(), base), self.key.as_ref())?;
        if format == Format::Json {
            let contents = head.contents();
            tell(&json!({
                "state": "planned",
                "images": contents.images.len(),
                "items": contents.content.len(),
                "from_base": contents.from_base.len(),
                "total_bytes": head.bundle_bytes(),
            }))?;
        }
        Ok(head)
    }

    /// Fails where an unfinished bundle is of another order.
    fn require_same(&self, head: &Head, path: &Path) -> anyhow::Result<()> {
        let contents = head.contents();
        let base = self.base.as_ref().map(|(base, _)| base.id);
        let is_same = contents.request == self.request
            && contents.base.as_ref().map(|base| base.id) == base
            && contents.signed_by == self.key.as_ref().map(SigningKey::public);
        if is_same {
            return Ok(());
        }
        bail!("{} is of another export: run the command that began it, or remove it", path.display())
    }
}

/// Reads what an earlier bundle holds; content is not looked at.
fn read_base(path: &Path) -> anyhow::Result<(Base, Contents)> {
    let shown = path.display();
    let mut file = File::open(path).with_context(|| format!("open {shown}"))?;
    let head = read_head(&mut file).with_context(|| format!("read {shown}"))?;
    let head = head.ok_or_else(|| anyhow!("{shown} ends before its description does"))?;
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok((Base { id: head.id(), file }, head.contents().clone()))
}

fn read_head(file: &mut impl io::Read) -> anyhow::Result<Option<Head>> {
    let mut parser = BundleParser::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        let mut input = Bytes::copy_from_slice(&buffer[..read]);
        if let Some(Event::Head(head)) = parser.read(&mut input)? {
            return Ok(Some(Head::clone(&head)));
        }
        if read == 0 {
            return Ok(None);
        }
    }
}

fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let pem = fs::read_to_string(path).with_context(|| format!("read the private key {}", path.display()))?;
    SigningKey::from_pem(&pem).with_context(|| format!("the file {}", path.display()))
}

/// Fails before anything is fetched where the disk cannot take it.
fn require_room(output: &Path, head: &Head, partial: &Partial) -> anyhow::Result<()> {
    let directory = partial::directory_of(output);
    let Ok(space) = statvfs(directory) else { return Ok(()) };
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let needed_bytes = head.bundle_bytes().saturating_sub(partial.length_bytes());
    if needed_bytes > free_bytes {
        let directory = directory.display();
        bail!("the bundle needs {needed_bytes} more bytes, and {directory} has {free_bytes} free: make room");
    }
    Ok(())
}

/// The zeros behind content.
fn write_padding(file: &mut impl io::Write, size_bytes: u64) -> io::Result<()> {
    file.write_all(&vec![0; padding(size_bytes)])
}

/// The zeros behind everything.
fn write_end(file: &mut impl io::Write) -> io::Result<()> {
    file.write_all(&[0; END_BYTES])
}
