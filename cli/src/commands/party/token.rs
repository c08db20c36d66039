//! `duet party token`: issues admission tokens.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Args;
use duet_party::Party;
use duet_protocol::{codec, ids::PartyId};
use duet_wire::TenantId;
use serde::Serialize;

use crate::{
    config::StoreOptions, duration, error::CliError, output::Output, secrets, share_store::OpenStore,
};

#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// The tenant whose devices it admits
    #[arg(long, env = "DUET_TENANT", value_name = "NAME")]
    tenant: TenantId,
    /// How long it admits new wallets
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration::parse)]
    expires_in: Duration,
    /// How many wallets it admits
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    max_wallets: u32,
    /// Write the token to this file, readable by its owner only, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Token {
    party: PartyId,
    tenant: TenantId,
    expires_at: u64,
    max_wallets: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.token, &self.file) {
            // Alone on its line, so that a shell can redirect it into a file.
            (Some(token), _) => f.write_str(token),
            (None, Some(file)) => write!(
                f,
                "a token for {} wallets of {} is in {}",
                self.max_wallets,
                self.tenant,
                file.display()
            ),
            (None, None) => Ok(()),
        }
    }
}

pub(super) async fn token(arguments: TokenArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let expires_at = duration::since_1970().saturating_add(arguments.expires_in).as_secs();
    let token = party.issue_token(arguments.tenant.clone(), expires_at, arguments.max_wallets);
    let bytes = codec::encode(&token).map_err(|error| CliError::internal(error.to_string()))?;
    let text = hex::encode(bytes);
    if let Some(file) = &arguments.out {
        secrets::write_new_file(file, format!("{text}\n").as_bytes())?;
    }
    output.emit(&Token {
        party: party.id().clone(),
        tenant: arguments.tenant,
        expires_at,
        max_wallets: arguments.max_wallets,
        token: arguments.out.is_none().then_some(text),
        file: arguments.out,
    })
}
