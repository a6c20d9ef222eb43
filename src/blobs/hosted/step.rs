//! The steps of a blob's way from a client to the store, and out of it again, in one place, and who is told of them.
//!
//! A test that is told can have a step fail, or the process end before it. Nobody else is told, which costs a
//! comparison with nothing.

use std::fmt;
use std::io;
use std::sync::Arc;

/// What is about to happen to a blob, in this order. Not every blob takes every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Bytes are written to the upload's file.
    Append,
    /// What was written is made durable, before it is acknowledged.
    SyncUpload,
    /// The name of the upload's file is made durable.
    SyncUploads,
    /// The digest is compared with the one announced.
    Verify,
    /// The whole content is made durable.
    SyncContent,
    /// The file gets the name that content is found by.
    Rename,
    /// That name is made durable.
    SyncDirectory,
    /// An object store is told that parts come.
    BeginParts,
    /// A part is sent to an object store; small content is one part.
    SendPart,
    /// An object store is told to make one object of the parts.
    CompleteParts,
    /// An object store is asked what it has.
    Confirm,
    /// The content is durable, and its put returns.
    Acknowledge,
    /// The catalogue is told of a change.
    Commit,
    /// The catalogue has the change, and it is acknowledged.
    Committed,
    /// A collection goes on: nobody else collects.
    Proceed,
    /// The content is removed, which the catalogue gives to nobody any more.
    RemoveContent,
    /// The catalogue forgets content that is removed.
    ForgetContent,
    /// The file of an upload is removed that nothing came for.
    RemoveUpload,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 18] = [
        Self::Append,
        Self::SyncUpload,
        Self::SyncUploads,
        Self::Verify,
        Self::SyncContent,
        Self::Rename,
        Self::SyncDirectory,
        Self::BeginParts,
        Self::SendPart,
        Self::CompleteParts,
        Self::Confirm,
        Self::Acknowledge,
        Self::Commit,
        Self::Committed,
        Self::Proceed,
        Self::RemoveContent,
        Self::ForgetContent,
        Self::RemoveUpload,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::SyncUpload => "sync_upload",
            Self::SyncUploads => "sync_uploads",
            Self::Verify => "verify",
            Self::SyncContent => "sync_content",
            Self::Rename => "rename",
            Self::SyncDirectory => "sync_directory",
            Self::BeginParts => "begin_parts",
            Self::SendPart => "send_part",
            Self::CompleteParts => "complete_parts",
            Self::Confirm => "confirm",
            Self::Acknowledge => "acknowledge",
            Self::Commit => "commit",
            Self::Committed => "committed",
            Self::Proceed => "proceed",
            Self::RemoveContent => "remove_content",
            Self::ForgetContent => "forget_content",
            Self::RemoveUpload => "remove_upload",
        }
    }
}

/// Is told of every step before it is taken.
pub trait Witness: fmt::Debug + Send + Sync {
    /// Hears that a step is about to be taken. An error is taken for an error of that step.
    fn reach(&self, step: Step) -> io::Result<()>;
}

/// Whom to tell. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub struct Steps(Option<Arc<dyn Witness>>);

impl Steps {
    /// Tells a witness.
    pub fn seen_by(witness: Arc<dyn Witness>) -> Self {
        Self(Some(witness))
    }

    /// Tells that a step is about to be taken.
    pub(crate) fn reach(&self, step: Step) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |witness| witness.reach(step))
    }
}
