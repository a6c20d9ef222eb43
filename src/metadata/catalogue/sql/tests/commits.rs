//! Who is told that a transaction is about to be committed: a test that is the only one in its process, and has it end
//! there.

use std::sync::OnceLock;

/// Is told of every commit of this process.
pub(crate) type Witness = Box<dyn Fn() + Send + Sync>;

static WITNESS: OnceLock<Witness> = OnceLock::new();

/// Has somebody told of every commit from now on.
pub(crate) fn tell(witness: Witness) {
    assert!(WITNESS.set(witness).is_ok(), "somebody is told already");
}

/// Tells that all changes of a transaction are made, and that it is about to be committed.
pub(in crate::metadata::catalogue::sql) fn reach() {
    if let Some(witness) = WITNESS.get() {
        witness();
    }
}
