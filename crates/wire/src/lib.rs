//! The documents and messages that Duet's processes exchange.
//!
//! The two central types are [`SigningRequest`] and [`Manifest`]. A requester signs the first, and
//! every party derives the digest from it itself. The second states the terms of one session, which
//! is bound to the manifest's bytes as received.
//!
//! The path through the crate: a tenant submits a [`SignedRequest`], and the orchestrator stores it
//! as a [`JobRecord`]. It puts the request into a [`Manifest`] and sends that as an [`Invitation`]
//! to both parties. They sign, and each party reports an [`Outcome`]. The orchestrator signs the
//! [`JobResult`]. Every process refuses with a [`Code`].
//!
//! Documents that people write or read are JSON. Where they are signed, their exact bytes are kept.
//! Messages between processes are binary ([`duet_protocol::codec`]), kinds 0x40 to 0x7f.

pub mod approval;
pub mod audit;
pub mod batch;
pub mod card_request;
pub mod encoding;
pub mod ended;
pub mod error;
pub mod gateway;
pub mod hello;
pub mod ids;
pub mod invite;
pub mod job;
pub mod manifest;
pub mod offer;
pub mod outcome;
pub mod payload;
pub mod policy;
pub mod priority;
pub mod progress;
pub mod record;
pub mod remembered;
pub mod request;
pub mod result;
pub mod revocation;
pub mod seating;
pub mod session_state;
pub mod share_request;
pub mod signing;
pub mod strict_json;
pub mod unknown;
pub mod validity;
pub mod wallet;
pub mod webhook;

pub use duet_protocol::{public_key::DerivationPath, share::PayloadKindTag, signature::RecoverableSignature};
pub use ended::JobEnded;
pub use error::{Code, Problem, Refusal};
pub use ids::{IdempotencyKey, InstanceId, JobId, TenantId};
pub use invite::{Invitation, InvitationReply, Release};
pub use job::{JobEvent, JobRecord, JobState, JobStateName};
pub use manifest::{Manifest, Seat};
pub use offer::Offer;
pub use outcome::{Outcome, OutcomeReply, OutcomeResult, SignedOutcome};
pub use payload::Payload;
pub use priority::Priority;
pub use request::{Pair, SignedRequest, SigningRequest};
pub use result::{JobResult, SignedResult};
pub use revocation::SignedRevocation;
pub use wallet::WalletInfo;
