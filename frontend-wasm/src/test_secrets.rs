//! What is secret in a backup file or a wallet, for the test that searches a browser for it.
//! **Never in what is shipped.**

use duet_at_rest::backup::{Backup, Contents};
use duet_protocol::share::KeyShare;
use js_sys::Array;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::bytes,
    failure::{Failure, outcome},
    object::object,
    wallet::DeviceWallet,
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

fn named(name: &str, secret: &[u8]) -> JsValue {
    object([("name", name.into()), ("bytes", bytes(secret))])
}

/// The primes of every Paillier key of a wallet that was opened, by name.
#[wasm_bindgen(js_name = primesOfWallet, unchecked_return_type = "{ name: string; bytes: Uint8Array }[]")]
#[must_use]
pub fn primes_of_wallet(wallet: &DeviceWallet) -> Array {
    wallet
        .keys()
        .iter()
        .flat_map(|key| {
            let primes = key.to_secret_bytes();
            let (p, q) = primes.split_at(primes.len() / 2);
            [named("a Paillier key's p", p), named("a Paillier key's q", q)]
        })
        .collect()
}

fn secrets(file: &[u8], passphrase: &str) -> Result<JsValue, Failure> {
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
