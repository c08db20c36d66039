//! Sessions: what is checked before one, the two drivers, the gate, the report.
//!
//! The drivers know no broker, clock or task: they run on a host ([`host`]), and compute by an
//! engine ([`engine`]). A worker and a device run on [`Online`] by [`Protocol`]. The seeded world
//! of the tests has hosts of its own, and symbols for the protocol.

mod accepted;
mod checks;
mod cut;
mod ended;
mod engine;
mod finished;
mod gate;
mod host;
mod initiator;
mod limits;
mod online;
mod outcome;
mod pending;
mod protocol;
mod reporter;
mod responder;
mod run;
mod trace;

pub use self::limits::SessionLimits;
pub(crate) use self::{
    accepted::{Accepted, Role},
    checks::{distrusted, require_unlocked},
    cut::Cut,
    ended::Ended,
    engine::Engine,
    finished::Finished,
    online::Online,
    outcome::report,
    pending::finish_pending,
    protocol::Protocol,
    reporter::Reporter,
    run::{accept, run},
    trace::Trace,
};
#[cfg(test)]
pub(crate) use self::{
    engine::{Side, Verdict},
    host::{Host, RoundMessage, Rounds},
};
