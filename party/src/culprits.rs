//! Responders whose answers locked a key, what that may have cost, and the operator's word to go on
//! all the same.
//!
//! A lock is worth log2(T + 1) bits of a share when T answers were judged under the key, and no
//! rotation takes them back: locks add up over keys. So failures are counted for each wallet for
//! life, and the card of the responder is quarantined until the operator of this party says
//! otherwise, once.

use duet_protocol::{
    codec,
    ids::{CardFingerprint, ShareIndex, WalletId},
    session::CipherEvidence,
    share::KeyShare,
};
use duet_wire::{Code, audit::Event};

use crate::{
    context::Context,
    error::PartyError,
    store::{Culprit, MOVE_FUNDS_AFTER, Standing, UnblamedLock},
};

/// Wallets that are listed at most.
const MAX_LISTED: u32 = 1000;

/// What locks may have cost a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The wallet.
    pub wallet: WalletId,
    /// How many of the keys that it was ever enrolled under are locked.
    pub failures: u32,
    /// How many bits of its shares are lost at most.
    pub max_bits: u32,
}

impl Loss {
    /// Whether its funds are to be moved to a new wallet.
    #[must_use]
    pub const fn should_move_funds(&self) -> bool {
        self.failures >= MOVE_FUNDS_AFTER
    }
}

/// What the operator is told about a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What this party thinks of it now.
    pub standing: Standing,
    /// What locks may have cost, for every wallet with at least one.
    pub losses: Vec<Loss>,
}

/// The bits that a lock tells at most after `verdicts` good answers: the bad one counts as well,
/// and so many answers name one of as many intervals and one.
const fn bits_of_a_lock(verdicts: u64) -> u32 {
    u64::BITS - verdicts.saturating_add(1).leading_zeros()
}

/// What locks may have cost a wallet.
///
/// # Errors
/// When it is not here, or the store cannot be read.
pub async fn loss(context: &Context, wallet: WalletId) -> Result<Loss, PartyError> {
    let failures = context.committed(wallet).await?.failures;
    let verdicts = context.store().losses(wallet).await?;
    Ok(Loss { wallet, failures, max_bits: verdicts.into_iter().map(bits_of_a_lock).sum() })
}

/// What locks may have cost, for the wallets with the most failures first.
///
/// # Errors
/// When the store cannot be read.
pub async fn losses(context: &Context) -> Result<Vec<Loss>, PartyError> {
    let mut losses = Vec::new();
    for row in context.store().failed_wallets(MAX_LISTED).await? {
        losses.push(loss(context, row.id).await?);
    }
    Ok(losses)
}

/// Every card whose answers locked a key of this party.
///
/// # Errors
/// When the store cannot be read.
pub async fn culprits(context: &Context) -> Result<Vec<Culprit>, PartyError> {
    Ok(context.store().culprits().await?)
}

/// Blames responders for a device's locks of which no card is blamed: the one that signed the
/// answer that is kept beside the lock, or else both responders of the wallet, as suspects.
///
/// # Errors
/// When the store cannot be read or written. Then nothing may be initiated.
pub(crate) async fn blame_unblamed(context: &Context) -> Result<(), PartyError> {
    for lock in context.store().unblamed_locks().await? {
        // Without the wallet there is no session that could go on.
        let Some(row) = context.store().wallet(lock.wallet).await? else { continue };
        let share = context.share(&row).await?;
        let cards = match signer(context, &share, &lock).await? {
            Some(card) => vec![card],
            None => responders(&share).collect(),
        };
        tracing::warn!(paillier_key = %lock.key, ?cards, "a lock blames no card yet: these are quarantined");
        context.store().blame(lock.key, &cards).await?;
    }
    Ok(())
}

/// The cards of those who answer the holder of `share`.
fn responders(share: &KeyShare) -> impl Iterator<Item = CardFingerprint> {
    let above = ShareIndex::ALL.into_iter().filter(|index| *index > share.index());
    above.filter_map(|index| share.wallet().holder(index).card().copied())
}

/// The responder whose signature is under the answer that is kept beside a lock.
async fn signer(
    context: &Context,
    share: &KeyShare,
    lock: &UnblamedLock,
) -> Result<Option<CardFingerprint>, PartyError> {
    let evidence = lock.evidence.as_deref().and_then(|bytes| codec::decode::<CipherEvidence>(bytes).ok());
    let Some(evidence) = evidence else { return Ok(None) };
    for fingerprint in responders(share) {
        if let Some(card) = context.card(fingerprint).await?
            && *card.party() == evidence.responder
            && evidence.verify(card.identity()).is_ok()
        {
            return Ok(Some(fingerprint));
        }
    }
    Ok(None)
}

/// Notes the operator's word to go on with the holder of `card` after its first lock, in the audit
/// log as well.
///
/// # Errors
/// When the card locked nothing, when it locked more than one key, or when the store cannot be
/// written.
pub async fn accept(context: &Context, card: CardFingerprint) -> Result<Accepted, PartyError> {
    let accepting = context.noting(Event::CulpritAccepted { card });
    let standing = accepting.accept_culprit(card, context.clock.now_ms()).await?;
    if standing.locks == 0 {
        return Err(PartyError::refused(Code::NotFound, format!("the card {card} locked no key here")));
    }
    if standing.is_final() {
        let message =
            format!("the card {card} locked {} keys, which is final: replace that party", standing.locks);
        return Err(PartyError::refused(Code::Locked, message));
    }
    tracing::warn!(%card, "the operator goes on with a card that locked a key");
    Ok(Accepted { standing, losses: losses(context).await? })
}

#[cfg(test)]
mod tests {
    use super::bits_of_a_lock;

    #[test]
    fn a_lock_is_worth_the_logarithm_of_the_sessions() {
        // One answer names one of two intervals; 128 good ones and a bad one, one of 130.
        for (verdicts, bits) in [(0, 1), (1, 2), (2, 2), (3, 3), (128, 8), (u64::from(u32::MAX), 33)] {
            assert_eq!(bits_of_a_lock(verdicts), bits, "{verdicts}");
        }
    }
}
