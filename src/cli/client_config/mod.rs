//! `tidegate client-config`: finished configuration for clients.
//!
//! Standard output is exactly what the client reads (each file under a comment that names it, where
//! its format has comments); what else is to be done goes to standard error.

mod render;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use serde_json::json;

use super::{ConfigFile, Failure, Format, console};
use crate::config::{Config, Flags, UpstreamConfig};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        tidegate client-config podman --url http://127.0.0.1:5000\n  \
        tidegate client-config docker --url https://mirror.example.com --output-dir /etc/docker\n  \
        tidegate client-config containerd --url http://10.0.0.5:5000 --output-dir /etc/containerd/certs.d\n  \
        tidegate client-config k3s --url https://mirror.example.com --upstream docker.io,ghcr.io")]
pub(super) struct ClientConfigArguments {
    /// The client to configure.
    #[arg(value_enum)]
    client: Client,
    /// The URL at which the client reaches this server.
    #[arg(long)]
    url: String,
    /// An upstream to mirror, by name or alias; may be given several times [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    upstream: Vec<String>,
    /// PEM file, as the client sees it, of the authority that signed this server's certificate.
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Write the files below this directory instead of printing them.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Replace files that hold something else.
    #[arg(long, requires = "output_dir")]
    force: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// A client that can be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Client {
    /// Docker Engine: daemon.json
    Docker,
    /// Podman, Buildah and Skopeo: registries.conf.d
    Podman,
    /// containerd, nerdctl, kubelet on containerd: certs.d
    Containerd,
    /// CRI-O: registries.conf.d
    #[value(name = "cri-o", alias = "crio")]
    CriO,
    /// k3s and RKE2: registries.yaml
    #[value(alias = "rke2")]
    K3s,
    #[value(alias = "buildx", help = "BuildKit and buildx: buildkitd.toml")]
    Buildkit,
    /// Kaniko: arguments of the executor
    Kaniko,
}

/// This server, as a client sees it.
struct Mirror {
    /// `https://registry.example.com`
    url: String,
    /// `registry.example.com`, with a port where the URL has one.
    host: String,
    is_plain_http: bool,
    ca_file: Option<String>,
}

/// A registry that is mirrored.
struct Mirrored<'a> {
    /// The host in image names.
    host: &'a str,
    /// The upstream's name, which is its path on this server.
    name: &'a str,
    /// The base URL of the registry itself, for clients that fall back to it.
    server: String,
    is_default: bool,
}

/// What a client is to read.
struct Rendered {
    files: Vec<RenderedFile>,
    /// What is to be done besides.
    hints: Vec<String>,
}

/// One file.
struct RenderedFile {
    /// The directory in which the client looks.
    directory: &'static str,
    /// The path below it.
    name: String,
    /// Whether the format has comments that begin with `#`.
    has_comments: bool,
    content: String,
}

impl RenderedFile {
    fn path(&self) -> String {
        format!("{}/{}", self.directory, self.name)
    }
}

pub(super) fn run(arguments: ClientConfigArguments) -> Result<(), Failure> {
    let mirror = Mirror::parse(&arguments.url, arguments.ca).map_err(Failure::Usage)?;
    let config = Config::load(&arguments.file.into_sources(Flags::default()))?.config;
    let chosen = choose(&config.upstreams, &arguments.upstream).map_err(Failure::Usage)?;
    let is_everything = arguments.upstream.is_empty();
    let rendered = render(arguments.client, &mirror, &chosen, is_everything).map_err(Failure::Failed)?;
    match &arguments.output_dir {
        Some(directory) => {
            let written =
                write_files(directory, &rendered.files, arguments.force).map_err(Failure::Failed)?;
            print_written(&written, &rendered.hints, arguments.output)?;
        }
        None => print_rendered(&rendered, arguments.output)?,
    }
    if arguments.output == Format::Text {
        rendered.hints.iter().for_each(|hint| console::complain(hint));
    }
    Ok(())
}

fn print_written(written: &[PathBuf], hints: &[String], format: Format) -> std::io::Result<()> {
    match format {
        Format::Text => {
            let lines: Vec<_> = written.iter().map(|path| format!("{}\n", path.display())).collect();
            console::print(&lines.concat())
        }
        Format::Json => console::print_json(&json!({ "written": written, "hints": hints })),
    }
}

fn print_rendered(rendered: &Rendered, format: Format) -> std::io::Result<()> {
    let to_json = |file: &RenderedFile| json!({ "path": file.path(), "content": file.content });
    match format {
        Format::Text => console::print(&to_text(&rendered.files)),
        Format::Json => {
            let files: Vec<_> = rendered.files.iter().map(to_json).collect();
            console::print_json(&json!({ "files": files, "hints": rendered.hints }))
        }
    }
}

