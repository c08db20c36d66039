//! `duet party`: sets up, runs and maintains a party.

mod backup;
mod cards;
mod init;
mod migrate;
mod rotate;
mod serve;
mod status;
mod token;

use clap::{Args, Subcommand};
use duet_party::Party;
use duet_protocol::ids::CardFingerprint;

use self::{
    backup::{BackupArguments, LimitsArguments, RestoreArguments, backup, limits, restore},
    cards::{CardArguments, PinArguments, card, pin},
    init::{InitArguments, init},
    migrate::{MigrateArguments, migrate},
    rotate::{RotateArguments, rotate},
    serve::{RunArguments, serve},
    status::{StatusArguments, status},
    token::{TokenArguments, token},
};
use super::{culprit, rewrap};
use crate::{config::StoreOptions, error::CliError, output::Output, share_store::OpenStore};

/// A command about a party.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PartyCommand {
    /// Set up a party: its keys, its proof parameters (two safe primes take some seconds), its card
    Init(InitArguments),
    /// Serve: take shares, answer invitations, sign
    Run(RunArguments),
    /// Make new Paillier keys and enrol all wallets under them: this ends a lock, but no quarantine
    Rotate(RotateArguments),
    /// Sign again with a responder whose bad signature locked a key; its next bad signature is
    /// final
    AcceptCulprit(AcceptCulpritArguments),
    /// Issue an admission token, with which a tenant's devices may create wallets
    Token(TokenArguments),
    /// Show the party's card
    Card(CardArguments),
    /// Pin the cards of other parties before first contact; without any, show the pinned cards
    Pin(PinArguments),
    /// Write a copy of the share store, sealed like the store itself
    Backup(BackupArguments),
    /// Restore the share store from a backup; it initiates nothing before `rotate`
    Restore(RestoreArguments),
    /// Show whether the limits count as used up after a restore, or make them count again
    Limits(LimitsArguments),
    /// Compare the share store's tables with this build, or change them for an upgrade
    Migrate(MigrateArguments),
    /// Change what opens the share store, while workers run
    Rewrap(rewrap::RewrapArguments),
    /// Show what the share store holds
    Status(StatusArguments),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AcceptCulpritArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The fingerprint of the responder's card
    #[arg(value_name = "CARD")]
    card: CardFingerprint,
}

/// Runs the command.
///
/// # Errors
/// When the store, the broker or another party fails.
pub(crate) async fn run(command: PartyCommand, output: Output) -> Result<(), CliError> {
    match command {
        PartyCommand::Init(arguments) => init(arguments, output).await,
        PartyCommand::Run(arguments) => serve(arguments, output).await,
        PartyCommand::Rotate(arguments) => rotate(arguments, output).await,
        PartyCommand::AcceptCulprit(arguments) => {
            let store = OpenStore::open(&arguments.store).await?;
            let party = Party::open(store.context).await?;
            culprit::accept(party.context(), arguments.card, output).await
        }
        PartyCommand::Token(arguments) => token(arguments, output).await,
        PartyCommand::Card(arguments) => card(arguments, output).await,
        PartyCommand::Pin(arguments) => pin(arguments, output).await,
        PartyCommand::Backup(arguments) => backup(arguments, output).await,
        PartyCommand::Restore(arguments) => restore(arguments, output).await,
        PartyCommand::Limits(arguments) => limits(arguments, output).await,
        PartyCommand::Migrate(arguments) => migrate(arguments, output).await,
        PartyCommand::Rewrap(arguments) => rewrap::run(arguments, output).await,
        PartyCommand::Status(arguments) => status(arguments, output).await,
    }
}
