//! A backup file that was opened.

use duet_at_rest::{
    backup::{Backup, Contents},
    device::StoredWallet,
};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    convert::{checksummed, time},
    failure::{Failure, outcome},
    wallet::DeviceWallet,
};

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
