//! `r̃^N mod N²` computed ahead, for the Paillier keys this party answers under most.
//!
//! It is most of a responder's work, depends on nothing but the key, and is used once: what is taken
//! is gone. Nothing of it is ever stored.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use duet_protocol::{enrolment::VerifiedEnrolment, ids::PaillierKeyId, paillier::OneTimeRandomizer};

use crate::compute::{Compute, system_rng};

/// Keys that are kept warm at a time. A service's partner sees one key per tenant.
const MAX_KEYS: usize = 64;

/// A pool of one-time randomizers per Paillier key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Randomizers {
    pools: Arc<Mutex<HashMap<PaillierKeyId, VecDeque<OneTimeRandomizer>>>>,
    depth: usize,
}

impl Randomizers {
    /// Keeps up to `depth` ready per key; none when `depth` is 0. Each takes about half a kilobyte
    /// and, once, some ten milliseconds of a core that has nothing better to do. Default 4.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        Self { pools: Arc::default(), depth }
    }

    /// Takes one, if there is one.
    #[must_use]
    pub fn take(&self, key: PaillierKeyId) -> Option<OneTimeRandomizer> {
        self.with(|pools| pools.get_mut(&key)?.pop_front())
    }

    /// Starts to fill up the pool of an enrolment's key, as long as a core is idle.
    pub fn refill(&self, enrolment: &Arc<VerifiedEnrolment>, compute: &Compute) {
        if self.depth == 0 {
            return;
        }
        let (pool, compute, enrolment) = (self.clone(), compute.clone(), Arc::clone(enrolment));
        tokio::spawn(async move {
            let key = enrolment.paillier_key();
            while compute.is_idle() && pool.wants(key) {
                let enrolment = Arc::clone(&enrolment);
                let made = compute.run(move || enrolment.encryption_key().make_randomizer(&mut system_rng()));
                let Ok(randomizer) = made.await else { return };
                pool.put(key, randomizer);
            }
        });
    }

    fn wants(&self, key: PaillierKeyId) -> bool {
        self.with(|pools| pools.get(&key).is_none_or(|pool| pool.len() < self.depth))
    }

    fn put(&self, key: PaillierKeyId, randomizer: OneTimeRandomizer) {
        self.with(|pools| {
            if pools.len() >= MAX_KEYS && !pools.contains_key(&key) {
                // Any one has to go; a key that is still used fills up again.
                let any = pools.keys().next().copied();
                any.and_then(|any| pools.remove(&any));
            }
            let pool = pools.entry(key).or_default();
            if pool.len() < self.depth {
                pool.push_back(randomizer);
            }
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<PaillierKeyId, VecDeque<OneTimeRandomizer>>) -> T) -> T {
        f(&mut self.pools.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Randomizers {
    fn default() -> Self {
        Self::new(4)
    }
}
