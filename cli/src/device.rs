//! The owner's device on this machine: its store below `--home`, and the printed form of its
//! wallets.

use std::{fmt, path::PathBuf};

use alloy_primitives::Address;
use clap::Args;
use duet_party::{Context, culprits, device::Device};
use duet_wire::{
    Code, PayloadKindTag, WalletInfo,
    wallet::{InitiatorState, WalletParty, WalletStatus},
};
use serde::Serialize;

use crate::{
    config::{HomeOptions, SealOptions},
    duration,
    error::CliError,
    request::WalletName,
    secrets::PassphraseUse,
    share_store::OpenStore,
};

/// The device's store below its home.
const STORE_FILE: &str = "device.db";
/// The name under which a device speaks on the broker.
pub(crate) const DEVICE: &str = "device";

/// Where the device's store is, and what opens it.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceOptions {
    #[command(flatten)]
    home: HomeOptions,
    #[command(flatten)]
    seal: SealOptions,
}

impl DeviceOptions {
    fn store_file(&self) -> Result<PathBuf, CliError> {
        let home = match &self.home.home {
            Some(home) => home.clone(),
            None => std::env::home_dir()
                .ok_or_else(|| CliError::usage("there is no home directory").remedy("Give --home DIR."))?
                .join(".duet"),
        };
        Ok(home.join(STORE_FILE))
    }

    /// Opens the device.
    ///
    /// # Errors
    /// When there is no device, or when the key does not open it.
    pub(crate) async fn open(&self) -> Result<Device, CliError> {
        let store = self.store_file()?;
        if !store.exists() {
            return Err(CliError::new(
                Code::UnknownWallet,
                format!("there is no device in {}", store.display()),
            )
            .remedy("`duet wallet create` makes one with its first wallet; --home names another place."));
        }
        Ok(Device::open(OpenStore::open_file(store, &self.seal).await?.context).await?)
    }

    /// Opens the device's store, or creates one that is no device yet.
    ///
    /// # Errors
    /// When it cannot be written, or when the key does not open it.
    pub(crate) async fn store_or_make(&self) -> Result<Context, CliError> {
        let file = self.store_file()?;
        let usage = if file.exists() { PassphraseUse::Enter } else { PassphraseUse::Choose };
        let source = self.seal.source(usage)?;
        Ok(OpenStore::create_file(&file, source.as_ref()).await?.context)
    }

    /// Opens the device, or creates it.
    ///
    /// # Errors
    /// When it cannot be written, or when the key does not open it.
    pub(crate) async fn open_or_make(&self) -> Result<Device, CliError> {
        let context = self.store_or_make().await?;
        let party = DEVICE.parse().map_err(|error| CliError::internal(format!("{error}")))?;
        match Device::set_up(context.clone(), party).await {
            Err(error) if error.code() == Code::Conflict => Ok(Device::open(context).await?),
            made => Ok(made?),
        }
    }
}

/// A requester as the command prints it.
#[derive(Debug, Serialize)]
struct RequesterReport {
    key: String,
    kinds: Vec<PayloadKindTag>,
}

/// A responder of this machine.
#[derive(Debug, Serialize)]
struct SignsWith {
    party: String,
    /// `ready`, or why the pair signs nothing: `locked`, `needs_rotation` or `not_enrolled`.
    state: &'static str,
}

impl SignsWith {
    fn all(wallet: &WalletInfo) -> Vec<Self> {
        let responders = wallet.parties.iter().skip(usize::from(u8::from(wallet.index))).flatten();
        let of = |holder: &WalletParty| {
            let key = wallet.initiates.iter().find(|key| key.responders.contains(&holder.party));
            let state = match key.map(|key| key.state) {
                Some(InitiatorState::Ready) => "ready",
                Some(InitiatorState::Locked) => "locked",
                Some(InitiatorState::NeedsRotation) => "needs_rotation",
                None => "not_enrolled",
            };
            Self { party: holder.party.to_string(), state }
        };
        responders.map(of).collect()
    }
}

