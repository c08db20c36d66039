//! The nkey seed with which a role proves to the broker who it is.

use core::{fmt, str::FromStr};

use zeroize::Zeroizing;

/// An nkey seed of a user. Wiped on drop and never printed.
///
/// The NATS client keeps a copy of its own while it is connected, which is not wiped.
#[derive(Clone)]
pub struct NkeySeed(Zeroizing<String>);

/// The text is no nkey seed of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an nkey seed of a user (58 characters that begin with SU)")]
pub struct InvalidSeed;

/// The operating system gives no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoEntropy;

impl NkeySeed {
    /// Draws a new one.
    ///
    /// # Errors
    /// When the operating system has no entropy.
    pub fn generate() -> Result<Self, NoEntropy> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut()).map_err(|_| NoEntropy)?;
        nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, *entropy)
            .and_then(|pair| pair.seed())
            .map(|seed| Self(seed.into()))
            .map_err(|_| NoEntropy)
    }

    /// The public nkey, as `nats.conf` wants it.
    ///
    /// # Errors
    /// Never for a parsed seed; the library's signature allows for it.
    pub fn public_key(&self) -> Result<String, InvalidSeed> {
        nkeys::KeyPair::from_seed(&self.0).map(|pair| pair.public_key()).map_err(|_| InvalidSeed)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The seed as its file holds it.
    #[must_use]
    pub fn into_text(self) -> Zeroizing<String> {
        self.0
    }
}

impl FromStr for NkeySeed {
    type Err = InvalidSeed;
    fn from_str(text: &str) -> Result<Self, InvalidSeed> {
        match nkeys::KeyPair::from_seed(text) {
            Ok(pair) if text.starts_with("SU") && pair.seed().is_ok() => Ok(Self(text.to_owned().into())),
            _ => Err(InvalidSeed),
        }
    }
}

impl fmt::Debug for NkeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NkeySeed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let seed = NkeySeed::generate().unwrap();
        assert!(!format!("{seed:?}").contains(seed.expose()));
    }

    #[test]
    fn seeds_of_other_kinds_are_refused() {
        let account = nkeys::KeyPair::new_account().seed().unwrap();
        assert!(account.parse::<NkeySeed>().is_err());
        assert!("SUAA".parse::<NkeySeed>().is_err());
        let user = nkeys::KeyPair::new_user();
        assert!(user.seed().unwrap().parse::<NkeySeed>().is_ok());
        assert!(user.public_key().parse::<NkeySeed>().is_err());
    }
}
