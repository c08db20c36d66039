//! `duet party backup`, `restore` and `limits`: a copy of the share store, and the way back.

use std::{fmt, path::PathBuf};

use clap::Args;
use duet_party::Party;
use duet_protocol::ids::PartyId;
use serde::Serialize;

use crate::{
    config::StoreOptions, error::CliError, output::Output, share_store::OpenStore,
    store_location::StoreLocation,
};

#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The backup file; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The backup file [default: mark a database that PostgreSQL's own tools restored]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LimitsArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Make the limits count again from the store's figures: you know what was signed since the
    /// backup
    #[arg(long)]
    reset: bool,
}

#[derive(Debug, Serialize)]
struct Backup {
    party: PartyId,
    file: PathBuf,
    wallets: u64,
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wallets are in {}; it opens with what opens the store now",
            self.wallets,
            self.file.display()
        )
    }
}

pub(super) async fn backup(arguments: BackupArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context.clone()).await?;
    let wallets = party.count_wallets().await?;
    store.back_up(&arguments.out).await?;
    output.emit(&Backup { party: party.id().clone(), file: arguments.out, wallets })
}

#[derive(Debug, Serialize)]
struct Restored {
    party: PartyId,
    store: StoreLocation,
    wallets: u64,
    needs_rotation: bool,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is back with {} wallets in {}; it initiates nothing until `duet party rotate` ran",
            self.party, self.wallets, self.store
        )
    }
}

pub(super) async fn restore(arguments: RestoreArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::restore(&arguments.store, arguments.from.as_deref()).await?;
    let party = Party::open(store.context).await?;
    let wallets = party.count_wallets().await?;
    output.emit(&Restored {
        party: party.id().clone(),
        store: arguments.store.place.store,
        wallets,
        needs_rotation: true,
    })
}

/// Whether the policies' limits count as used up.
#[derive(Debug, Serialize)]
struct Limits {
    party: PartyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_up_since_ms: Option<u64>,
    reset: bool,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.used_up_since_ms, self.reset) {
            (None, _) => write!(f, "the limits of {} count as its store knows them", self.party),
            (Some(_), true) => {
                write!(f, "the limits of {} count again as its restored store knows them", self.party)
            }
            (Some(since), false) => write!(
                f,
                "the limits of {} count as used up since its store was restored at {since} ms after 1970, \
                 each until its time has passed; with --reset they count again",
                self.party
            ),
        }
    }
}

pub(super) async fn limits(arguments: LimitsArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let used_up_since_ms =
        if arguments.reset { party.reset_limits().await? } else { party.limits_used_up_since().await? };
    let reset = arguments.reset && used_up_since_ms.is_some();
    output.emit(&Limits { party: party.id().clone(), used_up_since_ms, reset })
}
