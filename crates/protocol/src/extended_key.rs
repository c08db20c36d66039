//! Extended public keys (BIP-32): a public key with its chain code, from which anyone derives all
//! non-hardened children.

use core::fmt;

use bip32::{ChildNumber, ExtendedKeyAttrs, Prefix};

use crate::public_key::{ChainCode, DerivationPath, InvalidPublicKey, PublicKey};

/// A public key with its chain code, and where it stands below the wallet's root. It displays as
/// BIP-32's `xpub…`.
///
/// # Security
/// Not secret, but it links all children of the key. With the private key of one child, it gives
/// the private key of the whole wallet: a child's private key is the parent's plus a number that
/// anyone with the extended public key computes.
#[derive(Clone, PartialEq, Eq)]
pub struct ExtendedPublicKey(bip32::ExtendedPublicKey<PublicKey>);

impl ExtendedPublicKey {
    /// The key of the path `m`.
    #[must_use]
    pub fn root(key: PublicKey, chain_code: ChainCode) -> Self {
        let attrs = ExtendedKeyAttrs {
            depth: 0,
            parent_fingerprint: [0; 4],
            child_number: ChildNumber::default(),
            chain_code: chain_code.0,
        };
        Self(bip32::ExtendedPublicKey::new(key, attrs))
    }

    /// The key at `path` below this one.
    ///
    /// # Errors
    /// [`InvalidPublicKey::NoChild`] with negligible probability.
    pub fn derive(&self, path: &DerivationPath) -> Result<Self, InvalidPublicKey> {
        path.indices().iter().try_fold(self.clone(), |key, index| {
            let index = ChildNumber::new(*index, false).map_err(|_| InvalidPublicKey::NoChild)?;
            key.0.derive_child(index).map(Self).map_err(|_| InvalidPublicKey::NoChild)
        })
    }

    /// The key without its chain code.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }
}

impl fmt::Display for ExtendedPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string(Prefix::XPUB))
    }
}

impl fmt::Debug for ExtendedPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtendedPublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BIP-32, test vector 2: the root, and its non-hardened child 0.
    const ROOT: &str = "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB";
    const CHILD: &str = "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH";

    fn root() -> ExtendedPublicKey {
        let key = "03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7".parse().unwrap();
        let mut code = [0; 32];
        hex::decode_to_slice("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689", &mut code)
            .unwrap();
        ExtendedPublicKey::root(key, ChainCode(code))
    }

    #[test]
    fn bip32_test_vector_2() {
        assert_eq!(root().to_string(), ROOT);
        assert_eq!(root().derive(&"m/0".parse().unwrap()).unwrap().to_string(), CHILD);
        assert_eq!(root().derive(&DerivationPath::root()).unwrap(), root());
    }

    #[test]
    fn a_session_signs_for_the_same_child() {
        let path = "m/7/0/2147483647".parse().unwrap();
        let attrs = root().0.attrs().chain_code;
        let (child, _) = root().public_key().child(&ChainCode(attrs), &path).unwrap();
        assert_eq!(*root().derive(&path).unwrap().public_key(), child);
    }
}
