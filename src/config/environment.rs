//! Environment variables: `TIDEGATE_STORAGE__MAX_SIZE=20GiB`.
//!
//! `TIDEGATE_UPSTREAM__<WHICH>__<KEY>` concerns one upstream of the list in effect: `<WHICH>` is its
//! number from 0, or its name in upper case with `_` for everything that is no letter or digit
//! (`DOCKER_IO`). The number after the last adds an upstream.

use std::ffi::OsString;

use super::fault::{Faults, Origin, Problem};
use super::keys::{KEYS, Key, Section, find_nearest};
use super::settings::{Settings, Table};

/// Variables that other commands read.
const RESERVED: [&str; 3] = ["TIDEGATE_TOKEN", "TIDEGATE_TOKEN_FILE", "TIDEGATE_SERVER"];

const PREFIX: &str = "TIDEGATE_";
const UPSTREAM: &str = "TIDEGATE_UPSTREAM__";

/// Reads the variables into `settings`; the list of upstreams is complete by then.
pub(super) fn read(environment: &[(OsString, OsString)], settings: &mut Settings, faults: &mut Faults) {
    let mut variables: Vec<(&str, &OsString)> = environment
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX) && !RESERVED.contains(name) && !is_service_link(name))
        .collect();
    // Upstreams are added in the order of their numbers; the rest is for steady messages.
    variables.sort_by_key(|(name, _)| (upstream_number(name), *name));
    for (variable, value) in variables {
        let origin = Origin::Environment { variable: variable.to_owned() };
        let Some(text) = value.to_str() else {
            faults.push(&origin, "", Problem::new("the value is not UTF-8", "write it in UTF-8"));
            continue;
        };
        if let Some(rest) = variable.strip_prefix(UPSTREAM) {
            read_upstream(rest, text, &origin, &mut settings.upstreams, faults);
        } else if let Some(key) = KEYS.iter().find(|key| !key.section.is_list() && key.variable() == variable)
        {
            settings.single.set_text(key, &key.path(), text, origin, faults);
        } else {
            faults.push(&origin, "", unknown(variable));
        }
    }
}

/// Whether Kubernetes made the variable for a service whose name begins with `tidegate`: every
/// container of the namespace gets `TIDEGATE_SERVICE_HOST`, `TIDEGATE_PORT_5000_TCP_ADDR` and so on.
fn is_service_link(name: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let ends_in_service = name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT");
    let is_port =
        name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    ends_in_service || name.contains("_SERVICE_PORT_") || name.ends_with("_PORT") || is_port
}

fn upstream_number(name: &str) -> usize {
    let which = name.strip_prefix(UPSTREAM).and_then(|rest| rest.split_once("__"));
    which.and_then(|(which, _)| which.parse().ok()).unwrap_or(0)
}

fn unknown(variable: &str) -> Problem {
    let known = KEYS.iter().filter(|key| !key.section.is_list()).map(Key::variable);
    if variable.starts_with("TIDEGATE_WARM__") {
        let remedy = "write [[warm]] in the configuration file";
        return Problem::new("what is to be warmed cannot be set by variables", remedy);
    }
    let remedy = match find_nearest(variable, known) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "unset it: variables are called TIDEGATE_SECTION__KEY".to_owned(),
    };
    Problem::new("unknown variable", remedy)
}

/// A name as it stands in a variable.
pub(super) fn spell_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn read_upstream(rest: &str, text: &str, origin: &Origin, upstreams: &mut Vec<Table>, faults: &mut Faults) {
    // Names may hold "__" (`a--b`), keys do not.
    let Some((which, name)) = rest.rsplit_once("__") else {
        let remedy = "write TIDEGATE_UPSTREAM__<NAME>__<KEY>, such as TIDEGATE_UPSTREAM__DOCKER_IO__USERNAME";
        return faults.push(origin, "upstream", Problem::new("the variable names no upstream", remedy));
    };
    let key = Section::Upstream.keys().find(|key| key.name.to_ascii_uppercase() == name);
    if name == "CREDENTIALS" {
        let remedy =
            "write credentials in the configuration file; USERNAME and PASSWORD_FILE set a single one";
        let problem = Problem::new("several credentials cannot be set by variables", remedy);
        return faults.push(origin, "upstream", problem);
    }
    let Some(key) = key else {
        let names = Section::Upstream.keys().map(|key| key.name.to_ascii_uppercase());
        let remedy = match find_nearest(name, names.clone()) {
            Some(nearest) => format!("did you mean {UPSTREAM}{which}__{nearest}?"),
            None => format!("the keys are {}", names.collect::<Vec<_>>().join(", ")),
        };
        return faults.push(origin, "upstream", Problem::new("unknown variable", remedy));
    };
    match find_upstream(which, upstreams) {
        Ok(index) => {
            if index == upstreams.len() {
                upstreams.push(Table::starting_at(origin.clone()));
            }
            let path = format!("upstream[{index}].{}", key.name);
            upstreams[index].set_text(key, &path, text, origin.clone(), faults);
        }
        Err(problem) => faults.push(origin, "upstream", problem),
    }
}

/// The index of the upstream that a variable means; the length of the list for a new one.
fn find_upstream(which: &str, upstreams: &[Table]) -> Result<usize, Problem> {
    if let Ok(index) = which.parse::<usize>() {
        let count = upstreams.len();
        return if index <= count {
            Ok(index)
        } else {
            let reason = format!("there is no upstream number {index}");
            Err(Problem::new(reason, format!("the numbers go from 0; {count} adds one")))
        };
    }
    let names: Vec<String> = upstreams
        .iter()
        .map(|table| {
            table.one::<String>(Section::Upstream, "name").map_or_else(String::new, |name| spell_name(&name))
        })
        .collect();
    let mut found = names.iter().enumerate().filter(|(_, name)| *name == which).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(one), Some(other)) => {
            let reason = format!("{which} is the name of upstream {one} and of upstream {other}");
            Err(Problem::new(reason, "use the number"))
        }
        (None, _) => {
            let remedy = match find_nearest(which, names.iter()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("the names are {}", names.join(", ")),
            };
            Err(Problem::new(format!("there is no upstream {which}"), remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_links_of_kubernetes_are_no_settings() {
        for link in [
            "TIDEGATE_SERVICE_HOST",
            "TIDEGATE_SERVICE_PORT",
            "TIDEGATE_SERVICE_PORT_HTTP",
            "TIDEGATE_PORT",
            "TIDEGATE_PORT_5000_TCP",
            "TIDEGATE_PORT_5000_TCP_ADDR",
            "TIDEGATE_ADMIN_SERVICE_HOST",
            "TIDEGATE_ADMIN_PORT_5001_TCP_PROTO",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        for other in ["TIDEGATE_STORAGE__MAX_SIZE", "TIDEGATE_MAX_SIZE", "TIDEGATE_SERVER__PORT"] {
            assert!(!is_service_link(other), "{other}");
        }
    }
}
