//! `duet party rewrap`: changes what opens a share store.

use std::fmt;

use clap::Args;
use duet_party::{clock::Clock, key_encryption::Source};
use serde::Serialize;

use crate::{
    config::StoreOptions, error::CliError, output::Output, sealing::NewSealOptions, secrets::PassphraseUse,
    share_store::OpenStore, store_location::StoreLocation,
};

#[derive(Debug, Clone, Args)]
pub(crate) struct RewrapArguments {
    #[command(flatten)]
    store: StoreOptions,
    #[command(flatten)]
    new: NewSealOptions,
    /// Also give the store a new key and rewrap every record: the old key then opens nothing of
    /// today's store
    #[arg(long)]
    new_store_key: bool,
}

#[derive(Debug, Serialize)]
struct Rewrapped {
    store: StoreLocation,
    opened_by: &'static str,
    /// The number of rewrapped records, when the store's key was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
}

impl fmt::Display for Rewrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what opens {} from now on: {}", self.store, self.opened_by)?;
        match self.records {
            Some(records) => write!(f, "; it has another key, under which {records} records are"),
            None => Ok(()),
        }
    }
}

/// Changes what opens a share store.
///
/// # Errors
/// When the old or the new source fails. The store is then unchanged.
pub(crate) async fn run(arguments: RewrapArguments, output: Output) -> Result<(), CliError> {
    let current = arguments.store.seal.source(PassphraseUse::Enter)?;
    let new = arguments.new.source(&arguments.store.seal.vault)?;
    if new.is_none() && current.source() != Source::Transit && !arguments.new_store_key {
        return Err(CliError::usage("no new key or passphrase for the share store is given").remedy(
            "Give --new-key-file, --new-key-credential, --new-passphrase-file, --new-passphrase or --new-vault-key, or --new-store-key.",
        ));
    }
    let store = OpenStore::open_with(&arguments.store, current.as_ref()).await?;
    let vault = &store.context.vault;
    let to = new.as_deref().unwrap_or(current.as_ref());
    // In a store from before keys were encrypted, the source itself is the key.
    let records = if arguments.new_store_key || vault.key_is_the_source().await? {
        Some(vault.change_key(to, &Clock::system()).await?)
    } else {
        vault.rewrap(to, &Clock::system()).await?;
        None
    };
    output.emit(&Rewrapped { store: arguments.store.place.store, opened_by: to.source().as_str(), records })
}
