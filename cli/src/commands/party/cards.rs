//! `duet party card` and `pin`: the party's card, and those of others.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use clap::Args;
use duet_party::Party;
use duet_protocol::{
    codec,
    ids::{CardFingerprint, PartyId},
};
use serde::Serialize;

use crate::{config::StoreOptions, error::CliError, output::Output, share_store::OpenStore};

#[derive(Debug, Clone, Args)]
pub(crate) struct CardArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Write the card's bytes to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PinArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// A party and its card's fingerprint, as published by its organisation
    #[arg(value_name = "NAME=HEX")]
    peers: Vec<Peer>,
}

/// Another party and its card's fingerprint.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) party: PartyId,
    pub(super) card: CardFingerprint,
}

impl FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (party, card) = text.split_once('=').ok_or("write NAME=FINGERPRINT")?;
        Ok(Self {
            party: party.parse().map_err(|error| format!("{party}: {error}"))?,
            card: card.parse().map_err(|error| format!("{card}: {error}"))?,
        })
    }
}

#[derive(Debug, Serialize)]
struct Pins {
    party: PartyId,
    pins: BTreeMap<PartyId, CardFingerprint>,
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pins.is_empty() {
            return write!(f, "{} has pinned no card", self.party);
        }
        let lines: Vec<String> = self.pins.iter().map(|(party, card)| format!("{party} {card}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

pub(super) async fn pin(arguments: PinArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    for peer in &arguments.peers {
        party.pin(&peer.party, peer.card).await?;
    }
    output.emit(&Pins { party: party.id().clone(), pins: party.pins().await? })
}

#[derive(Debug, Serialize)]
struct OwnCard {
    party: PartyId,
    fingerprint: CardFingerprint,
    ed25519: String,
    x25519: String,
    card: String,
}

impl fmt::Display for OwnCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nfingerprint {}\nEd25519     {}\nX25519      {}",
            self.party, self.fingerprint, self.ed25519, self.x25519
        )
    }
}

pub(super) async fn card(arguments: CardArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let card = party.card();
    let bytes = codec::encode(card.as_ref()).map_err(|error| CliError::internal(error.to_string()))?;
    if let Some(file) = &arguments.out {
        std::fs::write(file, &bytes).map_err(|error| CliError::io(&file.display().to_string(), &error))?;
    }
    output.emit(&OwnCard {
        party: card.party().clone(),
        fingerprint: card.fingerprint(),
        ed25519: hex::encode(card.identity().as_bytes()),
        x25519: hex::encode(card.noise_key().as_bytes()),
        card: hex::encode(bytes),
    })
}
