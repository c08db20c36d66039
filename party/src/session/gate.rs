//! The gate of a verdict: the only place where the store's word becomes the protocol's tokens.

use duet_protocol::{
    codec,
    ids::{CardFingerprint, PaillierKeyId, PartyId, SessionId, WalletId},
    responder::Charged,
    signature::RecoverableSignature,
    verdict::{LockWritten, Unlocked},
};
use duet_wire::audit::{Draft, Event};

use super::{
    Accepted,
    engine::{Engine, Verdict},
};
use crate::{
    clock::Clock,
    store::{AnswersOf, Charge, Gate, Lock, LockOutcome, PaillierState, ShareStore, Spending, StoreError},
};

/// What may be said about a verdict.
#[derive(Debug)]
pub(crate) enum Released {
    /// The signature.
    Signature {
        /// It.
        signature: RecoverableSignature,
        /// The hash of the answer it was made from.
        answer: [u8; 32],
    },
    /// The culprit of the bad signature, which this session locked the key for.
    BadSignature(PartyId),
    /// That the key is locked or needs rotation, and nothing about the verdict.
    Closed(PaillierState),
}

/// What a bad verdict is written down with.
#[derive(Debug, Clone)]
pub(crate) struct Blame {
    /// The session.
    pub(crate) session: SessionId,
    /// The Paillier key.
    pub(crate) key: PaillierKeyId,
    /// The wallet that was to sign.
    pub(crate) wallet: WalletId,
    /// The responder's card.
    pub(crate) card: CardFingerprint,
    /// What the audit log says of it.
    pub(crate) event: Event,
}

impl Blame {
    pub(super) fn of<E: Engine>(accepted: &Accepted<E>) -> Self {
        let manifest = &accepted.manifest;
        Self {
            session: manifest.session,
            key: manifest.paillier_key,
            wallet: manifest.wallet,
            card: accepted.peer_card.fingerprint(),
            event: accepted.locked(manifest.paillier_key),
        }
    }
}

/// Takes a verdict through the gate of its Paillier key. On an error nothing may be said at all.
///
/// # Errors
/// When the store cannot write the lock or read it.
pub(crate) async fn release<E: Engine>(
    store: &dyn ShareStore,
    verdict: Verdict<E>,
    clock: &Clock,
    blame: Blame,
) -> Result<Released, StoreError> {
    let Blame { session, key, wallet, card, event } = blame;
    let foreign = |_| StoreError::Corrupt("a token of another session");
    match verdict {
        Verdict::Good(good) => match store.release_verdict(key, session).await? {
            Gate::Open => {
                let unlocked = Unlocked::found_by_linearisable_read(key, session);
                let (signature, answer) = E::release(good, unlocked).map_err(foreign)?;
                Ok(Released::Signature { signature, answer })
            }
            Gate::Closed(state) => Ok(Released::Closed(state)),
        },
        Verdict::Bad(bad) => {
            // Evidence that has no encoding is no reason not to lock.
            let evidence = codec::encode(E::evidence(&bad)).unwrap_or_default();
            let at_ms = clock.now_ms();
            let lock = Lock { key, session, wallet: Some(wallet), card: Some(card), evidence, at_ms };
            match store.noting(Draft::new(at_ms, event)).lock_paillier_key(&lock).await? {
                LockOutcome::Locked => E::settle(bad, LockWritten::committed_durably(key, session))
                    .map(Released::BadSignature)
                    .map_err(foreign),
                LockOutcome::AlreadyLocked => Ok(Released::Closed(PaillierState::Locked)),
            }
        }
    }
}

/// Charges a session and `spending` durably, counts the answer, and records that as `charged`.
/// `None` when it was charged before: then no answer may leave.
///
/// # Errors
/// When a limit has no room, the request has had too many answers, or the store cannot write.
pub(crate) async fn charge(
    store: &dyn ShareStore,
    charge: &Charge,
    spending: Spending,
    answers: AnswersOf,
    charged: Event,
) -> Result<Option<Charged>, StoreError> {
    let noting = store.noting(Draft::new(charge.charged_at_ms, charged)).spending(spending);
    let new = noting.answering(answers).charge(charge).await?;
    Ok(new.then(|| Charged::committed_durably(charge.session, charge.wallet, charge.digest)))
}
