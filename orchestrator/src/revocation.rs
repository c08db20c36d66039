//! Carries revocations to the parties. A job's requester or the wallet's owner signs a revocation
//! of the request. The orchestrator tells each party that holds a share, until the party has stored
//! it.
//!
//! The orchestrator only carries the revocation. Its own state "cancelled" binds no party; a
//! revocation that a party stored does.

use core::time::Duration;
use std::sync::Arc;

use duet_bus::{Address, Speaker};
use duet_protocol::{
    codec,
    ids::{PartyId, ShareIndex, WalletId},
};
use duet_queue::{
    intake::{Denied, Holders, Told},
    store::{JobKey, StoreFailure, request_of},
    verified::VerifiedRevocation,
};
use duet_wire::{
    Code, JobRecord, Refusal, SignedRevocation, TenantId,
    revocation::{RevocationProof, RevocationReply},
};
use futures::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{actions::entry_key, attempts::version_of, orchestrator::Orchestrator};

/// How long a party may take to store a revocation: one durable write.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often the orchestrator tells parties that have not acknowledged.
const AGAIN_EVERY: Duration = Duration::from_secs(2);

/// How many jobs' revocations are sent at a time, and in one round. The others follow in the next
/// round.
const CONCURRENCY: usize = 8;
const MAX_PER_ROUND: usize = 256;

/// Tells parties that have not acknowledged, again and again, until `stop`.
pub(crate) async fn run(orchestrator: Arc<Orchestrator>, stop: CancellationToken) {
    let mut ticks = interval(AGAIN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = orchestrator.tell_again() => {}
        }
    }
}

impl Orchestrator {
    /// Accepts a revocation of a job's request: `wallet`'s job, if that is given.
    ///
    /// # Errors
    /// When there is no such job, it is signed, or the revocation is not valid.
    pub(crate) async fn revoke(
        &self,
        job: &JobKey,
        wallet: Option<WalletId>,
        proof: RevocationProof,
    ) -> Result<Arc<JobRecord>, Denied> {
        let missing = || match wallet {
            Some(_) => Refusal::new(Code::NotFound, "there is no such job for this wallet"),
            None => Refusal::new(Code::NotFound, "there is no such job"),
        };
        let entry = self.jobs.get(&entry_key(job)).await.map_err(StoreFailure::from)?;
        let version = version_of(&entry.ok_or_else(missing)?);
        let request = request_of(&version.record)?;
        if wallet.is_some_and(|wallet| wallet != request.wallet) {
            return Err(missing().into());
        }
        let revocation = VerifiedRevocation::check(&version.record, &request, proof)
            .map_err(|error| Refusal::new(Code::BadSignature, format!("the revocation: {error}")))?;
        let record = self.attempts.revoke(version, revocation).await?;
        tracing::info!(job = %record.id, "the job's request was revoked");
        Ok(record)
    }

    /// Who may revoke the wallet's requests, and who has to hear of it.
    pub(crate) async fn holders(&self, wallet: WalletId, tenant: &TenantId) -> Holders {
        match self.directory.wallet_or_last_word(wallet).await.view(tenant) {
            Some(view) => Holders {
                owner: view.requesters.first().map(|owner| owner.key),
                parties: view
                    .parties
                    .into_iter()
                    .zip(ShareIndex::ALL)
                    .filter(|(_, index)| *index != ShareIndex::Device)
                    .filter_map(|(party, _)| party)
                    .collect(),
            },
            // While no party has named the holders of the shares, all parties are told.
            None => Holders { owner: None, parties: self.directory.parties().cloned().collect() },
        }
    }

    async fn tell_again(&self) {
        let now = self.clock.now_ms();
        let mut waiting =
            self.board.select(|job| job.revocation_waits && !self.clock.has_passed(job.expires_at_ms));
        waiting.sort_unstable_by_key(|job| job.updated_at_ms);
        // Rotation gives each job its turn, however many wait.
        let round = usize::try_from(now / 1000).unwrap_or_default();
        let first = round.wrapping_mul(MAX_PER_ROUND).checked_rem(waiting.len()).unwrap_or_default();
        waiting.rotate_left(first);
        waiting.truncate(MAX_PER_ROUND);
        futures::stream::iter(waiting)
            .for_each_concurrent(CONCURRENCY, |job| async move {
                if let Err(error) = self.attempts.tell_parties(job.key()).await {
                    tracing::debug!(job = %job.job, %error, "a revocation was not told; it is told again");
                }
            })
            .await;
    }

    /// Tells a party of a revocation.
    pub(crate) async fn tell(&self, party: &PartyId, revocation: &SignedRevocation) -> Told {
        let message = match codec::encode(revocation) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(%error, "a revocation does not encode");
                return Told::Silence;
            }
        };
        let address = Address::Card { from: Speaker::Orchestrator, to: party.clone() };
        let reply = match self.bus.request(&address, message, DEADLINE).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(%party, %error, "a party was not told of a revocation");
                return Told::Silence;
            }
        };
        match codec::decode(&reply) {
            Ok(RevocationReply::Kept) => Told::Kept,
            Ok(RevocationReply::Refused(refusal)) => {
                tracing::debug!(%party, %refusal, "a party does not keep a revocation");
                Told::Refused(refusal)
            }
            Err(error) => {
                // A party of the previous version does not understand the request.
                tracing::warn!(%party, %error, "a party's answer to a revocation does not parse");
                Told::Silence
            }
        }
    }
}
