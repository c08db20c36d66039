//! The device's share of a wallet.

use std::sync::Arc;

use duet_at_rest::{SealedRecord, device::StoredWallet};
#[cfg(feature = "test-exports")]
use duet_protocol::paillier_key::PaillierKey;
use duet_protocol::{
    arithmetic::default_arithmetic,
    card::Card,
    codec,
    ids::{PartyId, ShareIndex},
    initiator::InitiatorSetup,
    paillier::ModulusSize,
    pending::{Judged, PendingVerdict, Unjudgeable},
    proof_task::MadeProofs,
    public_key::{DerivationPath, PublicKey},
    share::WalletPublic,
    signature,
};
use duet_wire::{
    Code, JobId, Outcome, OutcomeResult, RecoverableSignature, Refusal, SignedOutcome, SignedRequest,
    approval::{ApprovalAction, ApprovalRequest, SignedApproval},
    gateway::Authentication,
    revocation::RevocationProof,
    seating::Seated,
};
use getrandom::rand_core::Rng as _;
use js_sys::Array;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};
use zeroize::Zeroizing;

use crate::{
    backup,
    convert::{
        array, bytes, checksummed, encoded, hexadecimal, milliseconds, parse, system_rng, task_bytes, time,
    },
    failure::{Failure, outcome},
    keys::KeyEncryptionKey,
    object::object,
    primes::paillier_key,
    responder::Responder,
    session::{InitiatorSession, pending_label},
};

/// A wallet as its device has it: its share, its keys, the owner's request key and its Paillier
/// keys.
#[wasm_bindgen]
pub struct DeviceWallet(StoredWallet);

impl DeviceWallet {
    pub(crate) const fn new(wallet: StoredWallet) -> Self {
        Self(wallet)
    }

    #[cfg(feature = "test-exports")]
    pub(crate) fn keys(&self) -> &[Arc<PaillierKey>] {
        self.0.keys()
    }
}

/// `ShareHolder[]` of `types.ts`.
pub(crate) fn holders(wallet: &WalletPublic) -> Array {
    ShareIndex::ALL
        .into_iter()
        .map(|index| {
            let holder = wallet.holder(index);
            let text = |text: Option<String>| text.map_or(JsValue::UNDEFINED, JsValue::from);
            object([
                ("share", u8::from(index).into()),
                ("party", text(holder.party().map(ToString::to_string))),
                ("fingerprint", text(holder.card().map(ToString::to_string))),
            ])
        })
        .collect()
}

