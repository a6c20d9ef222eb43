//! Every route of what is hosted, without the rights that it needs: refused, the same whether there is something to
//! find or not, and nothing is changed.

use http::Method;

use super::actor::{Actor, with_query};
use super::registry::Hosted;
use crate::client::Answer;
use crate::content::{Content, Image, OCI_MANIFEST};

/// A request that needs rights: what for, how, and with which body.
struct Step {
    method: Method,
    path: String,
    body: Vec<u8>,
    writes: bool,
}

/// Every route of a repository.
fn routes(repository: &str, image: &Image, upload: &str) -> Vec<Step> {
    let base = format!("/v2/{repository}");
    let layer = &image.layers[0];
    let manifest = image.manifest.bytes.to_vec();
    let step = |method: &Method, path: String, body: &[u8], writes: bool| Step {
        method: method.clone(),
        path,
        body: body.to_vec(),
        writes,
    };
    let uploads = format!("{base}/blobs/uploads/");
    let mut steps = vec![
        step(&Method::POST, uploads.clone(), &[], true),
        step(&Method::POST, with_query(&uploads, "digest-algorithm=sha512"), &[], true),
        step(&Method::POST, with_query(&uploads, &format!("digest={}", layer.digest)), &layer.bytes, true),
        step(&Method::POST, with_query(&uploads, &format!("mount={}", layer.digest)), &[], true),
        step(
            &Method::POST,
            with_query(&uploads, &format!("mount={}&from={repository}", layer.digest)),
            &[],
            true,
        ),
        step(&Method::GET, upload.to_owned(), &[], true),
        step(&Method::PATCH, upload.to_owned(), b"bytes", true),
        step(&Method::PUT, with_query(upload, &format!("digest={}", layer.digest)), &layer.bytes, true),
        step(&Method::DELETE, upload.to_owned(), &[], true),
        step(&Method::PUT, format!("{base}/manifests/new"), &manifest, true),
        step(&Method::PUT, format!("{base}/manifests/{}", image.manifest.digest), &manifest, true),
        step(&Method::PUT, format!("{base}/manifests/{}?tag=new", image.manifest.digest), &manifest, true),
        step(&Method::DELETE, format!("{base}/manifests/{}", image.tag), &[], true),
        step(&Method::DELETE, format!("{base}/manifests/{}", image.manifest.digest), &[], true),
        step(&Method::DELETE, format!("{base}/blobs/{}", layer.digest), &[], true),
    ];
    for method in [Method::GET, Method::HEAD] {
        for path in [
            format!("{base}/manifests/{}", image.tag),
            format!("{base}/manifests/{}", image.manifest.digest),
            format!("{base}/blobs/{}", layer.digest),
            format!("{base}/tags/list"),
            format!("{base}/referrers/{}", image.manifest.digest),
        ] {
            steps.push(step(&method, path, &[], false));
        }
    }
    steps
}

async fn send(actor: &Actor, step: &Step) -> Answer {
    let call = actor.call(step.method.clone(), &step.path).header("content-type", OCI_MANIFEST);
    call.body(step.body.clone()).send().await
}

/// What an answer tells: status, headers without those that change with time, and body without the asked name.
fn told(answer: &Answer, repository: &str) -> (u16, Vec<String>, String) {
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| !["date", "x-request-id", "content-length"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap().replace(repository, "NAME")))
        .collect();
    headers.sort();
    (answer.status, headers, String::from_utf8_lossy(&answer.body).replace(repository, "NAME"))
}

fn require_refused(answer: &Answer, step: &Step) {
    let what = format!("{} {}: {answer:?}", step.method, step.path);
    assert!([401, 403].contains(&answer.status), "{what}");
    if step.method != Method::HEAD {
        assert!(["UNAUTHORIZED", "DENIED"].contains(&answer.error_code().as_str()), "{what}");
    }
    if answer.status == 401 {
        let challenge = answer.header("www-authenticate").unwrap_or_else(|| panic!("{what}"));
        assert!(challenge.starts_with("Bearer realm=\"") || challenge.starts_with("Basic "), "{challenge}");
        assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1, "{what}");
    }
    let told = format!("{:?}{:?}", answer.headers, answer.body);
    assert!(!told.contains("location"), "{what}");
}

/// A node with an image in a repository that anybody may see and in one that nobody may, and an open upload in each.
struct Scene {
    hosted: Hosted,
    images: [Image; 2],
    uploads: [String; 2],
}

