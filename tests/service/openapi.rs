//! The description of the administrator's API: sound in itself, and what real answers are held to.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use crate::bundles::run;
use crate::cache::{post, pull};
use crate::harness::{Section, Setup, Tidegate, eventually};
use crate::hosted_management::push;
use crate::upstream::Upstream;

/// The description, as a server gives it.
struct Description(Value);

impl Description {
    async fn of(tidegate: &Tidegate) -> Self {
        let answer = tidegate.admin().get("/api/v1/openapi.json").send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        Self(answer.json())
    }

    /// What a value stands for: itself, or what its `$ref` names.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let found = reference.strip_prefix('#').and_then(|pointer| self.0.pointer(pointer));
        found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (&**path, &**method, operation))
        });
        operations.collect()
    }

    /// Fails unless an answer is one that the operation is said to give, in status and every member.
    fn check(&self, method: &Method, path: &str, status: u16, answer: &Value) {
        let operation = &self.0["paths"][path][method.as_str().to_ascii_lowercase()];
        let response = &operation["responses"][status.to_string()];
        assert!(response.is_object(), "{method} {path} is not said to answer {status}: {answer}");
        let response = self.resolve(response);
        let at = format!("{method} {path} {status}");
        self.fit(&response["content"]["application/json"]["schema"], answer, &at);
    }

    /// Fails unless a value fits a schema, as far as schemas are used here; members that no schema tells are a
    /// fault, too.
    fn fit(&self, schema: &Value, value: &Value, at: &str) {
        let schema = self.resolve(schema);
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
            other => panic!("{at}: no type but {other}"),
        };
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        assert!(types.contains(&found), "{at}: {value} is none of {types:?}");
        if let (Some(words), Value::String(_)) = (schema["enum"].as_array(), value) {
            assert!(words.contains(value), "{at}: {value} is none of {words:?}");
        }
        match value {
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.fit(&schema["items"], item, &format!("{at}[{place}]"));
                }
            }
            Value::Object(members) => self.fit_members(schema, members, at),
            _ => {}
        }
    }

    fn fit_members(&self, schema: &Value, members: &Map<String, Value>, at: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(members.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
        }
        for (name, member) in members {
            let property = properties.get(name).unwrap_or_else(|| panic!("{at}: {name} is not described"));
            self.fit(property, member, &format!("{at}.{name}"));
        }
    }
}

/// Every `$ref` in a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn openapi_description_is_sound() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    let description = Description::of(&tidegate).await;
    assert_eq!(description.0["openapi"], "3.1.0");
    assert!(description.0["info"]["title"].is_string() && description.0["info"]["version"].is_string());
    assert_eq!(description.0["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let mut names = BTreeSet::new();
    for (path, method, operation) in description.operations() {
        let at = format!("{method} {path}");
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{at}: its name stands twice");
        assert!(operation["summary"].is_string(), "{at}");
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_path: Vec<_> = parameters.iter().filter(|parameter| parameter["in"] == "path").collect();
        assert_eq!(path.contains("{id}"), in_path.len() == 1, "{at}");
        assert!(in_path.iter().all(|parameter| parameter["name"] == "id" && parameter["required"] == true));
        for parameter in parameters {
            assert!(parameter["description"].is_string() && parameter["schema"]["type"].is_string(), "{at}");
        }
        assert_eq!(operation["requestBody"].is_object(), ["put", "post"].contains(&method), "{at}");
        let responses = operation["responses"].as_object().unwrap();
        for (status, response) in responses {
            assert!(status.parse::<u16>().is_ok_and(|status| (200..600).contains(&status)), "{at}");
            let response = description.resolve(response);
            assert!(response["description"].is_string(), "{at} {status}");
            description.resolve(&response["content"]["application/json"]["schema"]);
        }
        assert!(["401", "403"].iter().all(|status| responses.contains_key(*status)), "{at}");
    }
    let mut used = BTreeSet::new();
    references(&description.0, &mut used);
    for reference in &used {
        description.resolve(&json!({ "$ref": reference }));
    }
    for kind in ["schemas", "responses"] {
        for (name, part) in description.0["components"][kind].as_object().unwrap() {
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "nothing uses {name}");
            let properties = part["properties"].as_object().map(|members| members.keys().collect::<Vec<_>>());
            for required in part["required"].as_array().into_iter().flatten() {
                let is_told =
                    properties.as_ref().is_some_and(|told| told.iter().any(|name| required == *name));
                assert!(is_told, "{name} requires {required}, which it does not tell");
            }
        }
    }
}

