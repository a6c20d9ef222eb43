//! What a verification finds: everything; and what becomes of it.

use serde_json::{Value, json};

use super::{Item, Node, Spoil, count};
use crate::admin::text;
use crate::cache::{cache, cache_lines, post};
use crate::harness::{Section, eventually};
use crate::upstream::{Kind, any, everything, status};

#[tokio::test]
async fn a_verification_notices_all_damage_and_heals_it_by_one_transfer() {
    let mut node = Node::start(|setup| setup).await;
    for item in Item::ALL {
        for spoil in [Spoil::Remove, Spoil::Cut, Spoil::Lengthen, Spoil::Flip, Spoil::Swap, Spoil::Block] {
            let what = format!("{spoil:?} {item:?}");
            node.spoil_cold(item, spoil).await;
            let lines = cache_lines(&node.tidegate, &["verify"]).await;
            let (end, findings) = lines.split_last().unwrap();
            let found = findings.last().unwrap();
            assert_eq!(found["digest"], item.of(&node.image).digest, "{what}");
            assert_eq!(
                (&found["damage"], &found["state"]),
                (&json!(spoil.cause()), &json!("healed")),
                "{what}"
            );
            let counts =
                ["items", "checked_items", "damaged", "healed", "unchecked"].map(|key| end[key].as_u64());
            assert_eq!(counts, [4, 4, 1, 1, 0].map(Some), "{what}: {end}");
            assert_eq!((&end["state"], &end["index"]), (&json!("done"), &json!("sound")), "{what}");
            node.check_healed(item, &what).await;
            node.check_counted(item, spoil.cause(), "verify", &what).await;
            let metrics = node.tidegate.metrics().await;
            let healed = count(&metrics, "tidegate_content_heals_total", &[("outcome", "upstream")]);
            assert_eq!(healed, 1, "{what}");
        }
    }
}

