//! Numbers in comments are those of the client compatibility checklist.

use std::fmt::Write as _;

use bolero::generator::*;
use http::{Method, StatusCode};

use super::*;
use crate::oci::{Algorithm, DigestError, ErrorCode, NameError};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Parses a GET of `path?query`.
fn read(uri: &str) -> Result<Route, RouteError> {
    parse_uri(&Method::GET, uri)
}

fn parse_uri(method: &Method, uri: &str) -> Result<Route, RouteError> {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    parse(method, path, query)
}

/// A route in one line: `prefix|ns|name|operation`, `-` for what is absent.
fn line(route: &Route) -> String {
    let mut line = String::new();
    let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    write!(line, "{}|{}|", optional(&route.prefix), optional(&route.ns)).unwrap();
    match &route.target {
        Target::Base { registry } => write!(line, "{}|base", optional(registry)).unwrap(),
        Target::Catalog => line.push_str("-|catalog"),
        Target::Token => line.push_str("-|token"),
        Target::Repository { name, operation } => {
            write!(line, "{name}|{operation:?}").unwrap();
        }
    }
    line.replace(DIGEST, "D")
}

fn assert_reads(cases: &[(&str, &str)]) {
    for (uri, expected) in cases {
        let uri = uri.replace("/D", &format!("/{DIGEST}"));
        let found = read(&uri).map(|route| line(&route));
        assert_eq!(found.as_deref(), Ok(*expected), "{uri}");
    }
}

fn assert_fails(uris: &[&str], status: StatusCode, code: ErrorCode) {
    for uri in uris {
        let error = read(uri).expect_err(uri);
        assert_eq!((error.status(), error.code()), (status, code), "{uri}: {error}");
    }
}

#[test]
fn every_url_shape_means_what_its_client_means() {
    assert_reads(&[
        // Shapes a to d.
        ("/v2/library/alpine/manifests/3?ns=docker.io", "-|docker.io|library/alpine|PullManifest(Tag(3))"),
        ("/v2/library/alpine/manifests/3", "-|-|library/alpine|PullManifest(Tag(3))"),
        (
            "/v2/docker.io/library/alpine/blobs/D?ns=docker.io",
            "-|docker.io|docker.io/library/alpine|PullBlob(D)",
        ),
        // 67
        ("/docker.io/v2/library/alpine/blobs/D", "docker.io|-|library/alpine|PullBlob(D)"),
        ("/localhost:5000/v2/x/tags/list", "localhost:5000|-|x|ListTags"),
        ("/v2/x/referrers/D?artifactType=a/b", "-|-|x|ListReferrers(D)"),
        ("/v2/_catalog?n=5&last=a", "-|-|-|catalog"),
        ("/docker.io/v2/_catalog", "docker.io|-|-|catalog"),
    ]);
}

#[test]
fn every_root_that_clients_ping_is_a_base() {
    assert_reads(&[
        ("/v2/", "-|-|-|base"),
        ("/v2", "-|-|-|base"),
        ("/docker.io/v2/", "docker.io|-|-|base"),
        ("/docker.io/v2", "docker.io|-|-|base"),
        ("/v2/docker.io/", "-|-|docker.io|base"),
        ("/v2/docker.io/?ns=docker.io", "-|docker.io|docker.io|base"),
        ("/v2/reg.corp:5000", "-|-|reg.corp:5000|base"),
        // An alias need not look like a host.
        ("/v2/hub/", "-|-|hub|base"),
    ]);
}

#[test]
fn a_path_without_the_version_is_explained() {
    // Shape e.
    for path in ["/docker.io/library/alpine/manifests/3", "/docker.io/library/alpine/tags/list"] {
        let error = read(path).unwrap_err();
        assert_eq!(error, RouteError::NoVersion { registry: "docker.io".into() });
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        assert!(error.to_string().contains("/v2/docker.io"), "{error}");
    }
    // 93
    assert_fails(&["/v1/search?q=x", "/v1/_ping", "/v1"], StatusCode::NOT_FOUND, ErrorCode::Unsupported);
}

