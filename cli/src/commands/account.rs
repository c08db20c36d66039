//! `duet wallet address` and `duet wallet xpub`: the accounts of a wallet, from what this machine
//! knows of it. Nothing is sent.

use std::fmt;

use alloy_primitives::Address;
use clap::Args;
use duet_protocol::{
    extended_key::ExtendedPublicKey,
    public_key::{ChainCode, DerivationPath, MAX_INDEX, PublicKey},
};
use duet_wire::WalletInfo;
use serde::Serialize;

use crate::{device::DeviceOptions, error::CliError, output::Output, request::WalletName};

/// The most accounts that one command prints.
const MAX_COUNT: u32 = 10_000;

/// Which accounts to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct AddressArguments {
    /// The wallet [default: the only one]
    #[arg(long, value_name = "WALLET")]
    pub(crate) wallet: Option<WalletName>,
    /// The account's path, as `duet sign` and `duet job submit` take it
    #[arg(long, value_name = "m/…", default_value = "m/0/0")]
    path: DerivationPath,
    /// Also print the accounts that follow, by the last step of the path: this many in all
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_COUNT))
    )]
    count: u32,
    #[command(flatten)]
    pub(crate) device: DeviceOptions,
}

/// Which extended public key to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct XpubArguments {
    /// The wallet [default: the only one]
    #[arg(long, value_name = "WALLET")]
    pub(crate) wallet: Option<WalletName>,
    /// The key's path; accounts below it can be watched
    #[arg(long, value_name = "m/…", default_value = "m")]
    pub(crate) path: DerivationPath,
    #[command(flatten)]
    pub(crate) device: DeviceOptions,
}

#[derive(Debug, Serialize)]
struct Account {
    path: DerivationPath,
    address: String,
    public_key: String,
}

#[derive(Debug, Serialize)]
struct Accounts {
    wallet: String,
    addresses: Vec<Account>,
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> =
            self.addresses.iter().map(|account| format!("{}  {}", account.address, account.path)).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[derive(Debug, Serialize)]
struct Xpub {
    wallet: String,
    path: DerivationPath,
    xpub: String,
}

impl fmt::Display for Xpub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.xpub)
    }
}

fn root(wallet: &WalletInfo) -> Result<ExtendedPublicKey, CliError> {
    let key = PublicKey::from_bytes(&wallet.public_key).map_err(no_child)?;
    Ok(ExtendedPublicKey::root(key, ChainCode(wallet.chain_code)))
}

fn no_child(error: impl fmt::Display) -> CliError {
    CliError::input(error.to_string())
}

/// The paths of `count` accounts from `first` on.
fn paths(first: &DerivationPath, count: u32) -> Result<Vec<DerivationPath>, CliError> {
    let Some((last, parent)) = first.indices().split_last() else {
        return if count == 1 {
            Ok(vec![first.clone()])
        } else {
            Err(CliError::usage("m has no accounts that follow it").remedy("Give a path such as m/0/0."))
        };
    };
    let end = last.checked_add(count - 1).filter(|end| *end <= MAX_INDEX).ok_or_else(|| {
        CliError::usage(format!(
            "the last of {count} accounts from {first} on has an index above {MAX_INDEX}"
        ))
        .remedy("Give a smaller --count.")
    })?;
    (*last..=end).map(|index| DerivationPath::new([parent, &[index]].concat()).map_err(no_child)).collect()
}

/// Prints addresses of `wallet`.
///
/// # Errors
/// When a path has no key, or when fewer accounts than asked for follow it.
pub(crate) fn address(
    wallet: &WalletInfo,
    arguments: &AddressArguments,
    output: Output,
) -> Result<(), CliError> {
    let paths = paths(&arguments.path, arguments.count)?;
    let root = root(wallet)?;
    let mut addresses = Vec::with_capacity(paths.len());
    for path in paths {
        let key = *root.derive(&path).map_err(no_child)?.public_key();
        addresses.push(Account {
            path,
            address: Address::from(key.address()).to_checksum(None),
            public_key: format!("0x{}", hex::encode(key.to_bytes())),
        });
    }
    output.emit(&Accounts { wallet: wallet.id.to_string(), addresses })
}

/// Prints an extended public key of `wallet`.
///
/// # Errors
/// With negligible probability: the path has no key.
pub(crate) fn xpub(wallet: &WalletInfo, path: DerivationPath, output: Output) -> Result<(), CliError> {
    let xpub = root(wallet)?.derive(&path).map_err(no_child)?.to_string();
    output.emit(&Xpub { wallet: wallet.id.to_string(), path, xpub })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_follow_by_their_last_step() {
        let path = |text: &str| text.parse::<DerivationPath>().unwrap();
        let named = |first: &str, count| {
            paths(&path(first), count).map(|paths| paths.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(named("m/0/9", 3).unwrap(), ["m/0/9", "m/0/10", "m/0/11"]);
        assert_eq!(named("m", 1).unwrap(), ["m"]);
        assert_eq!(named("m/0/2147483647", 1).unwrap(), ["m/0/2147483647"]);
        assert!(named("m/0/2147483647", 2).is_err());
        assert!(named("m", 2).is_err());
    }
}
