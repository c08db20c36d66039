//! The orchestrator: a job queue on JetStream, session state by compare-and-swap, and an HTTP
//! interface.
//!
//! The two central types are [`Config`], an orchestrator's whole configuration, and [`ApiServer`],
//! an orchestrator that is ready to serve. It holds no key that could sign for a wallet, and
//! parties check every request themselves. So it can delay or drop a session, but never forge,
//! replay or read one.
//!
//! # The path of a job
//!
//! 1. `submit`: the orchestrator checks the requester's signature, tenant, expiry, requester, kind,
//!    path and pairs. It accepts the job by creating the job's entry in the key-value bucket.
//! 2. `submit` then announces the job on `duet.v1.job.<tenant>`. If the announcement is lost,
//!    `sweep` sends it again. Each announcement is a permit to process one job.
//! 3. `work`: the orchestrator that receives the permit spends it on the next job in fair order
//!    (`duet_queue::line`). Tenants take turns, and priorities share a tenant's turns by weight.
//! 4. The core of the queue ([`duet_queue::Core`]) decides which pair tries, whether the job waits
//!    for its owner, or whether it has failed. `attempts` drives the core, and `actions` performs
//!    what it wants done. The attempt and its session are stored. The job's
//!    entry is written by compare-and-swap, so one orchestrator wins. Then the responder is
//!    invited, then the initiator.
//! 5. The parties sign. None of their messages pass through the orchestrator.
//! 6. `outcome`: any orchestrator receives the initiator's report. It verifies the signature under
//!    the wallet's (child) key. The core stores the signed result by compare-and-swap, fenced by
//!    the attempt.
//! 7. The core has the result published once on `duet.v1.result.<tenant>` and notes that. A job
//!    that ends without a signature is published on `duet.v1.ended.<tenant>`, in the same stream.
//!    `feed` and `batch` read both from a cursor.
//! 8. `work` sees that the job is settled and acknowledges its announcement with confirmation.
//!
//! Where the pair needs the owner's device, step 4 parks the job. `approval` asks the core for the
//! session when the device connects.
//!
//! # Durable writes
//!
//! The path from submission to result has these writes, one after another:
//!
//! 1. the job's entry;
//! 2. its announcement;
//! 3. the attempt in the job's entry, and beside it the session's entry (two writes, sent
//!    together);
//! 4. the result in the job's entry.
//!
//! Three more are off that path: the published result, the session's end, and the note that the
//! result was published. In all there are 8 writes, and the path waits for 4 in sequence. That both
//! parties accepted is an event, not a write.
//!
//! # Exactly once
//!
//! At most one result is published per job: the job's entry accepts one result only. After a crash
//! between the making and the storing of a signature, another session signs the same digest. After
//! a crash between publishing a result and noting that, it is published again under the same
//! message id. The stream drops the repetition within its window of two minutes; later, the
//! orchestrator searches the stream first.
//!
//! A tenant can cancel a job only while it waits. While a session runs, the signature may already
//! exist.

mod accounts;
mod actions;
pub mod api;
mod approval;
mod attempts;
mod audit;
pub mod auth;
mod batch;
mod board;
mod broker_proof;
mod clock;
mod digests;
mod directory;
mod epochs;
mod feed;
mod http;
mod jobs;
mod markers;
mod metrics;
mod orchestrator;
mod outcome;
mod prober;
mod reasons;
#[cfg(test)]
mod recorded;
mod retry_after;
mod revocation;
mod room;
mod server;
mod settings;
mod stores;
mod submit;
mod sweep;
mod tenants;
mod wallet_facts;
pub mod webhooks;
mod work;

pub use auth::{TenantAccess, TokenHash};
pub use duet_queue::{InvalidSetting, QueueSettings};
pub use http::router;
pub use orchestrator::Orchestrator;
pub use retry_after::retry_after;
pub use server::{ApiServer, Config, OrchestratorError, run};
pub use settings::HttpSettings;
pub use stores::names as stream_names;
pub use wallet_facts::PartyEntry;
