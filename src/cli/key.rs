//! `tidegate key`: the key pairs that bundles are signed with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use super::{Failure, console};
use crate::bundle::SigningKey;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Makes a key pair to sign bundles with.
    Create(CreateArguments),
}

/// The arguments of `tidegate key create`.
#[derive(Debug, Args)]
#[command(
    after_help = "The private key goes to FILE, readable by you alone; the public one to FILE.pub, and to standard output.\n\n\
                        Example:\n  \
                        tidegate key create --output bundle.key\n  \
                        tidegate export --sign bundle.key --output images.tar docker.io/library/alpine:3\n  \
                        tidegate import --verify-key bundle.key.pub images.tar"
)]
pub(super) struct CreateArguments {
    /// The file for the private key; it must not exist.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(arguments) => create(&arguments.output),
    }
}

fn create(path: &Path) -> Result<(), Failure> {
    let (key, pem) = SigningKey::generate().map_err(|error| Failure::Failed(error.into()))?;
    let public = format!("{}\n", key.public());
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    write(path, &pem, 0o600).map_err(Failure::Failed)?;
    if let Err(error) = write(&public_path, &public, 0o644) {
        // Half a pair would only stand in the way of the next try.
        let _removed = fs::remove_file(path);
        return Err(Failure::Failed(error));
    }
    Ok(console::print(&public)?)
}

/// Writes a new file, durably: a private key cannot be made again.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let shown = path.display();
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(anyhow!("{shown} exists already: choose another name, or move it away"));
        }
        created => created.with_context(|| format!("create {shown}"))?,
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    });
    written.with_context(|| format!("write {shown}"))
}
