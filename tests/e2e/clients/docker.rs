//! The Docker engine: a daemon of its own, whose `registry-mirrors` name Tidegate.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Client, client_command, socket_directory, storage_directory, text};
use crate::child::{Owned, command, run, run_text, succeeds};
use crate::fixtures::Image;
use crate::listing::hash;
use crate::tidegate::Tidegate;
use crate::tools;

/// A Docker engine. Fields are dropped in this order: the daemon ends before its directories do.
pub(super) struct Docker {
    _daemon: Owned,
    sockets: TempDir,
    storage: TempDir,
}

impl Docker {
    pub(super) fn start(tidegate: &Tidegate) -> Self {
        let (sockets, storage) = (socket_directory(), storage_directory());
        let configuration = storage.path().join("daemon.json");
        fs::write(&configuration, tidegate.client_config("docker")).expect("write daemon.json");
        let log = storage.path().join("dockerd.log");
        let mut daemon = Owned::start("dockerd", &tools::path("dockerd"), &log, |command| {
            command.arg("--config-file").arg(&configuration);
            command.arg("--data-root").arg(storage.path().join("data"));
            command.arg("--exec-root").arg(sockets.path().join("x"));
            command.arg("--pidfile").arg(sockets.path().join("pid"));
            command.arg("--host").arg(format!("unix://{}", text(&sockets.path().join("d.sock"))));
            // What works without the kernel's network and overlay modules.
            command.args([
                "--storage-driver",
                "vfs",
                "--bridge",
                "none",
                "--iptables=false",
                "--ip6tables=false",
            ]);
            command.args(["--ip-forward=false", "--ip-masq=false"]);
        });
        daemon.wait_for("that it listens", |log| log.contains("API listen on").then_some(()));
        Self { _daemon: daemon, sockets, storage }
    }

    fn command(&self) -> Command {
        let mut command = client_command("docker", self.storage.path());
        command.arg("--host").arg(format!("unix://{}", text(&self.sockets.path().join("d.sock"))));
        command
    }
}

impl Client for Docker {
    fn pull(&mut self, name: &str, image: &Image) {
        let mut command = self.command();
        command.arg("pull");
        if let Some(platform) = &image.platform {
            // It keeps one platform of an index by digest, and refuses another over it.
            let _ = self.command().args(["rmi", "--force", name]).output();
            command.args(["--platform", platform]);
        }
        run(command.arg(name));
    }

    /// Has the engine put its layers together again from the files that it unpacked: no container is needed, for which
    /// it would copy every file twice.
    fn require_content(&self, name: &str, image: &Image) {
        let saved = self.storage.path().join("saved.tar");
        let directory = self.storage.path().join("saved");
        fs::create_dir(&directory).expect("create a directory");
        run(self.command().args(["save", name, "--output"]).arg(&saved));
        run(command("tar").arg("-xf").arg(&saved).arg("-C").arg(&directory));
        let text = fs::read(directory.join("manifest.json")).expect("read what was saved");
        let manifest: Value = serde_json::from_slice(&text).expect("the list of saved images is JSON");
        let layers = manifest[0]["Layers"].as_array().expect("a saved image has layers");
        let digest = |layer: &Value| {
            let path = directory.join(layer.as_str().expect("a layer is a path"));
            let (sha256, _) =
                hash(File::open(path).expect("open a saved layer")).expect("read a saved layer");
            format!("sha256:{sha256}")
        };
        let digests: Vec<String> = layers.iter().map(digest).collect();
        assert_eq!(digests, image.diff_ids, "docker pull {name} unpacked to other files");
        fs::remove_file(saved).expect("remove what was saved");
        fs::remove_dir_all(directory).expect("remove what was saved");
    }

    fn log_in(&self, registry: SocketAddr, user: &str, password: &str) -> bool {
        let mut command = self.command();
        command.args(["login", "--username", user, "--password", password, &registry.to_string()]);
        succeeds(&mut command)
    }

    fn push(&self, name: &str, target: &str) -> bool {
        run(self.command().args(["tag", name, target]));
        succeeds(self.command().args(["push", target]))
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let mut command = self.command();
        Some(run_text(command.args(["run", "--rm", "--network", "none", name]).args(arguments)))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Containers that a failed test left hold mounts; the daemon cannot end cleanly with them.
        let list = self.command().args(["ps", "--all", "--quiet"]).output();
        let containers =
            list.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        for container in containers.split_whitespace() {
            let _ = self.command().args(["rm", "--force", container]).output();
        }
    }
}