impl Scene {
    async fn new() -> Self {
        let hosted = Hosted::start_for_trouble().await;
        let admin = hosted.administrator();
        let images = ["acme/app", "secret/app"].map(|repository| Image::oci(repository, "1", &[1000]));
        let mut uploads = [String::new(), String::new()];
        for (image, upload) in images.iter().zip(&mut uploads) {
            admin.push_image(image).await;
            *upload = admin.start_upload(&image.repository).await;
        }
        Self { hosted, images, uploads }
    }

    /// Everything is as it was.
    async fn require_untouched(&self) {
        let admin = self.hosted.administrator();
        for (image, upload) in self.images.iter().zip(&self.uploads) {
            admin.pull_image(image).await;
            assert_eq!(admin.tags(&image.repository).await, ["1"]);
            let status = admin.get(upload).send().await;
            assert_eq!((status.status, status.header("range")), (204, Some("0-0")), "{status:?}");
        }
    }

    /// Has somebody try all routes that these rights do not reach.
    async fn refuse(&self, actor: &Actor, may_pull_acme: bool) {
        for (image, upload) in self.images.iter().zip(&self.uploads) {
            let open = may_pull_acme && image.repository == "acme/app";
            for step in routes(&image.repository, image, upload) {
                if step.writes || !open {
                    require_refused(&send(actor, &step).await, &step);
                }
            }
        }
        self.require_untouched().await;
    }
}

#[tokio::test]
async fn nobody_writes_without_a_credential_nor_reads_where_that_is_not_allowed() {
    let scene = Scene::new().await;
    scene.refuse(&scene.hosted.anonymous(), true).await;
    scene.hosted.anonymous().pull_image(&scene.images[0]).await;
}

#[tokio::test]
async fn a_wrong_credential_opens_nothing() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    for actor in [
        hosted.user("admin", "wrong"),
        hosted.user("admin", ""),
        hosted.user("", &hosted.password),
        hosted.user("nobody", &hosted.password),
        hosted.user("admin", &format!("{} ", hosted.password)),
        hosted.actor(Some("Bearer nonsense".to_owned())),
        hosted.actor(Some("Bearer e30.e30.e30".to_owned())),
        // A token that nobody signed (algorithm "none").
        hosted.actor(Some("Bearer eyJhbGciOiJub25lIn0.eyJhY2Nlc3MiOlt7InR5cGUiOiJyZXBvc2l0b3J5IiwibmFtZSI6ImFjbWUvYXBwIiwiYWN0aW9ucyI6WyIqIl19XX0.".to_owned())),
        hosted.actor(Some("Negotiate abc".to_owned())),
    ] {
        scene.refuse(&actor, true).await;
    }
}

#[tokio::test]
async fn a_token_opens_what_it_names_and_nothing_else() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    for (scopes, may_pull_acme) in [
        (&["repository:acme/app:pull"][..], true),
        (&["repository:acme/other:pull,push,delete"], true),
        (&["repository:acme/ap:pull,push", "repository:acme/app/x:pull,push"], true),
        (&["registry:catalog:*"], true),
        (&[], true),
    ] {
        scene.refuse(&hosted.bearer(scopes).await, may_pull_acme).await;
    }
    let full = hosted.bearer(&["repository:acme/app:pull,push", "repository:secret/app:pull"]).await;
    full.push_image(&Image::oci("acme/app", "2", &[10])).await;
    full.pull_image(&scene.images[1]).await;
    let push = full.post("/v2/secret/app/blobs/uploads/").send().await;
    assert!([401, 403].contains(&push.status), "{push:?}");
}

#[tokio::test]
async fn a_token_of_one_action_gives_no_other() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    let image = &scene.images[1];
    let pusher = hosted.bearer(&["repository:secret/app:push"]).await;
    pusher.push_manifest("secret/app", "1", &image.manifest).await;
    let answer = pusher.delete(&image.digest_path()).send().await;
    assert!([401, 403].contains(&answer.status), "{answer:?}");
    let deleter = hosted.bearer(&["repository:secret/app:delete"]).await;
    let answer = deleter.put_manifest("secret/app", "2", &image.manifest).await;
    assert!([401, 403].contains(&answer.status), "{answer:?}");
    assert_eq!(deleter.delete(&image.tag_path()).send().await.status, 202);
}

