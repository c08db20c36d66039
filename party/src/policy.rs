//! Applies the policies of wallets' owners to signing requests.

mod ruling;
mod verified;

use std::{collections::BTreeSet, time::Duration};

use duet_bus::{Address, Bus};
use duet_protocol::{
    codec,
    ids::{PartyId, WalletId},
    share::KeyShare,
    transcript::sha256,
};
use duet_wire::{
    Code, Manifest, Refusal, SignedRequest, SigningRequest,
    audit::{Asked, Event},
    policy::{
        DatedApproval, Decision, Facts, HeldPolicy, PolicyReceipt, PolicyReply, PolicyRequest,
        RequestApproval, SignedPolicy, SignedReceipt,
    },
    request::Pair,
    signing::BadSignature,
    validity::{self, APPROVAL_VALID_S, CLOCK_GRACE_MS, span},
};

pub(crate) use self::ruling::Ruling;
use self::verified::counting;
pub use self::verified::{VerifiedPolicies, VerifiedPolicy, WalletPolicies};
use crate::{
    context::Context,
    error::PartyError,
    identity::Identity,
    store::{PolicyMark, PolicyRow, PutPolicy},
};

fn owner(share: &KeyShare) -> Result<[u8; 32], PartyError> {
    share.wallet().owner().map(|owner| *owner.as_bytes()).ok_or_else(|| {
        PartyError::refused(Code::Unauthorized, "the wallet has no owner who could set a policy")
    })
}

/// Decides on a request. `newest` is the mark of the newest policy, just read from the store.
///
/// # Errors
/// [`PartyError::RefusedByPolicy`], with the rule that came nearest to allowing the request.
pub(crate) async fn decide(
    context: &Context,
    share: &KeyShare,
    newest: Option<&PolicyMark>,
    manifest: &Manifest,
    request: &SigningRequest,
    now_ms: u64,
) -> Result<Ruling, PartyError> {
    if newest.is_none() {
        return Ok(Ruling::default());
    }
    let pair: Pair = manifest
        .pair()
        .ok_or_else(|| PartyError::refused(Code::PeerMisbehaved, "no pair has these two seats"))?;
    let owner = owner(share)?;
    let held = context.policies.of(&**context.store(), manifest.wallet, newest, &owner).await?;
    let policies = held.counting(now_ms);
    let mut approved_by = BTreeSet::new();
    if policies.iter().any(|held| held.policy.asks_for_approvals()) {
        let hash = manifest.request.content_hash();
        approved_by.extend(context.store().approvals(manifest.wallet, hash, now_ms).await?);
    }
    let facts = Facts {
        requester: &manifest.request.requester,
        payload: &request.payload,
        pair,
        now_s: now_ms / 1000,
        owner: &owner,
        approved_by: &approved_by,
    };
    let mut ruling = Ruling { decided_by: held.newest, ..Ruling::default() };
    for VerifiedPolicy { policy, .. } in policies {
        let decision = policy.decide(&facts);
        if let Some(refusal) = decision.refusal() {
            return Err(PartyError::RefusedByPolicy { rule: decision.rule().map(str::to_owned), refusal });
        }
        if let Decision::Allowed { rule, spend } = decision {
            ruling.is_approved |= policy.needs_approval(&rule, &request.payload);
            // The last policy in this loop is the newest. Its rule is reported; all earlier ones
            // allow the request too.
            ruling.rule = Some(rule);
            ruling.spends.push(spend);
        }
    }
    Ok(ruling)
}

