//! `tidegate config`: checks and shows the configuration.

use clap::Subcommand;
use serde_json::json;

use super::{ConfigFile, Failure, Format, console, describe};
use crate::config::{Config, Fault, Faults, Flags, Loaded, Origin};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Validates the configuration; prints every fault with its remedy.
    #[command(after_help = "Example:\n  tidegate config check --config tidegate.toml\n\n\
                            Exit codes: 0 valid, 2 faulty.")]
    Check(ConfigArguments),
    /// Prints the effective configuration as TOML, with the origin of each value and without secrets.
    #[command(after_help = "Example:\n  tidegate config show\n  tidegate config show --output json")]
    Show(ConfigArguments),
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// How to print.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(ConfigArguments { file, output }) => {
            check(&Config::load(&file.into_sources(Flags::default())), output)
        }
        ConfigCommand::Show(ConfigArguments { file, output }) => {
            let settings = Config::load(&file.into_sources(Flags::default()))?.settings;
            match output {
                Format::Text => console::print(&settings.to_toml())?,
                Format::Json => console::print_json(&settings.entries())?,
            }
            Ok(())
        }
    }
}

fn check(result: &Result<Loaded, Faults>, output: Format) -> Result<(), Failure> {
    match (result, output) {
        (Ok(loaded), Format::Text) => {
            let subject = match &loaded.file {
                Some(path) => format!("{} is valid", path.display()),
                None => "there is no file, and the defaults are valid".to_owned(),
            };
            console::print(&format!("{subject}\n"))?;
        }
        (Err(faults), Format::Text) => console::complain(&describe(faults)),
        (result, Format::Json) => {
            let faults: Vec<_> = result.as_ref().err().into_iter().flatten().map(fault_to_json).collect();
            console::print_json(&json!({ "valid": faults.is_empty(), "faults": faults }))?;
        }
    }
    if result.is_ok() { Ok(()) } else { Err(Failure::Reported) }
}

fn fault_to_json(fault: &Fault) -> serde_json::Value {
    let (file, position) = match &fault.origin {
        Origin::File { path, position } => (Some(path.display().to_string()), *position),
        _ => (None, None),
    };
    json!({
        "origin": fault.origin.to_string(),
        "file": file,
        "line": position.map(|position| position.line),
        "column": position.map(|position| position.column),
        "key": fault.key,
        "reason": fault.reason,
        "remedy": fault.remedy,
    })
}
