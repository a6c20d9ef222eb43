//! Tidegate: a registry that container clients pull through.
//!
//! The modules stand in layers, lowest first; a module uses lower lines only, and modules on one
//! line do not know each other (`tests/architecture.rs` checks it).
#![doc = include_str!("ARCHITECTURE.md")]

pub mod oci;
pub mod runtime;
// ---
pub mod config;
// ---
pub mod telemetry;
// ---
pub mod blobs;
pub mod bundle;
pub mod events;
pub mod metadata;
pub mod upstream;
// ---
pub mod auth;
// ---
pub mod registry;
// ---
pub mod worker;
// ---
pub mod server;
// ---
pub mod app;
// ---
pub mod cli;
