//! Faults: drawn from the seed, applied to the fleet, and undone when their time is over.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{
    disk::SmallDisk,
    receivers::{Receiver, Refusing},
    seed::Seed,
};
use crate::{
    cluster::{NODES, PAIRS},
    databases,
    fleet::Fleet,
    network::{Condition, Passage},
};

/// The routes between nodes without faults: one of them is slower than the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routes {
    /// The slow one.
    pub(super) slow: [usize; 2],
    /// Its delay.
    pub(super) by: Duration,
}

impl Routes {
    /// The condition of the route between two nodes.
    #[must_use]
    pub(super) fn of(&self, between: [usize; 2]) -> Condition {
        if between == self.slow { Condition::slow(self.by) } else { Condition::GOOD }
    }
}

/// The offsets of a clock that is steadily wrong, in seconds: a minute and five, each way.
pub(super) const STEADY_OFFSETS: [i64; 4] = [60, -60, 300, -300];

/// For how long a clock is steadily wrong, in milliseconds.
const STEADY_MS: (u64, u64) = (90_000, 240_000);

/// For how long a receiver of webhooks refuses, in milliseconds.
const REFUSING_MS: (u64, u64) = (10_000, 40_000);

/// The machines and programs that a fault can hit, besides the fleet.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The disks that can be filled.
    pub(super) disks: &'a [SmallDisk],
    /// The receivers of webhooks.
    pub(super) receivers: &'a [Receiver],
    /// The condition of the routes without faults.
    pub(super) usual: Routes,
}

/// A fault that lasts for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`. The suite starts the process again.
    Kill(usize),
    /// `kill -STOP`, and later `-CONT`.
    Pause(usize),
    /// A process that is stopped four fifths of the time: slow, but not dead.
    Crawl(usize),
    /// No data passes between a process and one node, or all nodes.
    Sever(usize, Option<usize>, Passage),
    /// All data from and to a process is late.
    Delay(usize, Duration),
    /// A process's clock jumps.
    Clock(usize, i64),
    /// A process's clock is wrong for minutes.
    SteadyClock(usize, i64),
    /// A rolling restart of all processes by the book. It lasts until all have been restarted.
    Restart,
    /// A receiver of webhooks refuses.
    Refuse(usize, Refusing),
    /// A node is killed, and started again when the time is over.
    KillNode(usize),
    /// A node is stopped.
    PauseNode(usize),
    /// No data passes between two nodes.
    SeverRoute([usize; 2], Passage),
    /// Data between two nodes is late.
    DelayRoute([usize; 2], Duration),
    /// The disk of a party's share store is full.
    FullDisk(usize),
    /// The database server is killed, and started again when the time is over.
    KillDatabase,
    /// The database of a party's share store accepts no writes, as on a full disk.
    ReadOnlyDatabase(usize),
}

impl Fault {
    /// Draws the next fault, and how long it lasts.
    pub(super) fn draw(seed: &mut Seed, fleet: &Fleet, around: Surroundings<'_>) -> (Self, Duration) {
        let disks = around.disks;
        let databases: Vec<usize> = (0..fleet.parties().len())
            .filter(|party| fleet.parties().get(*party).is_some_and(|folder| folder.database().is_some()))
            .collect();
        let member = seed.below(fleet.members().len());
        let node = seed.below(NODES);
        let route = seed.one_of(&PAIRS).unwrap_or([0, 1]);
        let passage = if seed.once_in(2) { Passage::Cut } else { Passage::Stalled };
        let some_node = if seed.once_in(2) { Some(node) } else { None };
        let database = seed.one_of(&databases);
        let fault = match seed.below(26) {
            0..=4 => Self::Kill(member),
            5 | 6 => Self::Pause(member),
            7 => Self::Crawl(member),
            8 | 9 => Self::Sever(member, some_node, passage),
            10 => Self::Delay(member, seed.millis(20, 400)),
            11 | 12 if fleet.has_clocks() => {
                let ahead = i64::try_from(seed.below(240)).unwrap_or_default() - 120;
                Self::Clock(member, ahead)
            }
            13 | 14 => Self::KillNode(node),
            15 => Self::PauseNode(node),
            16 | 17 => Self::SeverRoute(route, passage),
            18 if !disks.is_empty() => Self::FullDisk(seed.below(disks.len())),
            19 if database.is_some() => Self::KillDatabase,
            20 if let Some(party) = database => Self::ReadOnlyDatabase(party),
            21 if fleet.has_clocks() => {
                Self::SteadyClock(member, seed.one_of(&STEADY_OFFSETS).unwrap_or_default())
            }
            22 => Self::Restart,
            23 | 24 if !around.receivers.is_empty() => Self::Refuse(
                seed.below(around.receivers.len()),
                seed.one_of(&Refusing::ALL).unwrap_or(Refusing::Error),
            ),
            _ => Self::DelayRoute(route, seed.millis(20, 300)),
        };
        let (least, most) = match fault {
            Self::SteadyClock(..) => STEADY_MS,
            Self::Refuse(..) => REFUSING_MS,
            // It ends earlier, when everything was restarted.
            Self::Restart => (600_000, 600_000),
            _ => (500, 6000),
        };
        (fault, seed.millis(least, most))
    }

