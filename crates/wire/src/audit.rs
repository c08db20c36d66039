//! The audit log: what was decided and who asked, in chains that show when something is missing.
//!
//! Each writer – a party, an orchestrator, a gateway – writes [`Record`]s of a chain of its own.
//! Each record names the hash of the one before it. So a record that is removed, altered or moved
//! does not match its successor. From time to time an [`Event::Checkpoint`] contains the writer's
//! signature over everything before it. A verifier that has pinned that key can trust everything up
//! to the last checkpoint, whichever way the records came.
//!
//! A record is transported and stored as one line of JSON. Its body is kept byte for byte, because
//! those bytes are hashed. It contains no secret: of nonces and answers it has only hashes, which
//! show that none was used twice.
//!
//! The chain alone cannot show that its end is missing: the records after the last checkpoint, or
//! everything after an earlier one. For that a verifier has to remember how far the chain went
//! before ([`verify::Verifier::remember`]).

mod event;
mod head;
mod position;
mod record;
mod refusals;
pub mod verify;

pub use self::{
    event::{Asked, Body, Continues, Event, Exchange, Role},
    head::{Head, HeadReply, HeadRequest, MAX_HEADS_PER_WRITER, MAX_LOCKED_KEYS, SignedHead},
    position::{ChainId, Position},
    record::{Draft, MAX_RECORD_SIZE_BYTES, Record, lines, message, message_id},
    refusals::{Refusals, Refused},
};
