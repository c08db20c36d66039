//! Handles the parties' reports about their sessions: `duet.v1.outcome.<session>.<from>`. Any
//! orchestrator may receive a report about any session. It writes the report into the job's record
//! by compare-and-swap, so it does not matter which orchestrator started the session.

use std::sync::Arc;

use bytes::Bytes;
use duet_bus::{
    Address, Incoming,
    kv::{Entry, Key},
};
use duet_protocol::{
    codec,
    ids::{PartyId, SessionId},
};
use duet_queue::{
    actions::NotSigned,
    already_signed,
    failure::{Failure, running_pair, said_by},
    store::{JobKey, Version},
    verified::{NotVerified, SealedResult, Verified},
};
use duet_wire::{
    Code, Outcome, OutcomeReply, OutcomeResult, Pair, RecoverableSignature, Refusal, SignedOutcome,
    SigningRequest, audit::Refused, job::Evidence, session_state::SessionRecord,
};
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use crate::{
    jobs::{StoreError, request_of},
    orchestrator::Orchestrator,
    wallet_facts::WalletFacts,
};

/// How many reports are handled at once. More wait in the subscription.
pub(crate) const CONCURRENCY: usize = 64;

/// Why a report is not acknowledged.
enum NotTaken {
    /// A repeated report would be refused as well.
    Refused(Refusal),
    /// The report cannot be judged now. Its sender gets no answer and reports again.
    Later(String),
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

fn refused(code: Code, message: &str) -> NotTaken {
    NotTaken::Refused(Refusal::new(code, message))
}

fn too_late() -> NotTaken {
    refused(Code::Conflict, "the session is over; its signature comes too late")
}

impl Orchestrator {
    /// Handles one report.
    pub(crate) async fn take_outcome(&self, incoming: Incoming) {
        let Address::Outcome { session, from } = &incoming.address else { return };
        let (session, from) = (*session, from.clone());
        let span = tracing::info_span!("outcome", %session, %from);
        incoming.continue_trace(&span);
        async {
            let reply = match self.judge_outcome(session, &from, &incoming.payload).await {
                Ok(()) => OutcomeReply::Acknowledged,
                Err(NotTaken::Refused(refusal)) => {
                    tracing::warn!(code = %refusal.code, message = refusal.message, "report refused");
                    let refused = Refused::new("report", refusal.clone());
                    self.note_refused(Refused { session: Some(session), ..refused });
                    OutcomeReply::Refused(refusal)
                }
                Err(NotTaken::Later(reason)) => {
                    tracing::warn!(reason, "a report cannot be judged now");
                    return;
                }
            };
            match codec::encode(&reply) {
                Ok(reply) => {
                    if let Err(error) = incoming.respond(Bytes::from(reply)).await {
                        tracing::debug!(%error, "the report's sender was not answered");
                    }
                }
                Err(error) => tracing::error!(%error, "an answer to a report does not encode"),
            }
        }
        .instrument(span)
        .await;
    }

