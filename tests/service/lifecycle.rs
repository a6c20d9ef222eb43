//! Start, stop, crash, reload: what a server owes its data and its clients.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use rustix::process::Signal;

use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, files_in, until};
use crate::upstream::{Authority, Gate, Kind, Upstream, any, blob, everything, serve};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn what_was_pulled_is_served_after_a_restart_without_asking_upstream() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 3 * MIB]);
    let mut tidegate = Tidegate::start(&upstream).await;
    tidegate.pull(&image).await;
    upstream.stop().await;
    tidegate.restart().await;
    tidegate.pull(&image).await;
    assert!(tidegate.startup() < Duration::from_secs(1), "{:?}", tidegate.startup());
}

#[tokio::test]
async fn it_starts_without_upstream_and_recovers_when_upstream_comes() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    upstream.stop().await;
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 504);
    upstream.restart().await;
    until("upstream to be asked again", async || tidegate.manifest(&image.tag_path()).await.status == 200)
        .await;
    tidegate.pull(&image).await;
}

#[tokio::test]
async fn a_lost_index_costs_questions_but_no_blob() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2 * MIB]);
    let mut tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    tidegate.pull(&image).await;
    tidegate.signal(Signal::TERM);
    assert!(tidegate.wait_for_exit().await);
    let index: Vec<_> = files_in(&tidegate.data())
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("index.sqlite3"))
        .collect();
    assert!(!index.is_empty(), "{:?}", files_in(&tidegate.data()));
    for path in index {
        std::fs::remove_file(path).unwrap();
    }
    tidegate.start_again().await;
    upstream.forget_requests();
    until("the blobs to be found again", async || {
        tidegate.metrics().await.sum("tidegate_cache_bytes", &[]) >= 2_097_152.0
    })
    .await;
    tidegate.pull(&image).await;
    assert!(upstream.count(&any(Kind::Manifest)) >= 1, "rights are asked for anew");
    assert!(upstream.sent_bytes(&any(Kind::Blob)) < 1000, "bytes are not");
}

#[tokio::test]
async fn a_damaged_index_is_no_reason_not_to_start() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings().with_log("index");
    let mut tidegate = setup.start().await;
    tidegate.pull(&image).await;
    tidegate.signal(Signal::TERM);
    assert!(tidegate.wait_for_exit().await);
    for path in files_in(&tidegate.data()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "index.sqlite3" {
            std::fs::write(&path, "this is no database, not at all, by no means").unwrap();
        } else if name.starts_with("index.sqlite3") {
            std::fs::remove_file(&path).unwrap();
        }
    }
    tidegate.start_again().await;
    tidegate.pull(&image).await;
}

#[tokio::test]
async fn a_blob_file_that_was_removed_is_fetched_again() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[2 * MIB]);
    let mut tidegate =
        Setup::new().upstream(Section::hub(&upstream)).with_warnings().with_log("blob").start().await;
    tidegate.pull(&image).await;
    let hex = image.layers[0].digest.trim_start_matches("sha256:").to_owned();
    // The client has all bytes before the content is durable and has its name.
    let stored = tidegate.data().join("content/sha256").join(&hex[..2]).join(&hex);
    until("the blob to be stored", async || stored.exists()).await;
    std::fs::remove_file(&stored).unwrap();
    tidegate.restart().await;
    tidegate.pull(&image).await;
    assert_eq!(upstream.count(&blob(&image.layers[0]).whole()), 2);
}

/// Kills the server in the middle of a transfer that has come as far as `released`.
async fn kill_in_mid_fill(tidegate: &mut Tidegate, upstream: &Upstream, image: &Image, released: u64) {
    let gate = Gate::closed();
    upstream.heal();
    upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
    let path = image.layer_path(0);
    let running = tokio::spawn(tidegate.get(&path).try_send());
    gate.wait_for_arrivals(1).await;
    gate.release_to(released);
    until("the bytes to leave upstream", async || {
        upstream.requests(&blob(&image.layers[0])).last().is_some_and(|last| last.sent() >= released)
    })
    .await;
    tidegate.kill().await;
    assert!(running.await.unwrap().is_err(), "cut, not ended");
    upstream.heal();
    upstream.forget_requests();
}

