//! Fuzz targets of the parsers that read what strangers send.
//!
//! One file a target. Each replays the inputs in `__fuzz__/<target>/corpus/` (and `crashes/`), then
//! goes on with random ones for a short while; `BOLERO_RANDOM_TEST_TIME_MS` makes it longer. An input
//! that once failed belongs into the corpus. A new target is a file, a `mod` line here and a corpus.

mod challenge;
mod content_range;
mod digest;
mod link;
mod manifest;
mod range;
mod route;

use std::time::Duration;

/// How long a target tries random inputs, where the environment does not say.
const BUDGET: Duration = Duration::from_millis(500);

/// Runs `check` with inputs of the target of that name: corpus first, then random bytes.
///
/// A macro, because the engine takes the place of the corpus from the file that expands it.
macro_rules! target {
    ($name:literal, $check:expr) => {
        bolero::check!(name = $name).with_test_time(crate::BUDGET).for_each(|input: &[u8]| $check(input))
    };
}
pub(crate) use target;

/// An input as the text of a header or path; what is no UTF-8 is replaced.
fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// The engine passes over a corpus that it does not find.
#[test]
fn every_target_has_a_corpus_where_the_engine_looks() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let names = |folder: &std::path::Path, suffix: &str| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
            .filter(|name| !matches!(name.as_str(), "main" | "__fuzz__"))
            .collect();
        names.sort();
        names
    };
    let targets = names(&here, ".rs");
    assert_eq!(targets, names(&here.join("__fuzz__"), ""), "files beside main.rs and folders in __fuzz__");
    let modules = include_str!("main.rs");
    for target in targets {
        assert!(modules.contains(&format!("\nmod {target};\n")), "main.rs has no line `mod {target};`");
        let seeds = names(&here.join("__fuzz__").join(&target).join("corpus"), "").len();
        assert!(seeds >= 5, "the corpus of {target} has {seeds} inputs");
    }
}
