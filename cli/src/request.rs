//! Builds signing requests, with the options that `sign` and `job submit` share.

use std::time::Duration;

use alloy_primitives::Address;
use clap::Args;
use duet_orchestrator::api::WalletView;
use duet_protocol::{
    ids::WalletId,
    public_key::{ChainCode, DerivationPath, PublicKey},
};
use duet_wire::{
    Code, IdempotencyKey, Pair, Payload, Problem, SignedRequest, SigningRequest, TenantId,
    request::REQUEST_VERSION, signing::SigningKey,
};

use crate::{api::ApiClient, duration, error::CliError, quantity::parse_address};

/// The members of a request besides its payload.
#[derive(Debug, Clone, Args)]
pub(crate) struct RequestOptions {
    /// Which of the wallet's keys signs: m, or a BIP-32 child such as m/0/5
    #[arg(long, value_name = "PATH", default_value = "m")]
    pub(crate) path: DerivationPath,
    /// Your name for the job; the same key gives the same job [default: a random one]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<IdempotencyKey>,
    /// How long the request is valid from now: up to 24h, or 30d where the owner's device signs or
    /// the policy requires an approval
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    expires_in: Duration,
    /// The end of its validity in unix seconds; with this and --issued-at, repeated commands sign
    /// the same bytes
    #[arg(long, value_name = "SECONDS", conflicts_with = "expires_in")]
    expires_at: Option<u64>,
    /// The time of issue in unix seconds [default: now]
    #[arg(long, value_name = "SECONDS")]
    issued_at: Option<u64>,
    /// How long the command may take in all
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// A request, signed by its requester.
pub(crate) struct Made {
    /// The request.
    pub(crate) request: SigningRequest,
    /// The exact bytes of the request, with their signature.
    pub(crate) signed: SignedRequest,
    /// The digest that a signature will cover.
    pub(crate) digest: [u8; 32],
}

impl RequestOptions {
    /// Writes the request and signs it with the requester's key.
    ///
    /// # Errors
    /// When the system has no randomness for an idempotency key, or when the request is too large.
    pub(crate) fn make(
        &self,
        tenant: &TenantId,
        wallet: WalletId,
        payload: Payload,
        pairs: Vec<Pair>,
        key: &SigningKey,
    ) -> Result<Made, CliError> {
        let idempotency_key = match &self.idempotency_key {
            Some(key) => key.clone(),
            None => random_key()?,
        };
        let now = duration::since_1970();
        let issued_at = self.issued_at.unwrap_or(now.as_secs());
        let expires_at = match self.expires_at {
            Some(seconds) => seconds,
            None => now.saturating_add(self.expires_in).as_secs(),
        };
        let digest = payload.digest().map_err(crate::error::payload_error)?;
        let request = SigningRequest {
            version: REQUEST_VERSION,
            tenant: tenant.clone(),
            wallet,
            path: self.path.clone(),
            payload,
            idempotency_key,
            issued_at: Some(issued_at),
            expires_at,
            pairs,
        };
        let body = request.to_json().map_err(|error| CliError::from(Problem::from(error)))?;
        // Read it here first, as every party will.
        SigningRequest::from_json(&body).map_err(|error| CliError::from(Problem::from(error)))?;
        Ok(Made { signed: SignedRequest::sign(body, key), request, digest })
    }
}

fn random_key() -> Result<IdempotencyKey, CliError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::internal(format!("no randomness from the system: {error}")))?;
    format!("cli-{}", hex::encode(bytes)).parse().map_err(|error| CliError::internal(format!("{error}")))
}

/// The account of the child key at `path` of a wallet's root key.
///
/// # Errors
/// When the key is no curve point, or, with negligible probability, when the path has no child key.
pub(crate) fn account(
    public_key: &[u8; 33],
    chain_code: [u8; 32],
    path: &DerivationPath,
) -> Result<Address, CliError> {
    let wrong = |error: &dyn std::fmt::Display| {
        CliError::new(Code::MalformedMessage, format!("the wallet's public key is not usable: {error}"))
    };
    let root = PublicKey::from_bytes(public_key).map_err(|error| wrong(&error))?;
    let (child, _) = root.child(&ChainCode(chain_code), path).map_err(|error| wrong(&error))?;
    Ok(Address::from(child.address()))
}

