//! The fault suite. Thousands of jobs run on the three-node broker, through several orchestrators,
//! workers and gateways. Meanwhile the suite kills, stops and slows processes, cuts and stalls
//! links, fills a disk and shifts clocks. Everything is drawn from one seed, which it prints. It
//! collects the outcome into a [`History`], which [`crate::checker`] judges.

mod audit;
mod collect;
mod devices;
mod disk;
mod faults;
mod load;
mod pauses;
mod seed;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use anyhow::{Context as _, Result, bail};
use duet_harness::{
    duet::text,
    http::Api,
    process::resident_bytes,
    stack::{Pair, Wallet},
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use self::{
    collect::{Collector, footprints, processes},
    devices::Devices,
    faults::Routes,
    load::{Apis, Signers},
};
pub use self::{disk::SmallDisk, faults::Fault, load::Load, seed::Seed};
use crate::{
    checker::{self, Finding},
    fleet::{Fleet, READY_DEADLINE, Shape},
    history::{Asked, History, Submission},
};

/// The interval at which faults begin and end, and ended processes start again.
const TICK: Duration = Duration::from_millis(50);

/// The most faults at a time.
const MAX_AT_ONCE: usize = 3;

/// How the time of a slow process is divided: it runs in one of this many ticks.
const CRAWL: u32 = 5;

/// How long a team's request may take before the team asks another orchestrator.
const REQUEST_DEADLINE: Duration = Duration::from_secs(12);

/// The least and the most jobs before the first fault.
const WARM_UP_JOBS: (usize, usize) = (12, 240);

/// The interval at which a run prints the memory of each process.
const MEMORY_EVERY: Duration = Duration::from_secs(30);

/// The load before the first fault: a tenth of the jobs, with the same number at a time. Processes
/// connect to each other, and caches and pools fill. Then the suite measures the processes for the
/// first time.
fn warm_up(load: Load) -> Load {
    let (least, most) = WARM_UP_JOBS;
    Load { jobs: (load.jobs / 10).clamp(least, most), at_a_time: load.at_a_time, ends_in_time: false }
}

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The seed of everything random.
    pub seed: u64,
    /// The load while faults happen.
    pub load: Load,
    /// For how long faults happen at most. The remaining jobs run without faults.
    pub longest: Duration,
    /// The number of processes of each kind.
    pub shape: Shape,
}

/// The judgement of a run.
#[derive(Debug)]
pub struct Report {
    /// The violations.
    pub findings: Vec<Finding>,
    /// The evidence.
    pub history: History,
    /// The faults, with their times.
    pub faults: Vec<String>,
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
    for party in
        ["service", "partner"].into_iter().filter(|party| !settings.shape.on_postgres.contains(party))
    {
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
    let signers = Arc::new(Signers { apis, address, devices });
    let mut submissions = warm_up(settings.load)
        .run(Arc::clone(&signers), "warm-up".to_owned(), seed.split(), Instant::now())
        .await?;
    let before = footprints(&mut fleet).await?;
    say("everything serves; now it goes wrong");

    let mut turmoil = Turmoil::new(&mut seed, disks, say);
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
    let Turmoil { unrecovered, done: faults, .. } = turmoil;
    signers.devices.hang_up();
    let history = Collector { fleet: &mut fleet, signers: &signers }.collect(submissions, before).await?;
    let history = History { unrecovered, ..history };
    let signed = history.jobs.values().filter(|job| text(job, "/state").is_ok_and(|state| state == "signed"));
    let jobs = [history.jobs.len(), signed.count()];
    let unsigned = unsigned(&history);
    let by_device = by_device(&history, &signers.devices);
    Ok(Report {
        findings: checker::check(&history),
        history,
        faults,
        skipped,
        jobs,
        by_device,
        unsigned,
        took,
    })
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

/// The memory of every process, as text. It shows growth before the run ends.
fn memory(fleet: &mut Fleet) -> String {
    let said = processes(fleet).into_iter().filter_map(|(name, id)| {
        let bytes = resident_bytes(id?).ok()?;
        Some(format!("{name} {}", bytes.div_ceil(1024 * 1024)))
    });
    format!("MiB in memory: {}", said.collect::<Vec<_>>().join(", "))
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
        accepted: vec![text(&signed, "/id")?.to_owned()],
        with_another_payload: Vec::new(),
    });
    Ok(submissions)
}

/// A fault that has begun.
struct Going {
    fault: Fault,
    until: Instant,
}

