//! Backup files.

use std::sync::Arc;

use duet_at_rest::{
    age::{DecryptError, WorkFactor},
    backup::{Backup, BackupError, RestoreError},
    device::DeviceIdentity,
};
use duet_protocol::share::KeyShare;
use wasm_bindgen::prelude::JsValue;
use zeroize::Zeroizing;

use crate::{convert::bytes, failure::Failure};

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
