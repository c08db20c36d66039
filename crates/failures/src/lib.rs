//! Failures by who caused them – wrong tokens, bad signatures, proofs that do not hold –, so that
//! whoever goes on failing is counted and slowed down.
//!
//! Only failures are slowed down: what is right is served, whoever else fails from the same
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

/// An address as it is counted: IPv6 by its /64, which is what one household or machine is given.
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

/// Sources that are counted one by one, a hundred bytes or so each. When there are more within a
/// minute, the ones that came too late wait as if they had failed too often.
const MAX_SOURCES: usize = 16_384;

/// After so long without a failure a source has its whole allowance again, and can be forgotten.
const QUIET: Duration = Duration::from_secs(60);

/// What a source that is not counted waits.
const UNCOUNTED_WAIT: Duration = Duration::from_secs(1);

/// From how many failures on the log says so, each time they have doubled.
const WORTH_A_LINE: u64 = 8;

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u64,
    last: Instant,
}

/// Who has failed how often. `K` is what failures are counted by: an address, a tenant.
#[derive(Debug)]
pub struct Failures<K: Clone + Eq + Hash> {
    /// What is counted, for the log.
    what: &'static str,
    allowance: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    counts: Mutex<HashMap<K, Count>>,
}

impl<K: Clone + Debug + Eq + Hash> Failures<K> {
    /// Each source may fail `per_minute` times a minute, and as often at once. `what` is counted:
    /// `wrong token`, say.
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
    /// How long the source has to wait until it may fail again, when it has failed too often.
    pub fn note(&self, source: &K) -> Result<(), Duration> {
        if !self.count_one(source) {
            return Err(UNCOUNTED_WAIT);
        }
        self.allowance.check_key(source).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Waits until `source`, which has failed too often, may fail once more; that counts as used
    /// then.
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

    /// Whether there was room to count it.
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
    fn whoever_goes_on_failing_waits_and_nobody_else_does() {
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
