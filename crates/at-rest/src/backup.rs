//! Backup files: one share of one wallet, in the age format, under a passphrase.
//!
//! The plaintext is one codec message (kind 0x82, version 1). It holds the time of the backup, and
//! one of two contents. Either a device's part in a wallet: share 1, its keys and card, the owner's
//! request key. Or share 3 of a wallet without a partner. It never holds a Paillier key: a restored
//! device makes a new one before it initiates.

use core::fmt;
use std::sync::Arc;

use duet_protocol::{
    codec::{self, EncodeError, Message},
    ids::ShareIndex,
    share::{KeyShare, WalletPublic},
};
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use crate::{
    age::{self, DecryptError, EncryptError, WorkFactor},
    device::{DeviceIdentity, IdentityRecord, InvalidRecord},
};

/// The content of a backup file.
#[derive(Clone)]
pub enum Contents {
    /// The device's part.
    Device(DeviceIdentity),
    /// Share 3 of a wallet without a partner.
    Third(Arc<KeyShare>),
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(identity) => write!(f, "Device({})", identity.share().wallet().id()),
            Self::Third(share) => write!(f, "Third({})", share.wallet().id()),
        }
    }
}

/// One share, with the time of its backup.
#[derive(Debug, Clone)]
pub struct Backup {
    contents: Contents,
    made_at_ms: u64,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
enum ContentsRecord {
    Device(IdentityRecord),
    Third(Vec<u8>),
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct BackupRecord {
    made_at_ms: u64,
    contents: ContentsRecord,
}

impl Message for BackupRecord {
    const KIND: u8 = 0x82;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 8192;
}

const _: () = assert!(BackupRecord::MAX_SIZE_BYTES < age::MAX_PLAINTEXT_SIZE_BYTES);

/// Why no backup was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Neither the device's share nor share 3 of a wallet without a partner.
    #[error("share {0} of this wallet is not the owner's to back up")]
    NotTheOwners(ShareIndex),
    /// The contents cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The contents were not encrypted.
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    /// The file was written but does not read back. It must not be relied on.
    #[error("the backup does not read back: {0}")]
    ReadBack(RestoreError),
}

/// Why a backup does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The file does not decrypt.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    /// The plaintext is no backup, or contradicts itself.
    #[error(transparent)]
    Record(#[from] InvalidRecord),
}

impl Backup {
    /// A backup of the device's part, made now.
    #[must_use]
    pub const fn of_device(identity: DeviceIdentity, now_ms: u64) -> Self {
        Self { contents: Contents::Device(identity), made_at_ms: now_ms }
    }

    /// A backup of share 3 of a wallet without a partner, made now.
    ///
    /// # Errors
    /// When it is another share, or when a party holds it.
    pub fn of_third(share: Arc<KeyShare>, now_ms: u64) -> Result<Self, BackupError> {
        let index = share.index();
        if index == ShareIndex::Partner && share.wallet().holder(index).party().is_none() {
            Ok(Self { contents: Contents::Third(share), made_at_ms: now_ms })
        } else {
            Err(BackupError::NotTheOwners(index))
        }
    }

    /// The contents.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The contents, by value.
    #[must_use]
    pub fn into_contents(self) -> Contents {
        self.contents
    }

    /// The time of the backup, in milliseconds since 1970.
    #[must_use]
    pub const fn made_at_ms(&self) -> u64 {
        self.made_at_ms
    }

    /// The wallet's public record.
    #[must_use]
    pub fn wallet(&self) -> &WalletPublic {
        match &self.contents {
            Contents::Device(identity) => identity.share().wallet(),
            Contents::Third(share) => share.wallet(),
        }
    }

    fn to_record(&self) -> Result<BackupRecord, EncodeError> {
        let contents = match &self.contents {
            Contents::Device(identity) => ContentsRecord::Device(identity.to_record()?),
            Contents::Third(share) => ContentsRecord::Third(share.to_secret_bytes()?.to_vec()),
        };
        Ok(BackupRecord { made_at_ms: self.made_at_ms, contents })
    }

    /// Writes the backup as a file, and opens that file again before returning it. No party holds
    /// this share, so reading it back replaces a party's receipt. Slow, because scrypt runs twice.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn to_file(&self, passphrase: &str, work_factor: WorkFactor) -> Result<Vec<u8>, BackupError> {
        let plaintext = codec::encode_secret(&self.to_record()?)?;
        let file = age::encrypt(passphrase, work_factor, &plaintext)?;
        let read = age::decrypt(passphrase, &file)
            .map_err(RestoreError::from)
            .and_then(|bytes| Ok((Self::read(&bytes)?, bytes)));
        match read {
            Ok((_, bytes)) if bytes == plaintext => Ok(file),
            Ok(_) => Err(BackupError::ReadBack(DecryptError::Changed.into())),
            Err(error) => Err(BackupError::ReadBack(error)),
        }
    }

    /// Opens a file. Slow, because of scrypt.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn from_file(passphrase: &str, file: &[u8]) -> Result<Self, RestoreError> {
        Ok(Self::read(&age::decrypt(passphrase, file)?)?)
    }

    fn read(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let record: BackupRecord = codec::decode(bytes)?;
        let made_at_ms = record.made_at_ms;
        match &record.contents {
            ContentsRecord::Device(identity) => {
                Ok(Self::of_device(DeviceIdentity::try_from(identity)?, made_at_ms))
            }
            ContentsRecord::Third(share) => {
                let share = Arc::new(KeyShare::from_secret_bytes(share)?);
                Self::of_third(share, made_at_ms).map_err(|_| InvalidRecord::Contradiction)
            }
        }
    }
}
