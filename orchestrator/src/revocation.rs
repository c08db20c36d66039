//! Carries revocations to the parties. A job's requester or the wallet's owner signs a revocation
//! of the request. The orchestrator tells each party that holds a share, until the party has stored
//! it.
//!
//! The orchestrator only carries the revocation. Its own state "cancelled" binds no party; a
//! revocation that a party stored does.

use core::time::Duration;
use std::sync::Arc;

use duet_bus::{
    Address, Speaker,
    kv::{Entry, Key},
};
use duet_protocol::{
    codec,
    ids::{PartyId, ShareIndex},
};
use duet_queue::store::StoreFailure;
use duet_wire::{
    Code, JobEvent, JobId, JobRecord, JobState, Refusal, SignedRevocation, TenantId,
    error::Class,
    job::{JobRevocation, RevocationRefused},
    revocation::{RevocationProof, RevocationReply},
};
use futures::{StreamExt as _, future::join_all};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    board::key_of,
    jobs::{Changed, StoreError, request_of},
    orchestrator::Orchestrator,
};

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

/// A party's answer to a revocation.
enum Told {
    Kept,
    Refused(Refusal),
    /// No answer, or no final one.
    NotYet,
}

/// Whether a party that refuses a revocation with this code would refuse it again.
const fn is_final(code: Code) -> bool {
    match code.class() {
        Class::No | Class::NeverFromASession => true,
        Class::Wait | Class::Tried => false,
    }
}

impl Orchestrator {
    /// Accepts a revocation of `job` from its tenant.
    ///
    /// # Errors
    /// When there is no such job, it is signed, or the revocation is not valid.
    pub(crate) async fn revoke_job(
        &self,
        tenant: &TenantId,
        job: JobId,
        proof: RevocationProof,
    ) -> Result<Box<JobRecord>, Refusal> {
        let key = Key::from((tenant, job));
        let missing = || Refusal::new(Code::NotFound, "there is no such job");
        let entry = self.jobs.get(&key).await?.ok_or_else(missing)?;
        self.revoke(&key, entry, proof).await
    }

