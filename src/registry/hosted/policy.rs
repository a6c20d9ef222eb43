//! What a namespace allows, and for how long it remembers.
//!
//! The catalogue keeps it as JSON. What is missing there has its default, what is unknown is refused: a policy
//! that a newer version wrote is an error, not half a policy.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::glob;
use crate::metadata::catalogue::MissingChildren;
use crate::oci::Tag;

/// The policy of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespacePolicy {
    /// Whether anybody may pull without a login.
    pub anonymous_pull: bool,
    /// For how long what is deleted or overwritten can be restored, in milliseconds; after that it is collected.
    pub restore_for_ms: u64,
    /// Whether manifests stay when the last tag that pointed to them has gone, instead of being collected after
    /// `restore_for_ms` without tag and without a pull.
    pub keep_untagged: bool,
    /// Tags that point for ever to what they pointed to first.
    pub immutable_tags: Vec<Glob>,
    /// What becomes of an index whose manifests are not all in the repository.
    pub missing_children: ChildrenPolicy,
    /// Which tags go by themselves.
    pub prune: Vec<PruneRule>,
}

impl Default for NamespacePolicy {
    fn default() -> Self {
        Self {
            anonymous_pull: false,
            restore_for_ms: TWO_WEEKS_MS,
            keep_untagged: false,
            immutable_tags: Vec::new(),
            missing_children: ChildrenPolicy::Allowed,
            prune: Vec::new(),
        }
    }
}

/// What becomes of an index whose manifests are not all in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildrenPolicy {
    /// It is taken.
    Allowed,
    /// It is refused.
    Refused,
}

impl From<ChildrenPolicy> for MissingChildren {
    fn from(policy: ChildrenPolicy) -> Self {
        match policy {
            ChildrenPolicy::Allowed => Self::Allowed,
            ChildrenPolicy::Refused => Self::Refused,
        }
    }
}

/// A rule by which tags go, or stay. A tag goes if a rule says so and none says that it stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum PruneRule {
    /// The tags that all of this is true of go.
    Remove {
        /// Only in these repositories, by their full names; in all of the namespace where there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        repositories: Vec<Glob>,
        /// Only these tags; all where there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<Glob>,
        /// They are not among so many newest ones of these tags.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        all_but_newest: Option<u32>,
        /// They have pointed to the same for so long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        older_than_ms: Option<u64>,
        /// What they point to was neither pulled nor put there for so long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_pulled_for_ms: Option<u64>,
    },
    /// The tags that all of this is true of stay, whatever other rules say.
    Keep {
        /// Only in these repositories, by their full names; in all of the namespace where there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        repositories: Vec<Glob>,
        /// Only these tags; all where there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<Glob>,
        /// They are among so many newest ones of these tags.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        newest: Option<u32>,
        /// They have pointed to the same for no longer than this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        younger_than_ms: Option<u64>,
        /// What they point to was pulled, or put there, within this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pulled_within_ms: Option<u64>,
    },
}

/// A pattern of names, in which `*` stands for any text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

impl Glob {
    /// Whether the pattern is that of the whole name.
    pub fn matches(&self, name: &str) -> bool {
        glob::matches(&self.0, name)
    }
}

impl TryFrom<String> for Glob {
    type Error = PolicyError;

    fn try_from(text: String) -> Result<Self, PolicyError> {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*".contains(&byte);
        if text.is_empty() || text.len() > LONGEST_GLOB || !text.bytes().all(is_known) {
            return Err(PolicyError(format!(
                "\"{text}\" is no pattern: write at most {LONGEST_GLOB} letters, digits and ._-/, with * for any text"
            )));
        }
        Ok(Self(text))
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

impl NamespacePolicy {
    /// Reads a policy from JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let read = serde_json::from_str(text).map_err(|fault| PolicyError(fault.to_string()));
        Self::from_value(read?)
    }

    /// Takes a policy from JSON that was read.
    pub fn from_value(value: serde_json::Value) -> Result<Self, PolicyError> {
        if !value.is_object() {
            return Err(PolicyError("a policy is an object".to_owned()));
        }
        let policy: Self = serde_json::from_value(value).map_err(|fault| PolicyError(fault.to_string()))?;
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), PolicyError> {
        require_duration("restore_for_ms", self.restore_for_ms)?;
        require_count("immutable_tags", self.immutable_tags.len())?;
        require_count("prune", self.prune.len())?;
        self.prune.iter().try_for_each(PruneRule::check)
    }

    /// The policy as the catalogue keeps it.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and lists of them can be written")
    }

    /// For how long what is deleted can be restored.
    pub const fn restore_for(&self) -> Duration {
        Duration::from_millis(self.restore_for_ms)
    }

    /// Whether a tag may never move.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable_tags.iter().any(|glob| glob.matches(tag.as_str()))
    }
}

