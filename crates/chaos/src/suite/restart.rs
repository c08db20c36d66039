//! A rolling restart by the book, as `deploy/README.md` describes an upgrade: one process after the
//! other, workers first, then orchestrators, then gateways. Each gets SIGTERM, drains, and is
//! started again. The next one follows when it serves.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};

use crate::fleet::{Fleet, Kind};

/// A rolling restart that has begun.
#[derive(Debug)]
pub(super) struct RollingRestart {
    remaining: VecDeque<usize>,
    /// The member that restarts, and the number of the run that ends.
    current: Option<(usize, u32)>,
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It waits for a process.
    Waiting,
    /// It asked this member to end. The suite starts it again, as a supervisor does.
    Asked(usize),
    /// All processes were restarted.
    Done,
}

impl RollingRestart {
    pub(super) fn of(fleet: &Fleet) -> Self {
        let of = |wanted: &'static [Kind]| {
            let members = fleet.members().iter().enumerate();
            members.filter(|(_, member)| wanted.contains(&member.kind)).map(|(number, _)| number)
        };
        let order = of(&[Kind::Service, Kind::Partner]).chain(of(&[Kind::Orchestrator]));
        Self { remaining: order.chain(of(&[Kind::Gateway])).collect(), current: None }
    }

    /// Goes on as far as possible without waiting.
    ///
    /// # Errors
    /// When the operating system cannot tell whether a process runs.
    pub(super) fn step(&mut self, fleet: &mut Fleet) -> Result<Step> {
        if let Some((number, run)) = self.current {
            let member = fleet.members_mut().get_mut(number).context("there is no such member")?;
            if member.run() == run || !member.has_served() {
                return Ok(Step::Waiting);
            }
            self.current = None;
        }
        let Some(&number) = self.remaining.front() else { return Ok(Step::Done) };
        let member = fleet.members_mut().get_mut(number).context("there is no such member")?;
        // A process that another fault has ended starts first.
        if !member.is_running()? || !member.has_served() {
            return Ok(Step::Waiting);
        }
        let run = member.run();
        member.process()?.ask_to_end()?;
        self.remaining.pop_front();
        self.current = Some((number, run));
        Ok(Step::Asked(number))
    }
}
