//! How a session ended for this party.

use duet_protocol::{ids::PartyId, session::SessionError};
use duet_wire::{Code, Outcome, OutcomeResult, RecoverableSignature, Refusal, progress::Step};

use super::{accepted::Accepted, engine::Engine, trace::Trace};
use crate::error::PartyError;

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
    /// The orchestrator took the seat back. It knows already, so nothing is reported.
    Released,
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
            Self::Answered | Self::Released | Self::Silent => None,
        }
    }

    /// The outcome as a label of metrics, and the code of a failure.
    pub(super) const fn labels(&self) -> (&'static str, Option<Code>) {
        match self {
            Self::Signed { .. } => ("signed", None),
            Self::Answered => ("answered", None),
            Self::Failed { refusal, .. } => ("failed", Some(refusal.code)),
            Self::Released => ("released", None),
            Self::Silent => ("silent", None),
        }
    }

    /// What is reported; `None` when nothing may be.
    pub(crate) fn outcome<E: Engine>(self, accepted: &Accepted<E>) -> Option<Outcome> {
        let result = match self {
            Self::Signed { signature, .. } => OutcomeResult::Signed { signature },
            Self::Answered => OutcomeResult::Answered,
            Self::Failed { culprit, refusal: Refusal { code, message } } => {
                OutcomeResult::Failed { code, culprit, message }
            }
            Self::Released | Self::Silent => return None,
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
