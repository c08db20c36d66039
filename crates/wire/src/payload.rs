//! Payloads: what a requester wants signed, and its 32-byte digest. Every party derives the digest
//! itself.

mod description;
mod document;
mod error;
mod field;
mod message;
mod transaction;
mod typed_data;
mod verification;

pub use self::{
    description::Description,
    document::Payload,
    error::{MAX_PAYLOAD_SIZE_BYTES, PayloadError},
    field::{DescribedField, NotSigned, NotSignedReason},
    message::PersonalMessage,
    transaction::{
        TransactionRequest,
        draft::{Chain, IGNORED_HINTS, TransactionCall, TransactionDraft, TransactionType},
    },
    typed_data::TypedDataRequest,
    verification::Verification,
};
