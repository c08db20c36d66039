//! Starts a session: turns an attempt at a job into a manifest, then invites two parties to it, the
//! responder first.

use std::sync::Arc;

use bytes::Bytes;
use duet_bus::{
    Address, Bus, RequestError,
    kv::{Entry, Key},
};
use duet_protocol::{
    codec,
    ids::{PartyId, SessionId},
};
use duet_wire::{
    Code, InstanceId, Invitation, InvitationReply, JobEvent, JobRecord, Manifest, Pair, Refusal, Release,
    Seat, SigningRequest,
    job::Evidence,
    progress::Step,
    record::Kept,
    session_state::{SessionEvent, SessionRecord, SessionState},
    validity,
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::{
    clock::{difference_ms, until, whole_millis, written},
    directory::Terms,
    jobs::{Changed, StoreError},
    orchestrator::Orchestrator,
    outcome::said_by,
    settle::{Failure, listed_sessions, unlisted_sessions},
};

/// A session that is stored. Its parties may now be invited.
pub(crate) struct Started {
    pub(crate) session: SessionId,
    pub(crate) initiator: Seat,
    pub(crate) responder: Seat,
    pub(crate) manifest: Vec<u8>,
    pub(crate) expires_at_ms: u64,
    /// When the job's request expires, in milliseconds since 1970.
    pub(crate) job_expires_at_ms: u64,
    /// The job's trace, as a `traceparent`.
    pub(crate) trace: Option<String>,
}

/// Why no session was started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// Another orchestrator has changed the job meanwhile.
    Moved,
    /// An internal step failed.
    Internal(String),
    /// The store failed.
    Store(StoreError),
}

