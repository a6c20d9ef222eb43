//! containerd: a daemon of its own, and `ctr` with the `hosts.toml` files that name Tidegate.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{Client, client_command, socket_directory, storage_directory};
use crate::child::{Owned, run, run_text, succeeds, unmount_below};
use crate::fixtures::Image;
use crate::listing::Listing;
use crate::tidegate::Tidegate;
use crate::tools;

/// A containerd. Fields are dropped in this order: the daemon ends before its directories do.
pub(super) struct Containerd {
    _daemon: Owned,
    sockets: TempDir,
    storage: TempDir,
    next_container: AtomicU32,
    /// The registry and the credential for it.
    shown: RefCell<Option<(SocketAddr, String)>>,
}

impl Containerd {
    pub(super) fn start(tidegate: &Tidegate) -> Self {
        let (sockets, storage) = (socket_directory(), storage_directory());
        let hosts = storage.path().join("hosts");
        tidegate.write_client_config("containerd", &hosts);
        // Docker Hub goes by a file of its own, the other registry by `_default`.
        assert!(hosts.join("docker.io/hosts.toml").exists() && hosts.join("_default/hosts.toml").exists());
        fs::remove_dir_all(hosts.join("ghcr.io")).expect("the other registry has a file of its own, too");
        let configuration = storage.path().join("config.toml");
        let socket = sockets.path().join("c.sock");
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
            storage.path().join("root"),
            sockets.path().join("state"),
            sockets.path().join("t.sock"),
        );
        fs::write(&configuration, settings).expect("write the configuration of containerd");
        let log = storage.path().join("containerd.log");
        let mut daemon = Owned::start("containerd", &tools::path("containerd"), &log, |command| {
            command.arg("--config").arg(&configuration);
        });
        daemon.wait_for("that it serves", |log| log.contains("containerd successfully booted").then_some(()));
        Self {
            _daemon: daemon,
            sockets,
            storage,
            next_container: AtomicU32::new(0),
            shown: RefCell::default(),
        }
    }

    fn command(&self) -> Command {
        let mut command = client_command("ctr", self.storage.path());
        command.arg("--address").arg(self.sockets.path().join("c.sock"));
        command
    }

    fn mount_point(&self) -> PathBuf {
        self.storage.path().join("mounted")
    }
}

impl Client for Containerd {
    fn pull(&mut self, name: &str, image: &Image) {
        let mut command = self.command();
        // The snapshotter that needs nothing of the kernel.
        command.args(["images", "pull", "--snapshotter", "native", "--hosts-dir"]);
        command.arg(self.storage.path().join("hosts"));
        if let Some(platform) = &image.platform {
            command.args(["--platform", platform]);
        }
        run(command.arg(name));
    }

    fn require_content(&self, name: &str, image: &Image) {
        let target = self.mount_point();
        fs::create_dir_all(&target).expect("create a mount point");
        let mut mount = self.command();
        mount.args(["images", "mount", "--snapshotter", "native"]);
        if let Some(platform) = &image.platform {
            mount.args(["--platform", platform]);
        }
        run(mount.arg(name).arg(&target));
        Listing::of(&target).require_same(&image.listing, &format!("ctr images pull {name}"));
        run(self.command().args(["images", "unmount", "--rm"]).arg(&target));
    }

    /// It has no log-in: whoever runs it shows the password with each push.
    fn log_in(&self, registry: SocketAddr, user: &str, password: &str) -> bool {
        *self.shown.borrow_mut() = Some((registry, format!("{user}:{password}")));
        true
    }

    fn push(&self, name: &str, target: &str) -> bool {
        run(self.command().args(["images", "tag", "--force", name, target]));
        let mut command = self.command();
        command.args(["images", "push", "--plain-http"]);
        if let Some((registry, shown)) = self.shown.borrow().as_ref()
            && target.starts_with(&registry.to_string())
        {
            command.args(["--user", shown]);
        }
        succeeds(command.arg(target))
    }

    fn pull_back(&mut self, target: &str, _image: &Image) {
        let mut command = self.command();
        run(command.args(["images", "pull", "--snapshotter", "native", "--plain-http", target]));
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let container = format!("c{}", self.next_container.fetch_add(1, Ordering::Relaxed));
        let mut command = self.command();
        command.args(["run", "--rm", "--snapshotter", "native"]);
        // Not where the containers of the machine are: their names are only unique here.
        command.arg("--runc-root").arg(self.sockets.path().join("runc"));
        command.arg("--fifo-dir").arg(self.sockets.path().join("fifo"));
        Some(run_text(command.args([name, &container]).args(arguments)))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        unmount_below(self.storage.path());
    }
}
