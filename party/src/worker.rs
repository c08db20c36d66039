//! Serves a backend party on the broker. A [`Worker`] answers share packages, questions about cards
//! and wallets, and invitations to sessions, until it is drained.

mod cards;
mod invitations;
mod offers;
mod releases;
mod seats;
mod shared;
mod shares;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use duet_bus::{Attendance, BrokerClock, Bus, Filter, Incoming, ServeOptions, Service};
use duet_protocol::ids::{ShareIndex, WalletId};
use duet_wire::{
    Code, InstanceId,
    audit::{Draft, Event},
    ids::InvalidInstanceId,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
    registry::Registry,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use ulid::Ulid;

use self::{seats::Seats, shared::Shared};
use crate::{
    audit::{self, AuditSettings, Keeper},
    enrolment::Enroller,
    error::PartyError,
    party::Party,
    randomizers::{RandomizerSettings, Randomizers},
    resumption::{LOOK_EVERY, ResumptionSettings, Watch},
    session::{Protocol, finish_pending},
    store::{Readiness, ShareStore},
    witness::{Comparison, Witness, repair_locks},
};

/// The interval of housekeeping: it retries missing enrolments, deletes expired prepared wallets,
/// and probes a store that is not ready.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(5);

/// The most missing enrolments looked up at once. Failing ones wait longer each time, so that they
/// do not block the others.
const MAX_MISSING_ENROLMENTS: u32 = 1024;
const FIRST_ENROLMENT_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_ENROLMENT_PAUSE: Duration = Duration::from_secs(300);

/// How long a session may take to end after it was told to fail. Its verdict may be on its way
/// through the store.
const CUT_GRACE: Duration = Duration::from_secs(5);
/// How long outcomes may take to be acknowledged after all sessions have ended.
const REPORT_GRACE: Duration = Duration::from_secs(10);

/// How releases of seats are handled: each takes a look into a table.
const RELEASES: ServeOptions = ServeOptions::waiting(4);

/// How many invitations may be refused at the same time because all seats are taken.
const REFUSALS: usize = 8;

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Sessions at a time: the worker's seats. It offers those that are free, and refuses further
    /// sessions. Default 32: a session mostly waits for its peer.
    pub sessions: usize,
    /// Share packages at a time. Each takes some hundred milliseconds of a core, and further ones
    /// wait. Default 4.
    pub packages: usize,
    /// Questions about cards, wallets and enrolments at a time. Default 16.
    pub questions: usize,
    /// How long sessions may continue after the worker was told to stop. Then the remaining ones
    /// fail, and report that. Default 20 s.
    pub drain: Duration,
    /// Decides which keys get tables for answers.
    pub randomizers: RandomizerSettings,
    /// How the worker notices that the machine was resumed or copied.
    pub resumption: ResumptionSettings,
    /// Settings of the audit log.
    pub audit: AuditSettings,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            sessions: 32,
            packages: 4,
            questions: 16,
            drain: Duration::from_secs(20),
            randomizers: RandomizerSettings::default(),
            resumption: ResumptionSettings::default(),
            audit: AuditSettings::default(),
        }
    }
}

/// A running worker. Dropping it aborts all its tasks; [`Worker::drain`] stops it in order.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    shares: Service,
    cards: Service,
    invitations: [Service; 2],
    offering: AbortOnDropHandle<()>,
    releases: Service,
    housekeeping: AbortOnDropHandle<()>,
    attending: AbortOnDropHandle<()>,
    comparing: Option<AbortOnDropHandle<()>>,
    watching: AbortOnDropHandle<()>,
    broker_clock: BrokerClock,
    following: AbortOnDropHandle<()>,
    keeper: Keeper,
    stop: CancellationToken,
    settings: WorkerSettings,
}

