//! `tidegate namespace` and `tidegate repository`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{Shared, describe_deleted, text};
use crate::cli::Failure;
use crate::oci::encode_query;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum NamespaceCommand {
    /// Lists the namespaces that are hosted here.
    List(ListNamespaces),
    /// Creates a namespace: repositories in it come into being when they are pushed to.
    Create(CreateNamespace),
    /// Replaces the policy of a namespace.
    Set(SetNamespace),
    /// Shows a namespace with its policy.
    Show(ShowNamespace),
    /// Deletes a namespace with all its repositories; it can be restored for some time.
    Delete(DeleteNamespace),
    /// Restores a deleted namespace with all that it held.
    Restore(RestoreNamespace),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate namespace list\n  tidegate namespace list --deleted")]
pub(in crate::cli) struct ListNamespaces {
    /// Lists what was deleted and can be restored instead.
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate namespace create acme\n  \
    tidegate namespace create acme --anonymous-pull --immutable-tag 'v*' --restore-for 4w")]
pub(in crate::cli) struct CreateNamespace {
    /// The first component of the repositories' names.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    policy: PolicyArguments,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    tidegate namespace set acme --policy policy.json\n\n\
    What is not said has its default afterwards. `tidegate namespace show acme --output json` shows the policy as it is.")]
pub(in crate::cli) struct SetNamespace {
    /// The namespace.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    policy: PolicyArguments,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate namespace show acme")]
pub(in crate::cli) struct ShowNamespace {
    /// The namespace.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate namespace delete acme")]
pub(in crate::cli) struct DeleteNamespace {
    /// The namespace.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate namespace restore acme")]
pub(in crate::cli) struct RestoreNamespace {
    /// The namespace.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    shared: Shared,
}

/// What a namespace allows.
#[derive(Debug, clap::Args)]
struct PolicyArguments {
    /// Anybody may pull, without a login.
    #[arg(long)]
    anonymous_pull: bool,
    /// For how long what is deleted or overwritten can be restored, such as 1d or 4w [default: 2w].
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    restore_for: Option<Duration>,
    /// Manifests stay when their last tag has gone.
    #[arg(long)]
    keep_untagged: bool,
    /// Tags that never move, such as 'v*'; may be said several times.
    #[arg(long = "immutable-tag", value_name = "PATTERN")]
    immutable_tags: Vec<String>,
    /// A file with the whole policy in JSON, as the API has it, with rules to prune.
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["anonymous_pull", "restore_for", "keep_untagged", "immutable_tags"])]
    policy: Option<PathBuf>,
}

impl PolicyArguments {
    fn to_order(&self) -> Result<Map<String, Value>, Failure> {
        if let Some(path) = &self.policy {
            let read = std::fs::read(path).map_err(anyhow::Error::from);
            let read = read.and_then(|text| Ok(serde_json::from_slice(&text)?));
            return read
                .with_context(|| format!("read the policy {}", path.display()))
                .map_err(Failure::Usage);
        }
        let mut order = Map::new();
        order.insert("anonymous_pull".to_owned(), self.anonymous_pull.into());
        order.insert("keep_untagged".to_owned(), self.keep_untagged.into());
        order.insert("immutable_tags".to_owned(), json!(self.immutable_tags));
        if let Some(time) = self.restore_for {
            order.insert(
                "restore_for_ms".to_owned(),
                json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            );
        }
        Ok(order)
    }
}

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum RepositoryCommand {
    /// Lists the repositories that are hosted here.
    List(ListRepositories),
    /// Deletes a repository with all that it holds; it can be restored for some time.
    Delete(DeleteRepository),
    /// Restores a deleted repository with all that it held.
    Restore(RestoreRepository),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate repository list\n  tidegate repository list --deleted")]
pub(in crate::cli) struct ListRepositories {
    /// Lists what was deleted and can be restored instead.
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate repository delete acme/app")]
pub(in crate::cli) struct DeleteRepository {
    /// The repository, by its full name.
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate repository restore acme/app")]
pub(in crate::cli) struct RestoreRepository {
    /// The repository, by its full name.
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    #[command(flatten)]
    shared: Shared,
}

pub(in crate::cli) fn run(command: &NamespaceCommand) -> Result<(), Failure> {
    let path = |name: &str| format!("/api/v1/namespaces/{name}");
    match command {
        NamespaceCommand::List(ListNamespaces { deleted, shared }) => {
            list(shared, "/api/v1/namespaces", "namespaces", *deleted)
        }
        NamespaceCommand::Create(CreateNamespace { name, policy, shared }) => {
            let mut order = policy.to_order()?;
            order.insert("name".to_owned(), name.as_str().into());
            shared.order("POST", "/api/v1/namespaces", Some(&order.into()), |_| {
                format!("created namespace {name}\n")
            })
        }
        NamespaceCommand::Set(SetNamespace { name, policy, shared }) => {
            let order = policy.to_order()?.into();
            shared
                .order("PUT", &path(name), Some(&order), |_| format!("set the policy of namespace {name}\n"))
        }
        NamespaceCommand::Show(ShowNamespace { name, shared }) => {
            shared.order("GET", &path(name), None, describe)
        }
        NamespaceCommand::Delete(DeleteNamespace { name, shared }) => {
            let words = |deleted: &Value| {
                describe_deleted("namespace", name, deleted, &format!("namespace restore {name}"))
            };
            shared.order("DELETE", &path(name), None, words)
        }
        NamespaceCommand::Restore(RestoreNamespace { name, shared }) => {
            let order = json!({ "namespace": name });
            shared.order("POST", "/api/v1/restore", Some(&order), |_| format!("restored namespace {name}\n"))
        }
    }
}

pub(in crate::cli) fn run_repository(command: &RepositoryCommand) -> Result<(), Failure> {
    match command {
        RepositoryCommand::List(ListRepositories { deleted, shared }) => {
            list(shared, "/api/v1/repositories", "repositories", *deleted)
        }
        RepositoryCommand::Delete(DeleteRepository { repository, shared }) => {
            let path = format!("/api/v1/repositories?{}", encode_query(&[("repository", repository)]));
            let words = |deleted: &Value| {
                describe_deleted(
                    "repository",
                    repository,
                    deleted,
                    &format!("repository restore {repository}"),
                )
            };
            shared.order("DELETE", &path, None, words)
        }
        RepositoryCommand::Restore(RestoreRepository { repository, shared }) => {
            let order = json!({ "repository": repository });
            shared.order("POST", "/api/v1/restore", Some(&order), |_| {
                format!("restored repository {repository}\n")
            })
        }
    }
}

fn list(shared: &Shared, path: &str, items: &str, deleted: bool) -> Result<(), Failure> {
    if deleted {
        let parameters = [("deleted", "true".to_owned())];
        let headings = ["NAME", "DELETED", "BY", "RESTORABLE UNTIL"];
        let cells =
            |row: &Value| ["name", "deleted_at", "deleted_by", "restorable_until"].map(|key| text(row, key));
        return shared.list(path, &parameters, (items, "last"), headings, cells);
    }
    let cells = |row: &Value| ["name", "created_at", "created_by"].map(|key| text(row, key));
    shared.list(path, &[], (items, "last"), ["NAME", "CREATED", "BY"], cells)
}

fn describe(namespace: &Value) -> String {
    let [name, at, by] = ["name", "created_at", "created_by"].map(|key| text(namespace, key));
    let policy = serde_json::to_string_pretty(&namespace["policy"]).unwrap_or_default();
    format!("namespace {name}, created at {at} by {by}, with this policy:\n{policy}\n")
}
