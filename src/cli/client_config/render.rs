//! The configuration of each client.
//!
//! Two ways lead to a registry's content here: containerd and its kin (k3s) say in `ns=` which one
//! they mean; for all others the registry's name is part of the path.

use std::fmt::Write as _;

use anyhow::anyhow;
use serde_json::json;

use super::{Mirror, Mirrored, Rendered, RenderedFile};

/// The name that Docker Hub has in image names.
const DOCKER_HUB: &str = "docker.io";

/// One file and what else to do.
fn single(directory: &'static str, name: &str, content: String, hints: Vec<String>) -> Rendered {
    let file = RenderedFile { directory, name: name.to_owned(), has_comments: true, content };
    Rendered { files: vec![file], hints }
}

/// The same in a format without comments.
fn single_without_comments(
    directory: &'static str,
    name: &str,
    content: String,
    hints: Vec<String>,
) -> Rendered {
    let file = RenderedFile { directory, name: name.to_owned(), has_comments: false, content };
    Rendered { files: vec![file], hints }
}

/// Docker Engine mirrors docker.io only.
pub(super) fn docker(mirror: &Mirror, registries: &[Mirrored<'_>]) -> anyhow::Result<Rendered> {
    let hub = registries.iter().find(|registry| registry.host == DOCKER_HUB).ok_or_else(|| {
        anyhow!(
            "Docker's registry-mirrors serve docker.io only, which is not among the upstreams\n    \
             remedy: pull images of other registries as {}/REGISTRY/NAME",
            mirror.host
        )
    })?;
    // The engine does not say which registry it means, so the path has to where docker.io is not
    // what names without a registry stand for; old engines refuse paths, so not otherwise.
    let url = if hub.is_default { mirror.url.clone() } else { format!("{}/{}", mirror.url, hub.name) };
    let mut daemon = json!({ "registry-mirrors": [url] });
    if mirror.is_plain_http {
        daemon["insecure-registries"] = json!([mirror.host]);
    }
    let mut hints = vec!["merge this into /etc/docker/daemon.json, then: systemctl reload docker".to_owned()];
    if let Some(ca_file) = &mirror.ca_file {
        hints.push(format!("copy {ca_file} to /etc/docker/certs.d/{}/ca.crt", mirror.host));
    }
    let others: Vec<_> =
        registries.iter().filter(|other| other.host != DOCKER_HUB).map(|other| other.name).collect();
    if let [first, ..] = &others[..] {
        hints.push(format!(
            "Docker mirrors docker.io only; what is of {} is pulled by the longer name, such as {}/{first}/NAME",
            others.join(", "),
            mirror.host
        ));
    }
    Ok(single_without_comments("/etc/docker", "daemon.json", format!("{daemon:#}\n"), hints))
}

pub(super) fn podman(mirror: &Mirror, registries: &[Mirrored<'_>]) -> Rendered {
    let next = "Podman, Buildah and Skopeo read it at each pull; nothing needs a restart";
    registries_conf(mirror, registries, next)
}

pub(super) fn cri_o(mirror: &Mirror, registries: &[Mirrored<'_>]) -> Rendered {
    registries_conf(mirror, registries, "then: systemctl reload crio")
}

/// containers-registries.conf(5), as a drop-in.
fn registries_conf(mirror: &Mirror, registries: &[Mirrored<'_>], next: &str) -> Rendered {
    let mut tables = Vec::new();
    for Mirrored { host, name, .. } in registries {
        let mirror_host = &mirror.host;
        tables.push(format!(
            "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n\
             [[registry.mirror]]\nlocation = \"{mirror_host}/{name}\"\ninsecure = {}\n",
            mirror.is_plain_http
        ));
    }
    let mut hints = vec![next.to_owned()];
    if let Some(ca_file) = &mirror.ca_file {
        hints.push(format!("copy {ca_file} to /etc/containers/certs.d/{}/ca.crt", mirror.host));
    }
    single("/etc/containers/registries.conf.d", "50-tidegate.conf", tables.join("\n"), hints)
}

/// One `hosts.toml` a registry, and `_default` for all others: this server answers 404 for a
/// registry that it does not know, and containerd goes on to that registry itself.
pub(super) fn containerd(mirror: &Mirror, registries: &[Mirrored<'_>], is_everything: bool) -> Rendered {
    const DIRECTORY: &str = "/etc/containerd/certs.d";
    // No "referrers" among the capabilities: before 2.2 an unknown word drops the whole file. An
    // unreachable mirror must not hold up a pull for the 30 s that a dial may take otherwise.
    let mut host = format!(
        "[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"2s\"\n",
        mirror.url
    );
    if let Some(ca_file) = &mirror.ca_file {
        let _ = writeln!(host, "  ca = {}", quote(ca_file));
    }
    let file = |name: String, content: String| RenderedFile {
        directory: DIRECTORY,
        name,
        has_comments: true,
        content,
    };
    let mut files: Vec<_> = registries
        .iter()
        .map(|registry| {
            let content = format!("server = \"{}\"\n\n{host}", registry.server);
            file(format!("{}/hosts.toml", directory_of(registry.host)), content)
        })
        .collect();
    if is_everything {
        files.push(file("_default/hosts.toml".to_owned(), host));
    }
    let hints = vec![
        "containerd's own configuration has to name the directory once, then restart it:\n    \
         2.x: [plugins.'io.containerd.cri.v1.images'.registry] config_path = '/etc/containerd/certs.d'\n    \
         1.x: [plugins.'io.containerd.grpc.v1.cri'.registry] config_path = '/etc/containerd/certs.d'"
            .to_owned(),
        "ctr: add --hosts-dir /etc/containerd/certs.d; the files are read at each pull".to_owned(),
    ];
    Rendered { files, hints }
}

/// containerd looks for `host:port` under `host_port_` first.
fn directory_of(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) => format!("{name}_{port}_"),
        None => host.to_owned(),
    }
}

pub(super) fn k3s(mirror: &Mirror, registries: &[Mirrored<'_>], is_everything: bool) -> Rendered {
    let mut yaml = "mirrors:\n".to_owned();
    let hosts = registries.iter().map(|registry| registry.host);
    for host in hosts.chain(is_everything.then_some("*")) {
        let _ = write!(yaml, "  \"{host}\":\n    endpoint:\n      - \"{}\"\n", mirror.url);
    }
    if let Some(ca_file) = &mirror.ca_file {
        let _ =
            write!(yaml, "configs:\n  \"{}\":\n    tls:\n      ca_file: {}\n", mirror.host, quote(ca_file));
    }
    let hints = vec!["on every node, then: systemctl restart k3s (or k3s-agent)".to_owned()];
    single("/etc/rancher/k3s", "registries.yaml", yaml, hints)
}

pub(super) fn buildkit(mirror: &Mirror, registries: &[Mirrored<'_>]) -> Rendered {
    let mut tables: Vec<_> = registries
        .iter()
        .map(|Mirrored { host, name, .. }| {
            format!("[registry.\"{host}\"]\n  mirrors = [\"{}/{name}\"]\n", mirror.host)
        })
        .collect();
    if mirror.is_plain_http {
        tables.push(format!("[registry.\"{}\"]\n  http = true\n", mirror.host));
    } else if let Some(ca_file) = &mirror.ca_file {
        tables.push(format!("[registry.\"{}\"]\n  ca = [{}]\n", mirror.host, quote(ca_file)));
    }
    let hints = vec![
        "restart buildkitd; or with buildx: docker buildx create --use --config buildkitd.toml".to_owned(),
    ];
    single("/etc/buildkit", "buildkitd.toml", tables.join("\n"), hints)
}

/// Arguments, one a line, that `$(…)` puts on a command line as they are.
pub(super) fn kaniko(mirror: &Mirror, registries: &[Mirrored<'_>]) -> Rendered {
    // Kaniko's library calls Docker Hub by its old name.
    let spell = |host: &str| if host == DOCKER_HUB { "index.docker.io".to_owned() } else { host.to_owned() };
    let maps: Vec<_> = registries
        .iter()
        .map(|registry| format!("{}={}/{}", spell(registry.host), mirror.host, registry.name))
        .collect();
    let mut arguments = format!("--registry-map={}\n", maps.join(";"));
    if mirror.is_plain_http {
        let _ = writeln!(arguments, "--insecure-registry={}", mirror.host);
    } else if let Some(ca_file) = &mirror.ca_file {
        let _ = writeln!(arguments, "--registry-certificate={}={ca_file}", mirror.host);
    }
    let hints =
        vec!["add these to the arguments of /kaniko/executor; in a shell, quote what holds a ;".to_owned()];
    single_without_comments("/kaniko", "tidegate.args", arguments, hints)
}

/// A path as a string of TOML and YAML: both know JSON's.
fn quote(text: &str) -> String {
    json!(text).to_string()
}
