//! Policies whose owners' signatures were verified, and a cache of them.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use duet_protocol::ids::WalletId;
use duet_wire::policy::{Policy, PolicyError};
use lru::LruCache;

use crate::{
    error::PartyError,
    store::{PolicyMark, PolicyRow, PolicyStore},
};

/// A policy whose owner's signature was verified.
#[derive(Debug, Clone)]
pub struct VerifiedPolicy {
    /// When it takes effect, in Unix milliseconds.
    pub effective_at_ms: u64,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// All policies of a wallet, verified.
#[derive(Debug, Clone, Default)]
pub struct WalletPolicies {
    /// The mark of the newest policy. `None` without a policy.
    pub newest: Option<PolicyMark>,
    /// The policies, oldest first.
    pub all: Arc<[VerifiedPolicy]>,
}

impl WalletPolicies {
    /// The policies that apply to a request at `now_ms`.
    pub(super) fn counting(&self, now_ms: u64) -> &[VerifiedPolicy] {
        counting(&self.all, |policy| policy.effective_at_ms, now_ms)
    }

    fn verify(rows: &[PolicyRow], owner: &[u8; 32]) -> Result<Self, PartyError> {
        let stored = |error: PolicyError| PartyError::Stored { what: "policy", reason: error.to_string() };
        let verified = |row: &PolicyRow| -> Result<VerifiedPolicy, PartyError> {
            let policy = row.signed.verify(owner).map(Arc::new).map_err(stored)?;
            Ok(VerifiedPolicy { effective_at_ms: row.effective_at_ms, policy })
        };
        let all = rows.iter().map(verified).collect::<Result<_, _>>()?;
        Ok(Self { newest: rows.last().map(PolicyRow::mark), all })
    }
}

/// A cache of verified policies, of wallets that signed recently. An entry is read and verified
/// again when the store has a newer policy, no matter which worker stored it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifiedPolicies(Arc<Mutex<LruCache<WalletId, Verified>>>);

/// The policies of one wallet, and the owner's key that verified them.
#[derive(Debug)]
struct Verified {
    owner: [u8; 32],
    policies: WalletPolicies,
}

/// The most wallets in the cache. Most have one policy of a few kilobytes, and at most five of some
/// hundred.
const MAX_WALLETS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

impl Default for VerifiedPolicies {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_WALLETS))))
    }
}

impl VerifiedPolicies {
    /// The policies of a wallet. `newest` is the mark of the newest one, just read from the store.
    ///
    /// # Errors
    /// When the policies cannot be read, or when one is not signed by the owner.
    ///
    /// # Security
    /// The result may be out of date already. So the caller must pass the mark to the transaction
    /// that acts on its decision ([`Spending::decided_by`]). The store then checks that its newest
    /// mark is unchanged.
    pub async fn of(
        &self,
        store: &(impl PolicyStore + ?Sized),
        wallet: WalletId,
        newest: Option<&PolicyMark>,
        owner: &[u8; 32],
    ) -> Result<WalletPolicies, PartyError> {
        let Some(newest) = newest else { return Ok(WalletPolicies::default()) };
        if let Some(Verified { owner: by, policies }) = self.lock().get(&wallet)
            && by == owner
            && policies.newest.as_ref() == Some(newest)
        {
            return Ok(policies.clone());
        }
        let policies = WalletPolicies::verify(&store.policies(wallet).await?, owner)?;
        self.lock().put(wallet, Verified { owner: *owner, policies: policies.clone() });
        Ok(policies)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<WalletId, Verified>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The policies that apply to a request at `now_ms`: the newest one in effect, and all after it.
pub(super) fn counting<T>(all: &[T], effective_at_ms: impl Fn(&T) -> u64, now_ms: u64) -> &[T] {
    let first = all.iter().rposition(|policy| effective_at_ms(policy) <= now_ms).unwrap_or_default();
    all.get(first..).unwrap_or_default()
}
