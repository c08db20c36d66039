//! Faults: drawn from the seed, applied to the fleet, and undone when their time is over.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{disk::SmallDisk, seed::Seed};
use crate::{
    cluster::{NODES, PAIRS},
    databases,
    fleet::Fleet,
    network::{Condition, Passage},
};

/// The routes between nodes without faults: one of them is slower than the others.
#[derive(Clone, Copy, Debug)]
pub struct Routes {
    /// The slow one.
    pub slow: [usize; 2],
    /// Its delay.
    pub by: Duration,
}

impl Routes {
    /// The condition of the route between two nodes.
    #[must_use]
    pub fn of(&self, between: [usize; 2]) -> Condition {
        if between == self.slow { Condition::slow(self.by) } else { Condition::GOOD }
    }
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
    /// A process's clock is wrong.
    Clock(usize, i64),
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
    /// Draws the next fault, and how long it lasts. `disks` are those that can be filled.
    pub fn draw(seed: &mut Seed, fleet: &Fleet, disks: &[SmallDisk]) -> (Self, Duration) {
        let databases: Vec<usize> = (0..fleet.parties().len())
            .filter(|party| fleet.parties().get(*party).is_some_and(|folder| folder.database().is_some()))
            .collect();
        let member = seed.below(fleet.members().len());
        let node = seed.below(NODES);
        let route = seed.one_of(&PAIRS).unwrap_or([0, 1]);
        let passage = if seed.once_in(2) { Passage::Cut } else { Passage::Stalled };
        let some_node = if seed.once_in(2) { Some(node) } else { None };
        let database = seed.one_of(&databases);
        let fault = match seed.below(22) {
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
            _ => Self::DelayRoute(route, seed.millis(20, 300)),
        };
        (fault, seed.millis(500, 6000))
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
    pub async fn begin(&self, fleet: &mut Fleet, disks: &[SmallDisk], usual: &Routes) -> Result<()> {
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
            Self::Clock(member, seconds) => at(fleet, *member)?.shift_clock(*seconds)?,
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

    /// Ends the fault. `usual` is the condition of the routes without faults.
    ///
    /// # Errors
    /// When a node does not start again.
    pub async fn end(&self, fleet: &mut Fleet, disks: &[SmallDisk], usual: &Routes) -> Result<()> {
        match self {
            Self::Kill(_) => {}
            Self::Pause(member) | Self::Crawl(member) => {
                if let Ok(process) = at(fleet, *member)?.process() {
                    process.resume().ok();
                }
            }
            Self::Sever(member, ..) | Self::Delay(member, _) => {
                at(fleet, *member)?.set_links(Condition::GOOD);
            }
            Self::Clock(member, _) => at(fleet, *member)?.shift_clock(0)?,
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
    pub fn describe(&self, fleet: &Fleet, disks: &[SmallDisk]) -> String {
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
