//! The other side, for tests and benchmarks under Node: a backend party that keeps everything in
//! memory and whose parameters are published primes, and single operations to measure. **Never in
//! what is shipped.**

use std::{collections::BTreeMap, sync::Arc};

use duet_adversary::{responder::respond_with, test_fixtures};
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::{Card, VerifiedCard},
    codec,
    curve::{Point, SecretScalar},
    enrolment::{EnrolmentOffer, OfferVerifier, VerifiedEnrolment},
    identity::PartyKeys,
    ids::{CardFingerprint, Epoch, PaillierKeyId, PartyId, SessionId, ShareIndex, WalletId},
    natural::Natural,
    package::{PreparedShare, Receiver},
    paillier::{Ciphertext, DecryptionKey, EncryptionNonce},
    proofs::{
        factor::FactorProof, log_star, modulus::ModulusProof, parameters::ParametersProof,
        schnorr::SchnorrProof,
    },
    receipt::ReceiptBundle,
    responder::{AwaitingOpening, Charged, Responder, ResponderSetup},
    ring_pedersen::{Parameters, Trapdoor},
    share::KeyShare,
    transcript::{Binding, ProofContext},
};
use duet_wire::{
    Code, JobId, Manifest, Refusal, Seat, SignedRequest,
    approval::{ApprovalReply, WaitingJob},
    card_request::{CardReply, CardRequest},
    gateway::{Authentication, ClientFrame, Limits, ServerFrame},
    seating::Seated,
};
use getrandom::rand_core::Rng as _;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::{
    convert::{array, bytes, encoded, milliseconds, parse, system_rng},
    failure::{Failure, outcome},
    object::object,
};

fn misuse(error: impl core::fmt::Display) -> Failure {
    Failure::Misuse(error.to_string())
}

/// What the device sent does not hold.
fn by_device(refusal: impl core::fmt::Display) -> Failure {
    Failure::Paper { message: refusal.to_string(), culprit: "device".to_owned() }
}

/// A backend party in memory.
#[wasm_bindgen]
pub struct TestParty {
    index: ShareIndex,
    keys: Arc<PartyKeys>,
    card: Arc<Card>,
    pinned: BTreeMap<PartyId, CardFingerprint>,
    peers: Vec<Card>,
    prepared: Option<PreparedShare>,
    committed: Option<Committed>,
}

#[derive(Clone)]
struct Committed {
    share: Arc<KeyShare>,
    enrolment: Arc<VerifiedEnrolment>,
    device: Arc<Card>,
}

#[wasm_bindgen]
impl TestParty {
    /// A party that holds the shares of this index (2 or 3).
    #[wasm_bindgen(unchecked_return_type = "Result<TestParty>")]
    #[must_use]
    pub fn create(name: &str, share: u8) -> JsValue {
        outcome(Self::made(name, share))
    }

    fn made(name: &str, share: u8) -> Result<Self, Failure> {
        let index = ShareIndex::try_from(share).map_err(misuse)?;
        let keys = PartyKeys::generate(&mut system_rng());
        let (parameters, trapdoor) =
            test_fixtures::ring_pedersen(usize::from(share), default_arithmetic(), &mut system_rng());
        let card = Card::new_verifier(parse("name", name)?, &keys, &parameters, &trapdoor, &mut system_rng());
        Ok(Self {
            index,
            keys: Arc::new(keys),
            card: Arc::new(card),
            pinned: BTreeMap::new(),
            peers: Vec::new(),
            prepared: None,
            committed: None,
        })
    }

