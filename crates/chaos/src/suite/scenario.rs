//! Scenarios: faults that operators have met, in a fixed order instead of drawn.

use std::{collections::VecDeque, time::Duration};

use super::{
    faults::{Fault, STEADY_OFFSETS},
    load::Load,
    receivers::Refusing,
};
use crate::fleet::{Fleet, Kind, Shape};

/// How long everything is right between two wrong clocks.
const REST: Duration = Duration::from_secs(10);

/// The bound on a run whose backlog has not ended.
const BACKLOG_DEADLINE: Duration = Duration::from_secs(900);

/// How long a session may last by default, in seconds.
const DEFAULT_SESSION_S: u64 = 30;

/// What operators have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// No fault: orchestrators start far more sessions than one worker a party has seats for.
    Busy,
    /// Rolling restarts by the book, one after the other while the backlog lasts.
    RollingRestart,
    /// One wrong clock after the other, each for this long: a worker's and an orchestrator's.
    Clocks(Duration),
    /// A receiver of webhooks refuses in one way after the other, each for this long.
    Receivers(Duration),
}

impl Scenario {
    /// The faults in order, each with how long it lasts.
    pub(super) fn script(self, fleet: &Fleet) -> VecDeque<(Fault, Duration)> {
        let first = |kind| fleet.members().iter().position(|member| member.kind == kind);
        let clocks = |lasts| {
            let of = [first(Kind::Service), first(Kind::Orchestrator)].into_iter().flatten();
            of.flat_map(|member| STEADY_OFFSETS.map(|offset| Fault::SteadyClock(member, offset)))
                .map(move |fault| (fault, lasts))
                .collect()
        };
        match self {
            Self::Busy => VecDeque::new(),
            Self::RollingRestart => [(Fault::Restart, BACKLOG_DEADLINE)].into(),
            Self::Clocks(lasts) => clocks(lasts),
            Self::Receivers(lasts) => Refusing::ALL.map(|how| (Fault::Refuse(0, how), lasts)).into(),
        }
    }

    /// Whether its script begins again when it is over.
    pub(super) const fn is_repeated(self) -> bool {
        matches!(self, Self::RollingRestart)
    }

    /// The pause after each fault of a script.
    pub(super) const fn rest(self) -> Duration {
        match self {
            Self::Clocks(_) => REST,
            // The restarts follow each other, and the receiver never comes back in between.
            Self::Busy | Self::RollingRestart | Self::Receivers(_) => Duration::ZERO,
        }
    }

    /// The processes: as many as it needs, with all defaults of the product.
    pub(super) fn shape(self) -> Shape {
        let shape = Shape { session_s: DEFAULT_SESSION_S, workers: 1, ..Shape::default() };
        match self {
            Self::Busy => Shape { orchestrators: 4, seats: 8, ..shape },
            Self::RollingRestart => Shape { workers: 2, ..shape },
            Self::Clocks(_) | Self::Receivers(_) => shape,
        }
    }

    /// The load, with `backlog` queued jobs.
    pub(super) const fn load(self, backlog: usize) -> Load {
        match self {
            Self::Busy => Load { jobs: 0, at_a_time: 4, ends_in_time: false, backlog },
            Self::RollingRestart => Load { jobs: 24, at_a_time: 4, ends_in_time: false, backlog },
            Self::Clocks(_) | Self::Receivers(_) => {
                Load { jobs: usize::MAX, at_a_time: 8, ends_in_time: true, backlog }
            }
        }
    }

    /// For how long its faults happen at most.
    pub(super) fn longest(self) -> Duration {
        let script = |faults: usize, lasts: Duration| {
            u32::try_from(faults).map_or(BACKLOG_DEADLINE, |faults| (lasts + self.rest()) * faults)
        };
        match self {
            Self::Busy | Self::RollingRestart => BACKLOG_DEADLINE,
            Self::Clocks(lasts) => script(2 * STEADY_OFFSETS.len(), lasts),
            Self::Receivers(lasts) => script(Refusing::ALL.len(), lasts),
        }
    }
}
