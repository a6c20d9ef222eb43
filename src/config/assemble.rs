//! From settings to a [`Config`]: the checks that need more than one value, or the disk.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::fault::{Faults, Origin, Problem};
use super::files::{self, FileKind};
use super::keys::Section;
use super::settings::{Settings, Table};
use super::{
    Config, Freshness, LogFormat, LoggingConfig, MinFree, Prefetch, ScrubConfig, ServerConfig, StorageConfig,
    Timeouts, TlsConfig, UpstreamConfig, assemble_auth, assemble_credentials, assemble_hosted,
    assemble_token, assemble_warm,
};
use crate::oci::Platform;

const UPSTREAM: Section = Section::Upstream;

/// Builds the configuration. `None` only where `faults` says why.
pub(super) fn assemble(settings: &Settings, directory: &Path, faults: &mut Faults) -> Option<Config> {
    let table = &settings.single;
    let server = assemble_server(table, directory, faults);
    let auth = assemble_auth::assemble(table, directory, faults);
    let storage = assemble_storage(table, directory, faults);
    let database = assemble_hosted::assemble_database(table, directory, faults);
    let upstreams = settings
        .upstreams
        .iter()
        .enumerate()
        .map(|(index, table)| {
            Assembly { table, index, directory, site: &settings.single, faults: &mut *faults }.upstream()
        })
        .collect::<Vec<_>>();
    let warm = settings.warm.iter().enumerate();
    let warm: Vec<_> =
        warm.map(|(index, table)| assemble_warm::assemble(index, table, &mut *faults)).collect();
    check_names(settings, faults);
    check_one_default(settings, faults);
    let config = server.zip(storage).zip(table.one(Section::Site, "name")).and_then(
        |((server, storage), site_name)| {
            let (logging, auth) = (assemble_logging(table)?, auth?);
            let upstreams = upstreams.into_iter().collect::<Option<_>>()?;
            let warm = warm.into_iter().collect::<Option<_>>()?;
            let bundle_keys = table.many(Section::Site, "bundle_keys");
            Some(Config { server, auth, storage, database, logging, site_name, bundle_keys, upstreams, warm })
        },
    );
    if config.is_none() && faults.is_empty() {
        let problem = Problem::new("a key has no value", "report this: the table of keys lacks a default");
        faults.push(&Origin::Default, "", problem);
    }
    config
}

fn assemble_server(table: &Table, directory: &Path, faults: &mut Faults) -> Option<ServerConfig> {
    const SERVER: Section = Section::Server;
    let listen = table.many::<SocketAddr>(SERVER, "listen");
    let admin_listen = table.one::<SocketAddr>(SERVER, "admin_listen")?;
    check_listen(table, &listen, admin_listen, faults);
    Some(ServerConfig {
        listen,
        admin_listen,
        admin_token: assemble_token::assemble(table, directory, faults),
        external_url: table.one(SERVER, "external_url"),
        tls: assemble_tls(table, directory, faults),
        max_connections: count(table, SERVER, "max_connections")?,
        header_timeout: table.one(SERVER, "header_timeout")?,
        idle_timeout: table.one(SERVER, "idle_timeout")?,
        write_timeout: table.one(SERVER, "write_timeout")?,
        drain_timeout: table.one(SERVER, "drain_timeout")?,
    })
}

fn count(table: &Table, section: Section, name: &str) -> Option<usize> {
    usize::try_from(table.one::<u64>(section, name)?).ok()
}

fn check_listen(table: &Table, listen: &[SocketAddr], admin: SocketAddr, faults: &mut Faults) {
    let origin = table.origin_of(Section::Server, "listen");
    if listen.is_empty() {
        let problem = Problem::new(
            "there is no address to listen on",
            "write at least one, such as \"127.0.0.1:5000\"",
        );
        faults.push(&origin, "server.listen", problem);
    }
    for (index, address) in listen.iter().enumerate() {
        if let Some(other) = listen[..index].iter().find(|other| collide(**other, *address)) {
            let reason = if other == address {
                format!("{address} stands twice")
            } else {
                format!("{address} and {other} are the same port of one address")
            };
            faults.push(&origin, "server.listen", Problem::new(reason, "remove one, or change its port"));
        }
        if collide(*address, admin) {
            let reason = format!("{admin} is taken by server.listen {address}");
            // The fault belongs to the one that somebody wrote.
            let admin_origin = table.origin_of(Section::Server, "admin_listen");
            let (origin, key) = match admin_origin {
                Origin::Default => (&origin, "server.listen"),
                _ => (&admin_origin, "server.admin_listen"),
            };
            faults.push(origin, key, Problem::new(reason, "give the two different ports"));
        }
    }
}

