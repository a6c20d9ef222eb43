//! Limits on guessing passwords, by account, by client address, and by both together.
//!
//! After some failures each further one is followed by a pause, twice as long each time up to a limit, in which nothing is
//! tried; a while after the last failure all is forgotten. An account is never locked: the pause that others can bring
//! upon it is short, and an address from which somebody has logged in to it does not have to wait for theirs.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::metadata::catalogue::AccountName;

/// Remembers failures. What it remembers is bounded: the longest unused goes first.
#[derive(Debug)]
pub(super) struct Throttle {
    failures: Cache<Key, Failures>,
    /// From where who has logged in.
    known: Cache<(AccountName, Address), ()>,
}

/// What failures are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(Address),
    Account(AccountName),
    Pair(AccountName, Address),
}

/// A client, as far as addresses tell: whoever has IPv6 has a network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
    /// Nothing is tried before.
    until: Instant,
}

/// How many failures have no consequence, and how long a pause becomes.
struct Limit {
    free: u32,
    longest: Duration,
}

impl Key {
    const fn limit(&self) -> Limit {
        match self {
            Self::Pair(..) => Limit { free: 5, longest: Duration::from_mins(1) },
            Self::Address(_) => Limit { free: 20, longest: Duration::from_mins(1) },
            // Short, because the owner pays for what others do.
            Self::Account(_) => Limit { free: 50, longest: Duration::from_secs(5) },
        }
    }
}

impl Throttle {
    pub(super) fn new() -> Self {
        let lru = EvictionPolicy::lru();
        Self {
            failures: Cache::builder().max_capacity(MAX_ENTRIES).eviction_policy(lru.clone()).build(),
            known: Cache::builder().max_capacity(MAX_ENTRIES).eviction_policy(lru).build(),
        }
    }

    /// Fails with how long to wait, where somebody has to. `account` is `None` where the name cannot be one.
    pub(super) fn check(&self, account: Option<&AccountName>, client: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        let is_over = |failures: &Failures| now.duration_since(failures.last) > FORGOTTEN_AFTER;
        let waits = self.keys(account, client.into()).into_iter().filter_map(|key| {
            let failures = self.failures.get(&key).filter(|failures| !is_over(failures))?;
            failures.until.checked_duration_since(now).filter(|wait| !wait.is_zero())
        });
        waits.max().map_or(Ok(()), Err)
    }

    /// Notes that somebody showed wrong credentials.
    pub(super) fn record_failure(&self, account: Option<&AccountName>, client: IpAddr) {
        let now = Instant::now();
        for key in self.keys(account, client.into()) {
            let limit = key.limit();
            self.failures.entry(key).and_upsert_with(|known| {
                let known = known.map(moka::Entry::into_value);
                let before = known
                    .filter(|known| now.duration_since(known.last) <= FORGOTTEN_AFTER)
                    .map_or(0, |known| known.count);
                let count = before.saturating_add(1);
                Failures { count, last: now, until: now + limit.pause_after(count) }
            });
        }
    }

    /// Notes that somebody showed the right credentials of an account.
    pub(super) fn record_success(&self, account: &AccountName, client: IpAddr) {
        let address = Address::from(client);
        self.failures.invalidate(&Key::Pair(account.clone(), address));
        self.known.insert((account.clone(), address), ());
    }

    /// What an attempt counts for.
    fn keys(&self, account: Option<&AccountName>, address: Address) -> Vec<Key> {
        let Some(account) = account else { return vec![Key::Address(address)] };
        let pair = Key::Pair(account.clone(), address);
        if self.known.contains_key(&(account.clone(), address)) {
            return vec![pair];
        }
        vec![pair, Key::Address(address), Key::Account(account.clone())]
    }
}

impl Limit {
    fn pause_after(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.free + 1) {
            None => Duration::ZERO,
            Some(excess) => SHORTEST_PAUSE.saturating_mul(1 << excess.min(16)).min(self.longest),
        }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How long after the last failure all is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(15);

/// Each is some hundred bytes.
const MAX_ENTRIES: u64 = 10_000;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    /// An address that nothing else comes from.
    fn elsewhere(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_become_longer_up_to_a_minute_and_end() {
        let (throttle, account) = (Throttle::new(), name("admin"));
        let check = || throttle.check(Some(&account), HERE);
        for _ in 0..5 {
            assert_eq!(check(), Ok(()));
            throttle.record_failure(Some(&account), HERE);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(check(), Ok(()), "{seconds}");
            throttle.record_failure(Some(&account), HERE);
            assert_eq!(check(), Err(Duration::from_secs(seconds)));
            advance(Duration::from_millis(seconds * 1000 - 1)).await;
            assert_eq!(check(), Err(Duration::from_millis(1)));
            advance(Duration::from_millis(1)).await;
        }
        advance(FORGOTTEN_AFTER + Duration::from_secs(1)).await;
        throttle.record_failure(Some(&account), HERE);
        assert_eq!(check(), Ok(()), "what is forgotten does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_limited_whatever_accounts_it_tries() {
        let throttle = Throttle::new();
        for number in 0..21 {
            throttle.record_failure(Some(&name(&format!("user{number}"))), HERE);
        }
        assert!(throttle.check(Some(&name("another")), HERE).is_err());
        assert!(throttle.check(None, HERE).is_err());
        assert_eq!(throttle.check(Some(&name("another")), elsewhere(1)), Ok(()));
        // Neighbours of an IPv6 network are one client.
        let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:1".parse().unwrap());
        for _ in 0..21 {
            throttle.record_failure(None, one);
        }
        assert!(throttle.check(None, other).is_err());
        assert_eq!(throttle.check(None, "2001:db8:0:1::1".parse().unwrap()), Ok(()));
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(throttle.check(None, mapped).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_slow_an_account_down_and_lock_nobody_out() {
        let (throttle, account) = (Throttle::new(), name("admin"));
        throttle.record_success(&account, HERE);
        for number in 0..5000 {
            throttle.record_failure(Some(&account), elsewhere(number));
        }
        let stranger = elsewhere(9999);
        assert_eq!(throttle.check(Some(&account), stranger), Err(Duration::from_secs(5)));
        assert_eq!(throttle.check(Some(&account), HERE), Ok(()), "who was here before does not wait");
        advance(Duration::from_secs(5)).await;
        assert_eq!(throttle.check(Some(&account), stranger), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_ends_the_pause_of_its_own() {
        let (throttle, account) = (Throttle::new(), name("admin"));
        for _ in 0..6 {
            throttle.record_failure(Some(&account), HERE);
        }
        assert!(throttle.check(Some(&account), HERE).is_err());
        throttle.record_success(&account, HERE);
        assert_eq!(throttle.check(Some(&account), HERE), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let throttle = Throttle::new();
        for number in 0..u32::try_from(MAX_ENTRIES).unwrap() + 2000 {
            throttle.record_failure(None, elsewhere(number));
        }
        throttle.failures.run_pending_tasks();
        assert!(throttle.failures.entry_count() <= MAX_ENTRIES);
    }
}
