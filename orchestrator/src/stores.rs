//! Watches the broker's streams and buckets while an orchestrator runs: whether they are still the
//! ones it knows.
//!
//! A broker may come back without them, on an empty disk or because an operator removed one. The
//! orchestrator creates them anew at once. It reports the loss in the log, in the audit log, by a
//! metric and by `/readyz`. To wait for an operator would gain nothing, since every orchestrator
//! that starts creates what is missing. The queued jobs are gone; clients may submit the same
//! requests again. Another orchestrator may have created the replacement first, so a stream with
//! another time of creation counts as lost as well.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use duet_bus::{
    Bus,
    kv::{self, Bucket},
    streams::{self, StorageError, StorageSettings, StreamLook},
};
use duet_wire::{Code, JobRecord, Refusal, audit::Event, session_state::SessionRecord};
use tokio::sync::watch;

use crate::{
    batch::BatchRecord,
    digests::{Answer, Claim},
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

/// What is known of the streams and buckets.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    /// When each was created, in nanoseconds since 1970 by the broker's clock.
    created: Mutex<BTreeMap<String, i128>>,
    /// Changes whenever one was lost. Followers of a stream then begin anew.
    changes: watch::Sender<()>,
    /// When the last loss was found, in milliseconds since 1970; 0 for never.
    lost_at_ms: AtomicU64,
}

impl Stores {
    /// When one was found lost, in milliseconds since 1970.
    pub(crate) fn lost_at_ms(&self) -> Option<u64> {
        Some(self.lost_at_ms.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Changes when one is lost.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn created(&self) -> MutexGuard<'_, BTreeMap<String, i128>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `look` shows another stream than the known one. The first look makes a stream known.
    /// A replaced one counts as another until its loss is reported.
    fn is_another(&self, name: &str, look: &StreamLook) -> bool {
        let known = *self.created().entry(name.to_owned()).or_insert(look.created_ns);
        known != look.created_ns
    }

    /// Whether `name` is known from an earlier look.
    fn is_known(&self, name: &str) -> bool {
        self.created().contains_key(name)
    }
}

impl Orchestrator {
    /// Checks whether all exist and are the known ones, and creates those that are missing. Returns
    /// what was seen of each.
    pub(crate) async fn look_at_stores(&self) -> BTreeMap<String, StreamLook> {
        let looks = names().map(|name| async move { (self.bus.look_at_stream(&name).await, name) });
        let (mut seen, mut lost, mut missing) = (BTreeMap::new(), Vec::new(), false);
        for (look, name) in futures::future::join_all(looks).await {
            match look {
                Ok(Some(look)) => {
                    if self.stores.is_another(&name, &look) {
                        lost.push(name.clone());
                    }
                    seen.insert(name, look);
                }
                Ok(None) => {
                    missing = true;
                    if self.stores.is_known(&name) {
                        lost.push(name);
                    }
                }
                // It is unreachable, which says nothing about its contents.
                Err(_) => {}
            }
        }
        // With the settings that this orchestrator was started with. Another one, also of an
        // earlier version, may have made the replacement with others.
        if (missing || !lost.is_empty())
            && let Err(error) = make(&self.bus, &self.storage).await
        {
            tracing::error!(%error, "streams and buckets that the broker has lost cannot be made anew; trying again");
            // The next look still finds the missing ones lost.
            return seen;
        }
        if !lost.is_empty() {
            self.note_lost(&lost);
        }
        seen
    }

    fn note_lost(&self, lost: &[String]) {
        let open = self.board.open().all();
        for name in lost {
            self.stores.created().remove(name);
        }
        if lost.iter().any(|name| name.strip_prefix("KV_") == Some(kv::JOBS)) {
            self.board.clear();
        }
        self.stores.lost_at_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.metrics.stores_lost(lost.len());
        self.audit.note(Event::StoresLost { stores: lost.to_vec(), open_jobs: open as u64 });
        tracing::error!(
            stores = lost.join(" "),
            open_jobs = open,
            "the broker has lost its streams and buckets; they are made anew, and what was queued in them is gone: submit it \
             again, or stop everything and put the broker's store back from a copy"
        );
        self.stores.changes.send_replace(());
    }
}
