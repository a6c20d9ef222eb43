//! `tidegate warm`: what it prints and how it ends, against a running server.

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::{Kind, Upstream, any, blob};

/// Runs the command against this server.
async fn warm(tidegate: &Tidegate, arguments: &[&str]) -> Output {
    let server = tidegate.admin_url();
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("warm")
        .args(arguments)
        .current_dir(tidegate.directory())
        .env_clear()
        .env("TIDEGATE_SERVER", server)
        .env("TAG", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn warm_command_fetches_what_files_and_arguments_name() {
    let upstream = Upstream::start().await;
    let images = ["library/a", "library/b", "team/c", "team/d"]
        .map(|repository| upstream.make_image(repository, "1", &[1000, 20_000]));
    let compose = "services:\n  a:\n    image: a:${TAG}\n  own:\n    build: .\n";
    let pod = "kind: Pod\nspec: {containers: [{image: 'hub.test/library/b:1'}]}\n";
    let setup = Setup::new().upstream(Section::hub(&upstream));
    let setup = setup.file("compose.yaml", compose).file("pod.yml", pod).file("list", "# c\nteam/c:1\n");
    let tidegate = setup.start().await;
    let files = ["--file", "compose.yaml", "--file", "pod.yml", "--file", "list", "team/d:1"];
    let output = warm(&tidegate, &files).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for image in &images {
        let line = format!("complete    hub.test/{}:1 (", image.repository);
        assert!(lines.iter().any(|told| told.starts_with(&line)), "{line} in {lines:?}");
    }
    assert_eq!(text(&output.stderr), "", "no bars where there is no terminal");
    upstream.forget_requests();
    for image in &images {
        tidegate.pull(image).await;
    }
    assert_eq!(upstream.count(&any(Kind::Blob)), 0);
}

#[tokio::test]
async fn warm_command_speaks_json_and_fails_for_what_is_incomplete() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/a", "1", &[1000]);
    let lacking = upstream.make_image("library/b", "1", &[1000]);
    upstream.remove_blob("library/b", &lacking.layers[0]);
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings();
    let tidegate = setup.start().await;
    let output = warm(&tidegate, &["a:1", "b:1", "--output", "json", "--no-referrers"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = |name: &str| lines.iter().rfind(|line| line["image"] == name).unwrap();
    let (a, b) = (last("hub.test/library/a:1"), last("hub.test/library/b:1"));
    assert_eq!((&a["state"], &b["state"]), (&json!("complete"), &json!("incomplete")));
    assert_eq!(a["fetched_bytes"], image.layers[0].size() + image.config.size());
    assert_eq!(lines.last().unwrap()["state"], "incomplete");
    let told = text(&output.stderr);
    assert!(told.starts_with("error: 1 of 2 images are not complete:\n  hub.test/library/b:1: "), "{told}");
    assert!(told.contains(&lacking.layers[0].digest), "{told}");
    assert_eq!(upstream.count(&blob(&image.layers[0]).get()), 1);
}

#[tokio::test]
async fn warm_command_refuses_bad_usage_and_says_when_no_server_is_there() {
    let upstream = Upstream::start().await;
    let setup = Setup::new().upstream(Section::hub(&upstream));
    let tidegate = setup.file("bad.yaml", "services: [").start().await;
    for (arguments, code, reason) in [
        (&[][..], 2, "tidegate warm [OPTIONS] --file <FILE>"),
        (&["--file", "bad.yaml"], 2, "bad.yaml: it is no valid YAML"),
        (&["--file", "none.yaml"], 2, "none.yaml"),
        (&["a", "--platform", "amd64"], 2, "linux/amd64"),
        (&["a", "--window", "night"], 2, "22:00-06:00"),
        (&["a", "--bandwidth", "fast"], 2, "is not a size"),
        (&["a", "--server", "127.0.0.1"], 2, "http://127.0.0.1:5001"),
        (&["no.such.test/a"], 1, "no.such.test is not configured"),
        (&["a", "--server", "http://127.0.0.1:1"], 1, "does it run"),
    ] {
        let output = warm(&tidegate, arguments).await;
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(reason), "{arguments:?}: {told}");
    }
}