/// Whether two listeners cannot stand side by side. Port 0 is a free one each time; IPv4 and IPv6
/// are apart.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && same_host
}

fn assemble_tls(table: &Table, directory: &Path, faults: &mut Faults) -> Option<TlsConfig> {
    const TLS: Section = Section::ServerTls;
    let pair = [("certificate", "private_key"), ("private_key", "certificate")];
    for (given, missing) in pair {
        if table.is_given(TLS, given) && !table.is_given(TLS, missing) {
            let reason = format!("{given} is given without {missing}");
            let remedy = format!("add server.tls.{missing}, or remove server.tls for clear text");
            faults.push(
                &table.origin_of(TLS, given),
                format!("server.tls.{given}"),
                Problem::new(reason, remedy),
            );
        }
    }
    let mut file = |name: &str, kind: FileKind| {
        let path = directory.join(table.one::<PathBuf>(TLS, name)?);
        if let Err(problem) = files::check(&path, kind) {
            faults.push(&table.origin_of(TLS, name), format!("server.tls.{name}"), problem);
        }
        Some(path)
    };
    let certificate = file("certificate", FileKind::Certificates);
    let private_key = file("private_key", FileKind::PrivateKey);
    Some(TlsConfig { certificate: certificate?, private_key: private_key? })
}

fn assemble_storage(table: &Table, directory: &Path, faults: &mut Faults) -> Option<StorageConfig> {
    const STORAGE: Section = Section::Storage;
    let path = directory.join(table.one::<PathBuf>(STORAGE, "path")?);
    if let Err(problem) = files::check_directory(&path) {
        faults.push(&table.origin_of(STORAGE, "path"), "storage.path", problem);
    }
    Some(StorageConfig {
        path,
        max_size_bytes: table.one(STORAGE, "max_size")?,
        min_free: MinFree::parse(&table.one::<String>(STORAGE, "min_free")?).ok()?,
        memory_bytes: table.one(STORAGE, "memory")?,
        scrub: ScrubConfig {
            every: table.one(STORAGE, "scrub_every")?,
            rate_bytes: table.one(STORAGE, "scrub_rate")?,
        },
        collection_grace: table.one(STORAGE, "collection_grace")?,
        object_store: assemble_hosted::assemble_store(table, directory, faults),
    })
}

fn assemble_logging(table: &Table) -> Option<LoggingConfig> {
    let format = match table.one::<String>(Section::Logging, "format")?.as_str() {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    };
    Some(LoggingConfig { format, level: table.one(Section::Logging, "level")? })
}

/// One upstream that is being put together.
struct Assembly<'a> {
    table: &'a Table,
    index: usize,
    directory: &'a Path,
    /// What `[site]` says, for upstreams that do not.
    site: &'a Table,
    faults: &'a mut Faults,
}

