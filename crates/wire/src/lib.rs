//! What Duet's processes say to each other.
//!
//! The two central types are [`SigningRequest`], what somebody wants signed and from which every
//! party derives the digest itself, and [`Manifest`], the terms of one session, whose received
//! bytes the whole session is bound to. Everything else carries these about: invitations, outcomes,
//! jobs, results, and the [`Code`]s by which all of it is refused.
//!
//! Documents that people write or read are JSON, and where they are signed, their exact bytes are
//! kept. Messages between processes are binary ([`duet_protocol::codec`]), kinds 0x40 to 0x7f.

pub mod approval;
pub mod audit;
pub mod batch;
pub mod card_request;
pub mod encoding;
pub mod ended;
pub mod error;
pub mod gateway;
pub mod ids;
pub mod invite;
pub mod job;
pub mod manifest;
pub mod outcome;
pub mod payload;
pub mod policy;
pub mod priority;
pub mod progress;
pub mod request;
pub mod result;
pub mod revocation;
pub mod seating;
pub mod session_state;
pub mod share_request;
pub mod signing;
pub mod strict_json;
pub mod validity;
pub mod wallet;
pub mod webhook;

pub use duet_protocol::{public_key::DerivationPath, share::PayloadKindTag, signature::RecoverableSignature};
pub use ended::JobEnded;
pub use error::{Code, Problem, Refusal};
pub use ids::{IdempotencyKey, JobId, TenantId};
pub use invite::{Invitation, InvitationReply};
pub use job::{JobEvent, JobRecord, JobState, JobStateName};
pub use manifest::{Manifest, Seat};
pub use outcome::{Outcome, OutcomeReply, OutcomeResult, SignedOutcome};
pub use payload::Payload;
pub use priority::Priority;
pub use request::{Pair, SignedRequest, SigningRequest};
pub use result::{JobResult, SignedResult};
pub use revocation::SignedRevocation;
pub use wallet::WalletInfo;
