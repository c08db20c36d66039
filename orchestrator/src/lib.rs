//! The orchestrator: a job queue on JetStream, session state by compare-and-swap, an HTTP
//! interface.
//!
//! The two central types are [`Config`], all that an orchestrator is told, and [`Server`], one that
//! is ready to serve. It never holds anything that lets it sign for a wallet: parties check every
//! request themselves, and the orchestrator can delay or drop a session, not forge, replay or read
//! one.
//!
//! # The path of a job
//!
//! 1. `submit`: the requester's signature, tenant, expiry, requester, kind, path and pairs are
//!    checked; creating the job's entry in the key-value bucket **is** its acceptance.
//! 2. `sweep`, first part: a message on `duet.v1.job.<tenant>` is leave for some orchestrator to
//!    work on one job. If it is lost, the sweeper sends it again.
//! 3. `work`: whoever gets it uses it for the job whose turn it is by `line` – tenants take turns,
//!    priorities share – and decides by `plan` which pair tries, waits for the owner, or gives up.
//! 4. `session`: the attempt and its session are stored (the job's entry by compare-and-swap, so
//!    one orchestrator wins), then the responder is invited, then the initiator.
//! 5. The parties sign; none of that passes through here.
//! 6. `outcome`: any orchestrator takes the initiator's report, verifies the signature under the
//!    wallet's (child) key, and stores the signed result by compare-and-swap, fenced by the
//!    attempt.
//! 7. `settle`: the result is published once on `duet.v1.result.<tenant>`, and that is noted. Jobs
//!    that end without a signature are told on `duet.v1.ended.<tenant>`, in the same stream. `feed`
//!    and `batch` read both from a cursor.
//! 8. `work` learns that the job is settled and acknowledges its message with confirmation.
//!
//! Where the pair needs the owner's device, step 3 parks the job and `approval` does steps 4 and 5
//! when the device comes.
//!
//! # Durable writes
//!
//! On the path from submission to result, one after the other: the job's entry (1), its
//! announcement (2), the attempt in the job's entry beside the session's entry (3, 4: sent
//! together), and the result in the job's entry (5). Off that path: the published result (6), the
//! session's end (7), and the note that the result was published (8). That is 8 writes, 4 of them
//! waited for in sequence. That both parties accepted is an event, not a write.
//!
//! # Exactly once
//!
//! At most one result is published per job: the job's entry takes a result once. A crash between a
//! signature's making and its storing costs another session, which signs the same digest. A crash
//! between publishing and noting it publishes again under the same message id, which the stream
//! drops within its window of two minutes; later than that the stream is searched first.
//!
//! A job can be cancelled only while it waits. While a session runs the signature may already
//! exist.

mod admission;
pub mod api;
mod approval;
mod audit;
pub mod auth;
mod batch;
mod board;
mod clock;
mod digests;
mod directory;
mod feed;
mod http;
mod jobs;
mod line;
mod meter;
mod metrics;
mod orchestrator;
mod outcome;
mod plan;
mod retry_after;
mod revocation;
mod room;
mod server;
mod session;
mod settings;
mod settle;
#[cfg(test)]
mod simulation;
mod stores;
mod submit;
mod sweep;
mod tenants;
pub mod webhooks;
mod work;

pub use auth::{TenantAccess, TokenHash};
pub use directory::PartyEntry;
pub use http::router;
pub use orchestrator::Orchestrator;
pub use retry_after::retry_after;
pub use server::{Config, OrchestratorError, Server, run};
pub use settings::{HttpSettings, InvalidSetting, QueueSettings};