impl Assembly<'_> {
    fn upstream(mut self) -> Option<UpstreamConfig> {
        let table = self.table;
        self.check_name_and_endpoints();
        let credentials = assemble_credentials::assemble(
            table,
            &format!("upstream[{}]", self.index),
            self.directory,
            self.faults,
        );
        let ca_file = self.file("ca_file", FileKind::Certificates);
        let duration = |name: &str| table.one(UPSTREAM, name);
        Some(UpstreamConfig {
            name: table.one(UPSTREAM, "name")?,
            endpoints: table.many(UPSTREAM, "endpoints"),
            aliases: table.many(UPSTREAM, "aliases"),
            default: table.one(UPSTREAM, "default")?,
            library_prefix: table.one(UPSTREAM, "library_prefix")?,
            offline: table
                .one(UPSTREAM, "offline")
                .or_else(|| self.site.one(Section::Site, "offline"))
                .unwrap_or(false),
            platforms: self.platforms(),
            prefetch: match table.one::<String>(UPSTREAM, "prefetch")?.as_str() {
                "layers" => Prefetch::Layers,
                _ => Prefetch::Off,
            },
            credentials: credentials?,
            ca_file,
            trusted_hosts: table.many(UPSTREAM, "trusted_hosts"),
            allow: table.many(UPSTREAM, "allow"),
            deny: table.many(UPSTREAM, "deny"),
            freshness: Freshness {
                fresh_for: duration("fresh_for")?,
                stale_while_revalidate: duration("stale_while_revalidate")?,
                stale_if_error: duration("stale_if_error")?,
                negative_for: duration("negative_for")?,
                keep_deleted: duration("keep_deleted")?,
                pin_deleted: table.one(UPSTREAM, "pin_deleted")?,
            },
            timeouts: Timeouts {
                connect: duration("connect_timeout")?,
                first_byte: duration("first_byte_timeout")?,
                silence: duration("silence_timeout")?,
                miss: duration("miss_timeout")?,
            },
            max_concurrent_requests: count(table, UPSTREAM, "max_concurrent_requests")?,
        })
    }

    fn platforms(&self) -> Vec<Platform> {
        let own = self.table.find(UPSTREAM, "platforms").is_some();
        let (table, section) = if own { (self.table, UPSTREAM) } else { (self.site, Section::Site) };
        table.many::<String>(section, "platforms").iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn path(&self, key: &str) -> String {
        format!("upstream[{}].{key}", self.index)
    }

    fn fault(&mut self, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let origin = match self.table.origin_of(UPSTREAM, key) {
            Origin::Default => self.table.origin.clone().unwrap_or(Origin::Default),
            origin => origin,
        };
        let path = self.path(key);
        self.faults.push(&origin, path, Problem::new(reason, remedy));
    }

    fn check_name_and_endpoints(&mut self) {
        if !self.table.is_given(UPSTREAM, "name") {
            self.fault("name", "the upstream has no name", "add name, such as name = \"docker.io\"");
        } else if !self.table.is_faulty(UPSTREAM, "endpoints") {
            let endpoints = self.table.many::<http::Uri>(UPSTREAM, "endpoints");
            if endpoints.is_empty() && self.table.find(UPSTREAM, "name").is_some() {
                let remedy = "write at least one URL, or leave the key out for https:// and the name";
                self.fault("endpoints", "there is no endpoint", remedy);
            }
            for (index, endpoint) in endpoints.iter().enumerate() {
                if endpoints[..index].contains(endpoint) {
                    self.fault("endpoints", format!("{endpoint} stands twice"), "remove one");
                }
            }
        }
        if self.table.find(UPSTREAM, "allow").is_some()
            && self.table.many::<String>(UPSTREAM, "allow").is_empty()
        {
            self.fault("allow", "nothing may be pulled", "write at least one glob, such as \"*\"");
        }
    }

    fn file(&mut self, key: &str, kind: FileKind) -> Option<PathBuf> {
        let path = self.directory.join(self.table.one::<PathBuf>(UPSTREAM, key)?);
        if let Err(Problem { reason, remedy }) = files::check(&path, kind) {
            self.fault(key, reason, remedy);
        }
        Some(path)
    }
}

/// No name or alias may mean two upstreams.
fn check_names(settings: &Settings, faults: &mut Faults) {
    let mut seen: Vec<(String, usize)> = Vec::new();
    for (index, table) in settings.upstreams.iter().enumerate() {
        let name = table.one::<String>(UPSTREAM, "name").into_iter().map(|name| ("name", name));
        let aliases = table.many::<String>(UPSTREAM, "aliases").into_iter().map(|alias| ("aliases", alias));
        for (key, name) in name.chain(aliases) {
            match seen.iter().find(|(other, _)| *other == name) {
                Some((_, owner)) => {
                    let reason = if *owner == index {
                        format!("\"{name}\" stands twice")
                    } else {
                        format!("\"{name}\" is already a name of upstream[{owner}]")
                    };
                    let path = format!("upstream[{index}].{key}");
                    faults.push(
                        &table.origin_of(UPSTREAM, key),
                        path,
                        Problem::new(reason, "remove one of them"),
                    );
                }
                None => seen.push((name, index)),
            }
        }
    }
}

fn check_one_default(settings: &Settings, faults: &mut Faults) {
    let is_default = |table: &Table| table.one::<bool>(UPSTREAM, "default") == Some(true);
    let mut defaults = settings.upstreams.iter().enumerate().filter(|(_, table)| is_default(table));
    let Some((first, _)) = defaults.next() else { return };
    for (index, table) in defaults {
        let reason = format!("upstream[{first}] is the default already");
        let path = format!("upstream[{index}].default");
        faults.push(
            &table.origin_of(UPSTREAM, "default"),
            path,
            Problem::new(reason, "mark one upstream only"),
        );
    }
}
