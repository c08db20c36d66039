//! Backup files.

use std::sync::Arc;

use duet_at_rest::{
    age::{DecryptError, WorkFactor},
    backup::{Backup, BackupError, Contents, RestoreError},
    device::{DeviceIdentity, StoredWallet},
};
use duet_protocol::share::KeyShare;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    convert::{bytes, time},
    failure::{Failure, outcome},
    wallet::{DeviceWallet, checksummed},
};

fn work_factor(log_n: Option<u8>) -> Result<WorkFactor, Failure> {
    log_n.map_or(Ok(WorkFactor::RECOMMENDED), |log_n| {
        WorkFactor::new(log_n).ok_or_else(|| Failure::malformed("workFactor", "out of bounds"))
    })
}

fn file(backup: &Backup, passphrase: &str, log_n: Option<u8>) -> Result<JsValue, Failure> {
    Ok(bytes(&backup.to_file(passphrase, work_factor(log_n)?)?))
}

/// The file for a device's part of a wallet.
pub(crate) fn of_device(
    identity: &DeviceIdentity,
    passphrase: String,
    now_ms: u64,
    log_n: Option<u8>,
) -> Result<JsValue, Failure> {
    let passphrase = Zeroizing::new(passphrase);
    file(&Backup::of_device(identity.clone(), now_ms), &passphrase, log_n)
}

/// The file for share 3 of a wallet without a partner.
pub(crate) fn of_third(
    share: &Arc<KeyShare>,
    passphrase: String,
    now_ms: u64,
    log_n: Option<u8>,
) -> Result<JsValue, Failure> {
    let passphrase = Zeroizing::new(passphrase);
    file(&Backup::of_third(Arc::clone(share), now_ms)?, &passphrase, log_n)
}

/// A backup file that was opened.
#[wasm_bindgen]
pub struct OpenedBackup(Backup);

#[wasm_bindgen]
impl OpenedBackup {
    /// Opens a backup file. Takes seconds, and 128 MiB of memory. The kind `wrong-passphrase` tells
    /// a wrong passphrase apart.
    #[wasm_bindgen(unchecked_return_type = "Result<OpenedBackup>")]
    #[must_use]
    pub fn open(file: &[u8], passphrase: String) -> JsValue {
        let passphrase = Zeroizing::new(passphrase);
        outcome(Backup::from_file(&passphrase, file).map(Self).map_err(Failure::from))
    }

    /// What it holds: the device's part, or the third share.
    #[wasm_bindgen(getter, unchecked_return_type = "\"device\" | \"third-share\"")]
    #[must_use]
    pub fn contents(&self) -> String {
        match self.0.contents() {
            Contents::Device(_) => "device",
            Contents::Third(_) => "third-share",
        }
        .to_owned()
    }

    /// The wallet's id, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn wallet(&self) -> String {
        self.0.wallet().id().to_string()
    }

    /// The wallet's address with its checksum.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn address(&self) -> String {
        checksummed(self.0.wallet().address())
    }

    /// When it was made, in milliseconds since 1970.
    #[wasm_bindgen(getter, js_name = madeAt, unchecked_return_type = "number")]
    #[must_use]
    pub fn made_at(&self) -> JsValue {
        time(self.0.made_at_ms())
    }

    /// The device's wallet. It has no Paillier key and starts no session before `beginRotation` and
    /// an enrolment gave it one.
    #[wasm_bindgen(js_name = restore, unchecked_return_type = "Result<DeviceWallet>")]
    #[must_use]
    pub fn restore(self) -> JsValue {
        outcome(match self.0.into_contents() {
            Contents::Device(identity) => Ok(DeviceWallet::new(StoredWallet::restored(identity))),
            Contents::Third(_) => Err(Failure::Misuse(
                "the file holds the third share, which answers no device; restore from a backup of the device"
                    .to_owned(),
            )),
        })
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::Misuse(error.to_string())
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Decrypt(DecryptError::WrongPassphrase) => Self::WrongPassphrase(message),
            RestoreError::Decrypt(_) | RestoreError::Record(_) => Self::Record(message),
        }
    }
}
