//! Names to addresses: hickory with its cache, the system's configuration and `/etc/hosts`.
//!
//! Addresses are found only; whether they may be connected to is the guard's to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::timeout;

use super::error::{SetupError, chain};
use super::origin::plain_host;

/// Finds the addresses of hosts. One for all upstreams: they share its cache.
pub(crate) struct Dns(Source);

enum Source {
    /// One resolver a family, each with its cache.
    System(Box<[TokioResolver; 2]>),
    #[cfg(test)]
    Table { table: std::collections::HashMap<String, Vec<IpAddr>>, asked: std::sync::atomic::AtomicUsize },
}

impl Dns {
    /// Reads the system's configuration once. Where there is none, the name server is the local
    /// machine's, as resolv.conf(5) has it; asking somebody's public one would leak names.
    pub(crate) fn from_system() -> Result<Self, SetupError> {
        let (v4, v6) = (LookupIpStrategy::Ipv4Only, LookupIpStrategy::Ipv6Only);
        Ok(Self(Source::System(Box::new([build_resolver(v4)?, build_resolver(v6)?]))))
    }

    /// Knows the hosts of a table only.
    #[cfg(test)]
    pub(crate) fn from_table<'a>(table: impl IntoIterator<Item = (&'a str, Vec<IpAddr>)>) -> Self {
        let table = table.into_iter().map(|(host, addresses)| (host.to_owned(), addresses)).collect();
        Self(Source::Table { table, asked: 0.into() })
    }

    /// How many look-ups there were in a table.
    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        match &self.0 {
            Source::System(_) => 0,
            Source::Table { asked, .. } => asked.load(std::sync::atomic::Ordering::SeqCst),
        }
    }

    /// Finds the addresses of a host in the order in which to try them, never none.
    ///
    /// Errors with a text to show. May be dropped at any point.
    pub(crate) async fn find_addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let host = plain_host(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        // RFC 6761, section 6.3: never asked of a name server.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        match &self.0 {
            Source::System(resolvers) => {
                let [v4, v6] = &**resolvers;
                resolve(v4, v6, &host).await
            }
            #[cfg(test)]
            Source::Table { table, asked } => {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let found = table.get(&host).filter(|addresses| !addresses.is_empty());
                found.cloned().ok_or_else(|| format!("{host} has no address"))
            }
        }
    }
}

/// Asks for both families at once. Whichever comes first waits only briefly for the other (RFC
/// 8305, section 3): a name server that swallows AAAA questions costs 50 ms, not seconds.
async fn resolve(v4: &TokioResolver, v6: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, String> {
    let mut four = std::pin::pin!(lookup(v4, host));
    let mut six = std::pin::pin!(lookup(v6, host));
    let (four, six) = tokio::select! {
        found = &mut four => {
            let other = if found.is_ok() {
                timeout(RESOLUTION_DELAY, six).await.unwrap_or_else(|_| Ok(Vec::new()))
            } else {
                six.await
            };
            (found, other)
        }
        found = &mut six => {
            let other = if found.as_ref().is_ok_and(|found| !found.is_empty()) {
                timeout(RESOLUTION_DELAY, four).await.unwrap_or_else(|_| Ok(Vec::new()))
            } else {
                four.await
            };
            (other, found)
        }
    };
    let addresses = match (four, six) {
        (Ok(four), Ok(six)) => interleave(six, four),
        (Ok(some), Err(_)) | (Err(_), Ok(some)) => some,
        (Err(error), Err(_)) => return Err(error),
    };
    if addresses.is_empty() { Err(format!("{host} has no address")) } else { Ok(addresses) }
}

async fn lookup(resolver: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, String> {
    match resolver.lookup_ip(host).await {
        Ok(found) => Ok(found.iter().collect()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(format!("cannot resolve {host}: {}", chain(&error))),
    }
}

/// Alternates the families, IPv6 first (RFC 8305, section 4).
fn interleave(six: Vec<IpAddr>, four: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            return addresses;
        }
        addresses.extend(pair.into_iter().flatten());
    }
}

fn build_resolver(strategy: LookupIpStrategy) -> Result<TokioResolver, SetupError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::warn!(error = %error, "system resolver configuration is missing; asking 127.0.0.1");
        let local = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let config = ResolverConfig::from_name_servers(vec![local]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    });
    builder.options_mut().ip_strategy = strategy;
    builder.build().map_err(SetupError::Resolver)
}

/// How long one family waits for the other (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_localhost_ask_nobody() {
        let dns = Dns::from_table([]);
        for (host, expected) in [("127.0.0.1", vec!["127.0.0.1"]), ("[::1]", vec!["::1"])] {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(dns.find_addresses(host).await, Ok(expected));
        }
        assert_eq!(dns.find_addresses("LocalHost").await.unwrap().len(), 2);
        assert!(dns.find_addresses("nowhere.test").await.is_err());
    }

    #[tokio::test]
    async fn the_system_configuration_is_optional() {
        assert!(Dns::from_system().is_ok());
    }

    #[test]
    fn families_alternate() {
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mixed = interleave(addresses(&["::1", "::2", "::3"]), addresses(&["1.1.1.1"]));
        assert_eq!(mixed, addresses(&["::1", "1.1.1.1", "::2", "::3"]));
        assert_eq!(interleave(vec![], addresses(&["1.1.1.1"])), addresses(&["1.1.1.1"]));
    }
}
