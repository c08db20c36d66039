//! Performs the actions of the core of the queue: one call for each, and one outcome for each
//! result of that call.

use std::sync::Arc;

use bytes::Bytes;
use duet_bus::{Address, PublishError, RequestError, Speaker, ends::StoredEnd, kv::Key, streams};
use duet_protocol::{
    codec,
    ids::{PartyId, SessionId, WalletId},
};
use duet_queue::{
    actions::{Answers, Document, FoundSession, Invited, Note, Outcome, Seated, What},
    intake::Standing,
    store::{JobKey, StoreFailure, Version, Written},
    terms::PairTerms,
    verified::VerifiedRequest,
};
use duet_wire::{
    Code, Invitation, InvitationReply, JobRecord, Refusal, Release,
    progress::{Progress, Step},
    remembered::{ISSUED_AT_HEADER, REMEMBERED_HEADER},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Duration;

use crate::{feed, jobs::written, orchestrator::Orchestrator};

/// How long the broker may take to store a result or a dead letter.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);

/// The key of a job's entry.
pub(crate) fn entry_key(job: &JobKey) -> Key {
    Key::from((&job.tenant, job.job))
}

impl Orchestrator {
    /// Performs `what`. What stores something waits until the broker was compared with what is
    /// remembered of it, and is left undone if the broker went back since the core asked for it.
    pub(crate) async fn perform(&self, what: What) -> Outcome {
        if !what.is_stored() {
            return self.perform_now(what).await;
        }
        let changes = self.stores.changes();
        let compared = self.broker.require_compared().await.map_err(|refusal| refusal.to_string());
        let is_as_before = !changes.has_changed().unwrap_or(true);
        match compared {
            Ok(()) if is_as_before => self.perform_now(what).await,
            Ok(()) => undone(&what, "the broker went back to an earlier copy of its store"),
            Err(reason) => undone(&what, &reason),
        }
    }

    async fn perform_now(&self, what: What) -> Outcome {
        match what {
            What::Read { job, may_be_behind } => Outcome::Read(self.read_job(&job, may_be_behind).await),
            What::Create(record) => {
                let created = self.jobs.create((*record).clone()).await;
                Outcome::Written(written(created.map(|snapshot| snapshot.revision)))
            }
            What::Write { job, revision, record } => {
                let stored = self.jobs.write(&entry_key(&job), (*record).clone(), revision.into()).await;
                Outcome::Written(written(stored.map(|snapshot| snapshot.revision)))
            }
            What::Remove { job, revision } => {
                let removed = self.jobs.remove(&entry_key(&job), revision.into()).await;
                Outcome::Removed(removed.map_err(StoreFailure::from))
            }
            What::Forget(job) => {
                if let Err(error) = self.jobs.drop_missing(&job).await {
                    tracing::debug!(job = %job.job, %error, "it is not known whether the store has a job");
                }
                Outcome::Done
            }
            What::Learn(Version { record, revision }) => {
                let key = Key::from((&record.tenant, record.id));
                self.board.apply(&key, Arc::unwrap_or_clone(record), revision.into());
                Outcome::Done
            }
            What::CreateSession(record) => Outcome::Written(match self.sessions.create(&record).await {
                Ok(()) => Written::Stored(0),
                Err(error) => Written::Failed(error.into()),
            }),
            What::FindSession { job, session } => {
                let found = self.sessions.get(session).await.map_err(StoreFailure::from);
                let seen_at_ms = self.board.seen_at_ms(&entry_key(&job));
                Outcome::Session(found.map(|found| {
                    found.map(|record| FoundSession { initiator: record.initiator.party, seen_at_ms })
                }))
            }
            What::EndSession(session, event) => {
                self.sessions.end(session, event).await;
                Outcome::Done
            }
            What::RemoveSession(session) => {
                let removed = self.sessions.remove(session).await.inspect_err(|error| {
                    tracing::warn!(%session, %error, "the record of an old session was not removed");
                });
                Outcome::Removed(removed.map_err(StoreFailure::from))
            }
            What::AskBroker => Outcome::Broker(self.broker.require().await.inspect_err(|refusal| {
                tracing::debug!(code = %refusal.code, message = refusal.message, "no job is started");
            })),
            What::AskRoom(tenant) => Outcome::Room(self.fill(&tenant)),
            What::AskBacklog => Outcome::Backlog(self.backlog().await),
            What::AskStanding { request, anew } => Outcome::Standing(self.standing(&request, anew).await),
            What::AskHolders { wallet, tenant } => Outcome::Holders(self.holders(wallet, &tenant).await),
            What::Tell(party, revocation) => Outcome::Told(self.tell(&party, &revocation).await),
            What::ReadClaim(digest) => Outcome::Holder(self.read_claim(&digest).await),
            What::WriteClaim { digest, holder, follows } => {
                Outcome::Written(self.write_claim(&digest, holder, follows).await)
            }
            What::AskParties { wallet, answers } => Outcome::Terms(self.terms_of(wallet, answers).await),
            What::DoubtParty { party, wallet } => {
                self.directory.doubt(&party, wallet);
                Outcome::Done
            }
            What::AskParty(party) => {
                self.directory.ask_whether_present(&party).await;
                Outcome::Done
            }
            What::WakeWaiting => {
                self.wake_waiting().await;
                Outcome::Done
            }
            What::ForgetParties { wallet, but_newest: true } => {
                self.directory.forget_older(wallet);
                Outcome::Done
            }
            What::ForgetParties { wallet, but_newest: false } => {
                self.directory.forget(wallet);
                Outcome::Done
            }
            What::Invite { seat, instance, session, manifest, lasts } => {
                let party = seat.party;
                let address = match instance {
                    Some(instance) => Address::InviteWorker { party: party.clone(), instance },
                    None => Address::Invite(party.clone()),
                };
                Outcome::Invited(self.invite(&party, &address, session, manifest, lasts).await)
            }
            What::Release(session, seated) => {
                self.release(session, seated).await;
                Outcome::Done
            }
            What::Show(session, step) => {
                self.announce_step(session, step).await;
                Outcome::Done
            }
            What::Publish { document, message_id } => {
                Outcome::Published(self.publish_end(&document, &message_id).await)
            }
            What::FindEnd(record) => Outcome::Found(self.find_end(&record).await),
            What::Announce { job, wake_up } => {
                let announced = self.announce(&job, &wake_up).await;
                Outcome::Published(announced.is_ok())
            }
            What::Note(note) => {
                self.note(note);
                Outcome::Done
            }
            // They concern the caller or the fair queue, and the driver performs them itself.
            What::Enter { .. } | What::Reply(_) | What::End | What::Park { .. } | What::Unpark { .. } => {
                Outcome::Done
            }
        }
    }

    async fn read_job(&self, job: &JobKey, may_be_behind: bool) -> Result<Option<Version>, StoreFailure> {
        let key = entry_key(job);
        let entry = if may_be_behind { self.jobs.recent(&key).await? } else { self.jobs.get(&key).await? };
        Ok(entry.map(|entry| Version { record: Arc::new(entry.value), revision: entry.revision.into() }))
    }

    async fn terms_of(&self, wallet: WalletId, answers: Answers) -> PairTerms {
        let facts = match answers {
            Answers::Last => self.directory.wallet(wallet).await,
            Answers::OfPresent => self.directory.wallet_to_sign(wallet).await,
            Answers::New => self.directory.wallet_anew(wallet).await,
        };
        facts.pair_terms()
    }

    /// What the wallet's parties say of a request.
    async fn standing(&self, request: &VerifiedRequest, anew: bool) -> Standing {
        let (requester, request) = (&request.signed().requester, request.request());
        let facts = if anew {
            self.directory.wallet_anew(request.wallet).await
        } else {
            self.directory.wallet_or_last_word(request.wallet).await
        };
        Standing {
            is_unknown: facts.is_unknown(),
            silence: facts.silence().cloned(),
            is_tenants: facts.belongs_to(&request.tenant),
            permission: facts.allows(requester, request.payload.kind()),
            path: facts.derivable(&request.path),
            terms: facts.pair_terms(),
        }
    }

    /// Invites a worker of `party` at `address`. It answers once it listens.
    ///
    /// The broker says at once that no worker listens. In a cluster it may not know a worker yet,
    /// so the invitation is sent again for a moment: none of the copies before reached a worker.
    async fn invite(
        &self,
        party: &PartyId,
        address: &Address,
        session: SessionId,
        manifest: Vec<u8>,
        lasts: Duration,
    ) -> Invited {
        let asked_at_ms = self.clock.now_ms();
        let invitation = match codec::encode(&Invitation { manifest }) {
            Ok(invitation) => Bytes::from(invitation),
            Err(error) => return Invited::NotSent(Refusal::new(Code::Internal, error.to_string())),
        };
        let issued_at = (ISSUED_AT_HEADER, asked_at_ms.to_string());
        let remembered = self.remembered().map(|seen| (REMEMBERED_HEADER, seen.to_string()));
        let headers: Vec<_> = remembered.into_iter().chain([issued_at]).collect();
        let patience = self.queue.worker_search.min(self.queue.invitation_timeout);
        let reply = match self.bus.request_resending_for(patience, address, invitation, lasts, &headers).await
        {
            Ok(reply) => reply,
            Err(RequestError::NoResponders { .. }) => return Invited::NoWorker,
            Err(RequestError::TimedOut { .. }) => return Invited::Silence,
            Err(
                error @ (RequestError::PermissionDenied { .. }
                | RequestError::TooLarge { .. }
                | RequestError::Unreachable),
            ) => return Invited::NotSent(error.to_refusal(party.as_str())),
        };
        match InvitationReply::read(&reply) {
            Ok((InvitationReply::Accepted { instance }, _)) => {
                tracing::debug!(%session, %party, ?instance, "invitation accepted");
                Invited::Accepted(instance)
            }
            Ok((InvitationReply::Refused(refusal), time)) => {
                tracing::info!(%session, %party, code = %refusal.code, "invitation refused");
                // Halfway between request and answer.
                let times = time.map(|theirs_ms| (theirs_ms, asked_at_ms.midpoint(self.clock.now_ms())));
                Invited::Refused { refusal, times }
            }
            Err(error) => {
                Invited::Malformed { sha256: Sha256::digest(&reply).into(), reason: error.to_string() }
            }
        }
    }

    async fn release(&self, session: SessionId, seated: Seated) {
        let Seated { party, instance } = seated;
        match codec::encode(&Release { session }) {
            Ok(message) => {
                let address = Address::Release { party, instance };
                if let Err(error) = self.bus.publish(&address, message).await {
                    tracing::debug!(%session, %error, "a seat was not released");
                }
            }
            Err(error) => tracing::error!(%error, "a release does not encode"),
        }
    }

    async fn publish_end(&self, document: &Document, message_id: &str) -> bool {
        let (record, published) = match document {
            Document::DeadLetter(record) => {
                (record, self.publish(Address::Dead(record.tenant.clone()), &**record, message_id).await)
            }
            Document::Result(record, result) => {
                (record, self.publish(Address::Result(record.tenant.clone()), result, message_id).await)
            }
            Document::Ended(record, ended) => {
                (record, self.publish(Address::Ended(record.tenant.clone()), ended, message_id).await)
            }
        };
        if let Err(error) = &published {
            tracing::warn!(job = %record.id, %error, "a job's end was not published; trying again later");
        }
        published.is_ok()
    }

    async fn publish(
        &self,
        address: Address,
        document: &(impl Serialize + Sync),
        message_id: &str,
    ) -> Result<(), PublishFailure> {
        let document = serde_json::to_vec(document)?;
        let stored = self.bus.publish_stored(&address, document, Some(message_id), PUBLISH_DEADLINE).await?;
        if !matches!(address, Address::Dead(_)) {
            self.stores.saw(streams::RESULTS, stored.sequence);
        }
        Ok(())
    }

    /// Whether the job's end is among those published; `None` if that is not known.
    async fn find_end(&self, record: &JobRecord) -> Option<bool> {
        let is_it = |end: &StoredEnd| feed::is_end_of(end, record);
        match self.bus.has_end(&record.tenant, record.updated_at_ms, is_it).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(job = %record.id, %error, "it is not known whether a job's end was published");
                None
            }
        }
    }

    fn note(&self, note: Note) {
        match note {
            Note::Accepted(record, request) => self.note_accepted(&record, &request),
            Note::PutBack(record) => self.note_put_back(&record),
            Note::RequesterAhead(ahead_ms) => {
                tracing::warn!(ahead_ms, "clocks differ: a request was issued later than now");
                self.metrics.requester_skew(ahead_ms);
            }
            Note::NotSwept(job, error) => {
                tracing::debug!(%job, %error, "not swept; the next sweep tries again");
            }
            Note::Started { record, request, session, pair } => {
                self.note_started(&record, &request, session, pair);
            }
            Note::Failed { record, request, session, failure } => {
                self.note_failed(&record, &request, session, &failure);
            }
            Note::Signed { record, request, session, digest } => {
                self.note_signed(&record, &request, session, digest);
            }
            Note::Ended(record) => self.note_end(&record),
            Note::Waits(refusal) => {
                tracing::info!(code = %refusal.code, message = refusal.message, "the job waits");
            }
            Note::EndPublished(succeeded) => self.metrics.end_published(succeeded),
            Note::ClockSkew(index, ahead_ms) => self.metrics.clock_skew(index, ahead_ms),
            Note::Trouble(trouble) => tracing::warn!("{trouble}"),
        }
    }

    /// Publishes how far a session has come, for its observers. The message may be lost.
    async fn announce_step(&self, session: SessionId, step: Step) {
        let address = Address::Event { session, from: Speaker::Orchestrator };
        let progress = Progress { session, step, at_ms: self.clock.now_ms() };
        if let Err(error) = self.bus.publish(&address, Bytes::from(progress.to_json())).await {
            tracing::debug!(%session, %error, "progress was not published");
        }
    }
}

/// The outcome of an action that stores something and was left undone.
fn undone(what: &What, reason: &str) -> Outcome {
    let failure = StoreFailure::Unknown(reason.to_owned());
    match what {
        What::Publish { .. } | What::Announce { .. } => Outcome::Published(false),
        What::Remove { .. } | What::RemoveSession(_) => Outcome::Removed(Err(failure)),
        What::EndSession(..) => Outcome::Done,
        _ => Outcome::Written(Written::Failed(failure)),
    }
}

/// Why a job's end was not published.
#[derive(Debug, thiserror::Error)]
enum PublishFailure {
    #[error(transparent)]
    Broker(#[from] PublishError),
    #[error("it does not serialise: {0}")]
    Document(#[from] serde_json::Error),
}
