//! The service, from outside: the real program, over real sockets, against an upstream that does
//! what a script says. Names with `item_` carry the number of a fact about real clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tasks of a test end with its runtime")]

mod client;
mod content;
mod harness;
mod upstream;
#[path = "upstream/tests.rs"]
mod upstream_tests;

mod admin;
mod blobs;
mod bundles;
mod cache;
mod claims;
mod clock_steps;
mod deleted;
mod discovery;
mod disk;
mod disk_faults;
mod eviction;
mod faults;
mod fill;
mod freshness;
mod guard;
mod hosted;
mod hosted_management;
mod images;
mod integrity;
mod lifecycle;
mod manifests;
mod offline;
mod openapi;
mod operations;
mod outages;
mod pins;
mod power_cut;
mod prefetch;
mod protocol;
mod ranges;
mod rights;
mod routing;
mod scarce_threads;
mod stopped;
mod throttling;
mod tokens;
mod warm;
mod warm_command;
