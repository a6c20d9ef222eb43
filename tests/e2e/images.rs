//! Every kind of image, through every client, from an open upstream.

use crate::clients::Program;
use crate::fixtures::{Fixtures, Kind};
use crate::stage::Stage;
use crate::tools;

const KINDS: [Kind; 4] = [Kind::Debian, Kind::Platform, Kind::Layers, Kind::Zstd];

fn play(program: Program) {
    if tools::present(&tools::of_upstream()) && tools::present(program.tools()) {
        let images = Fixtures::shared().images(&KINDS);
        Stage::open().play(program, &images);
    }
}

#[test]
fn podman_pulls_cold_warm_and_with_upstream_stopped() {
    play(Program::Podman);
}

#[test]
fn buildah_pulls_cold_warm_and_with_upstream_stopped() {
    play(Program::Buildah);
}

#[test]
fn skopeo_copies_cold_warm_and_with_upstream_stopped() {
    play(Program::Skopeo);
}

#[test]
fn docker_pulls_cold_warm_and_with_upstream_stopped() {
    play(Program::Docker);
}

#[test]
fn containerd_pulls_cold_warm_and_with_upstream_stopped() {
    play(Program::Containerd);
}
