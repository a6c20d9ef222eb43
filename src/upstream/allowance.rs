//! What upstreams say of how much they still allow, in all the forms in which they say it, and how much that is later.
//!
//! Docker Hub sends `ratelimit-limit: 100;w=21600` and `ratelimit-remaining` with `docker-ratelimit-source`, also to
//! HEAD, and counts manifests only. Others follow one of the drafts of the HTTP working group (`RateLimit-Limit` and
//! its like; `RateLimit` and `RateLimit-Policy`), or send `X-RateLimit-…`; they count every request.

use std::time::Duration;

use http::HeaderMap;

use super::answer::time_until_reset;
use crate::runtime::Timestamp;

/// What is counted against an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// A GET of a manifest.
    Pulls,
    /// Any request.
    Requests,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) counts: Counts,
    pub(super) remaining: u64,
    limit: Option<u64>,
    /// The time in which as much as the limit is allowed.
    window: Option<Duration>,
    /// When all of it is allowed anew.
    reset: Option<Duration>,
}

impl Told {
    /// Reads an answer's headers. Of several allowances, that which is used up first.
    pub(super) fn read(headers: &HeaderMap, now: Timestamp) -> Option<Self> {
        let is_docker_hub = headers.contains_key("docker-ratelimit-source");
        let counts = if is_docker_hub { Counts::Pulls } else { Counts::Requests };
        let told = read_structured(headers)
            .or_else(|| read_fields(headers, "ratelimit", now))
            .or_else(|| read_fields(headers, "x-ratelimit", now))?;
        Some(Self { counts, ..told })
    }

    /// When all of it is allowed anew, where nothing is left of it.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.reset.filter(|_| self.remaining == 0)
    }
}

/// `RateLimit: "default";r=50;t=30` with `RateLimit-Policy: "default";q=100;w=60`, or, as before,
/// `RateLimit: limit=100, remaining=50, reset=30` with `RateLimit-Policy: 100;w=60`.
fn read_structured(headers: &HeaderMap) -> Option<Told> {
    let items = items_of(headers, "ratelimit");
    let policies = items_of(headers, "ratelimit-policy");
    let find = |item: &Item, name: &str| item.parameters.iter().find(|(key, _)| key == name)?.1.parse().ok();
    let member = |name: &str| {
        let value = items.iter().find_map(|item| item.value.strip_prefix(name)?.strip_prefix('='))?;
        value.parse::<u64>().ok()
    };
    if let Some(remaining) = member("remaining") {
        let window = policies.first().and_then(|policy| find(policy, "w")).map(Duration::from_secs);
        let reset = member("reset").map(Duration::from_secs);
        return Some(Told { counts: Counts::Requests, remaining, limit: member("limit"), window, reset });
    }
    let told = |item: &Item| {
        let policy = policies.iter().find(|policy| policy.value == item.value);
        let of_policy = |name| policy.and_then(|policy| find(policy, name));
        Some(Told {
            counts: Counts::Requests,
            remaining: find(item, "r")?,
            limit: of_policy("q"),
            window: of_policy("w").map(Duration::from_secs),
            reset: find(item, "t").map(Duration::from_secs),
        })
    };
    items.iter().filter_map(told).min_by_key(|told| told.remaining)
}

/// `…-limit: 100;w=21600`, `…-remaining: 50;w=21600`, `…-reset: 30`.
fn read_fields(headers: &HeaderMap, prefix: &str, now: Timestamp) -> Option<Told> {
    let first = |name: &str| items_of(headers, &format!("{prefix}-{name}")).into_iter().next();
    let remaining = first("remaining")?;
    let limit = first("limit");
    let window = |item: &Item| item.parameters.iter().find(|(key, _)| key == "w")?.1.parse().ok();
    let window = limit.iter().chain([&remaining]).find_map(window);
    Some(Told {
        counts: Counts::Requests,
        remaining: remaining.value.parse().ok()?,
        window: window.map(Duration::from_secs),
        limit: limit.and_then(|limit| limit.value.parse().ok()),
        reset: first("reset").and_then(|reset| Some(time_until_reset(reset.value.parse().ok()?, now))),
    })
}

/// An element of a list: a value with parameters.
struct Item {
    value: String,
    parameters: Vec<(String, String)>,
}

fn items_of(headers: &HeaderMap, name: &str) -> Vec<Item> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let elements = lines.flat_map(|line| split(line, ','));
    let read = |element: &str| {
        let mut parts = split(element, ';').into_iter();
        let value = parts.next()?.trim().to_owned();
        let parameters = parts.filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        });
        Some(Item { value, parameters: parameters.collect() })
    };
    elements.take(MOST_ITEMS).filter_map(read).collect()
}

/// Splits a text where `mark` stands outside of quotes.
fn split(text: &str, mark: char) -> Vec<&str> {
    let mut is_quoted = false;
    let is_mark = |letter: char| {
        is_quoted ^= letter == '"';
        letter == mark && !is_quoted
    };
    text.split(is_mark).collect()
}

/// What upstream said last, and what was spent since.
#[derive(Debug)]
pub(super) struct Allowance {
    told: Told,
    told_at: Timestamp,
    limit: u64,
    spent: u64,
}