    /// Its card.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn card(&self) -> JsValue {
        outcome(codec::encode(&*self.card).map(|card| bytes(&card)).map_err(misuse))
    }

    /// The card's fingerprint.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.card.fingerprint().to_string()
    }

    /// A token for a tenant until a time in milliseconds since 1970.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn token(&self, tenant: &str, until: f64) -> JsValue {
        outcome(parse("tenant", tenant).and_then(|tenant| {
            let mut id = [0; 16];
            system_rng().fill_bytes(&mut id);
            let expires_at = milliseconds(until)? / 1000;
            let token =
                AdmissionToken::issue(&self.keys, self.card.party().clone(), tenant, id, expires_at, 1000);
            codec::encode(&token).map(|token| bytes(&token)).map_err(misuse)
        }))
    }

    /// Pins the card of another backend party.
    #[wasm_bindgen(unchecked_return_type = "Result<undefined>")]
    pub fn pin(&mut self, card: &[u8]) -> JsValue {
        outcome(codec::decode::<Card>(card).map_err(Failure::from).map(|card| {
            self.pinned.insert(card.party().clone(), card.fingerprint());
            self.peers.push(card);
            JsValue::UNDEFINED
        }))
    }

    /// Verifies a share package and answers with the receipt.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    pub fn prepare(&mut self, envelope: &[u8], now: f64) -> JsValue {
        outcome(self.receipt(envelope, now))
    }

    fn receipt(&mut self, envelope: &[u8], now: f64) -> Result<JsValue, Failure> {
        let receiver = Receiver {
            index: self.index,
            keys: &self.keys,
            card: &self.card,
            pinned: &self.pinned,
            arithmetic: default_arithmetic(),
        };
        let prepared = receiver
            .open(envelope)
            .and_then(|opened| opened.verify(&receiver, milliseconds(now).unwrap_or_default() / 1000, 0))
            .map_err(by_device)?;
        let receipt = prepared.receipt(&self.keys, &self.card);
        self.prepared = Some(prepared);
        codec::encode(&receipt).map(|receipt| bytes(&receipt)).map_err(misuse)
    }

    /// Commits and answers with the acknowledgement.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    pub fn commit(&mut self, bundle: &[u8]) -> JsValue {
        outcome(self.acknowledgement(bundle))
    }

    fn acknowledgement(&mut self, bundle: &[u8]) -> Result<JsValue, Failure> {
        let bundle: ReceiptBundle = codec::decode(bundle)?;
        let prepared = self.prepared.take().ok_or_else(|| misuse("nothing is prepared"))?;
        let peers: Vec<&Card> = self.peers.iter().collect();
        let order = bundle.verify(&prepared, &self.card, &peers).map_err(by_device)?;
        let (share, enrolment, device) = prepared.into_parts();
        self.committed = Some(Committed { share: Arc::new(share), enrolment: Arc::new(enrolment), device });
        codec::encode(&order.acknowledge(&self.keys)).map(|ack| bytes(&ack)).map_err(misuse)
    }

    /// Verifies an enrolment offer and answers the device under its new Paillier key from now on:
    /// the message that says so.
    #[wasm_bindgen(js_name = takeOffer, unchecked_return_type = "Result<Uint8Array>")]
    pub fn take_offer(&mut self, request: &[u8]) -> JsValue {
        outcome(self.enrolled(request))
    }

    fn enrolled(&mut self, request: &[u8]) -> Result<JsValue, Failure> {
        let CardRequest::Enrol { offer } = codec::decode(request)? else {
            return Err(misuse("not an enrolment"));
        };
        let offer: EnrolmentOffer = codec::decode(&offer)?;
        let committed = self.committed.as_mut().ok_or_else(|| misuse("nothing is committed"))?;
        let verifier = OfferVerifier {
            wallet: committed.share.wallet(),
            index: self.index,
            card: &self.card,
            initiator: &committed.device,
            modulus: None,
            newest_generation: Some(committed.enrolment.generation()),
            arithmetic: default_arithmetic(),
        };
        let (enrolment, _) = verifier.verify(&offer).map_err(misuse)?;
        committed.enrolment = Arc::new(enrolment);
        encoded(&CardReply::Enrolled)
    }

    /// Its answer to a question for its card.
    #[wasm_bindgen(js_name = cardReply, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn card_reply(&self) -> JsValue {
        outcome(
            codec::encode(&*self.card).map_err(misuse).and_then(|card| encoded(&CardReply::Card { card })),
        )
    }

    /// Checks a manifest and takes message 1: the state and message 2.
    #[wasm_bindgen(unchecked_return_type = "Result<Step<TestResponder>>")]
    #[must_use]
    pub fn respond(&self, manifest: &[u8], message: &[u8], now: f64) -> JsValue {
        outcome(self.responded(manifest, message, now))
    }

    fn responded(&self, manifest: &[u8], message: &[u8], now: f64) -> Result<JsValue, Failure> {
        let Committed { share, enrolment, device } =
            self.committed.clone().ok_or_else(|| misuse("nothing is committed"))?;
        let seated = Seated::check(manifest, &share, milliseconds(now)?)?;
        let setup = ResponderSetup {
            manifest: manifest.to_vec(),
            session: seated.manifest.session,
            digest: seated.digest,
            path: seated.request.path,
            share,
            enrolment,
            keys: Arc::clone(&self.keys),
            card: Arc::clone(&self.card),
            initiator: device,
        };
        let (state, message) = Responder::accept(setup, message, &mut system_rng())?;
        Ok(object([("state", TestResponder(state).into()), ("message", bytes(&message))]))
    }
}

