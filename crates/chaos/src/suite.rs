//! The fault suite. Thousands of jobs run on the three-node broker, through several orchestrators,
//! workers and gateways. Meanwhile the suite kills, stops and slows processes, cuts and stalls
//! links, fills a disk, shifts clocks, restarts everything by the book, and makes receivers of
//! webhooks refuse. Everything is drawn from one seed, which it prints, or follows the script of a
//! scenario ([`Scenario`]). It collects the outcome into a [`History`], which [`crate::checker`]
//! judges.

mod audit;
mod collect;
mod devices;
mod disk;
mod faults;
mod load;
mod pauses;
mod receivers;
mod restart;
mod scenario;
mod seed;
mod time;
mod turmoil;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use anyhow::{Context as _, Result};
use duet_harness::{
    duet::text,
    http::Api,
    stack::{Pair, Wallet},
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::{
    collect::{Collector, footprints},
    devices::Devices,
    load::{Apis, Signers},
    receivers::Receiver,
    turmoil::{Script, Turmoil},
};
pub use self::{
    disk::SmallDisk, faults::Fault, load::Load, receivers::Refusing, scenario::Scenario, seed::Seed,
};
use crate::{
    checker::{self, Finding},
    fleet::{Fleet, READY_DEADLINE, Shape},
    history::{Asked, History, Submission},
};

/// How long a team's request may take before the team asks another orchestrator.
const REQUEST_DEADLINE: Duration = Duration::from_secs(12);

/// The least and the most jobs before the first fault.
const WARM_UP_JOBS: (usize, usize) = (12, 240);

/// The receivers of webhooks. Faults make the first one refuse in a scenario, and any one in a run
/// whose faults are drawn.
const RECEIVERS: [&str; 2] = ["receiver-1", "receiver-2"];

/// How long deliveries may take after all faults ended, besides the pause of one that failed.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(120);

/// An orchestrator pauses before the next attempt at a delivery for at most this many times as long
/// as the delivery has failed.
const PAUSE_GROWTH: u32 = 4;

/// The load before the first fault: a tenth of the jobs, with the same number at a time. Processes
/// connect to each other, and caches and pools fill. Then the suite measures the processes for the
/// first time.
fn warm_up(load: Load) -> Load {
    let (least, most) = WARM_UP_JOBS;
    let jobs = (load.jobs / 10).clamp(least, most);
    Load { jobs, at_a_time: load.at_a_time, ends_in_time: false, backlog: 0 }
}

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The seed of everything random.
    pub seed: u64,
    /// The faults. Drawn from the seed, several at a time, without a scenario.
    pub scenario: Option<Scenario>,
    /// The load while faults happen.
    pub load: Load,
    /// For how long faults happen at most. The remaining jobs run without faults.
    pub longest: Duration,
    /// The number of processes of each kind.
    pub shape: Shape,
}

impl Settings {
    /// The settings of a scenario's run, with `backlog` queued jobs.
    #[must_use]
    pub fn of(scenario: Scenario, seed: u64, backlog: usize) -> Self {
        let (load, longest, shape) = (scenario.load(backlog), scenario.longest(), scenario.shape());
        Self { seed, scenario: Some(scenario), load, longest, shape }
    }
}

/// The judgement of a run.
#[derive(Debug)]
pub struct Report {
    /// The violations.
    pub findings: Vec<Finding>,
    /// The evidence.
    pub history: History,
    /// The kinds of faults that this machine does not permit.
    pub skipped: Vec<String>,
    /// The number of jobs, and of those that were signed.
    pub jobs: [usize; 2],
    /// The number of jobs for the device, of its failed attempts, and of those that failed in the
    /// middle of a session.
    pub by_device: [usize; 3],
    /// The numbers of unsigned jobs, by how they ended.
    pub unsigned: BTreeMap<String, usize>,
    /// For how long faults happened.
    pub took: Duration,
}

/// Runs the suite and judges the run.
///
/// # Errors
/// When the run itself does not complete: a process does not start, or a job does not end in time.
/// The error names the seed.
pub async fn run(settings: Settings, say: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    Box::pin(run_seeded(settings, say)).await.with_context(|| format!("chaos with seed {}", settings.seed))
}