    /// Records that the request of the job under `key` is revoked. Cancels the job unless it runs
    /// or is settled. Tells the parties once; those that do not answer are told again later.
    ///
    /// # Errors
    /// When the job is signed, or the revocation is not valid.
    pub(crate) async fn revoke(
        &self,
        key: &Key,
        entry: Entry<JobRecord>,
        proof: RevocationProof,
    ) -> Result<Box<JobRecord>, Refusal> {
        let request = request_of(&entry.value)?;
        proof
            .verify(request.wallet, entry.value.request.content_hash())
            .map_err(|error| Refusal::new(Code::BadSignature, format!("the revocation: {error}")))?;
        let view = self.directory.wallet_or_last_word(request.wallet).await.view(&request.tenant);
        let is_owner =
            view.as_ref().and_then(|view| view.requesters.first()).is_some_and(|owner| owner.key == proof.by);
        if proof.by != entry.value.request.requester && !is_owner {
            return Err(Refusal::new(
                Code::RequesterNotAllowed,
                "a request is revoked by the key that signed it, or by the wallet's owner",
            ));
        }
        // While no party has named the holders of the shares, all parties are told.
        let waits_for: Vec<PartyId> = match view {
            Some(view) => view
                .parties
                .into_iter()
                .zip(ShareIndex::ALL)
                .filter(|(_, index)| *index != ShareIndex::Device)
                .filter_map(|(party, _)| party)
                .collect(),
            None => self.directory.parties().cloned().collect(),
        };
        let revocation = JobRevocation {
            proof,
            at_ms: self.clock.now_ms(),
            kept_by: Vec::new(),
            waits_for,
            refused_by: Vec::new(),
        };
        let mut was_open = false;
        let changed = self
            .jobs
            .change(key, Some(entry), |record| {
                if record.revocation.is_some() {
                    return Err(Ok(Box::new(record.clone())));
                }
                was_open = false;
                match record.state {
                    JobState::Signed { .. } => {
                        return Err(Err(Refusal::new(
                            Code::Conflict,
                            "the job is signed; a signature cannot be called back",
                        )));
                    }
                    JobState::Queued | JobState::AwaitingOwner => {
                        let event = match record.state {
                            JobState::AwaitingOwner if is_owner => JobEvent::Reject,
                            _ => JobEvent::Cancel,
                        };
                        was_open = true;
                        record
                            .apply(&event, record.fence, self.clock.now_ms())
                            .map_err(|error| Err(Refusal::new(Code::Internal, error.to_string())))?;
                    }
                    // The parties end a running session; then no other follows.
                    JobState::Running { .. }
                    | JobState::Failed { .. }
                    | JobState::Expired
                    | JobState::Cancelled
                    | JobState::Unknown(_) => {}
                }
                record.revocation = Some(revocation.clone());
                Ok(())
            })
            .await?;
        let snapshot = match changed {
            Changed::Applied(snapshot) => snapshot,
            Changed::Declined(result) => return result,
            Changed::Missing => return Err(Refusal::new(Code::NotFound, "there is no such job")),
        };
        tracing::info!(job = %snapshot.value.id, "the job's request was revoked");
        if was_open {
            self.attempts.conclude(&snapshot).await;
        }
        self.tell_parties(key).await?;
        let entry = self.jobs.get(key).await?;
        Ok(Box::new(entry.map_or_else(|| snapshot.value.clone(), |entry| entry.value)))
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
                if let Err(error) = self.tell_parties(&key_of(&job)).await {
                    tracing::debug!(job = %job.job, %error, "a revocation was not told; it is told again");
                }
            })
            .await;
    }

    /// Tells the parties that have not acknowledged the revocation of the job under `key`, and
    /// records their answers.
    async fn tell_parties(&self, key: &Key) -> Result<(), StoreError> {
        let Some(entry) = self.jobs.get(key).await? else { return Ok(()) };
        let record = &entry.value;
        let Some(revocation) = &record.revocation else { return Ok(()) };
        if revocation.waits_for.is_empty() || self.clock.has_passed(record.expires_at_ms) {
            return Ok(());
        }
        let signed = SignedRevocation { request: record.request.clone(), proof: revocation.proof };
        let message =
            codec::encode(&signed).map_err(|error| StoreError(StoreFailure::Corrupt(error.to_string())))?;
        let told = join_all(revocation.waits_for.iter().map(|party| self.tell(party, &message))).await;
        let told: Vec<(PartyId, Told)> = revocation.waits_for.iter().cloned().zip(told).collect();
        if told.iter().all(|(_, told)| matches!(told, Told::NotYet)) {
            return Ok(());
        }
        let noted = self.jobs.change(key, Some(entry), |record| {
            let Some(revocation) = record.revocation.as_mut() else { return Err(()) };
            for (party, told) in &told {
                if matches!(told, Told::NotYet) || !revocation.waits_for.contains(party) {
                    continue;
                }
                revocation.waits_for.retain(|waiting| waiting != party);
                match told {
                    Told::Refused(refusal) => revocation
                        .refused_by
                        .push(RevocationRefused { party: party.clone(), refusal: refusal.clone() }),
                    Told::Kept | Told::NotYet => revocation.kept_by.push(party.clone()),
                }
            }
            Ok(())
        });
        noted.await.map(drop)
    }

    async fn tell(&self, party: &PartyId, message: &[u8]) -> Told {
        let address = Address::Card { from: Speaker::Orchestrator, to: party.clone() };
        let reply = match self.bus.request(&address, message.to_vec(), DEADLINE).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(%party, %error, "a party was not told of a revocation");
                return Told::NotYet;
            }
        };
        match codec::decode(&reply) {
            Ok(RevocationReply::Kept) => Told::Kept,
            Ok(RevocationReply::Refused(refusal)) if is_final(refusal.code) => {
                tracing::warn!(%party, %refusal, "a party does not keep a revocation");
                Told::Refused(refusal)
            }
            Ok(RevocationReply::Refused(refusal)) => {
                tracing::debug!(%party, %refusal, "a party does not keep a revocation yet");
                Told::NotYet
            }
            Err(error) => {
                // A party of the previous version does not understand the request.
                tracing::warn!(%party, %error, "a party's answer to a revocation does not parse");
                Told::NotYet
            }
        }
    }
}
