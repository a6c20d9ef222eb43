//! Holds the layers of `src/ARCHITECTURE.md`, which the compiler does not inside one crate.

mod source;

use std::path::Path;

use source::Source;

/// The layers, lowest first; modules on one line do not know each other. `src/lib.rs` says the same, but
/// for modules that are still to come.
const LAYERS: &[&[&str]] = &[
    &["oci", "runtime"],
    &["config"],
    &["telemetry"],
    &["blobs", "bundle", "events", "metadata", "upstream"],
    &["auth"],
    &["registry"],
    &["replication"],
    &["worker"],
    &["server"],
    &["app"],
    &["cli"],
];

/// Crates that only some modules may name.
const CRATES: &[(&str, &[&str])] = &[
    ("sqlx", &["metadata"]),
    ("object_store", &["blobs"]),
    ("hyper", &["server", "upstream"]),
    ("hyper_rustls", &["blobs"]),
    ("hyper_util", &["blobs", "server", "upstream"]),
    ("http_body", &["server", "upstream"]),
    ("http_body_util", &["blobs", "server", "upstream"]),
    ("http", &["cli", "config", "server", "upstream"]),
    ("anyhow", &["app", "cli", "main"]),
];

/// Traits of seams, and the modules that have the back ends behind them.
const SEAMS: &[(&str, &str)] =
    &[("ContentIndex", "metadata"), ("Blobs", "blobs"), ("DurableBlobs", "blobs"), ("Events", "events")];

/// The only module, beside its owner, that may name a back end.
const CHOOSES_BACK_ENDS: &str = "app";

/// Requests as they come in, which only one module may know.
const REQUESTS: &[&[&str]] = &[
    &["Request", "<", "Incoming", ">"],
    &["Request", "<", "body", "::", "Incoming", ">"],
    &["Request", "<", "hyper", "::", "body", "::", "Incoming", ">"],
    &["request", "::", "Parts"],
];
const KNOWS_REQUESTS: &str = "server";

/// The most production lines of a file.
const MAX_LINES: usize = 500;

