//! Errors as JavaScript sees them: a union told apart by `kind`.

use duet_protocol::{
    admission::AdmissionRefusal, card::CardRefusal, codec::DecodeError, keygen::PaperRefusal,
    session::SessionError, signature::VerifyError,
};
use duet_wire::{Code, Problem, Refusal};
use wasm_bindgen::JsValue;

use crate::object::object;

/// Why an operation failed; `DuetError` of `types.ts`.
#[derive(Debug)]
pub(crate) enum Failure {
    Malformed(String),
    Refused { code: Code, message: String, path: Option<String> },
    Card(String),
    NotAuthentic(String),
    PeerMisbehaved { message: String, culprit: String },
    Paper { message: String, culprit: String },
    BadSignature(String),
    WrongPassphrase(String),
    Record(String),
    NeedsRotation(String),
    Cancelled(String),
    Misuse(String),
}

impl Failure {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Refused { .. } => "refused",
            Self::Card(_) => "card",
            Self::NotAuthentic(_) => "not-authentic",
            Self::PeerMisbehaved { .. } => "peer-misbehaved",
            Self::Paper { .. } => "paper",
            Self::BadSignature(_) => "bad-signature",
            Self::WrongPassphrase(_) => "wrong-passphrase",
            Self::Record(_) => "record",
            Self::NeedsRotation(_) => "needs-rotation",
            Self::Cancelled(_) => "cancelled",
            Self::Misuse(_) => "misuse",
        }
    }

    /// What cannot be done with what there is.
    pub(crate) fn misuse(why: impl core::fmt::Display) -> Self {
        Self::Misuse(why.to_string())
    }

    /// Text that a caller's argument should have been and is not.
    pub(crate) fn malformed(what: &str, why: impl core::fmt::Display) -> Self {
        Self::Malformed(format!("{what}: {why}"))
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        let mut fields: Vec<(&str, Self)> = vec![("kind", failure.kind().into())];
        match failure {
            Failure::Malformed(message)
            | Failure::Card(message)
            | Failure::NotAuthentic(message)
            | Failure::BadSignature(message)
            | Failure::WrongPassphrase(message)
            | Failure::Record(message)
            | Failure::NeedsRotation(message)
            | Failure::Cancelled(message)
            | Failure::Misuse(message) => fields.push(("message", message.into())),
            Failure::PeerMisbehaved { message, culprit } | Failure::Paper { message, culprit } => {
                fields.extend([("message", message.into()), ("culprit", culprit.into())]);
            }
            Failure::Refused { code, message, path } => {
                fields.extend([("message", message.into()), ("code", code.to_string().into())]);
                fields.extend(path.map(|path| ("path", path.into())));
            }
        }
        object(fields)
    }
}

/// `Result<T>` of `types.ts`.
pub(crate) fn outcome<T: Into<JsValue>>(result: Result<T, Failure>) -> JsValue {
    match result {
        Ok(value) => object([("ok", true.into()), ("value", value.into())]),
        Err(failure) => object([("ok", false.into()), ("error", failure.into())]),
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { code: refusal.code, message: refusal.message, path: None }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused { code: problem.code, message: problem.detail, path: problem.path }
    }
}

impl From<CardRefusal> for Failure {
    fn from(refusal: CardRefusal) -> Self {
        Self::Card(refusal.to_string())
    }
}

impl From<AdmissionRefusal> for Failure {
    fn from(refusal: AdmissionRefusal) -> Self {
        Self::Refused { code: Code::AdmissionToken, message: refusal.to_string(), path: None }
    }
}

impl From<PaperRefusal> for Failure {
    fn from(refusal: PaperRefusal) -> Self {
        Self::Paper { message: refusal.to_string(), culprit: refusal.party().to_string() }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        Self::BadSignature(error.to_string())
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::NotAuthentic(_) => Self::NotAuthentic(message),
            SessionError::PeerMisbehaved { culprit, .. } => {
                Self::PeerMisbehaved { message, culprit: culprit.to_string() }
            }
            SessionError::ApiMisuse(_) => Self::Misuse(message),
        }
    }
}
