//! `tidegate tag`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Shared, describe_deleted, text};
use crate::cli::{Failure, console};
use crate::oci::{Digest, RepositoryName, Tag, encode_query};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum TagCommand {
    /// Lists the tags of a hosted repository.
    List(ListTags),
    /// Shows everything that a tag ever pointed to, with who and when.
    History(History),
    /// Points a tag to what it pointed to once.
    Restore(Restore),
    /// Deletes a tag; it can be restored for some time.
    Delete(Delete),
    /// Has a tag go by itself after some time, or not any more.
    Expire(Expire),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate tag list acme/app")]
pub(in crate::cli) struct ListTags {
    /// The repository, by its full name.
    #[arg(value_name = "REPOSITORY")]
    repository: RepositoryName,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate tag history acme/app:v1\n  \
    tidegate tag history acme/app:v1 --as-of 2026-11-24T11:05:40Z")]
pub(in crate::cli) struct History {
    /// The tag, with its repository's full name.
    #[arg(value_name = "REPOSITORY:TAG")]
    tag: TagName,
    /// Prints only what it pointed to at this moment.
    #[arg(long, value_name = "MOMENT")]
    as_of: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate tag restore acme/app:v1\n  \
    tidegate tag restore acme/app:v1 --digest sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b")]
pub(in crate::cli) struct Restore {
    /// The tag, with its repository's full name.
    #[arg(value_name = "REPOSITORY:TAG")]
    tag: TagName,
    /// What it is to point to; if missing, what it pointed to before it was deleted.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate tag delete acme/app:v1")]
pub(in crate::cli) struct Delete {
    /// The tag, with its repository's full name.
    #[arg(value_name = "REPOSITORY:TAG")]
    tag: TagName,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate tag expire acme/app:pr-7 --after 2w\n  \
    tidegate tag expire acme/app:pr-7 --never")]
pub(in crate::cli) struct Expire {
    /// The tag, with its repository's full name.
    #[arg(value_name = "REPOSITORY:TAG")]
    tag: TagName,
    /// After what time, such as 2w.
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration,
        required_unless_present = "never", conflicts_with = "never")]
    after: Option<Duration>,
    /// It stays.
    #[arg(long)]
    never: bool,
    #[command(flatten)]
    shared: Shared,
}

/// A tag with its repository, as people write them: `acme/app:v1`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct TagName {
    repository: RepositoryName,
    tag: Tag,
}

impl std::str::FromStr for TagName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repository, tag) = text.rsplit_once(':').ok_or("write REPOSITORY:TAG, such as acme/app:v1")?;
        let repository = repository.parse().map_err(|fault| format!("the repository: {fault}"))?;
        let tag = tag.parse().map_err(|fault| format!("the tag: {fault}"))?;
        Ok(Self { repository, tag })
    }
}

impl std::fmt::Display for TagName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl TagName {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![("repository", self.repository.to_string()), ("tag", self.tag.to_string())]
    }

    fn to_order(&self) -> Value {
        json!({ "repository": self.repository.as_str(), "tag": self.tag.as_str() })
    }
}

pub(in crate::cli) fn run(command: &TagCommand) -> Result<(), Failure> {
    match command {
        TagCommand::List(ListTags { repository, shared }) => {
            let cells = |row: &Value| {
                ["name", "since", "by", "last_pulled_at", "expires_at", "digest"].map(|key| text(row, key))
            };
            let headings = ["TAG", "SINCE", "BY", "LAST PULLED", "EXPIRES", "DIGEST"];
            let parameters = [("repository", repository.to_string())];
            shared.list("/api/v1/tags", &parameters, ("tags", "last"), headings, cells)
        }
        TagCommand::History(arguments) => history(arguments),
        TagCommand::Restore(Restore { tag, digest, shared }) => {
            let mut order = tag.to_order();
            if let Some(digest) = digest {
                order["digest"] = digest.to_string().into();
            }
            let words = |state: &Value| format!("{tag} points to {} again\n", text(state, "digest"));
            shared.order("POST", "/api/v1/restore", Some(&order), words)
        }
        TagCommand::Delete(Delete { tag, shared }) => {
            let path = format!("/api/v1/tags?{}", encode_query(&tag.parameters()));
            let words = |deleted: &Value| {
                describe_deleted("tag", &tag.to_string(), deleted, &format!("tag restore {tag}"))
            };
            shared.order("DELETE", &path, None, words)
        }
        TagCommand::Expire(Expire { tag, after, never: _, shared }) => {
            let mut order = tag.to_order();
            order["expires_in_seconds"] = json!(after.map(|time| time.as_secs()));
            let words = |state: &Value| match state["expires_at"].as_str() {
                Some(at) => format!("{tag} expires at {at}\n"),
                None => format!("{tag} does not expire\n"),
            };
            shared.order("PUT", "/api/v1/tags/expiry", Some(&order), words)
        }
    }
}

fn history(arguments: &History) -> Result<(), Failure> {
    const PATH: &str = "/api/v1/tags/history";
    let History { tag, as_of, shared } = arguments;
    if let Some(moment) = as_of {
        let mut query = tag.parameters();
        query.push(("as_of", moment.clone()));
        let answer = shared.client()?.call("GET", &format!("{PATH}?{}", encode_query(&query)), None);
        let answer = answer.map_err(Failure::Failed)?;
        let Some(digest) = answer["digest"].as_str() else {
            return Err(Failure::Failed(anyhow::anyhow!("{tag} pointed nowhere at {moment}")));
        };
        return Ok(console::print(&format!("{digest}\n"))?);
    }
    let cells = |row: &Value| {
        let [at, by] = ["at", "by"].map(|key| text(row, key));
        let digest = row["digest"].as_str().unwrap_or("(deleted)").to_owned();
        let kept = match (row["digest"].is_string(), row["is_restorable"] == true) {
            (false, _) => "-",
            (true, true) => "yes",
            (true, false) => "no",
        };
        [at, by, kept.to_owned(), digest]
    };
    let headings = ["SINCE", "BY", "RESTORABLE", "DIGEST"];
    shared.list(PATH, &tag.parameters(), ("history", "before"), headings, cells)
}
