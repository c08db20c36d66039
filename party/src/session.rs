//! Sessions: what is checked before one, the two drivers, the gate, the report.
//!
//! The drivers know no broker, clock or task: they run on a host ([`host`]), and compute by
//! an engine ([`engine`]). A worker and a device run on [`Online`] by [`Protocol`].

mod accepted;
mod checks;
mod cut;
mod ended;
mod engine;
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

pub use self::limits::SessionLimits;
pub(crate) use self::{
    accepted::{Accepted, Role},
    checks::{check, distrusted, require_unlocked},
    cut::Cut,
    ended::{Ended, Finished, Trace},
    engine::Engine,
    online::Online,
    outcome::report,
    pending::finish_pending,
    protocol::Protocol,
    reporter::Reporter,
    run::{accept, run},
};
