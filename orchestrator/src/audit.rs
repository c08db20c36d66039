//! What an orchestrator records and counts: accepted and refused jobs, attempts, and how both end.
//! It notes each event after the job store has it, and no job waits for the note.

use duet_protocol::ids::SessionId;
use duet_queue::{failure::Failure, verified::VerifiedRequest};
use duet_wire::{
    Code, JobRecord, JobState, Refusal, SigningRequest,
    audit::{Asked, Event, Refused},
    request::Pair,
};

use crate::{jobs::request_of, orchestrator::Orchestrator};

impl Orchestrator {
    /// A job was accepted.
    pub(crate) fn note_accepted(&self, record: &JobRecord, request: &VerifiedRequest) {
        let digest = *request.digest();
        let request = request.request();
        tracing::info!(job = %record.id, wallet = %request.wallet, "job accepted");
        self.metrics.job_accepted();
        self.audit.note(Event::JobAccepted {
            asked: Asked::by(&record.request, request),
            payload: request.payload.kind(),
            digest,
        });
    }

    /// An attempt began.
    pub(crate) fn note_started(
        &self,
        record: &JobRecord,
        request: &SigningRequest,
        session: SessionId,
        pair: Pair,
    ) {
        self.metrics.attempt_started(record, pair);
        self.audit.note(Event::AttemptStarted {
            asked: Asked::by(&record.request, request),
            session,
            attempt: record.attempts_started,
            pair,
        });
    }

    /// An attempt ended without a signature.
    pub(crate) fn note_failed(
        &self,
        record: &JobRecord,
        request: &SigningRequest,
        session: SessionId,
        failure: &Failure,
    ) {
        self.metrics.attempt_ended(Some(failure.refusal.code));
        self.audit.note(Event::AttemptFailed {
            asked: Asked::by(&record.request, request),
            session,
            code: failure.refusal.code,
            culprit: failure.culprit.clone(),
            message: failure.refusal.message.clone(),
        });
    }

    /// A verified signature was stored.
    pub(crate) fn note_signed(
        &self,
        record: &JobRecord,
        request: &SigningRequest,
        session: SessionId,
        digest: [u8; 32],
    ) {
        self.metrics.attempt_ended(None);
        self.metrics.job_ended(record, None);
        let asked = Asked::by(&record.request, request);
        self.audit.note(Event::JobSigned { asked, session, digest });
    }

    /// Records the job's end, if it ended without a signature.
    pub(crate) fn note_end(&self, record: &JobRecord) {
        let (code, message) = match &record.state {
            JobState::Failed { code, message, .. } => (*code, message.clone()),
            JobState::Expired => (Code::JobExpired, "the job has expired".to_owned()),
            JobState::Cancelled => (Code::Cancelled, "the job was cancelled".to_owned()),
            JobState::Queued
            | JobState::AwaitingOwner
            | JobState::Running { .. }
            | JobState::Signed { .. }
            | JobState::Unknown(_) => return,
        };
        self.metrics.job_ended(record, Some(code));
        if let Ok(request) = request_of(record) {
            let Refusal { code, message } = Refusal::new(code, message);
            self.audit.note(Event::JobEnded { asked: Asked::by(&record.request, &request), code, message });
        }
    }

    /// A request was refused.
    pub(crate) fn note_refused(&self, refused: Refused) {
        self.metrics.refused(refused.what, refused.refusal.code);
        self.audit.refused(refused);
    }

    /// A dead letter was put back.
    pub(crate) fn note_put_back(&self, record: &JobRecord) {
        tracing::info!(job = %record.id, attempts = record.attempts_started, "job put back");
        self.metrics.job_put_back();
        if let Ok(request) = request_of(record) {
            self.audit.note(Event::JobPutBack { asked: Asked::by(&record.request, &request) });
        }
    }
}
