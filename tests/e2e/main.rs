//! End to end: real clients pull through Tidegate from a real registry.
//!
//! The upstream is `docker-registry` over fixtures that are made once ([`fixtures`]). The clients are podman,
//! buildah, skopeo, docker and containerd, configured by what `tidegate client-config` prints ([`clients`]). Everything
//! that runs is a child of the test, on ports that the system picks, in directories that are removed.
//!
//! `tests/run e2e` installs what is needed and runs it. Root is needed: the clients are daemons and mount images.
#![expect(clippy::print_stderr, reason = "tests tell what they skip and where they are")]
#![expect(clippy::unnecessary_debug_formatting, reason = "quotes paths the way TOML wants them")]

mod artifacts;
mod bundles;
mod child;
mod clients;
mod fixtures;
mod guarded;
mod http;
mod images;
mod large;
mod listing;
mod pushes;
mod registry;
mod stage;
mod tidegate;
mod token_server;
mod tools;