#[wasm_bindgen]
impl DeviceWallet {
    /// The wallet's id, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn id(&self) -> String {
        self.0.wallet().id().to_string()
    }

    /// The wallet's Ethereum address, with its EIP-55 checksum.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn address(&self) -> String {
        checksummed(self.0.wallet().address())
    }

    /// The wallet's public key, 33 bytes, SEC1 compressed.
    #[wasm_bindgen(getter, js_name = publicKey)]
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.0.wallet().public_key().to_bytes().to_vec()
    }

    /// Whose it is.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn tenant(&self) -> String {
        self.0.wallet().tenant().to_string()
    }

    /// Who holds which share.
    #[wasm_bindgen(getter, unchecked_return_type = "ShareHolder[]")]
    #[must_use]
    pub fn holders(&self) -> Array {
        holders(self.0.wallet())
    }

    /// The id of the newest Paillier key, 32 hexadecimal digits; none after a restore, until
    /// `beginRotation`.
    #[wasm_bindgen(getter, js_name = newestKey)]
    #[must_use]
    pub fn newest_key(&self) -> Option<String> {
        self.0.newest_key().map(|key| key.id().to_string())
    }

    /// The ids of all Paillier keys there are, the oldest first: those whose lock counts.
    #[wasm_bindgen(getter, js_name = paillierKeys)]
    #[must_use]
    pub fn paillier_keys(&self) -> Vec<String> {
        self.0.keys().iter().map(|key| key.id().to_string()).collect()
    }

    /// The responders that have not agreed on the newest Paillier key: an enrolment is due with
    /// each. All after a restore.
    #[wasm_bindgen(getter, unchecked_return_type = "{ share: 2 | 3; party: string }[]")]
    #[must_use]
    pub fn unenrolled(&self) -> Array {
        self.0
            .unenrolled()
            .map(|(index, party)| {
                object([("share", u8::from(index).into()), ("party", party.as_str().into())])
            })
            .collect()
    }

    /// The address of the key at a path, such as `m/0/7`.
    #[wasm_bindgen(js_name = addressAt, unchecked_return_type = "Result<string>")]
    #[must_use]
    pub fn address_at(&self, path: &str) -> JsValue {
        outcome(self.key_at(path).map(|key| checksummed(key.address())))
    }

    fn key_at(&self, path: &str) -> Result<PublicKey, Failure> {
        let path: DerivationPath = parse("path", path)?;
        let wallet = self.0.wallet();
        let (key, _) = wallet.public_key().child(wallet.chain_code(), &path).map_err(Failure::misuse)?;
        Ok(key)
    }

    /// Whether a signature (65 bytes) over a digest (32 bytes) is by the key at a path.
    #[wasm_bindgen(js_name = verifyAt, unchecked_return_type = "Result<undefined>")]
    #[must_use]
    pub fn verify_at(&self, path: &str, digest: &[u8], signature: &[u8]) -> JsValue {
        outcome(self.verified_at(path, digest, signature).map(|()| JsValue::UNDEFINED))
    }

    fn verified_at(&self, path: &str, digest: &[u8], signature: &[u8]) -> Result<(), Failure> {
        let signature = RecoverableSignature::from_ethereum_bytes(&array("signature", signature)?)
            .map_err(|why| Failure::malformed("signature", why))?;
        Ok(signature::verify(&self.key_at(path)?, &array("digest", digest)?, &signature)?)
    }

    /// The device's card of this wallet.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn card(&self) -> JsValue {
        outcome(encoded(&**self.0.identity().card()))
    }

    /// Checks a session's manifest at `now` (milliseconds since 1970) against the wallet, as
    /// `start` does, and says what it is about.
    #[wasm_bindgen(js_name = readManifest, unchecked_return_type = "Result<ManifestFacts>")]
    #[must_use]
    pub fn read_manifest(&self, manifest: &[u8], now: f64) -> JsValue {
        outcome(self.manifest_facts(manifest, now))
    }

    fn manifest_facts(&self, manifest: &[u8], now: f64) -> Result<JsValue, Failure> {
        let Seated { manifest, request, digest } = self.seated(manifest, now)?;
        let responder = self.0.wallet().holder(manifest.responder.index);
        let fingerprint = responder.card().map(ToString::to_string).unwrap_or_default();
        Ok(object([
            ("session", manifest.session.to_string().into()),
            ("job", manifest.job.to_string().into()),
            ("responder", manifest.responder.party.as_str().into()),
            ("responderFingerprint", fingerprint.into()),
            ("paillierKey", manifest.paillier_key.to_string().into()),
            ("digest", hexadecimal(&digest)),
            ("path", request.path.to_string().into()),
            ("expiresAt", time(manifest.expires_at_ms)),
            ("signs", hex::encode(request.signs(digest)).into()),
            ("requestExpiresAt", time(request.expires_at.saturating_mul(1000))),
        ]))
    }

    fn seated(&self, manifest: &[u8], now: f64) -> Result<Seated, Failure> {
        let seated = Seated::check(manifest, self.0.identity().share(), milliseconds(now)?)?;
        if seated.manifest.initiator.index != ShareIndex::Device {
            return Err(Refusal::new(Code::PeerMisbehaved, "a device only initiates").into());
        }
        Ok(seated)
    }

    /// Checks an approved session's manifest at `now` (milliseconds since 1970) against the wallet
    /// and the responder's card against the pinned one, and starts: the state and message 1. That
    /// the Paillier key is not locked is for the store to say, before and after. The kind
    /// `needs-rotation` says that the wallet came from a backup and has no Paillier key yet.
    #[wasm_bindgen(unchecked_return_type = "Result<Step<InitiatorSession>>")]
    #[must_use]
    pub fn start(&self, manifest: &[u8], responder_card: &[u8], now: f64) -> JsValue {
        outcome(self.started(manifest, responder_card, now))
    }

    fn started(&self, manifest: &[u8], responder_card: &[u8], now: f64) -> Result<JsValue, Failure> {
        let identity = self.0.identity();
        let seated = self.seated(manifest, now)?;
        if self.0.newest_key().is_none() {
            return Err(Failure::NeedsRotation(
                "the wallet came from a backup: make a Paillier key and enrol it first".to_owned(),
            ));
        }
        let seat = &seated.manifest.responder;
        let paillier = self
            .0
            .key_for(&seat.party, seated.manifest.paillier_key)
            .ok_or_else(|| Refusal::new(Code::StalePaillierKey, "the session is for another Paillier key"))?;
        let responder: Card = duet_protocol::codec::decode(responder_card)?;
        if self.0.wallet().holder(seat.index).card() != Some(&responder.fingerprint()) {
            return Err(Failure::Card(
                "the responder's card is not the one the wallet was made with".to_owned(),
            ));
        }
        let setup = InitiatorSetup {
            manifest: manifest.to_vec(),
            session: seated.manifest.session,
            digest: seated.digest,
            path: seated.request.path,
            share: Arc::clone(identity.share()),
            paillier: Arc::clone(paillier),
            keys: Arc::clone(identity.keys()),
            card: Arc::clone(identity.card()),
            responder_index: seat.index,
            responder: Arc::new(responder),
        };
        let (session, message) = InitiatorSession::start(setup)?;
        Ok(object([("state", session.into()), ("message", bytes(&message))]))
    }

    /// The frame that proves to a gateway that this device is here: over the challenge of this very
    /// connection (32 bytes), made at `now`.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn authenticate(&self, challenge: &[u8], now: f64) -> JsValue {
        outcome(self.authenticated(challenge, now))
    }

    fn authenticated(&self, challenge: &[u8], now: f64) -> Result<JsValue, Failure> {
        let wallet = self.0.wallet().id();
        let issued_at_ms = milliseconds(now)?;
        let proof = Authentication { challenge: array("challenge", challenge)?, wallet, issued_at_ms };
        encoded(&proof.frame(&**self.0.identity().keys()))
    }

    /// Signs a request document with the owner's key and asks the orchestrator, at `now`, to begin
    /// it at once: the message, the job it makes and the digest. A document that parties would
    /// refuse is refused here, with the path of what is wrong.
    #[wasm_bindgen(
        js_name = requestSignature,
        unchecked_return_type = "Result<{ message: Uint8Array; job: string; digest: string }>"
    )]
    #[must_use]
    pub fn request_signature(&self, document: &str, now: f64) -> JsValue {
        outcome(self.requested(document, now))
    }

    fn requested(&self, document: &str, now: f64) -> Result<JsValue, Failure> {
        let request =
            SignedRequest::sign(document.as_bytes().to_vec(), self.0.identity().owner().signing_key());
        let read = request.verify().map_err(duet_wire::Problem::from)?;
        if read.wallet != self.0.wallet().id() {
            return Err(Refusal::new(Code::UnknownWallet, "the request is for another wallet").into());
        }
        let digest = read.payload.digest().map_err(Refusal::from)?;
        let message = self.approval(ApprovalAction::Sign { request }, now)?;
        Ok(object([
            ("message", message),
            ("job", read.job().to_string().into()),
            ("digest", hexadecimal(&digest)),
        ]))
    }

    /// Signs a request document with the owner's key, to be submitted elsewhere: the requester's
    /// public key and the signature.
    #[wasm_bindgen(
        js_name = signRequest,
        unchecked_return_type = "Result<{ requester: Uint8Array; signature: Uint8Array }>"
    )]
    #[must_use]
    pub fn sign_request(&self, document: &[u8]) -> JsValue {
        outcome(crate::verify::signed_request(document, self.0.identity().owner().signing_key()))
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

    /// The owner's signed no to a job (32 hexadecimal digits), made at `now`: a revocation of the
    /// request with this content hash (32 bytes), which the parties keep.
    #[wasm_bindgen(js_name = rejectJob, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn reject_job(&self, job: &str, request_hash: &[u8], now: f64) -> JsValue {
        outcome(self.rejected(job, request_hash, now))
    }

    fn rejected(&self, job: &str, request_hash: &[u8], now: f64) -> Result<JsValue, Failure> {
        let job: JobId = parse("job", job)?;
        let identity = self.0.identity();
        let proof = RevocationProof::sign(
            self.0.wallet().id(),
            array("requestHash", request_hash)?,
            identity.owner().signing_key(),
        );
        self.approval(ApprovalAction::Revoke { job, proof }, now)
    }

    /// A signed question for a job's state and result, made at `now`.
    #[wasm_bindgen(js_name = askJob, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn ask_job(&self, job: &str, now: f64) -> JsValue {
        outcome(parse::<JobId>("job", job).and_then(|job| self.approval(ApprovalAction::Job { job }, now)))
    }

    fn approval(&self, action: ApprovalAction, now: f64) -> Result<JsValue, Failure> {
        let mut nonce = [0; 16];
        system_rng().fill_bytes(&mut nonce);
        let wallet = self.0.wallet().id();
        let request = ApprovalRequest { wallet, action, issued_at_ms: milliseconds(now)?, nonce };
        let signed = SignedApproval::sign(&request, &**self.0.identity().keys()).map_err(Failure::misuse)?;
        encoded(&signed)
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

    /// The device's signed report that the session of `manifest` failed: a code of docs/errors.md,
    /// a sentence, and whose fault it demonstrably was.
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
        let identity = self.0.identity();
        let from = identity.card().party().clone();
        let outcome =
            Outcome { session: manifest.session, job: manifest.job, attempt: manifest.attempt, from, result };
        encoded(&SignedOutcome::sign(&outcome, &**identity.keys()).map_err(Failure::misuse)?)
    }

    /// Takes a new Paillier key of two primes that helpers searched with `findPrime`. Store the
    /// sealed wallet before the first offer. With a responder that has not agreed on it, the old
    /// key goes on.
    #[wasm_bindgen(js_name = beginRotation, unchecked_return_type = "Result<undefined>")]
    pub fn begin_rotation(&mut self, p: Vec<u8>, q: Vec<u8>) -> JsValue {
        let (p, q) = (Zeroizing::new(p), Zeroizing::new(q));
        let owner = self.0.identity().card().party().clone();
        let size =
            self.0.newest_key().map_or(ModulusSize::Bits2048, |key| key.decryption().encryption_key().size());
        outcome(paillier_key(owner, size, &p, &q).and_then(|key| {
            self.0.begin_rotation(Arc::new(key)).map_err(Failure::misuse)?;
            Ok(JsValue::UNDEFINED)
        }))
    }

    /// The task of proving the newest Paillier key to a responder, for `makeProofs` in a helper. It
    /// is **secret**: wipe it.
    #[wasm_bindgen(js_name = proofTask, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn proof_task(&self, responder: &Responder) -> JsValue {
        outcome(self.0.proof_task(&responder.0).map_err(Failure::misuse).and_then(|task| task_bytes(&task)))
    }

    /// The offer of the newest Paillier key to a responder, made at `now`, for `enrol`, with what
    /// `makeProofs` made of its task.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn offer(&self, responder: &Responder, proofs: &[u8], now: f64) -> JsValue {
        outcome(self.offered(responder, proofs, now))
    }

    fn offered(&self, responder: &Responder, proofs: &[u8], now: f64) -> Result<JsValue, Failure> {
        let (proofs, generation): (MadeProofs, u64) = (codec::decode(proofs)?, milliseconds(now)?);
        let offer = self.0.offer(&responder.0, proofs, generation, &mut system_rng());
        encoded(&offer.map_err(Failure::misuse)?)
    }

    /// Notes that a party has taken the newest Paillier key. Store the sealed wallet afterwards.
    #[wasm_bindgen(unchecked_return_type = "Result<undefined>")]
    pub fn agree(&mut self, party: &str) -> JsValue {
        outcome(parse("party", party).and_then(|party| {
            let newest = self.0.newest_key().map(|key| key.id());
            let newest = newest.ok_or_else(|| Failure::Misuse("there is no Paillier key".to_owned()))?;
            self.0.agree(&party, newest).map_err(Failure::misuse)?;
            Ok(JsValue::UNDEFINED)
        }))
    }

    /// A backup file of the device's part, made at `now` and opened by `passphrase`; it was read
    /// back. The Paillier keys are not in it. Takes seconds.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn backup(&self, passphrase: String, now: f64, work_factor: Option<u8>) -> JsValue {
        outcome(
            milliseconds(now)
                .and_then(|now_ms| backup::of_device(self.0.identity(), passphrase, now_ms, work_factor)),
        )
    }

    /// Judges what a session that did not end left behind, as `pendingVerdict` sealed it: the
    /// responder's signed bad answer, if the Paillier key has to be locked; nothing if the answer
    /// was honest. What does not open, or whose key is gone, demands the lock as well, and has no
    /// evidence.
    #[wasm_bindgen(js_name = judgePending, unchecked_return_type = "Uint8Array | undefined")]
    #[must_use]
    pub fn judge_pending(&self, record: Vec<u8>, session: &str, key: &KeyEncryptionKey) -> JsValue {
        let Some(pending) = self.opened_pending(record, session, key) else { return bytes(&[]) };
        let paillier = self.0.keys().iter().find(|one| one.id() == pending.paillier_key());
        let judged = paillier.map(|paillier| pending.judge(self.0.wallet(), paillier, &mut system_rng()));
        match judged {
            Some(Ok(Judged::Good)) => JsValue::UNDEFINED,
            // Evidence that has no encoding is no reason not to lock.
            Some(Ok(Judged::Bad(demand))) => bytes(&codec::encode(demand.evidence()).unwrap_or_default()),
            Some(Err(Unjudgeable)) | None => bytes(&[]),
        }
    }

    fn opened_pending(
        &self,
        record: Vec<u8>,
        session: &str,
        key: &KeyEncryptionKey,
    ) -> Option<PendingVerdict> {
        let label = pending_label(self.0.wallet().id(), session.parse().ok()?);
        let plaintext = SealedRecord::from_bytes(record).open(&key.0, &label).ok()?;
        codec::decode(&plaintext).ok()
    }

    /// Forgets a Paillier key that is locked. Store the sealed wallet in the transaction of the
    /// lock.
    #[wasm_bindgen(js_name = forgetKey, unchecked_return_type = "Result<undefined>")]
    pub fn forget_key(&mut self, paillier_key: &str) -> JsValue {
        outcome(parse("paillierKey", paillier_key).map(|id| {
            self.0.forget_key(id);
            JsValue::UNDEFINED
        }))
    }

    /// The record, sealed.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn seal(&self, key: &KeyEncryptionKey) -> JsValue {
        outcome(self.0.seal(&key.0).map(|record| bytes(record.as_bytes())).map_err(Failure::from))
    }

    /// Opens what `seal` sealed for this wallet id. The kind `record` says that it was changed,
    /// moved, or sealed under another key.
    #[wasm_bindgen(unchecked_return_type = "Result<DeviceWallet>")]
    #[must_use]
    pub fn open(record: Vec<u8>, key: &KeyEncryptionKey, wallet: &str) -> JsValue {
        outcome(parse("wallet", wallet).and_then(|wallet| {
            StoredWallet::open(&SealedRecord::from_bytes(record), &key.0, wallet, default_arithmetic())
                .map(Self)
                .map_err(Failure::from)
        }))
    }
}
