//! Counts failures by their source – wrong tokens, bad signatures, invalid proofs – and slows down
//! a source that goes on failing.
//!
//! The central type is [`Failures`], keyed by a tenant or by the second type, [`AddressKey`]. A
//! caller passes each failure to [`Failures::note`], and lets a source that failed too often wait
//! ([`Failures::wait`]) or refuses it.
//!
//! Only failures are slowed down. A valid request is served, whichever client fails from the same
//! address.

use core::{
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

/// The key under which an address is counted. IPv6 counts by its /64, the range that one household
/// or machine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(IpAddr);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// How many sources are counted one by one, at a hundred bytes or so each. When more fail within a
/// minute, the late ones wait as if they had failed too often.
const MAX_SOURCES: usize = 16_384;

/// After this long without a failure, a source has its whole allowance again and can be forgotten.
const QUIET: Duration = Duration::from_secs(60);

/// How long a source has to wait when it is not counted.
const UNCOUNTED_WAIT: Duration = Duration::from_secs(1);

/// The log reports a source from this many failures on, each time they have doubled.
const WORTH_A_LINE: u64 = 8;

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u64,
    last: Instant,
}

/// Counts how often each source has failed. `K` identifies a source: an address or a tenant.
#[derive(Debug)]
pub struct Failures<K: Clone + Eq + Hash> {
    /// The kind of failure, for the log.
    what: &'static str,
    allowance: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    counts: Mutex<HashMap<K, Count>>,
}

impl<K: Clone + Debug + Eq + Hash> Failures<K> {
    /// Each source may fail `per_minute` times a minute, and as many times at once. `what` names
    /// the kind of failure, for example `wrong token`.
    #[must_use]
    pub fn new(what: &'static str, per_minute: NonZeroU32) -> Self {
        Self {
            what,
            allowance: RateLimiter::keyed(Quota::per_minute(per_minute)),
            clock: DefaultClock::default(),
            counts: Mutex::default(),
        }
    }

    /// Counts a failure of `source`.
    ///
    /// # Errors
    /// When the source has failed too often: how long it has to wait until it may fail again.
    pub fn note(&self, source: &K) -> Result<(), Duration> {
        if !self.count_one(source) {
            return Err(UNCOUNTED_WAIT);
        }
        self.allowance.check_key(source).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Waits until `source`, which has failed too often, may fail once more. That one failure then
    /// counts as used.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait(&self, source: &K) {
        self.allowance.until_key_ready(source).await;
    }

    /// How often `source` has failed since it was last quiet for a minute or longer.
    pub fn count(&self, source: &K) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(source).map_or(0, |count| count.failures)
    }

    /// Counts a failure of `source`. Returns false when there was no room for it.
    fn count_one(&self, source: &K) -> bool {
        let now = Instant::now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_SOURCES && !counts.contains_key(source) {
            counts.retain(|_, count| now.duration_since(count.last) < QUIET);
            self.allowance.retain_recent();
            if counts.len() >= MAX_SOURCES {
                return false;
            }
        }
        let count = counts.entry(source.clone()).or_insert(Count { failures: 0, last: now });
        if now.duration_since(count.last) >= QUIET {
            count.failures = 0;
        }
        *count = Count { failures: count.failures + 1, last: now };
        let failures = count.failures;
        drop(counts);
        if failures >= WORTH_A_LINE && failures.is_power_of_two() {
            tracing::warn!(?source, what = self.what, failures, "a source goes on failing");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures() -> Failures<u32> {
        Failures::new("wrong token", NonZeroU32::new(3).unwrap())
    }

    #[test]
    fn a_source_that_goes_on_failing_waits_and_no_other_does() {
        let failures = failures();
        for _ in 0..3 {
            assert_eq!(failures.note(&1), Ok(()));
        }
        let wait = failures.note(&1).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(failures.note(&2), Ok(()));
        assert_eq!((failures.count(&1), failures.count(&2), failures.count(&3)), (4, 1, 0));
    }

    #[test]
    fn no_more_sources_are_kept_than_there_is_room_for() {
        let failures = failures();
        for source in 0..u32::try_from(MAX_SOURCES).unwrap() {
            assert_eq!(failures.note(&source), Ok(()));
        }
        assert_eq!(failures.note(&u32::MAX), Err(UNCOUNTED_WAIT));
        assert_eq!(failures.note(&0), Ok(()), "it is known");
        assert_eq!(failures.counts.lock().unwrap().len(), MAX_SOURCES);
    }
}
