//! The decision of a wallet's policies on a request.

use duet_protocol::{public_key::DerivationPath, transcript};
use duet_wire::{Manifest, policy::Spend};

use crate::store::{PolicyMark, Spending};

/// The decision of a wallet's policies on a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ruling {
    /// The rule that allows the request. `None` when the wallet has no policy.
    pub(crate) rule: Option<String>,
    /// Whether the rule required an approval. Approvals have a date of their own, so the request
    /// may be older than otherwise permitted.
    pub(crate) is_approved: bool,
    /// The amounts to charge to the limits.
    pub(super) spends: Vec<Spend>,
    /// The mark of the newest policy in the decision.
    pub(super) decided_by: Option<PolicyMark>,
}

impl Ruling {
    /// The charge at `now_ms` for a signature over `digest` by the wallet's child key at `path`.
    ///
    /// The path is part of the charge, because a transaction's digest does not name its sender.
    /// Signed by the keys of two paths, the same transaction moves money twice.
    pub(crate) fn spending(
        &self,
        manifest: &Manifest,
        path: &DerivationPath,
        digest: [u8; 32],
        now_ms: u64,
    ) -> Spending {
        Spending {
            wallet: manifest.wallet,
            request: manifest.request.content_hash(),
            spent: transcript::hash("spent", &(path, digest)),
            decided_by: self.decided_by,
            at_ms: now_ms,
            spends: self.spends.clone(),
        }
    }
}
