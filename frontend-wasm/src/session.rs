//! One signature under way, on the device's side. Each state is consumed by the step that leads out
//! of it; a message that comes twice finds no state.

use duet_at_rest::{RecordKind, RecordLabel, SealedRecord, device::SealError};
use duet_protocol::{
    codec,
    ids::{Epoch, SessionId, ShareIndex, WalletId},
    initiator::{AuthenticAnswer, AwaitingCipher, AwaitingResponse, Initiator, InitiatorSetup},
    pending::PendingWritten,
    session::CipherEvidence,
    verdict::{GatedSignature, LockDemand, LockWritten, Unlocked, Verdict as Ended},
};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{bytes, system_rng},
    failure::{Failure, outcome},
    keys::KeyEncryptionKey,
    object::object,
};

/// Message 1 is out; message 2 is due.
#[wasm_bindgen]
pub struct InitiatorSession(AwaitingResponse);

impl InitiatorSession {
    pub(crate) fn start(setup: InitiatorSetup) -> Result<(Self, Vec<u8>), Failure> {
        let (state, message) = Initiator::start(setup, &mut system_rng())?;
        Ok((Self(state), message))
    }
}

#[wasm_bindgen]
impl InitiatorSession {
    /// Takes message 2: the next state and message 3, which is sent once and never again.
    #[wasm_bindgen(unchecked_return_type = "Result<Step<OpenedSession>>")]
    #[must_use]
    pub fn receive(self, message: &[u8]) -> JsValue {
        outcome(self.0.receive(message, &mut system_rng()).map_err(Failure::from).map(|(state, message)| {
            object([("state", OpenedSession(state).into()), ("message", bytes(&message))])
        }))
    }
}

/// Message 3 is out; message 4 is due.
#[wasm_bindgen]
pub struct OpenedSession(AwaitingCipher);

#[wasm_bindgen]
impl OpenedSession {
    /// Takes message 4 and checks that the responder sent it. Nothing is decrypted yet.
    #[wasm_bindgen(unchecked_return_type = "Result<AnsweredSession>")]
    #[must_use]
    pub fn receive(self, message: &[u8]) -> JsValue {
        outcome(self.0.authenticate(message).map_err(Failure::from).map(AnsweredSession))
    }
}

/// The answer is there, and not decrypted. What a verdict depends on is stored first, so that a tab
/// that ends between the decryption and the lock does not take a bad verdict with it.
#[wasm_bindgen]
pub struct AnsweredSession(AuthenticAnswer);

#[wasm_bindgen]
impl AnsweredSession {
    /// The pending verdict, sealed, to be stored before `decryptAfterPendingWritten`.
    #[wasm_bindgen(js_name = pendingVerdict, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn pending_verdict(&self, key: &KeyEncryptionKey) -> JsValue {
        outcome(self.sealed(key))
    }

    fn sealed(&self, key: &KeyEncryptionKey) -> Result<JsValue, Failure> {
        let pending = self.0.pending();
        let plaintext = codec::encode(&pending).map_err(|error| Failure::Misuse(error.to_string()))?;
        let label = pending_label(pending.wallet(), pending.session());
        let sealed = SealedRecord::seal(&key.0, &label, &plaintext).map_err(SealError::from)?;
        Ok(bytes(sealed.as_bytes()))
    }

    /// Decrypts. To be called after a transaction that stored the pending verdict has completed.
    #[wasm_bindgen(js_name = decryptAfterPendingWritten, unchecked_return_type = "Result<Verdict>")]
    #[must_use]
    pub fn decrypt_after_pending_written(self) -> JsValue {
        let written = PendingWritten::survives_the_process(self.0.pending().session());
        outcome(self.0.decrypt(&written, &mut system_rng()).map_err(Failure::from).map(|ended| match ended {
            Ended::Good(signature) => Verdict { good: Some(signature), bad: None },
            Ended::Bad(demand) => Verdict { good: None, bad: Some(demand) },
        }))
    }
}

/// Where a pending verdict of a device's wallet is sealed for.
pub(crate) fn pending_label(wallet: WalletId, session: SessionId) -> RecordLabel {
    let (kind, index) = (RecordKind::PendingVerdict, ShareIndex::Device);
    RecordLabel::of_wallet(kind, wallet, index, Epoch(0), session.as_bytes())
}

/// How a session ended, behind the gate of its Paillier key. Until the store has answered, both
/// kinds are to be handled alike: the same messages, none before it.
#[wasm_bindgen]
pub struct Verdict {
    good: Option<GatedSignature>,
    bad: Option<LockDemand>,
}

#[wasm_bindgen]
impl Verdict {
    /// Whether the Paillier key has to be locked, durably, before anything else is said or done.
    #[wasm_bindgen(getter, js_name = demandsLock)]
    #[must_use]
    pub fn demands_lock(&self) -> bool {
        self.bad.is_some()
    }

    /// The responder's signed bad answer, for the record of the lock; nothing for a good verdict.
    #[wasm_bindgen(getter, js_name = lockEvidence, unchecked_return_type = "Uint8Array | undefined")]
    #[must_use]
    pub fn lock_evidence(&self) -> JsValue {
        // Evidence that has no encoding is no reason not to lock.
        self.bad
            .as_ref()
            .map_or(JsValue::UNDEFINED, |demand| encoded(demand.evidence()).unwrap_or_else(|_| bytes(&[])))
    }

    /// The signature. To be called inside, or right after the commit of, a strict transaction that
    /// found `paillierKey` unlocked.
    #[wasm_bindgen(js_name = releaseAfterUnlockedRead, unchecked_return_type = "Result<Signed>")]
    #[must_use]
    pub fn release_after_unlocked_read(self, paillier_key: &str) -> JsValue {
        outcome(self.released(paillier_key))
    }

    fn released(self, paillier_key: &str) -> Result<JsValue, Failure> {
        let gated = self.good.ok_or_else(|| Failure::Misuse("this verdict demands a lock".to_owned()))?;
        let key = crate::convert::parse("paillierKey", paillier_key)?;
        let unlocked = Unlocked::found_by_linearisable_read(key, gated.session());
        let (signature, evidence) =
            gated.release(unlocked).map_err(|error| Failure::Misuse(error.to_string()))?;
        Ok(object([("signature", bytes(&signature.to_bytes())), ("evidence", encoded(&evidence)?)]))
    }

    /// Who sent the bad answer, with proof of it. To be called after the transaction that turned
    /// `paillierKey` from unlocked to locked is durable.
    #[wasm_bindgen(
        js_name = settleAfterLockWritten,
        unchecked_return_type = "Result<{ culprit: string; evidence: Uint8Array }>"
    )]
    #[must_use]
    pub fn settle_after_lock_written(self, paillier_key: &str) -> JsValue {
        outcome(self.settled(paillier_key))
    }

    fn settled(self, paillier_key: &str) -> Result<JsValue, Failure> {
        let demand = self.bad.ok_or_else(|| Failure::Misuse("this verdict demands no lock".to_owned()))?;
        let key = crate::convert::parse("paillierKey", paillier_key)?;
        let written = LockWritten::committed_durably(key, demand.session());
        let report = demand.settle(written).map_err(|error| Failure::Misuse(error.to_string()))?;
        Ok(object([("culprit", report.culprit().as_str().into()), ("evidence", encoded(report.evidence())?)]))
    }
}

fn encoded(evidence: &CipherEvidence) -> Result<JsValue, Failure> {
    codec::encode(evidence).map(|b| bytes(&b)).map_err(|error| Failure::Misuse(error.to_string()))
}
