//! Sealed records, and the labels that they are bound to.

use std::fmt;

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use duet_protocol::ids::{Epoch, ShareIndex, WalletId};
use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::{KeyEncryptionKey, KeyError, KeyId};

const FORMAT_VERSION: u8 = 1;
const DATA_KEY_SIZE_BYTES: usize = 32;
const NONCE_SIZE_BYTES: usize = 24;
const TAG_SIZE_BYTES: usize = 16;
const WRAPPED_SIZE_BYTES: usize = NONCE_SIZE_BYTES + DATA_KEY_SIZE_BYTES + TAG_SIZE_BYTES;
const LABEL_TAG: &[u8; 16] = b"duet/at-rest/v1\n";

/// The content of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A constant. It shows whether a key encryption key is the store's.
    Check = 1,
    /// A party's own secret keys.
    PartyKeys = 2,
    /// A wallet's public facts, and this party's share of it.
    Share = 3,
    /// A Paillier decryption key.
    PaillierKey = 4,
    /// What a responder verified about an initiator's Paillier key and ciphertext. It is not
    /// secret. But an attacker who could replace it could choose the modulus that this party
    /// encrypts under.
    Enrolment = 5,
    /// A dealer's unfinished key generation.
    Deal = 6,
    /// A card that a wallet or a pin relies on.
    Card = 7,
    /// The check of a card's ring-Pedersen parameters.
    ParametersCheck = 8,
    /// The check of an initiator's Paillier modulus.
    ModulusCheck = 9,
    /// The key with which a wallet's owner signs requests.
    OwnerKey = 10,
    /// What a holder compares with the commit, until it commits.
    Prepared = 11,
    /// Everything that an owner's device stores of a wallet, in the form for a browser.
    Device = 12,
    /// A browser's unfinished key generation.
    PendingDevice = 13,
    /// Data of a browser application, stored beside a wallet.
    Application = 14,
    /// Another key encryption key.
    Key = 15,
    /// An answer that the initiator is about to decrypt, with all that its verdict depends on.
    PendingVerdict = 16,
}

impl RecordKind {
    const ALL: [Self; 16] = [
        Self::Check,
        Self::PartyKeys,
        Self::Share,
        Self::PaillierKey,
        Self::Enrolment,
        Self::Deal,
        Self::Card,
        Self::ParametersCheck,
        Self::ModulusCheck,
        Self::OwnerKey,
        Self::Prepared,
        Self::Device,
        Self::PendingDevice,
        Self::Application,
        Self::Key,
        Self::PendingVerdict,
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a record is bound to. No two records of one store share a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordLabel {
    /// The kind of the record.
    pub kind: RecordKind,
    /// The wallet it belongs to; `None` for records of the party as a whole.
    pub wallet: Option<WalletId>,
    /// The share's index; for an enrolment, the initiator's.
    pub index: Option<ShareIndex>,
    /// The share's epoch.
    pub epoch: Epoch,
    /// Distinguishes records of the same kind, wallet, index and epoch: a Paillier key's id, or a
    /// card's fingerprint.
    pub item: Vec<u8>,
}

impl RecordLabel {
    /// The label of a record of the whole party.
    #[must_use]
    pub fn of_party(kind: RecordKind, item: &[u8]) -> Self {
        Self { kind, wallet: None, index: None, epoch: Epoch(0), item: item.to_vec() }
    }

    /// The label of a record of one wallet.
    #[must_use]
    pub fn of_wallet(
        kind: RecordKind,
        wallet: WalletId,
        index: ShareIndex,
        epoch: Epoch,
        item: &[u8],
    ) -> Self {
        Self { kind, wallet: Some(wallet), index: Some(index), epoch, item: item.to_vec() }
    }

    /// Encodes fields of fixed width first and the one of variable width last, so that no two
    /// labels share an encoding.
    fn associated_data(&self, purpose: Purpose) -> Vec<u8> {
        let mut data = Vec::with_capacity(LABEL_TAG.len() + 41 + self.item.len());
        data.extend_from_slice(LABEL_TAG);
        data.push(purpose as u8);
        data.push(self.kind as u8);
        data.push(u8::from(self.wallet.is_some()));
        data.extend_from_slice(&self.wallet.map_or([0; 32], |wallet| *wallet.as_bytes()));
        data.push(self.index.map_or(0, u8::from));
        data.extend_from_slice(&self.epoch.0.to_be_bytes());
        data.extend_from_slice(&self.item);
        data
    }
}

/// Prevents a wrapped data key from passing as a record, and the reverse.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Purpose {
    Wrap = 1,
    Content = 2,
}

/// Why a sealed record does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key or the label is another one, or the bytes were changed. The three cannot be told
    /// apart.
    #[error("the record does not open: wrong key, or the record was changed or moved")]
    Refused,
    /// The bytes are no sealed record of a version that this build knows.
    #[error("not a sealed record of this version")]
    Format,
}