    /// Whether it lasts much longer than others, which go on meanwhile.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        matches!(self, Self::SteadyClock(..) | Self::Restart | Self::Refuse(..))
    }

    /// Whether it can break a session in which both parties take part. A process that is asked to
    /// end finishes its sessions, a party whose clock is wrong begins none, and no session depends
    /// on a receiver of webhooks.
    #[must_use]
    pub const fn breaks_sessions(&self) -> bool {
        !matches!(self, Self::Clock(..) | Self::SteadyClock(..) | Self::Restart | Self::Refuse(..))
    }

    /// Whether it shifts the clock that `other` shifts.
    #[must_use]
    pub fn shares_clock(&self, other: &Self) -> bool {
        let clock = |fault: &Self| match fault {
            Self::Clock(member, _) | Self::SteadyClock(member, _) => Some(*member),
            _ => None,
        };
        clock(self).is_some() && clock(self) == clock(other)
    }

    /// By how many seconds it shifts a clock.
    #[must_use]
    pub const fn clock_s(&self) -> u64 {
        match self {
            Self::Clock(_, seconds) | Self::SteadyClock(_, seconds) => seconds.unsigned_abs(),
            _ => 0,
        }
    }

    /// Whether it takes away a node. Without two nodes the broker stores nothing.
    #[must_use]
    pub const fn hurts_the_majority(&self) -> bool {
        matches!(self, Self::KillNode(_) | Self::PauseNode(_) | Self::SeverRoute(..))
    }

    /// Begins the fault.
    ///
    /// # Errors
    /// When the machine does not permit it.
    pub(super) async fn begin(&self, fleet: &mut Fleet, around: Surroundings<'_>) -> Result<()> {
        let Surroundings { disks, receivers, usual } = around;
        match self {
            Self::Kill(member) => {
                let member = at(fleet, *member)?;
                if member.is_running()? {
                    member.kill().await?;
                }
            }
            Self::Pause(member) | Self::Crawl(member) => {
                // A process that is just starting is left alone.
                if let Ok(process) = at(fleet, *member)?.process() {
                    process.pause().ok();
                }
            }
            Self::Sever(member, node, passage) => {
                let member = at(fleet, *member)?;
                for (number, link) in member.links().iter().enumerate() {
                    if node.is_none_or(|node| node == number) {
                        link.set(Condition::not(*passage));
                    }
                }
            }
            Self::Delay(member, delay) => at(fleet, *member)?.set_links(Condition::slow(*delay)),
            Self::Clock(member, seconds) | Self::SteadyClock(member, seconds) => {
                at(fleet, *member)?.shift_clock(*seconds)?;
            }
            // The suite goes through the processes step by step.
            Self::Restart => {}
            Self::Refuse(receiver, refusing) => {
                receivers.get(*receiver).context("there is no such receiver")?.set(Some(*refusing));
            }
            Self::KillNode(node) => fleet.cluster_mut().node_mut(*node)?.kill().await?,
            Self::PauseNode(node) => fleet.cluster().signal(*node, Signal::STOP)?,
            Self::SeverRoute(between, passage) => {
                fleet.cluster().set_route(*between, Condition { passage: *passage, ..usual.of(*between) });
            }
            Self::DelayRoute(between, delay) => fleet.cluster().set_route(*between, Condition::slow(*delay)),
            Self::FullDisk(disk) => disks.get(*disk).context("there is no such disk")?.fill()?,
            Self::KillDatabase => fleet.postgres_mut().context("there is no database server")?.kill()?,
            Self::ReadOnlyDatabase(party) => refuse_writes(fleet, *party, true).await?,
        }
        Ok(())
    }

    /// Ends the fault.
    ///
    /// # Errors
    /// When a node does not start again.
    pub(super) async fn end(&self, fleet: &mut Fleet, around: Surroundings<'_>) -> Result<()> {
        let Surroundings { disks, receivers, usual } = around;
        match self {
            Self::Kill(_) | Self::Restart => {}
            Self::Refuse(receiver, _) => {
                receivers.get(*receiver).context("there is no such receiver")?.set(None);
            }
            Self::Pause(member) | Self::Crawl(member) => {
                if let Ok(process) = at(fleet, *member)?.process() {
                    process.resume().ok();
                }
            }
            Self::Sever(member, ..) | Self::Delay(member, _) => {
                at(fleet, *member)?.set_links(Condition::GOOD);
            }
            Self::Clock(member, _) | Self::SteadyClock(member, _) => at(fleet, *member)?.shift_clock(0)?,
            Self::KillNode(node) => fleet.cluster_mut().node_mut(*node)?.resume().await?,
            Self::PauseNode(node) => fleet.cluster().signal(*node, Signal::CONT)?,
            Self::SeverRoute(between, _) | Self::DelayRoute(between, _) => {
                fleet.cluster().set_route(*between, usual.of(*between));
            }
            Self::FullDisk(disk) => disks.get(*disk).context("there is no such disk")?.empty()?,
            Self::KillDatabase => fleet.postgres_mut().context("there is no database server")?.resume()?,
            Self::ReadOnlyDatabase(party) => refuse_writes(fleet, *party, false).await?,
        }
        Ok(())
    }

    /// The fault, with the names of its targets.
    #[must_use]
    pub(super) fn describe(&self, fleet: &Fleet, around: Surroundings<'_>) -> String {
        let Surroundings { disks, receivers, .. } = around;
        let name =
            |member: &usize| fleet.members().get(*member).map_or("an unknown target", |member| member.name());
        match self {
            Self::Kill(member) => format!("kill -9 {}", name(member)),
            Self::Pause(member) => format!("stop {}", name(member)),
            Self::Crawl(member) => format!("slow {} down", name(member)),
            Self::Sever(member, Some(node), passage) => {
                format!("{passage:?} between {} and n{}", name(member), node + 1)
            }
            Self::Sever(member, None, passage) => {
                format!("{passage:?} between {} and all nodes", name(member))
            }
            Self::Delay(member, delay) => format!("{delay:?} more on all of {}'s links", name(member)),
            Self::Clock(member, seconds) => format!("{}'s clock {seconds:+} s", name(member)),
            Self::SteadyClock(member, seconds) => format!("{}'s clock steadily {seconds:+} s", name(member)),
            Self::Restart => "a rolling restart by the book".to_owned(),
            Self::Refuse(receiver, refusing) => {
                format!(
                    "{refusing:?}: {}",
                    receivers.get(*receiver).map_or("an unknown target", Receiver::name)
                )
            }
            Self::KillNode(node) => format!("kill -9 n{}", node + 1),
            Self::PauseNode(node) => format!("stop n{}", node + 1),
            Self::SeverRoute([one, other], passage) => {
                format!("{passage:?} between n{} and n{}", one + 1, other + 1)
            }
            Self::DelayRoute([one, other], delay) => {
                format!("{delay:?} more between n{} and n{}", one + 1, other + 1)
            }
            Self::FullDisk(disk) => {
                format!("full disk of {}", disks.get(*disk).map_or("an unknown target", SmallDisk::owner))
            }
            Self::KillDatabase => "kill -9 the database server".to_owned(),
            Self::ReadOnlyDatabase(party) => {
                format!(
                    "no writes to {}'s database",
                    fleet.parties().get(*party).map_or("an unknown target", |party| party.name())
                )
            }
        }
    }

    /// The target of the fault. Two faults at a time must not share one.
    #[must_use]
    pub const fn target(&self) -> Target {
        match self {
            Self::Kill(member) | Self::Pause(member) | Self::Crawl(member) => Target::Process(*member),
            Self::Sever(member, ..) | Self::Delay(member, _) => Target::Links(*member),
            Self::Clock(member, _) => Target::Clock(*member),
            Self::SteadyClock(..) => Target::SteadyClock,
            Self::Restart => Target::Restart,
            Self::Refuse(receiver, _) => Target::Receiver(*receiver),
            Self::KillNode(node) | Self::PauseNode(node) => Target::Node(*node),
            Self::SeverRoute(between, _) | Self::DelayRoute(between, _) => Target::Route(*between),
            Self::FullDisk(disk) => Target::Disk(*disk),
            Self::KillDatabase | Self::ReadOnlyDatabase(_) => Target::Databases,
        }
    }
}

/// The target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A member's process.
    Process(usize),
    /// Its links.
    Links(usize),
    /// Its clock.
    Clock(usize),
    /// The one clock that is steadily wrong.
    SteadyClock,
    /// The one rolling restart.
    Restart,
    /// A receiver of webhooks.
    Receiver(usize),
    /// A node's process.
    Node(usize),
    /// The route between two nodes.
    Route([usize; 2]),
    /// A party's disk.
    Disk(usize),
    /// The database server, and what is in it.
    Databases,
}

fn at(fleet: &mut Fleet, member: usize) -> Result<&mut crate::fleet::Member> {
    fleet.members_mut().get_mut(member).context("there is no such member")
}

async fn refuse_writes(fleet: &mut Fleet, party: usize, refuse: bool) -> Result<()> {
    // It may be recovering from a kill.
    fleet.postgres_mut().context("there is no database server")?.ready().await?;
    let party = fleet.parties().get(party).context("there is no such party")?;
    databases::administered(party)?.refuse_writes(refuse).await
}
