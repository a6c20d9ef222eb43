//! Podman and Buildah: the mirrors of `registries.conf`, and storage in directories (`vfs`), which works everywhere.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Client, client_command, storage_directory};
use crate::child::{run, run_text, succeeds, unmount_below};
use crate::fixtures::Image;
use crate::listing::Listing;
use crate::tidegate::Tidegate;

/// The files that libraries of this family read.
struct Home(TempDir);

impl Home {
    fn new(tidegate: &Tidegate) -> Self {
        let directory = storage_directory();
        let home = Self(directory);
        // Direct names need to know, too, that there is no TLS here.
        let direct = format!("\n[[registry]]\nlocation = \"{}\"\ninsecure = true\n", tidegate.address);
        fs::write(home.path("registries.conf"), tidegate.client_config("podman") + &direct)
            .expect("write registries.conf");
        fs::write(home.path("auth.json"), "{}").expect("write auth.json");
        fs::write(home.path("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
            .expect("write policy.json");
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            home.path("root"),
            home.path("run")
        );
        fs::write(home.path("storage.conf"), storage).expect("write storage.conf");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = client_command(program, self.0.path());
        command.env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
        command.env("REGISTRY_AUTH_FILE", self.path("auth.json"));
        command
    }

    fn log_in(command: &mut Command, registry: SocketAddr, user: &str, password: &str) -> bool {
        command.args(["login", "--tls-verify=false", "--username", user, "--password", password]);
        succeeds(command.arg(registry.to_string()))
    }

    fn push(&self, command: &mut Command, name: &str, target: &str) -> bool {
        command.args(["push", "--tls-verify=false", "--signature-policy"]).arg(self.path("policy.json"));
        succeeds(command.args([name, &format!("docker://{target}")]))
    }

    fn pull(&self, command: &mut Command, name: &str, image: &Image) {
        command.arg("pull").arg("--quiet").arg("--signature-policy").arg(self.path("policy.json"));
        if let Some(platform) = &image.platform {
            command.args(["--platform", platform]);
        }
        run(command.arg(name));
    }
}

/// Podman.
pub(super) struct Podman(Home);

impl Podman {
    pub(super) fn start(tidegate: &Tidegate) -> Self {
        Self(Home::new(tidegate))
    }

    fn command(&self) -> Command {
        let mut command = self.0.command("podman");
        command.arg("--tmpdir").arg(self.0.path("tmp"));
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command
    }
}

impl Client for Podman {
    fn log_in(&self, registry: SocketAddr, user: &str, password: &str) -> bool {
        Home::log_in(&mut self.command(), registry, user, password)
    }

    fn push(&self, name: &str, target: &str) -> bool {
        self.0.push(&mut self.command(), name, target)
    }

    fn pull(&mut self, name: &str, image: &Image) {
        self.0.pull(&mut self.command(), name, image);
    }

    fn require_content(&self, name: &str, image: &Image) {
        let root = run_text(self.command().args(["image", "mount", name]));
        Listing::of(Path::new(&root)).require_same(&image.listing, &format!("podman pull {name}"));
        run(self.command().args(["image", "unmount", name]));
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let mut command = self.command();
        command.args(["run", "--rm", "--pull", "never", "--network", "none"]);
        // Podman's own limits are higher than what a test may set in some sandboxes.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        Some(run_text(command.arg(name).args(arguments)))
    }
}

/// Buildah.
pub(super) struct Buildah(Home);

impl Buildah {
    pub(super) fn start(tidegate: &Tidegate) -> Self {
        Self(Home::new(tidegate))
    }

    fn command(&self) -> Command {
        self.0.command("buildah")
    }

    /// Starts a working container, the way Buildah looks into an image.
    fn working_container(&self, name: &str) -> String {
        let mut command = self.command();
        command.arg("from").arg("--signature-policy").arg(self.0.path("policy.json"));
        run_text(command.args(["--pull-never", name]))
    }

    fn remove(&self, container: &str) {
        run(self.command().args(["rm", container]));
    }
}

impl Client for Buildah {
    fn log_in(&self, registry: SocketAddr, user: &str, password: &str) -> bool {
        Home::log_in(&mut self.command(), registry, user, password)
    }

    fn push(&self, name: &str, target: &str) -> bool {
        self.0.push(&mut self.command(), name, target)
    }

    fn pull(&mut self, name: &str, image: &Image) {
        self.0.pull(&mut self.command(), name, image);
    }

    fn require_content(&self, name: &str, image: &Image) {
        let container = self.working_container(name);
        let root = run_text(self.command().args(["mount", &container]));
        Listing::of(Path::new(&root)).require_same(&image.listing, &format!("buildah pull {name}"));
        self.remove(&container);
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let container = self.working_container(name);
        let mut command = self.command();
        let answer =
            run_text(command.args(["run", "--isolation", "chroot", &container, "--"]).args(arguments));
        self.remove(&container);
        Some(answer)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        unmount_below(self.0.path());
    }
}