#[tokio::test]
async fn a_kill_in_mid_fill_leaves_nothing_partial() {
    let upstream = Upstream::start().await;
    let size = 4 * MIB as u64;
    let image = upstream.make_image("library/app", "1", &[4 * MIB]);
    let kept = upstream.make_image("library/kept", "1", &[MIB]);
    let mut tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    tidegate.pull(&kept).await;
    for released in [1, size / 2, size - 1, size] {
        // The last of these may be killed at any point of its commit: then it is whole or absent.
        if released < size {
            kill_in_mid_fill(&mut tidegate, &upstream, &image, released).await;
        } else {
            let running = tokio::spawn(tidegate.get(&image.layer_path(0)).try_send());
            until("the end of the transfer", async || upstream.sent_bytes(&blob(&image.layers[0])) >= size)
                .await;
            tidegate.kill().await;
            let _ = running.await.unwrap();
        }
        tidegate.verify_store();
        tidegate.start_again().await;
        assert!(tidegate.startup() < Duration::from_secs(1), "{:?}", tidegate.startup());
        tidegate.pull(&kept).await;
        let head = tidegate.head(&image.layer_path(0)).send().await;
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    }
    tidegate.pull(&image).await;
    assert_eq!(upstream.count(&any(Kind::Blob).of("library/kept")), 0, "fetched once, before the kills");
}

#[tokio::test]
async fn one_hundred_kills_in_mid_fill_leave_nothing_partial() {
    let upstream = Upstream::start().await;
    let mut tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    let mut places = fastrand::Rng::with_seed(100);
    for round in 0..100 {
        let image = upstream.make_image("library/app", &round.to_string(), &[MIB / 4]);
        let (layer, path) = (&image.layers[0], image.layer_path(0));
        let wanted = places.u64(1..=layer.size());
        let running = tokio::spawn(tidegate.get(&path).try_send());
        until("some bytes to leave upstream", async || upstream.sent_bytes(&blob(layer)) >= wanted).await;
        tidegate.kill().await;
        if let Ok(answer) = running.await.unwrap() {
            assert!(answer.status == 200 && answer.body == layer.bytes, "round {round}");
        }
        tidegate.verify_store();
        tidegate.start_again().await;
        assert!(tidegate.startup() < Duration::from_secs(1), "round {round}: {:?}", tidegate.startup());
        let answer = tidegate.fetch(&path).await;
        assert!(answer.status == 200 && answer.body == layer.bytes, "round {round}");
    }
}

#[tokio::test]
async fn leftovers_of_a_crash_are_cleared_away() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[4 * MIB]);
    let mut tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    kill_in_mid_fill(&mut tidegate, &upstream, &image, 3 * MIB as u64).await;
    tidegate.start_again().await;
    let data = tidegate.data();
    until("the leftovers to go", async || {
        let large =
            files_in(&data).into_iter().filter(|path| !path.to_string_lossy().contains("index.sqlite3"));
        large.filter_map(|path| Some(path.metadata().ok()?.len())).sum::<u64>() < MIB as u64
    })
    .await;
}

#[tokio::test]
async fn a_sigterm_lets_a_running_pull_finish_and_takes_no_new_one() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[8 * MIB]);
    let mut tidegate = Tidegate::start(&upstream).await;
    let gate = Gate::closed();
    upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
    let mut open = tidegate.get(&image.layer_path(0)).open().await;
    gate.release_to(4 * MIB as u64);
    let read = open.read_at_least(MIB).await;
    tidegate.signal(Signal::TERM);
    let address = tidegate.address();
    until("the port to close", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    gate.open();
    assert!(open.equals(&image.layers[0].bytes[read.len()..]).await, "the pull was finished");
    drop(open);
    assert!(tidegate.wait_for_exit().await);
}

