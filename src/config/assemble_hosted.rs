//! Where hosted content is kept: `storage.object_store` and `[metadata]`.

use std::path::{Path, PathBuf};

use super::fault::{Faults, Problem};
use super::files::{self, FileKind};
use super::keys::Section;
use super::settings::Table;
use super::{DatabaseConfig, HostedStoreConfig, ObjectStoreConfig, Secret, assemble_secret};

const STORE: Section = Section::ObjectStore;
const METADATA: Section = Section::Metadata;

/// The keys of the section that are options of the store's library, and its names for them.
const OPTIONS: [(&str, &str); 3] =
    [("region", "region"), ("access_key_id", "access_key_id"), ("account_name", "account_name")];

/// Which keys belong to which kind of store only.
const OF_ONE_KIND: [(&str, &[&str]); 3] = [
    ("s3://", &["region", "access_key_id", "secret_access_key", "secret_access_key_file"]),
    ("gs://", &["service_account_file"]),
    ("az://", &["account_name", "account_key", "account_key_file"]),
];

/// The store of hosted blobs. `None` where none is configured, or where `faults` says why.
pub(super) fn assemble_store(
    table: &Table,
    directory: &Path,
    faults: &mut Faults,
) -> Option<HostedStoreConfig> {
    let mut store = Store { table, directory, faults };
    let Some(url) = table.one::<String>(STORE, "url") else {
        store.require_url();
        return None;
    };
    store.refuse_keys_of_other_kinds(&url);
    let options = store.options(&url);
    let ca_file = store.file("ca_file", FileKind::Certificates);
    Some(HostedStoreConfig {
        store: ObjectStoreConfig { url, options },
        ca_file,
        reads_back: table.one::<String>(STORE, "confirm")? == "content",
        redirects: table.one(STORE, "redirect")?,
    })
}

/// The database. `None` where none is configured, or where `faults` says why.
pub(super) fn assemble_database(
    table: &Table,
    directory: &Path,
    faults: &mut Faults,
) -> Option<DatabaseConfig> {
    let keys = ["url", "url_file"];
    let url = assemble_secret::assemble(table, METADATA, keys, directory, check_database, faults)?;
    let max_connections = u32::try_from(table.one::<u64>(METADATA, "max_connections")?).ok()?;
    Some(DatabaseConfig { url, max_connections })
}

/// Checks the address of a database, and quotes nothing of it: it has a password.
fn check_database(url: &str) -> Result<(), Problem> {
    const REMEDY: &str = "write \"postgres://USER:PASSWORD@HOST:PORT/DATABASE\", with percent codes for / and @ in the \
        password; a file, named by metadata.url_file, keeps it out of the configuration";
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(()),
        _ => Err(Problem::new("that is not the URL of a PostgreSQL database", REMEDY)),
    }
}

struct Store<'a> {
    table: &'a Table,
    directory: &'a Path,
    faults: &'a mut Faults,
}

impl Store<'_> {
    fn fault(&mut self, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let origin = self.table.origin_of(STORE, key);
        self.faults.push(&origin, format!("{}.{key}", STORE.path()), Problem::new(reason, remedy));
    }

    /// Without a URL, nothing may be said of a store, but for what is said by itself (`config show` writes it).
    fn require_url(&mut self) {
        if self.table.is_given(STORE, "url") {
            return;
        }
        let mut own = STORE.keys().filter(|key| key.default.is_none()).map(|key| key.name);
        if let Some(key) = own.find(|key| self.table.is_given(STORE, key)) {
            let remedy = "add storage.object_store.url, or remove storage.object_store: blobs are then kept under storage.path";
            self.fault(key, "there is no url that it belongs to", remedy);
        }
    }

    fn refuse_keys_of_other_kinds(&mut self, url: &str) {
        for (scheme, keys) in OF_ONE_KIND.into_iter().filter(|(scheme, _)| !url.starts_with(scheme)) {
            for key in keys {
                if self.table.is_given(STORE, key) {
                    self.fault(key, format!("it is for stores whose url begins with {scheme}"), "remove it");
                }
            }
        }
    }

    fn options(&mut self, url: &str) -> Vec<(String, Secret)> {
        let mut options = Vec::new();
        let mut add = |name: &str, value: String| options.push((name.to_owned(), Secret::new(value)));
        for (key, name) in OPTIONS {
            if let Some(value) = self.table.one::<String>(STORE, key) {
                add(name, value);
            }
        }
        if let Some(endpoint) = self.table.one::<http::Uri>(STORE, "endpoint") {
            if endpoint.scheme_str() == Some("http") {
                add("allow_http", "true".to_owned());
            }
            let name = if url.starts_with("gs://") { "base_url" } else { "endpoint" };
            add(name, endpoint.to_string().trim_end_matches('/').to_owned());
        }
        for keys in [["secret_access_key", "secret_access_key_file"], ["account_key", "account_key_file"]] {
            let secret =
                assemble_secret::assemble(self.table, STORE, keys, self.directory, |_| Ok(()), self.faults);
            options.extend(secret.map(|secret| (keys[0].to_owned(), secret)));
        }
        if let Some(path) = self.file("service_account_file", FileKind::Secret) {
            options.push(("service_account_path".to_owned(), Secret::new(path.display().to_string())));
        }
        for option in self.table.many::<Secret>(STORE, "options") {
            match option.expose().split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    options.push((name.trim().to_ascii_lowercase(), Secret::new(value.trim())));
                }
                _ => self.fault("options", "an option has no name", "write each as \"NAME=VALUE\""),
            }
        }
        options
    }

    fn file(&mut self, key: &str, kind: FileKind) -> Option<PathBuf> {
        let path = self.directory.join(self.table.one::<PathBuf>(STORE, key)?);
        if let Err(Problem { reason, remedy }) = files::check(&path, kind) {
            self.fault(key, reason, remedy);
        }
        Some(path)
    }
}
