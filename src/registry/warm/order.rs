//! What is ordered: as values, and as the JSON of the administrator's API and of the index.

use serde::{Deserialize, Serialize};

use crate::config::WarmConfig;
use crate::oci::{ImagePattern, Platform};
use crate::runtime::DayWindow;

/// How many blobs at once where nothing is said.
const CONCURRENCY: usize = 4;

/// The most images or globs of one order.
const MOST_IMAGES: usize = 10_000;

/// Images that are to be made complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmOrder {
    /// Images, or globs over tags.
    pub images: Vec<ImagePattern>,
    /// Platforms; empty where the configuration, or what was pulled, says.
    pub platforms: Vec<Platform>,
    /// Whether referrers are fetched, too.
    pub referrers: bool,
    /// The most bytes a second, together.
    pub bandwidth_bytes: Option<u64>,
    /// The part of the day in which anything is begun.
    pub window: Option<DayWindow>,
    /// The most blobs at once.
    pub concurrency: usize,
}

/// An order as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmRequest {
    /// Images, or globs over tags.
    pub images: Vec<String>,
    /// Platforms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Whether referrers are fetched, too; yes, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<bool>,
    /// The most bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_bytes: Option<u64>,
    /// Such as `22:00-06:00 +02:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// The most blobs at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
}

/// Why an order is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WarmError {
    /// What is ordered makes no sense; holds what, and why.
    #[error("{0}")]
    Invalid(String),
}

impl WarmRequest {
    /// Reads the texts.
    pub fn into_order(self) -> Result<WarmOrder, WarmError> {
        let invalid = |text: String| WarmError::Invalid(text);
        if self.images.is_empty() {
            return Err(invalid("images: there is none; name at least one".to_owned()));
        }
        if self.images.len() > MOST_IMAGES {
            return Err(invalid(format!("images: more than {MOST_IMAGES}; make it several orders")));
        }
        if self.bandwidth_bytes == Some(0) || self.concurrency == Some(0) {
            return Err(invalid("bandwidth_bytes and concurrency: 0 never ends; leave them out".to_owned()));
        }
        Ok(WarmOrder {
            images: parse_all("image", &self.images)?,
            platforms: parse_all("platform", &self.platforms)?,
            referrers: self.referrers.unwrap_or(true),
            bandwidth_bytes: self.bandwidth_bytes,
            window: parse_all("window", self.window.as_slice())?.pop(),
            concurrency: self.concurrency.unwrap_or(CONCURRENCY).min(256),
        })
    }
}

fn parse_all<T>(what: &str, texts: &[String]) -> Result<Vec<T>, WarmError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let parse = |text: &String| {
        text.parse().map_err(|error| WarmError::Invalid(format!("{what} \"{text}\": {error}")))
    };
    texts.iter().map(parse).collect()
}

impl WarmOrder {
    /// What `[[warm]]` orders.
    pub(super) fn of(config: &WarmConfig) -> Self {
        Self {
            images: config.images.clone(),
            platforms: config.platforms.clone(),
            referrers: config.referrers,
            bandwidth_bytes: config.bandwidth_bytes,
            window: config.window,
            concurrency: config.concurrency,
        }
    }

    /// The order as text.
    pub(super) fn to_json(&self) -> String {
        let request = WarmRequest {
            images: self.images.iter().map(ToString::to_string).collect(),
            platforms: self.platforms.iter().map(ToString::to_string).collect(),
            referrers: Some(self.referrers),
            bandwidth_bytes: self.bandwidth_bytes,
            window: self.window.map(|window| window.to_string()),
            concurrency: Some(self.concurrency),
        };
        // Texts and numbers: it cannot fail, and an empty text would be refused when it is read.
        serde_json::to_string(&request).unwrap_or_default()
    }

    /// Reads such a text.
    pub(super) fn from_json(text: &str) -> Result<Self, WarmError> {
        let request: WarmRequest =
            serde_json::from_str(text).map_err(|error| WarmError::Invalid(error.to_string()))?;
        request.into_order()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_back_as_it_was_written() {
        let text = r#"{"images":["docker.io/library/alpine:3.*","a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],"platforms":["linux/arm64"],"referrers":false,"bandwidth_bytes":5,"window":"22:00-06:00 -03:30","concurrency":2}"#;
        let order = WarmOrder::from_json(text).unwrap();
        assert_eq!(order.to_json(), text);
        let least = WarmOrder::from_json(r#"{"images":["alpine"]}"#).unwrap();
        assert!(least.referrers && least.window.is_none() && least.concurrency == CONCURRENCY);
    }

    #[test]
    fn a_bad_order_says_what_is_wrong_with_it() {
        for (bad, reason) in [
            (r#"{"images":[]}"#, "images: there is none"),
            (r#"{"images":["A"]}"#, "image \"A\""),
            (r#"{"images":["a"],"platforms":["x"]}"#, "platform \"x\""),
            (r#"{"images":["a"],"window":"now"}"#, "window \"now\""),
            (r#"{"images":["a"],"concurrency":0}"#, "concurrency"),
            (r#"{"images":["a"],"speed":0}"#, "speed"),
        ] {
            let error = WarmOrder::from_json(bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
