//! `/api/v1/namespaces` and what stands beside it: what an administrator does with what is hosted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::admin::{command, text};
use crate::cache::post;
use crate::client::Answer;
use crate::content::OCI_INDEX;
use crate::harness::{Setup, Tidegate, until};

async fn send(tidegate: &Tidegate, method: Method, path: &str, order: &Value) -> Answer {
    let call = tidegate.admin().call(method, path);
    call.header("content-type", "application/json").body(order.to_string()).send().await
}

async fn get(tidegate: &Tidegate, path: &str) -> Value {
    let answer = tidegate.admin().get(path).send().await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

async fn delete(tidegate: &Tidegate, path: &str) -> Answer {
    tidegate.admin().call(Method::DELETE, path).send().await
}

/// Pushes an index of nothing that says `text`, as the first administrator, and gives its digest.
pub(crate) async fn push(tidegate: &Tidegate, repository: &str, tag: &str, text: &str) -> String {
    let password = std::fs::read_to_string(tidegate.data().join("initial-administrator-password")).unwrap();
    let login = STANDARD.encode(format!("admin:{}", password.trim()));
    let index =
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": { "is": text } });
    let call = tidegate.client().call(Method::PUT, &format!("/v2/{repository}/manifests/{tag}"));
    let call = call.header("authorization", &format!("Basic {login}")).header("content-type", OCI_INDEX);
    let answer = call.body(index.to_string()).send().await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("docker-content-digest").unwrap().to_owned()
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let told = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains(reason), "{reason} in {told}");
}

#[tokio::test]
async fn a_namespace_is_created_changed_deleted_and_restored() {
    let mut tidegate = Setup::new().start().await;
    let order = json!({ "name": "acme", "anonymous_pull": true, "prune": [
        { "action": "remove", "tags": ["pr-*"], "all_but_newest": 3 },
    ] });
    let created = post(&tidegate, "/api/v1/namespaces", &order).await;
    assert_eq!(created.status, 201, "{created:?}");
    let acme = created.json();
    assert_eq!((&acme["name"], &acme["created_by"]), (&json!("acme"), &json!("administrator")));
    assert_eq!(acme["policy"]["anonymous_pull"], true);
    assert_eq!(acme["policy"]["restore_for_ms"], 1_209_600_000);
    assert_eq!(acme["policy"]["prune"], order["prune"]);
    assert_refused(&post(&tidegate, "/api/v1/namespaces", &order).await, 409, "is there already");
    for (wrong, reason) in [
        (json!({}), "name"),
        (json!({ "name": 7 }), "name"),
        (json!({ "name": "acme/app" }), "name=acme/app"),
        (json!({ "name": "other", "restore": 1 }), "unknown field `restore`"),
        (json!({ "name": "other", "restore_for_ms": -1 }), "restore_for_ms"),
    ] {
        let refused = post(&tidegate, "/api/v1/namespaces", &wrong).await;
        assert_eq!(refused.status, 400, "{wrong}: {refused:?}");
        let told = refused.json()["error"].to_string();
        assert!(told.contains(reason) || reason == "restore_for_ms", "{wrong}: {told}");
    }

    let changed =
        send(&tidegate, Method::PUT, "/api/v1/namespaces/acme", &json!({ "restore_for_ms": 3_600_000 }))
            .await;
    assert_eq!((changed.status, &changed.json()["policy"]["anonymous_pull"]), (200, &json!(false)));
    tidegate.restart().await;
    let listed = get(&tidegate, "/api/v1/namespaces").await;
    assert_eq!(listed["namespaces"][0]["policy"]["restore_for_ms"], 3_600_000);
    assert_eq!(listed["next"], Value::Null);

    let deleted = delete(&tidegate, "/api/v1/namespaces/acme").await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert!(deleted.json()["restorable_until"].as_str() > deleted.json()["deleted_at"].as_str());
    assert_refused(
        &tidegate.admin().get("/api/v1/namespaces/acme").send().await,
        404,
        "namespace is unknown",
    );
    assert_refused(&post(&tidegate, "/api/v1/namespaces", &order).await, 409, "restore it instead");
    let listed = get(&tidegate, "/api/v1/namespaces?deleted=true").await;
    assert_eq!(listed["namespaces"][0]["name"], "acme");
    let restored = post(&tidegate, "/api/v1/restore", &json!({ "namespace": "acme" })).await;
    assert_eq!((restored.status, &restored.json()["policy"]["restore_for_ms"]), (200, &json!(3_600_000)));
    let unclear = post(&tidegate, "/api/v1/restore", &json!({ "namespace": "acme", "tag": "v1" })).await;
    assert_refused(&unclear, 400, "say which");
}

