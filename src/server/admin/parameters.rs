//! The parameters of a question to the API, each read into what it means.

use std::fmt;
use std::str::FromStr;

use super::api::{Call, Refusal};
use crate::oci::decode_query;

/// The parameters of one question.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of a call, of which only the parameters in `known` make sense.
    pub(super) fn read(call: &Call, known: &[&str]) -> Result<Self, Refusal> {
        let pairs = decode_query(&call.query);
        match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Refusal::bad(format!("unknown parameter {name}: there is {there}")))
            }
            None => Ok(Self(pairs)),
        }
    }

    /// A parameter that may be missing.
    pub(super) fn find<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| known == name) else { return Ok(None) };
        parse(name, value).map(Some)
    }

    /// A parameter that has to be there.
    pub(super) fn require<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, Refusal> {
        self.find(name)?.ok_or_else(|| Refusal::bad(format!("say which: {name} is missing")))
    }

    /// How long a page of the answer may be: the parameter `n`.
    pub(super) fn limit(&self) -> Result<u32, Refusal> {
        let limit = self.find("n")?.unwrap_or(PAGE);
        if (1..=LONGEST_PAGE).contains(&limit) {
            return Ok(limit);
        }
        Err(Refusal::bad(format!("n={limit}: write a number from 1 to {LONGEST_PAGE}")))
    }
}

/// Reads a value of an order or question.
pub(super) fn parse<T: FromStr<Err: fmt::Display>>(name: &str, value: &str) -> Result<T, Refusal> {
    value.parse().map_err(|fault| Refusal::bad(format!("{name}={value}: {fault}")))
}

/// How many items a page has where nothing is said, and the most.
const PAGE: u32 = 1000;
const LONGEST_PAGE: u32 = 10_000;
