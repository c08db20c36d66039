//! The device's share of a wallet.

use std::sync::Arc;

use duet_protocol::{
    arithmetic::default_arithmetic,
    card::Card,
    codec,
    ids::{PartyId, ShareIndex},
    initiator::InitiatorSetup,
    keygen,
};
use duet_wire::{
    Code, JobId, Outcome, OutcomeResult, RecoverableSignature, Refusal, SignedOutcome,
    approval::{ApprovalAction, ApprovalRequest, SignedApproval},
    seating::Seated,
};
use getrandom::rand_core::Rng as _;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{array, bytes, milliseconds, object, parse, system_rng},
    failure::{Failure, outcome},
    session::InitiatorSession,
};

/// A wallet that signs, as its device has it.
#[wasm_bindgen]
pub struct DeviceWallet(keygen::DeviceWallet);

impl DeviceWallet {
    pub(crate) const fn new(wallet: keygen::DeviceWallet) -> Self {
        Self(wallet)
    }
}

#[wasm_bindgen]
impl DeviceWallet {
    /// The wallet's id, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn id(&self) -> String {
        self.0.share().wallet().id().to_string()
    }

    /// The wallet's Ethereum address, 20 bytes.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn address(&self) -> Vec<u8> {
        self.0.share().wallet().address().to_vec()
    }

    /// The wallet's public key, 33 bytes, SEC1 compressed.
    #[wasm_bindgen(getter, js_name = publicKey)]
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.0.share().wallet().public_key().to_bytes().to_vec()
    }

    /// The id of the device's Paillier key, 32 hexadecimal digits: whose lock decides.
    #[wasm_bindgen(getter, js_name = paillierKey)]
    #[must_use]
    pub fn paillier_key(&self) -> String {
        self.0.paillier().id().to_string()
    }

    /// The device's card of this wallet.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn card(&self) -> JsValue {
        outcome(codec::encode(&**self.0.card()).map(|card| bytes(&card)).map_err(misuse))
    }

    /// Checks an approved session's manifest at `now` (milliseconds since 1970) against the wallet and
    /// the responder's card against the pinned one, and starts: the state and message 1. That the
    /// Paillier key is not locked is for the store to say, before and after.
    #[wasm_bindgen(unchecked_return_type = "Result<Step<InitiatorSession>>")]
    #[must_use]
    pub fn start(&self, manifest: &[u8], responder_card: &[u8], now: f64) -> JsValue {
        outcome(self.started(manifest, responder_card, now))
    }

    fn started(&self, manifest: &[u8], responder_card: &[u8], now: f64) -> Result<JsValue, Failure> {
        let share = self.0.share();
        let seated = Seated::check(manifest, share, milliseconds(now)?)?;
        if seated.manifest.paillier_key != self.0.paillier().id() {
            return Err(
                Refusal::new(Code::StalePaillierKey, "the session is for another Paillier key").into()
            );
        }
        let responder: Card = codec::decode(responder_card)?;
        let responder_index = seated.manifest.responder.index;
        if share.wallet().holder(responder_index).card() != Some(&responder.fingerprint()) {
            return Err(Failure::Card(
                "the responder's card is not the one the wallet was made with".to_owned(),
            ));
        }
        let setup = InitiatorSetup {
            manifest: manifest.to_vec(),
            session: seated.manifest.session,
            digest: seated.digest,
            path: seated.request.path,
            share: Arc::clone(share),
            paillier: Arc::clone(self.0.paillier()),
            keys: Arc::clone(self.0.keys()),
            card: Arc::clone(self.0.card()),
            responder_index,
            responder: Arc::new(responder),
        };
        let (session, message) = InitiatorSession::start(setup)?;
        Ok(object([("state", session.into()), ("message", bytes(&message))]))
    }

    /// A signed question for the jobs that wait for the owner, made at `now`.
    #[wasm_bindgen(js_name = listJobs, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn list_jobs(&self, now: f64) -> JsValue {
        outcome(self.approval(ApprovalAction::List, now))
    }

    /// The owner's signed yes to a job (32 hexadecimal digits), made at `now`.
    #[wasm_bindgen(js_name = approveJob, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn approve_job(&self, job: &str, now: f64) -> JsValue {
        outcome(
            parse::<JobId>("job", job).and_then(|job| self.approval(ApprovalAction::Approve { job }, now)),
        )
    }

    /// The owner's signed no to a job (32 hexadecimal digits), made at `now`.
    #[wasm_bindgen(js_name = rejectJob, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn reject_job(&self, job: &str, now: f64) -> JsValue {
        outcome(parse::<JobId>("job", job).and_then(|job| self.approval(ApprovalAction::Reject { job }, now)))
    }

    fn approval(&self, action: ApprovalAction, now: f64) -> Result<JsValue, Failure> {
        let mut nonce = [0; 16];
        system_rng().fill_bytes(&mut nonce);
        let wallet = self.0.share().wallet().id();
        let request = ApprovalRequest { wallet, action, issued_at_ms: milliseconds(now)?, nonce };
        let signed = SignedApproval::sign(&request, &**self.0.keys()).map_err(misuse)?;
        codec::encode(&signed).map(|b| bytes(&b)).map_err(misuse)
    }

    /// The device's signed report that the session of `manifest` ended with a signature (65 bytes).
    #[wasm_bindgen(js_name = reportSigned, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn report_signed(&self, manifest: &[u8], signature: &[u8]) -> JsValue {
        outcome(array("signature", signature).and_then(|signature| {
            let signature = RecoverableSignature::from_bytes(&signature)
                .map_err(|why| Failure::malformed("signature", why))?;
            self.report(manifest, OutcomeResult::Signed { signature })
        }))
    }

    /// The device's signed report that the session of `manifest` failed: a code of docs/errors.md, a
    /// sentence, and whose fault it demonstrably was.
    #[wasm_bindgen(js_name = reportFailed, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn report_failed(
        &self,
        manifest: &[u8],
        code: &str,
        message: &str,
        culprit: Option<String>,
    ) -> JsValue {
        outcome(parse::<Code>("code", code).and_then(|code| {
            let culprit = culprit.map(|name| parse::<PartyId>("culprit", &name)).transpose()?;
            let Refusal { code, message } = Refusal::new(code, message);
            self.report(manifest, OutcomeResult::Failed { code, culprit, message })
        }))
    }

    fn report(&self, manifest: &[u8], result: OutcomeResult) -> Result<JsValue, Failure> {
        let manifest = duet_wire::Manifest::decode(manifest)?;
        let from = self.0.card().party().clone();
        let outcome =
            Outcome { session: manifest.session, job: manifest.job, attempt: manifest.attempt, from, result };
        let signed = SignedOutcome::sign(&outcome, &**self.0.keys()).map_err(misuse)?;
        codec::encode(&signed).map(|b| bytes(&b)).map_err(misuse)
    }

    /// The name of a share's holder; none for a backup.
    #[wasm_bindgen(js_name = holder, unchecked_return_type = "Result<string | undefined>")]
    #[must_use]
    pub fn holder(&self, share: u8) -> JsValue {
        outcome(
            ShareIndex::try_from(share)
                .map(|index| {
                    let party = self.0.share().wallet().holder(index).party();
                    party.map_or(JsValue::UNDEFINED, |party| party.as_str().into())
                })
                .map_err(|why| Failure::malformed("share", why)),
        )
    }

    /// The record to seal and store.
    #[wasm_bindgen(js_name = toSecretBytes, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn to_secret_bytes(&self) -> JsValue {
        outcome(self.0.to_secret_bytes().map(|record| bytes(&record)).map_err(misuse))
    }

    /// Reads what `toSecretBytes` wrote. A record that comes from a backup must not initiate before
    /// its Paillier key was rotated.
    #[wasm_bindgen(js_name = fromSecretBytes, unchecked_return_type = "Result<DeviceWallet>")]
    #[must_use]
    pub fn from_secret_bytes(record: &[u8]) -> JsValue {
        outcome(
            keygen::DeviceWallet::from_secret_bytes(record, default_arithmetic())
                .map(Self)
                .map_err(|why| Failure::malformed("record", why)),
        )
    }
}

fn misuse(error: impl core::fmt::Display) -> Failure {
    Failure::Misuse(error.to_string())
}
