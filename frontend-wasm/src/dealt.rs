//! A wallet that was dealt, until every party has committed.

use std::sync::Arc;

use duet_at_rest::{
    SealedRecord,
    device::{OwnerKey, StoredPending, StoredWallet},
};
use duet_protocol::{
    arithmetic::default_arithmetic,
    codec,
    keygen::{self, Dealt},
    receipt::{CommitAck, Receipt, ReceiptBundle},
    share::KeyShare,
};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    backup,
    convert::{bytes, decode_all, encoded, milliseconds, parse},
    failure::{Failure, outcome},
    keys::KeyEncryptionKey,
    object::object,
    wallet::DeviceWallet,
};

/// A wallet just dealt.
#[wasm_bindgen]
pub struct DealtWallet {
    pending: Option<PendingWallet>,
    third: Option<Arc<KeyShare>>,
}

impl DealtWallet {
    pub(crate) fn new(dealt: Dealt, owner: OwnerKey) -> Self {
        let pending = PendingWallet(StoredPending::new(dealt.pending, owner));
        Self { pending: Some(pending), third: dealt.backup.map(Arc::new) }
    }
}

#[wasm_bindgen]
impl DealtWallet {
    /// The wallet to store and then to send; once.
    #[wasm_bindgen(js_name = takePending)]
    pub fn take_pending(&mut self) -> Option<PendingWallet> {
        self.pending.take()
    }

    /// Whether the third share goes to a backup file.
    #[wasm_bindgen(getter, js_name = needsBackupFile)]
    #[must_use]
    pub fn needs_backup_file(&self) -> bool {
        self.third.is_some()
    }

    /// The backup file of the third share, sealed by `passphrase`, made at `now`. It was read back:
    /// that is the share's receipt. `free` this wallet afterwards, which wipes the share. Takes
    /// seconds.
    #[wasm_bindgen(js_name = backupFile, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn backup_file(&self, passphrase: String, now: f64, work_factor: Option<u8>) -> JsValue {
        outcome(milliseconds(now).and_then(|now_ms| match &self.third {
            Some(share) => backup::of_third(share, passphrase, now_ms, work_factor),
            None => Err(Failure::Misuse("the third share has another holder".to_owned())),
        }))
    }
}

/// A wallet that not every holder has committed yet. It does not show its address.
#[wasm_bindgen]
pub struct PendingWallet(StoredPending);

#[wasm_bindgen]
impl PendingWallet {
    /// The wallet's id, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn id(&self) -> String {
        self.0.pending().wallet().to_string()
    }

    /// Who gets which share.
    #[wasm_bindgen(getter, unchecked_return_type = "ShareHolder[]")]
    #[must_use]
    pub fn holders(&self) -> Array {
        crate::wallet::holders(self.0.pending().public())
    }

    /// The tenant.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn tenant(&self) -> String {
        self.0.pending().public().tenant().to_string()
    }

    /// The sealed packages, each to be sent until its receipt is there.
    #[wasm_bindgen(unchecked_return_type = "Delivery[]")]
    #[must_use]
    pub fn deliveries(&self) -> Array {
        self.0
            .pending()
            .deliveries()
            .iter()
            .map(|delivery| {
                object([
                    ("share", u8::from(delivery.index()).into()),
                    ("party", delivery.party().as_str().into()),
                    ("envelope", bytes(delivery.envelope())),
                ])
            })
            .collect()
    }

    /// The order to commit, once every party's receipt is there.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn bundle(&self, receipts: Vec<Uint8Array>) -> JsValue {
        outcome(self.bundled(&receipts))
    }

    fn bundled(&self, receipts: &[Uint8Array]) -> Result<JsValue, Failure> {
        let receipts = decode_all::<Receipt>(receipts)?;
        encoded(&self.0.pending().bundle(&receipts)?)
    }

    /// The wallet, once every party has acknowledged the commit. On a refusal this pending wallet
    /// can be used further.
    #[wasm_bindgen(unchecked_return_type = "Result<DeviceWallet>")]
    #[must_use]
    pub fn finish(&self, bundle: &[u8], acknowledgements: Vec<Uint8Array>) -> JsValue {
        outcome(self.finished(bundle, &acknowledgements))
    }

    fn finished(&self, bundle: &[u8], acknowledgements: &[Uint8Array]) -> Result<DeviceWallet, Failure> {
        let bundle: ReceiptBundle = codec::decode(bundle)?;
        let acknowledgements = decode_all::<CommitAck>(acknowledgements)?;
        // The caller keeps this object, to ask again after a refusal.
        let again = self.0.pending().to_secret_bytes().map_err(Failure::misuse)?;
        let pending = keygen::PendingWallet::from_secret_bytes(&again, default_arithmetic())
            .map_err(Failure::misuse)?;
        let finished = pending.finish(&bundle, &acknowledgements).map_err(|(_, refusal)| refusal)?;
        StoredWallet::new(&finished, self.0.owner().clone()).map(DeviceWallet::new).map_err(Failure::misuse)
    }

    /// The record, sealed, to store before anything is sent.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn seal(&self, key: &KeyEncryptionKey) -> JsValue {
        outcome(self.0.seal(&key.0).map(|record| bytes(record.as_bytes())).map_err(Failure::from))
    }

    /// Opens what `seal` sealed for this wallet id.
    #[wasm_bindgen(unchecked_return_type = "Result<PendingWallet>")]
    #[must_use]
    pub fn open(record: Vec<u8>, key: &KeyEncryptionKey, wallet: &str) -> JsValue {
        outcome(parse("wallet", wallet).and_then(|wallet| {
            StoredPending::open(&SealedRecord::from_bytes(record), &key.0, wallet, default_arithmetic())
                .map(Self)
                .map_err(Failure::from)
        }))
    }
}