#[tokio::test]
async fn a_large_blob_that_was_altered_is_not_served_again_from_the_descriptor_that_is_kept_open() {
    let node = Node::start(|setup| setup).await;
    for spoil in [Spoil::Flip, Spoil::Swap] {
        // By a client who holds the file open, and from then on the node, too.
        let mut slow = node.tidegate.get(&node.image.layer_path(1)).open().await;
        slow.read_at_least(1).await;
        spoil.apply(&node.tidegate.stored_path(&node.image.layers[1].digest));
        let output = cache(&node.tidegate, &["verify", "--kind", "blob"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let lines: Vec<_> = text(&output.stdout).lines().collect();
        assert!(lines[0].starts_with("healed     altered     blob      sha256:"), "{lines:?}");
        assert!(lines[1].contains(": 1 damaged, 1 healed, 0 could not be looked at"), "{lines:?}");
        node.check_healed(Item::Big, &format!("{spoil:?}")).await;
    }
}

#[tokio::test]
async fn what_is_in_memory_comes_back_from_there_also_offline() {
    let node = Node::start(|setup| setup).await;
    node.tidegate.pull(&node.image).await;
    let order = json!({ "offline": true });
    let call = node.tidegate.admin().call(http::Method::PUT, "/api/v1/offline");
    let call = call.header("content-type", "application/json").body(order.to_string());
    assert_eq!(call.send().await.status, 200);
    for item in [Item::Manifest, Item::Small] {
        for spoil in [Spoil::Remove, Spoil::Flip] {
            spoil.apply(&node.tidegate.stored_path(&item.of(&node.image).digest));
            let end = cache_lines(&node.tidegate, &["verify", "--repository", "app"]).await.pop().unwrap();
            assert_eq!((&end["damaged"], &end["healed"]), (&json!(1), &json!(1)), "{item:?}: {end}");
            assert!(node.is_whole(item), "{item:?}");
        }
    }
    assert_eq!(node.upstream.count(&everything()), 0);
    let metrics = node.tidegate.metrics().await;
    assert_eq!(count(&metrics, "tidegate_content_heals_total", &[("outcome", "memory")]), 4);
}

#[tokio::test]
async fn what_is_not_to_be_healed_is_removed_and_fetched_when_it_is_asked_for() {
    let mut node = Node::start(|setup| setup).await;
    node.spoil_cold(Item::Big, Spoil::Flip).await;
    let output = cache(&node.tidegate, &["verify", "--no-heal", "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("1 items are damaged and not back"), "{output:?}");
    assert!(!node.tidegate.stored_path(&node.image.layers[1].digest).exists());
    assert_eq!(node.upstream.count(&everything()), 0);
    node.tidegate.pull(&node.image).await;
    node.check_healed(Item::Big, "no heal").await;
}

#[tokio::test]
async fn what_cannot_be_healed_now_is_never_served_and_comes_back_by_a_pull() {
    let mut node = Node::start(|setup| setup).await;
    node.spoil_cold(Item::Big, Spoil::Flip).await;
    node.upstream.rule(any(Kind::Blob), status(503));
    let output = cache(&node.tidegate, &["verify"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).starts_with("removed    altered"), "{output:?}");
    let answer = node.tidegate.fetch(&node.image.layer_path(1)).await;
    assert!(answer.status >= 500, "{}", answer.status);
    node.upstream.heal();
    eventually("upstream to be asked again", async || {
        let answer = node.tidegate.fetch(&node.image.layer_path(1)).await;
        (answer.status == 200).then(|| assert_eq!(answer.body, node.image.layers[1].bytes))
    })
    .await;
    node.until_healed(Item::Big).await;
}

#[tokio::test]
async fn an_offline_node_says_that_it_cannot_heal_and_why() {
    let mut node = Node::start(|setup| setup).await;
    node.tidegate
        .reconfigure(|setup| setup.replace(Section::hub(&node.upstream).raw_value("offline", "true")));
    node.spoil_cold(Item::Manifest, Spoil::Flip).await;
    let lines = cache(&node.tidegate, &["verify", "--output", "json"]).await;
    assert_eq!(lines.status.code(), Some(1));
    let first: Value =
        serde_json::from_str(text(&lines.stdout).lines().rfind(|line| line.contains("digest")).unwrap())
            .unwrap();
    assert_eq!(first["state"], "removed");
    assert!(first["reason"].as_str().unwrap().contains("offline"), "{first}");
    assert_eq!(node.tidegate.manifest(&node.image.tag_path()).await.status, 504);
    assert_eq!(node.upstream.count(&everything()), 0);
}

#[tokio::test]
async fn a_verification_is_about_what_its_filters_say() {
    let mut node = Node::start(|setup| setup).await;
    let other = node.upstream.make_image("team/other", "2", &[2000]);
    crate::cache::pull(&node.tidegate, &other).await;
    node.spoil_cold(Item::Big, Spoil::Remove).await;
    for (arguments, items) in [
        (vec!["--repository", "hub.test/team/other"], 3),
        (vec!["--tag", "2"], 1),
        (vec!["--kind", "manifest", "--upstream", "hub.test"], 2),
        (vec!["--digest", &other.layers[0].digest, "--rate", "1MiB"], 1),
        (vec!["--stored-for", "1d"], 0),
    ] {
        let end = cache_lines(&node.tidegate, &[&["verify"], &arguments[..]].concat()).await.pop().unwrap();
        assert_eq!((&end["items"], &end["damaged"]), (&json!(items), &json!(0)), "{arguments:?}: {end}");
        assert_eq!(end["index"], Value::Null, "{arguments:?}");
    }
    for (arguments, code, reason) in [
        (vec!["--upstream", "no.test"], 1, "no.test is not configured"),
        (vec!["--rate", "0B"], 2, "0 never ends"),
        (vec!["--all"], 2, "--all"),
    ] {
        let output = cache(&node.tidegate, &[&["verify"], &arguments[..]].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(reason), "{output:?}");
    }
}

#[tokio::test]
async fn a_verification_is_joined_watched_and_stopped_by_the_api() {
    let node = Node::start(|setup| setup).await;
    let path = "/api/v1/cache/verify";
    let admin = node.tidegate.admin();
    assert_eq!(admin.get(path).send().await.status, 404);
    assert_eq!(admin.call(http::Method::DELETE, path).send().await.status, 404);
    let slow = json!({ "rate_bytes": 1000 });
    let started = post(&node.tidegate, path, &slow).await;
    assert_eq!((started.status, &started.json()["joined"]), (202, &json!(false)));
    let joined = post(&node.tidegate, path, &slow).await.json();
    assert_eq!((&joined["joined"], &joined["id"]), (&json!(true), &started.json()["id"]));
    let busy = post(&node.tidegate, path, &json!({})).await;
    assert_eq!(busy.status, 409);
    let seen = admin.get(path).send().await.json();
    assert_eq!((&seen["state"], &seen["is_over"]), (&json!("running"), &json!(false)));
    let stopped = admin.call(http::Method::DELETE, path).send().await;
    assert_eq!((stopped.status, &stopped.json()["id"]), (200, &started.json()["id"]));
    eventually("the end of the verification", async || {
        let seen = admin.get(path).send().await.json();
        (seen["state"] == "cancelled").then_some(())
    })
    .await;
    assert_eq!(post(&node.tidegate, path, &json!({})).await.status, 202);
}