impl Orchestrator {
    /// Begins an attempt of `pair` at the job whose record is `entry`. It draws a session id. Then
    /// it stores, side by side, that the job runs in the session and the session itself.
    ///
    /// If two orchestrators start the job at the same time, one loses the compare-and-swap and
    /// invites no party to its session.
    pub(crate) async fn start_session(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        request: &SigningRequest,
        pair: Pair,
        terms: Terms,
    ) -> Result<Started, NotStarted> {
        let internal = |error: &dyn core::fmt::Display| NotStarted::Internal(error.to_string());
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| internal(&error))?;
        let session = SessionId(id);
        let now = self.clock.now_ms();
        let expires_at_ms =
            now.saturating_add(whole_millis(self.queue.session_timeout)).min(entry.value.expires_at_ms);
        let attempt = entry.value.attempts_started.saturating_add(1);
        let manifest = Manifest {
            session,
            job: entry.value.id,
            attempt,
            wallet: request.wallet,
            epoch: terms.epoch,
            paillier_key: terms.paillier_key,
            initiator: terms.initiator.clone(),
            responder: terms.responder.clone(),
            request: entry.value.request.clone(),
            expires_at_ms,
        }
        .encode()
        .map_err(|error| internal(&error))?;
        let mut record = SessionRecord {
            session,
            tenant: request.tenant.clone(),
            job: entry.value.id,
            attempt,
            wallet: request.wallet,
            initiator: terms.initiator.clone(),
            responder: terms.responder.clone(),
            state: SessionState::Created,
            kept: Kept::default(),
            created_at_ms: now,
            updated_at_ms: now,
            expires_at_ms,
        };
        // The invitations follow the manifest at once, so one write covers both steps.
        record.apply(SessionEvent::Invite, now).map_err(|error| internal(&error))?;
        let (fence, job_expires_at_ms) = (entry.value.fence, entry.value.expires_at_ms);
        let mut unlisted = Vec::new();
        let started = self.jobs.change(key, Some(entry), |job| {
            // The manifest was made for the record as first read, so a newer record is declined.
            if job.fence != fence || job.attempts_started.saturating_add(1) != attempt {
                return Err(());
            }
            let before = listed_sessions(job);
            job.apply(&JobEvent::Start { session, pair }, fence, now).map_err(|_| ())?;
            unlisted = unlisted_sessions(before, job);
            Ok(())
        });
        let (started, stored) = tokio::join!(started, self.sessions.create(&record));
        let trace = match started.map_err(NotStarted::Store)? {
            Changed::Applied(snapshot) => {
                self.note_started(&snapshot.value, request, session, pair);
                snapshot.value.trace.clone()
            }
            Changed::Declined(()) | Changed::Missing => {
                // No attempt names this session, so no later step would remove it.
                if let Err(error) = self.sessions.remove(session).await {
                    tracing::warn!(%session, %error, "a session that did not start was not removed");
                }
                return Err(NotStarted::Moved);
            }
        };
        stored.map_err(NotStarted::Store)?;
        self.forget_sessions(&unlisted).await;
        self.announce_step(session, Step::Inviting).await;
        tracing::info!(%session, %pair, attempt, "session started");
        Ok(Started {
            session,
            initiator: terms.initiator,
            responder: terms.responder,
            manifest,
            expires_at_ms,
            job_expires_at_ms,
            trace,
        })
    }

    /// Invites `seat`. The party answers once its worker listens. Returns the worker's seat.
    ///
    /// The broker says at once that no worker listens. In a cluster it may not know a worker yet,
    /// so the invitation is sent again for a moment: none of the copies before reached a worker. An
    /// invitation that a worker may have is not sent again, which could put two workers into the
    /// session. So without an answer the session is over. A worker that accepts later is released.
    pub(crate) async fn invite(&self, started: &Started, seat: &Seat) -> Result<Seated, Failure> {
        let party = &seat.party;
        let asked_at_ms = self.clock.now_ms();
        let invitation = codec::encode(&Invitation { manifest: started.manifest.clone() })
            .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let asking = {
            let (bus, address) = (self.bus.clone(), Address::Invite(party.clone()));
            let patience = self.queue.worker_search.min(self.queue.invitation_timeout);
            let lasts = self.queue.invitation_timeout.max(until(started.expires_at_ms, asked_at_ms));
            async move { bus.request_resending_for(patience, &address, Bytes::from(invitation), lasts).await }
        };
        let mut asking = AbortOnDropHandle::new(tokio::spawn(asking.in_current_span()));
        let silent = |code, message: String| Failure {
            refusal: Refusal::new(code, message),
            culprit: None,
            evidence: Some(Evidence::Silence { of: party.clone(), before_acceptance: true }),
        };
        let reply = match timeout(self.queue.invitation_timeout, &mut asking).await {
            Ok(Ok(Ok(reply))) => reply,
            Ok(Ok(Err(RequestError::NoResponders { .. }))) => {
                return Err(silent(Code::Overloaded, format!("no worker of {party} is free")));
            }
            Ok(Ok(Err(RequestError::TimedOut { .. }))) => {
                return Err(silent(Code::Deadline, not_in_time(party)));
            }
            Ok(Ok(Err(error))) => {
                let refusal = error.to_refusal(party.as_str());
                return Err(silent(refusal.code, refusal.message));
            }
            Ok(Err(error)) => return Err(Refusal::new(Code::Internal, error.to_string()).into()),
            Err(_) if !self.bus.is_connected() => {
                return Err(silent(Code::BrokerUnreachable, RequestError::Unreachable.to_string()));
            }
            Err(_) => {
                self.release_late(started.session, party, asking);
                return Err(silent(Code::Deadline, not_in_time(party)));
            }
        };
        match InvitationReply::read(&reply) {
            Ok((InvitationReply::Accepted { instance }, _)) => {
                self.metrics.clock_skew(seat.index, 0);
                tracing::debug!(session = %started.session, %party, ?instance, "invitation accepted");
                Ok(Seated::new(party, &instance))
            }
            Ok((InvitationReply::Refused(refusal), time)) => {
                let refusal = match time {
                    Some(theirs_ms) => {
                        // Halfway between request and answer.
                        let ours_ms = asked_at_ms.midpoint(self.clock.now_ms());
                        self.metrics.clock_skew(seat.index, difference_ms(theirs_ms, ours_ms));
                        let has_expired = self.clock.has_passed(started.job_expires_at_ms);
                        judged_by_time(party, refusal, theirs_ms, ours_ms, has_expired)
                    }
                    None => refusal,
                };
                tracing::info!(session = %started.session, %party, code = %refusal.code, "invitation refused");
                Err(Failure {
                    refusal: said_by(seat.index, refusal),
                    culprit: None,
                    evidence: Some(Evidence::Refusal { by: party.clone() }),
                })
            }
            Err(error) => Err(Failure {
                refusal: Refusal::new(
                    Code::PeerMisbehaved,
                    format!("the answer of {party} to an invitation does not parse: {error}"),
                ),
                culprit: Some(party.clone()),
                evidence: Some(Evidence::Nonsense {
                    by: party.clone(),
                    sha256: Sha256::digest(&reply).into(),
                }),
            }),
        }
    }

    /// Waits for the answer to an invitation whose time is over, and releases the worker if it
    /// accepts. Without room for one more such wait, the worker keeps its seat until its deadline.
    fn release_late(&self, session: SessionId, party: &PartyId, asking: Asking) {
        let Ok(permit) = Arc::clone(&self.late_answers).try_acquire_owned() else { return };
        let (bus, shutdown, party) = (self.bus.clone(), self.shutdown.clone(), party.clone());
        let late = async move {
            let _permit = permit;
            let answered = tokio::select! {
                answered = asking => answered,
                () = shutdown.cancelled() => return,
            };
            let Ok(Ok(reply)) = answered else { return };
            if let Ok((InvitationReply::Accepted { instance }, _)) = InvitationReply::read(&reply) {
                tracing::info!(%session, %party, "a worker accepted too late; its seat is released");
                Seated::new(&party, &instance).release(&bus, session).await;
            }
        };
        tokio::spawn(late.in_current_span());
    }
}

