//! Content that a bundle relies on and that is stored already: whether it is what its name says.

use std::sync::Arc;

use super::ImportError;
use crate::bundle::{Contents, Item};
use crate::registry::FoundBy;
use crate::registry::core::Core;
use crate::registry::integrity::is_whole;

/// How many missing parts of a base are told by their names.
const TOLD_PARTS: usize = 3;

/// Whether an item is stored here, by its name and size.
pub(super) async fn is_here(core: &Core, item: &Item) -> Result<bool, ImportError> {
    Ok(core.blobs.find_size(&item.digest).await? == Some(item.size_bytes))
}

/// Fails where content that is left to the base is not here. What is here is not yet looked into.
pub(super) async fn require_base(core: &Core, contents: &Contents) -> Result<(), ImportError> {
    let Some(base) = &contents.base else { return Ok(()) };
    let mut missing = Vec::new();
    for item in &contents.from_base {
        if !is_here(core, item).await? {
            missing.push(item.digest.to_string());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let count = missing.len();
    missing.truncate(TOLD_PARTS);
    Err(ImportError::BaseMissing {
        file: base.file.clone(),
        id: Box::new(base.id),
        count,
        first: missing.join(", "),
    })
}

/// Fails where content that is left to the base is here, and is not what its name says.
pub(super) async fn require_sound_base(core: &Arc<Core>, contents: &Contents) -> Result<(), ImportError> {
    let Some(base) = &contents.base else { return Ok(()) };
    for item in &contents.from_base {
        if !is_sound(core, item).await? {
            return Err(ImportError::BaseAltered {
                file: base.file.clone(),
                id: Box::new(base.id),
                digest: Box::new(item.digest),
            });
        }
    }
    Ok(())
}

/// Whether a stored item has its digest. One that has another is taken out of service.
pub(super) async fn is_sound(core: &Arc<Core>, item: &Item) -> Result<bool, ImportError> {
    Ok(is_whole(core, &item.digest, item.size_bytes, FoundBy::Import).await?)
}