#[test]
fn paths_are_read_from_their_right_end() {
    // 63
    assert_reads(&[
        ("/v2/a/blobs/manifests/b", "-|-|a/blobs|PullManifest(Tag(b))"),
        ("/v2/a/manifests/b/manifests/c", "-|-|a/manifests/b|PullManifest(Tag(c))"),
        ("/v2/tags/tags/list", "-|-|tags|ListTags"),
        ("/v2/a/tags/list/tags/list", "-|-|a/tags/list|ListTags"),
        ("/v2/tags/list/manifests/list", "-|-|tags/list|PullManifest(Tag(list))"),
        ("/v2/a/blobs/uploads/blobs/D", "-|-|a/blobs/uploads|PullBlob(D)"),
        ("/v2/a/blobs/uploads/tags/list", "-|-|a/blobs/uploads|ListTags"),
        ("/v2/blobs/blobs/D", "-|-|blobs|PullBlob(D)"),
        ("/v2/manifests/manifests/manifests", "-|-|manifests|PullManifest(Tag(manifests))"),
        ("/v2/a/referrers/referrers/D", "-|-|a/referrers|ListReferrers(D)"),
        ("/v2/v2/manifests/v2", "-|-|v2|PullManifest(Tag(v2))"),
        ("/v2/a/b/c/d/e/f/g/h/tags/list", "-|-|a/b/c/d/e/f/g/h|ListTags"),
    ]);
    assert_fails(
        &[
            "/v2/a/_catalog",
            "/v2/a/b",
            "/v2/a/b/",
            "/v2/manifests/x",
            "/v2/tags/list",
            "/v2/a/manifests/",
            "/v2/a/tags/list/",
            "/v2/a/tags",
            "/v2/a/tags/other",
            "/v2/a/blobs/",
            "/v2/_x",
            "/",
            "",
            "*",
            "/favicon.ico",
            "/a/b/v2/x/tags/list/",
        ],
        StatusCode::NOT_FOUND,
        ErrorCode::NameUnknown,
    );
}

#[test]
fn escapes_are_decoded_once_and_are_literals() {
    // 64, 55
    assert_reads(&[
        ("/v2/library%2Falpine/manifests/3", "-|-|library/alpine|PullManifest(Tag(3))"),
        ("/v2/a%2Fmanifests%2Fb/manifests/c", "-|-|a/manifests/b|PullManifest(Tag(c))"),
        ("/v2/reg%3A5000/x/manifests/3", "-|-|reg:5000/x|PullManifest(Tag(3))"),
        ("/v2/x/manifests/3?ns=reg%3A5000", "-|reg:5000|x|PullManifest(Tag(3))"),
    ]);
    let escaped = DIGEST.replace(':', "%3A");
    assert_eq!(line(&read(&format!("/v2/x/blobs/{escaped}")).unwrap()), "-|-|x|PullBlob(D)");
    assert_fails(
        &[
            "/v2/../x/manifests/3",
            "/v2/a/../b/manifests/3",
            "/v2/a/./b/manifests/3",
            "/v2/%2e%2e/x/manifests/3",
            "/v2/a%2F..%2Fb/manifests/3",
            "/v2/..%2Fa/manifests/3",
            "//v2/",
            "/v2//x/manifests/3",
            "/v2/x//manifests/3",
            "/v2/x%2F%2Fy/manifests/3",
            "/v2/x%00/manifests/3",
            "/v2/x%0a/manifests/3",
            "/v2/library%252Falpine/manifests/3",
            "/v2/x%zz/manifests/3",
            "/v2/x%/manifests/3",
            "/v2/%ff/manifests/3",
            "/v2/a%5Cb/manifests/3",
            "/v2/x/manifests/%2e%2e",
        ],
        StatusCode::BAD_REQUEST,
        ErrorCode::NameInvalid,
    );
    // An escaped slash is no separator.
    assert_fails(
        &["/v2/x/manifests%2F3", "/v2/x%2Ftags%2Flist"],
        StatusCode::NOT_FOUND,
        ErrorCode::NameUnknown,
    );
}

#[test]
fn names_have_their_grammar_and_length() {
    // 65, 66
    assert_fails(
        &[
            "/v2/Library/alpine/manifests/3",
            "/v2/docker.io/Library/alpine/manifests/3",
            "/v2/a_/manifests/3",
            "/v2/a/-b/tags/list",
            "/v2/é/tags/list",
            "/v2/reg:5000/manifests/3",
            "/v2/x/reg:5000/y/manifests/3",
        ],
        StatusCode::BAD_REQUEST,
        ErrorCode::NameInvalid,
    );
    let longest = "a".repeat(255);
    assert!(read(&format!("/v2/{longest}/manifests/3")).is_ok());
    for longer in [format!("{longest}b"), format!("docker.io/{longest}")] {
        assert_eq!(
            read(&format!("/v2/{longer}/manifests/3")),
            Err(RouteError::NameInvalid(NameError::TooLong))
        );
    }
    assert_reads(&[("/v2/Docker.io/x/manifests/3", "-|-|Docker.io/x|PullManifest(Tag(3))")]);
}