/// A question to the API: method, path as described, path, order, and the status of its answer.
type Asked<'a> = (Method, &'a str, &'a str, Option<Value>, u16);

fn questions_about_verification() -> Vec<Asked<'static>> {
    const PATH: &str = "/api/v1/cache/verify";
    [
        (Method::GET, None, 404),
        (Method::DELETE, None, 404),
        (Method::POST, Some(json!({ "heal": "yes" })), 400),
        (Method::POST, Some(json!({ "rate_bytes": 1 })), 202),
        (Method::POST, Some(json!({})), 409),
        (Method::GET, None, 200),
        (Method::DELETE, None, 200),
    ]
    .map(|(method, order, status)| (method, PATH, PATH, order, status))
    .to_vec()
}

/// What can be asked of what is hosted while nothing was pushed.
fn questions_about_hosting() -> Vec<Asked<'static>> {
    const ALL: &str = "/api/v1/namespaces";
    const ONE: &str = "/api/v1/namespaces/{id}";
    const RESTORE: &str = "/api/v1/restore";
    const COLLECTION: &str = "/api/v1/collection";
    let other = "/api/v1/namespaces/other";
    let rule = json!({ "action": "remove", "tags": ["pr-*"], "all_but_newest": 3, "older_than_ms": 1 });
    let order = |name: &str| json!({ "name": name, "immutable_tags": ["v*"], "prune": [rule] });
    vec![
        (Method::POST, ALL, ALL, Some(order("other")), 201),
        (Method::POST, ALL, ALL, Some(order("other")), 409),
        (Method::POST, ALL, ALL, Some(order("Other")), 400),
        (Method::GET, ALL, ALL, None, 200),
        (Method::GET, ONE, other, None, 200),
        (Method::PUT, ONE, other, Some(json!({ "restore_for_ms": 0 })), 200),
        (Method::PUT, ONE, "/api/v1/namespaces/none", Some(json!({})), 404),
        (Method::DELETE, ONE, other, None, 200),
        (Method::DELETE, ONE, other, None, 404),
        (Method::POST, RESTORE, RESTORE, Some(json!({ "namespace": "other" })), 200),
        (Method::POST, RESTORE, RESTORE, Some(json!({})), 400),
        (Method::GET, "/api/v1/repositories", "/api/v1/repositories", None, 200),
        (Method::GET, "/api/v1/tags", "/api/v1/tags?repository=acme/none", None, 404),
        (Method::POST, "/api/v1/prune", "/api/v1/prune", Some(json!({ "dry_run": true })), 200),
        (Method::GET, COLLECTION, COLLECTION, None, 200),
        (Method::POST, COLLECTION, COLLECTION, Some(json!({ "dry_run": true })), 200),
        (Method::POST, COLLECTION, COLLECTION, Some(json!({})), 202),
        (Method::GET, COLLECTION, COLLECTION, None, 200),
    ]
}

/// Pushes two manifests by one tag, and gives all that can be asked of what is hosted.
async fn push_and_ask(tidegate: &Tidegate) -> Vec<Asked<'static>> {
    let created = post(tidegate, "/api/v1/namespaces", &json!({ "name": "acme" })).await;
    assert_eq!(created.status, 201, "{created:?}");
    let earlier = push(tidegate, "acme/app", "v1", "one").await;
    push(tidegate, "acme/app", "v1", "two").await;
    [questions_about_tags(&earlier), questions_about_hosting()].concat()
}

