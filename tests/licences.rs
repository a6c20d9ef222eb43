//! Every dependency that is built has a licence that an Apache-2.0 program can be shipped with.

use std::collections::HashMap;
use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than a notice, by their SPDX names.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression leaves us a choice of allowed licences only. `/` is an old way to write
/// `OR`. What is not understood is not allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    matches!(any_of(&words), Some((allowed, [])) if allowed)
}

/// `all-of *("OR" all-of)`: the verdict and what follows.
fn any_of<'a, 'w>(words: &'w [&'a str]) -> Option<(bool, &'w [&'a str])> {
    let (mut allowed, mut rest) = all_of(words)?;
    while let ["OR", after @ ..] = rest {
        let (other, after) = all_of(after)?;
        (allowed, rest) = (allowed | other, after);
    }
    Some((allowed, rest))
}

/// `term *("AND" term)`
fn all_of<'a, 'w>(words: &'w [&'a str]) -> Option<(bool, &'w [&'a str])> {
    let (mut allowed, mut rest) = term(words)?;
    while let ["AND", after @ ..] = rest {
        let (other, after) = term(after)?;
        (allowed, rest) = (allowed & other, after);
    }
    Some((allowed, rest))
}

/// `"(" any-of ")"`, or `licence ["WITH" exception]`
fn term<'a, 'w>(words: &'w [&'a str]) -> Option<(bool, &'w [&'a str])> {
    match words {
        ["(", inner @ ..] => match any_of(inner)? {
            (allowed, [")", rest @ ..]) => Some((allowed, rest)),
            _ => None,
        },
        [")" | "OR" | "AND" | "WITH", ..] | [] => None,
        [licence, "WITH", exception, rest @ ..] => {
            Some((ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()), rest))
        }
        [licence, rest @ ..] => Some((ALLOWED.contains(licence), rest)),
    }
}

#[test]
fn expressions_are_understood() {
    for (expression, allowed) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("MIT AND GPL-3.0-only", false),
        ("GPL-2.0/MIT", true),
        ("Apache-2.0 / MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", false),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", true),
        ("GPL-3.0-only OR (ISC AND (Zlib OR X))", true),
        ("Apache-2.0 WITH LLVM-exception OR X", true),
        ("MIT WITH LLVM-exception", false),
        ("", false),
        ("MIT OR", false),
        ("(MIT", false),
        ("MIT)", false),
        ("MIT ISC", false),
        ("mit", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}

/// What a command prints.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output =
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

#[test]
fn every_dependency_may_be_shipped() {
    // Of this platform alone: others' packages need not be on this machine, and it is without network.
    let version = output_of(option_env!("RUSTC").unwrap_or("rustc"), &["-vV"]);
    let platform =
        version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let metadata = output_of(
        env!("CARGO"),
        &["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", platform],
    );
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
    let packages: HashMap<&str, &Value> = metadata["packages"]
        .as_array()
        .expect("there are packages")
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("dependencies are resolved");
    assert!(nodes.len() > 100, "only {} packages are looked at", nodes.len());
    let faults: Vec<String> = nodes
        .iter()
        .map(|node| packages[node["id"].as_str().expect("a node has an id")])
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(faults.is_empty(), "licences that are not allowed:\n{}", faults.join("\n"));
}
