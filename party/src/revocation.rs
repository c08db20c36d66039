//! Revocations: this party does not sign a request that its requester or the wallet's owner has
//! revoked.

use duet_protocol::identity::IdentityKey;
use duet_wire::{
    Code, Refusal, SignedRevocation,
    audit::{Asked, Event},
    validity::CLOCK_GRACE_MS,
};

use crate::{
    context::Context,
    error::PartyError,
    store::{Revoked, RevokedRequest},
};

/// Stores a revocation until its request expires. Succeeds without a write if it is known already
/// or if the request has expired.
///
/// # Errors
/// When the request or the signature is invalid. When the signer is neither the requester nor the
/// wallet's owner. When this party does not hold the wallet, the wallet has too many revocations,
/// or the store cannot be written.
pub(crate) async fn take(context: &Context, signed: &SignedRevocation) -> Result<(), PartyError> {
    let SignedRevocation { request: signed_request, proof } = signed;
    let request = signed_request.verify().map_err(|error| PartyError::Refused(Refusal::from(error)))?;
    let hash = signed_request.content_hash();
    proof
        .verify(request.wallet, hash)
        .map_err(|error| PartyError::refused(Code::BadSignature, format!("the revocation: {error}")))?;
    let row = context.committed(request.wallet).await?;
    let share = context.share(&row).await?;
    let is_requester = proof.by == signed_request.requester
        && IdentityKey::from_bytes(&proof.by).is_ok_and(|key| share.wallet().requester(&key).is_some());
    let is_owner = share.wallet().owner().is_some_and(|owner| *owner.as_bytes() == proof.by);
    if !is_requester && !is_owner {
        return Err(PartyError::refused(
            Code::RequesterNotAllowed,
            "a request is revoked by the key that signed it, or by the wallet's owner",
        ));
    }
    let now_ms = context.clock.now_ms();
    let revoked = RevokedRequest {
        wallet: request.wallet,
        request: hash,
        by: proof.by,
        // A party takes a request for this much longer by its own clock.
        expires_at_ms: request.expires_at.saturating_mul(1000).saturating_add(CLOCK_GRACE_MS),
    };
    let event = Event::RequestRevoked { asked: Asked::by(signed_request, &request), by: proof.by };
    match context.noting(event).revoke_request(&revoked, now_ms).await? {
        Revoked::Now => {
            tracing::info!(wallet = %request.wallet, job = %request.job(), "keeps a revocation");
            Ok(())
        }
        Revoked::Before => Ok(()),
        Revoked::Full => Err(PartyError::refused(
            Code::Quota,
            "too many requests of the wallet are revoked; wait until some of them have expired",
        )),
    }
}
