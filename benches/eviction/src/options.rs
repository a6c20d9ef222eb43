//! What the command line asks for.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// The options of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The seed of the traces.
    pub(crate) seed: u64,
    /// Traces are cut to this part of their length: 1 but for a smoke test.
    pub(crate) parts: usize,
    /// A file with the requests of one more trace.
    pub(crate) replay: Option<PathBuf>,
    /// The file whose section about eviction is replaced; printed where there is none.
    pub(crate) write: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments that follow the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self { seed: 1, parts: 1, replay: None, write: None };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
            match name.as_str() {
                "--seed" => options.seed = value()?.parse().context("--seed takes a whole number")?,
                "--quick" => options.parts = 50,
                "--replay" => options.replay = Some(value()?.into()),
                "--write" => options.write = Some(value()?.into()),
                _ => bail!(
                    "unknown option {name}; there are --seed N, --quick, --replay FILE and --write FILE"
                ),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Options> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_others_refused() {
        let options = parse("--seed 7 --write a.md --quick").unwrap();
        assert_eq!(options, Options { seed: 7, parts: 50, replay: None, write: Some("a.md".into()) });
        for wrong in ["--seed", "--seed x", "--speed 7"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
