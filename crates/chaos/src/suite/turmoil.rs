//! The faults of a run: begins them, ends them, and keeps the processes running as a supervisor
//! does. Records what was injected, and what did not recover.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, Result, bail};
use duet_harness::process::resident_bytes;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    collect::processes,
    disk::SmallDisk,
    faults::{Fault, Routes, Surroundings},
    receivers::Receiver,
    restart::{RollingRestart, Step},
    scenario::Scenario,
    seed::Seed,
    time::now_ms,
};
use crate::{
    fleet::{Fleet, READY_DEADLINE},
    history::{Injected, Submission},
};

/// The interval at which faults begin and end, and ended processes start again.
const TICK: Duration = Duration::from_millis(50);

/// The most faults at a time, besides those that last for long.
const MAX_AT_ONCE: usize = 3;

/// How the time of a slow process is divided: it runs in one of this many ticks.
const CRAWL: u32 = 5;

/// The interval at which a run prints the memory of each process.
const MEMORY_EVERY: Duration = Duration::from_secs(30);

/// The memory of every process, as text. It shows growth before the run ends.
fn memory(fleet: &mut Fleet) -> String {
    let said = processes(fleet).into_iter().filter_map(|(name, id)| {
        let bytes = resident_bytes(id?).ok()?;
        Some(format!("{name} {}", bytes.div_ceil(1024 * 1024)))
    });
    format!("MiB in memory: {}", said.collect::<Vec<_>>().join(", "))
}

/// A fault that has begun.
struct Going {
    fault: Fault,
    until: Instant,
    /// Its place among the injected faults.
    record: usize,
}

/// The faults of a scenario that are to come.
pub(super) struct Script {
    pub(super) scenario: Scenario,
    pub(super) rest: VecDeque<(Fault, Duration)>,
}