/// A wallet as the command prints it.
#[derive(Debug, Serialize)]
pub(crate) struct WalletReport {
    id: String,
    address: String,
    public_key: String,
    epoch: u32,
    tenant: String,
    status: &'static str,
    parties: Vec<String>,
    /// The parties that sign together with this machine, as far as this machine knows.
    signs_with: Vec<SignsWith>,
    requesters: Vec<RequesterReport>,
    /// The number of locked keys, among all keys under which this machine ever enrolled the wallet.
    failures: u32,
    /// Whether the owner should move its funds to a new wallet.
    move_funds: bool,
    /// When a backup file of it was last opened on this machine, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_opened_at_ms: Option<u64>,
}

impl WalletReport {
    /// A wallet, with what locked keys may have cost it and when its backup was last opened.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn in_full(device: &Device, wallet: &WalletInfo) -> Result<Self, CliError> {
        let loss = culprits::loss(device.context(), wallet.id).await?;
        let backup_opened_at_ms = device.backup_opened_at_ms(wallet.id).await?;
        let report = Self::from(wallet);
        Ok(Self {
            failures: loss.failures,
            move_funds: loss.should_move_funds(),
            backup_opened_at_ms,
            ..report
        })
    }
}

impl From<&WalletInfo> for WalletReport {
    fn from(wallet: &WalletInfo) -> Self {
        let states = || wallet.initiates.iter().map(|key| key.state);
        let status = if wallet.status == WalletStatus::Prepared {
            "pending"
        } else if states().any(|state| state == InitiatorState::Locked) {
            "locked"
        } else if wallet.initiates.is_empty() || states().any(|state| state == InitiatorState::NeedsRotation)
        {
            // A wallet from a backup file has no Paillier key at all.
            "needs_rotation"
        } else {
            "ready"
        };
        Self {
            id: wallet.id.to_string(),
            address: Address::from(wallet.address).to_checksum(None),
            public_key: format!("0x{}", hex::encode(wallet.public_key)),
            epoch: wallet.epoch.0,
            tenant: wallet.tenant.to_string(),
            status,
            parties: wallet.parties.iter().flatten().map(|holder| holder.party.to_string()).collect(),
            signs_with: SignsWith::all(wallet),
            requesters: wallet
                .requesters
                .iter()
                .map(|requester| RequesterReport {
                    key: hex::encode(requester.key),
                    kinds: requester.kinds.clone(),
                })
                .collect(),
            failures: 0,
            move_funds: false,
            backup_opened_at_ms: None,
        }
    }
}

/// Refuses to sign with a wallet that has no Paillier key: it came out of a backup file.
///
/// # Errors
/// `needs-rotation`.
pub(crate) fn require_enrolled(wallet: &WalletInfo) -> Result<(), CliError> {
    if wallet.initiates.is_empty() {
        return Err(CliError::new(
            Code::NeedsRotation,
            "the wallet was put back from a backup file; rotate its Paillier key before it signs here",
        ));
    }
    Ok(())
}

/// The wallet on this device that `name` identifies.
///
/// # Errors
/// When no wallet matches, or several do.
pub(crate) async fn pick(device: &Device, name: Option<&WalletName>) -> Result<WalletInfo, CliError> {
    WalletName::pick(name, device.wallets().await?, |wallet| (wallet.id, wallet.address))
}

impl fmt::Display for WalletReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  wallet {}\n  {} of {}, shares with {}",
            self.address,
            self.id,
            self.status,
            self.tenant,
            self.parties.join(", ")
        )?;
        for SignsWith { party, state } in &self.signs_with {
            write!(f, "\n  with {party}: {state}")?;
        }
        for requester in &self.requesters {
            write!(f, "\n  request key {}", requester.key)?;
        }
        match self.backup_opened_at_ms {
            Some(at) => write!(f, "\n  a backup file of it was last opened here at {}", duration::moment(at))?,
            None => f.write_str(
                "\n  no backup file of it was opened here yet (`duet wallet backup`): without one, this machine's share is lost \
                 with this machine",
            )?,
        }
        if self.failures > 0 {
            write!(f, "\n  {} of its Paillier keys were locked after bad signatures", self.failures)?;
        }
        if self.move_funds {
            write!(
                f,
                "\n  move-funds: bits of its shares are lost; make a new wallet and send everything there"
            )?;
        }
        Ok(())
    }
}
