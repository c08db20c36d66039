//! Why a payload cannot be signed.

use crate::{
    error::{Code, Refusal},
    strict_json::JsonError,
};

/// The largest payload document in bytes; a whole request is bounded by
/// [`crate::request::MAX_REQUEST_SIZE_BYTES`].
pub const MAX_PAYLOAD_SIZE_BYTES: usize = 120 * 1024;

/// Why a payload cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The document is malformed.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A value of typed data does not fit its type, or libraries hash such types in different ways.
    #[error(transparent)]
    TypedData(JsonError),
}

impl PayloadError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Json(_) => Code::MalformedJson,
            Self::TypedData(_) => Code::InvalidPayload,
        }
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
