//! What a party checks before it takes a seat: everything it can, from its own records.

use duet_protocol::{
    ids::{CardFingerprint, ShareIndex},
    share::KeyShare,
};
use duet_wire::{Code, Manifest, SigningRequest, seating::Seated, validity::CLOCK_GRACE_MS};

use super::{Accepted, Role, engine::Engine};
use crate::{
    context::Context,
    error::PartyError,
    identity::Identity,
    metrics::StoreDecision,
    policy,
    store::{EnrolmentRow, PaillierState, Readiness, RequestFacts, Standing, StoreError},
};

/// Checks a manifest's bytes as `identity`: the requester's signature, that the requester may ask
/// this of this wallet, tenant, kind of payload, the wallet's policy, epoch, seats against the
/// wallet's own record, Paillier key and its lock, times, that the request was not revoked; derives
/// the digest, which has to be the one that the job was charged for, if it was; and claims the
/// session id last, so that a session that was refused can be asked for again.
///
/// # Errors
/// [`PartyError::Refused`] with the code of the first check that fails.
pub(crate) async fn check<E: Engine>(
    context: &Context,
    identity: &Identity,
    bytes: Vec<u8>,
) -> Result<Accepted<E>, PartyError> {
    let refuse = |code, message: &str| PartyError::refused(code, message);
    let claimed = Manifest::decode(&bytes)
        .map_err(|e| PartyError::Refused(duet_wire::manifest::ManifestError::from(e).into()))?;
    let wallet = claimed.wallet;
    let (committed, facts) = futures::join!(
        context.committed_with_policy(wallet),
        context.store().request_facts(wallet, claimed.request.content_hash(), claimed.job)
    );
    let ((row, newest_policy), facts) = (committed?, facts?);
    let share = context.share(&row).await?;
    let now_ms = context.clock.now_ms();
    let Seated { manifest, request, digest } =
        Seated::check(&bytes, &share, now_ms).map_err(PartyError::Refused)?;
    if share.wallet().holder(share.index()).card() != Some(&identity.card.fingerprint()) {
        return Err(refuse(Code::CardMismatch, "the wallet is bound to another card of this party"));
    }
    require_current(facts, &request)?;
    if let Some(charged) = facts.charged {
        charged.require(request.signs(digest))?;
    }
    let initiates = manifest.initiator.index == share.index();
    let peer = if initiates { &manifest.responder } else { &manifest.initiator };
    let peer_card = context.holder_card(&share, peer.index).await?.ok_or_else(|| {
        refuse(Code::NotEnrolled, &format!("the card of {} is not known here yet", peer.party))
    })?;

    let role = if initiates {
        initiator(context, &share, &manifest, identity, peer_card.fingerprint()).await?
    } else {
        responder(context, &manifest).await?
    };
    let identity = identity.clone();
    let decided = policy::decide(context, &share, newest_policy.as_ref(), &manifest, &request, now_ms).await;
    context.metrics.decided(&decided);
    let ruling = decided?;
    let is_approved = ruling.is_approved || manifest.initiator.index == ShareIndex::Device;
    request.require_lifetime(now_ms, is_approved).map_err(|error| PartyError::Refused(error.into()))?;
    let accepted = Accepted {
        bytes,
        manifest,
        request,
        digest,
        identity,
        share,
        peer_card,
        role,
        ruling,
        remembered: None,
    };
    let Manifest { session, wallet, expires_at_ms, .. } = accepted.manifest;
    let mut noting = context.noting(accepted.taken());
    if initiates {
        // A responder that lies about its own charge learns no signature before this party has
        // released it; so this party's limits are charged before it begins.
        let path = &accepted.request.path;
        noting = noting.spending(accepted.ruling.spending(&accepted.manifest, path, digest, now_ms));
    }
    let ends_at_ms = expires_at_ms.saturating_add(CLOCK_GRACE_MS);
    let claiming = noting.claim_session(session, wallet, ends_at_ms, now_ms);
    if !context.metrics.stored(StoreDecision::Claim, claiming).await? {
        return Err(refuse(Code::SessionReplayed, "the session was taken before"));
    }
    Ok(accepted)
}

/// That the request was not revoked, nor issued before the store was restored: what happened to it
/// in the meantime is not known here.
fn require_current(facts: RequestFacts, request: &SigningRequest) -> Result<(), PartyError> {
    if facts.is_revoked {
        return Err(StoreError::Revoked.into());
    }
    let Some(restored_at_ms) = facts.restored_at_ms else { return Ok(()) };
    // The issue is told in seconds. In the restore's own second the party did nothing before it.
    match request.issued_at {
        Some(issued_at) if issued_at >= restored_at_ms / 1000 => Ok(()),
        Some(_) => Err(PartyError::refused(
            Code::IssuedBeforeRestore,
            "the request was issued before this party's store was restored; submit a new one",
        )),
        None => Err(PartyError::refused(
            Code::IssuedBeforeRestore,
            "this party's store was restored: it takes requests that state issued_at (version 2)",
        )),
    }
}

