//! `duet card`: asks parties for their cards over the broker.

use std::{fmt, sync::Arc};

use clap::{Args, Subcommand};
use duet_bus::Role;
use duet_party::party::fetch_card;
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::VerifiedCard,
    ids::{CardFingerprint, PartyId},
};
use duet_wire::Code;
use serde::Serialize;

use crate::{
    broker::{self, COMMAND_PATIENCE},
    config::{BrokerOptions, CredentialsOptions},
    device::DEVICE,
    error::CliError,
    output::Output,
};

/// A command about a card.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CardCommand {
    /// Show a party's card, after checking its own signature
    Show(CardArguments),
    /// Also check the proof of its parameters, and its fingerprint
    Verify {
        #[command(flatten)]
        card: CardArguments,
        /// The fingerprint that the party's organisation published
        #[arg(long, value_name = "HEX")]
        fingerprint: Option<CardFingerprint>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CardArguments {
    /// The party
    party: PartyId,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

#[derive(Debug, Serialize)]
struct CardReport {
    party: PartyId,
    fingerprint: CardFingerprint,
    ed25519: String,
    x25519: String,
    self_signature: bool,
    parameters: &'static str,
}

impl fmt::Display for CardReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nfingerprint {}\nEd25519     {}\nX25519      {}\nparameters  {}",
            self.party, self.fingerprint, self.ed25519, self.x25519, self.parameters
        )
    }
}

/// Runs the command.
///
/// # Errors
/// When the party does not answer; `card-mismatch` when the card does not pass a check.
pub(crate) async fn run(command: CardCommand, output: Output) -> Result<(), CliError> {
    let (arguments, verify, expected) = match command {
        CardCommand::Show(card) => (card, false, None),
        CardCommand::Verify { card, fingerprint } => (card, true, fingerprint),
    };
    let bus =
        broker::connect(&arguments.broker, &arguments.credentials, Role::Gateway, COMMAND_PATIENCE).await?;
    let device: PartyId = DEVICE.parse().map_err(|error| CliError::internal(format!("{error}")))?;
    // Parsing a card checks its own signature.
    let card = Arc::new(fetch_card(&bus, &device, &arguments.party).await?);
    bus.drain().await;
    let fingerprint = card.fingerprint();
    if let Some(expected) = expected
        && expected != fingerprint
    {
        return Err(CliError::new(
            Code::CardMismatch,
            format!("{} shows the card {fingerprint}, expected is {expected}", arguments.party),
        ));
    }
    let parameters = match (card.has_parameters(), verify) {
        (false, _) => "none",
        (true, false) => "unchecked",
        (true, true) => {
            let card = Arc::clone(&card);
            let verified = tokio::task::spawn_blocking(move || {
                VerifiedCard::verify(card, &fingerprint, default_arithmetic())
            });
            verified
                .await
                .map_err(|_| CliError::internal("the verification was abandoned"))?
                .map_err(|error| CliError::new(Code::CardMismatch, error.to_string()))?;
            "proved"
        }
    };
    output.emit(&CardReport {
        party: card.party().clone(),
        fingerprint,
        ed25519: hex::encode(card.identity().as_bytes()),
        x25519: hex::encode(card.noise_key().as_bytes()),
        self_signature: true,
        parameters,
    })
}