impl Mirror {
    fn parse(url: &str, ca_file: Option<String>) -> anyhow::Result<Self> {
        let remedy = "give scheme, host and port at which clients reach this server, such as --url http://127.0.0.1:5000";
        let parsed: http::Uri =
            url.parse().map_err(|error| anyhow!("--url {url}: {error}\n    remedy: {remedy}"))?;
        let is_plain_http = match parsed.scheme_str() {
            Some("http") => true,
            Some("https") => false,
            _ => {
                return Err(anyhow!(
                    "--url {url} does not begin with https:// or http://\n    remedy: {remedy}"
                ));
            }
        };
        let host = parsed.authority().map(ToString::to_string).unwrap_or_default();
        let has_more = parsed.path() != "/" || parsed.query().is_some() || url.contains('#');
        if host.is_empty() || host.contains('@') || has_more {
            return Err(anyhow!(
                "--url {url} is more or less than scheme, host and port\n    remedy: {remedy}"
            ));
        }
        if is_plain_http && ca_file.is_some() {
            return Err(anyhow!(
                "--ca does not go with a URL in clear text\n    remedy: leave --ca out, or give an https URL"
            ));
        }
        let scheme = if is_plain_http { "http" } else { "https" };
        Ok(Self { url: format!("{scheme}://{host}"), host, is_plain_http, ca_file })
    }
}

/// The upstreams of those names or aliases, in the order of the configuration; all without names.
fn choose<'a>(upstreams: &'a [UpstreamConfig], names: &[String]) -> anyhow::Result<Vec<&'a UpstreamConfig>> {
    let has_name =
        |upstream: &UpstreamConfig, name: &String| upstream.name == *name || upstream.aliases.contains(name);
    for name in names {
        if !upstreams.iter().any(|upstream| has_name(upstream, name)) {
            let known =
                upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(anyhow!(
                "there is no upstream \"{name}\"\n    remedy: choose from {known}, or add it to the configuration"
            ));
        }
    }
    let is_chosen =
        |upstream: &&UpstreamConfig| names.is_empty() || names.iter().any(|name| has_name(upstream, name));
    Ok(upstreams.iter().filter(is_chosen).collect())
}

/// Whether a client takes the first component of an image name for a registry.
fn is_registry_host(name: &str) -> bool {
    name.contains(['.', ':']) || name == "localhost"
}

fn render(
    client: Client,
    mirror: &Mirror,
    upstreams: &[&UpstreamConfig],
    is_everything: bool,
) -> anyhow::Result<Rendered> {
    let mut registries = Vec::new();
    let mut unreachable = Vec::new();
    for upstream in upstreams {
        let names = std::iter::once(&upstream.name).chain(&upstream.aliases);
        match names.map(String::as_str).find(|name| is_registry_host(name)) {
            Some(host) => registries.push(Mirrored {
                host,
                name: &upstream.name,
                server: upstream
                    .endpoints
                    .first()
                    .map(|url| url.to_string().trim_end_matches('/').to_owned())
                    .unwrap_or_default(),
                is_default: upstream.default,
            }),
            None => unreachable.push(format!(
                "{0} is no host that image names could spell: pull its images as {1}/{0}/NAME",
                upstream.name, mirror.host
            )),
        }
    }
    let mut rendered = match client {
        Client::Docker => render::docker(mirror, &registries)?,
        Client::Podman => render::podman(mirror, &registries),
        Client::Containerd => render::containerd(mirror, &registries, is_everything),
        Client::CriO => render::cri_o(mirror, &registries),
        Client::K3s => render::k3s(mirror, &registries, is_everything),
        Client::Buildkit => render::buildkit(mirror, &registries),
        Client::Kaniko => render::kaniko(mirror, &registries),
    };
    rendered.hints.extend(unreachable);
    Ok(rendered)
}

/// The files as they are printed: each under its path, where its format has comments.
fn to_text(files: &[RenderedFile]) -> String {
    let parts = files.iter().map(|file| {
        let heading = if file.has_comments { format!("# {}\n", file.path()) } else { String::new() };
        heading + &file.content
    });
    parts.collect::<Vec<_>>().join("\n")
}

/// Writes the files below `directory`. What is there already stays, unless it is the same or
/// `is_forced`.
fn write_files(directory: &Path, files: &[RenderedFile], is_forced: bool) -> anyhow::Result<Vec<PathBuf>> {
    let targets: Vec<_> = files.iter().map(|file| (directory.join(&file.name), &file.content)).collect();
    // All are looked at before any is written: half a configuration is worse than none.
    for (path, content) in &targets {
        if !is_forced && fs::read(path).is_ok_and(|present| present != content.as_bytes()) {
            let path = path.display();
            return Err(anyhow!(
                "{path} is there already and holds something else\n    remedy: merge it by hand, or replace it with --force"
            ));
        }
    }
    for (path, content) in &targets {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(targets.into_iter().map(|(path, _)| path).collect())
}