async fn run_seeded(settings: Settings, say: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    let mut seed = Seed::new(settings.seed);
    say(&format!("seed {}", settings.seed));
    let directory = Arc::new(tempfile::Builder::new().prefix("duet-chaos-").tempdir()?);
    let mut skipped = Vec::new();
    let mut disks = Vec::new();
    let in_files = |party: &&str| settings.scenario.is_none() && !settings.shape.on_postgres.contains(party);
    for party in ["service", "partner"].into_iter().filter(in_files) {
        match SmallDisk::mount(&directory.path().join(party)) {
            Ok(disk) => disks.push(disk),
            Err(error) => skipped.push(format!("a full disk of {party}: no disk can be mounted: {error}")),
        }
    }
    let mut fleet = Fleet::start_in(Arc::clone(&directory), settings.shape).await?;
    if !fleet.has_clocks() {
        skipped.push("clock jumps: libfaketime is not installed".to_owned());
    }
    for what in &skipped {
        say(&format!("SKIPPED: {what}"));
    }
    let (wallet, devices) = tokio::try_join!(fleet.create_wallet("device"), Devices::start(&fleet))?;
    let (apis, address) = (apis(&fleet, &wallet)?, wallet.address.clone());
    let receivers = receivers(&apis).await?;
    let signers = Arc::new(Signers { apis, address, devices });
    let mut submissions = warm_up(settings.load)
        .run(Arc::clone(&signers), "warm-up".to_owned(), seed.split(), Instant::now())
        .await?;
    let before = footprints(&mut fleet).await?;
    say("everything serves; now it goes wrong");

    let script = settings.scenario.map(|scenario| Script { scenario, rest: scenario.script(&fleet) });
    let mut turmoil = Turmoil::new(&mut seed, script, disks, receivers, say);
    let started = Clock::now();
    let name = format!("job-{}", settings.seed);
    let end = Instant::now() + settings.longest;
    let load = settings.load.run(Arc::clone(&signers), name, seed.split(), end);
    // In a task of its own, so that the load continues while a fault takes its time to begin or
    // end.
    let load = AbortOnDropHandle::new(tokio::spawn(load));
    submissions.extend(turmoil.during(load, &mut fleet, end).await?);
    let took = started.elapsed();
    say("the last job has ended; now everything is repaired");

    turmoil.recovered(&mut fleet).await;
    match last_signatures(&fleet, &wallet, &signers.devices).await {
        Ok(last) => submissions.extend(last),
        Err(error) => turmoil.unrecovered.push(format!("the last jobs: {error:#}")),
    }
    let Turmoil { unrecovered, injected, refused, receivers, .. } = turmoil;
    signers.devices.hang_up();
    let history = Collector { fleet: &mut fleet, signers: &signers }.collect(submissions, before).await?;
    let end = Instant::now() + DELIVERY_DEADLINE + PAUSE_GROWTH * refused;
    let results: BTreeSet<String> = history.results.iter().filter_map(checker::signed_job).collect();
    for receiver in &receivers {
        receiver.has_all(&results, end).await;
    }
    let history = History {
        unrecovered,
        faults: injected,
        receivers: receivers.iter().map(|receiver| receiver.name().to_owned()).collect(),
        deliveries: receivers.iter().flat_map(Receiver::taken).collect(),
        ..history
    };
    let signed = history.jobs.values().filter(|job| text(job, "/state").is_ok_and(|state| state == "signed"));
    let jobs = [history.jobs.len(), signed.count()];
    let unsigned = unsigned(&history);
    let by_device = by_device(&history, &signers.devices);
    Ok(Report { findings: checker::check(&history), history, skipped, jobs, by_device, unsigned, took })
}

/// How unsigned jobs ended: their state, and the reason.
fn unsigned(history: &History) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for job in history.jobs.values() {
        let state = text(job, "/state").unwrap_or("nothing");
        if state != "signed" {
            let why = text(job, "/failure/code").unwrap_or_default();
            *ends.entry(format!("{state} {why}").trim().to_owned()).or_default() += 1;
        }
    }
    ends
}

/// The number of jobs for the device, and of its failed attempts.
fn by_device(history: &History, devices: &Devices) -> [usize; 3] {
    let address = devices.address();
    let jobs = history.submissions.iter().filter(|submission| submission.address == address).count();
    let [failed, interrupted] = devices.failures();
    [jobs, failed, interrupted]
}

fn apis(fleet: &Fleet, wallet: &Wallet) -> Result<Apis> {
    let credentials = fleet.cluster().credentials();
    let apis = fleet.api_urls().into_iter().map(|url| {
        let api = Api::at(&url, credentials, wallet)?;
        Ok(api.within(REQUEST_DEADLINE))
    });
    Ok(Arc::new(apis.collect::<Result<_>>()?))
}

/// Starts the receivers of webhooks, and subscribes them before the first job ends.
async fn receivers(apis: &Apis) -> Result<Vec<Receiver>> {
    let api = apis.first().context("there is no orchestrator")?;
    let mut all = Vec::new();
    for name in RECEIVERS {
        let receiver = Receiver::start(name).await?;
        receiver.subscribe(api).await?;
        all.push(receiver);
    }
    Ok(all)
}

/// One more signature by the backends, and one through every gateway. All of them are overheard.
async fn last_signatures(fleet: &Fleet, wallet: &Wallet, devices: &Devices) -> Result<Vec<Submission>> {
    fleet.all_pairs_ready(&wallet.id).await?;
    fleet.all_pairs_ready(&devices.wallet()).await?;
    let mut submissions = devices.last_signatures().await?;
    let message = "the last one".to_owned();
    // A team that is told to try again does so, and gets the same job.
    let end = Instant::now() + READY_DEADLINE;
    let signed = loop {
        match wallet.sign_by(Pair::ServicePartner, &["message", &message, "--idempotency-key", "last"]).await
        {
            Err(_) if Instant::now() < end => {}
            signed => break signed?,
        }
    };
    submissions.push(Submission {
        key: message.clone(),
        address: wallet.address.clone(),
        payload: Asked::Message(message),
        earns: None,
        accepted: vec![text(&signed, "/id")?.to_owned()],
        with_another_payload: Vec::new(),
    });
    Ok(submissions)
}