/// The faults, and what was noticed of them.
struct Turmoil<'a> {
    seed: Seed,
    disks: Vec<SmallDisk>,
    usual: Routes,
    going: Vec<Going>,
    next: Instant,
    tick: u32,
    killed: Vec<usize>,
    done: Vec<String>,
    unrecovered: Vec<String>,
    started: Instant,
    say: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Turmoil<'a> {
    fn new(seed: &mut Seed, disks: Vec<SmallDisk>, say: &'a (dyn Fn(&str) + Sync)) -> Self {
        let mut seed = seed.split();
        let slow = seed.one_of(&crate::cluster::PAIRS).unwrap_or([0, 1]);
        let usual = Routes { slow, by: seed.millis(5, 20) };
        let now = Instant::now();
        Self {
            seed,
            disks,
            usual,
            going: Vec::new(),
            next: now,
            tick: 0,
            killed: Vec::new(),
            done: Vec::new(),
            unrecovered: Vec::new(),
            started: now,
            say,
        }
    }

    /// Begins and ends faults until `load` is done, at the latest until `end`. Then completes the
    /// load without faults.
    async fn during(
        &mut self,
        mut load: AbortOnDropHandle<Result<Vec<Submission>>>,
        fleet: &mut Fleet,
        end: Instant,
    ) -> Result<Vec<Submission>> {
        fleet.cluster().set_route(self.usual.slow, self.usual.of(self.usual.slow));
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(MEMORY_EVERY);
        loop {
            tokio::select! {
                done = &mut load => return done?,
                _ = looks.tick() => (self.say)(&memory(fleet)),
                _ = ticks.tick() => {
                    let now = Instant::now();
                    if now < end {
                        self.worsen(fleet, now).await?;
                        self.improve(fleet, now).await?;
                    } else if !self.going.is_empty() {
                        self.note("its time is over; the rest in peace".to_owned());
                        self.repair(fleet).await?;
                    }
                    self.supervise(fleet)?;
                }
            }
        }
    }

    fn note(&mut self, what: String) {
        let line = format!("{:>7.2} s  {what}", self.started.elapsed().as_secs_f64());
        (self.say)(&line);
        self.done.push(line);
    }

    /// Begins the next fault if it is due.
    async fn worsen(&mut self, fleet: &mut Fleet, now: Instant) -> Result<()> {
        self.tick = self.tick.wrapping_add(1);
        self.crawl(fleet)?;
        if now < self.next || self.going.len() >= MAX_AT_ONCE {
            return Ok(());
        }
        self.next = now + self.seed.millis(200, 2000);
        let (fault, lasts) = Fault::draw(&mut self.seed, fleet, &self.disks);
        let taken = self.going.iter().any(|going| going.fault.target() == fault.target());
        let majority =
            fault.hurts_the_majority() && self.going.iter().any(|going| going.fault.hurts_the_majority());
        if taken || majority {
            return Ok(());
        }
        self.note(format!("{} for {lasts:?}", fault.describe(fleet, &self.disks)));
        if let Fault::Kill(member) = &fault {
            self.killed.push(*member);
        }
        fault.begin(fleet, &self.disks, &self.usual).await?;
        self.going.push(Going { fault, until: now + lasts });
        Ok(())
    }

    /// Lets the slow processes run for one tick in several.
    fn crawl(&self, fleet: &mut Fleet) -> Result<()> {
        for going in &self.going {
            let Fault::Crawl(member) = going.fault else { continue };
            let member = fleet.members_mut().get_mut(member).context("there is no such member")?;
            if let Ok(process) = member.process() {
                let runs = self.tick.is_multiple_of(CRAWL);
                // It may have been killed in the meantime.
                if runs {
                    process.resume().ok()
                } else {
                    process.pause().ok()
                };
            }
        }
        Ok(())
    }

    /// Ends the faults that are over.
    async fn improve(&mut self, fleet: &mut Fleet, now: Instant) -> Result<()> {
        let (over, going): (Vec<Going>, Vec<Going>) =
            self.going.drain(..).partition(|going| going.until <= now);
        self.going = going;
        for Going { fault, .. } in over {
            fault.end(fleet, &self.disks, &self.usual).await?;
        }
        Ok(())
    }

    /// Starts ended processes, as systemd would. Records those that ended without having been
    /// killed.
    fn supervise(&mut self, fleet: &mut Fleet) -> Result<()> {
        for (number, member) in fleet.members_mut().iter_mut().enumerate() {
            if member.is_running()? {
                continue;
            }
            // A killed process stays down for as long as its fault lasts.
            let held = |going: &Going| going.fault == Fault::Kill(number);
            if self.going.iter().any(held) {
                continue;
            }
            // A process that cannot start gives up, and is started again until it can. A process
            // that serves must continue to serve.
            if !self.killed.contains(&number) && member.has_served() {
                let log = member.log_tail(10);
                self.unrecovered.push(format!("{} ended by itself:\n{log}", member.name()));
            }
            self.killed.retain(|killed| *killed != number);
            member.launch()?;
        }
        Ok(())
    }

    /// Ends every fault.
    async fn repair(&mut self, fleet: &mut Fleet) -> Result<()> {
        for Going { fault, .. } in std::mem::take(&mut self.going) {
            fault.end(fleet, &self.disks, &self.usual).await?;
        }
        Ok(())
    }

    /// Ends all faults, and waits until everything works again. It helps only by starting
    /// processes.
    async fn recovered(&mut self, fleet: &mut Fleet) {
        let recovery = async {
            self.repair(fleet).await?;
            fleet.cluster().agreed().await?;
            let end = Instant::now() + READY_DEADLINE;
            loop {
                self.supervise(fleet)?;
                let unready = fleet.unready().await?;
                if unready.is_empty() {
                    return Ok(());
                }
                if Instant::now() > end {
                    bail!("{}", unready.join("; "));
                }
                sleep(TICK).await;
            }
        };
        if let Err(error) = recovery.await {
            self.unrecovered.push(format!("{error:#}"));
        }
    }
}