/// The faults, and what was noticed of them.
pub(super) struct Turmoil<'a> {
    seed: Seed,
    script: Option<Script>,
    disks: Vec<SmallDisk>,
    pub(super) receivers: Vec<Receiver>,
    usual: Routes,
    going: Vec<Going>,
    restart: Option<RollingRestart>,
    pub(super) injected: Vec<Injected>,
    /// For how long receivers refused, in all.
    pub(super) refused: Duration,
    next: Instant,
    tick: u32,
    killed: Vec<usize>,
    pub(super) unrecovered: Vec<String>,
    started: Instant,
    say: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Turmoil<'a> {
    pub(super) fn new(
        seed: &mut Seed,
        script: Option<Script>,
        disks: Vec<SmallDisk>,
        receivers: Vec<Receiver>,
        say: &'a (dyn Fn(&str) + Sync),
    ) -> Self {
        let mut seed = seed.split();
        let slow = seed.one_of(&crate::cluster::PAIRS).unwrap_or([0, 1]);
        let usual = Routes { slow, by: seed.millis(5, 20) };
        let now = Instant::now();
        Self {
            seed,
            script,
            disks,
            receivers,
            usual,
            going: Vec::new(),
            restart: None,
            injected: Vec::new(),
            refused: Duration::ZERO,
            next: now,
            tick: 0,
            killed: Vec::new(),
            unrecovered: Vec::new(),
            started: now,
            say,
        }
    }

    /// Begins and ends faults until `load` is done, at the latest until `end`. Then completes the
    /// load without faults.
    pub(super) async fn during(
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
                        self.restart_on(fleet)?;
                        self.improve(fleet, now).await?;
                    } else if !self.going.is_empty() {
                        self.note("its time is over; the rest in peace");
                        self.repair(fleet).await?;
                    }
                    self.supervise(fleet)?;
                }
            }
        }
    }

    fn note(&self, what: &str) {
        (self.say)(&format!("{:>7.2} s  {what}", self.started.elapsed().as_secs_f64()));
    }

    /// Begins the next fault if it is due.
    async fn worsen(&mut self, fleet: &mut Fleet, now: Instant) -> Result<()> {
        self.tick = self.tick.wrapping_add(1);
        self.crawl(fleet)?;
        if now < self.next {
            return Ok(());
        }
        let (fault, lasts) = match &mut self.script {
            Some(_) if !self.going.is_empty() => return Ok(()),
            Some(Script { scenario, rest }) => {
                let Some(planned) = rest.pop_front() else { return Ok(()) };
                if scenario.is_repeated() {
                    rest.push_back(planned.clone());
                }
                planned
            }
            None => {
                if self.going.iter().filter(|going| !going.fault.is_long()).count() >= MAX_AT_ONCE {
                    return Ok(());
                }
                self.next = now + self.seed.millis(200, 2000);
                let around =
                    Surroundings { disks: &self.disks, receivers: &self.receivers, usual: self.usual };
                Fault::draw(&mut self.seed, fleet, around)
            }
        };
        let is_taken =
            |going: &Going| going.fault.target() == fault.target() || going.fault.shares_clock(&fault);
        let majority =
            fault.hurts_the_majority() && self.going.iter().any(|going| going.fault.hurts_the_majority());
        if self.going.iter().any(is_taken) || majority {
            return Ok(());
        }
        self.begin(fault, now + lasts, fleet).await
    }

    async fn begin(&mut self, fault: Fault, until: Instant, fleet: &mut Fleet) -> Result<()> {
        let what = fault.describe(fleet, self.surroundings());
        if fault == Fault::Restart {
            self.note(&what);
        } else {
            self.note(&format!("{what} for {:.1?}", until.saturating_duration_since(Instant::now())));
        }
        if let Fault::Kill(member) = &fault {
            self.killed.push(*member);
        }
        if fault == Fault::Restart {
            self.restart = Some(RollingRestart::of(fleet));
        }
        let record = self.injected.len();
        self.injected.push(Injected {
            what,
            breaks_sessions: fault.breaks_sessions(),
            clock_s: fault.clock_s(),
            from_ms: now_ms(),
            until_ms: u64::MAX,
        });
        fault.begin(fleet, self.surroundings()).await?;
        self.going.push(Going { fault, until, record });
        Ok(())
    }

    async fn end(&mut self, going: Going, fleet: &mut Fleet) -> Result<()> {
        let Going { fault, record, .. } = going;
        if fault == Fault::Restart {
            self.restart = None;
        }
        fault.end(fleet, self.surroundings()).await?;
        if let Some(injected) = self.injected.get_mut(record) {
            injected.until_ms = now_ms();
            if matches!(fault, Fault::Refuse(..)) {
                self.refused += Duration::from_millis(injected.until_ms.saturating_sub(injected.from_ms));
            }
        }
        Ok(())
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings { disks: &self.disks, receivers: &self.receivers, usual: self.usual }
    }

    /// Goes on with the rolling restart.
    fn restart_on(&mut self, fleet: &mut Fleet) -> Result<()> {
        let Some(step) = self.restart.as_mut().map(|restart| restart.step(fleet)) else { return Ok(()) };
        match step? {
            Step::Waiting => {}
            // It ends because it was asked to.
            Step::Asked(number) => {
                let member = fleet.members().get(number).context("there is no such member")?;
                self.note(&format!("restart {}", member.name()));
                self.killed.push(number);
            }
            Step::Done => {
                self.note("everything was restarted");
                self.restart = None;
                let now = Instant::now();
                for going in self.going.iter_mut().filter(|going| going.fault == Fault::Restart) {
                    going.until = now;
                }
            }
        }
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
        for going in over {
            self.end(going, fleet).await?;
            if let Some(Script { scenario, .. }) = &self.script {
                self.next = now + scenario.rest();
            }
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
        for going in std::mem::take(&mut self.going) {
            self.end(going, fleet).await?;
        }
        Ok(())
    }

    /// Ends all faults, and waits until everything works again. It helps only by starting
    /// processes.
    pub(super) async fn recovered(&mut self, fleet: &mut Fleet) {
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