/// A sealed record: version (1 byte), wrapped data key (24 + 32 + 16 bytes), nonce (24 bytes),
/// ciphertext and tag.
///
/// Two records are equal when their bytes are.
#[derive(Clone)]
pub struct SealedRecord {
    bytes: Vec<u8>,
    sealed_with: Option<KeyId>,
}

impl fmt::Debug for SealedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedRecord({} bytes)", self.bytes.len())
    }
}

impl PartialEq for SealedRecord {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SealedRecord {}

impl SealedRecord {
    /// Seals `plaintext` for `label` under a fresh data key.
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn seal(key: &KeyEncryptionKey, label: &RecordLabel, plaintext: &[u8]) -> Result<Self, KeyError> {
        let data_key: Zeroizing<[u8; DATA_KEY_SIZE_BYTES]> =
            hedged(&key.0, &label.associated_data(Purpose::Content), plaintext)?;
        let wrapped = encrypt(&key.0, &label.associated_data(Purpose::Wrap), data_key.as_ref())?;
        let content = encrypt(&data_key, &label.associated_data(Purpose::Content), plaintext)?;
        let bytes = [&[FORMAT_VERSION], wrapped.as_slice(), content.as_slice()].concat();
        Ok(Self { bytes, sealed_with: Some(key.id()) })
    }

    /// Opens the record if it was sealed for `label` under `key`.
    ///
    /// # Errors
    /// When the key or label is another one, or when a byte was changed.
    pub fn open(&self, key: &KeyEncryptionKey, label: &RecordLabel) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (data_key, content) = self.unwrap_data_key(key, label)?;
        decrypt(&data_key, &label.associated_data(Purpose::Content), content)
    }

    /// This record with its data key wrapped under `new` instead of `old`.
    ///
    /// # Errors
    /// When the record was not sealed for `label` under `old`.
    pub fn rewrap(
        &self,
        old: &KeyEncryptionKey,
        new: &KeyEncryptionKey,
        label: &RecordLabel,
    ) -> Result<Self, OpenError> {
        let (data_key, content) = self.unwrap_data_key(old, label)?;
        let wrapped = encrypt(&new.0, &label.associated_data(Purpose::Wrap), data_key.as_ref())
            .map_err(|_| OpenError::Refused)?;
        let bytes = [&[FORMAT_VERSION], wrapped.as_slice(), content].concat();
        Ok(Self { bytes, sealed_with: Some(new.id()) })
    }

    /// The bytes of the record, as the store keeps them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key under which this process sealed the record. `None` for a record from stored bytes,
    /// which do not tell. A store uses it to refuse records under a key that it no longer has.
    #[must_use]
    pub fn sealed_with(&self) -> Option<KeyId> {
        self.sealed_with
    }

    /// A record from stored bytes. They are checked when the record is opened.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, sealed_with: None }
    }

    fn unwrap_data_key(
        &self,
        key: &KeyEncryptionKey,
        label: &RecordLabel,
    ) -> Result<(Zeroizing<[u8; DATA_KEY_SIZE_BYTES]>, &[u8]), OpenError> {
        let Some((&FORMAT_VERSION, rest)) = self.bytes.split_first() else {
            return Err(OpenError::Format);
        };
        let (wrapped, content) = rest.split_at_checked(WRAPPED_SIZE_BYTES).ok_or(OpenError::Format)?;
        let data_key = decrypt(&key.0, &label.associated_data(Purpose::Wrap), wrapped)?;
        let mut array = Zeroizing::new([0; DATA_KEY_SIZE_BYTES]);
        if data_key.len() != DATA_KEY_SIZE_BYTES {
            return Err(OpenError::Format);
        }
        array.copy_from_slice(&data_key);
        Ok((array, content))
    }
}

/// Random bytes for a key or a nonce, hedged with the content. If a copied machine repeats its
/// random numbers, these bytes repeat only for the same content in the same place.
fn hedged<const SIZE: usize>(
    key: &[u8; 32],
    associated: &[u8],
    plaintext: &[u8],
) -> Result<Zeroizing<[u8; SIZE]>, KeyError> {
    let mut salt = Zeroizing::new([0; 64]);
    getrandom::fill(salt.as_mut()).map_err(|_| KeyError::Randomness)?;
    derived(&salt, key, associated, plaintext)
}

fn derived<const SIZE: usize>(
    salt: &[u8; 64],
    key: &[u8; 32],
    associated: &[u8],
    plaintext: &[u8],
) -> Result<Zeroizing<[u8; SIZE]>, KeyError> {
    let secret = Zeroizing::new([key.as_slice(), plaintext].concat());
    let mut bytes = Zeroizing::new([0; SIZE]);
    Hkdf::<Sha512>::new(Some(salt), &secret)
        .expand_multi_info(&[b"duet/at-rest/v1/hedge", associated], bytes.as_mut())
        .map_err(|_| KeyError::Randomness)?;
    Ok(bytes)
}