/// The responder's side of a session.
#[wasm_bindgen]
pub struct TestResponder(AwaitingOpening);

#[wasm_bindgen]
impl TestResponder {
    /// Takes message 3: message 4.
    #[wasm_bindgen(unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn receive(self, message: &[u8]) -> JsValue {
        outcome(self.0.receive(message).map_err(Failure::from).and_then(|ready| {
            let (session, wallet, digest) = ready.charge();
            let charged = Charged::committed_durably(session, wallet, digest);
            let (message, _) = ready.respond(charged, None, &mut system_rng())?;
            Ok(bytes(&message))
        }))
    }
}

#[wasm_bindgen]
impl TestResponder {
    /// Takes message 3 and answers with a ciphertext that is authentic and holds no signature.
    #[wasm_bindgen(js_name = receiveAndCheat, unchecked_return_type = "Result<Uint8Array>")]
    #[must_use]
    pub fn receive_and_cheat(self, message: &[u8]) -> JsValue {
        outcome(self.0.receive(message).map_err(Failure::from).and_then(|ready| {
            let (message, _) = respond_with(ready, &Natural::from(5))?;
            Ok(bytes(&message))
        }))
    }
}

/// Signs a request document with a requester's Ed25519 secret key (32 bytes).
#[wasm_bindgen(
    js_name = signRequest,
    unchecked_return_type = "Result<{ requester: Uint8Array; signature: Uint8Array }>"
)]
#[must_use]
pub fn sign_request(document: &[u8], secret_key: &[u8]) -> JsValue {
    outcome(array("secretKey", secret_key).and_then(|secret| {
        crate::verify::signed_request(document, &duet_wire::signing::SigningKey::from_bytes(&secret))
    }))
}

/// One frame of each kind that a gateway sends, in the order of their numbers.
#[wasm_bindgen(js_name = testServerFrames, unchecked_return_type = "Uint8Array[]")]
#[must_use]
pub fn test_server_frames() -> js_sys::Array {
    let wallet = WalletId([2; 32]);
    [
        ServerFrame::Challenge {
            nonce: [1; 32],
            protocol: 1,
            build: "b1".to_owned(),
            limits: Limits { max_frame_bytes: 1000, idle_s: 60 },
        },
        ServerFrame::Authenticated { wallet },
        ServerFrame::Reply { id: 7, message: vec![1, 2] },
        ServerFrame::Refused { id: None, refusal: Refusal::new(Code::BadSignature, "no") },
        ServerFrame::Waiting { wallet, jobs: 3 },
    ]
    .iter()
    .filter_map(|frame| encoded(frame).ok())
    .collect()
}

/// A device's frame as Rust prints it.
#[wasm_bindgen(js_name = testClientFrame, unchecked_return_type = "Result<string>")]
#[must_use]
pub fn test_client_frame(frame: &[u8]) -> JsValue {
    outcome(codec::decode::<ClientFrame>(frame).map(|frame| format!("{frame:?}")).map_err(Failure::from))
}

/// Whether an `Authenticate` frame holds for a challenge and a device's card at `now`.
#[wasm_bindgen(js_name = testAuthenticate, unchecked_return_type = "Result<undefined>")]
#[must_use]
pub fn test_authenticate(frame: &[u8], challenge: &[u8], card: &[u8], now: f64) -> JsValue {
    outcome(authenticated(frame, challenge, card, now).map(|()| JsValue::UNDEFINED))
}

