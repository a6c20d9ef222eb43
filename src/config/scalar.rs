//! Values of keys: what a text may be, and what it then is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::Problem;
use super::{Secret, quantity};

/// What a key's value (or each element of its list) is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// Any text that its check lets pass.
    Text(fn(&str) -> Result<(), Problem>),
    /// One of a closed set of words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A number, at least this.
    Count(u64),
    /// Bytes, at least this.
    Size(u64),
    /// A span of time, at least this.
    Duration(Duration),
    /// An IP address and a port.
    Address,
    /// Scheme, host, port and perhaps a path of an HTTP service.
    Url,
    /// A file or directory.
    Path,
    /// A text that never prints.
    Secret,
    /// A key that this version knows of but cannot honour; the text is the remedy.
    Unsupported(&'static str),
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Text(String),
    Flag(bool),
    Count(u64),
    Size(u64),
    Duration(Duration),
    Address(SocketAddr),
    Url(http::Uri),
    Path(PathBuf),
    Secret(Secret),
}

impl Item {
    /// The TOML type and an example, for the fault that a value of another type gets.
    pub(super) const fn expects(&self) -> (&'static str, &'static str) {
        match self {
            Self::Text(_) | Self::Choice(_) | Self::Path | Self::Secret => ("string", "\"text\""),
            Self::Flag => ("boolean", "true or false"),
            Self::Count(_) => ("integer", "a plain number such as 100"),
            Self::Size(_) => ("string", "a number and a unit such as \"10GiB\""),
            Self::Duration(_) => ("string", "a number and a unit such as \"30s\""),
            Self::Address => ("string", "an address such as \"127.0.0.1:5000\""),
            Self::Url => ("string", "a URL such as \"https://registry.example.com\""),
            Self::Unsupported(_) => ("nothing", "nothing"),
        }
    }

    /// Parses the text of a value, as it stands in a variable, a flag or a TOML string.
    pub(super) fn parse(&self, text: &str) -> Result<Scalar, Problem> {
        match self {
            Self::Text(check) => check(text).map(|()| Scalar::Text(text.to_owned())),
            Self::Choice(words) => parse_choice(words, text),
            Self::Flag => match text {
                "true" => Ok(Scalar::Flag(true)),
                "false" => Ok(Scalar::Flag(false)),
                _ => {
                    Err(Problem::new(format!("\"{text}\" is neither true nor false"), "write true or false"))
                }
            },
            Self::Count(least) => parse_count(text, *least),
            Self::Size(least) => {
                let bytes = quantity::parse_size(text)?;
                let limit = || quantity::format_size(*least);
                if bytes < *least { Err(too_small(text, &limit())) } else { Ok(Scalar::Size(bytes)) }
            }
            Self::Duration(least) => {
                let duration = quantity::parse_duration(text)?;
                let limit = || quantity::format_duration(*least);
                if duration < *least {
                    Err(too_small(text, &limit()))
                } else {
                    Ok(Scalar::Duration(duration))
                }
            }
            Self::Address => parse_address(text),
            Self::Url => parse_url(text).map(Scalar::Url),
            Self::Path if text.is_empty() => {
                Err(Problem::new("the path is empty", "name a file or directory"))
            }
            Self::Path => Ok(Scalar::Path(PathBuf::from(text))),
            Self::Secret if text.is_empty() => Err(Problem::new(
                "the secret is empty",
                "write it, or name a file that holds it with the key …_file",
            )),
            Self::Secret => Ok(Scalar::Secret(Secret::new(text))),
            Self::Unsupported(remedy) => Err(Problem::new("not supported by this version", *remedy)),
        }
    }
}

fn too_small(text: &str, limit: &str) -> Problem {
    Problem::new(format!("\"{text}\" is too small"), format!("write at least \"{limit}\""))
}

fn parse_choice(words: &[&str], text: &str) -> Result<Scalar, Problem> {
    if words.contains(&text) {
        return Ok(Scalar::Text(text.to_owned()));
    }
    let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    Err(Problem::new(format!("\"{text}\" is not a choice here"), format!("write {list}")))
}

fn parse_count(text: &str, least: u64) -> Result<Scalar, Problem> {
    // `usize` is what counts are used as; the limit is the same on every platform.
    const MOST: u64 = u32::MAX as u64;
    let remedy = || format!("write a whole number from {least} to {MOST}");
    match text.replace('_', "").parse::<u64>() {
        Ok(count) if (least..=MOST).contains(&count) => Ok(Scalar::Count(count)),
        Ok(count) => Err(Problem::new(format!("{count} is out of range"), remedy())),
        Err(_) => Err(Problem::new(format!("\"{text}\" is not a whole number"), remedy())),
    }
}

fn parse_address(text: &str) -> Result<Scalar, Problem> {
    if let Ok(address) = text.parse() {
        return Ok(Scalar::Address(address));
    }
    let port = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")).unwrap_or(text);
    let remedy = if port.parse::<u16>().is_ok() {
        format!(
            "write \"0.0.0.0:{port}\" for every IPv4 address or \"127.0.0.1:{port}\" for this machine alone"
        )
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        "add a port, such as \"127.0.0.1:5000\" or \"[::1]:5000\"".to_owned()
    } else {
        "write an IP address and a port, such as \"127.0.0.1:5000\"; names are not looked up".to_owned()
    };
    Err(Problem::new(format!("\"{text}\" is not an address with a port"), remedy))
}

