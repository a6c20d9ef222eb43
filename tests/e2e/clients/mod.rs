//! Real clients, each with directories, sockets and daemons of its own, configured by `tidegate client-config`.

mod containerd;
mod docker;
mod libpod;
mod skopeo;

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::fixtures::Image;
use crate::tidegate::Tidegate;
use crate::tools;

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Podman,
    Buildah,
    Skopeo,
    Docker,
    Containerd,
}

impl Program {
    /// The programs that must be installed.
    pub(crate) const fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Podman => &["podman", "runc", "conmon"],
            Self::Buildah => &["buildah"],
            Self::Skopeo => &["skopeo"],
            Self::Docker => &["docker", "dockerd", "containerd", "runc"],
            Self::Containerd => &["containerd", "ctr", "runc"],
        }
    }

    /// Whether it can pull an image at all.
    pub(crate) fn supports(self, image: &Image) -> bool {
        match self {
            // Mirrors are for Docker Hub only, and the engine of Debian 12 cannot unpack zstd.
            Self::Docker => image.of_docker_hub() && image.kind != crate::fixtures::Kind::Zstd,
            _ => true,
        }
    }

    /// Sets the client up with nothing pulled yet.
    pub(crate) fn start(self, tidegate: &Tidegate) -> Box<dyn Client> {
        match self {
            Self::Podman => Box::new(libpod::Podman::start(tidegate)),
            Self::Buildah => Box::new(libpod::Buildah::start(tidegate)),
            Self::Skopeo => Box::new(skopeo::Skopeo::start(tidegate)),
            Self::Docker => Box::new(docker::Docker::start(tidegate)),
            Self::Containerd => Box::new(containerd::Containerd::start(tidegate)),
        }
    }
}

/// A client that is set up; dropping it removes what it pulled.
pub(crate) trait Client {
    /// Pulls an image by a name that may carry a tag or a digest.
    fn pull(&mut self, name: &str, image: &Image);

    /// Requires that what was pulled is the image, byte by byte.
    fn require_content(&self, name: &str, image: &Image);

    /// Logs in to a registry; whether that worked.
    fn log_in(&self, registry: SocketAddr, user: &str, password: &str) -> bool;

    /// Pushes a pulled image under another name; whether that worked.
    fn push(&self, name: &str, target: &str) -> bool;

    /// Pulls an image from where it was pushed, by its direct name.
    fn pull_back(&mut self, target: &str, image: &Image) {
        self.pull(target, image);
    }

    /// Runs a command in a container of a pulled image; `None` where the client runs none.
    fn run(&self, name: &str, arguments: &[&str]) -> Option<String>;
}

/// A new directory for what clients pull.
fn storage_directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("client-")
        .tempdir_in(crate::fixtures::TEMPORARY)
        .expect("create a directory")
}

/// A new directory for sockets, whose paths may have 107 bytes at most.
fn socket_directory() -> TempDir {
    tempfile::Builder::new().prefix("tg-").tempdir().expect("create a directory")
}

/// Turns a path into an argument that is part of a longer one.
fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

/// A command of a client, with no configuration from the machine's user.
fn client_command(program: &str, home: &Path) -> std::process::Command {
    let mut command = crate::child::command(tools::path(program));
    for name in [
        "CONTAINERS_CONF",
        "CONTAINER_HOST",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", home);
    command
}