async fn initiator<E: Engine>(
    context: &Context,
    share: &KeyShare,
    manifest: &Manifest,
    identity: &Identity,
    responder: CardFingerprint,
) -> Result<Role<E>, PartyError> {
    let refuse = |code, message: &str| PartyError::refused(code, message);
    let store = context.store();
    if let Readiness::Unready(reason) = store.readiness() {
        tracing::error!(reason, "nothing is initiated: the share store is not ready");
        return Err(refuse(
            Code::StorageUnavailable,
            "the party's share store is not ready; the party's operator has to repair it",
        ));
    }
    if context.witness.is_pending() {
        return Err(refuse(
            Code::StorageUnavailable,
            "the share store was not compared yet with what the broker and other parties know of its audit log; \
             try again",
        ));
    }
    if !context.has_finished_pending() {
        return Err(refuse(
            Code::StorageUnavailable,
            "verdicts that an earlier process left behind are not judged yet; try again",
        ));
    }
    let agreed = store.own_enrolment(manifest.wallet, &manifest.responder.party).await?.agreed;
    match agreed {
        None => return Err(refuse(Code::NotEnrolled, "this party is not enrolled with the responder yet")),
        Some(key) if key != manifest.paillier_key => {
            return Err(refuse(Code::StalePaillierKey, "the initiator's Paillier key is another one by now"));
        }
        Some(_) => {}
    }
    let state = store.paillier_key(manifest.paillier_key).await?.map(|key| key.state);
    require_unlocked(state)?;
    let standing = store.standing(responder).await?;
    if !standing.is_trusted() {
        let way = other_way(context, share, manifest.responder.index).await?;
        return Err(distrusted(responder, standing, way));
    }
    match E::key(context, manifest.paillier_key, identity.party()).await {
        Ok(paillier) => Ok(Role::Initiator { paillier }),
        Err(error) => {
            // A lock destroys the key: it may have come in between.
            let state = store.paillier_key(manifest.paillier_key).await?.map(|key| key.state);
            require_unlocked(state)?;
            Err(error)
        }
    }
}

pub(crate) fn require_unlocked(state: Option<PaillierState>) -> Result<(), PartyError> {
    match state {
        Some(PaillierState::Ready) => Ok(()),
        Some(PaillierState::Locked) => Err(PartyError::refused(Code::Locked, locked_message())),
        Some(PaillierState::NeedsRotation) => Err(PartyError::refused(
            Code::NeedsRotation,
            "the share store was restored; rotate the Paillier key before this party initiates",
        )),
        None => Err(PartyError::refused(Code::StalePaillierKey, "the Paillier key is not known here")),
    }
}

/// The refusal to initiate with the holder of a card: what the operator can do, and which pair
/// signs meanwhile.
pub(crate) fn distrusted(card: CardFingerprint, standing: Standing, way: Option<String>) -> PartyError {
    let mut message = if standing.is_final() {
        format!("the responder's card {card} locked {} keys: replace that party", standing.locks)
    } else {
        format!(
            "the responder's card {card} is quarantined after a bad signature; nothing is initiated with it \
             until this party's operator says `accept-culprit {card}`"
        )
    };
    if let Some(way) = way {
        message.push_str("; meanwhile ");
        message.push_str(&way);
    }
    PartyError::refused(Code::Locked, message)
}

/// Which pair signs while the holder of `share` does not initiate with that of `responder`. `None`:
/// none that this party knows of.
async fn other_way(
    context: &Context,
    share: &KeyShare,
    responder: ShareIndex,
) -> Result<Option<String>, PartyError> {
    let wallet = share.wallet();
    let holder = |index: ShareIndex| wallet.holder(index).party().zip(wallet.holder(index).card());
    let others = ShareIndex::ALL.into_iter().filter(|index| *index > share.index() && *index != responder);
    for (party, card) in others.filter_map(holder) {
        if context.store().standing(*card).await?.is_trusted() {
            return Ok(Some(format!("{party} answers this party")));
        }
    }
    let without = ShareIndex::ALL.into_iter().filter(|index| *index != share.index());
    let without: Vec<_> = without.filter_map(holder).map(|(party, _)| party.to_string()).collect();
    Ok(match without.as_slice() {
        [first, second] => Some(format!("{first} and {second} sign")),
        _ => None,
    })
}

pub(crate) const fn locked_message() -> &'static str {
    "a bad signature locked the Paillier key; rotate it before this party initiates again"
}

async fn responder<E: Engine>(context: &Context, manifest: &Manifest) -> Result<Role<E>, PartyError> {
    let held = context.store().enrolments(manifest.wallet).await?;
    let of_initiator: Vec<&EnrolmentRow> =
        held.iter().filter(|row| row.initiator == manifest.initiator.index).collect();
    if of_initiator.is_empty() {
        return Err(PartyError::refused(
            Code::NotEnrolled,
            format!("{} has not enrolled with this party for the wallet", manifest.initiator.party),
        ));
    }
    let row = of_initiator
        .into_iter()
        .find(|row| row.paillier_key == manifest.paillier_key && row.epoch == manifest.epoch)
        .ok_or_else(|| {
            PartyError::refused(Code::StalePaillierKey, "the initiator enrolled with another Paillier key")
        })?;
    Ok(Role::Responder { enrolment: E::enrolment(context, row).await? })
}
