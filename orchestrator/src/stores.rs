//! Watches the broker's streams and buckets while an orchestrator runs: whether they are still the
//! ones it knows, and whether they go at least as far as it or a party saw them go.
//!
//! # Lost
//!
//! A broker may come back without them, on an empty disk or because an operator removed one. The
//! orchestrator creates them anew at once. It reports the loss in the log, in the audit log, by a
//! metric and by `/readyz`. To wait for an operator would gain nothing, since every orchestrator
//! that starts creates what is missing. The queued jobs are gone; clients may submit the same
//! requests again. Another orchestrator may have created the replacement first, so a stream with
//! another time of creation counts as lost as well.
//!
//! # Put back
//!
//! A broker that was put back to an earlier copy of its store has the same streams with lower
//! sequences. The orchestrator compares at start, on each new connection, and every two seconds:
//! with what it saw itself, and with what the parties say that they saw ([`Remembered`]). It
//! accepts, starts and publishes nothing, and shows no results, between a new connection and the
//! comparison ([`crate::broker_proof`]). So nothing is written into the streams before it is known
//! how far they went.
//!
//! Either way it begins the next of the broker's [epochs](crate::epochs) in the bucket `duet_meta`,
//! by compare-and-swap, unless another orchestrator was first. All orchestrators then drop their
//! boards and fill them anew.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use duet_bus::{
    Bus,
    kv::{self, Bucket, Key, ReadError, Revision, WriteError},
    streams::{self, StorageError, StorageSettings, StreamLook},
};
use duet_protocol::ids::PartyId;
use duet_wire::{
    Code, JobRecord, Refusal, audit::Event, remembered::Remembered, session_state::SessionRecord,
};
use tokio::{sync::watch, time::sleep};

use crate::{
    batch::BatchRecord,
    digests::{Answer, Claim},
    epochs::{Epochs, FIRST, Mark},
    orchestrator::Orchestrator,
    webhooks::{Endpoint, Retry},
};

/// The buckets: what each keeps, and its name at the broker. What is made and what is looked for is
/// this.
macro_rules! buckets {
    ($($field:ident: $value:ty = $name:expr;)*) => {
        /// Where state is kept.
        pub(crate) struct Buckets {
            $(pub(crate) $field: Bucket<$value>,)*
        }

        impl Buckets {
            const NAMES: &[&str] = &[$($name),*];

            async fn make(bus: &Bus, settings: &StorageSettings) -> Result<Self, StorageError> {
                Ok(Self { $($field: Box::pin(bus.ensure_bucket($name, settings)).await?,)* })
            }
        }
    };
}

buckets! {
    jobs: JobRecord = kv::JOBS;
    sessions: SessionRecord = kv::SESSIONS;
    batches: BatchRecord = kv::BATCHES;
    endpoints: Endpoint = kv::WEBHOOKS;
    retries: Retry = kv::WEBHOOK_RETRIES;
    claims: Claim = kv::DIGESTS;
    answers: Answer = kv::ANSWERS;
    meta: Epochs = kv::META;
}

/// Makes streams and buckets, or brings them up to date.
///
/// # Errors
/// See [`StorageError`].
pub(crate) async fn make(bus: &Bus, settings: &StorageSettings) -> Result<Buckets, StorageError> {
    bus.ensure_streams(settings).await?;
    Box::pin(Buckets::make(bus, settings)).await
}

/// All streams and buckets, by their stream names at the broker.
pub fn names() -> impl Iterator<Item = String> {
    streams::names().map(str::to_owned).chain(Buckets::NAMES.iter().map(|bucket| format!("KV_{bucket}")))
}

/// The refusal while `missing` do not exist. It says what an operator can do.
pub(crate) fn missing(missing: &[&str]) -> Refusal {
    Refusal::new(
        Code::StorageUnavailable,
        format!(
            "the broker lacks {}: it came back without its store. Orchestrators make them anew within seconds, empty. To keep \
             what was queued instead, stop all orchestrators and put the broker's store back from a copy",
            missing.join(", ")
        ),
    )
}

/// How long after a stream looked put back it is looked at again. A node that has just become the
/// leader may still be behind.
const CONFIRM_PAUSE: Duration = Duration::from_millis(500);

/// How often an epoch is tried to begin while other orchestrators do the same.
const MAX_CONFLICTS: usize = 8;

/// What was seen of a stream or bucket, and in which epoch.
#[derive(Debug, Clone)]
struct Seen {
    name: String,
    epoch: u64,
    mark: Mark,
    /// The party that says so. `None`: this process saw it.
    by: Option<PartyId>,
}

