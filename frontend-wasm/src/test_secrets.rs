//! What is secret in a backup file, for the test that searches a browser for it. **Never in what is
//! shipped.**

use duet_at_rest::backup::{Backup, Contents};
use duet_protocol::share::KeyShare;
use js_sys::Array;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{bytes, object},
    failure::{Failure, outcome},
};

/// Opens a backup file and gives each secret in it by name.
#[wasm_bindgen(
    js_name = secretsOfBackup,
    unchecked_return_type = "Result<{ name: string; bytes: Uint8Array }[]>"
)]
#[must_use]
pub fn secrets_of_backup(file: &[u8], passphrase: &str) -> JsValue {
    outcome(secrets(file, passphrase))
}

fn secrets(file: &[u8], passphrase: &str) -> Result<JsValue, Failure> {
    let named = |name: &str, secret: &[u8]| object([("name", name.into()), ("bytes", bytes(secret))]);
    Ok(match Backup::from_file(passphrase, file)?.into_contents() {
        Contents::Third(share) => Array::of1(&named("the third share", &scalar(&share)?)).into(),
        Contents::Device(identity) => {
            let keys = identity.keys().to_secret_bytes();
            let (signing, noise) = keys.split_at(keys.len() / 2);
            Array::of4(
                &named("the device's share", &scalar(identity.share())?),
                &named("the device's signing key", signing),
                &named("the device's session key", noise),
                &named("the owner's request key", identity.owner().to_secret_bytes().as_slice()),
            )
            .into()
        }
    })
}

/// The number, which a share's record ends with.
fn scalar(share: &KeyShare) -> Result<Vec<u8>, Failure> {
    let record = share.to_secret_bytes().map_err(|error| Failure::Misuse(error.to_string()))?;
    Ok(record.iter().rev().take(32).rev().copied().collect())
}
