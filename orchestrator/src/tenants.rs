//! Limits what each tenant may do at the HTTP interface: requests per second and event streams.
//! Slows down callers that go on failing.

use core::{net::IpAddr, num::NonZeroU32, time::Duration};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_failures::{AddressKey, Failures};
use duet_wire::TenantId;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::settings::HttpSettings;

/// How many wrong tokens one address may send a minute, and as many at once, before it is slowed
/// down.
const WRONG_TOKENS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

/// How many requests with bad signatures one tenant may submit a minute, and as many at once,
/// before it is slowed down.
const BAD_SIGNATURES_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// The tenants' use of the HTTP interface. Only tenants with a token are counted, so the
/// configuration bounds their number.
pub(crate) struct Tenants {
    requests: DefaultKeyedRateLimiter<TenantId>,
    clock: DefaultClock,
    wrong_tokens: Failures<AddressKey>,
    bad_signatures: Failures<TenantId>,
    streams: Arc<Mutex<Streams>>,
    max_streams: usize,
    max_streams_per_tenant: usize,
}

#[derive(Debug, Default)]
struct Streams {
    open: usize,
    per_tenant: HashMap<TenantId, usize>,
}

fn lock(streams: &Mutex<Streams>) -> MutexGuard<'_, Streams> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A permit to hold an event stream open. Dropping it returns the permit.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    tenant: TenantId,
    streams: Arc<Mutex<Streams>>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut streams = lock(&self.streams);
        streams.open -= 1;
        if let Some(open) = streams.per_tenant.get_mut(&self.tenant) {
            *open -= 1;
        }
    }
}

impl Tenants {
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        let rate = settings.requests_per_second_per_tenant;
        let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self {
            requests: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
            wrong_tokens: Failures::new("wrong token", WRONG_TOKENS_PER_MINUTE),
            bad_signatures: Failures::new("bad signature", BAD_SIGNATURES_PER_MINUTE),
            streams: Arc::default(),
            max_streams: settings.max_event_streams,
            max_streams_per_tenant: settings.max_event_streams_per_tenant,
        }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// When to try again, if the tenant has made too many.
    pub(crate) fn request(&self, tenant: &TenantId) -> Result<(), Duration> {
        self.requests.check_key(tenant).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Counts a wrong token. A right token is served whatever else comes from its address, which
    /// may be a proxy's.
    ///
    /// # Errors
    /// When to try again, if the address has sent too many.
    pub(crate) fn wrong_token(&self, from: IpAddr) -> Result<(), Duration> {
        self.wrong_tokens.note(&from.into())
    }

    /// Counts a request whose signature does not verify.
    ///
    /// # Errors
    /// When to try again, if the tenant has submitted too many.
    pub(crate) fn bad_signature(&self, tenant: &TenantId) -> Result<(), Duration> {
        self.bad_signatures.note(tenant)
    }

    /// A permit for one more event stream. `None` when the tenant or all tenants have as many as
    /// they may.
    pub(crate) fn stream(&self, tenant: &TenantId) -> Option<StreamPermit> {
        let mut streams = lock(&self.streams);
        let own = streams.per_tenant.get(tenant).copied().unwrap_or(0);
        if streams.open >= self.max_streams || own >= self.max_streams_per_tenant {
            return None;
        }
        streams.open += 1;
        streams.per_tenant.insert(tenant.clone(), own + 1);
        Some(StreamPermit { tenant: tenant.clone(), streams: Arc::clone(&self.streams) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> Tenants {
        Tenants::new(&HttpSettings {
            requests_per_second_per_tenant: NonZeroU32::new(1).unwrap(),
            max_event_streams: 3,
            max_event_streams_per_tenant: 2,
            ..HttpSettings::default()
        })
    }

    #[test]
    fn a_tenants_requests_are_its_own() {
        let (tenants, acme, globex) = (tenants(), "acme".parse().unwrap(), "globex".parse().unwrap());
        assert_eq!((tenants.request(&acme), tenants.request(&acme)), (Ok(()), Ok(())));
        assert!(tenants.request(&acme).unwrap_err() <= Duration::from_secs(1));
        assert_eq!(tenants.request(&globex), Ok(()));
    }

    #[test]
    fn streams_are_counted_per_tenant_and_in_all() {
        let (tenants, acme, globex) = (tenants(), "acme".parse().unwrap(), "globex".parse().unwrap());
        let first = tenants.stream(&acme);
        let _second = tenants.stream(&acme).unwrap();
        assert!(tenants.stream(&acme).is_none());
        let _third = tenants.stream(&globex).unwrap();
        assert!(tenants.stream(&globex).is_none());
        drop(first);
        assert!(tenants.stream(&globex).is_some());
    }
}