/// Parses the base URL of an HTTP service. Faults never quote a URL that holds a password.
pub(super) fn parse_url(text: &str) -> Result<http::Uri, Problem> {
    const REMEDY: &str = "write scheme and host, such as \"https://registry.example.com\"";
    if text.contains('@') {
        return Err(Problem::new(
            "a user name or password does not belong into a URL",
            "write scheme and host only, and use the keys username and password_file",
        ));
    }
    if text.contains(['?', '#']) {
        return Err(Problem::new(
            format!("\"{text}\" has a query or fragment"),
            "leave out everything from ? or # on",
        ));
    }
    let url = text
        .parse::<http::Uri>()
        .map_err(|error| Problem::new(format!("\"{text}\" is not a URL: {error}"), REMEDY))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        let reason = format!("\"{text}\" does not begin with https:// or http://");
        return Err(Problem::new(
            reason,
            format!("write \"https://{}\"", text.split("://").last().unwrap_or(text)),
        ));
    }
    let port_is_good = url.authority().is_some_and(|authority| {
        authority.port_u16().is_some_and(|port| port > 0) || authority.as_str() == authority.host()
    });
    if url.host().is_none_or(str::is_empty) || !port_is_good {
        return Err(Problem::new(format!("\"{text}\" names no host or a bad port"), REMEDY));
    }
    let path = url.path().trim_end_matches('/');
    if path == "/v2" || path.ends_with("/v2") {
        let shorter = text.trim_end_matches('/').trim_end_matches("/v2");
        let reason = format!("\"{text}\" ends in /v2, which every request adds by itself");
        return Err(Problem::new(reason, format!("write \"{shorter}\"")));
    }
    Ok(url)
}

/// Types that a scalar can be read as.
pub(super) trait FromScalar: Sized {
    /// The value, where the scalar is of this type.
    fn from_scalar(scalar: &Scalar) -> Option<Self>;
}

macro_rules! from_scalar {
    ($($type:ty: $($variant:ident)|+;)*) => {$(
        impl FromScalar for $type {
            fn from_scalar(scalar: &Scalar) -> Option<Self> {
                match scalar {
                    $(Scalar::$variant(value) => Some(value.clone()),)+
                    _ => None,
                }
            }
        }
    )*};
}

from_scalar! {
    String: Text;
    bool: Flag;
    u64: Count | Size;
    Duration: Duration;
    SocketAddr: Address;
    http::Uri: Url;
    PathBuf: Path;
    Secret: Secret;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_bases_of_http_services() {
        for good in
            ["https://a", "http://127.0.0.1:5000", "https://a.b/c/d", "https://[::1]:5000/", "https://a/v2x"]
        {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for (bad, reason, remedy) in [
            ("a.b", "\"a.b\" does not begin with https:// or http://", "write \"https://a.b\""),
            ("ftp://a", "\"ftp://a\" does not begin with https:// or http://", "write \"https://a\""),
            (
                "https://a/?x",
                "\"https://a/?x\" has a query or fragment",
                "leave out everything from ? or # on",
            ),
            (
                "https://a/v2/",
                "\"https://a/v2/\" ends in /v2, which every request adds by itself",
                "write \"https://a\"",
            ),
            (
                "https://me:secret@a",
                "a user name or password does not belong into a URL",
                "write scheme and host only, and use the keys username and password_file",
            ),
            (
                "https://a:0",
                "\"https://a:0\" names no host or a bad port",
                "write scheme and host, such as \"https://registry.example.com\"",
            ),
        ] {
            assert_eq!(parse_url(bad), Err(Problem::new(reason, remedy)), "{bad}");
        }
        for bad in ["", "https://", "https://a b", "https://a:99999", "https://a:", "/x", "https:///x"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_without_a_host_get_the_right_remedy() {
        for (bad, remedy) in [
            (
                ":5000",
                "write \"0.0.0.0:5000\" for every IPv4 address or \"127.0.0.1:5000\" for this machine alone",
            ),
            (
                "5000",
                "write \"0.0.0.0:5000\" for every IPv4 address or \"127.0.0.1:5000\" for this machine alone",
            ),
            ("127.0.0.1", "add a port, such as \"127.0.0.1:5000\" or \"[::1]:5000\""),
            (
                "localhost:5000",
                "write an IP address and a port, such as \"127.0.0.1:5000\"; names are not looked up",
            ),
        ] {
            assert_eq!(Item::Address.parse(bad).unwrap_err().remedy, remedy);
        }
        assert!(Item::Address.parse("[::]:0").is_ok());
    }

    #[test]
    fn counts_have_limits() {
        assert_eq!(Item::Count(1).parse("10_000"), Ok(Scalar::Count(10_000)));
        for bad in ["0", "-1", "4294967296", "x", "1.5", ""] {
            assert!(Item::Count(1).parse(bad).is_err(), "{bad}");
        }
    }
}
