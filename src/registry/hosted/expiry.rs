//! Tags that go by themselves: after a time that their image names, or at a moment that somebody said.

use std::time::Duration;

use super::collect::Rule;
use super::{Hosting, HostingError, NamespacePolicy, Result};
use crate::auth::{RequestContext, policy};
use crate::metadata::catalogue::{CatalogueError, DueTag, Stamp, TagCondition, TagState};
use crate::oci::{RepositoryName, Tag};
use crate::runtime::Timestamp;

/// The label of an image's configuration, or annotation of a manifest, that says after what time its tags go.
pub const EXPIRES_AFTER: &str = "quay.expires-after";

/// Reads the time after which an image's tags go: a whole number and a unit (`s`, `m`, `h`, `d` or `w`), as Quay has
/// it. `None` where it is no such text or 0: a mistake in a label must not remove an image.
pub fn parse_expires_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return None,
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| number.parse::<u64>().ok()).flatten()?;
    let time = Duration::from_secs(number.checked_mul(seconds)?);
    (!time.is_zero() && time <= LONGEST).then_some(time)
}

impl NamespacePolicy {
    /// When tags go that are pushed now with this label: never those that may not be moved or deleted.
    pub fn tags_expire_at(&self, label: Option<&str>, tags: &[Tag], now: Timestamp) -> Option<Timestamp> {
        let time = label.and_then(parse_expires_after)?;
        let is_immutable = tags.iter().any(|tag| self.is_immutable(tag));
        (!is_immutable).then(|| now.after(time))
    }
}

impl Hosting {
    /// Has a tag go by itself after some time; `None` says never.
    pub async fn set_tag_expiry(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        tag: &Tag,
        expires_after: Option<Duration>,
    ) -> Result<TagState> {
        policy::require_administrator(context)?;
        if expires_after.is_some_and(|time| time > LONGEST) {
            return Err(HostingError::Invalid("a tag cannot expire in more than 3650 days".to_owned()));
        }
        let expires_at = expires_after.map(|time| self.clock.now().after(time));
        if expires_at.is_some() && self.policy_of(repository).await?.is_immutable(tag) {
            return Err(HostingError::Immutable { tag: tag.to_string() });
        }
        self.catalogue.set_tag_expiry(repository, tag, expires_at, &self.stamp(context)).await?;
        let state = self.catalogue.find_tag_state(repository, tag).await?;
        Ok(state.ok_or(CatalogueError::TagUnknown)?)
    }

    /// Deletes all tags whose time is over, and says how many. They can be restored as any others. Tags that may not be
    /// deleted by now stay, and expire no more.
    pub async fn expire_tags(&self) -> Result<u64> {
        let mut expired = 0;
        loop {
            let now = self.clock.now();
            let due = self.catalogue.list_due_tags(now, BATCH).await?;
            if due.is_empty() {
                return Ok(expired);
            }
            let before = expired;
            for DueTag { repository, tag } in due {
                let stamp = Stamp { at: now, by: "expiry".into() };
                let allowed = self.policy_of(&repository).await?;
                let done = if allowed.is_immutable(&tag) {
                    self.catalogue.set_tag_expiry(&repository, &tag, None, &stamp).await
                } else {
                    let condition = TagCondition::Due(now);
                    let retracted = self.catalogue.retract_tag(&repository, &tag, condition, &stamp).await;
                    retracted.map(|is_gone| expired += u64::from(is_gone))
                };
                match done {
                    // Somebody was faster.
                    Ok(()) | Err(CatalogueError::TagUnknown | CatalogueError::RepositoryUnknown) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.0.collector.metrics.tags_removed(Rule::Expiry, expired - before);
        }
    }
}

/// The longest time that a label may name: longer ones are mistakes.
const LONGEST: Duration = Duration::from_hours(3650 * 24);

/// How many tags are looked at with one question.
const BATCH: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_quay_reads_them() {
        for (text, seconds) in
            [("1s", 1), ("10m", 600), ("1h", 3600), ("2d", 172_800), ("3w", 1_814_400), (" 4h ", 14_400)]
        {
            assert_eq!(parse_expires_after(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "h",
            "1",
            "0d",
            "-1d",
            "+1d",
            "1.5h",
            "1y",
            "1 h",
            "1hh",
            "1H",
            "never",
            "é",
            "99999999999999999999w",
            "4000d",
        ] {
            assert_eq!(parse_expires_after(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_label_speaks_for_tags_that_may_move_only() {
        let policy = NamespacePolicy::parse(r#"{"immutable_tags":["v*"]}"#).unwrap();
        let now = Timestamp::from_millis(1000);
        let tags = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Tag>>();
        let at = |label, names: &[&str]| policy.tags_expire_at(label, &tags(names), now);
        assert_eq!(at(Some("1m"), &["latest"]), Some(Timestamp::from_millis(61_000)));
        assert_eq!(at(Some("1m"), &["latest", "v1"]), None);
        assert_eq!((at(Some("soon"), &["latest"]), at(None, &["latest"])), (None, None));
    }
}