impl Worker {
    /// Starts to serve. On return, the broker has registered all subscriptions.
    ///
    /// # Errors
    /// When the broker does not confirm a subscription.
    pub async fn start(party: Party, bus: Bus, settings: WorkerSettings) -> Result<Self, PartyError> {
        let instance = instance()?;
        let started =
            Draft::new(party.context.clock.now_ms(), Event::WorkerStarted { instance: instance.to_string() });
        let mut comparison = Comparison::begin(&party.context, &party.identity, &bus).await?;
        // Before anything is recorded: an older copy of the store would begin a second history of
        // its chain.
        let is_compared = comparison.round().await;
        let (keeper, journal) = Keeper::start(&party.context, &party.identity, &bus, settings.audit, started);
        let enroller = Enroller::new(party.context.clone(), bus.clone(), party.settings.modulus);
        let cut = CancellationToken::new();
        let shared = Arc::new(Shared {
            party,
            bus: bus.clone(),
            instance,
            seats: Seats::new(settings.sessions.max(1)),
            enroller,
            randomizers: Randomizers::new(settings.randomizers),
            journal,
            wake: Notify::new(),
            open: Mutex::new(cut.child_token()),
            cut,
            reports: TaskTracker::new(),
        });
        let id = shared.party.id().clone();
        // Before any invitation: a pending verdict of an earlier process may lock a key.
        if let Err(error) = finish_pending::<Protocol>(&shared.party.context, &id).await {
            tracing::error!(%error, "verdicts that were left behind are not judged yet; nothing is initiated");
        }
        let on_share = {
            let shared = Arc::clone(&shared);
            move |message: Incoming| shares::serve(Arc::clone(&shared), message)
        };
        let on_card = {
            let shared = Arc::clone(&shared);
            move |message: Incoming| cards::serve(Arc::clone(&shared), message)
        };
        let on_invitation = {
            let shared = Arc::clone(&shared);
            move |message: Incoming| invitations::serve(Arc::clone(&shared), message)
        };
        let on_release = {
            let shared = Arc::clone(&shared);
            move |message: Incoming| releases::serve(Arc::clone(&shared), message)
        };
        let shares =
            bus.serve(Filter::shares(&id), ServeOptions::waiting(settings.packages), on_share).await?;
        let cards = bus.serve(Filter::cards(&id), ServeOptions::waiting(settings.questions), on_card).await?;
        let releases = bus.serve(Filter::releases(&id, &shared.instance), RELEASES, on_release).await?;
        let seats = settings.sessions;
        let invitations = [
            // Orchestrators of the version before know this subject only.
            bus.serve(Filter::invites(&id), ServeOptions::leaving(seats), on_invitation.clone()).await?,
            bus.serve(
                Filter::invites_to(&id, &shared.instance),
                ServeOptions::waiting(seats.saturating_add(REFUSALS)),
                on_invitation,
            )
            .await?,
        ];
        let stop = CancellationToken::new();
        let offering = offers::publish(Arc::clone(&shared), stop.clone());
        let offering = AbortOnDropHandle::new(tokio::spawn(offering));
        let housekeeping =
            AbortOnDropHandle::new(tokio::spawn(keep_house(Arc::clone(&shared), stop.clone())));
        let comparing = (!is_compared).then(|| {
            let (stop, waking) = (stop.clone(), Arc::clone(&shared));
            AbortOnDropHandle::new(tokio::spawn(async move {
                comparison.run(stop, || waking.wake.notify_one()).await;
            }))
        });
        let [by_party, by_name] = &invitations;
        let groups = [&shares, &cards, by_party, by_name].map(Service::attendance);
        let attending =
            AbortOnDropHandle::new(tokio::spawn(attend(Arc::clone(&shared), groups, stop.clone())));
        let watch = Watch::new(settings.resumption.clone());
        let watching = AbortOnDropHandle::new(tokio::spawn(watch_over(Arc::clone(&shared), watch)));
        let (broker_clock, following) = BrokerClock::follow(&bus).await;
        tracing::info!(party = %id, instance = %shared.instance, "serving");
        Ok(Self {
            shared,
            shares,
            cards,
            invitations,
            offering,
            releases,
            housekeeping,
            attending,
            comparing,
            watching,
            broker_clock,
            following,
            keeper,
            stop,
            settings,
        })
    }

