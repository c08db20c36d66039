//! Policies at work: what this party holds of a wallet's owner, and what it says to a request.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use duet_bus::{Address, Bus};
use duet_protocol::{
    codec,
    ids::{PartyId, WalletId},
    public_key::DerivationPath,
    share::KeyShare,
    transcript::{self, sha256},
};
use duet_wire::{
    Code, Manifest, Refusal, SigningRequest,
    audit::Event,
    policy::{
        Decision, Facts, HeldPolicy, Policy, PolicyError, PolicyReceipt, PolicyReply, PolicyRequest,
        RequestApproval, SignedPolicy, SignedReceipt, Spend,
    },
    request::Pair,
};
use lru::LruCache;

use crate::{
    context::{Context, Identity},
    error::PartyError,
    store::{PolicyRow, PutPolicy, Spending},
};

/// What the wallet's policies say to a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ruling {
    /// The rule that allows it; `None` when the wallet has no policy.
    pub(crate) rule: Option<String>,
    /// What is charged to the limits.
    spends: Vec<Spend>,
    /// The newest policy that was asked.
    decided_by: Option<u64>,
}

impl Ruling {
    /// What is charged at `now_ms` for a signature over `digest` by the wallet's child at `path`.
    ///
    /// A transaction's digest does not say who sends it: by the keys of two paths it moves money twice.
    pub(crate) fn spending(
        &self,
        manifest: &Manifest,
        path: &DerivationPath,
        digest: [u8; 32],
        now_ms: u64,
    ) -> Spending {
        Spending {
            wallet: manifest.wallet,
            spent: transcript::hash("spent", &(path, digest)),
            decided_by: self.decided_by,
            at_ms: now_ms,
            spends: self.spends.clone(),
        }
    }
}

fn owner(share: &KeyShare) -> Result<[u8; 32], PartyError> {
    share.wallet().owner().map(|owner| *owner.as_bytes()).ok_or_else(|| {
        PartyError::refused(Code::Unauthorized, "the wallet has no owner who could set a policy")
    })
}

/// Policies that were read and whose owner's signature was verified lately: for each session only what the store holds is
/// compared. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifiedPolicies(Arc<Mutex<LruCache<[u8; 32], Arc<Policy>>>>);

/// Policies that stay in memory, at most some hundred kilobytes each and mostly a few.
const MAX_POLICIES: NonZeroUsize = NonZeroUsize::new(64).unwrap();

impl Default for VerifiedPolicies {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_POLICIES))))
    }
}

