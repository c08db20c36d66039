//! Sessions: what is checked before one, the two drivers, the gate, the report.

mod checks;
mod gate;
mod initiator;
mod outcome;
mod pending;
mod responder;

use std::time::Duration;

use duet_bus::{Address, Bus};
use duet_protocol::{
    ids::{PartyId, SessionId},
    session::SessionError,
};
use duet_wire::{
    Code, Outcome, OutcomeResult, RecoverableSignature, Refusal,
    progress::{Progress, Step},
};

pub(crate) use self::{
    checks::{Accepted, Role, check, distrusted, require_unlocked},
    initiator::initiate,
    outcome::report,
    pending::{Finished, finish_pending},
    responder::respond,
};
use crate::{clock::Clock, error::PartyError};

/// How long things may take. All are upper bounds; a manifest's own expiry comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// For one round: from a message that was sent to its answer. Default 10 s.
    pub round: Duration,
    /// For a whole session. Default 30 s.
    pub session: Duration,
    /// For the report of an outcome to be acknowledged. Default 30 s.
    pub outcome: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            round: Duration::from_secs(10),
            session: Duration::from_secs(30),
            outcome: Duration::from_secs(30),
        }
    }
}

/// What the audit log keeps of a session's one-time values: hashes, by which it can be seen that
/// none was used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Of this party's public nonce.
    pub(crate) nonce: [u8; 32],
    /// Of the responder's answer.
    pub(crate) answer: [u8; 32],
}

/// How a session ended for this party.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The initiator has a signature that verifies.
    Signed {
        /// It.
        signature: RecoverableSignature,
        /// What it was made from.
        trace: Trace,
    },
    /// The responder sent its one answer.
    Answered,
    /// No signature.
    Failed {
        /// Whose fault it demonstrably is.
        culprit: Option<PartyId>,
        /// Why.
        refusal: Refusal,
    },
    /// Nothing may be said: a lock could not be written.
    Silent,
}

impl Ended {
    pub(crate) fn failed(code: Code, message: impl Into<String>) -> Self {
        Self::Failed { culprit: None, refusal: Refusal::new(code, message) }
    }

    /// The worker stops, and its patience is over; or its machine was resumed or copied. Others may
    /// take the job at once.
    pub(crate) fn cut_off() -> Self {
        Self::failed(
            Code::Overloaded,
            "the worker is being stopped, or its machine was resumed; another one, or another time, will do",
        )
    }

    pub(crate) fn step(&self) -> Option<Step> {
        match self {
            Self::Signed { .. } => Some(Step::Signed),
            Self::Failed { refusal, .. } => Some(Step::Failed { code: refusal.code }),
            Self::Answered | Self::Silent => None,
        }
    }

    /// What is reported; `None` when nothing may be.
    pub(crate) fn outcome(self, accepted: &Accepted) -> Option<Outcome> {
        let result = match self {
            Self::Signed { signature, .. } => OutcomeResult::Signed { signature },
            Self::Answered => OutcomeResult::Answered,
            Self::Failed { culprit, refusal: Refusal { code, message } } => {
                OutcomeResult::Failed { code, culprit, message }
            }
            Self::Silent => return None,
        };
        let manifest = &accepted.manifest;
        Some(Outcome {
            session: manifest.session,
            job: manifest.job,
            attempt: manifest.attempt,
            from: accepted.own().party.clone(),
            result,
        })
    }
}

impl From<SessionError> for Ended {
    fn from(error: SessionError) -> Self {
        let code = match &error {
            SessionError::NotAuthentic(_) | SessionError::PeerMisbehaved { .. } => Code::PeerMisbehaved,
            SessionError::ApiMisuse(_) => Code::Internal,
        };
        Self::Failed { culprit: error.culprit().cloned(), refusal: Refusal::new(code, error.to_string()) }
    }
}

impl From<PartyError> for Ended {
    fn from(error: PartyError) -> Self {
        tracing::warn!(%error, "the session failed");
        Self::Failed { culprit: None, refusal: error.to_refusal() }
    }
}

/// Tells the clients that follow a session's events how far it is. May be lost.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    bus: Bus,
    clock: Clock,
    session: SessionId,
    from: PartyId,
}

impl Reporter {
    pub(crate) fn new(bus: &Bus, clock: &Clock, session: SessionId, from: &PartyId) -> Self {
        Self { bus: bus.clone(), clock: clock.clone(), session, from: from.clone() }
    }

    pub(crate) async fn step(&self, step: Step) {
        let progress = Progress { session: self.session, step, at_ms: self.clock.now_ms() };
        let address = Address::Event { session: self.session, from: (&self.from).into() };
        if let Err(error) = self.bus.publish(&address, progress.to_json()).await {
            tracing::debug!(%error, "progress was not published");
        }
    }
}
