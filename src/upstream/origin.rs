//! Origins (RFC 6454) and sites: who is the same host, and who belongs to the same owner.
//!
//! Pure.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// Scheme, host and port of an `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    /// Whether the scheme is `https`.
    pub(super) secure: bool,
    /// The host, lower-case, an IPv6 literal without its brackets.
    pub(super) host: String,
    /// The port, that of the scheme where none is written.
    pub(super) port: u16,
}

impl Origin {
    /// The origin of a URL. `None` where it is not absolute, of another scheme, or carries a user
    /// name, which would let `https://registry@elsewhere/` look like what it is not.
    pub(super) fn of(url: &Uri) -> Option<Self> {
        let secure = match url.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = url.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Self { secure, host: plain_host(authority.host()), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://")?;
        if self.host.contains(':') { write!(f, "[{}]", self.host) } else { f.write_str(&self.host) }?;
        if self.port == if self.secure { 443 } else { 80 } { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// A host as it is compared: lower-case, without brackets and without the root's dot.
pub(super) fn plain_host(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

/// Whether two hosts belong to the same owner as far as their names show: the same registrable
/// domain. Errs on the side of "no": `trusted_hosts` is there for the rest.
pub(super) fn is_same_site(one: &str, other: &str) -> bool {
    let (one, other) = (plain_host(one), plain_host(other));
    one == other || matches!((site_of(&one), site_of(&other)), (Some(a), Some(b)) if a == b)
}

/// The registrable domain, or `None` where nothing but the host itself is the same site: addresses,
/// single labels, and names that a hosting company gives to its customers.
fn site_of(host: &str) -> Option<&str> {
    let is_address = host.parse::<IpAddr>().is_ok();
    let is_shared =
        SHARED_DOMAINS.iter().any(|domain| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    if is_address || is_shared {
        return None;
    }
    let dots: Vec<usize> = host.rmatch_indices('.').map(|(at, _)| at).collect();
    let top = &host[dots.first()? + 1..];
    let second = dots.get(1).map_or(&host[..dots[0]], |at| &host[at + 1..dots[0]]);
    // `example.co.uk`: the second level is a registry's, not an owner's.
    let levels = if top.len() == 2 && SECOND_LEVELS.contains(&second) { 2 } else { 1 };
    if dots.len() < levels {
        return None;
    }
    Some(dots.get(levels).map_or(host, |at| &host[at + 1..]))
}

/// Labels under which country registries let others register.
const SECOND_LEVELS: [&str; 16] = [
    "ac", "co", "com", "edu", "gob", "gouv", "gov", "go", "in", "mil", "ne", "net", "nom", "or", "org", "sch",
];

/// Domains whose children belong to different customers.
const SHARED_DOMAINS: [&str; 16] = [
    "amazonaws.com",
    "azurecr.io",
    "azureedge.net",
    "azurewebsites.net",
    "cloudflarestorage.com",
    "cloudfront.net",
    "digitaloceanspaces.com",
    "github.io",
    "gitlab.io",
    "googleapis.com",
    "herokuapp.com",
    "pkg.dev",
    "r2.dev",
    "run.app",
    "windows.net",
    "workers.dev",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_know_the_port_of_their_scheme() {
        for (url, expected) in [
            ("https://Registry.Example.COM/v2/", Some("https://registry.example.com")),
            ("http://localhost:5000", Some("http://localhost:5000")),
            ("https://host:443/x", Some("https://host")),
            ("http://[::1]:80/", Some("http://[::1]")),
            ("https://user@host/", None),
            ("ftp://host/", None),
            ("/v2/", None),
        ] {
            let origin = Origin::of(&url.parse().unwrap()).map(|origin| origin.to_string());
            assert_eq!(origin.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_site_is_a_registrable_domain() {
        for (one, other, same) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("ghcr.io", "GHCR.io.", true),
            ("registry.example.co.uk", "auth.example.co.uk", true),
            ("one.co.uk", "other.co.uk", false),
            ("docker.io", "evildocker.io", false),
            ("docker.io", "docker.io.evil.com", false),
            ("registry.redhat.io", "sso.redhat.com", false),
            ("one.azurecr.io", "other.azurecr.io", false),
            ("one.azurecr.io", "one.azurecr.io", true),
            ("localhost", "localhost", true),
            ("localhost", "registry", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("10.0.0.1", "11.0.0.1", false),
            ("co.uk", "example.co.uk", false),
        ] {
            assert_eq!(is_same_site(one, other), same, "{one} {other}");
            assert_eq!(is_same_site(other, one), same, "{other} {one}");
        }
    }
}