fn authenticated(frame: &[u8], challenge: &[u8], card: &[u8], now: f64) -> Result<(), Failure> {
    let ClientFrame::Authenticate { wallet, issued_at_ms, signature } = codec::decode(frame)? else {
        return Err(misuse("another frame"));
    };
    let card: Card = codec::decode(card)?;
    Authentication { challenge: array("challenge", challenge)?, wallet, issued_at_ms }
        .verify(&signature, card.identity().as_bytes(), milliseconds(now)?)
        .map_err(|error| Failure::BadSignature(error.to_string()))
}

/// An orchestrator's answer with one waiting job.
#[wasm_bindgen(js_name = testWaitingJobs, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn test_waiting_jobs(document: &[u8], requester: &[u8], signature: &[u8]) -> JsValue {
    outcome(signed(document, requester, signature).and_then(|request| {
        let job = request.verify().map_err(duet_wire::Problem::from)?.job();
        let honest = WaitingJob { job, request: request.clone(), created_at_ms: 5 };
        // Another one under the same signature, and one under another name: neither may be shown.
        let mut changed = honest.clone();
        changed.request.body.push(b' ');
        let renamed = WaitingJob { job: JobId([9; 16]), ..honest.clone() };
        encoded(&ApprovalReply::Jobs { jobs: vec![changed, honest, renamed], more: false })
    }))
}

/// An orchestrator's no.
#[wasm_bindgen(js_name = testRefusal, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn test_refusal(code: &str, message: &str) -> JsValue {
    outcome(
        parse("code", code).and_then(|code| encoded(&ApprovalReply::Refused(Refusal::new(code, message)))),
    )
}

fn signed(document: &[u8], requester: &[u8], signature: &[u8]) -> Result<SignedRequest, Failure> {
    Ok(SignedRequest {
        body: document.to_vec(),
        requester: array("requester", requester)?,
        signature: array("signature", signature)?,
    })
}

/// A session's manifest, as an orchestrator makes it, for the device and one other.
#[expect(clippy::too_many_arguments, reason = "called by position from the tests only")]
#[wasm_bindgen(js_name = testManifest, unchecked_return_type = "Result<Uint8Array>")]
#[must_use]
pub fn test_manifest(
    wallet: &str,
    paillier_key: &str,
    responder: &str,
    responder_share: u8,
    document: &[u8],
    requester: &[u8],
    signature: &[u8],
    expires_at: f64,
) -> JsValue {
    outcome(signed(document, requester, signature).and_then(|request| {
        manifest(wallet, paillier_key, (responder, responder_share), request, expires_at)
    }))
}

fn manifest(
    wallet: &str,
    paillier_key: &str,
    (responder, responder_share): (&str, u8),
    request: SignedRequest,
    expires_at: f64,
) -> Result<JsValue, Failure> {
    let mut session = [0; 16];
    system_rng().fill_bytes(&mut session);
    let manifest = Manifest {
        session: SessionId(session),
        job: request.verify().map_err(duet_wire::Problem::from)?.job(),
        attempt: 1,
        wallet: parse::<WalletId>("wallet", wallet)?,
        epoch: Epoch(0),
        paillier_key: parse::<PaillierKeyId>("paillierKey", paillier_key)?,
        initiator: Seat { party: parse("initiator", "device")?, index: ShareIndex::Device },
        responder: Seat {
            party: parse("responder", responder)?,
            index: ShareIndex::try_from(responder_share).map_err(misuse)?,
        },
        request,
        expires_at_ms: milliseconds(expires_at)?,
    };
    manifest.encode().map(|manifest| bytes(&manifest)).map_err(misuse)
}

/// Everything the proofs are made from, with one of each made.
#[wasm_bindgen]
pub struct ProofBench {
    context: ProofContext,
    key: DecryptionKey,
    parameters: Parameters,
    trapdoor: Trapdoor,
    secret: SecretScalar,
    point: Point,
    ciphertext: Ciphertext,
    nonce: EncryptionNonce,
    card: Arc<Card>,
    modulus_proof: ModulusProof,
    factor_proof: FactorProof,
    log_star_proof: log_star::LogStarProof,
    schnorr_proof: SchnorrProof,
}

#[wasm_bindgen]
impl ProofBench {
    /// Makes one of each proof.
    #[wasm_bindgen(unchecked_return_type = "Result<ProofBench>")]
    #[must_use]
    pub fn create() -> JsValue {
        outcome(Self::made())
    }

