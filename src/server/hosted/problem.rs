//! From an error of the use cases to what a client is told.

use http::StatusCode as Status;
use http::header::{LOCATION, RANGE};

use super::Call;
use super::uploads::upload_range;
use crate::blobs::BlobError;
use crate::blobs::hosted::{HostedError, UploadError};
use crate::metadata::catalogue::CatalogueError;
use crate::oci::ErrorCode as Code;
use crate::registry::hosted::HostingError;
use crate::server::respond::{Extra, Problem, chain_of, of_store};
use crate::server::route::{Operation, Target};

impl Call<'_> {
    /// What the client is told of an error: beyond [`problem_of`], where its upload goes on.
    #[expect(clippy::needless_pass_by_value, reason = "map_err gives it")]
    pub(super) fn problem(&self, error: HostingError) -> Problem {
        if let HostingError::Refused(refused) = error {
            return self.gate.refuse(refused, self.parts, self.route);
        }
        let problem = problem_of(&error);
        let offset_bytes = match error {
            HostingError::Upload(UploadError::OutOfOrder { offset_bytes })
            | HostingError::Catalogue(CatalogueError::UploadElsewhere { offset_bytes }) => offset_bytes,
            HostingError::Catalogue(CatalogueError::BlobUnknown(_) | CatalogueError::ChildUnknown(_))
                if matches!(self.operation(), Some(Operation::PushManifest(_))) =>
            {
                return Problem { status: Status::BAD_REQUEST, code: Code::ManifestBlobUnknown, ..problem };
            }
            _ => return problem,
        };
        // OCI distribution specification, "Pushing a blob in chunks".
        let mut headers = vec![(RANGE, upload_range(offset_bytes))];
        headers.extend(self.operation().and_then(|here| Some((LOCATION, self.location(here).ok()?))));
        Problem { extra: Extra::Headers(headers), ..problem }
    }

    const fn operation(&self) -> Option<&Operation> {
        match &self.route.target {
            Target::Repository { operation, .. } => Some(operation),
            Target::Base { .. } | Target::Catalog | Target::Token => None,
        }
    }
}

/// What a client is told of an error.
pub(in crate::server) fn problem_of(error: &HostingError) -> Problem {
    let client = |status, code, class| Problem::new(status, code, class, error.to_string());
    match error {
        HostingError::Refused(_) => client(Status::UNAUTHORIZED, Code::Unauthorized, "refused"),
        HostingError::Catalogue(fault) => of_catalogue(fault),
        HostingError::Upload(fault) => of_upload(fault),
        HostingError::Store(HostedError::Disk(fault)) => of_disk(fault),
        HostingError::Store(fault) => {
            of_store("store", fault.is_transient(), "this server's object store failed").with_causes(error)
        }
        HostingError::Cache(fault) => Problem::from(fault.clone()),
        HostingError::Manifest(_) => client(Status::BAD_REQUEST, Code::ManifestInvalid, "manifest"),
        HostingError::ManifestTooLarge { .. } => {
            client(Status::PAYLOAD_TOO_LARGE, Code::SizeInvalid, "manifest")
        }
        HostingError::SizeContradicted { .. } => {
            client(Status::BAD_REQUEST, Code::ManifestInvalid, "manifest")
        }
        HostingError::DigestMismatch { .. } => client(Status::BAD_REQUEST, Code::DigestInvalid, "digest"),
        HostingError::LengthContradicted { .. } => client(Status::BAD_REQUEST, Code::SizeInvalid, "upload"),
        HostingError::Body(_) => client(Status::BAD_REQUEST, Code::BlobUploadInvalid, "cut"),
        HostingError::Immutable { .. } => client(Status::CONFLICT, Code::Denied, "immutable"),
        HostingError::Deleted { .. } | HostingError::Gone { .. } => {
            client(Status::NOT_FOUND, Code::ManifestUnknown, "deleted")
        }
        HostingError::Conflict(_) => client(Status::CONFLICT, Code::Denied, "conflict"),
        HostingError::CollectionFailed(_) => Problem::internal(chain_of(error)),
        HostingError::ContentMissing(_) => Problem::lost().with_causes(error),
        HostingError::Invalid(_) => client(Status::BAD_REQUEST, Code::Unsupported, "invalid"),
    }
}

fn of_catalogue(fault: &CatalogueError) -> Problem {
    let client = |status, code| Problem::new(status, code, "absent", fault.to_string());
    match fault {
        CatalogueError::NamespaceUnknown
        | CatalogueError::RepositoryUnknown
        | CatalogueError::AccountUnknown => client(Status::NOT_FOUND, Code::NameUnknown),
        CatalogueError::ManifestUnknown | CatalogueError::TagUnknown => {
            client(Status::NOT_FOUND, Code::ManifestUnknown)
        }
        CatalogueError::BlobUnknown(_) | CatalogueError::ChildUnknown(_) => {
            client(Status::NOT_FOUND, Code::BlobUnknown)
        }
        CatalogueError::TagImmutable(_) => client(Status::CONFLICT, Code::Denied),
        CatalogueError::UploadUnknown => client(Status::NOT_FOUND, Code::BlobUploadUnknown),
        CatalogueError::UploadElsewhere { .. } => {
            Problem::new(Status::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, "upload", fault.to_string())
        }
        CatalogueError::BlobLeaving(_) => {
            of_store("leaving", true, "the blob is just being removed: push it again in a moment")
        }
        CatalogueError::SizeContradicted(_) => {
            of_store("catalogue", false, "the blob is known with another size").with_causes(fault)
        }
        CatalogueError::Store(cause) => {
            of_store("catalogue", cause.is_transient(), "this server's catalogue failed").with_causes(fault)
        }
    }
}

fn of_upload(fault: &UploadError) -> Problem {
    let client = |status, code| Problem::new(status, code, "upload", fault.to_string());
    match fault {
        UploadError::Unknown => client(Status::NOT_FOUND, Code::BlobUploadUnknown),
        UploadError::Busy => of_store("busy", true, "another request is at this upload"),
        UploadError::OutOfOrder { .. } => client(Status::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
        UploadError::TooLarge { .. } => client(Status::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
        UploadError::DigestMismatch { .. } => client(Status::BAD_REQUEST, Code::DigestInvalid),
        UploadError::Disk(fault) => of_disk(fault),
    }
}

fn of_disk(fault: &BlobError) -> Problem {
    let is_full = matches!(fault, BlobError::Full { .. });
    of_store("blobs", is_full, "this server's disk failed").with_causes(fault)
}
