//! One signature under way, on the device's side. Each state is consumed by the step that leads out of
//! it; a message that comes twice finds no state.

use duet_protocol::{
    codec,
    initiator::{AwaitingCipher, AwaitingResponse, Initiator, InitiatorSetup},
    session::CipherEvidence,
    verdict::{GatedSignature, LockDemand, LockWritten, Unlocked, Verdict as Ended},
};
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{bytes, object, system_rng},
    failure::{Failure, outcome},
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
    /// Takes message 4: the verdict, which nobody may hear of before the store has spoken.
    #[wasm_bindgen(unchecked_return_type = "Result<Verdict>")]
    #[must_use]
    pub fn receive(self, message: &[u8]) -> JsValue {
        outcome(self.0.receive(message, &mut system_rng()).map_err(Failure::from).map(|ended| match ended {
            Ended::Good(signature) => Verdict { good: Some(signature), bad: None },
            Ended::Bad(demand) => Verdict { good: None, bad: Some(demand) },
        }))
    }
}

/// How a session ended, behind the gate of its Paillier key. Until the store has answered, both kinds
/// are to be handled alike: the same messages, none before it.
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