impl PruneRule {
    /// Refuses what cannot be meant: an order to remove everything, and one that removes nothing ever.
    fn check(&self) -> Result<(), PolicyError> {
        let (repositories, tags, durations) = match self {
            Self::Remove { repositories, tags, all_but_newest, older_than_ms, not_pulled_for_ms } => {
                let is_bounded = all_but_newest.is_some_and(|count| count > 0)
                    || [older_than_ms, not_pulled_for_ms].iter().any(|time| time.is_some_and(|ms| ms > 0));
                if !is_bounded {
                    return Err(PolicyError(
                        "prune: a rule would remove tags the moment they are pushed: say all_but_newest, \
                         older_than_ms or not_pulled_for_ms, of 1 at least"
                            .to_owned(),
                    ));
                }
                (
                    repositories,
                    tags,
                    [("older_than_ms", older_than_ms), ("not_pulled_for_ms", not_pulled_for_ms)],
                )
            }
            Self::Keep { repositories, tags, younger_than_ms, pulled_within_ms, .. } => (
                repositories,
                tags,
                [("younger_than_ms", younger_than_ms), ("pulled_within_ms", pulled_within_ms)],
            ),
        };
        require_count("repositories", repositories.len())?;
        require_count("tags", tags.len())?;
        for (name, time) in durations {
            require_duration(name, time.unwrap_or_default())?;
        }
        Ok(())
    }
}

fn require_duration(name: &str, millis: u64) -> Result<(), PolicyError> {
    if millis > LONGEST_MS {
        return Err(PolicyError(format!(
            "{name}: {millis} is longer than 3650 days: write {LONGEST_MS} at most"
        )));
    }
    Ok(())
}

fn require_count(name: &str, count: usize) -> Result<(), PolicyError> {
    if count > MOST_ITEMS {
        return Err(PolicyError(format!("{name}: {count} items are too many: write {MOST_ITEMS} at most")));
    }
    Ok(())
}

/// For how long what is deleted can be restored where nothing is said.
const TWO_WEEKS_MS: u64 = 14 * 24 * 3600 * 1000;

/// The longest time in a policy: 3650 days.
const LONGEST_MS: u64 = 3650 * 24 * 3600 * 1000;

/// The most patterns and rules in one list.
const MOST_ITEMS: usize = 50;

/// The longest pattern, in bytes.
const LONGEST_GLOB: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        NamespacePolicy::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_has_its_default_and_what_is_written_is_read_back() {
        let policy = NamespacePolicy::parse("{}").unwrap();
        assert_eq!(policy, NamespacePolicy::default());
        assert_eq!(policy.restore_for(), Duration::from_hours(14 * 24));
        let full = r#"{"anonymous_pull":true,"restore_for_ms":0,"keep_untagged":true,"immutable_tags":["v*","1.?"],
            "missing_children":"refused","prune":[
            {"action":"remove","repositories":["acme/ci/*"],"tags":["pr-*"],"all_but_newest":5,"older_than_ms":1},
            {"action":"keep","tags":["v*"],"newest":3,"younger_than_ms":1,"pulled_within_ms":2}]}"#;
        assert!(refusal(full).contains("\"1.?\" is no pattern"));
        let policy = NamespacePolicy::parse(&full.replace("1.?", "1.*")).unwrap();
        assert_eq!(NamespacePolicy::parse(&policy.to_json()).unwrap(), policy);
        assert!(policy.is_immutable(&"v1".parse().unwrap()) && policy.is_immutable(&"1.0".parse().unwrap()));
        assert!(!policy.is_immutable(&"latest".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_would_be_right() {
        for (text, reason) in [
            (r#"{"restore":1}"#, "unknown field `restore`"),
            (r#"{"restore_for_ms":-1}"#, "invalid value"),
            (r#"{"restore_for_ms":315360000001}"#, "315360000000 at most"),
            (r#"{"immutable_tags":[""]}"#, "is no pattern"),
            (r#"{"missing_children":"maybe"}"#, "unknown variant `maybe`"),
            (r#"{"prune":[{"action":"remove","tags":["*"]}]}"#, "the moment they are pushed"),
            (r#"{"prune":[{"action":"remove","all_but_newest":0}]}"#, "the moment they are pushed"),
            (r#"{"prune":[{"action":"remove","newest":1}]}"#, "unknown field `newest`"),
            (r#"{"prune":[{"action":"keep","younger_than_ms":315360000001}]}"#, "younger_than_ms"),
            ("[]", "an object"),
        ] {
            let told = refusal(text);
            assert!(told.contains(reason), "{text}: {told}");
        }
        let many = format!(r#"{{"immutable_tags":[{}]}}"#, vec!["\"a\""; 51].join(","));
        assert!(refusal(&many).contains("51 items"));
    }
}