#[test]
fn digests_and_tags_have_their_grammar() {
    // 65, 96
    let upper = DIGEST.to_ascii_uppercase().replace("SHA256", "sha256");
    for wrong in [&upper, "sha256:ab", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "x:y"] {
        let uris = ["manifests", "blobs", "referrers"].map(|word| format!("/v2/x/{word}/{wrong}"));
        assert_fails(&uris.each_ref().map(String::as_str), StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid);
    }
    assert_eq!(read("/v2/x/blobs/latest"), Err(RouteError::DigestInvalid(DigestError::Malformed)));
    // 28
    assert_eq!(read(&format!("/v2/x/manifests/latest@{DIGEST}")), Err(RouteError::TagAndDigest));
    let long = format!("/v2/x/manifests/{}", "t".repeat(129));
    assert_fails(
        &["/v2/x/manifests/.INVALID_MANIFEST_NAME", "/v2/x/manifests/a%20b", "/v2/x/manifests/a%2Fb", &long],
        StatusCode::NOT_FOUND,
        ErrorCode::ManifestUnknown,
    );
    assert_reads(&[
        ("/v2/x/manifests/LaTest_1.0-x", "-|-|x|PullManifest(Tag(LaTest_1.0-x))"),
        ("/v2/x/manifests/D", "-|-|x|PullManifest(Digest(D))"),
    ]);
    let error = parse(&Method::PUT, "/v2/x/manifests/.x", None).unwrap_err();
    assert_eq!((error.status(), error.code()), (StatusCode::BAD_REQUEST, ErrorCode::TagInvalid));
}

#[test]
fn repeated_and_unknown_parameters_do_no_harm() {
    // 59
    let route = read("/v2/x/tags/list?ns=&n=5&ns=a.io&n=6&ns=b.io&&_state=%ff&last=v+1").unwrap();
    assert_eq!(route.ns.as_deref(), Some("a.io"));
    assert_eq!(route.parameter("n"), Some("5"));
    assert_eq!(route.parameter("last"), Some("v+1"));
    assert_eq!(route.parameter("ns"), None);
    assert_eq!(route.parameter("other"), None);
    assert_eq!(read("/v2/x/tags/list?").unwrap().ns, None);
}

#[test]
fn methods_say_what_is_to_be_done() {
    let (manifest, blob) = (format!("/v2/x/manifests/{DIGEST}"), format!("/v2/x/blobs/{DIGEST}"));
    let upload = "/v2/x/blobs/uploads/4-a_b.c~=";
    for (method, path, word, action) in [
        (Method::HEAD, manifest.as_str(), "manifest", Action::Pull),
        (Method::PUT, &manifest, "manifest", Action::Push),
        (Method::DELETE, &manifest, "manifest", Action::Delete),
        (Method::HEAD, &blob, "blob", Action::Pull),
        (Method::DELETE, &blob, "blob", Action::Delete),
        (Method::POST, "/v2/x/blobs/uploads/", "upload", Action::Push),
        (Method::POST, "/v2/x/blobs/uploads", "upload", Action::Push),
        (Method::PATCH, upload, "upload", Action::Push),
        (Method::PUT, upload, "upload", Action::Push),
        (Method::DELETE, upload, "upload", Action::Push),
        (Method::GET, upload, "upload", Action::Push),
        (Method::HEAD, "/v2/x/tags/list", "tags", Action::Pull),
        (Method::GET, "/v2/_catalog", "catalog", Action::List),
        (Method::HEAD, "/v2/", "base", Action::Pull),
    ] {
        let route = parse(&method, path, None).unwrap();
        assert_eq!((route.as_str(), route.action()), (word, action), "{method} {path}");
    }
    // 99
    for (method, path, allow) in [
        (Method::POST, manifest.as_str(), "GET, HEAD, PUT, DELETE"),
        (Method::PUT, &blob, "GET, HEAD, DELETE"),
        (Method::GET, "/v2/x/blobs/uploads/", "POST"),
        (Method::POST, upload, "GET, HEAD, PATCH, PUT, DELETE"),
        (Method::DELETE, "/v2/x/tags/list", "GET, HEAD"),
        (Method::OPTIONS, "/v2/", "GET, HEAD"),
        (Method::PUT, "/v2/_catalog", "GET, HEAD"),
    ] {
        let error = parse(&method, path, None).unwrap_err();
        assert_eq!(error.allow(), Some(allow), "{method} {path}");
        assert_eq!((error.status(), error.code()), (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported));
    }
    for id in ["a%20b", "a%3Ab", &"a".repeat(129)] {
        assert_eq!(read(&format!("/v2/x/blobs/uploads/{id}")), Err(RouteError::NoEndpoint));
    }
}

