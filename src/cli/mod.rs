//! The command line: arguments in, an exit code out. One file a command.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or configuration. Data goes to standard output; faults,
//! with their remedies, to standard error.

mod admin_client;
mod cache;
mod client_config;
mod configuration;
mod console;
mod export;
mod hosted;
mod import;
mod key;
mod meter;
mod serve;
mod table;
mod warm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Faults, Flags, Sources};

/// A container registry that clients pull through: a transparent cache of upstream registries.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a command, the server runs.\n\n\
                  Example:\n  \
                  tidegate --listen 0.0.0.0:5000 --data /var/lib/tidegate\n  \
                  tidegate client-config podman --url http://127.0.0.1:5000\n\n\
                  Exit codes: 0 done, 1 failed, 2 bad usage or configuration."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server (also the default).
    Serve(serve::ServeArguments),
    /// Checks or shows the configuration.
    #[command(subcommand)]
    Config(configuration::ConfigCommand),
    /// Prints the finished configuration for a client to use this server as a mirror.
    ClientConfig(client_config::ClientConfigArguments),
    /// Looks at what a running server has cached, verifies and purges it.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Writes images to a bundle, a file that another server imports.
    Export(export::ExportArguments),
    /// Has a running server take a bundle in.
    Import(import::ImportArguments),
    /// Makes keys to sign bundles with.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Has a running server fetch images ahead of time, whole.
    Warm(warm::WarmArguments),
    /// Manages the namespaces that a running server hosts, and what they allow.
    #[command(subcommand)]
    Namespace(hosted::NamespaceCommand),
    /// Lists, deletes and restores hosted repositories.
    #[command(subcommand)]
    Repository(hosted::RepositoryCommand),
    /// Shows what hosted tags were, deletes and restores them.
    #[command(subcommand)]
    Tag(hosted::TagCommand),
    /// Deletes the hosted tags that the rules of their namespaces say are to go.
    Prune(hosted::PruneArguments),
    /// Removes hosted content that nobody needs any more.
    Collect(hosted::CollectArguments),
    /// Compares everything that a running server hosts with its digests.
    Verify(hosted::VerifyArguments),
}

/// The file that a configuration comes from.
#[derive(Clone, Debug, Default, clap::Args)]
struct ConfigFile {
    /// The configuration file [default: tidegate.toml in the working directory, if there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// The sources of a configuration: this file, the process's environment, and flags.
    fn into_sources(self, flags: Flags) -> Sources {
        Sources {
            file: self.config,
            directory: PathBuf::new(),
            environment: std::env::vars_os().collect(),
            flags,
        }
    }
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Reads a number of bytes a second.
fn parse_rate(text: &str) -> Result<u64, String> {
    let bytes = crate::config::parse_size(text)?;
    if bytes == 0 { Err("0 never ends: leave it out".to_owned()) } else { Ok(bytes) }
}

/// Why a command did not do what it was told.
#[derive(Debug)]
enum Failure {
    /// Exit code 1: it tried and failed.
    Failed(anyhow::Error),
    /// Exit code 2: it was called wrongly.
    Usage(anyhow::Error),
    /// Exit code 2: the configuration has faults.
    Configuration(Faults),
    /// Exit code 2: faults that the command has printed itself.
    Reported,
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(anyhow::Error::new(error).context("write to standard output"))
    }
}

/// Runs the command that `args` (the program's name first) say, to its end.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Also help and version, which are no errors and go to standard output.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match arguments.command {
        None => serve::run(arguments.serve),
        Some(Command::Serve(serve)) => serve::run(serve),
        Some(Command::Config(command)) => configuration::run(command),
        Some(Command::ClientConfig(arguments)) => client_config::run(arguments),
        Some(Command::Cache(command)) => cache::run(&command),
        Some(Command::Export(arguments)) => export::run(&arguments),
        Some(Command::Import(arguments)) => import::run(&arguments),
        Some(Command::Key(command)) => key::run(command),
        Some(Command::Warm(arguments)) => warm::run(&arguments),
        Some(Command::Namespace(command)) => hosted::run_namespace(&command),
        Some(Command::Repository(command)) => hosted::run_repository(&command),
        Some(Command::Tag(command)) => hosted::run_tag(&command),
        Some(Command::Prune(arguments)) => hosted::run_prune(&arguments),
        Some(Command::Collect(arguments)) => hosted::run_collect(&arguments),
        Some(Command::Verify(arguments)) => hosted::run_verify(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Failed(error) => {
            console::complain(&format!("error: {error:#}"));
            ExitCode::from(1)
        }
        Failure::Usage(error) => {
            console::complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
        Failure::Configuration(faults) => {
            console::complain(&describe(faults));
            ExitCode::from(2)
        }
        Failure::Reported => ExitCode::from(2),
    }
}

/// All faults, and how many they are.
fn describe(faults: &Faults) -> String {
    let count = faults.len();
    let noun = if count == 1 { "fault" } else { "faults" };
    format!("{faults}\nerror: {count} {noun} in the configuration")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Arguments {
        Arguments::try_parse_from(std::iter::once(&"tidegate").chain(args)).unwrap()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_stand_with_and_without_its_name() {
        let flags =
            ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:1", "--data", "d", "--config", "c"];
        let without = parse(&flags).serve;
        let Some(Command::Serve(with)) = parse(&[&["serve"], &flags[..]].concat()).command else {
            panic!("serve is a command")
        };
        assert_eq!(format!("{without:?}"), format!("{with:?}"));
        assert!(format!("{with:?}").contains("127.0.0.1:1"));
    }

    #[test]
    fn every_command_shows_an_example_in_its_help() {
        fn check(command: &mut clap::Command) {
            let has_children = command.has_subcommands();
            let help = command.render_help().to_string();
            assert!(has_children || help.contains("Example:\n  tidegate "), "{help}");
            for child in command.get_subcommands_mut().filter(|child| child.get_name() != "help") {
                check(child);
            }
        }
        let mut command = Arguments::command();
        assert!(command.render_help().to_string().contains("Example:\n"));
        command.build();
        check(&mut command);
    }
}