/// Stores a policy if its owner signed it and it is newer than the others. Returns a signed
/// receipt.
///
/// # Errors
/// When one of these does not hold, or when the policy cannot be stored.
pub(crate) async fn take(
    context: &Context,
    identity: &Identity,
    wallet: WalletId,
    signed: SignedPolicy,
) -> Result<SignedReceipt, PartyError> {
    let (row, newest) = context.committed_with_policy(wallet).await?;
    let share = context.share(&row).await?;
    let owner = owner(&share)?;
    let policy = signed.verify(&owner).map_err(|error| PartyError::Refused(Refusal::from(error)))?;
    if policy.wallet != wallet {
        return Err(PartyError::refused(Code::Conflict, "the policy is for another wallet"));
    }
    let now_ms = context.clock.now_ms();
    let known = context.policies.of(&**context.store(), wallet, newest.as_ref(), &owner).await?;
    // The first policy only narrows the wallet's record, so it takes effect at once. A later one
    // waits for the longest delay of the policies that apply now.
    let mut delay_s = 0;
    for held in known.counting(now_ms) {
        delay_s = delay_s.max(held.policy.delay_s);
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

/// The policies of a wallet that apply now or later.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn show(context: &Context, wallet: WalletId) -> Result<Vec<HeldPolicy>, PartyError> {
    let rows = context.store().policies(wallet).await?;
    let counting = counting(&rows, |row| row.effective_at_ms, context.clock.now_ms());
    Ok(counting
        .iter()
        .map(|row| HeldPolicy { effective_at_ms: row.effective_at_ms, policy: row.signed.clone() })
        .collect())
}

/// Records an approval without a date. It counts for a day from its arrival, and the orchestrator
/// can delay that arrival. So it does not lengthen the request's day of validity.
///
/// # Errors
/// As [`take_dated_approval`]. Also when the request is valid for longer than a day.
pub(crate) async fn take_approval(context: &Context, approval: &RequestApproval) -> Result<(), PartyError> {
    approval.verify().map_err(not_by_approver)?;
    let request = verified(&approval.request)?;
    let now_ms = context.clock.now_ms();
    request.require_lifetime(now_ms, false).map_err(|error| {
        PartyError::refused(
            error.code(),
            format!("{error}; or have it approved with a date, by a newer `duet policy approve`"),
        )
    })?;
    note_approval(context, &approval.request, &request, approval.approver, now_ms, now_ms).await
}

/// Records an approval, if an applying policy asks this approver. It counts for a day from its
/// date.
///
/// # Errors
/// When no policy asks the approver, or when the approval or its request is invalid. When the
/// clocks differ, or when the store cannot be written.
pub(crate) async fn take_dated_approval(
    context: &Context,
    approval: &DatedApproval,
) -> Result<(), PartyError> {
    approval.verify().map_err(not_by_approver)?;
    let request = verified(&approval.request)?;
    let (now_ms, issued_at_ms) = (context.clock.now_ms(), approval.issued_at.saturating_mul(1000));
    if issued_at_ms.saturating_sub(now_ms) > CLOCK_GRACE_MS {
        let relation = validity::relation(issued_at_ms, now_ms);
        let message =
            format!("the approver's clock is {relation} this party's; set it right and approve again");
        return Err(PartyError::refused(Code::ClockDiffers, message));
    }
    if now_ms >= issued_at_ms.saturating_add(APPROVAL_VALID_S * 1000) {
        let message = format!("the approval is older than {}; approve again", span(APPROVAL_VALID_S * 1000));
        return Err(PartyError::refused(Code::ApprovalMissing, message));
    }
    note_approval(context, &approval.request, &request, approval.approver, issued_at_ms, now_ms).await
}

fn verified(signed: &SignedRequest) -> Result<SigningRequest, PartyError> {
    signed.verify().map_err(|error| PartyError::Refused(Refusal::from(error)))
}

fn not_by_approver(error: BadSignature) -> PartyError {
    PartyError::refused(Code::BadSignature, format!("the approval: {error}"))
}

async fn note_approval(
    context: &Context,
    signed: &SignedRequest,
    request: &SigningRequest,
    approver: [u8; 32],
    issued_at_ms: u64,
    now_ms: u64,
) -> Result<(), PartyError> {
    let (row, newest) = context.committed_with_policy(request.wallet).await?;
    let share = context.share(&row).await?;
    let owner = owner(&share)?;
    let request_ends_at_ms = request.expires_at.saturating_mul(1000);
    if now_ms >= request_ends_at_ms {
        return Err(PartyError::refused(Code::JobExpired, "the request has expired"));
    }
    let held = context.policies.of(&**context.store(), request.wallet, newest.as_ref(), &owner).await?;
    let mut counts = approver == owner;
    for VerifiedPolicy { policy, .. } in held.counting(now_ms) {
        counts |= policy
            .rules
            .iter()
            .filter_map(|rule| rule.approvals.as_ref())
            .any(|approvals| approvals.keys.contains(&approver));
    }
    if !counts {
        return Err(PartyError::refused(
            Code::Unauthorized,
            "no rule of the wallet's policy asks this key for approvals: expected a key of `approvals` in a rule that \
             counts, or the owner's",
        ));
    }
    let approved = Event::RequestApproved { asked: Asked::by(signed, request), approver };
    let expires_at_ms = request_ends_at_ms.min(issued_at_ms.saturating_add(APPROVAL_VALID_S * 1000));
    // For as long as this party takes the request by its own clock.
    let expires_at_ms = expires_at_ms.saturating_add(CLOCK_GRACE_MS);
    context
        .noting(approved)
        .put_approval(request.wallet, signed.content_hash(), approver, expires_at_ms, now_ms)
        .await?;
    Ok(())
}

/// How long a party may take to store a policy, or to return it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks another party a question about policies.
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
    use std::sync::Arc;

    use duet_wire::signing::SigningKey;

    use super::*;
    use crate::store::{
        PolicyStore as _,
        sqlite::{SqliteOptions, SqliteStore},
    };

    const WALLET: WalletId = WalletId([1; 32]);

    fn row(revision: u64, owner: &SigningKey) -> PolicyRow {
        let body = format!(
            r#"{{"version":1,"wallet":"{}","revision":{revision},"delay":"1h","rules":[{{"name":"messages","payloads":["personal_message"]}}]}}"#,
            "01".repeat(32)
        );
        PolicyRow {
            revision,
            effective_at_ms: revision,
            signed: SignedPolicy::sign(body.into_bytes(), owner).unwrap(),
        }
    }

    /// The revisions of the held policies.
    fn revisions(policies: &WalletPolicies) -> Vec<u64> {
        policies.all.iter().map(|held| held.policy.revision).collect()
    }

    #[tokio::test]
    async fn what_was_verified_once_serves_until_the_store_has_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(&SqliteOptions::at(folder.path().join("store.db"))).await.unwrap();
        let owner = SigningKey::from_bytes(&[7; 32]);
        let key = owner.verifying_key().to_bytes();
        let verified = VerifiedPolicies::default();
        let of = async |newest: &PolicyRow, key: &[u8; 32]| {
            verified.of(&store, WALLET, Some(&newest.mark()), key).await
        };

        let (first, second) = (row(1, &owner), row(2, &owner));
        store.put_policy(WALLET, &first, 0).await.unwrap();
        let held = of(&first, &key).await.unwrap();
        assert_eq!((held.newest, revisions(&held)), (Some(first.mark()), vec![1]));
        assert!(Arc::ptr_eq(&held.all, &of(&first, &key).await.unwrap().all), "read once");
        let other_owner = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        assert!(of(&first, &other_owner).await.is_err(), "verified for one owner alone");

        // Another worker stored a policy. The cached ones serve only a caller that read the store
        // earlier.
        store.put_policy(WALLET, &second, 0).await.unwrap();
        assert_eq!(revisions(&of(&first, &key).await.unwrap()), [1]);
        let held = of(&second, &key).await.unwrap();
        assert_eq!((held.newest, revisions(&held)), (Some(second.mark()), vec![1, 2]));
        // A restored store then accepted a policy with the same revision, or with another time.
        for changed in [
            PolicyRow { effective_at_ms: 9, ..second.clone() },
            PolicyRow { signed: row(3, &owner).signed, ..second.clone() },
        ] {
            assert!(!Arc::ptr_eq(&held.all, &of(&changed, &key).await.unwrap().all), "read anew");
        }
        assert!(verified.of(&store, WALLET, None, &key).await.unwrap().all.is_empty());

        // An attacker who writes the file cannot sign as the owner.
        store.put_policy(WALLET, &row(4, &SigningKey::from_bytes(&[8; 32])), 0).await.unwrap();
        assert!(of(&row(4, &owner), &key).await.is_err());
    }
}