impl Allowance {
    /// Takes up what upstream says now.
    pub(super) fn new(told: Told, told_at: Timestamp, before: Option<&Self>) -> Self {
        // Where upstream never says the limit, the most that it ever allowed.
        let known = before.map_or(0, |before| before.limit).max(told.remaining);
        Self { told, told_at, limit: told.limit.unwrap_or(known), spent: 0 }
    }

    pub(super) const fn counts(&self) -> Counts {
        self.told.counts
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// One more was spent.
    pub(super) const fn spend(&mut self) {
        self.spent = self.spent.saturating_add(1);
    }

    /// How much is left, as far as can be told; `None` where what upstream said holds no longer.
    pub(super) fn remaining(&self, now: Timestamp) -> Option<u64> {
        let passed = now.since(self.told_at);
        let lasts = self.told.reset.or(self.told.window).unwrap_or(LASTS).min(LONGEST);
        // A moment in the future: the clock was set back.
        if self.told_at > now || passed >= lasts {
            return None;
        }
        let left = self.told.remaining.saturating_sub(self.spent);
        // A window that slides gives back by and by.
        let slides = self.told.reset.is_none();
        let regained = self.told.window.filter(|_| slides).map_or(0, |window| {
            let share = u128::from(self.limit) * passed.as_millis() / window.as_millis().max(1);
            u64::try_from(share).unwrap_or(u64::MAX)
        });
        Some(left.saturating_add(regained).min(self.limit.max(left)))
    }

    /// When to look again, for those who leave the rest to others.
    pub(super) fn pause(&self, now: Timestamp) -> Duration {
        let passed = now.since(self.told_at);
        let until_reset = self.told.reset.map(|reset| reset.saturating_sub(passed));
        let slice = self.told.window.unwrap_or(LASTS) / 20;
        until_reset.unwrap_or(slice).clamp(Duration::from_secs(1), super::hold::LONGEST)
    }
}

/// How long a word without any time is believed.
const LASTS: Duration = Duration::from_hours(1);
const LONGEST: Duration = Duration::from_hours(24);
const MOST_ITEMS: usize = 16;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn read(lines: &[(&'static str, &str)]) -> Option<Told> {
        let lines = lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Told::read(&lines.collect(), NOW)
    }

    fn told(remaining: u64, limit: Option<u64>, window: Option<u64>, reset: Option<u64>) -> Told {
        let (window, reset) = (window.map(Duration::from_secs), reset.map(Duration::from_secs));
        Told { counts: Counts::Requests, remaining, limit, window, reset }
    }

    #[test]
    fn every_form_is_understood() {
        let docker = read(&[
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
            ("docker-ratelimit-source", "192.0.2.1"),
        ]);
        let expected = Told { counts: Counts::Pulls, ..told(76, Some(100), Some(21600), None) };
        assert_eq!(docker, Some(expected));
        for (lines, expected) in [
            (
                &[
                    ("ratelimit-limit", "10, 10;w=1, 50;w=60"),
                    ("ratelimit-remaining", "9"),
                    ("ratelimit-reset", "50"),
                ][..],
                told(9, Some(10), None, Some(50)),
            ),
            (
                &[("ratelimit", "limit=100, remaining=50, reset=5"), ("ratelimit-policy", "100;w=60")],
                told(50, Some(100), Some(60), Some(5)),
            ),
            (
                &[
                    ("ratelimit-policy", "\"a, b\";q=100;w=60, \"day\";q=5000;w=86400"),
                    ("ratelimit", "\"a, b\";r=50;t=30;pk=:c29tZQ==:, \"day\";r=4000"),
                ],
                told(50, Some(100), Some(60), Some(30)),
            ),
            (&[("ratelimit", "\"a\";r=0;t=7")], told(0, None, None, Some(7))),
            (
                &[
                    ("x-ratelimit-limit", "60"),
                    ("x-ratelimit-remaining", "59"),
                    ("x-ratelimit-reset", "1800000030"),
                ],
                told(59, Some(60), None, Some(30)),
            ),
            (&[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "90")], told(5, None, None, Some(90))),
        ] {
            assert_eq!(read(lines), Some(expected), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[("ratelimit-remaining", "many")],
            &[("ratelimit-remaining", "-1")],
            &[("ratelimit-limit", "100")],
            &[("ratelimit", ";;;,,,\"r=5")],
            &[("ratelimit", "\"a\";r=99999999999999999999999")],
        ] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn what_is_left_follows_what_is_spent_and_what_time_gives_back() {
        let at = |seconds| NOW.after(Duration::from_secs(seconds));
        let mut sliding = Allowance::new(told(10, Some(100), Some(1000), None), NOW, None);
        assert_eq!(sliding.remaining(NOW), Some(10));
        sliding.spend();
        sliding.spend();
        assert_eq!(
            [0, 100, 999, 1000].map(|at_| sliding.remaining(at(at_))),
            [Some(8), Some(18), Some(100), None]
        );
        assert_eq!(sliding.remaining(Timestamp::from_millis(5)), None, "the clock was set back");
        let fixed = Allowance::new(told(10, None, None, Some(60)), NOW, Some(&sliding));
        assert_eq!(fixed.limit(), 100, "the most that was known");
        assert_eq!([0, 59, 60].map(|at_| fixed.remaining(at(at_))), [Some(10), Some(10), None]);
        assert_eq!(fixed.pause(at(20)), Duration::from_secs(40));
        assert_eq!(fixed.pause(at(2000)), Duration::from_secs(1));
    }
}