#[test]
fn links_and_locations_are_spelled_as_the_client_spells_them() {
    // 67, 89
    let next = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let route = read("/v2/docker.io/x/tags/list?n=2&ns=reg%3A5000").unwrap();
    assert_eq!(
        route.link(&next(&[("last", "b>,\r\n"), ("n", "2"), ("ns", "evil")])),
        "/v2/docker.io/x/tags/list?last=b%3E%2C%0D%0A&n=2&ns=reg:5000"
    );
    let route = parse(&Method::POST, "/docker.io/v2/x%2Fy/blobs/uploads/", None).unwrap();
    let upload = Operation::FinishUpload("7".into());
    assert_eq!(route.location(&upload).as_deref(), Some("/docker.io/v2/x/y/blobs/uploads/7"));
    let route = read("/docker.io/v2/_catalog").unwrap();
    assert_eq!(route.link(&next(&[("n", "1")])), "/docker.io/v2/_catalog?n=1");
    assert_eq!(route.location(&upload), None);
    assert_eq!(route.spelling(&[]), None);
    assert_eq!(read("/v2/hub/?ns=a.io").unwrap().link(&[]), "/v2/hub/?ns=a.io");
}

#[test]
fn a_spelling_says_what_the_request_said() {
    let route = read("/docker.io/v2/x/y/tags/list?ns=quay.io").unwrap();
    let spelling = route.spelling(&["cache:5000"]).unwrap();
    assert_eq!((spelling.prefix, spelling.ns, spelling.name), (Some("docker.io"), Some("quay.io"), "x/y"));
    assert_eq!(spelling.own_hosts, ["cache:5000"]);
}

#[test]
fn no_request_line_panics() {
    // Words of the API and their enemies, put together at random.
    const PARTS: [&str; 30] = [
        "/",
        "v2",
        "v1",
        "manifests",
        "blobs",
        "uploads",
        "tags",
        "list",
        "referrers",
        "_catalog",
        "docker.io",
        "a",
        "..",
        "%2F",
        "%2e",
        "%25",
        "%00",
        "%",
        "é",
        ":",
        "@",
        "latest",
        DIGEST,
        "localhost",
        "//",
        "[::1]",
        "A",
        "-",
        "_",
        "\\",
    ];
    bolero::check!().with_type::<(u8, Vec<u8>, Option<String>)>().for_each(|(method, parts, query)| {
        let path: String = parts.iter().map(|part| PARTS[usize::from(*part) % PARTS.len()]).collect();
        let methods = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE];
        let method = &methods[usize::from(*method) % methods.len()];
        if let Ok(route) = parse(method, &path, query.as_deref()) {
            assert_eq!(parse_uri(method, &route.link(&route.query)), Ok(route));
        }
    });
}

#[test]
fn a_built_path_is_read_back_as_what_built_it() {
    const WORDS: [&str; 8] = ["manifests", "blobs", "uploads", "tags", "list", "referrers", "v2", "a.b__c-d"];
    const HOSTS: [Option<&str>; 4] = [None, Some("docker.io"), Some("Reg.Corp:5000"), Some("[::1]:5000")];
    let generator = (0..HOSTS.len(), 0..HOSTS.len(), produce::<Vec<u8>>().with().len(1..12usize), 0..12u8);
    bolero::check!().with_generator(generator).for_each(|(prefix, host, words, operation)| {
        let words = words.iter().map(|word| WORDS[usize::from(*word) % WORDS.len()]);
        let name = HOSTS[*host].into_iter().chain(words).collect::<Vec<_>>().join("/");
        let digest = Digest::of(Algorithm::Sha512, name.as_bytes());
        let reference = if operation % 2 == 0 { Reference::Digest(digest) } else { "list".parse().unwrap() };
        let (method, operation) = match operation {
            0 | 1 => (Method::GET, Operation::PullManifest(reference)),
            2 | 3 => (Method::PUT, Operation::PushManifest(reference)),
            4 => (Method::DELETE, Operation::DeleteManifest(reference)),
            5 => (Method::HEAD, Operation::PullBlob(digest)),
            6 => (Method::DELETE, Operation::DeleteBlob(digest)),
            7 => (Method::GET, Operation::ListTags),
            8 => (Method::GET, Operation::ListReferrers(digest)),
            9 => (Method::POST, Operation::StartUpload),
            10 => (Method::PATCH, Operation::AppendUpload("uploads".into())),
            _ => (Method::GET, Operation::StatUpload("list".into())),
        };
        let prefix = HOSTS[*prefix].map(str::to_owned);
        let ns = prefix.as_ref().map(|host| format!("{host}&="));
        let query = vec![("last".to_owned(), name.clone()), (name.clone(), "+%".to_owned())];
        let route = Route { prefix, ns, target: Target::Repository { name, operation }, query };
        assert_eq!(parse_uri(&method, &route.link(&route.query)), Ok(route));
    });
}
