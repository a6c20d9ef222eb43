//! Checks of texts: names, hosts, globs, levels.

use super::fault::Problem;
use super::{MinFree, glob};

/// Anything but nothing.
pub(super) fn not_empty(text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        Err(Problem::new("the text is empty", "write a text, or leave the key out"))
    } else {
        Ok(())
    }
}

/// The URL of an object store.
pub(super) fn object_store(text: &str) -> Result<(), Problem> {
    let bucket = ["s3://", "gs://", "az://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let bucket = bucket.map(|rest| rest.split('/').next().unwrap_or_default());
    match bucket {
        Some(bucket) if !bucket.is_empty() && !text.contains(['?', '#', '@', ' ']) => Ok(()),
        _ => Err(Problem::new(
            format!("\"{text}\" does not name an object store"),
            "write \"s3://BUCKET/PREFIX\", \"gs://BUCKET/PREFIX\" or \"az://CONTAINER/PREFIX\"; PREFIX may be left out",
        )),
    }
}

/// A glob over repository names.
pub(super) fn repository_glob(text: &str) -> Result<(), Problem> {
    glob::check(text)
}

/// A host, perhaps with a port, as it stands in an image's name.
pub(super) fn host(text: &str) -> Result<(), Problem> {
    const REMEDY: &str = "write a host as it stands in image names, such as \"registry.example.com\" or \"registry.example.com:5000\"";
    if text.chars().any(|c| c.is_ascii_uppercase()) {
        let remedy = format!("write \"{}\"", text.to_ascii_lowercase());
        return Err(Problem::new(format!("\"{text}\" has upper-case letters"), remedy));
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_port = |port: &str| !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok();
    if name.split('.').all(is_label) && port.is_none_or(is_port) && text.len() <= 255 {
        Ok(())
    } else {
        Err(Problem::new(format!("\"{text}\" is not a host name"), REMEDY))
    }
}

/// The name of an upstream: a host, but none that would hide a path of the API.
pub(super) fn upstream_name(text: &str) -> Result<(), Problem> {
    if text == "v2" {
        return Err(Problem::new("\"v2\" is the root of the registry API", "choose another name"));
    }
    host(text)
}

/// The part of a credential helper's name after `docker-credential-`.
pub(super) fn credential_helper(text: &str) -> Result<(), Problem> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || !text.chars().all(good) || text.starts_with(['.', '-']) {
        return Err(Problem::new(
            format!("\"{text}\" is not the name of a credential helper"),
            "write what follows docker-credential- in its name, such as \"ecr-login\"",
        ));
    }
    match text.strip_prefix("docker-credential-") {
        Some(rest) => {
            Err(Problem::new(format!("\"{text}\" repeats docker-credential-"), format!("write \"{rest}\"")))
        }
        None => Ok(()),
    }
}

/// A platform that images are made for.
pub(super) fn platform(text: &str) -> Result<(), Problem> {
    check_parsed::<crate::oci::Platform>(text, "a platform")
}

/// A public key as `tidegate key create` prints it. Whether it is a point of the curve shows when it is used.
pub(super) fn bundle_key(text: &str) -> Result<(), Problem> {
    let encoded = text.strip_prefix("ed25519:").unwrap_or_default();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if encoded.len() == 44 && encoded.ends_with('=') && encoded[..43].bytes().all(is_good) {
        return Ok(());
    }
    Err(Problem::new(
        format!("\"{text}\" is not a public key for bundles"),
        "write what `tidegate key create` printed: ed25519: and 44 characters",
    ))
}

/// An image, or a glob over the tags of one.
pub(super) fn image_pattern(text: &str) -> Result<(), Problem> {
    match text.parse::<crate::oci::ImagePattern>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::new(
            format!("\"{text}\" is not an image: {error}"),
            "write it as clients do, such as \"docker.io/library/alpine:3\"; * in the tag stands for any text",
        )),
    }
}

/// A time of the day.
pub(super) fn day_time(text: &str) -> Result<(), Problem> {
    check_parsed::<crate::runtime::DayTime>(text, "a time of the day")
}

/// A part of the day.
pub(super) fn day_window(text: &str) -> Result<(), Problem> {
    check_parsed::<crate::runtime::DayWindow>(text, "a part of the day")
}

fn check_parsed<T>(text: &str, what: &str) -> Result<(), Problem>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let parsed = text.parse::<T>();
    parsed.map(drop).map_err(|error| Problem::new(format!("\"{text}\" is not {what}"), error.to_string()))
}

/// Space that is to stay free on a disk.
pub(super) fn min_free(text: &str) -> Result<(), Problem> {
    MinFree::parse(text).map(drop)
}

/// The name of a site: one DNS label.
pub(super) fn site_name(text: &str) -> Result<(), Problem> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty()
        || text.len() > 63
        || !text.chars().all(good)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        let reason = format!("\"{text}\" is not the name of a site");
        return Err(Problem::new(
            reason,
            "write up to 63 lower-case letters, digits and dashes, such as \"berlin-1\"",
        ));
    }
    Ok(())
}

/// A log level, or levels by module.
///
/// Stricter than the filter's own parser, which takes a misspelt level for a module's name and
/// then logs everything of it.
pub(super) fn log_level(text: &str) -> Result<(), Problem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const REMEDY: &str = "write error, warn, info, debug or trace, or levels by module such as \"info,tidegate::upstream=debug\"";
    for directive in text.split(',') {
        let (module, level) =
            directive.rsplit_once('=').map_or((None, directive), |(m, level)| (Some(m), level));
        let is_module = |module: &str| {
            !module.is_empty() && module.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
        };
        if !LEVELS.contains(&level) {
            return Err(Problem::new(format!("\"{level}\" is not a log level"), REMEDY));
        }
        if !module.is_none_or(is_module) {
            return Err(Problem::new(format!("\"{directive}\" names no module"), REMEDY));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_follow_the_grammar_of_image_names() {
        for good in ["docker.io", "localhost", "corp", "127.0.0.1:5000", "a-b.c:1", "x".repeat(60).as_str()] {
            assert!(upstream_name(good).is_ok(), "{good}");
        }
        for bad in
            ["", "Docker.io", "a/b", "a..b", "-a", "a-", "a:", "a:0", "a:99999", "[::1]:5", "v2", "a_b", "é"]
        {
            assert!(upstream_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        for good in ["info", "off", "info,tidegate::upstream=debug", "tidegate=trace"] {
            assert!(log_level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "INFO", "info,", "=info", "tidegate=loud", "a b=info"] {
            assert!(log_level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_helpers_and_sites_are_plain_words() {
        assert!(credential_helper("ecr-login").is_ok());
        for bad in ["", "../x", "a b", "docker-credential-ecr-login", "-x"] {
            assert!(credential_helper(bad).is_err(), "{bad}");
        }
        assert!(site_name("berlin-1").is_ok());
        for bad in ["", "Berlin", "-a", "a.b", &"a".repeat(64)] {
            assert!(site_name(bad).is_err(), "{bad}");
        }
    }
}
