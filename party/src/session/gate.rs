//! The gate of a verdict: the only place where the store's word becomes the protocol's tokens.

use duet_protocol::{
    codec,
    ids::{CardFingerprint, WalletId},
    responder::Charged,
    signature::RecoverableSignature,
    verdict::{BadSignatureReport, LockWritten, Unlocked, Verdict},
};
use duet_wire::audit::{Draft, Event};

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
    /// The bad signature, which this session locked the key for.
    BadSignature(BadSignatureReport),
    /// That the key is locked or needs rotation, and nothing about the verdict.
    Closed(PaillierState),
}

/// What a bad verdict is written down with.
#[derive(Debug, Clone)]
pub(crate) struct Blame {
    /// The wallet that was to sign.
    pub(crate) wallet: WalletId,
    /// The responder's card.
    pub(crate) card: CardFingerprint,
    /// What the audit log says of it.
    pub(crate) event: Event,
}

/// Takes a verdict through the gate of its Paillier key. On an error nothing may be said at all.
///
/// # Errors
/// When the store cannot write the lock or read it.
pub(crate) async fn release(
    store: &dyn ShareStore,
    verdict: Verdict,
    clock: &Clock,
    blame: Blame,
) -> Result<Released, StoreError> {
    let key = verdict.paillier_key();
    match verdict {
        Verdict::Good(gated) => match store.release_verdict(key, gated.session()).await? {
            Gate::Open => {
                let unlocked = Unlocked::found_by_linearisable_read(key, gated.session());
                gated
                    .release(unlocked)
                    .map(|(signature, evidence)| Released::Signature {
                        signature,
                        answer: evidence.ciphertext_hash,
                    })
                    .map_err(|_| StoreError::Corrupt("a token of another session"))
            }
            Gate::Closed(state) => Ok(Released::Closed(state)),
        },
        Verdict::Bad(demand) => {
            let session = demand.session();
            // Evidence that has no encoding is no reason not to lock.
            let evidence = codec::encode(demand.evidence()).unwrap_or_default();
            let now_ms = clock.now_ms();
            let Blame { wallet, card, event } = blame;
            let lock = Lock { key, session, wallet: Some(wallet), card: Some(card), evidence, at_ms: now_ms };
            match store.noting(Draft::new(now_ms, event)).lock_paillier_key(&lock).await? {
                LockOutcome::Locked => demand
                    .settle(LockWritten::committed_durably(key, session))
                    .map(Released::BadSignature)
                    .map_err(|_| StoreError::Corrupt("a token of another session")),
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