#[derive(Debug, Default)]
struct Known {
    epochs: Arc<Epochs>,
    /// How far each stream and bucket went, in the present epoch.
    marks: BTreeMap<String, Mark>,
    /// What parties remember and was not compared yet.
    heard: Vec<Seen>,
    /// The parties that have not answered over this connection.
    unheard: BTreeSet<PartyId>,
}

/// What is known of the streams and buckets.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    known: Mutex<Known>,
    /// One comparison at a time.
    turn: tokio::sync::Mutex<()>,
    /// Changes whenever one was lost or put back. Followers of a stream then begin anew.
    changes: watch::Sender<()>,
    /// When the last loss was found, in milliseconds since 1970; 0 for never.
    lost_at_ms: AtomicU64,
    /// When it was last found that the broker went back, in milliseconds since 1970; 0 for never.
    went_back_at_ms: AtomicU64,
}

/// The comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCompared {
    #[error("a stream or bucket does not answer")]
    Silent,
    #[error("what the broker has lost cannot be made anew: {0}")]
    Unmade(StorageError),
    #[error("the broker's epoch cannot be read: {0}")]
    Unread(ReadError),
    #[error(
        "the broker went back, and its next epoch cannot be stored: {0}; orchestrators need the permission to publish on \
         `$KV.duet_meta.>`, as deploy/nats/broker.conf has it"
    )]
    Unwritten(WriteError),
    #[error("other orchestrators change the broker's epoch again and again")]
    Contended,
}

/// The stream of the bucket of jobs.
fn jobs_bucket() -> String {
    format!("KV_{}", kv::JOBS)
}

/// How far a stream goes now.
const fn mark_of(look: &StreamLook) -> Mark {
    Mark { created_ns: look.created_ns, last: look.last_sequence }
}

