//! The key that seals a wallet's records, from a passphrase or a passkey.

use duet_at_rest::{
    Argon2Cost, KeyEncryptionKey as Key, OpenError, RecordKind, RecordLabel, SealedRecord,
    device::{OpenWalletError, SealError},
    protection::{Protection, Secret, UnlockError},
};
use duet_protocol::ids::{Epoch, ShareIndex};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    convert::{array, bytes, parse},
    failure::{Failure, outcome},
    object::object,
};

/// A wallet's key encryption key. `free` wipes it.
#[wasm_bindgen]
pub struct KeyEncryptionKey(pub(crate) Key);

#[wasm_bindgen]
impl KeyEncryptionKey {
    /// Makes a new key from a passphrase under a fresh salt: the key, and the descriptor to store
    /// in the clear. Takes about a second. Without a cost, argon2id as RFC 9106 recommends it (64
    /// MiB).
    #[wasm_bindgen(js_name = newPassphrase, unchecked_return_type = "Result<NewKey>")]
    #[must_use]
    pub fn new_passphrase(
        passphrase: String,
        #[wasm_bindgen(unchecked_param_type = "Argon2Cost | undefined")] cost: &JsValue,
    ) -> JsValue {
        let secret = Secret::Passphrase(Zeroizing::new(passphrase));
        outcome(argon2_cost(cost).and_then(|cost| created(&secret, cost)))
    }

    /// Finds the key of a descriptor again; takes as long. The kind `wrong-passphrase` tells a
    /// wrong passphrase apart.
    #[wasm_bindgen(js_name = fromPassphrase, unchecked_return_type = "Result<KeyEncryptionKey>")]
    #[must_use]
    pub fn from_passphrase(passphrase: String, descriptor: &str) -> JsValue {
        outcome(unlocked(&Secret::Passphrase(Zeroizing::new(passphrase)), descriptor))
    }

    /// Makes a new key from the 32 bytes that a passkey's PRF extension gave.
    #[wasm_bindgen(js_name = newPrf, unchecked_return_type = "Result<NewKey>")]
    #[must_use]
    pub fn new_prf(output: &[u8]) -> JsValue {
        outcome(key_material(output).and_then(|secret| created(&secret, Argon2Cost::RECOMMENDED)))
    }

    /// Finds the key of a descriptor again from a passkey's PRF output. Another passkey's gives the
    /// kind `wrong-passphrase`.
    #[wasm_bindgen(js_name = fromPrf, unchecked_return_type = "Result<KeyEncryptionKey>")]
    #[must_use]
    pub fn from_prf(output: &[u8], descriptor: &str) -> JsValue {
        outcome(key_material(output).and_then(|secret| unlocked(&secret, descriptor)))
    }

    /// Seals something of the application's own beside a wallet, such as its label. What is secret
    /// of the wallet seals itself (`DeviceWallet.seal`) and never becomes JavaScript's.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn seal(&self, wallet: &str, item: &str, plaintext: &[u8]) -> JsValue {
        outcome(label(wallet, item).and_then(|label| {
            SealedRecord::seal(&self.0, &label, plaintext)
                .map(|record| bytes(record.as_bytes()))
                .map_err(|error| Failure::Misuse(error.to_string()))
        }))
    }

    /// Opens what `seal` sealed for the same wallet and item.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn open(&self, wallet: &str, item: &str, record: Vec<u8>) -> JsValue {
        outcome(label(wallet, item).and_then(|label| {
            SealedRecord::from_bytes(record)
                .open(&self.0, &label)
                .map(|plaintext| bytes(&plaintext))
                .map_err(Failure::from)
        }))
    }
}

fn label(wallet: &str, item: &str) -> Result<RecordLabel, Failure> {
    let wallet = parse("wallet", wallet)?;
    Ok(RecordLabel::of_wallet(RecordKind::Application, wallet, ShareIndex::Device, Epoch(0), item.as_bytes()))
}

fn key_material(output: &[u8]) -> Result<Secret, Failure> {
    Ok(Secret::KeyMaterial(Zeroizing::new(array("output", output)?)))
}

fn argon2_cost(cost: &JsValue) -> Result<Argon2Cost, Failure> {
    if cost.is_undefined() || cost.is_null() {
        return Ok(Argon2Cost::RECOMMENDED);
    }
    let field = |name: &str| {
        let number = js_sys::Reflect::get(cost, &name.into()).ok().and_then(|value| value.as_f64());
        match number {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked beside it")]
            Some(number) if (1.0..=1_048_576.0).contains(&number) && number.fract() == 0.0 => {
                Ok(number as u32)
            }
            _ => Err(Failure::malformed("cost", format_args!("{name} is no sensible number"))),
        }
    };
    Ok(Argon2Cost { memory_kib: field("memoryKib")?, passes: field("passes")?, lanes: field("lanes")? })
}

fn created(secret: &Secret, cost: Argon2Cost) -> Result<JsValue, Failure> {
    let (protection, key) =
        Protection::create(secret, cost).map_err(|error| Failure::malformed("passphrase", error))?;
    let descriptor = protection.to_json()?;
    Ok(object([("key", KeyEncryptionKey(key).into()), ("descriptor", descriptor.into())]))
}

fn unlocked(secret: &Secret, descriptor: &str) -> Result<KeyEncryptionKey, Failure> {
    Ok(KeyEncryptionKey(Protection::from_json(descriptor)?.unlock(secret)?))
}

impl From<UnlockError> for Failure {
    fn from(error: UnlockError) -> Self {
        let message = error.to_string();
        match error {
            UnlockError::WrongSecret => Self::WrongPassphrase(message),
            UnlockError::Document => Self::Record(message),
            UnlockError::OtherSource(_) | UnlockError::Key(_) => Self::Malformed(message),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Record(error.to_string())
    }
}

impl From<OpenWalletError> for Failure {
    fn from(error: OpenWalletError) -> Self {
        Self::Record(error.to_string())
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::Misuse(error.to_string())
    }
}