/// A wallet's name on the command line: its id, an unambiguous head of the id, or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WalletName {
    /// The first hexadecimal digits of the id, or all of them.
    Id(String),
    /// Its address.
    Address(Address),
}

impl std::str::FromStr for WalletName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("0x") {
            return parse_address(text).map(Self::Address);
        }
        let digits = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if digits {
            Ok(Self::Id(text.to_lowercase()))
        } else {
            Err("a wallet is named by 4 to 64 hexadecimal digits of its id, or by its address".to_owned())
        }
    }
}

impl WalletName {
    /// Whether this name fits the wallet with this id and root address.
    pub(crate) fn names(&self, id: WalletId, address: [u8; 20]) -> bool {
        match self {
            Self::Id(digits) => id.to_string().starts_with(digits),
            Self::Address(named) => *named == Address::from(address),
        }
    }

    /// Picks the only wallet that `name` fits. Without a name, picks the only wallet.
    ///
    /// # Errors
    /// When no wallet fits, or several do.
    pub(crate) fn pick<W>(
        name: Option<&Self>,
        wallets: impl IntoIterator<Item = W>,
        identity: impl Fn(&W) -> (WalletId, [u8; 20]),
    ) -> Result<W, CliError> {
        let mut fitting = wallets.into_iter().filter(|wallet| {
            let (id, address) = identity(wallet);
            name.is_none_or(|name| name.names(id, address))
        });
        match (fitting.next(), fitting.next()) {
            (Some(wallet), None) => Ok(wallet),
            (None, _) => Err(CliError::new(
                Code::UnknownWallet,
                if name.is_some() { "no wallet has this name" } else { "there is no wallet yet" },
            )),
            (Some(_), Some(_)) => Err(CliError::usage(if name.is_some() {
                "several wallets fit this name"
            } else {
                "there are several wallets"
            })
            .remedy("Name one with --wallet: its id or its address.")),
        }
    }
}

/// Asks the orchestrator for the wallet that `name` fits.
///
/// # Errors
/// When no wallet fits, or several do.
pub(crate) async fn find_wallet(api: &ApiClient, name: Option<&WalletName>) -> Result<WalletView, CliError> {
    if let Some(WalletName::Id(digits)) = name
        && let Ok(id) = digits.parse::<WalletId>()
    {
        return api.wallet(id).await;
    }
    WalletName::pick(name, api.wallets().await?, |wallet| (wallet.id, wallet.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(name: Option<&str>, wallets: &[[u8; 32]]) -> Result<WalletId, String> {
        let name = name.map(|name| name.parse::<WalletName>().unwrap());
        let wallets = wallets.iter().map(|bytes| WalletId(*bytes));
        WalletName::pick(name.as_ref(), wallets, |id| (*id, [id.0[0]; 20])).map_err(|error| error.to_string())
    }

    #[test]
    fn a_wallet_is_picked_by_id_head_or_address_or_because_it_is_alone() {
        let (one, two) = ([1; 32], [2; 32]);
        assert_eq!(pick(None, &[one]), Ok(WalletId(one)));
        assert_eq!(pick(Some("0202"), &[one, two]), Ok(WalletId(two)));
        assert_eq!(pick(Some(&format!("0x{}", "01".repeat(20))), &[one, two]), Ok(WalletId(one)));
        assert!(pick(None, &[one, two]).unwrap_err().contains("several"));
        assert!(pick(None, &[]).unwrap_err().contains("no wallet"));
        assert!(pick(Some("0303"), &[one, two]).unwrap_err().contains("no wallet"));
        assert!("xyz1".parse::<WalletName>().is_err() && "012".parse::<WalletName>().is_err());
    }
}