fn encrypt(key: &[u8; 32], associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, KeyError> {
    let nonce: Zeroizing<[u8; NONCE_SIZE_BYTES]> = hedged(key, associated, plaintext)?;
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg: plaintext, aad: associated })
        .map_err(|_| KeyError::Randomness)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn decrypt(key: &[u8; 32], associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_SIZE_BYTES>().ok_or(OpenError::Format)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: associated })
        .map(Zeroizing::new)
        .map_err(|_| OpenError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeating_generator_repeats_no_nonce_for_another_content() {
        let nonce = |key: u8, associated: &[u8], plaintext: &[u8]| -> [u8; NONCE_SIZE_BYTES] {
            *derived(&[1; 64], &[key; 32], associated, plaintext).unwrap()
        };
        let base = nonce(1, b"a", b"one");
        assert_eq!(base, nonce(1, b"a", b"one"), "the rest is deterministic");
        for other in [nonce(2, b"a", b"one"), nonce(1, b"b", b"one"), nonce(1, b"a", b"two")] {
            assert_ne!(base, other);
        }
    }

    fn key(byte: u8) -> KeyEncryptionKey {
        KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
    }

    fn label() -> RecordLabel {
        RecordLabel::of_wallet(RecordKind::Share, WalletId([1; 32]), ShareIndex::Service, Epoch(3), b"item")
    }

    #[test]
    fn a_record_opens_under_its_key_and_label_only() {
        let sealed = SealedRecord::seal(&key(1), &label(), b"the share").unwrap();
        assert_eq!(sealed.open(&key(1), &label()).unwrap().as_slice(), b"the share");
        assert_eq!(sealed.open(&key(2), &label()), Err(OpenError::Refused));
        let moved = [
            RecordLabel { kind: RecordKind::Enrolment, ..label() },
            RecordLabel { wallet: Some(WalletId([2; 32])), ..label() },
            RecordLabel { wallet: None, ..label() },
            RecordLabel { index: Some(ShareIndex::Partner), ..label() },
            RecordLabel { index: None, ..label() },
            RecordLabel { epoch: Epoch(4), ..label() },
            RecordLabel { item: b"iten".to_vec(), ..label() },
            RecordLabel { item: vec![], ..label() },
        ];
        for other in moved {
            assert_eq!(sealed.open(&key(1), &other), Err(OpenError::Refused), "{other:?}");
        }
    }

    #[test]
    fn every_changed_byte_and_every_prefix_is_refused() {
        let sealed = SealedRecord::seal(&key(1), &label(), b"the share").unwrap();
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(changed.open(&key(1), &label()).is_err(), "byte {at}");
            let prefix = SealedRecord::from_bytes(sealed.bytes[..at].to_vec());
            assert!(prefix.open(&key(1), &label()).is_err(), "prefix {at}");
        }
    }

    #[test]
    fn two_seals_of_one_plaintext_share_nothing() {
        let first = SealedRecord::seal(&key(1), &label(), &[0; 64]).unwrap();
        let second = SealedRecord::seal(&key(1), &label(), &[0; 64]).unwrap();
        assert_ne!(first.bytes[1..25], second.bytes[1..25]);
        assert_ne!(first.bytes[73..], second.bytes[73..]);
    }

    #[test]
    fn content_of_one_record_does_not_pass_under_the_data_key_of_another() {
        let first = SealedRecord::seal(&key(1), &label(), b"first").unwrap();
        let second = SealedRecord::seal(&key(1), &label(), b"second").unwrap();
        let spliced = SealedRecord::from_bytes([&first.bytes[..73], &second.bytes[73..]].concat());
        assert_eq!(spliced.open(&key(1), &label()), Err(OpenError::Refused));
    }

    #[test]
    fn a_rewrapped_record_opens_under_the_new_key_only() {
        let sealed = SealedRecord::seal(&key(1), &label(), b"the share").unwrap();
        let rewrapped = sealed.rewrap(&key(1), &key(2), &label()).unwrap();
        assert_eq!(rewrapped.open(&key(2), &label()).unwrap().as_slice(), b"the share");
        assert_eq!(rewrapped.open(&key(1), &label()), Err(OpenError::Refused));
        assert!(sealed.rewrap(&key(3), &key(2), &label()).is_err());
    }

    #[test]
    fn the_plaintext_is_not_in_the_sealed_bytes() {
        let sealed = SealedRecord::seal(&key(1), &label(), b"needle-in-a-haystack").unwrap();
        assert!(!sealed.bytes.windows(6).any(|window| window == b"needle"));
    }
}