#[tokio::test]
async fn an_anonymous_token_gives_no_more_than_nobody_has() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    let answer =
        hosted.token(None, &["repository:acme/app:pull,push,delete", "repository:secret/app:pull"]).await;
    if answer.status == 200 {
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        scene.refuse(&hosted.actor(Some(format!("Bearer {token}"))), true).await;
    } else {
        assert_eq!(answer.status, 401, "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_secret_looks_like_what_does_not_exist() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    let there = &scene.images[1];
    let upload = scene.uploads[1].replace("secret/app", "secret/not");
    let absent = Image { repository: "secret/not".to_owned(), ..there.clone() };
    for actor in [hosted.anonymous(), hosted.bearer(&["repository:acme/app:pull,push"]).await] {
        let steps = routes("secret/app", there, &scene.uploads[1]).into_iter();
        for (one, other) in steps.zip(routes("secret/not", &absent, &upload)) {
            let (one_answer, other_answer) = (send(&actor, &one).await, send(&actor, &other).await);
            let pair = (told(&one_answer, "secret/app"), told(&other_answer, "secret/not"));
            assert_eq!(pair.0, pair.1, "{} {}", one.method, one.path);
        }
    }
}

#[tokio::test]
async fn a_challenge_names_what_is_needed_as_the_client_spelled_it() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    let digest = &scene.images[1].layers[0].digest;
    let mount = format!("/v2/acme/app/blobs/uploads/?mount={digest}&from=secret%2Fapp");
    for (method, path, needed) in [
        (Method::POST, "/v2/acme/app/blobs/uploads/", "repository:acme/app:pull,push"),
        (Method::GET, "/v2/secret/app/manifests/1", "repository:secret/app:pull"),
        // A mount takes from another repository, so that one token has to be for both.
        (Method::POST, &mount, "repository:acme/app:pull,push repository:secret/app:pull"),
    ] {
        let answer = hosted.anonymous().call(method, path).send().await;
        let challenge = answer.header("www-authenticate").unwrap().to_owned();
        assert_eq!(answer.status, 401);
        let realm = format!("realm=\"http://{}/token\"", hosted.tidegate.address());
        assert!(challenge.contains(&realm) && challenge.contains("service=\""), "{challenge}");
        assert!(challenge.contains(&format!("scope=\"{needed}\"")), "{challenge}");
        // Without a token nothing was wrong with it.
        assert!(!challenge.contains("error="), "{challenge}");
    }
    let lacking = hosted.bearer(&["repository:secret/app:pull"]).await;
    let answer = lacking.post("/v2/secret/app/blobs/uploads/").send().await;
    if answer.status == 401 {
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    }
    let broken =
        hosted.actor(Some("Bearer nonsense".to_owned())).get("/v2/secret/app/manifests/1").send().await;
    let challenge = broken.header("www-authenticate").unwrap();
    assert!(broken.status == 401 && challenge.contains("error=\"invalid_token\""), "{challenge}");
}

#[tokio::test]
async fn a_namespace_that_nobody_created_takes_no_push() {
    let scene = Scene::new().await;
    let blob = Content::blob(1, 10);
    for repository in ["nowhere/app", "app", "library/app", "hub.test/app"] {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", blob.digest);
        let answer = scene.hosted.administrator().post(&path).body(blob.bytes.clone()).send().await;
        // What is cached is not pushed to (item 99).
        answer.assert_error(405, "UNSUPPORTED");
    }
    assert_eq!(scene.hosted.upstream.count(&crate::upstream::everything()), 0);
}

#[tokio::test]
async fn no_password_and_no_token_is_in_the_log_or_in_what_is_hosted() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    let bearer = hosted.bearer(&["repository:secret/app:pull,push"]).await;
    bearer.push_image(&Image::oci("secret/app", "2", &[10])).await;
    let token = bearer.authorization.unwrap().replace("Bearer ", "");
    for secret in [&hosted.password, &token] {
        assert!(hosted.tidegate.log_lines(secret).is_empty(), "a secret in the log");
    }
    for path in crate::harness::files_in(&hosted.tidegate.data()) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let found = bytes.windows(hosted.password.len()).any(|window| window == hosted.password.as_bytes());
        let own = path.file_name().is_some_and(|name| name == "initial-administrator-password");
        assert_eq!(found, own, "{}", path.display());
    }
}
