//! A layer of 1 GiB through every client, two clients at a time: each needs a few GiB of disk.

use std::sync::{Mutex, PoisonError};

use crate::clients::Program;
use crate::fixtures::{Fixtures, Kind};
use crate::stage::{Phase, Stage};
use crate::tools;

static TURNS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

/// Cold, and from the cache alone; that a warm pull asks nothing is shown by the other images.
fn play(program: Program) {
    if tools::present(&tools::of_upstream()) && tools::present(program.tools()) {
        let _turn = TURNS[program as usize % TURNS.len()].lock().unwrap_or_else(PoisonError::into_inner);
        let images = Fixtures::shared().images(&[Kind::Large]);
        let stage = Stage::open();
        stage.pull_all(program, &images, Phase::Cold);
        stage.require_single_fetches(program, &images);
        stage.stop_upstreams().pull_all(program, &images, Phase::StoppedByTag);
    }
}

#[test]
fn podman_pulls_a_layer_of_one_gibibyte() {
    play(Program::Podman);
}

#[test]
fn buildah_pulls_a_layer_of_one_gibibyte() {
    play(Program::Buildah);
}

#[test]
fn skopeo_copies_a_layer_of_one_gibibyte() {
    play(Program::Skopeo);
}

#[test]
fn docker_pulls_a_layer_of_one_gibibyte() {
    play(Program::Docker);
}

#[test]
fn containerd_pulls_a_layer_of_one_gibibyte() {
    play(Program::Containerd);
}
