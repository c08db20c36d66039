//! `duet party rotate`: makes new Paillier keys.

use std::fmt;

use clap::Args;
use duet_party::{Party, PartySettings, enrolment::Enroller};
use duet_protocol::ids::PartyId;
use duet_wire::TenantId;
use serde::Serialize;

use crate::{
    broker::{self, COMMAND_PATIENCE, role_of},
    config::{BrokerOptions, CredentialsOptions, StoreOptions},
    error::CliError,
    output::Output,
    share_store::OpenStore,
};

#[derive(Debug, Clone, Args)]
pub(crate) struct RotateArguments {
    #[command(flatten)]
    store: StoreOptions,
    /// Only the keys for this responder
    #[arg(long, value_name = "NAME")]
    peer: Option<PartyId>,
    /// Only the keys for this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

#[derive(Debug, Serialize)]
struct RotatedKey {
    tenant: TenantId,
    peer: PartyId,
    paillier_key: String,
    wallets: u32,
}

#[derive(Debug, Serialize)]
struct Rotation {
    party: PartyId,
    rotated: Vec<RotatedKey>,
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rotated.is_empty() {
            return write!(f, "{} initiates with no other party: there is no key to rotate", self.party);
        }
        let keys: Vec<String> = self
            .rotated
            .iter()
            .map(|key| {
                format!(
                    "{} towards {}: key {} for {} wallets",
                    key.tenant, key.peer, key.paillier_key, key.wallets
                )
            })
            .collect();
        f.write_str(&keys.join("\n"))
    }
}

pub(super) async fn rotate(arguments: RotateArguments, output: Output) -> Result<(), CliError> {
    let store = OpenStore::open(&arguments.store).await?;
    let party = Party::open(store.context).await?;
    let role = role_of(party.id())?;
    let bus = broker::connect(&arguments.broker, &arguments.credentials, role, COMMAND_PATIENCE).await?;
    let enroller = Enroller::new(party.context().clone(), bus.clone(), PartySettings::default().modulus);
    let rotated =
        enroller.rotate(party.identity(), arguments.peer.as_ref(), arguments.tenant.as_ref()).await?;
    bus.drain().await;
    output.emit(&Rotation {
        party: party.id().clone(),
        rotated: rotated
            .into_iter()
            .map(|key| RotatedKey {
                tenant: key.tenant,
                peer: key.responder,
                paillier_key: key.paillier_key.to_string(),
                wallets: key.wallets,
            })
            .collect(),
    })
}
