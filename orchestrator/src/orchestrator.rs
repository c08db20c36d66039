//! The state that all parts of one orchestrator share.

use std::sync::Arc;

use duet_bus::{Bus, audit::Recorder, kv::Bucket, streams::StorageSettings};
use duet_queue::QueueSettings;
use duet_wire::signing::SigningKey;
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::Accounts,
    approval::Nonces,
    attempts::Attempts,
    auth::Tokens,
    batch::BatchRecord,
    board::Board,
    broker_proof::BrokerProof,
    clock::Clock,
    digests::{Answer, Claim},
    directory::Directory,
    epochs::Epochs,
    feed::Feed,
    jobs::{Jobs, Sessions},
    metrics::Metrics,
    room::Room,
    settings::HttpSettings,
    stores::Stores,
    tenants::Tenants,
    webhooks::{Deliverer, Endpoints, Retries},
};

/// An orchestrator's shared state. It holds no share and no key that could sign for a wallet. Its
/// only secret is the key that signs results.
pub struct Orchestrator {
    pub(crate) bus: Bus,
    pub(crate) broker: BrokerProof,
    pub(crate) clock: Clock,
    pub(crate) storage: StorageSettings,
    pub(crate) stores: Stores,
    pub(crate) http: HttpSettings,
    pub(crate) queue: QueueSettings,
    pub(crate) tokens: Tokens,
    pub(crate) result_key: SigningKey,
    pub(crate) jobs: Jobs,
    pub(crate) sessions: Sessions,
    pub(crate) batches: Bucket<BatchRecord>,
    pub(crate) claims: Bucket<Claim>,
    pub(crate) answers: Bucket<Answer>,
    pub(crate) meta: Bucket<Epochs>,
    pub(crate) board: Arc<Board>,
    pub(crate) directory: Directory,
    pub(crate) accounts: Accounts,
    pub(crate) webhooks: Endpoints,
    pub(crate) retries: Arc<Retries>,
    pub(crate) deliverer: Deliverer,
    pub(crate) nonces: Nonces,
    pub(crate) audit: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) feed: Feed,
    pub(crate) room: Room,
    pub(crate) tenants: Tenants,
    pub(crate) attempts: Attempts,
    /// Ends event streams and other tasks that have no end of their own.
    pub(crate) shutdown: CancellationToken,
}

impl core::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Orchestrator").finish_non_exhaustive()
    }
}

impl Orchestrator {
    pub(crate) const fn http_settings(&self) -> &HttpSettings {
        &self.http
    }

    pub(crate) const fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

/// A random number from 0 to 1 that keeps pauses of several processes apart. Without entropy it is
/// 0.
pub(crate) fn jitter() -> f64 {
    getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX))
}
