//! Handles the parties' reports about their sessions: `duet.v1.outcome.<session>.<from>`. Any
//! orchestrator may receive a report about any session. It writes the report into the job's record
//! by compare-and-swap, so it does not matter which orchestrator started the session.

use bytes::Bytes;
use duet_bus::{
    Address, Incoming,
    kv::{Entry, Key},
};
use duet_protocol::{
    codec,
    ids::{PartyId, SessionId},
};
use duet_queue::failure::{Failure, running_pair, said_by};
use duet_wire::{
    Code, Outcome, OutcomeReply, OutcomeResult, Pair, Refusal, SignedOutcome,
    audit::Refused,
    job::{AttemptOutcome, Evidence},
    progress::Step,
    session_state::{SessionEvent, SessionRecord},
};
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use crate::{board::Snapshot, jobs::StoreError, orchestrator::Orchestrator, settle::NotAccepted};

/// How many reports are handled at once. More wait in the subscription.
pub(crate) const CONCURRENCY: usize = 64;

/// The result of an accepted report.
enum Recorded {
    /// The report is recorded, now or earlier.
    Taken,
    /// The report settled the job.
    Settled(Snapshot),
}

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
            let (reply, settled) = match self.judge_outcome(session, &from, &incoming.payload).await {
                Ok(Recorded::Taken) => (OutcomeReply::Acknowledged, None),
                Ok(Recorded::Settled(snapshot)) => (OutcomeReply::Acknowledged, Some(snapshot)),
                Err(NotTaken::Refused(refusal)) => {
                    tracing::warn!(code = %refusal.code, message = refusal.message, "report refused");
                    let refused = Refused::new("report", refusal.clone());
                    self.note_refused(Refused { session: Some(session), ..refused });
                    (OutcomeReply::Refused(refusal), None)
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
            // The stored record of the job is what counts. The party need not wait for these steps.
            if let Some(snapshot) = settled {
                self.announce_step(session, Step::Signed).await;
                tokio::join!(self.conclude(&snapshot), self.sessions.end(session, SessionEvent::Sign));
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
    ) -> Result<Recorded, NotTaken> {
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
                _ => Ok(Recorded::Taken),
            };
        }
        let request = self.request_of(&job.value)?;
        let sha256 = || Sha256::digest(payload).into();
        match outcome.result {
            OutcomeResult::Answered => {
                tracing::debug!("the responder did its part");
                Ok(Recorded::Taken)
            }
            OutcomeResult::Failed { code, culprit, message } => {
                let culprit = culprit
                    .filter(|party| *party == record.initiator.party || *party == record.responder.party);
                let evidence = Some(Evidence::Report { by: from.clone(), sha256: sha256() });
                let refusal = said_by(seat.index, Refusal::new(code, message));
                let failure = Failure { refusal, culprit, evidence };
                self.end_attempt(&key, session, &request, failure).await?;
                Ok(Recorded::Taken)
            }
            OutcomeResult::Signed { .. } if *from != record.initiator.party => {
                Err(refused(Code::PeerMisbehaved, "only the initiator learns the signature"))
            }
            OutcomeResult::Signed { signature } => {
                let accepted = self.accept_signature(job, session, &request, &facts, pair, &signature).await;
                match accepted {
                    Ok(snapshot) => {
                        tracing::info!(job = %record.job, "signature verified and stored");
                        Ok(Recorded::Settled(snapshot))
                    }
                    // Another write ended the session meanwhile. An acknowledgement would tell the
                    // initiator that the signature is stored.
                    Err(NotAccepted::Over) => match self.jobs.get(&key).await? {
                        Some(job) if already_signed(&job.value, session) => Ok(Recorded::Taken),
                        _ => Err(too_late()),
                    },
                    Err(NotAccepted::Invalid) => {
                        let message = format!("{from} reported a signature that does not verify");
                        let failure = Failure {
                            refusal: Refusal::new(Code::PeerMisbehaved, message.clone()),
                            culprit: facts.is_undisputed().then(|| from.clone()),
                            evidence: Some(Evidence::InvalidSignature { by: from.clone(), sha256: sha256() }),
                        };
                        self.end_attempt(&key, session, &request, failure).await?;
                        Err(refused(Code::BadSignature, &message))
                    }
                    Err(NotAccepted::Impossible(refusal)) => Err(NotTaken::Later(refusal.to_string())),
                    Err(NotAccepted::Store(error)) => Err(error.into()),
                }
            }
        }
    }
}

/// Whether the job's signature was made in `session`.
fn already_signed(record: &duet_wire::JobRecord, session: SessionId) -> bool {
    record
        .attempts
        .iter()
        .any(|attempt| attempt.session == session && attempt.outcome == Some(AttemptOutcome::Signed))
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
