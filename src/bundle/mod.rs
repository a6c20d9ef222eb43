//! Bundles: content that travels as a file, from a node with a line to one without.
//!
//! A bundle is an OCI image layout in a tar, for other tools to read, with a description of all that it
//! holds in front, for the importing node to check before it believes anything:
//!
//! ```text
//! oci-layout
//! index.json                  the manifests of this bundle, by their full names
//! tidegate/contents.json      what is here: names, digests, sizes, the base of a delta
//! tidegate/contents.sig       a signature of that file, where it says that it is signed
//! blobs/sha256/…              manifests, then blobs, in the order of the description
//! ```
//!
//! The description decides every byte but those of the content, which its digests decide. So a reader
//! compares instead of interpreting: there is no path, no link and no second entry that it could fall for,
//! and half a bundle can be continued where it ends. This module reads and writes the format. What stands
//! behind names, and where content lies, is left to others.

mod contents;
mod error;
mod head;
mod index;
mod key;
mod parser;
mod plan;
mod tar;

pub use contents::{Base, Contents, Image, Item, ItemKind, Referrers, Request, Role};
pub use error::{BundleError, Result};
pub use head::Head;
pub use key::{KeyError, PublicKey, SigningKey};
pub use parser::{BundleParser, Event};
pub use plan::{Plan, add_item};

/// The bytes of the entry of an item before its content.
pub fn item_header(item: &Item) -> Vec<u8> {
    tar::header(&item.path(), item.size_bytes)
}

/// How many zero bytes follow content of this size.
pub const fn padding(size_bytes: u64) -> usize {
    tar::padding(size_bytes)
}

/// How many zero bytes end a bundle.
pub const END_BYTES: usize = 2 * tar::BLOCK;
