//! Checks of files that a configuration names.

use std::fs;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::fault::Problem;

/// What a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// One or more certificates in PEM.
    Certificates,
    /// A private key in PEM.
    PrivateKey,
    /// A password.
    Secret,
    /// A token; what it has to look like is checked elsewhere.
    Token,
}

/// Checks that a file can be read and holds what it is to hold. Never quotes its content.
pub(super) fn check(path: &Path, kind: FileKind) -> Result<(), Problem> {
    let name = path.display();
    let bytes = fs::read(path).map_err(|error| {
        Problem::new(
            format!("\"{name}\" cannot be read: {error}"),
            "name a readable file; relative paths begin at the working directory",
        )
    })?;
    match kind {
        FileKind::Certificates => {
            let is_good =
                CertificateDer::pem_slice_iter(&bytes).try_fold(0, |count, entry| entry.map(|_| count + 1));
            match is_good {
                Ok(1..) => Ok(()),
                _ => Err(Problem::new(
                    format!("\"{name}\" holds no certificate"),
                    "write certificates in PEM into it",
                )),
            }
        }
        FileKind::PrivateKey => PrivateKeyDer::from_pem_slice(&bytes).map(drop).map_err(|_not_quoted| {
            Problem::new(
                format!("\"{name}\" holds no private key"),
                "write an unencrypted private key in PEM into it",
            )
        }),
        FileKind::Secret if bytes.trim_ascii().is_empty() => {
            Err(Problem::new(format!("\"{name}\" is empty"), "write the password into it"))
        }
        FileKind::Secret | FileKind::Token => Ok(()),
    }
}

/// Checks that a path can be a directory of ours: it is one, or nothing is there yet.
pub(super) fn check_directory(path: &Path) -> Result<(), Problem> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            let reason = format!("\"{}\" is not a directory", path.display());
            Err(Problem::new(reason, "name a directory; it is made if it does not exist"))
        }
        _ => Ok(()),
    }
}
