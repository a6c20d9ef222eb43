//! What is pushed here by real clients: who may, what arrives, how it is listed and deleted.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::child::{command, run, succeeds};
use crate::clients::Program;
use crate::fixtures::{Fixtures, Kind};
use crate::http::fetch;
use crate::stage::Stage;
use crate::tools;

/// Has a client pull an image, push it here, and another one of its kind pull it back.
fn play(program: Program) {
    if !tools::present(&tools::of_upstream()) || !tools::present(program.tools()) {
        return;
    }
    let image = &Fixtures::shared().images(&[Kind::Layers])[0];
    let name = image.by_tag();
    let stage = Stage::open();
    let tidegate = &stage.tidegate;
    tidegate.create_namespace("acme");
    let password = tidegate.administrator_password();
    let target = format!("{}/acme/team/app:1.0", tidegate.address);
    {
        let mut client = program.start(tidegate);
        client.pull(&name, image);
        assert!(!client.push(&name, &target), "{program:?} pushed without a credential");
        let refused = !client.log_in(tidegate.address, "admin", "not the password");
        assert!(refused || !client.push(&name, &target), "{program:?} pushed with a wrong password");
        assert_eq!(tags(&stage), [] as [&str; 0]);
        assert!(client.log_in(tidegate.address, "admin", &password), "{program:?} cannot log in");
        for _ in 0..2 {
            assert!(client.push(&name, &target), "{program:?} cannot push");
        }
    }
    assert_eq!(tags(&stage), ["1.0"]);
    let mut other = program.start(tidegate);
    other.pull_back(&target, image);
    other.require_content(&target, image);
    let nowhere = format!("{}/nowhere/app:1.0", tidegate.address);
    other.log_in(tidegate.address, "admin", &password);
    assert!(!other.push(&target, &nowhere), "{program:?} pushed to a namespace that nobody created");
}

/// The tags of the repository that all push to.
fn tags(stage: &Stage) -> Vec<String> {
    let answer = fetch(stage.tidegate.address, "/v2/acme/team/app/tags/list", "application/json");
    if answer.status == 404 {
        return Vec::new();
    }
    let list: Value = serde_json::from_slice(&answer.expect(200).body).expect("a list of tags is JSON");
    let tags = list["tags"].as_array().expect("a list has tags");
    tags.iter().map(|tag| tag.as_str().expect("a tag is text").to_owned()).collect()
}

#[test]
fn podman_logs_in_pushes_and_pulls_back() {
    play(Program::Podman);
}

#[test]
fn buildah_logs_in_pushes_and_pulls_back() {
    play(Program::Buildah);
}

#[test]
fn skopeo_logs_in_pushes_and_pulls_back() {
    play(Program::Skopeo);
}

#[test]
fn docker_logs_in_pushes_and_pulls_back() {
    play(Program::Docker);
}

#[test]
fn containerd_pushes_with_a_password_and_pulls_back() {
    play(Program::Containerd);
}

#[test]
fn skopeo_copies_an_index_lists_its_tags_and_deletes_it() {
    if !tools::present(&tools::of_upstream()) || !tools::present(&["skopeo"]) {
        return;
    }
    let image = &Fixtures::shared().images(&[Kind::Platform])[0];
    let stage = Stage::open();
    let tidegate = &stage.tidegate;
    tidegate.create_namespace("acme");
    let credentials = format!("admin:{}", tidegate.administrator_password());
    let repository = format!("docker://{}/acme/team/app", tidegate.address);
    let skopeo = || command(tools::path("skopeo"));
    let source = format!("docker://{}/{}", tidegate.address, image.by_tag());
    for tag in ["1.0", "1.1", "latest"] {
        let mut copy = skopeo();
        copy.args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]);
        copy.args(["--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds", &credentials]);
        run(copy.args([&source, &format!("{repository}:{tag}")]));
    }
    let listed = run(skopeo().args(["list-tags", "--tls-verify=false", &repository]));
    let listed: BTreeMap<String, Value> = serde_json::from_slice(&listed).expect("skopeo prints JSON");
    assert_eq!(listed["Tags"], serde_json::json!(["1.0", "1.1", "latest"]));
    let mut inspect = skopeo();
    inspect.args(["inspect", "--raw", "--tls-verify=false", &format!("{repository}:1.1")]);
    let (sha256, _) = crate::listing::hash(run(&mut inspect).as_slice()).expect("memory can be read");
    assert_eq!(format!("sha256:{sha256}"), image.digest);

    let latest = format!("{repository}:latest");
    assert!(!succeeds(skopeo().args(["delete", "--tls-verify=false", &latest])), "deleted by nobody");
    assert_eq!(tags(&stage), ["1.0", "1.1", "latest"]);
    run(skopeo().args(["delete", "--tls-verify=false", "--creds", &credentials, &latest]));
    // It deletes the manifest behind the tag, and so every tag of it.
    assert_eq!(tags(&stage), [] as [&str; 0]);
    assert!(!succeeds(skopeo().args(["inspect", "--raw", "--tls-verify=false", &latest])));
}