    async fn judge_outcome(
        &self,
        session: SessionId,
        from: &PartyId,
        payload: &[u8],
    ) -> Result<(), NotTaken> {
        let signed: SignedOutcome = codec::decode(payload).map_err(|error| {
            Refusal::new(Code::MalformedMessage, format!("the report does not parse: {error}"))
        })?;
        let Some(record) = self.sessions.get(session).await? else {
            return Err(refused(Code::NotFound, "there is no such session"));
        };
        let (pair, seat) = seat_of(&record, from)
            .ok_or_else(|| refused(Code::Unauthorized, "the reporter has no seat in this session"))?;
        let facts = self.directory.wallet(record.wallet).await;
        let card_key = match facts.card_key(pair, seat) {
            Ok(key) => key,
            Err(refusal) => return Err(NotTaken::Later(refusal.to_string())),
        };
        let outcome =
            signed.verify(&card_key).map_err(|error| Refusal::new(Code::BadSignature, error.to_string()))?;
        if !describes(&outcome, &record, from) {
            return Err(refused(Code::Conflict, "the report is about another session, job or attempt"));
        }
        let key = Key::from((&record.tenant, record.job));
        // The board has the record of a job that this process works on. It serves while it shows
        // the session as running: if it is behind, the compare-and-swap declines. Otherwise the
        // entry is read, since a stale record cannot show that a session is over.
        let known = self.board.recent(&key).filter(|job| running_pair(&job.value, session).is_some());
        let job = match known {
            Some(snapshot) => Some(Entry::clone(&snapshot)),
            None => self.jobs.get(&key).await?,
        };
        let Some(job) = job else {
            return Err(refused(Code::NotFound, "the session's job is not kept any more"));
        };
        if running_pair(&job.value, session).is_none() {
            // The other party's report, an earlier report of this one, or the session's expiry came
            // first.
            return match outcome.result {
                OutcomeResult::Signed { .. } if !already_signed(&job.value, session) => Err(too_late()),
                _ => Ok(()),
            };
        }
        let request = request_of(&job.value)?;
        let job_key = JobKey::of(&job.value);
        let sha256 = || Sha256::digest(payload).into();
        match outcome.result {
            OutcomeResult::Answered => {
                tracing::debug!("the responder did its part");
                Ok(())
            }
            OutcomeResult::Failed { code, culprit, message } => {
                let culprit = culprit
                    .filter(|party| *party == record.initiator.party || *party == record.responder.party);
                let evidence = Some(Evidence::Report { by: from.clone(), sha256: sha256() });
                let refusal = said_by(seat.index, Refusal::new(code, message));
                let failure = Failure { refusal, culprit, evidence };
                self.attempts.end_attempt(job_key, session, failure).await?;
                Ok(())
            }
            OutcomeResult::Signed { .. } if *from != record.initiator.party => {
                Err(refused(Code::PeerMisbehaved, "only the initiator learns the signature"))
            }
            OutcomeResult::Signed { signature } => {
                let sealed = match self.verify(session, &request, &facts, pair, signature).await {
                    Ok(sealed) => sealed,
                    Err(NotSealed::Invalid) => {
                        let message = format!("{from} reported a signature that does not verify");
                        let failure = Failure {
                            refusal: Refusal::new(Code::PeerMisbehaved, message.clone()),
                            culprit: facts.is_undisputed().then(|| from.clone()),
                            evidence: Some(Evidence::InvalidSignature { by: from.clone(), sha256: sha256() }),
                        };
                        self.attempts.end_attempt(job_key, session, failure).await?;
                        return Err(refused(Code::BadSignature, &message));
                    }
                    Err(NotSealed::Later(reason)) => return Err(NotTaken::Later(reason)),
                };
                let version = Version { record: Arc::new(job.value), revision: job.revision.into() };
                match self.attempts.sign(version, sealed).await {
                    Ok(()) => {
                        tracing::info!(job = %record.job, "signature verified and stored");
                        Ok(())
                    }
                    // Another write ended the session meanwhile. An acknowledgement would tell the
                    // initiator that the signature is stored.
                    Err(NotSigned::Over) => Err(too_late()),
                    Err(NotSigned::Store(failure)) => Err(StoreError::from(failure).into()),
                }
            }
        }
    }

    /// Verifies a reported signature over the job's digest under the wallet's key. The result has
    /// the first signature of the message, if there is an earlier one.
    async fn verify(
        &self,
        session: SessionId,
        request: &SigningRequest,
        facts: &WalletFacts,
        pair: Pair,
        signature: RecoverableSignature,
    ) -> Result<SealedResult, NotSealed> {
        let key = facts.verifying_key(pair, &request.path)?;
        let verified = Verified::check(request, key, signature)?;
        let first = self.first_signature(request, verified.digest(), &key, signature).await?;
        let verified = if first == signature { verified } else { Verified::check(request, key, first)? };
        let sealed = verified.seal(request, session, self.clock.now_ms(), &self.result_key);
        sealed.map_err(|error| NotSealed::Later(error.to_string()))
    }
}

/// Why a reported signature makes no result.
enum NotSealed {
    /// It does not verify.
    Invalid,
    /// It cannot be judged now.
    Later(String),
}

impl From<NotVerified> for NotSealed {
    fn from(error: NotVerified) -> Self {
        match error {
            NotVerified::Invalid => Self::Invalid,
            NotVerified::Unchecked(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for NotSealed {
    fn from(refusal: Refusal) -> Self {
        Self::Later(refusal.to_string())
    }
}

impl From<StoreError> for NotSealed {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

/// The session's pair, and the seat of the reporter in it.
fn seat_of<'a>(record: &'a SessionRecord, from: &PartyId) -> Option<(Pair, &'a duet_wire::Seat)> {
    let pair = Pair::ALL.into_iter().find(|pair| {
        pair.initiator() == record.initiator.index && pair.responder() == record.responder.index
    })?;
    let seat = [&record.initiator, &record.responder].into_iter().find(|seat| seat.party == *from)?;
    Some((pair, seat))
}

/// Whether `outcome` is about this very session, and by `from`.
fn describes(outcome: &Outcome, record: &SessionRecord, from: &PartyId) -> bool {
    outcome.session == record.session
        && outcome.job == record.job
        && outcome.attempt == record.attempt
        && outcome.from == *from
}