#[tokio::test]
async fn a_sigterm_ends_an_idle_server_at_once() {
    let upstream = Upstream::start().await;
    let mut tidegate = Tidegate::start(&upstream).await;
    let _idle = tidegate.client().connect().await;
    tidegate.fetch("/v2/").await;
    let started = tokio::time::Instant::now();
    tidegate.signal(Signal::TERM);
    assert!(tidegate.wait_for_exit().await);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[8 * MIB]);
    let mut tidegate = Setup::new()
        .upstream(Section::hub(&upstream))
        .server("drain_timeout = \"300ms\"")
        .with_warnings()
        .start()
        .await;
    upstream.rule(any(Kind::Blob), serve().stall_at(4 * MIB as u64));
    let mut open = tidegate.get(&image.layer_path(0)).open().await;
    open.read_at_least(1).await;
    tidegate.signal(Signal::TERM);
    tidegate.wait_for_exit().await;
    assert!(open.try_finish().await.is_err(), "cut, not ended");
}

#[tokio::test]
async fn a_sighup_takes_up_a_new_configuration_without_dropping_anything() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = first.make_image("library/app", "1", &[8 * MIB]);
    let other = second.make_image("team/app", "1", &[10]);
    let mut tidegate = Setup::new().upstream(Section::hub(&first)).with_warnings().start().await;
    let gate = Gate::closed();
    first.rule(any(Kind::Blob), serve().hold_body(&gate));
    let mut open = tidegate.get(&image.layer_path(0)).open().await;
    let path = "/v2/second.test/team/app/manifests/1";
    assert_eq!(tidegate.manifest(path).await.status, 404);
    tidegate.reconfigure(|setup| setup.upstream(Section::new("second.test", &second)));
    tidegate.signal(Signal::HUP);
    until("the new upstream", async || tidegate.manifest(path).await.body == other.manifest.bytes).await;
    gate.open();
    assert!(open.equals(&image.layers[0].bytes).await);
}

#[tokio::test]
async fn a_sighup_with_a_bad_file_changes_nothing_and_is_logged() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let mut tidegate =
        Setup::new().upstream(Section::hub(&upstream)).with_warnings().with_log("config").start().await;
    let broken = Section::hub(&upstream).text("fresh_for", "soon").text("no_such_key", "x");
    tidegate.reconfigure(|setup| setup.replace(broken));
    tidegate.signal(Signal::HUP);
    tidegate.wait_for_log("no_such_key").await;
    tidegate.pull(&image).await;
    assert!(upstream.count(&everything()) > 0);
}

#[tokio::test]
async fn a_sighup_takes_up_a_new_certificate() {
    let upstream = Upstream::start().await;
    let (old, new) = (Authority::new(), Authority::new());
    let (before, after) = (old.identity(&["127.0.0.1"]), new.identity(&["127.0.0.1"]));
    let mut tidegate = Setup::new()
        .upstream(Section::hub(&upstream))
        .file("cert.pem", &before.certificate)
        .file("key.pem", &before.private_key)
        .server("tls = { certificate = \"cert.pem\", private_key = \"key.pem\" }")
        .with_warnings()
        .start()
        .await;
    let client = tidegate.client().tls(old.client_config(&["http/1.1"]));
    assert_eq!(client.get("/v2/").send().await.status, 200);
    tidegate
        .reconfigure(|setup| setup.file("cert.pem", &after.certificate).file("key.pem", &after.private_key));
    tidegate.signal(Signal::HUP);
    let client = tidegate.client().tls(new.client_config(&["http/1.1"]));
    until("the new certificate", async || client.accepts_certificate().await).await;
    assert_eq!(client.get("/v2/").send().await.status, 200);
}

#[test]
fn it_takes_as_many_descriptors_as_it_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let serve = r#"ulimit -Sn 200 && exec "$0" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0"#;
    let mut child = std::process::Command::new("sh")
        .args(["-c", serve, env!("CARGO_BIN_EXE_tidegate")])
        .current_dir(&directory)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let is_ready = log.lines().any(|line| line.unwrap().contains("ready"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let limits = limits.unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let limits_of_files: Vec<_> = files.split_whitespace().take(2).collect();
    assert!(is_ready && limits_of_files[0] == limits_of_files[1], "{limits}");
    assert_ne!(limits_of_files[0], "200");
}