    fn made() -> Result<Self, Failure> {
        let rng = &mut system_rng();
        let party: PartyId = parse("party", "prover")?;
        let context = ProofContext {
            prover: party.clone(),
            verifier: None,
            wallet: None,
            epoch: Epoch(0),
            paillier_key: None,
            binding: Binding::Session([7; 32]),
        };
        let key = test_fixtures::decryption_key(0, default_arithmetic());
        let (parameters, trapdoor) = test_fixtures::ring_pedersen(1, default_arithmetic(), rng);
        let secret = SecretScalar::random(rng);
        let point = secret.public();
        let (ciphertext, nonce) = key.encryption_key().encrypt(&secret.to_natural(), rng).map_err(misuse)?;
        let statement = log_star::Statement {
            key: key.encryption_key(),
            ciphertext: &ciphertext,
            point: &point,
            parameters: &parameters,
        };
        let card = Card::new_verifier(party, &PartyKeys::generate(rng), &parameters, &trapdoor, rng);
        Ok(Self {
            card: Arc::new(card),
            modulus_proof: ModulusProof::prove(&key, &context, rng).map_err(misuse)?,
            factor_proof: FactorProof::prove(&key, &parameters, &context, rng),
            log_star_proof: log_star::LogStarProof::prove(&statement, &secret, &nonce, &context, rng)
                .map_err(misuse)?,
            schnorr_proof: SchnorrProof::prove(&secret, &context, rng),
            context,
            key,
            parameters,
            trapdoor,
            secret,
            point,
            ciphertext,
            nonce,
        })
    }

    /// The operations that [`Self::run`] knows.
    #[must_use]
    pub fn operations() -> Vec<String> {
        [
            "paillier.encrypt",
            "paillier.decrypt",
            "proof.modulus.prove",
            "proof.modulus.verify",
            "proof.factor.prove",
            "proof.factor.verify",
            "proof.log-star.prove",
            "proof.log-star.verify",
            "proof.parameters.prove",
            "proof.parameters.verify",
            "proof.schnorr.prove",
            "proof.schnorr.verify",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Does one of the operations, once.
    #[wasm_bindgen(unchecked_return_type = "Result<undefined>")]
    #[must_use]
    pub fn run(&self, operation: &str) -> JsValue {
        outcome(self.did(operation).map(|()| JsValue::UNDEFINED))
    }

    fn did(&self, operation: &str) -> Result<(), Failure> {
        let rng = &mut system_rng();
        let Self { context, key, parameters, secret, .. } = self;
        let statement = log_star::Statement {
            key: key.encryption_key(),
            ciphertext: &self.ciphertext,
            point: &self.point,
            parameters,
        };
        match operation {
            "paillier.encrypt" => {
                drop(key.encryption_key().encrypt(&secret.to_natural(), rng).map_err(misuse)?)
            }
            "paillier.decrypt" => drop(key.decrypt(&self.ciphertext, rng)),
            "proof.modulus.prove" => drop(ModulusProof::prove(key, context, rng).map_err(misuse)?),
            "proof.modulus.verify" => {
                self.modulus_proof.verify(key.encryption_key(), context).map_err(misuse)?;
            }
            "proof.factor.prove" => drop(FactorProof::prove(key, parameters, context, rng)),
            "proof.factor.verify" => {
                self.factor_proof.verify(key.encryption_key(), parameters, context).map_err(misuse)?;
            }
            "proof.log-star.prove" => drop(
                log_star::LogStarProof::prove(&statement, secret, &self.nonce, context, rng)
                    .map_err(misuse)?,
            ),
            "proof.log-star.verify" => self.log_star_proof.verify(&statement, context).map_err(misuse)?,
            "proof.parameters.prove" => {
                drop(ParametersProof::prove(parameters, &self.trapdoor, context, rng));
            }
            "proof.parameters.verify" => drop(VerifiedCard::verify(
                Arc::clone(&self.card),
                &self.card.fingerprint(),
                default_arithmetic(),
            )?),
            "proof.schnorr.prove" => drop(SchnorrProof::prove(secret, context, rng)),
            "proof.schnorr.verify" => self.schnorr_proof.verify(&self.point, context).map_err(misuse)?,
            _ => return Err(misuse("no such operation")),
        }
        Ok(())
    }
}
