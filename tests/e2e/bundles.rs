//! Air gap: a bundle as a file, other tools that read it, and real clients on the side that has no line.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::child::{command, run, run_text};
use crate::clients::Program;
use crate::fixtures::{Fixtures, Image, Kind};
use crate::http::fetch;
use crate::stage::{Phase, Stage, new_directory};
use crate::tools;

const KINDS: [Kind; 4] = [Kind::Debian, Kind::Platform, Kind::Layers, Kind::Zstd];
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn real_clients_pull_from_a_node_that_knows_only_bundles() {
    if !tools::present(&tools::of_upstream()) || !tools::present(&["podman", "skopeo"]) {
        return;
    }
    let fixtures = Fixtures::shared();
    let images = fixtures.images(&KINDS);
    let road = new_directory();
    carry(fixtures, &images, road.path());
    skopeo_reads(road.path(), &images);

    // Nothing listens where its upstreams are said to be, and it does not even try.
    let upstream = |name: &str, more: &str| {
        format!("name = \"{name}\"\nendpoints = [\"http://127.0.0.1:9\"]\noffline = true\n{more}")
    };
    let upstreams =
        vec![upstream("docker.io", "default = true\nlibrary_prefix = true"), upstream("ghcr.io", "")];
    let far = Stage::with(new_directory(), Vec::new(), upstreams);
    let server = format!("http://{}", far.tidegate.admin_address);
    let delta = road.path().join("delta.tar");
    let refused = tidegate(&server).arg("import").arg(&delta).output().expect("run tidegate import");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("goes on from images.tar"), "{told}");
    for bundle in ["images.tar", "delta.tar"] {
        let mut import = tidegate(&server);
        import.arg("import").arg("--verify-key").arg(road.path().join("bundle.key.pub"));
        run(import.arg(road.path().join(bundle)));
    }
    let artifact = &fixtures.artifact;
    let path = format!("/v2/{}/referrers/{}", artifact.name, artifact.digest);
    let list: Value = serde_json::from_slice(&fetch(far.tidegate.address, &path, INDEX).expect(200).body)
        .expect("a list of referrers is JSON");
    assert_eq!(list["manifests"][0]["digest"], *artifact.referrer);
    for program in [Program::Podman, Program::Skopeo, Program::Docker, Program::Containerd] {
        if tools::present(program.tools()) {
            far.pull_all(program, &images, Phase::StoppedByTag);
            far.pull_all(program, &images, Phase::StoppedByDigest);
        }
    }
}

/// Writes a signed bundle of half of the images, and a delta with the others, from a node with a line.
fn carry(fixtures: &Fixtures, images: &[Image], road: &Path) {
    let near = Stage::open();
    let server = format!("http://{}", near.tidegate.admin_address);
    let key = road.join("bundle.key");
    run(tidegate(&server).args(["key", "create", "--output"]).arg(&key));
    let mut names: Vec<_> = images.iter().map(Image::by_tag).collect();
    names.push(format!("{}:1", fixtures.artifact.name));
    names.dedup();
    let (first, all) = (&names[..names.len() / 2], &names);
    for (file, names, since) in [("images.tar", first, None), ("delta.tar", all, Some("images.tar"))] {
        let mut export = tidegate(&server);
        export.arg("export").arg("--sign").arg(&key).arg("--output").arg(road.join(file)).args(names);
        if let Some(base) = since {
            export.arg("--since").arg(road.join(base));
        }
        run(&mut export);
    }
}

/// Skopeo copies an image out of the bundle by its name.
fn skopeo_reads(road: &Path, images: &[Image]) {
    let bundle = road.join("images.tar");
    let name = images[0].by_tag();
    let target = road.join("copied");
    let mut skopeo = command(tools::path("skopeo"));
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--all"]);
    skopeo.arg(format!("oci-archive:{}:{name}", bundle.display())).arg(format!("dir:{}", target.display()));
    run(&mut skopeo);
    let mut sum = Command::new("sha256sum");
    let sum = run_text(sum.arg(target.join("manifest.json")));
    assert_eq!(
        Some(images[0].digest.as_str()),
        sum.split(' ').next().map(|hex| format!("sha256:{hex}")).as_deref()
    );
    let mut skopeo = command(tools::path("skopeo"));
    skopeo.args(["inspect", "--raw"]).arg(format!("oci-archive:{}:{name}", bundle.display()));
    assert_eq!(run(&mut skopeo), fs::read(target.join("manifest.json")).expect("read the copied manifest"));
    // And from the directory that tar makes of it, where the layout is all that there is.
    let layout = road.join("layout");
    fs::create_dir(&layout).expect("create a directory");
    run(Command::new("tar").arg("-xf").arg(&bundle).arg("-C").arg(&layout));
    let mut skopeo = command(tools::path("skopeo"));
    skopeo.args(["inspect", "--raw"]);
    let raw = run(skopeo.arg(format!("oci:{}:{name}", layout.display())));
    assert_eq!(raw, fs::read(target.join("manifest.json")).expect("read the copied manifest"));
}

/// A command of Tidegate against a running server.
fn tidegate(server: &str) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_tidegate"));
    command.env("TIDEGATE_SERVER", server);
    command
}
