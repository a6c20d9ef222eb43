//! Skopeo: it copies an image to a directory as it is, so that every byte can be compared.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::{Client, client_command, storage_directory, text};
use crate::child::{run, succeeds};
use crate::fixtures::Image;
use crate::listing::hash;
use crate::tidegate::Tidegate;

/// Skopeo.
pub(super) struct Skopeo(TempDir);

impl Skopeo {
    pub(super) fn start(tidegate: &Tidegate) -> Self {
        let directory = storage_directory();
        // Skopeo has no client name of its own: it reads the configuration that Podman reads.
        // Direct names need to know, too, that there is no TLS here.
        let direct = format!("\n[[registry]]\nlocation = \"{}\"\ninsecure = true\n", tidegate.address);
        fs::write(directory.path().join("registries.conf"), tidegate.client_config("podman") + &direct)
            .expect("write registries.conf");
        Self(directory)
    }

    fn command(&self) -> Command {
        let mut command = client_command("skopeo", self.0.path());
        command.env("REGISTRY_AUTH_FILE", self.0.path().join("auth.json"));
        command.arg("--insecure-policy").arg("--registries-conf").arg(self.0.path().join("registries.conf"));
        command
    }
}

impl Client for Skopeo {
    fn pull(&mut self, name: &str, _image: &Image) {
        let target = self.0.path().join("image");
        let _ = fs::remove_dir_all(&target);
        let mut command = self.command();
        command.args(["copy", "--quiet", "--all"]);
        run(command.arg(format!("docker://{name}")).arg(format!("dir:{}", text(&target))));
    }

    fn require_content(&self, name: &str, image: &Image) {
        let image_directory = self.0.path().join("image");
        let manifest = File::open(image_directory.join("manifest.json")).expect("open the copied manifest");
        let (sha256, _) = hash(manifest).expect("read the copied manifest");
        assert_eq!(format!("sha256:{sha256}"), image.digest, "skopeo copied another manifest of {name}");
        for digest in &image.blobs {
            let (_, expected) = digest.split_once(':').expect("a digest names its algorithm");
            let blob = File::open(image_directory.join(expected))
                .unwrap_or_else(|error| panic!("skopeo did not copy {digest} of {name}: {error}"));
            assert_eq!(
                hash(blob).expect("read a copied blob").0,
                expected,
                "skopeo copied other bytes of {name}"
            );
        }
        let raw = run(self.command().args(["inspect", "--raw", &format!("docker://{name}")]));
        let (sha256, _) = hash(raw.as_slice()).expect("memory can be read");
        assert_eq!(format!("sha256:{sha256}"), image.digest, "skopeo inspects another manifest of {name}");
    }

    fn log_in(&self, registry: SocketAddr, user: &str, password: &str) -> bool {
        let mut command = self.command();
        command.args(["login", "--tls-verify=false", "--username", user, "--password", password]);
        succeeds(command.arg(registry.to_string()))
    }

    fn push(&self, _name: &str, target: &str) -> bool {
        let mut command = self.command();
        command.args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
        command.arg(format!("dir:{}", text(&self.0.path().join("image"))));
        succeeds(command.arg(format!("docker://{target}")))
    }

    fn run(&self, _name: &str, _arguments: &[&str]) -> Option<String> {
        None
    }
}
