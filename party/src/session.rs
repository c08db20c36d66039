//! Sessions: what is checked before one, the two drivers, the gate, the report.

mod accepted;
mod checks;
mod cut;
mod ended;
mod gate;
mod initiator;
mod limits;
mod outcome;
mod pending;
mod reporter;
mod responder;

pub use self::limits::SessionLimits;
pub(crate) use self::{
    accepted::{Accepted, Role},
    checks::{check, distrusted, require_unlocked},
    cut::Cut,
    ended::{Ended, Finished, Trace},
    initiator::initiate,
    outcome::report,
    pending::finish_pending,
    reporter::Reporter,
    responder::respond,
};
