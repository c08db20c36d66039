//! Reporting how a session ended, signed, until the orchestrator acknowledges it.

use std::time::Duration;

use duet_bus::{Address, Bus};
use duet_protocol::codec;
use duet_wire::{Outcome, OutcomeReply, SignedOutcome, signing::Purpose};
use tokio::time::Instant;

use crate::{error::PartyError, identity::Identity};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(5);

/// Reports an outcome until it is acknowledged or refused, or `patience` is over. The orchestrator
/// finds out by its own deadline then.
pub(crate) async fn report(bus: &Bus, identity: &Identity, outcome: &Outcome, patience: Duration) {
    let message = match sign(identity, outcome) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(%error, "the outcome cannot be encoded");
            return;
        }
    };
    let address = Address::Outcome { session: outcome.session, from: outcome.from.clone() };
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tracing::warn!(session = %outcome.session, "the outcome was not acknowledged in time");
            return;
        }
        match bus.request_resending(&address, message.clone(), ATTEMPT.min(left)).await {
            Ok(reply) => match codec::decode(&reply) {
                Ok(OutcomeReply::Acknowledged) => return,
                Ok(OutcomeReply::Refused(refusal)) => {
                    tracing::warn!(session = %outcome.session, %refusal, "the outcome was refused");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the answer to an outcome does not parse"),
            },
            Err(error) => tracing::debug!(%error, "the outcome was not acknowledged yet"),
        }
        tokio::time::sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Ed25519 by the card's key, as [`SignedOutcome::verify`] expects it.
fn sign(identity: &Identity, outcome: &Outcome) -> Result<Vec<u8>, PartyError> {
    let document = codec::encode(outcome)?;
    let tagged = [Purpose::Outcome.tag(), document.as_slice()].concat();
    let signature = identity.keys.sign(&tagged).0;
    Ok(codec::encode(&SignedOutcome { outcome: document, signature })?)
}
