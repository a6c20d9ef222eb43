//! `tidegate namespace`, `repository`, `tag`, `prune` and `collect`: what a running server hosts.

mod namespaces;
mod tags;
mod upkeep;

use serde_json::Value;

pub(super) use namespaces::{NamespaceCommand, RepositoryCommand, run as run_namespace, run_repository};
pub(super) use tags::{TagCommand, run as run_tag};
pub(super) use upkeep::{
    CollectArguments, PruneArguments, VerifyArguments, run_collect, run_prune, run_verify,
};

use super::admin_client::{AdminClient, ServerArguments, read_environment};
use super::table::Table;
use super::{Failure, Format, console};
use crate::oci::encode_query;

/// What every one of these commands takes.
#[derive(Debug, clap::Args)]
struct Shared {
    #[command(flatten)]
    server: ServerArguments,
    /// How to print: for people, or JSON.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

impl Shared {
    fn client(&self) -> Result<AdminClient, Failure> {
        self.server.client(&read_environment())
    }

    /// Asks, and prints the answer: as it is, or in these words.
    fn order(
        &self,
        method: &str,
        path: &str,
        order: Option<&Value>,
        words: impl FnOnce(&Value) -> String,
    ) -> Result<(), Failure> {
        let answer = self.client()?.call(method, path, order).map_err(Failure::Failed)?;
        match self.output {
            Format::Json => console::print_json(&answer)?,
            Format::Text => console::print(&words(&answer))?,
        }
        Ok(())
    }

    /// Lists all pages of something, one object a line or as a table.
    fn list<const N: usize>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        (items, next): (&str, &str),
        headings: [&str; N],
        cells: impl Fn(&Value) -> [String; N],
    ) -> Result<(), Failure> {
        let client = self.client()?;
        let mut table = Table::new(&headings);
        let mut place = None;
        loop {
            let mut query = parameters.to_vec();
            query.extend(place.take().map(|place| (next, place)));
            let path = format!("{path}?{}", encode_query(&query));
            let page = client.call("GET", &path, None).map_err(Failure::Failed)?;
            for item in page[items].as_array().into_iter().flatten() {
                match self.output {
                    Format::Json => console::print(&format!("{item}\n"))?,
                    Format::Text => table.add(cells(item)),
                }
            }
            place = match &page["next"] {
                Value::String(next) => Some(next.clone()),
                Value::Number(next) => Some(next.to_string()),
                _ => break,
            };
        }
        if self.output == Format::Text && !table.is_empty() {
            console::print(&table.to_string())?;
        }
        Ok(())
    }
}

/// A text of the API; `-` where it says none.
fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or("-").to_owned()
}

/// What was deleted, and how it comes back.
fn describe_deleted(what: &str, name: &str, deleted: &Value, remedy: &str) -> String {
    let until = text(deleted, "restorable_until");
    format!("deleted {what} {name}; until {until} it comes back with: tidegate {remedy}\n")
}
