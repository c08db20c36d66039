//! How a browser derives a wallet's key encryption key again: a small document, stored in the clear
//! beside the records. It contains a check that tells a wrong passphrase from a damaged record.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Argon2Cost, KeyEncryptionKey, KeyError, RecordKind, RecordLabel, SealedRecord, key::SALT_SIZE_BYTES,
};

/// The plaintext of the check record.
const CHECK: &[u8] = b"duet/v1/key-check";

/// The largest document in bytes.
pub const MAX_PROTECTION_SIZE_BYTES: usize = 1024;

/// The source of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case")]
enum Source {
    /// argon2id (version 0x13) of a passphrase.
    Passphrase {
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
        cost: Argon2Cost,
    },
    /// HKDF-SHA256 of 32 secret bytes, such as a passkey's PRF output.
    KeyMaterial {
        #[serde(with = "hex::serde")]
        salt: [u8; SALT_SIZE_BYTES],
    },
}

/// The document. It is not secret: an attacker who changes it can lock the owner out, but learns
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    version: u8,
    key: Source,
    /// A constant, sealed under the key.
    #[serde(with = "hex::serde")]
    check: Vec<u8>,
}

const VERSION: u8 = 1;

/// The secret with which the owner unlocks a wallet.
#[derive(Clone)]
pub enum Secret {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// 32 secret bytes, such as a passkey's PRF output.
    KeyMaterial(Zeroizing<[u8; 32]>),
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(..)",
            Self::KeyMaterial(_) => "KeyMaterial(..)",
        })
    }
}

/// Why a wallet does not unlock.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The passphrase or passkey is not the wallet's.
    #[error("this is not the wallet's passphrase or passkey")]
    WrongSecret,
    /// A passphrase was given where the wallet needs a passkey, or the other way round.
    #[error("the wallet is opened with {0}")]
    OtherSource(&'static str),
    /// The document does not parse, or has another version.
    #[error("the description of the wallet's protection does not parse")]
    Document,
    /// The key cannot be derived.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn check_label() -> RecordLabel {
    RecordLabel::of_party(RecordKind::Check, &[])
}

impl Protection {
    /// Derives a new key from `secret` under a fresh salt. Slow for a passphrase, at the given
    /// `cost`.
    ///
    /// # Errors
    /// When the passphrase is empty, the cost is out of bounds, or the system provides no
    /// randomness.
    pub fn create(secret: &Secret, cost: Argon2Cost) -> Result<(Self, KeyEncryptionKey), KeyError> {
        let mut salt = [0; SALT_SIZE_BYTES];
        getrandom::fill(&mut salt).map_err(|_| KeyError::Randomness)?;
        let (source, key) = match secret {
            Secret::Passphrase(passphrase) => (
                Source::Passphrase { salt, cost },
                KeyEncryptionKey::from_passphrase(passphrase, &salt, cost)?,
            ),
            Secret::KeyMaterial(material) => {
                (Source::KeyMaterial { salt }, KeyEncryptionKey::from_key_material(material, &salt)?)
            }
        };
        let check = SealedRecord::seal(&key, &check_label(), CHECK)?.as_bytes().to_vec();
        Ok((Self { version: VERSION, key: source, check }, key))
    }

    /// Derives the key again, and checks that it is the right one. Slow for a passphrase.
    ///
    /// # Errors
    /// See [`UnlockError`].
    pub fn unlock(&self, secret: &Secret) -> Result<KeyEncryptionKey, UnlockError> {
        let key = match (&self.key, secret) {
            (Source::Passphrase { salt, cost }, Secret::Passphrase(passphrase)) => {
                KeyEncryptionKey::from_passphrase(passphrase, salt, *cost)?
            }
            (Source::KeyMaterial { salt }, Secret::KeyMaterial(material)) => {
                KeyEncryptionKey::from_key_material(material, salt)?
            }
            (Source::Passphrase { .. }, _) => return Err(UnlockError::OtherSource("a passphrase")),
            (Source::KeyMaterial { .. }, _) => return Err(UnlockError::OtherSource("a passkey")),
        };
        match SealedRecord::from_bytes(self.check.clone()).open(&key, &check_label()) {
            Ok(content) if content.as_slice() == CHECK => Ok(key),
            _ => Err(UnlockError::WrongSecret),
        }
    }

    /// The document as JSON.
    ///
    /// # Errors
    /// Never for a document that this type made.
    pub fn to_json(&self) -> Result<String, UnlockError> {
        serde_json::to_string(self).map_err(|_| UnlockError::Document)
    }

    /// Parses a document that [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_json(text: &str) -> Result<Self, UnlockError> {
        if text.len() > MAX_PROTECTION_SIZE_BYTES {
            return Err(UnlockError::Document);
        }
        let document: Self = serde_json::from_str(text).map_err(|_| UnlockError::Document)?;
        if document.version == VERSION { Ok(document) } else { Err(UnlockError::Document) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn passphrase(text: &str) -> Secret {
        Secret::Passphrase(Zeroizing::new(text.to_owned()))
    }

    fn material(byte: u8) -> Secret {
        Secret::KeyMaterial(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn the_same_secret_finds_the_same_key_and_another_is_refused() {
        for (right, wrong) in [(passphrase("right"), passphrase("wrong")), (material(1), material(2))] {
            let (made, key) = Protection::create(&right, CHEAP).unwrap();
            let read = Protection::from_json(&made.to_json().unwrap()).unwrap();
            assert_eq!(*read.unlock(&right).unwrap().0, *key.0);
            assert!(matches!(read.unlock(&wrong), Err(UnlockError::WrongSecret)));
            let (_, other) = Protection::create(&right, CHEAP).unwrap();
            assert_ne!(*other.0, *key.0, "every wallet has a salt of its own");
        }
    }

    #[test]
    fn a_passphrase_is_no_passkey() {
        let (made, _) = Protection::create(&material(1), CHEAP).unwrap();
        assert!(matches!(made.unlock(&passphrase("x")), Err(UnlockError::OtherSource("a passkey"))));
        assert!(matches!(Protection::create(&passphrase(""), CHEAP), Err(KeyError::EmptyPassphrase)));
    }

    #[test]
    fn a_changed_document_opens_nothing() {
        let (made, _) = Protection::create(&passphrase("right"), CHEAP).unwrap();
        let json = made.to_json().unwrap();
        for (from, to) in [("\"version\":1", "\"version\":2"), ("\"passes\":1", "\"passes\":2"), ("{", "[")] {
            let opened = Protection::from_json(&json.replacen(from, to, 1))
                .and_then(|document| document.unlock(&passphrase("right")));
            assert!(opened.is_err(), "{from}");
        }
        let greedy = json.replacen("\"memory_kib\":8", "\"memory_kib\":4294967295", 1);
        assert!(matches!(
            Protection::from_json(&greedy).unwrap().unlock(&passphrase("right")),
            Err(UnlockError::Key(KeyError::Cost))
        ));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}{:?}", passphrase("hunter2"), material(171)).contains("hunter2"));
        assert!(!format!("{:?}", material(171)).contains("171"));
    }
}