impl VerifiedPolicies {
    /// As [`SignedPolicy::verify`].
    ///
    /// # Errors
    /// As [`SignedPolicy::verify`].
    pub fn verify(&self, signed: &SignedPolicy, owner: &[u8; 32]) -> Result<Arc<Policy>, PolicyError> {
        // Both heads have one length, so no two policies share a text.
        let verified = sha256(&[owner.as_slice(), &signed.signature, &signed.body].concat());
        if let Some(policy) = self.lock().get(&verified) {
            return Ok(Arc::clone(policy));
        }
        let policy = Arc::new(signed.verify(owner)?);
        self.lock().put(verified, Arc::clone(&policy));
        Ok(policy)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<[u8; 32], Arc<Policy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(context: &Context, row: &PolicyRow, owner: &[u8; 32]) -> Result<Arc<Policy>, PartyError> {
    context
        .policies
        .verify(&row.signed, owner)
        .map_err(|error| PartyError::Stored { what: "policy", reason: error.to_string() })
}

/// The policies that a request has to pass at `now_ms`: the newest in effect, and all after it.
fn counting(rows: &[PolicyRow], now_ms: u64) -> &[PolicyRow] {
    let first = rows.iter().rposition(|row| row.effective_at_ms <= now_ms).unwrap_or_default();
    rows.get(first..).unwrap_or_default()
}

/// Decides upon a request.
///
/// # Errors
/// [`PartyError::RefusedByPolicy`] with the rule that came nearest.
pub(crate) async fn decide(
    context: &Context,
    share: &KeyShare,
    manifest: &Manifest,
    request: &SigningRequest,
    now_ms: u64,
) -> Result<Ruling, PartyError> {
    let rows = context.store().policies(manifest.wallet).await?;
    if rows.is_empty() {
        return Ok(Ruling::default());
    }
    let pair: Pair = manifest
        .pair()
        .ok_or_else(|| PartyError::refused(Code::PeerMisbehaved, "the seats are those of no pair"))?;
    let owner = owner(share)?;
    let policies = counting(&rows, now_ms)
        .iter()
        .map(|row| parse(context, row, &owner))
        .collect::<Result<Vec<_>, PartyError>>()?;
    let mut approved_by = BTreeSet::new();
    if policies.iter().any(|policy| policy.asks_for_approvals()) {
        let hash = manifest.request.content_hash();
        approved_by.extend(context.store().approvals(manifest.wallet, hash).await?);
    }
    let facts = Facts {
        requester: &manifest.request.requester,
        payload: &request.payload,
        pair,
        now_s: now_ms / 1000,
        owner: &owner,
        approved_by: &approved_by,
    };
    let mut ruling = Ruling { decided_by: rows.last().map(|row| row.revision), ..Ruling::default() };
    for policy in policies {
        let decision = policy.decide(&facts);
        if let Some(refusal) = decision.refusal() {
            return Err(PartyError::RefusedByPolicy { rule: decision.rule().map(str::to_owned), refusal });
        }
        if let Decision::Allowed { rule, spend } = decision {
            // The newest is named: what it allows the ones before allow as well.
            ruling.rule = Some(rule);
            ruling.spends.push(spend);
        }
    }
    Ok(ruling)
}

/// Takes a policy, if it is its owner's and newer than the others, and says so.
///
/// # Errors
/// When it is not, or cannot be stored.
pub(crate) async fn take(
    context: &Context,
    identity: &Identity,
    wallet: WalletId,
    signed: SignedPolicy,
) -> Result<SignedReceipt, PartyError> {
    let row = context.committed(wallet).await?;
    let share = context.share(&row).await?;
    let owner = owner(&share)?;
    let policy = signed.verify(&owner).map_err(|error| PartyError::Refused(Refusal::from(error)))?;
    if policy.wallet != wallet {
        return Err(PartyError::refused(Code::Conflict, "the policy is for another wallet"));
    }
    let now_ms = context.clock.now_ms();
    let known = context.store().policies(wallet).await?;
    // The first policy only narrows what the wallet's record allows; a later one waits as long as the
    // longest of those that count asks for.
    let mut delay_s = 0;
    for row in counting(&known, now_ms) {
        delay_s = delay_s.max(parse(context, row, &owner)?.delay_s);
    }
    let new = PolicyRow {
        revision: policy.revision,
        effective_at_ms: now_ms.saturating_add(delay_s.saturating_mul(1000)),
        signed,
    };
    let hash = sha256(&new.signed.body);
    let set = Event::PolicySet {
        wallet,
        revision: new.revision,
        policy: hash,
        effective_at_ms: new.effective_at_ms,
    };
    let stored = match context.noting(set).put_policy(wallet, &new, now_ms).await? {
        PutPolicy::Stored => new,
        PutPolicy::Already(row) => row,
        PutPolicy::Stale(revision) => {
            return Err(PartyError::refused(
                Code::Conflict,
                format!("a policy of revision {revision} is held here; write a higher one"),
            ));
        }
        PutPolicy::TooManyPending => {
            return Err(PartyError::refused(
                Code::Conflict,
                "too many changes of the policy wait to count; wait until one does",
            ));
        }
    };
    tracing::info!(%wallet, revision = stored.revision, effective_at_ms = stored.effective_at_ms, "took a policy");
    let receipt =
        PolicyReceipt { wallet, revision: stored.revision, hash, effective_at_ms: stored.effective_at_ms };
    Ok(SignedReceipt::sign(&receipt, &*identity.keys)?)
}

/// The policies that count.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn show(context: &Context, wallet: WalletId) -> Result<Vec<HeldPolicy>, PartyError> {
    let rows = context.store().policies(wallet).await?;
    let counting = counting(&rows, context.clock.now_ms());
    Ok(counting
        .iter()
        .map(|row| HeldPolicy { effective_at_ms: row.effective_at_ms, policy: row.signed.clone() })
        .collect())
}

/// Notes an approval, if the policies that count ask this approver.
///
/// # Errors
/// When they do not, the approval or its request does not hold, or it cannot be stored.
pub(crate) async fn take_approval(context: &Context, approval: &RequestApproval) -> Result<(), PartyError> {
    let malformed = |error: duet_wire::request::RequestError| PartyError::Refused(Refusal::from(error));
    let request = approval.request.verify().map_err(malformed)?;
    approval
        .verify()
        .map_err(|error| PartyError::refused(Code::BadSignature, format!("the approval: {error}")))?;
    let row = context.committed(request.wallet).await?;
    let share = context.share(&row).await?;
    let owner = owner(&share)?;
    let now_ms = context.clock.now_ms();
    let expires_at_ms = request.expires_at.saturating_mul(1000);
    if now_ms >= expires_at_ms {
        return Err(PartyError::refused(Code::JobExpired, "the request has expired"));
    }
    let rows = context.store().policies(request.wallet).await?;
    let mut counts = approval.approver == owner;
    for row in counting(&rows, now_ms) {
        let policy = parse(context, row, &owner)?;
        counts |= policy
            .rules
            .iter()
            .filter_map(|rule| rule.approvals.as_ref())
            .any(|approvals| approvals.keys.contains(&approval.approver));
    }
    if !counts {
        return Err(PartyError::refused(
            Code::Unauthorized,
            "no rule of the wallet's policy asks this key for approvals",
        ));
    }
    let approved = Event::RequestApproved {
        asked: duet_wire::audit::Asked::by(&approval.request, &request),
        approver: approval.approver,
    };
    let hash = approval.request.content_hash();
    context
        .noting(approved)
        .put_approval(request.wallet, hash, approval.approver, expires_at_ms, now_ms)
        .await?;
    Ok(())
}

/// How long a party may take to store a policy, or to show it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks another party something about policies.
pub(crate) async fn ask(
    bus: &Bus,
    from: &PartyId,
    to: &PartyId,
    request: &PolicyRequest,
) -> Result<PolicyReply, PartyError> {
    let address = Address::Card { from: from.into(), to: to.clone() };
    let reply = bus.request(&address, codec::encode(request)?, DEADLINE).await?;
    match codec::decode(&reply) {
        Ok(PolicyReply::Refused(refusal)) => Err(PartyError::RefusedBy { by: to.to_string(), refusal }),
        Ok(reply) => Ok(reply),
        Err(reason) => Err(PartyError::Malformed { from: to.to_string(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use duet_wire::signing::SigningKey;

    use super::*;

    #[test]
    fn what_was_verified_once_vouches_for_nothing_else() {
        let owner = SigningKey::from_bytes(&[7; 32]);
        let key = owner.verifying_key().to_bytes();
        let body = |to: &str| {
            format!(
                r#"{{"version":1,"wallet":"{}","revision":1,"delay":"1h","rules":[{{"name":"payouts","payloads":["transaction"],"chains":[1],"to":["{to}"],"max_value":"1"}}]}}"#,
                "01".repeat(32)
            )
        };
        let [payee, thief] =
            ["0x00000000000000000000000000000000DeaDBeef", "0x000000000000000000000000000000000000dEaD"];
        let signed = SignedPolicy::sign(body(payee).into_bytes(), &owner).unwrap();
        let verified = VerifiedPolicies::default();
        let first = verified.verify(&signed, &key).unwrap();
        assert!(Arc::ptr_eq(&first, &verified.verify(&signed, &key).unwrap()), "verified once");
        let other_owner = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert!(verified.verify(&signed, &other_owner).is_err());
        let changed = SignedPolicy { body: body(thief).into_bytes(), ..signed.clone() };
        assert!(verified.verify(&changed, &key).is_err());
        let mut forged = signed;
        forged.signature[0] ^= 1;
        assert!(verified.verify(&forged, &key).is_err());
    }
}
