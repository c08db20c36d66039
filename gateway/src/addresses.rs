//! Counts how much of the gateway each address uses.

use core::net::IpAddr;
use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use duet_failures::AddressKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The use of one address.
struct Share {
    connections: usize,
    requests: Arc<Semaphore>,
}

/// The use of all addresses.
#[derive(Default)]
struct Taken {
    shares: HashMap<AddressKey, Share>,
    connections: usize,
}

/// Connections and requests under way, per address and in all.
pub(crate) struct Addresses {
    taken: Mutex<Taken>,
    max_connections: usize,
    max_per_address: usize,
    requests: Arc<Semaphore>,
    max_requests_per_address: usize,
}

impl Addresses {
    pub(crate) fn new(limits: &crate::Limits) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            max_connections: limits.max_connections,
            max_per_address: limits.max_connections_per_address,
            requests: Arc::new(Semaphore::new(limits.max_requests)),
            max_requests_per_address: limits.max_requests_per_address,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Takes a place for one connection from `address`. `None` when there is no room.
    pub(crate) fn connect(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        self.take(address, Counts { among_all: true, for_address: true })
    }

    /// Takes a place for one connection of a trusted proxy. Its clients' requests count for the
    /// clients.
    pub(crate) fn connect_proxy(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        self.take(address, Counts { among_all: true, for_address: false })
    }

    /// Takes a place for a `client` behind a proxy. The proxy's own connection counts among all.
    pub(crate) fn connect_behind(self: &Arc<Self>, client: IpAddr) -> Option<Connection> {
        self.take(client, Counts { among_all: false, for_address: true })
    }

    fn take(self: &Arc<Self>, address: IpAddr, counts: Counts) -> Option<Connection> {
        let key = AddressKey::from(address);
        let mut taken = self.lock();
        let Taken { shares, connections } = &mut *taken;
        if counts.among_all && *connections >= self.max_connections {
            return None;
        }
        let own_requests = || Arc::new(Semaphore::new(self.max_requests_per_address));
        let requests = if counts.for_address {
            let held = shares.get(&key).map_or(0, |share| share.connections);
            if held >= self.max_per_address {
                return None;
            }
            let share =
                shares.entry(key).or_insert_with(|| Share { connections: 0, requests: own_requests() });
            share.connections += 1;
            Arc::clone(&share.requests)
        } else {
            own_requests()
        };
        *connections += usize::from(counts.among_all);
        Some(Connection { key, requests, counts, addresses: Arc::clone(self) })
    }
}

/// The totals that a connection counts towards.
#[derive(Debug, Clone, Copy)]
struct Counts {
    among_all: bool,
    for_address: bool,
}

/// One connection's place. Dropping it frees the place.
pub(crate) struct Connection {
    key: AddressKey,
    requests: Arc<Semaphore>,
    counts: Counts,
    addresses: Arc<Addresses>,
}

impl Connection {
    /// The address it counts for.
    pub(crate) const fn key(&self) -> AddressKey {
        self.key
    }

    /// Takes room for one request. `None` when its address, or all addresses together, have too
    /// many under way.
    pub(crate) fn request(&self) -> Option<RequestRoom> {
        let own = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.addresses.requests).try_acquire_owned().ok()?;
        Some(RequestRoom { _own: own, _all: all })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut taken = self.addresses.lock();
        taken.connections -= usize::from(self.counts.among_all);
        if !self.counts.for_address {
            return;
        }
        if let hash_map::Entry::Occupied(mut share) = taken.shares.entry(self.key) {
            share.get_mut().connections -= 1;
            if share.get().connections == 0 {
                share.remove();
            }
        }
    }
}

/// One request's room. Dropping it frees the room.
pub(crate) struct RequestRoom {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(max_connections: usize, max_per_address: usize) -> Arc<Addresses> {
        Addresses::new(&crate::Limits {
            max_connections,
            max_connections_per_address: max_per_address,
            max_requests: 3,
            max_requests_per_address: 2,
            ..crate::Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let addresses = addresses(3, 2);
        let first = addresses.connect(ip("10.0.0.1")).unwrap();
        let _second = addresses.connect(ip("10.0.0.1")).unwrap();
        assert!(addresses.connect(ip("10.0.0.1")).is_none());
        let _other = addresses.connect(ip("10.0.0.2")).unwrap();
        assert!(addresses.connect(ip("10.0.0.3")).is_none(), "more than in all");
        drop(first);
        assert!(addresses.connect(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let addresses = addresses(3, 2);
        drop(addresses.connect(ip("10.0.0.1")));
        let taken = addresses.lock();
        assert!(taken.shares.is_empty() && taken.connections == 0);
    }

    #[test]
    fn clients_of_a_proxy_are_bounded_each_and_the_proxy_only_in_all() {
        let addresses = addresses(3, 2);
        let proxy = [(); 3].map(|()| addresses.connect_proxy(ip("10.0.0.9")));
        assert!(proxy.iter().all(Option::is_some), "more than one address has");
        assert!(addresses.connect_proxy(ip("10.0.0.9")).is_none(), "more than in all");
        let held = [(); 2].map(|()| addresses.connect_behind(ip("198.51.100.1")));
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.connect_behind(ip("198.51.100.1")).is_none());
        assert!(addresses.connect_behind(ip("198.51.100.2")).is_some());
        drop((proxy, held));
        assert!(addresses.lock().shares.is_empty() && addresses.lock().connections == 0);
    }

    #[test]
    fn requests_are_bounded_per_address_and_in_all() {
        let addresses = addresses(3, 2);
        let (one, other) =
            (addresses.connect(ip("10.0.0.1")).unwrap(), addresses.connect(ip("10.0.0.2")).unwrap());
        let held = [one.request(), one.request()];
        assert!(held.iter().all(Option::is_some));
        assert!(one.request().is_none());
        let last = other.request();
        assert!(last.is_some() && other.request().is_none());
        drop(held);
        assert!(one.request().is_some());
    }

    #[test]
    fn a_v6_address_counts_by_its_network() {
        let key = |text| AddressKey::from(ip(text));
        assert_eq!(key("2001:db8:1:2:3::4"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }
}
