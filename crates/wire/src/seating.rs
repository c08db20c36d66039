//! Checks that every party makes before it takes its seat in a session, in whichever process it
//! runs: the manifest against the wallet's own record.

use duet_protocol::{
    identity::IdentityKey,
    ids::ShareIndex,
    share::{KeyShare, WalletPublic},
};

use crate::{
    Code, Manifest, Refusal, SigningRequest,
    manifest::{ManifestError, Seat},
};

/// A manifest that is valid for a wallet and the holder of one of its shares.
///
/// The caller checks what only its store knows: the session is new, the Paillier key is the
/// enrolled one and not locked, and the other seat has the right card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seated {
    /// The manifest.
    pub manifest: Manifest,
    /// The request, as the requester signed it.
    pub request: SigningRequest,
    /// The digest, derived here from the payload.
    pub digest: [u8; 32],
}

impl Seated {
    /// Decodes a manifest's received bytes and checks them for the holder of `share` at `now_ms`
    /// (milliseconds since 1970). It checks the request's signature and document, the seats, epoch,
    /// tenant, requester and kind of payload.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(bytes: &[u8], share: &KeyShare, now_ms: u64) -> Result<Self, Refusal> {
        Self::check_for(bytes, share.wallet(), share.index(), now_ms)
    }

    /// Checks a manifest like [`Self::check`], for the holder of share `own`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check_for(
        bytes: &[u8],
        wallet: &WalletPublic,
        own: ShareIndex,
        now_ms: u64,
    ) -> Result<Self, Refusal> {
        let manifest = Manifest::decode(bytes).map_err(ManifestError::from)?;
        let request = manifest.verify(now_ms)?;
        if manifest.wallet != wallet.id() {
            return Err(Refusal::new(Code::UnknownWallet, "the session is for another wallet"));
        }
        let sits = |seat: &Seat| wallet.holder(seat.index).party() == Some(&seat.party);
        if !sits(&manifest.initiator) || !sits(&manifest.responder) {
            return Err(Refusal::new(
                Code::CardMismatch,
                "another party holds the share of one of the seats",
            ));
        }
        if manifest.initiator.index != own && manifest.responder.index != own {
            return Err(Refusal::new(Code::CardMismatch, "this party's share has no seat in the session"));
        }
        if manifest.epoch != wallet.epoch() {
            return Err(Refusal::new(
                Code::StaleEpoch,
                format!(
                    "the session is for epoch {}, the share is of epoch {}",
                    manifest.epoch,
                    wallet.epoch()
                ),
            ));
        }
        if request.tenant != *wallet.tenant() {
            return Err(Refusal::new(Code::WrongTenant, "the wallet belongs to another tenant"));
        }
        let requester = IdentityKey::from_bytes(&manifest.request.requester)
            .ok()
            .and_then(|key| wallet.requester(&key))
            .ok_or_else(|| {
                Refusal::new(Code::RequesterNotAllowed, "the requester may not ask for this wallet")
            })?;
        if !requester.allows(request.payload.kind()) {
            return Err(Refusal::new(
                Code::KindNotAllowed,
                "the requester may not have this kind of payload signed with this wallet",
            ));
        }
        // The party's policy may allow less.
        request.require_lifetime(now_ms, true)?;
        let digest = request.payload.digest()?;
        Ok(Self { manifest, request, digest })
    }
}