    /// The name of this worker process, as orchestrators see it.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.shared.instance
    }

    /// Adds the metrics and the state of this worker to `registry`. `docs/metrics.md` explains the
    /// names.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.party.context.metrics.register(registry);
        self.shared.randomizers.register_metrics(registry);
        self.shared.bus.register_metrics(registry);
        self.broker_clock.register_metrics(registry);
        let context = &self.shared.party.context;
        let (store, witness) = (Arc::clone(context.store()), context.witness.clone());
        registry.register_collector(Box::new(Condition { store, witness, stop: self.stop.clone() }));
    }

    /// Whether its store is ready.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.shared.party.context.store().readiness()
    }

    /// The broker's time. Sessions and requests are judged by this machine's clock all the same,
    /// with 30 s of grace.
    #[must_use]
    pub const fn broker_clock(&self) -> &BrokerClock {
        &self.broker_clock
    }

    /// Returns when the worker has ended by itself, because its connection was closed for good.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&mut self) {
        let [by_party, _] = &mut self.invitations;
        by_party.ended().await;
    }

    /// Leaves all queue groups at once, and lets running work finish for as long as the settings
    /// allow. Then the remaining sessions fail and report that. In all, this takes at most a
    /// quarter of a minute longer than the settings allow. Returns whether everything finished.
    pub async fn drain(self) -> bool {
        let Self {
            shared,
            shares,
            cards,
            invitations: [by_party, by_name],
            offering,
            releases,
            housekeeping,
            attending,
            comparing,
            watching,
            broker_clock: _,
            following,
            keeper,
            stop,
            settings: WorkerSettings { drain, .. },
        } = self;
        stop.cancel();
        let cut = shared.cut.clone();
        let cutting = tokio::spawn(async move {
            tokio::time::sleep(drain).await;
            cut.cancel();
        });
        // All groups at once: from now on, other workers answer the party's requests.
        let bound = drain + CUT_GRACE;
        let (sessions, by_name, packages, questions) = tokio::join!(
            by_party.drain(bound),
            by_name.drain(bound),
            shares.drain(bound),
            cards.drain(bound)
        );
        cutting.abort();
        // It has said that the worker takes no more sessions.
        offering.abort();
        drop(releases);
        let sessions = sessions && by_name && !shared.cut.is_cancelled();
        shared.reports.close();
        let reported = tokio::time::timeout(REPORT_GRACE, shared.reports.wait()).await.is_ok();
        housekeeping.abort();
        attending.abort();
        drop(comparing);
        watching.abort();
        following.abort();
        keeper.finish(Event::WorkerStopped { instance: shared.instance.to_string() }).await;
        tracing::info!(party = %shared.party.id(), sessions, packages, questions, reported, "stopped");
        sessions && packages && questions && reported
    }
}

/// A new name for this process.
fn instance() -> Result<InstanceId, PartyError> {
    let name = Ulid::new().to_string().parse();
    name.map_err(|error: InvalidInstanceId| PartyError::refused(Code::Internal, error.to_string()))
}

/// Checks every second whether the machine was resumed or copied.
async fn watch_over(shared: Arc<Shared>, mut watch: Watch) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(noticed) = watch.look() {
            shared.resumed(&noticed);
        }
    }
}

/// The worker's state, read when metrics are collected.
#[derive(Debug)]
struct Condition {
    store: Arc<dyn ShareStore>,
    witness: Witness,
    stop: CancellationToken,
}

impl Collector for Condition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let is_ready = matches!(self.store.readiness(), Readiness::Ready);
        for (name, help, holds) in [
            (
                "duet_store_ready",
                "1 while the share store can be written. Watch for: 0: the worker takes no work",
                is_ready,
            ),
            (
                "duet_store_compared",
                "1 once the worker compared its share store with the heads of its audit log at the \
             broker and other parties. Watch for: 0 for a minute: the worker initiates nothing",
                !self.witness.is_pending(),
            ),
            (
                "duet_draining",
                "1 once the worker was told to stop; it takes no more work",
                self.stop.is_cancelled(),
            ),
        ] {
            let gauge = ConstGauge::new(i64::from(holds));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// Leaves the queue groups while the store is not ready. A request to this party then goes to
/// another worker, or fails at once when there is none.
async fn attend(shared: Arc<Shared>, groups: [Attendance; 4], stop: CancellationToken) {
    let store = shared.party.context.store();
    let mut present = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = store.until_ready(!present) => present = !present,
        }
        for group in &groups {
            group.set(present);
        }
        if present {
            tracing::info!("takes work again");
        } else {
            tracing::warn!("takes no work until the share store is ready");
            // The store may be ready again already.
            shared.wake.notify_one();
        }
    }
}