/// What can be asked of the tag `v1` of `acme/app`, of an earlier manifest, and of the repository at last.
fn questions_about_tags(earlier: &str) -> Vec<Asked<'static>> {
    const TAGS: &str = "/api/v1/tags";
    const HISTORY: &str = "/api/v1/tags/history";
    const EXPIRY: &str = "/api/v1/tags/expiry";
    const RESTORE: &str = "/api/v1/restore";
    const REPOSITORIES: &str = "/api/v1/repositories";
    let tag = "/api/v1/tags?repository=acme/app&tag=v1";
    let expiry = json!({ "repository": "acme/app", "tag": "v1", "expires_in_seconds": 60 });
    let restore = |digest: &str| json!({ "repository": "acme/app", "tag": "v1", "digest": digest });
    let none = format!("sha256:{}", "0".repeat(64));
    vec![
        (Method::GET, TAGS, "/api/v1/tags?repository=acme/app", None, 200),
        (Method::PUT, EXPIRY, EXPIRY, Some(expiry), 200),
        (Method::DELETE, TAGS, tag, None, 200),
        (Method::DELETE, TAGS, tag, None, 404),
        (Method::POST, RESTORE, RESTORE, Some(restore(earlier)), 200),
        (Method::POST, RESTORE, RESTORE, Some(restore(&none)), 404),
        (Method::GET, HISTORY, "/api/v1/tags/history?repository=acme/app&tag=v1", None, 200),
        (Method::GET, HISTORY, "/api/v1/tags/history?repository=acme/app", None, 400),
        (Method::POST, "/api/v1/prune", "/api/v1/prune", Some(json!({})), 200),
        (Method::POST, "/api/v1/verify", "/api/v1/verify", Some(json!({})), 200),
        (Method::GET, REPOSITORIES, REPOSITORIES, None, 200),
        (Method::DELETE, REPOSITORIES, "/api/v1/repositories?repository=acme/app", None, 200),
        (Method::DELETE, REPOSITORIES, "/api/v1/repositories?repository=acme/app", None, 404),
        (Method::POST, RESTORE, RESTORE, Some(json!({ "repository": "acme/app" })), 200),
    ]
}