/// How many answers to invitations may be waited for after their time. Each is over with its
/// session.
pub(crate) const MAX_LATE_ANSWERS: usize = 256;

/// An invitation under way.
type Asking = AbortOnDropHandle<Result<Bytes, RequestError>>;

/// A worker's seat in a session: where to release it. `None` if the worker's name cannot be part of
/// a subject.
#[derive(Debug, Clone)]
pub(crate) struct Seated(Option<Address>);

impl Seated {
    fn new(party: &PartyId, instance: &str) -> Self {
        let instance = instance.parse::<InstanceId>().ok();
        Self(instance.map(|instance| Address::Release { party: party.clone(), instance }))
    }

    /// Takes the seat back for a session that does not go on. The message may be lost: then the
    /// worker waits until its own deadline, as it does if it is older than this message.
    pub(crate) async fn release(self, bus: &Bus, session: SessionId) {
        let Self(Some(address)) = self else { return };
        match codec::encode(&Release { session }) {
            Ok(message) => {
                if let Err(error) = bus.publish(&address, message).await {
                    tracing::debug!(%session, %error, "a seat was not released");
                }
            }
            Err(error) => tracing::error!(%error, "a release does not encode"),
        }
    }
}

fn not_in_time(party: &PartyId) -> String {
    format!("{party} did not answer the invitation in time")
}

/// From this difference on, in milliseconds, a refusal for time is attributed to the party's clock.
const NOTEWORTHY_SKEW_MS: u64 = 2_000;

/// Turns a party's refusal for time into one that says both times, and which clock is off if they
/// differ. A job that has not expired by the broker's time waits, whatever reason the party gave.
fn judged_by_time(
    party: &PartyId,
    refusal: Refusal,
    theirs_ms: u64,
    ours_ms: u64,
    has_expired: bool,
) -> Refusal {
    let do_differ = theirs_ms.abs_diff(ours_ms) >= NOTEWORTHY_SKEW_MS;
    if has_expired && !do_differ {
        return refusal;
    }
    let code = if has_expired { refusal.code } else { Code::ClockDiffers };
    let (theirs, ours) = (written(theirs_ms), written(ours_ms));
    let message = if do_differ {
        let relation = validity::relation(theirs_ms, ours_ms);
        tracing::warn!(%party, theirs_ms, ours_ms, "clocks differ: that of {party} is {relation} the broker's");
        format!(
            "the clock of {party} is {relation} the broker's ({theirs} and {ours}); it says: {}",
            refusal.message
        )
    } else {
        format!("{} ({party}: {theirs}, the broker: {ours})", refusal.message)
    };
    Refusal::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_time_says_both_times_and_waits_until_the_job_has_expired() {
        let party: PartyId = "partner".parse().unwrap();
        let expired = || Refusal::new(Code::JobExpired, "the request expired 4 s ago");
        let ours_ms = 1_796_047_622_000;
        let judged = |ahead_ms, has_expired| {
            judged_by_time(&party, expired(), ours_ms + ahead_ms, ours_ms, has_expired)
        };
        let named = judged(40_000, false);
        assert_eq!(named.code, Code::ClockDiffers);
        let said = "the clock of partner is 40 s ahead of the broker's (2026-11-30T14:07:42Z and 2026-11-30T14:07:02Z)";
        assert!(named.message.starts_with(said), "{named}");
        // Clocks that agree are not blamed, but the job waits all the same.
        let named = judged(1_000, false);
        assert_eq!(named.code, Code::ClockDiffers);
        assert!(named.message.starts_with("the request expired 4 s ago (partner: 2026"), "{named}");
        assert_eq!(judged(1_000, true), expired());
        assert_eq!(judged(40_000, true).code, Code::JobExpired);
    }
}