/// Runs the housekeeping: recovers the store, deletes expired wallets and makes missing enrolments.
async fn keep_house(shared: Arc<Shared>, stop: CancellationToken) {
    let mut waiting = HashMap::new();
    loop {
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            pause = house_round(&shared, &mut waiting) => pause,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// When to retry a failed enrolment, and the pause before that.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
}

/// One round of housekeeping. Returns the pause until the next.
async fn house_round(shared: &Shared, waiting: &mut HashMap<WalletId, Retry>) -> Duration {
    let context = &shared.party.context;
    let store = context.store();
    if let Readiness::Unready(_) = store.readiness() {
        match store.recover().await {
            Ok(()) => {
                tracing::info!("the share store is ready again");
                // The store may have turned out to be a restored one, which closes the audit log.
                // Nothing is decided before the log has begun again.
                if let Err(error) = audit::open(context, &shared.party.identity).await {
                    tracing::warn!(%error, "the audit log has not begun again");
                }
            }
            Err(error) => tracing::error!(%error, "the share store is still not ready"),
        }
    }
    if let Readiness::Ready = store.readiness()
        && let Err(error) = finish_pending::<Protocol>(context, shared.party.id()).await
    {
        tracing::error!(%error, "verdicts that were left behind are not judged yet");
    }
    if let Err(error) = context.vault.keep_up(&context.clock).await {
        tracing::error!(%error, "the share store's key was not followed; start this worker again if this goes on");
    }
    if let Err(error) = context.note_public_keys().await {
        tracing::warn!(%error, "the public keys of older wallets were not noted; no wallet is prepared before");
    }
    match store.expire_prepared(context.clock.now_ms()).await {
        Ok(0) => {}
        Ok(expired) => tracing::info!(expired, "forgot wallets whose preparation expired"),
        Err(error) => tracing::warn!(%error, "expired wallets were not forgotten"),
    }
    context.clear_superseded_keys().await;
    if let Err(error) = repair_locks(context, []).await {
        tracing::warn!(%error, "locks were not compared with the audit log");
    }
    // The partner has the highest index, so it never initiates.
    if shared.party.index == ShareIndex::Partner || context.witness.is_pending() {
        return HOUSEKEEPING_EVERY;
    }
    let missing = match store.wallets_without_enrolment(shared.party.index, MAX_MISSING_ENROLMENTS).await {
        Ok(missing) => missing,
        Err(error) => {
            tracing::warn!(%error, "missing enrolments were not looked up");
            return HOUSEKEEPING_EVERY;
        }
    };
    let known: HashSet<WalletId> = missing.iter().copied().collect();
    waiting.retain(|wallet, _| known.contains(wallet));
    for wallet in missing {
        let retry = waiting.get(&wallet).copied();
        if retry.is_some_and(|retry| retry.at > Instant::now()) {
            continue;
        }
        match shared.enroller.ensure(&shared.party.identity, wallet).await {
            Ok(()) => {
                waiting.remove(&wallet);
            }
            Err(error) => {
                let pause = retry
                    .map_or(FIRST_ENROLMENT_PAUSE, |retry| (retry.pause * 2).min(LONGEST_ENROLMENT_PAUSE));
                tracing::info!(%wallet, %error, ?pause, "not enrolled yet; trying again");
                waiting.insert(wallet, Retry { at: Instant::now() + pause, pause });
            }
        }
    }
    waiting
        .values()
        .map(|retry| retry.at.saturating_duration_since(Instant::now()))
        .min()
        .map_or(HOUSEKEEPING_EVERY, |due| due.clamp(FIRST_ENROLMENT_PAUSE, HOUSEKEEPING_EVERY))
}
