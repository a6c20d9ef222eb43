//! Loading: file, environment and flags become settings, and settings a [`Config`].

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::fault::{Faults, Origin, Problem};
use super::keys::Section;
use super::settings::{Settings, Table, Value};
use super::{Config, UpstreamConfig, assemble, builtin, document, environment};

/// The file that is used where none is named and it exists.
pub const DEFAULT_FILE: &str = "tidegate.toml";

/// Where a configuration comes from. Loading it again reads the files again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that was named; else [`DEFAULT_FILE`] in `directory`, if there is one.
    pub file: Option<PathBuf>,
    /// What relative paths are relative to; empty for the process's working directory.
    pub directory: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The flags of the command line.
    pub flags: Flags,
}

/// Flags that set keys; they win over everything else.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`: `server.listen`, several between commas.
    pub listen: Option<String>,
    /// `--admin-listen`: `server.admin_listen`.
    pub admin_listen: Option<String>,
    /// `--data`: `storage.path`.
    pub data: Option<String>,
}

/// A configuration and where its values come from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The values by key, with their origins.
    pub settings: Settings,
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Loads and checks a configuration; reports every fault at once.
    pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
        let mut faults = Faults::default();
        let mut settings = Settings::default();
        let file = read_file(sources, &mut settings, &mut faults);
        let (config, settings) = Self::resolve(sources, settings, faults)?;
        Ok(Loaded { config, settings, file })
    }

    /// Adds environment, flags and defaults to what the file said, and checks the whole.
    fn resolve(
        sources: &Sources,
        mut settings: Settings,
        mut faults: Faults,
    ) -> Result<(Self, Settings), Faults> {
        let uses_built_in_list = settings.upstreams.is_empty();
        if uses_built_in_list {
            settings.upstreams = builtin::BUILT_IN.iter().map(|known| named(known.name)).collect();
        }
        environment::read(&sources.environment, &mut settings, &mut faults);
        read_flags(&sources.flags, &mut settings, &mut faults);
        fill_known(&mut settings);
        settings.single.fill_defaults(|section| !section.is_list());
        for warm in &mut settings.warm {
            warm.fill_defaults(|section| section == Section::Warm);
        }
        for upstream in &mut settings.upstreams {
            upstream.fill_defaults(|section| section == Section::Upstream);
        }
        let config = assemble::assemble(&settings, &sources.directory, &mut faults);
        faults.sort();
        match config {
            Some(config) if faults.is_empty() => Ok((config, settings)),
            _ => Err(faults),
        }
    }

    /// A configuration for tests: free ports of the loopback address, `data` below `directory`, no
    /// upstream. Reads no file and no environment.
    ///
    /// # Panics
    ///
    /// Panics if `directory` is a file's place.
    pub fn for_test(directory: &Path) -> Self {
        let sources = Sources {
            directory: directory.to_owned(),
            flags: Flags {
                listen: Some("127.0.0.1:0".to_owned()),
                admin_listen: Some("127.0.0.1:0".to_owned()),
                data: Some("data".to_owned()),
            },
            ..Sources::default()
        };
        let resolved = Self::resolve(&sources, Settings::default(), Faults::default());
        let (mut config, _) = resolved.expect("the defaults are valid, as a test shows");
        config.upstreams.clear();
        config
    }
}

impl UpstreamConfig {
    /// An upstream for tests: one endpoint, everything else by default.
    ///
    /// # Panics
    ///
    /// Panics if `name` is no host or `endpoint` no URL.
    pub fn for_test(name: &str, endpoint: &str) -> Self {
        let mut settings = Settings::default();
        let mut table = Table::default();
        set_default(&mut table, "name", name);
        set_default(&mut table, "endpoints", endpoint);
        settings.upstreams.push(table);
        let resolved = Config::resolve(&Sources::default(), settings, Faults::default());
        let (mut config, _) = resolved.expect("name and endpoint are valid");
        config.upstreams.remove(0)
    }
}

/// A table that holds nothing but its name.
fn named(name: &str) -> Table {
    let mut table = Table::default();
    set_default(&mut table, "name", name);
    table
}

/// Reads the file, where there is one; returns its path.
fn read_file(sources: &Sources, settings: &mut Settings, faults: &mut Faults) -> Option<PathBuf> {
    let (path, is_named) = match &sources.file {
        Some(path) => (path.clone(), true),
        None => (PathBuf::from(DEFAULT_FILE), false),
    };
    let fault = |reason: String, remedy: &str, faults: &mut Faults| {
        faults.push(&Origin::File { path: path.clone(), position: None }, "", Problem::new(reason, remedy));
    };
    match fs::read(sources.directory.join(&path)) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => document::read(&path, &text, settings, faults),
            Err(_) => fault("the file is not UTF-8".to_owned(), "save it in UTF-8", faults),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => return None,
        Err(error) => {
            let reason = format!("the file cannot be read: {error}");
            fault(reason, "name an existing, readable file with --config", faults);
        }
    }
    Some(path)
}

fn read_flags(flags: &Flags, settings: &mut Settings, faults: &mut Faults) {
    let given = [
        ("--listen", Section::Server, "listen", &flags.listen),
        ("--admin-listen", Section::Server, "admin_listen", &flags.admin_listen),
        ("--data", Section::Storage, "path", &flags.data),
    ];
    for (flag, section, name, text) in given {
        if let (Some(text), Some(key)) = (text, section.find_key(name)) {
            settings.single.set_text(key, &key.path(), text, Origin::Flag { name: flag }, faults);
        }
    }
}

/// Gives entries of well-known registries the built-in values of keys that they leave out.
///
/// So an entry for `docker.io` that only adds a user keeps its endpoint, its aliases and its
/// `library/`. What another entry claims for itself (an alias, being the default) stays its own.
fn fill_known(settings: &mut Settings) {
    const UPSTREAM: Section = Section::Upstream;
    let is_default = |table: &Table| table.one::<bool>(UPSTREAM, "default") == Some(true);
    let default_is_taken = settings.upstreams.iter().any(is_default);
    let mut claimed: Vec<String> = Vec::new();
    for table in &settings.upstreams {
        claimed.extend(table.one::<String>(UPSTREAM, "name"));
        claimed.extend(table.many::<String>(UPSTREAM, "aliases"));
    }
    for table in &mut settings.upstreams {
        let Some(name) = table.one::<String>(UPSTREAM, "name") else { continue };
        let Some(known) = builtin::find(&name) else {
            set_default(table, "endpoints", &format!("https://{name}"));
            continue;
        };
        let aliases = known.aliases.split(',').filter(|alias| !claimed.iter().any(|name| name == alias));
        let aliases = aliases.collect::<Vec<_>>().join(",");
        set_default(table, "endpoints", known.endpoint);
        set_default(table, "aliases", &aliases);
        set_default(table, "library_prefix", if known.library_prefix { "true" } else { "false" });
        set_default(table, "default", if known.default && !default_is_taken { "true" } else { "false" });
    }
}

/// Sets a key of an upstream that is not given.
fn set_default(table: &mut Table, name: &str, text: &str) {
    if table.is_given(Section::Upstream, name) {
        return;
    }
    if let Some(key) = Section::Upstream.find_key(name)
        && let Ok(value) = Value::parse(key, text)
    {
        table.set(key, value, Origin::Default);
    }
}
