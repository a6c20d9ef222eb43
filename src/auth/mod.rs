//! Who asks, and what they may do.
//!
//! A cache of upstreams serves anybody: reading is allowed, writing is not. Accounts and permissions
//! join here; every use case already takes a [`RequestContext`] and asks [`policy`].

mod context;
pub mod policy;

pub use context::{Actor, RequestContext, RequestId};
