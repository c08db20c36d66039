//! A session from the invitation to its end, on either side.

use std::future::Future;

use duet_wire::Code;

use super::{
    accepted::{Accepted, Role},
    checks::check,
    ended::Ended,
    host::Host,
    initiator::initiate,
    limits::SessionLimits,
    responder::respond,
};
use crate::{context::Context, error::PartyError, identity::Identity};

/// Checks a manifest, and claims its session. A responder listens for the session's messages from
/// here on, so that none is missed once it has accepted.
///
/// # Errors
/// As of [`check`], and when the responder cannot listen.
pub(crate) async fn accept<H: Host>(
    context: &Context,
    host: &H,
    identity: &Identity,
    manifest: Vec<u8>,
) -> Result<(Accepted<H::Engine>, Option<H::Rounds>), PartyError> {
    let accepted = check(context, identity, manifest).await?;
    let rounds = match accepted.role {
        Role::Initiator { .. } => None,
        Role::Responder { .. } => Some(host.listen(&accepted).await?),
    };
    Ok((accepted, rounds))
}

/// Runs a session to its end, or until `cut` ends it, and gives its `seat` back.
///
/// # Cancel safety
/// Dropping the future ends the session; a lock that has to be written is written nevertheless.
pub(crate) async fn run<H: Host>(
    context: &Context,
    host: &H,
    accepted: &Accepted<H::Engine>,
    rounds: Option<H::Rounds>,
    limits: SessionLimits,
    cut: impl Future<Output = Ended> + Send,
    seat: impl Send,
) -> Ended {
    let session = context.metrics.session(accepted.role.as_str());
    let ended = match (&accepted.role, rounds) {
        (Role::Initiator { paillier }, _) => initiate(context, host, accepted, paillier, limits, cut).await,
        (Role::Responder { enrolment }, Some(rounds)) => {
            respond(context, host, accepted, enrolment, rounds, limits, cut).await
        }
        (Role::Responder { .. }, None) => Ended::failed(Code::Internal, "the responder does not listen"),
    };
    let (outcome, code) = ended.labels();
    session.ended(outcome, code);
    drop(seat);
    ended
}
