//! The accounts of wallets: BIP-32 children, whose addresses the orchestrator derives by itself.
//!
//! A wallet's public key and chain code never change. So what all its holders said once holds for
//! good, and no party is asked for an address.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use duet_protocol::{
    extended_key::ExtendedPublicKey,
    ids::WalletId,
    public_key::{DerivationPath, InvalidPublicKey, MAX_INDEX, PublicKey},
};
use duet_wire::{Refusal, TenantId};

use crate::{
    api::{AddressPage, AddressView},
    directory::Directory,
};

/// How many wallets' keys are kept, some 300 bytes each. Beyond that any of them makes room: its
/// holders are asked again.
const MAX_KEPT_ROOTS: usize = 16_384;

/// The keys that the holders of wallets agree on.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    agreed: Mutex<HashMap<WalletId, (TenantId, ExtendedPublicKey)>>,
}

impl Accounts {
    /// The root key of `tenant`'s `wallet`, as every holder describes it.
    ///
    /// # Errors
    /// When the tenant has no such wallet, when a holder does not answer or has not committed, or
    /// when two holders disagree.
    pub(crate) async fn root(
        &self,
        directory: &Directory,
        tenant: &TenantId,
        wallet: WalletId,
    ) -> Result<ExtendedPublicKey, Refusal> {
        if let Some((owner, root)) = self.kept().get(&wallet)
            && owner == tenant
        {
            return Ok(root.clone());
        }
        let root = match directory.wallet(wallet).await.agreed_root(tenant) {
            Ok(root) => root,
            Err(_) => directory.wallet_anew(wallet).await.agreed_root(tenant)?,
        };
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT_ROOTS
            && let Some(any) = kept.keys().next().copied()
        {
            kept.remove(&any);
        }
        kept.insert(wallet, (tenant.clone(), root.clone()));
        Ok(root)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<WalletId, (TenantId, ExtendedPublicKey)>> {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The child of `root` at `path`.
///
/// # Errors
/// With negligible probability: the path has no key.
pub(crate) fn address(
    root: &ExtendedPublicKey,
    path: DerivationPath,
) -> Result<AddressView, InvalidPublicKey> {
    let key = *root.derive(&path)?.public_key();
    Ok(account(path, &key))
}

fn account(path: DerivationPath, key: &PublicKey) -> AddressView {
    AddressView { path, address: key.address(), public_key: key.to_bytes() }
}

/// Up to `limit` of the accounts `m/0/i` of `root`, in order, from `i = from` on.
///
/// # Errors
/// As [`address`].
pub(crate) fn page(
    wallet: WalletId,
    root: &ExtendedPublicKey,
    from: u32,
    limit: u32,
) -> Result<AddressPage, InvalidPublicKey> {
    let step = |index| DerivationPath::new(vec![index]).map_err(|_| InvalidPublicKey::NoChild);
    let parent = root.derive(&step(0)?)?;
    let next = from.saturating_add(limit);
    let addresses = (from..next.min(MAX_INDEX + 1))
        .map(|index| {
            let path = DerivationPath::new(vec![0, index]).map_err(|_| InvalidPublicKey::NoChild)?;
            Ok(account(path, parent.derive(&step(index)?)?.public_key()))
        })
        .collect::<Result<_, _>>()?;
    Ok(AddressPage { wallet, addresses, next: (next <= MAX_INDEX).then_some(next) })
}

#[cfg(test)]
mod tests {
    use duet_protocol::public_key::ChainCode;

    use super::*;

    #[test]
    fn a_page_is_bounded_by_the_last_index() {
        let key = "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7".parse().unwrap();
        let root = ExtendedPublicKey::root(key, ChainCode([7; 32]));
        let wallet = WalletId([1; 32]);
        let first = page(wallet, &root, 3, 2).unwrap();
        let paths: Vec<String> = first.addresses.iter().map(|one| one.path.to_string()).collect();
        assert_eq!((paths, first.next), (vec!["m/0/3".to_owned(), "m/0/4".to_owned()], Some(5)));
        for one in &first.addresses {
            assert_eq!(address(&root, one.path.clone()).unwrap(), *one);
        }
        let last = page(wallet, &root, MAX_INDEX, 200).unwrap();
        assert_eq!((last.addresses.len(), last.next), (1, None));
        assert_eq!(last.addresses[0].path.to_string(), "m/0/2147483647");
    }
}
