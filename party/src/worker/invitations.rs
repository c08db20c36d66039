//! `duet.v1.invite.<party>.<instance>`, and `duet.v1.invite.<party>` for orchestrators that heard
//! no offer: checks an invitation, registers for the session, and runs it. Each session has a seat.

use std::sync::Arc;

use duet_bus::{Incoming, Subscription};
use duet_protocol::codec;
use duet_wire::{
    Code, Invitation, InvitationReply, Refusal,
    audit::Refused,
    invite::TimeRefusal,
    remembered::{ISSUED_AT_HEADER, REMEMBERED_HEADER},
    validity::{self, CLOCK_GRACE_MS},
};
use tracing::Instrument as _;

use super::shared::{Shared, answer, refusal};
use crate::{
    error::PartyError,
    session::{self, Accepted, Cut, Ended, Online, Reporter, accept, report},
};

pub(super) async fn serve(shared: Arc<Shared>, message: Incoming) {
    let span = tracing::info_span!(
        "session",
        party = %shared.party.id(),
        session = tracing::field::Empty,
        wallet = tracing::field::Empty,
    );
    message.continue_trace(&span);
    run(shared, message).instrument(span).await;
}

async fn run(shared: Arc<Shared>, message: Incoming) {
    if !message.wants_reply() {
        return;
    }
    // Not journalled: it says nothing about the request, and orchestrators ask again.
    let Some(mut seat) = shared.seats.take() else {
        let refusal = Refusal::new(Code::NoSeat, "all seats of this worker are taken");
        return answer(&message, &InvitationReply::Refused(refusal)).await;
    };
    // Taken before the checks: a session accepted before the machine was resumed must not continue
    // after.
    let session_cut = shared.session_cut();
    let host = Online::new(&shared.bus, &shared.randomizers);
    let (accepted, rounds) = match shared.accept(&host, &message).await {
        Ok(accepted) => accepted,
        Err(error) => {
            let refusal = refusal(&error);
            let rule = match error {
                PartyError::RefusedByPolicy { rule, .. } => rule,
                _ => None,
            };
            shared.refuse(&message, refusal.clone()).await;
            let refused = match codec::decode::<Invitation>(&message.payload) {
                Ok(Invitation { manifest }) => Refused::invitation(&manifest, refusal),
                Err(_) => Refused::new("invitation", refusal),
            };
            shared.journal.refused(Refused { rule, ..refused });
            return;
        }
    };
    seat.note(accepted.manifest.session);
    answer(&message, &InvitationReply::Accepted { instance: shared.instance.to_string() }).await;
    drop(message);
    tracing::info!("accepted");

    let party = &shared.party;
    let limits = party.settings.limits;
    let cut = Cut::new(session_cut, seat.released().clone());
    let running = session::run(&party.context, &host, &accepted, rounds, limits, cut.ended(), seat);
    let ended = Box::pin(running).await;
    log(&ended);
    shared.journal.ended(&accepted, &ended).await;
    let step = ended.step();
    let Some(outcome) = ended.outcome(&accepted) else { return };
    // The session's place is free from here on. The report has a deadline of its own.
    let reporting = Arc::clone(&shared);
    shared.reports.spawn(
        async move {
            if let Some(step) = step {
                // Together with the report, so that the session step costs no write of its own.
                let clock = &reporting.party.context.clock;
                Reporter::new(&reporting.bus, clock, accepted.manifest.session, &accepted.own().party)
                    .step(step)
                    .await;
            }
            report(&reporting.bus, &accepted.identity, &outcome, limits.outcome).await;
        }
        .in_current_span(),
    );
}

fn log(ended: &Ended) {
    match ended {
        Ended::Signed { .. } => tracing::info!("signed"),
        Ended::Answered => tracing::info!("answered"),
        Ended::Failed { refusal, culprit } => {
            tracing::warn!(%refusal, culprit = culprit.as_ref().map(tracing::field::display), "failed");
        }
        Ended::Released => tracing::info!("released"),
        Ended::Silent => tracing::error!("ended; nothing is reported"),
    }
}

/// Requires that the invitation was not issued in the future, with the grace that clocks have. One
/// of the version before does not say when it was.
fn require_issued(issued_at_ms: Option<&str>, now_ms: u64) -> Result<(), PartyError> {
    let issued_at_ms = issued_at_ms.and_then(|text| text.parse::<u64>().ok());
    match issued_at_ms.and_then(|issued_at_ms| issued_at_ms.checked_sub(now_ms)) {
        Some(ahead_ms) if ahead_ms > CLOCK_GRACE_MS => {
            let by = validity::span(ahead_ms);
            Err(PartyError::refused(
                Code::ClockDiffers,
                format!("by this party's clock the invitation was issued {by} from now"),
            ))
        }
        _ => Ok(()),
    }
}

impl Shared {
    /// Refuses. If a time is the reason, adds the party's own time to the answer.
    async fn refuse(&self, message: &Incoming, refusal: Refusal) {
        if !matches!(refusal.code, Code::ClockDiffers | Code::JobExpired) {
            return answer(message, &InvitationReply::Refused(refusal)).await;
        }
        let now_ms = self.party.context.clock.now_ms();
        if refusal.code == Code::ClockDiffers {
            tracing::warn!(now_ms, reason = refusal.message, "clocks differ");
        }
        answer(message, &TimeRefusal { refusal, now_ms }).await;
    }

    /// Checks the invitation. A responder subscribes to the session's rounds before it accepts.
    async fn accept(
        &self,
        host: &Online,
        message: &Incoming,
    ) -> Result<(Accepted, Option<Subscription>), PartyError> {
        let Invitation { manifest } = codec::decode(&message.payload)
            .map_err(|error| PartyError::refused(Code::MalformedMessage, error.to_string()))?;
        let party = &self.party;
        require_issued(message.header(ISSUED_AT_HEADER), party.context.clock.now_ms())?;
        let mut accepted =
            accept(&party.context, host, &party.identity, manifest).await.inspect_err(|error| {
                if error.code() == Code::NotEnrolled {
                    self.wake.notify_one();
                }
            })?;
        accepted.0.remembered = message.header(REMEMBERED_HEADER).and_then(|text| text.parse().ok());
        let span = tracing::Span::current();
        span.record("session", tracing::field::display(accepted.0.manifest.session));
        span.record("wallet", tracing::field::display(accepted.0.manifest.wallet));
        Ok(accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_from_the_future_is_refused_beyond_the_grace() {
        const NOW_MS: u64 = 1_800_000_000_000;
        let code = |issued_at_ms: u64| {
            require_issued(Some(&issued_at_ms.to_string()), NOW_MS).map_err(|error| error.code())
        };
        for allowed in [0, NOW_MS - 86_400_000, NOW_MS, NOW_MS + CLOCK_GRACE_MS] {
            assert_eq!(code(allowed), Ok(()), "{allowed}");
        }
        for refused in [NOW_MS + CLOCK_GRACE_MS + 1, NOW_MS + 86_400_000, u64::MAX] {
            assert_eq!(code(refused), Err(Code::ClockDiffers), "{refused}");
        }
        // Orchestrators of the version before do not say it.
        for unsaid in [None, Some(""), Some("soon"), Some("18446744073709551616")] {
            assert!(require_issued(unsaid, NOW_MS).is_ok(), "{unsaid:?}");
        }
    }
}