impl Stores {
    /// When one was found lost, in milliseconds since 1970.
    pub(crate) fn lost_at_ms(&self) -> Option<u64> {
        Some(self.lost_at_ms.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// When the broker was found put back to an earlier copy, in milliseconds since 1970.
    pub(crate) fn went_back_at_ms(&self) -> Option<u64> {
        Some(self.went_back_at_ms.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Changes when one is lost or put back.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker's epochs, as far as this process knows.
    pub(crate) fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(&self.known().epochs)
    }

    /// Notes that the broker stored a message at `sequence` of the stream or bucket `name`.
    pub(crate) fn saw(&self, name: &str, sequence: u64) {
        if let Some(mark) = self.known().marks.get_mut(name) {
            mark.last = mark.last.max(sequence);
        }
    }

    /// Has every one of `parties` asked what it remembers of the broker.
    pub(crate) fn hear_anew(&self, parties: impl Iterator<Item = PartyId>) {
        self.known().unheard = parties.collect();
    }

    /// Notes what `party` remembers of the bucket of jobs, to be compared.
    fn hear(&self, party: &PartyId, remembered: &[Remembered]) {
        let mut known = self.known();
        known.unheard.remove(party);
        known.heard.extend(remembered.iter().map(|one| Seen {
            name: jobs_bucket(),
            epoch: one.epoch,
            mark: Mark { created_ns: one.created_ns, last: one.revision },
            by: Some(party.clone()),
        }));
    }

    /// What was seen so far: by this process, and by the parties.
    fn seen(&self) -> (Vec<Seen>, usize) {
        let known = self.known();
        let epoch = known.epochs.present();
        let own = known.marks.iter().map(|(name, mark)| {
            let (name, mark) = (name.clone(), *mark);
            Seen { name, epoch, mark, by: None }
        });
        (own.chain(known.heard.iter().cloned()).collect(), known.heard.len())
    }
}

impl Orchestrator {
    /// Looks at all streams and buckets. Makes those that are missing, unless that fails. Begins
    /// the broker's next epoch if it has gone back. Returns what was seen of each stream that
    /// answers.
    pub(crate) async fn look_at_stores(&self) -> BTreeMap<String, StreamLook> {
        match self.compare_stores().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(%error, "streams and buckets were not compared; trying again");
                BTreeMap::new()
            }
        }
    }

    /// As [`Self::look_at_stores`], of all streams and buckets.
    ///
    /// # Errors
    /// See [`NotCompared`].
    pub(crate) async fn compare_stores(&self) -> Result<BTreeMap<String, StreamLook>, NotCompared> {
        let _turn = self.stores.turn.lock().await;
        self.hear_parties().await;
        self.stores.saw(&jobs_bucket(), self.jobs.acknowledged());
        let known = self.stores.known().marks.clone();
        let (mut looks, missing) = self.look_at_all().await?;
        let replaced = |(name, look): (&String, &StreamLook)| {
            let other = known.get(name).is_some_and(|mark| mark.created_ns != look.created_ns);
            other.then(|| name.clone())
        };
        let mut lost: Vec<String> = looks.iter().filter_map(replaced).collect();
        lost.extend(missing.iter().filter(|name| known.contains_key(*name)).cloned());
        // With the settings that this orchestrator was started with. Another one, also of an
        // earlier version, may have made the replacement with others.
        if !missing.is_empty() || !lost.is_empty() {
            if let Err(error) = make(&self.bus, &self.storage).await {
                tracing::error!(%error, "streams and buckets that the broker has lost cannot be made anew; trying again");
                // The next look still finds the missing ones lost.
                return Err(NotCompared::Unmade(error));
            }
            looks = self.look_at_all().await?.0;
        }
        for _ in 0..MAX_CONFLICTS {
            let (epochs, revision) = self.read_epochs().await?;
            let (seen, heard) = self.stores.seen();
            let again = epochs.begun_again(&self.stores.epochs());
            let mut gone = unexplained(&epochs, &seen, &looks);
            if !gone.is_empty() && lost.is_empty() {
                sleep(CONFIRM_PAUSE).await;
                looks = self.look_at_all().await?.0;
                gone = unexplained(&epochs, &seen, &looks);
            }
            let gone = if again.is_empty() {
                self.believed(&epochs, gone)
            } else {
                // What this process saw, it saw in another epoch of that number.
                seen.into_iter().filter(|seen| seen.by.is_none()).collect()
            };
            let epochs = if gone.is_empty() {
                epochs
            } else {
                match self.begin_epoch(epochs, revision, &gone, &looks, &again).await? {
                    Some(begun) => begun,
                    // Another orchestrator was first.
                    None => continue,
                }
            };
            if self.adopt(epochs, &looks, heard, &lost, &gone) {
                self.attempts.went_back().await;
                self.stores.changes.send_replace(());
            }
            return Ok(looks);
        }
        Err(NotCompared::Contended)
    }

    /// What of `gone` can begin an epoch: what this process saw itself, and what parties say, each
    /// once a day. A party that lies could otherwise have every orchestrator drop its board on each
    /// new connection.
    fn believed(&self, epochs: &Epochs, mut gone: Vec<Seen>) -> Vec<Seen> {
        let now_ms = self.clock.now_ms();
        gone.retain(|seen| {
            let Some(party) = &seen.by else { return true };
            let is_believed = epochs.may_begin_on_word_of(party, now_ms);
            if !is_believed {
                self.metrics.memory_not_believed(party);
                tracing::error!(
                    %party,
                    epoch = seen.epoch,
                    revision = seen.mark.last,
                    "it says again within a day that the broker held more than it does; not believed: look whether the broker was \
                     put back again, else at that party"
                );
            }
            is_believed
        });
        gone
    }

    /// Looks at all streams and buckets. Returns those that exist, and the names of the others.
    async fn look_at_all(&self) -> Result<(BTreeMap<String, StreamLook>, Vec<String>), NotCompared> {
        let looks = names().map(|name| async move { (self.bus.look_at_stream(&name).await, name) });
        let (mut seen, mut missing) = (BTreeMap::new(), Vec::new());
        for (look, name) in futures::future::join_all(looks).await {
            match look {
                Ok(Some(look)) => drop(seen.insert(name, look)),
                Ok(None) => missing.push(name),
                // It is unreachable, which says nothing about its contents.
                Err(_) => return Err(NotCompared::Silent),
            }
        }
        Ok((seen, missing))
    }

    async fn read_epochs(&self) -> Result<(Epochs, Option<Revision>), NotCompared> {
        let entry = self.meta.newest(&Key::of_broker()).await.map_err(NotCompared::Unread)?;
        Ok(entry.map_or_else(|| (Epochs::default(), None), |entry| (entry.value, Some(entry.revision))))
    }

    /// Begins the next epoch. `None` when another orchestrator has changed it meanwhile.
    async fn begin_epoch(
        &self,
        epochs: Epochs,
        revision: Option<Revision>,
        gone: &[Seen],
        looks: &BTreeMap<String, StreamLook>,
        again: &BTreeMap<String, Mark>,
    ) -> Result<Option<Epochs>, NotCompared> {
        let after = gone.iter().map(|seen| seen.epoch).max().unwrap_or(FIRST);
        let after = after.max(self.stores.epochs().present());
        // One that replaced another holds nothing of what the other held.
        let is_other = |name: &str, look: &StreamLook| {
            gone.iter().any(|seen| seen.name == name && seen.mark.created_ns != look.created_ns)
        };
        let marks = looks.iter().map(|(name, look)| {
            let mut mark = mark_of(look);
            mark.last = again.get(name).map_or(mark.last, |lowest| lowest.last.min(mark.last));
            (name.clone(), if is_other(name, look) { Mark { last: 0, ..mark } } else { mark })
        });
        // Of no party, if this process saw something itself.
        let parties: Option<BTreeSet<PartyId>> = gone.iter().map(|seen| seen.by.clone()).collect();
        let on_word_of = parties.unwrap_or_default().into_iter().collect();
        let next = epochs.with_next(after, self.clock.now_ms(), marks.collect(), on_word_of);
        let key = Key::of_broker();
        let written = match revision {
            Some(revision) => self.meta.update(&key, &next, revision).await,
            None => self.meta.create(&key, &next).await,
        };
        match written {
            Ok(_) => Ok(Some(next)),
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => {
                let error = NotCompared::Unwritten(error);
                tracing::error!(%error, "nothing is accepted or started");
                Err(error)
            }
        }
    }

    /// Takes over what the broker holds now. Returns whether that is less than before.
    fn adopt(
        &self,
        epochs: Epochs,
        looks: &BTreeMap<String, StreamLook>,
        heard: usize,
        lost: &[String],
        gone: &[Seen],
    ) -> bool {
        let (present, is_first_look, is_another) = {
            let mut known = self.stores.known();
            let before = known.epochs.present();
            let is_first_look = known.marks.is_empty();
            let is_another = before != epochs.present();
            known.heard.drain(..heard);
            let marks = looks.iter().map(|(name, look)| {
                let (mut mark, before) = (mark_of(look), known.marks.get(name));
                // A write since the look has shown more. After a step back it was another's.
                if let Some(before) = before.filter(|_| !is_another && !lost.contains(name)) {
                    mark.last = mark.last.max(before.last);
                }
                (name.clone(), mark)
            });
            known.marks = marks.collect();
            known.epochs = Arc::new(epochs);
            (known.epochs.present(), is_first_look, is_another)
        };
        self.metrics.broker_epoch(present);
        if lost.is_empty() && gone.is_empty() && (!is_another || is_first_look) {
            return false;
        }
        let open = self.board.open().all();
        self.board.clear();
        self.jobs.forget_acknowledged();
        if lost.is_empty() {
            self.note_went_back(present, gone, open);
        } else {
            self.note_lost(lost, open);
        }
        true
    }

    fn note_lost(&self, lost: &[String], open: usize) {
        self.stores.lost_at_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.metrics.stores_lost(lost.len());
        self.audit.note(Event::StoresLost { stores: lost.to_vec(), open_jobs: open as u64 });
        tracing::error!(
            stores = lost.join(" "),
            open_jobs = open,
            "the broker has lost its streams and buckets; they are made anew, and what was queued in them is gone: submit it \
             again, or stop everything and put the broker's store back from a copy"
        );
    }

    fn note_went_back(&self, epoch: u64, gone: &[Seen], open: usize) {
        let mut stores: Vec<String> = gone.iter().map(|seen| seen.name.clone()).collect();
        stores.sort_unstable();
        stores.dedup();
        self.stores.went_back_at_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.metrics.broker_went_back();
        tracing::error!(
            epoch,
            stores = stores.join(" "),
            open_jobs = open,
            "the broker was put back to an earlier copy of its store; jobs, results and webhooks are those of the copy. Submit \
             again what was accepted since, under the same idempotency keys"
        );
        self.audit.note(Event::BrokerWentBack { epoch, stores, open_jobs: open as u64 });
    }

    /// How far the bucket of jobs went, as the parties are to remember it. `None` before the first
    /// look.
    pub(crate) fn remembered(&self) -> Option<Remembered> {
        let known = self.stores.known();
        let Mark { created_ns, last } = *known.marks.get(&jobs_bucket())?;
        let revision = last.max(self.jobs.acknowledged());
        Some(Remembered { epoch: known.epochs.present(), revision, created_ns })
    }

    /// Asks the parties that have not answered over this connection what they remember.
    async fn hear_parties(&self) {
        let unheard: Vec<PartyId> = self.stores.known().unheard.iter().cloned().collect();
        let asked = unheard.iter().map(|party| async move { (party, self.directory.recall(party).await) });
        for (party, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(remembered) => self.stores.hear(party, &remembered),
                Err(refusal) => {
                    tracing::debug!(%party, %refusal, "it does not say what it remembers of the broker")
                }
            }
        }
    }
}

/// What of `seen` the broker held once, does not hold now, and was not found to have lost.
fn unexplained(epochs: &Epochs, seen: &[Seen], looks: &BTreeMap<String, StreamLook>) -> Vec<Seen> {
    let is_explained = |seen: &Seen| {
        looks
            .get(&seen.name)
            .is_some_and(|look| epochs.explain(&seen.name, seen.epoch, seen.mark, mark_of(look)))
    };
    seen.iter().filter(|seen| !is_explained(seen)).cloned().collect()
}