#[tokio::test]
async fn openapi_description_tells_what_real_answers_are() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let partly = upstream.make_image("library/partly", "1", &[1000]);
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings();
    let mut tidegate = setup.start().await;
    let description = Description::of(&tidegate).await;
    pull(&tidegate, &image).await;
    tidegate.manifest(&partly.tag_path()).await;
    let ask = async |method: Method, route: &str, path: &str, order: Option<Value>| {
        let call = tidegate.admin().call(method.clone(), path);
        let call = match order {
            None => call,
            Some(order) => call.header("content-type", "application/json").body(order.to_string()),
        };
        let answer = call.send().await;
        description.check(&method, route, answer.status, &answer.json());
        (answer.status, answer.json())
    };
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let pins = "/api/v1/cache/pins";
    ask(post.clone(), pins, pins, Some(json!({ "image": "app:1" }))).await;
    let (_, started) =
        ask(post.clone(), "/api/v1/warm", "/api/v1/warm", Some(json!({ "images": ["partly:1", "no:1"] })))
            .await;
    let job = format!("/api/v1/warm/{}", started["id"].as_str().unwrap());
    eventually("the end of the job", async || {
        let (_, job) = ask(get.clone(), "/api/v1/warm/{id}", &job, None).await;
        (job["is_over"] == true).then_some(())
    })
    .await;
    let mut seen = BTreeSet::new();
    let rest = [
        (get.clone(), "/api/v1/openapi.json", "/api/v1/openapi.json", None, 200),
        (get.clone(), "/api/v1/offline", "/api/v1/offline", None, 200),
        (Method::PUT, "/api/v1/offline", "/api/v1/offline", Some(json!({ "offline": null })), 200),
        (Method::PUT, "/api/v1/offline", "/api/v1/offline", Some(json!({ "offline": 1 })), 400),
        (get.clone(), "/api/v1/cache/images", "/api/v1/cache/images?n=1", None, 200),
        (get.clone(), "/api/v1/cache/images", "/api/v1/cache/images?n=0", None, 400),
        (get.clone(), "/api/v1/cache/stats", "/api/v1/cache/stats", None, 200),
        (get.clone(), "/api/v1/cache/entries", "/api/v1/cache/entries", None, 200),
        (get.clone(), "/api/v1/cache/entries", "/api/v1/cache/entries?upstream=no.test", None, 404),
        (
            post.clone(),
            "/api/v1/cache/purge",
            "/api/v1/cache/purge",
            Some(json!({ "tag": "1", "dry_run": true })),
            200,
        ),
        (post.clone(), "/api/v1/cache/purge", "/api/v1/cache/purge", None, 415),
        (get.clone(), pins, pins, None, 200),
        (post.clone(), pins, pins, Some(json!({ "image": "app:1" })), 200),
        (post.clone(), pins, pins, Some(json!({ "image": "app:2" })), 404),
        (post.clone(), pins, pins, Some(json!({ "image": "x".repeat(20_000) })), 413),
        (delete.clone(), pins, "/api/v1/cache/pins?image=app:1", None, 200),
        (get.clone(), "/api/v1/warm", "/api/v1/warm", None, 200),
        (post.clone(), "/api/v1/warm", "/api/v1/warm", Some(json!({ "images": ["partly:1"] })), 202),
        (get.clone(), "/api/v1/warm/{id}", &job, None, 200),
        (get.clone(), "/api/v1/warm/{id}", "/api/v1/warm/none", None, 404),
        (delete, "/api/v1/warm/{id}", &job, None, 200),
    ];
    let questions = questions_about_verification().into_iter().chain(push_and_ask(&tidegate).await);
    for (method, route, path, order, status) in questions.chain(rest) {
        let (told, answer) = ask(method.clone(), route, path, order).await;
        assert_eq!(told, status, "{method} {path}: {answer}");
        if status < 300 {
            seen.insert((route.to_owned(), method.as_str().to_ascii_lowercase()));
        }
    }
    seen.extend(carry(&tidegate, &description).await.map(|path| (path.to_owned(), "post".to_owned())));
    let all = description.operations().into_iter();
    let all: BTreeSet<_> = all.map(|(path, method, _)| (path.to_owned(), method.to_owned())).collect();
    assert_eq!(seen, all, "every operation is tried");
    let forbidden = tidegate.admin().get("/api/v1/offline").header("host", "evil.test").send().await;
    description.check(&get, "/api/v1/offline", forbidden.status, &forbidden.json());
    tidegate.reconfigure(|setup| setup.server("admin_token = \"0123456789abcdef\""));
    tidegate.restart().await;
    let unauthorized = tidegate.admin().get("/api/v1/offline").send().await;
    assert_eq!((forbidden.status, unauthorized.status), (403, 401));
    description.check(&get, "/api/v1/offline", 401, &unauthorized.json());
}

/// Has a bundle written and taken in again; gives the paths that were asked for it.
async fn carry(tidegate: &Tidegate, description: &Description) -> [&'static str; 3] {
    let [plan, content, import] = ["/api/v1/export", "/api/v1/export/content", "/api/v1/import"];
    let ask = async |path: &str, content_type: &str, body: Vec<u8>, status: u16| {
        let call = tidegate.admin().call(Method::POST, path).header("content-type", content_type).body(body);
        let answer = call.send().await;
        assert_eq!(answer.status, status, "{path}");
        description.check(&Method::POST, path, status, &answer.json());
    };
    let json = "application/json";
    ask(plan, json, json!({ "image": "app:1" }).to_string().into(), 200).await;
    ask(plan, json, json!({ "image": "app:2" }).to_string().into(), 404).await;
    ask(content, json, json!({ "kind": "blob" }).to_string().into(), 400).await;
    ask(import, json, Vec::new(), 415).await;
    let road = tempfile::tempdir().unwrap();
    let exported = ["export", "--output", "bundle.tar", "app:1"];
    // Content itself is no JSON.
    assert_eq!(run(road.path(), &tidegate.admin_url(), &exported).await.status.code(), Some(0));
    let bundle = std::fs::read(road.path().join("bundle.tar")).unwrap();
    ask(import, "application/x-tar", bundle[..2000].to_vec(), 422).await;
    ask(import, "application/x-tar", bundle, 200).await;
    [plan, content, import]
}
