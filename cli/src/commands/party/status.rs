//! `duet party status`: shows what the share store holds.

use std::fmt;

use clap::Args;
use duet_party::{
    Party, culprits, enrolment,
    store::{PaillierScope, PaillierState},
};
use duet_protocol::ids::{CardFingerprint, PartyId};
use serde::Serialize;

use crate::{
    commands::culprit, config::StoreOptions, error::CliError, output::Output, share_store::OpenStore,
};

#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    store: StoreOptions,
}

#[derive(Debug, Serialize)]
struct KeyReport {
    paillier_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_card: Option<CardFingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct CulpritReport {
    card: CardFingerprint,
    locks: u32,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Status {
    party: PartyId,
    share: u8,
    fingerprint: CardFingerprint,
    wallets: u64,
    restored: bool,
    opened_by: &'static str,
    paillier_keys: Vec<KeyReport>,
    culprits: Vec<CulpritReport>,
    failed_wallets: Vec<culprit::LossReport>,
    unclean_starts: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: share {} of {} wallets\ncard {}\nopened by: {}",
            self.party, self.share, self.wallets, self.fingerprint, self.opened_by
        )?;
        for key in &self.paillier_keys {
            let tenant = key.tenant.as_deref().unwrap_or("–");
            write!(f, "\nPaillier key {} for {tenant}: {}", key.paillier_key, key.state)?;
        }
        for culprit in &self.culprits {
            write!(f, "\ncard {} locked {} keys: {}", culprit.card, culprit.locks, culprit.state)?;
        }
        for wallet in &self.failed_wallets {
            write!(f, "\n{wallet}")?;
        }
        if self.unclean_starts > 0 {
            write!(f, "\nstarts after an end with sessions under way: {}", self.unclean_starts)?;
        }
        Ok(())
    }
}

pub(super) async fn status(arguments: StatusArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let keys = enrolment::key_status(party.context()).await?;
    let vault = &party.context().vault;
    let (restored, opened_by) = (vault.store().was_restored().await?, vault.source().await?.as_str());
    let culprits = culprits::culprits(party.context()).await?.into_iter().map(|culprit| CulpritReport {
        card: culprit.card,
        locks: culprit.standing.locks,
        state: match culprit.standing {
            standing if standing.is_final() => "final",
            standing if standing.is_trusted() => "accepted",
            _ => "quarantined",
        },
    });
    let losses = culprits::losses(party.context()).await?;
    output.emit(&Status {
        culprits: culprits.collect(),
        failed_wallets: losses.into_iter().map(culprit::LossReport::from).collect(),
        unclean_starts: vault.store().unclean_starts().await?,
        party: party.id().clone(),
        share: party.index().into(),
        fingerprint: party.card().fingerprint(),
        wallets: party.count_wallets().await?,
        restored,
        opened_by,
        paillier_keys: keys
            .into_iter()
            .map(|key| {
                let (peer_card, tenant) = match key.scope {
                    PaillierScope::Responder { card, tenant } => (Some(card), Some(tenant)),
                    PaillierScope::Wallet(_) => (None, None),
                };
                let state = match key.state {
                    PaillierState::Ready => "ready",
                    PaillierState::Locked => "locked",
                    PaillierState::NeedsRotation => "needs_rotation",
                };
                KeyReport { paillier_key: key.paillier_key.to_string(), peer_card, tenant, state }
            })
            .collect(),
    })
}