fn sources() -> Vec<Source> {
    Source::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

/// Fails with all faults that `find` finds, one a line.
fn assert_none(find: impl Fn(&Source, &mut Vec<String>)) {
    let mut faults = Vec::new();
    for source in sources() {
        find(&source, &mut faults);
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn fault(source: &Source, line: usize, text: &str) -> String {
    format!("src/{}:{line}: {text}", source.path.display())
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn find_layer_faults(source: &Source, faults: &mut Vec<String>) {
    let module = source.module();
    if matches!(module.as_str(), "lib" | "main") {
        return;
    }
    let Some(own) = layer(&module) else {
        faults.push(fault(source, 1, &format!("`{module}` needs a layer, here and in `src/lib.rs`")));
        return;
    };
    for token in source.crate_paths() {
        let used = &token.text;
        let text = match layer(used) {
            _ if *used == module => continue,
            Some(other) if other < own => continue,
            Some(other) if other == own => format!("`{module}` uses `{used}`, which stands beside it"),
            Some(_) => format!("`{module}` uses `{used}`, which stands above it"),
            None => format!("`crate::{used}` is no module with a layer"),
        };
        faults.push(fault(source, token.line, &text));
    }
}

fn find_super_faults(source: &Source, faults: &mut Vec<String>) {
    for place in source.find(&["super", "::", "super"]) {
        faults.push(fault(source, source.tokens[place].line, "write `crate::…` for `super::super`"));
    }
    if source.is_top() {
        for place in source.find(&["super", "::"]) {
            faults.push(fault(
                source,
                source.tokens[place].line,
                "write `crate::…`: `super` is the crate's root",
            ));
        }
    }
}

fn find_crate_faults(source: &Source, faults: &mut Vec<String>) {
    let module = source.module();
    for (name, allowed) in CRATES {
        if let Some(token) = source.names_crate(name).filter(|_| !allowed.contains(&module.as_str())) {
            let text = format!("`{module}` names `{name}`; only {} may", allowed.join(", "));
            faults.push(fault(source, token.line, &text));
        }
    }
}

fn find_request_faults(source: &Source, faults: &mut Vec<String>) {
    if source.module() == KNOWS_REQUESTS {
        return;
    }
    for place in REQUESTS.iter().flat_map(|words| source.find(words)) {
        let text = format!("only `{KNOWS_REQUESTS}` knows requests as they come in");
        faults.push(fault(source, source.tokens[place].line, &text));
    }
}

/// The back ends among the sources, each with the module that owns it: structures there that a seam's
/// trait is implemented for.
fn back_ends(sources: &[Source]) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for (seam, owner) in SEAMS {
        let owned: Vec<_> = sources.iter().filter(|source| source.module() == *owner).collect();
        for source in &owned {
            for place in source.find(&[seam, "for"]) {
                let name = &source.tokens[place + 2].text;
                if owned.iter().any(|source| source.find(&["struct", name]).next().is_some()) {
                    found.push((name.clone(), *owner));
                }
            }
        }
    }
    found
}

fn find_back_end_faults(back_ends: &[(String, &str)], source: &Source, faults: &mut Vec<String>) {
    let module = source.module();
    for (name, owner) in back_ends {
        if module == *owner || module == CHOOSES_BACK_ENDS {
            continue;
        }
        for place in source.find(&[name]) {
            let text =
                format!("`{module}` names `{name}`; only `{CHOOSES_BACK_ENDS}` may, others use the trait");
            faults.push(fault(source, source.tokens[place].line, &text));
        }
    }
}

fn find_size_faults(source: &Source, faults: &mut Vec<String>) {
    let lines = source.production_lines;
    if lines > MAX_LINES {
        faults.push(fault(source, 1, &format!("{lines} production lines; split it below {MAX_LINES}")));
    }
}

#[test]
fn a_module_uses_lower_layers_only() {
    assert_none(find_layer_faults);
}

#[test]
fn paths_do_not_climb() {
    assert_none(find_super_faults);
}

#[test]
fn crates_stay_where_they_belong() {
    assert_none(find_crate_faults);
}

#[test]
fn only_the_server_knows_incoming_requests() {
    assert_none(find_request_faults);
}

#[test]
fn only_the_application_chooses_back_ends() {
    let sources = sources();
    let back_ends = back_ends(&sources);
    assert_none(|source, faults| find_back_end_faults(&back_ends, source, faults));
    // A rule about a trait that is gone would hold nothing.
    for (seam, owner) in SEAMS {
        let is_there =
            |source: &Source| source.module() == *owner && source.find(&["trait", seam]).next().is_some();
        assert!(sources.iter().any(is_there), "`{owner}` has no trait `{seam}`: adjust SEAMS");
    }
}

#[test]
fn files_stay_readable_in_one_go() {
    assert_none(find_size_faults);
}

#[test]
fn the_map_in_lib_shows_these_layers() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut layers = vec![Vec::new()];
    for line in text.lines().map(str::trim) {
        if line == "// ---" {
            layers.push(Vec::new());
        } else if let Some(rest) = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod ")) {
            layers.last_mut().unwrap().push(rest.trim_end_matches(';'));
        }
    }
    let is_declared = |module: &&&str| layers.iter().flatten().any(|declared| declared == *module);
    let expected: Vec<Vec<&str>> = LAYERS
        .iter()
        .map(|layer| layer.iter().filter(is_declared).copied().collect())
        .filter(|layer: &Vec<&str>| !layer.is_empty())
        .collect();
    assert_eq!(layers, expected, "`src/lib.rs` and LAYERS differ");
}

/// The faults that `find` finds in a made-up source.
fn faults_of(find: impl Fn(&Source, &mut Vec<String>), path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    find(&Source::parse(Path::new(path), text).0, &mut faults);
    faults
}

#[test]
fn uses_of_upper_layers_are_found_however_written() {
    for (text, expected) in [
        ("use crate::oci::Digest;", 0),
        ("use crate::registry::{Names, Repository};", 0),
        ("use crate::server::route;", 1),
        ("use crate::{oci::Digest, auth::{self, policy}, app, cli::run as server};", 3),
        ("fn f() -> crate::metadata::Result<()> {\n crate::auth::f::<crate::events::E>() }", 2),
        ("// crate::app\n/* crate::app /* nested */ crate::app */ /// crate::app\n", 0),
        (
            r##"const A: &str = r#"crate::app "quoted" "#; const B: &[u8] = b"\"crate::app"; const C: char = '"';"##,
            0,
        ),
        ("fn f<'a>(x: &'a str) -> &'a crate::app::App { '\\'' }", 1),
        ("#[cfg(test)]\nmod tests { use crate::app::App; }\nuse crate::app::App;", 1),
        ("#[cfg(test)]\n#[expect(x)]\npub(crate) use crate::{app::A, cli::B};\nuse crate::app;", 1),
        ("struct S { #[cfg(test)] x: crate::app::A<u8>, y: crate::app::A }", 1),
        (
            "#[cfg(test)] impl A { fn f() { crate::app::f() } } #[cfg(all(test, unix))] const A: [u8; 2] = crate::app::A;",
            0,
        ),
        ("#[cfg(not(test))] use crate::app;", 1),
        ("use crate::nowhere;", 1),
        ("pub(in crate::app) use x; pub(crate) fn f() {}", 1),
    ] {
        let path = if text.contains("auth") { "metadata/sqlite/mod.rs" } else { "registry/pull.rs" };
        let found = faults_of(find_layer_faults, path, text);
        assert_eq!(found.len(), expected, "{text}\n{found:?}");
    }
    assert_eq!(
        faults_of(find_layer_faults, "blobs/local.rs", "\nuse crate::metadata::Tag;\nuse crate::server::A;"),
        [
            "src/blobs/local.rs:2: `blobs` uses `metadata`, which stands beside it",
            "src/blobs/local.rs:3: `blobs` uses `server`, which stands above it",
        ]
    );
    assert_eq!(faults_of(find_layer_faults, "newcomer.rs", "").len(), 1);
}

#[test]
fn faults_of_the_other_kinds_are_found() {
    assert_eq!(faults_of(find_super_faults, "a/b/c.rs", "use super::super::x; use super::y;").len(), 1);
    assert_eq!(faults_of(find_super_faults, "app.rs", "use super::oci;").len(), 1);
    assert_eq!(faults_of(find_super_faults, "oci/mod.rs", "use super::runtime;").len(), 1);
    for (path, text, expected) in [
        ("registry/a.rs", "use http::Method;", 1),
        ("registry/a.rs", "use sqlx;", 1),
        ("registry/a.rs", "fn f() { sqlx::query!(1); let http = 1; crate::config::http::f(); }", 1),
        ("server/a.rs", "use http::Method; use hyper::body::Incoming;", 0),
        ("config/a.rs", "use http::Uri; use hyper::Uri;", 1),
        ("blobs/a.rs", "use anyhow::Context;", 1),
    ] {
        assert_eq!(faults_of(find_crate_faults, path, text).len(), expected, "{path}: {text}");
    }
    let text = "use http::request::Parts; fn f(r: Request<Incoming>) {}";
    assert_eq!(faults_of(find_request_faults, "upstream/a.rs", text).len(), 2);
    assert_eq!(faults_of(find_request_faults, "server/a.rs", text).len(), 0);
    let text = "pub struct Disk<T>(T); impl<T> Blobs for Disk<T> {} impl<T: Blobs> Blobs for Box<T> {}";
    let found = back_ends(&[Source::parse(Path::new("blobs/disk.rs"), text).0]);
    assert_eq!(found, [("Disk".to_owned(), "blobs")]);
    let find = |source: &Source, faults: &mut Vec<String>| find_back_end_faults(&found, source, faults);
    assert_eq!(faults_of(find, "registry/a.rs", "use crate::blobs::Disk;").len(), 1);
    assert_eq!(faults_of(find, "app.rs", "use crate::blobs::Disk;").len(), 0);
    let long = "\n".repeat(500) + "#[cfg(test)]\nmod tests {\n\n}\n";
    assert_eq!(faults_of(find_size_faults, "a.rs", &long).len(), 0);
    assert_eq!(faults_of(find_size_faults, "a.rs", &("\n".to_owned() + &long)).len(), 1);
}

#[test]
fn modules_of_tests_are_told_from_others() {
    let text = "#[cfg(test)]\nmod tests;\nmod other;\n#[cfg(test)]\npub(crate) mod support;";
    let modules = |path: &str| Source::parse(Path::new(path), text).1;
    assert_eq!(modules("a/mod.rs"), [Path::new("a/tests"), Path::new("a/support")]);
    assert_eq!(modules("a/b.rs"), [Path::new("a/b/tests"), Path::new("a/b/support")]);
    let paths: Vec<_> = sources().iter().map(|source| source.path.display().to_string()).collect();
    assert!(paths.iter().any(|path| path == "server/route/parse.rs"));
    assert!(!paths.iter().any(|path| path == "server/route/tests.rs"));
}