#[tokio::test]
async fn namespaces_are_listed_page_by_page() {
    let tidegate = Setup::new().start().await;
    for name in ["b", "a", "c"] {
        let created = post(&tidegate, "/api/v1/namespaces", &json!({ "name": name })).await;
        assert_eq!(created.status, 201, "{created:?}");
    }
    let (mut names, mut last) = (Vec::new(), String::new());
    loop {
        let page = get(&tidegate, &format!("/api/v1/namespaces?n=2{last}")).await;
        names.extend(page["namespaces"].as_array().unwrap().iter().map(|one| one["name"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        last = format!("&last={next}");
    }
    assert_eq!(names, ["a", "b", "c"]);
    for bad in ["n=0", "n=10001", "page=2", "last=A", "deleted=maybe"] {
        let refused = tidegate.admin().get(&format!("/api/v1/namespaces?{bad}")).send().await;
        assert_eq!(refused.status, 400, "{bad}: {refused:?}");
    }
}

#[tokio::test]
async fn a_collection_is_begun_and_followed_and_a_dry_run_is_told_at_once() {
    let tidegate = Setup::new().start().await;
    assert_eq!(get(&tidegate, "/api/v1/collection").await, json!({ "running": null, "last": null }));
    let dry = post(&tidegate, "/api/v1/collection", &json!({ "dry_run": true })).await;
    assert_eq!((dry.status, &dry.json()["freed_bytes"]), (200, &json!(0)), "{dry:?}");
    let begun = post(&tidegate, "/api/v1/collection", &json!({})).await;
    assert_eq!((begun.status, &begun.json()["number"]), (202, &json!(1)), "{begun:?}");
    until("the collection to end", async || {
        get(&tidegate, "/api/v1/collection").await["last"]["outcome"] == "complete"
    })
    .await;
    let metrics = tidegate.metrics().await;
    assert!(metrics.sum("tidegate_collection_runs_total", &[("outcome", "complete")]) > 0.5);
    let pruned = post(&tidegate, "/api/v1/prune", &json!({ "dry_run": true })).await;
    assert_eq!((pruned.status, &pruned.json()["removed"]), (200, &json!(0)), "{pruned:?}");
    let refused = post(&tidegate, "/api/v1/prune", &json!({ "namespace": "none" })).await;
    assert_refused(&refused, 404, "namespace is unknown");
}

#[tokio::test]
async fn what_is_not_there_is_told_so() {
    let tidegate = Setup::new().start().await;
    for path in [
        "/api/v1/namespaces/none",
        "/api/v1/tags?repository=none/app",
        "/api/v1/tags/history?repository=none/app&tag=v1",
    ] {
        let answer = tidegate.admin().get(path).send().await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    for path in ["/api/v1/namespaces/none", "/api/v1/repositories?repository=none/app"] {
        assert_eq!(delete(&tidegate, path).await.status, 404, "{path}");
    }
    let order = json!({ "repository": "none/app", "tag": "v1" });
    assert_eq!(post(&tidegate, "/api/v1/restore", &order).await.status, 404);
    assert_eq!(send(&tidegate, Method::PUT, "/api/v1/tags/expiry", &order).await.status, 404);
    for path in ["/api/v1/tags", "/api/v1/tags/history?repository=a/b", "/api/v1/tags?repository=A"] {
        let refused = tidegate.admin().get(path).send().await;
        assert_eq!(refused.status, 400, "{path}: {refused:?}");
    }
}

/// Runs a command against this server, and gives its exit code and what it printed.
async fn run(tidegate: &Tidegate, arguments: &[&str]) -> (Option<i32>, String, String) {
    let server = tidegate.admin_url();
    let variables = [("TIDEGATE_SERVER", server.as_str())];
    let output = command(tidegate.directory(), arguments, &variables).await;
    (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

#[tokio::test]
async fn the_command_line_manages_what_is_hosted() {
    let tidegate = Setup::new().start().await;
    let said = async |arguments: &[&str]| {
        let (code, out, err) = run(&tidegate, arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        out
    };
    let refused = async |arguments: &[&str], code: i32, reason: &str| {
        let (found, out, err) = run(&tidegate, arguments).await;
        assert_eq!(found, Some(code), "{arguments:?}: {out}{err}");
        assert!(err.contains(reason), "{reason} in {err}");
    };
    let create =
        ["namespace", "create", "acme", "--anonymous-pull", "--restore-for", "1h", "--immutable-tag", "v*"];
    assert_eq!(said(&create).await, "created namespace acme\n");
    refused(&create, 1, "is there already").await;
    assert!(said(&["namespace", "list"]).await.contains("acme"));
    let shown: Value = said(&["namespace", "show", "acme", "--output", "json"]).await.parse().unwrap();
    assert_eq!(
        (&shown["policy"]["restore_for_ms"], &shown["policy"]["anonymous_pull"]),
        (&json!(3_600_000), &json!(true))
    );
    let policy = json!({ "prune": [{ "action": "remove", "tags": ["pr-*"], "all_but_newest": 3 }] });
    std::fs::write(tidegate.directory().join("policy.json"), policy.to_string()).unwrap();
    said(&["namespace", "set", "acme", "--policy", "policy.json"]).await;
    assert!(said(&["namespace", "show", "acme"]).await.contains("all_but_newest"));
    refused(&["namespace", "set", "acme", "--policy", "none.json"], 2, "read the policy none.json").await;
    let deleted = said(&["namespace", "delete", "acme"]).await;
    assert!(deleted.contains("comes back with: tidegate namespace restore acme"), "{deleted}");
    assert!(said(&["namespace", "list", "--deleted"]).await.contains("acme"));
    assert_eq!(said(&["namespace", "restore", "acme"]).await, "restored namespace acme\n");

    assert_eq!(said(&["repository", "list"]).await, "");
    refused(&["repository", "delete", "acme/none"], 1, "repository is unknown").await;
    refused(&["repository", "restore", "acme/none"], 1, "repository is unknown").await;
    refused(&["tag", "list", "acme/none"], 1, "repository is unknown").await;
    refused(&["tag", "history", "acme/none:v1"], 1, "repository is unknown").await;
    refused(&["tag", "delete", "acme/none"], 2, "write REPOSITORY:TAG").await;
    refused(&["tag", "expire", "acme/none:v1"], 2, "--after").await;
    assert_eq!(said(&["prune", "--dry-run"]).await, "0 of 0 tags would go\n");
    assert!(said(&["collect", "--dry-run"]).await.starts_with("would remove 0 repositories"));
    let collected: Value = said(&["collect", "--output", "json"]).await.parse().unwrap();
    assert_eq!(collected["outcome"], "complete");
}

#[tokio::test]
async fn a_tag_that_was_moved_and_deleted_comes_back_as_it_was() {
    let tidegate = Setup::new().start().await;
    let order = json!({ "name": "acme", "anonymous_pull": true });
    assert_eq!(post(&tidegate, "/api/v1/namespaces", &order).await.status, 201);
    let one = push(&tidegate, "acme/app", "v1", "one").await;
    let two = push(&tidegate, "acme/app", "v1", "two").await;
    let tags = get(&tidegate, "/api/v1/tags?repository=acme/app").await;
    assert_eq!((&tags["tags"][0]["name"], &tags["tags"][0]["digest"]), (&json!("v1"), &json!(two)));
    let path = "/api/v1/tags/history?repository=acme/app&tag=v1";
    let history = get(&tidegate, path).await;
    let digests: Vec<_> = history["history"].as_array().unwrap().iter().map(|row| &row["digest"]).collect();
    assert_eq!(digests, [&json!(two), &json!(one)]);
    assert_eq!(history["history"][0]["by"], "admin");
    let moment = history["history"][1]["at"].as_str().unwrap();
    let before = get(&tidegate, &format!("{path}&as_of=1000")).await;
    assert_eq!(before["digest"], Value::Null, "{moment}");
    let page = get(&tidegate, &format!("{path}&n=1")).await;
    let rest = get(&tidegate, &format!("{path}&before={}", page["next"])).await;
    assert_eq!(rest["history"].as_array().unwrap()[..], history["history"].as_array().unwrap()[1..]);

    let deleted = delete(&tidegate, "/api/v1/tags?repository=acme/app&tag=v1").await;
    assert_eq!((deleted.status, &deleted.json()["digest"]), (200, &json!(two)), "{deleted:?}");
    let pulled = tidegate.get("/v2/acme/app/manifests/v1").send().await;
    assert_eq!(pulled.status, 404, "{pulled:?}");
    assert!(text(&pulled.body).contains("tidegate tag restore acme/app:v1"), "{pulled:?}");
    let order = json!({ "repository": "acme/app", "tag": "v1", "digest": one });
    let restored = post(&tidegate, "/api/v1/restore", &order).await;
    assert_eq!((restored.status, &restored.json()["digest"]), (200, &json!(one)), "{restored:?}");
    let pulled = tidegate.get("/v2/acme/app/manifests/v1").send().await;
    assert_eq!((pulled.status, pulled.header("docker-content-digest")), (200, Some(&*one)));

    let order = json!({ "repository": "acme/app", "tag": "v1", "expires_in_seconds": 3600 });
    let set = send(&tidegate, Method::PUT, "/api/v1/tags/expiry", &order).await;
    assert!(set.status == 200 && set.json()["expires_at"].is_string(), "{set:?}");
    let (code, out, _) = run(&tidegate, &["tag", "expire", "acme/app:v1", "--never"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "acme/app:v1 does not expire\n"));
    let (code, out, _) = run(&tidegate, &["tag", "history", "acme/app:v1"]).await;
    assert!(code == Some(0) && out.contains(&one) && out.contains("(deleted)"), "{out}");
    let (code, out, _) = run(&tidegate, &["tag", "delete", "acme/app:v1"]).await;
    assert!(code == Some(0) && out.contains("comes back with: tidegate tag restore acme/app:v1"), "{out}");
    let (code, out, _) = run(&tidegate, &["tag", "restore", "acme/app:v1"]).await;
    assert!(code == Some(0) && out.contains(&one), "{out}");
    let (code, out, _) = run(&tidegate, &["repository", "delete", "acme/app"]).await;
    assert!(code == Some(0) && out.contains("repository restore acme/app"), "{out}");
    assert_eq!(tidegate.get("/v2/acme/app/manifests/v1").send().await.status, 404);
    let (code, _, _) = run(&tidegate, &["repository", "restore", "acme/app"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(tidegate.get("/v2/acme/app/manifests/v1").send().await.status, 200);
}

#[tokio::test]
async fn rules_take_the_oldest_tags_and_a_label_its_own() {
    let tidegate = Setup::new().start().await;
    let order = json!({ "name": "acme", "prune": [
        { "action": "remove", "tags": ["pr-*"], "all_but_newest": 1 },
        { "action": "keep", "tags": ["pr-2"] },
    ] });
    assert_eq!(post(&tidegate, "/api/v1/namespaces", &order).await.status, 201);
    for number in 1..=4 {
        push(&tidegate, "acme/app", &format!("pr-{number}"), &number.to_string()).await;
    }
    let (code, out, _) = run(&tidegate, &["prune", "--dry-run"]).await;
    assert!(code == Some(0) && out.ends_with("2 of 4 tags would go\n"), "{out}");
    let told = post(&tidegate, "/api/v1/prune", &json!({ "dry_run": true })).await.json();
    let done = post(&tidegate, "/api/v1/prune", &json!({ "namespace": "acme" })).await.json();
    assert_eq!((&told["tags"], &told["removed"]), (&done["tags"], &json!(2)));
    let left = get(&tidegate, "/api/v1/tags?repository=acme/app").await;
    let names: Vec<_> = left["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    assert_eq!(names, ["pr-2", "pr-4"]);
}
