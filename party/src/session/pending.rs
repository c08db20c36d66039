//! Verdicts that a process did not live to reach: what is written before a decryption, and how what
//! was left behind is judged before anything else is initiated.

use duet_protocol::{
    codec,
    hedge::Entropy,
    ids::{CardFingerprint, PartyId},
    pending::{PendingWritten, Unjudgeable},
};
use duet_wire::audit::{Draft, Event};
use serde::{Deserialize, Serialize};

use super::{Finished, engine::Engine, gate::Blame};
use crate::{
    context::Context,
    culprits,
    error::PartyError,
    store::{AnswersOf, Lock, LockOutcome, NewPending, PaillierState, PendingRow, StoreError, pending_label},
};

/// Verdicts that are judged between two looks at the store.
const AT_A_TIME: u32 = 256;

/// A pending verdict as it rests.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// The encoded [`Engine::Pending`], in hexadecimal.
    verdict: String,
    /// The responder's card.
    card: CardFingerprint,
    /// What the audit log says if it is bad.
    event: Event,
}

/// Writes what is about to be decrypted.
///
/// # Errors
/// When it cannot be written, the request has had too many answers, or the responder is quarantined
/// by now. Then nothing may be decrypted.
pub(super) async fn write<E: Engine>(
    context: &Context,
    verdict: &E::Pending,
    blame: &Blame,
    answers: AnswersOf,
) -> Result<PendingWritten, PartyError> {
    let (session, key, _) = E::pending_of(verdict);
    let stored = Stored {
        verdict: hex::encode(codec::encode(verdict)?),
        card: blame.card,
        event: blame.event.clone(),
    };
    let plaintext = serde_json::to_vec(&stored)
        .map_err(|error| PartyError::Stored { what: "pending verdict", reason: error.to_string() })?;
    let (label, at_ms) = (pending_label(session), context.clock.now_ms());
    let store = context.store().answering(answers);
    let (card, record) = (blame.card, context.vault.seal_now(&label, &plaintext)?);
    match store.put_pending(&NewPending { session, key, card, record, at_ms }).await {
        Err(StoreError::KeyChanged) => {
            let record = context.vault.seal(&label, &plaintext).await?;
            store.put_pending(&NewPending { session, key, card, record, at_ms }).await?;
        }
        written => written?,
    }
    Ok(PendingWritten::survives_the_process(session))
}

/// Judges every verdict that processes which are gone left behind, as `owner`, whose Paillier keys
/// they are under. From the first time that it succeeds this process may initiate.
///
/// # Errors
/// When the store cannot be read, or a lock not be written. Repeat it.
pub(crate) async fn finish_pending<E: Engine>(
    context: &Context,
    owner: &PartyId,
) -> Result<Finished, PartyError> {
    let is_start = !context.has_finished_pending();
    let mut finished = Finished::default();
    loop {
        let rows = context.store().abandoned(context.clock.now_ms(), AT_A_TIME).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            if finish::<E>(context, owner, row).await? {
                finished.good += 1;
            } else {
                finished.bad += 1;
            }
        }
    }
    if finished != Finished::default() {
        let Finished { good, bad } = finished;
        context.metrics.finished(finished);
        if is_start {
            let starts = context.store().count_unclean_start().await?;
            tracing::warn!(
                good,
                bad,
                starts,
                "an earlier process ended with sessions under way; their verdicts are judged"
            );
        } else {
            tracing::warn!(good, bad, "a sibling ended with sessions under way; their verdicts are judged");
        }
    }
    if is_start || finished.bad > 0 {
        culprits::blame_unblamed(context).await?;
    }
    context.metrics.unclean_starts(context.store().unclean_starts().await?);
    context.note_finished_pending();
    Ok(finished)
}

/// Judges one; whether it was good.
async fn finish<E: Engine>(context: &Context, owner: &PartyId, row: &PendingRow) -> Result<bool, PartyError> {
    let store = context.store();
    let state = store.paillier_key(row.key).await?.map(|key| key.state);
    if matches!(state, None | Some(PaillierState::Locked)) {
        // Nothing is decrypted with it any more, and there is nothing to lock.
        store.release_verdict(row.key, row.session).await?;
        return Ok(true);
    }
    let at_ms = context.clock.now_ms();
    let (lock, event) = match judge::<E>(context, owner, row).await? {
        Ok(None) => {
            store.release_verdict(row.key, row.session).await?;
            return Ok(true);
        }
        Ok(Some((lock, event))) => (lock, event),
        Err(Unjudgeable) => {
            tracing::error!(session = %row.session, "a pending verdict does not open or fit; its key is locked");
            let (key, session) = (row.key, row.session);
            let lock = Lock { key, session, wallet: None, card: None, evidence: Vec::new(), at_ms };
            (lock, Event::KeysFoundLocked { paillier_keys: vec![key] })
        }
    };
    let key = lock.key;
    if store.noting(Draft::new(at_ms, event)).lock_paillier_key(&lock).await? == LockOutcome::Locked {
        context.metrics.locked();
        context.witness.locked();
        tracing::error!(paillier_key = %key, session = %lock.session, "a bad verdict was left behind: the key is locked");
    }
    context.forget_key(key);
    Ok(false)
}

/// What has to be locked, if anything; or that the record is of no use.
async fn judge<E: Engine>(
    context: &Context,
    owner: &PartyId,
    row: &PendingRow,
) -> Result<Result<Option<(Lock, Event)>, Unjudgeable>, PartyError> {
    let record = match context.vault.read(&pending_label(row.session)).await {
        Ok(record) => record,
        Err(PartyError::Record(_)) => None,
        Err(error) => return Err(error),
    };
    let stored = record.and_then(|record| serde_json::from_slice::<Stored>(&record).ok());
    let Some(Stored { verdict, card, event }) = stored else { return Ok(Err(Unjudgeable)) };
    let pending = hex::decode(verdict).ok().and_then(|bytes| codec::decode(&bytes).ok());
    let Some(pending) = pending else { return Ok(Err(Unjudgeable)) };
    let (session, key, wallet) = E::pending_of(&pending);
    if (session, key) != (row.session, row.key) {
        return Ok(Err(Unjudgeable));
    }
    let Some(wallet_row) = context.store().wallet(wallet).await? else { return Ok(Err(Unjudgeable)) };
    let share = context.share(&wallet_row).await?;
    let paillier = E::key(context, key, owner).await?;
    let judging = move |entropy: &mut dyn Entropy| E::judge(pending, share.wallet(), &paillier, entropy);
    let judged = context.compute.draw(judging).await?;
    Ok(judged.map(|bad| {
        bad.map(|bad| {
            // Evidence that has no encoding is no reason not to lock.
            let evidence = codec::encode(E::evidence(&bad)).unwrap_or_default();
            let at_ms = context.clock.now_ms();
            (Lock { key, session, wallet: Some(wallet), card: Some(card), evidence, at_ms }, event)
        })
    }))
}
