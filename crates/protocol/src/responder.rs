//! The responder's side of a session (P2 of Lindell 2017). Each step consumes its state, so one
//! session can never give two answers.
//!
//! [`Responder::accept`] → [`AwaitingOpening::receive`] → [`ReadyToRespond::answer`] →
//! [`UnchargedAnswer::release`].

use std::sync::Arc;

use rand_core::Rng as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    card::Card,
    channel::{Channel, Handshake},
    curve::{Point, Scalar},
    enrolment::VerifiedEnrolment,
    hedge::{self, Entropy, Hedge, Purpose},
    identity::PartyKeys,
    ids::{SessionId, WalletId},
    natural::Natural,
    nonce::Nonce,
    paillier::{EncryptError, masked_plaintext},
    proofs::schnorr::SchnorrProof,
    public_key::DerivationPath,
    randomizer::{SessionRandomizer, SessionRandomizerDraw},
    session::{
        Agreement, ApiMisuse, CipherEvidence, CipherStatement, MAX_ROUND_MESSAGE_SIZE_BYTES, NonceCommitment,
        NonceOpening, PeerFault, ResponderNonce, Round, SessionError, SignedCipher, Terms, ciphertext_hash,
        commit, decode, encode, max_handshake_size_bytes, signature_r,
    },
    share::{KeyShare, lagrange},
};

/// The responder's inputs of a session. The caller has already checked the requester's signature,
/// the policy, and that the session is new. It has derived `digest` from the payload itself.
pub struct ResponderSetup {
    /// The session's manifest, exactly as received.
    pub manifest: Vec<u8>,
    /// The session's name in the manifest.
    pub session: SessionId,
    /// The digest to sign: 32 bytes.
    pub digest: [u8; 32],
    /// The path of the wallet's key that signs.
    pub path: DerivationPath,
    /// The responder's share.
    pub share: Arc<KeyShare>,
    /// The initiator's encrypted share under its Paillier key, verified before.
    pub enrolment: Arc<VerifiedEnrolment>,
    /// The responder's secret keys.
    pub keys: Arc<PartyKeys>,
    /// The responder's own card.
    pub card: Arc<Card>,
    /// The initiator's card, pinned.
    pub initiator: Arc<Card>,
}

/// Confirms that the responder has durably charged its policy limits for a session. Without it no
/// answer leaves, so an initiator that takes the signature and reports failure gets no refund.
#[derive(Debug)]
pub struct Charged {
    session: SessionId,
    wallet: WalletId,
    digest: [u8; 32],
}

impl Charged {
    /// For implementations of a share store only. Call it after the row of `session`, unique for
    /// ever, is durable. A row that existed before is not a charge, and the session must not
    /// answer.
    #[must_use]
    pub const fn committed_durably(session: SessionId, wallet: WalletId, digest: [u8; 32]) -> Self {
        Self { session, wallet, digest }
    }
}

/// The start of a session on the responder's side.
#[derive(Debug)]
pub struct Responder;

impl Responder {
    /// Reads message 1, draws the nonce, and returns message 2. It does no Paillier work, because
    /// message 1 can be a replay. Only [`AwaitingOpening::draw_randomizer`] may begin before
    /// message 3, and the caller bounds it.
    ///
    /// # Errors
    /// When the setup contradicts itself, or message 1 is not authentic in this session.
    pub fn accept(
        setup: ResponderSetup,
        message1: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingOpening, Vec<u8>), SessionError> {
        accept_with(setup, message1, None, entropy)
    }
}

pub(crate) fn agree(setup: &ResponderSetup) -> Result<Agreement, ApiMisuse> {
    let wallet = setup.share.wallet();
    let enrolment = &setup.enrolment;
    if enrolment.wallet() != wallet.id()
        || enrolment.epoch() != wallet.epoch()
        || enrolment.responder_index() != setup.share.index()
    {
        return Err(ApiMisuse::Enrolment);
    }
    let terms = Terms {
        manifest: &setup.manifest,
        session: setup.session,
        digest: setup.digest,
        path: &setup.path,
        wallet,
        paillier_key: enrolment.paillier_key(),
        paillier_owner: enrolment.initiator(),
        initiator: (enrolment.initiator_index(), &setup.initiator),
        responder: (setup.share.index(), &setup.card),
    };
    Agreement::new(&terms, &setup.card, &setup.keys)
}

/// Accepts with a nonce that the caller chose ([`crate::door`]), or with a fresh one.
pub(crate) fn accept_with(
    setup: ResponderSetup,
    message1: &[u8],
    chosen: Option<Nonce>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitingOpening, Vec<u8>), SessionError> {
    const ROUND: Round = Round::Commitment;
    let agreement = agree(&setup)?;
    if message1.len() > max_handshake_size_bytes::<NonceCommitment>() {
        return Err(SessionError::NotAuthentic(ROUND));
    }
    let internal = |_| ApiMisuse::Internal("opening the channel");
    let mut handshake = Handshake::responder(&setup.keys, setup.initiator.noise_key(), &agreement.prologue())
        .map_err(internal)?;
    let payload = handshake.read(message1).map_err(SessionError::not_authentic(ROUND))?;
    let NonceCommitment { commitment } = decode(&payload, ROUND, setup.initiator.party())?;

    let sid2 = agreement.sid2(&handshake.hash());
    let mut hedge = Hedge::new(entropy, &*setup.share.secret().to_bytes(), &sid2);
    let nonce = chosen.unwrap_or_else(|| Nonce::draw(hedge.generator(Purpose::ResponderNonce)));
    let mut ephemeral = Zeroizing::new([0; 32]);
    hedge.generator(Purpose::Ephemeral).fill_bytes(ephemeral.as_mut());
    let point = nonce.public();
    let proof = SchnorrProof::prove(nonce.secret(), &agreement.responder_context(sid2), entropy);
    let message = handshake.write(&encode(&ResponderNonce { point, proof })?, ephemeral).map_err(internal)?;
    let sid = agreement.sid(&handshake.hash());
    let channel = handshake.finish().map_err(internal)?;
    Ok((AwaitingOpening { setup, agreement, channel, sid2, sid, commitment, nonce }, message))
}

/// Message 2 is out; message 3 is due.
///
/// ```compile_fail
/// fn twice(state: duet_protocol::responder::AwaitingOpening) {
///     let again = state.clone();
/// }
/// ```
#[must_use = "a session that is dropped has to be reported as failed"]
pub struct AwaitingOpening {
    setup: ResponderSetup,
    agreement: Agreement,
    channel: Channel,
    sid2: [u8; 32],
    sid: [u8; 32],
    commitment: [u8; 32],
    nonce: Nonce,
}

impl core::fmt::Debug for AwaitingOpening {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AwaitingOpening(session {}, nonce redacted)", self.agreement.session)
    }
}

/// Starts the `r̃^N` of the session `sid2`.
fn draw_randomizer(
    setup: &ResponderSetup,
    sid2: &[u8; 32],
    entropy: &mut dyn Entropy,
) -> SessionRandomizerDraw {
    let share = setup.share.secret().to_bytes();
    let generator = hedge::generator(entropy, &*share, Purpose::Randomizer, sid2);
    SessionRandomizerDraw::new(setup.enrolment.encryption_key().clone(), *sid2, generator)
}

impl AwaitingOpening {
    /// The session's `r̃^N`, for computation while messages 2 and 3 travel. It depends on message
    /// 1, and no other session accepts it.
    ///
    /// # Security
    /// Message 1 can be a replay, so the caller bounds how many of these it computes at a time.
    pub fn draw_randomizer(&self, entropy: &mut dyn Entropy) -> SessionRandomizerDraw {
        draw_randomizer(&self.setup, &self.sid2, entropy)
    }

    /// Checks the opening and the initiator's nonce proof. They show that the initiator takes part
    /// now, so the responder may charge the answer.
    ///
    /// # Errors
    /// When message 3 is not authentic, or opens another nonce, or its proof does not hold.
    pub fn receive(mut self, message3: &[u8]) -> Result<ReadyToRespond, SessionError> {
        const ROUND: Round = Round::Opening;
        let initiator = self.setup.initiator.party();
        if message3.len() > MAX_ROUND_MESSAGE_SIZE_BYTES {
            return Err(SessionError::NotAuthentic(ROUND));
        }
        let payload = self.channel.read(message3).map_err(SessionError::not_authentic(ROUND))?;
        let opening: NonceOpening = decode(&payload, ROUND, initiator)?;
        let sid1 = self.agreement.sid1();
        if commit(&sid1, &opening.point, &opening.proof, &opening.blinding) != self.commitment {
            return Err(SessionError::peer(initiator, PeerFault::Commitment));
        }
        opening
            .proof
            .verify(&opening.point, &self.agreement.initiator_context(sid1))
            .map_err(|_| SessionError::peer(initiator, PeerFault::NonceProof))?;
        // R = k2·R1.
        let (r, _) = opening
            .point
            .mul(self.nonce.secret().as_scalar())
            .as_ref()
            .and_then(signature_r)
            .ok_or_else(|| SessionError::peer(initiator, PeerFault::JointNonce))?;
        let Self { setup, agreement, channel, sid2, sid, nonce, .. } = self;
        Ok(ReadyToRespond { setup, agreement, channel, sid2, sid, nonce, r })
    }
}

/// The initiator has opened its nonce. One answer may leave after it is charged.
///
/// ```compile_fail
/// fn twice(state: duet_protocol::responder::ReadyToRespond) {
///     let again = state.clone();
/// }
/// ```
#[must_use = "a session that is dropped has to be reported as failed"]
pub struct ReadyToRespond {
    setup: ResponderSetup,
    agreement: Agreement,
    channel: Channel,
    sid2: [u8; 32],
    sid: [u8; 32],
    nonce: Nonce,
    r: Scalar,
}

impl core::fmt::Debug for ReadyToRespond {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ReadyToRespond(session {}, nonce redacted)", self.agreement.session)
    }
}

/// The one answer of a session, before it is charged. It does not leave without a [`Charged`].
#[must_use = "a session that is dropped has to be reported as failed"]
pub struct UnchargedAnswer {
    charge: (SessionId, WalletId, [u8; 32]),
    nonce_hash: [u8; 32],
    message: Vec<u8>,
    evidence: CipherEvidence,
}

impl core::fmt::Debug for UnchargedAnswer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UnchargedAnswer(session {}, answer redacted)", self.evidence.session)
    }
}

impl UnchargedAnswer {
    /// The facts to charge: session, wallet and digest.
    #[must_use]
    pub const fn charge(&self) -> (SessionId, WalletId, [u8; 32]) {
        self.charge
    }

    /// The hash of the responder's public nonce, for the audit log: no two answers share one.
    #[must_use]
    pub const fn nonce_hash(&self) -> [u8; 32] {
        self.nonce_hash
    }

    /// The hash of the answer's ciphertext, for the audit log.
    #[must_use]
    pub const fn ciphertext_hash(&self) -> [u8; 32] {
        self.evidence.ciphertext_hash
    }

    /// Message 4, and the evidence of it.
    ///
    /// # Errors
    /// [`SessionError::ApiMisuse`] when the charge is for something else.
    pub fn release(self, charged: Charged) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
        if (charged.session, charged.wallet, charged.digest) != self.charge {
            return Err(ApiMisuse::Charge.into());
        }
        Ok((self.message, self.evidence))
    }
}

/// `v` and `u` of Lindell 2017, protocol 3.3, step 4, with Shamir shares: the signature is
/// `k1⁻¹·(v·x_i + u)`. Wiped on drop.
pub(crate) struct AffineTerms {
    pub(crate) multiplier: Zeroizing<Scalar>,
    pub(crate) plaintext: Zeroizing<Scalar>,
}

impl ReadyToRespond {
    /// The session's `r̃^N`, like [`AwaitingOpening::draw_randomizer`], for callers that did not
    /// start it before message 3.
    pub fn draw_randomizer(&self, entropy: &mut dyn Entropy) -> SessionRandomizerDraw {
        draw_randomizer(&self.setup, &self.sid2, entropy)
    }

    /// The facts to charge before [`Self::respond`]: session, wallet and digest.
    #[must_use]
    pub const fn charge(&self) -> (SessionId, WalletId, [u8; 32]) {
        (self.agreement.session, self.agreement.wallet, self.agreement.digest)
    }

    /// Computes and signs the answer: message 4, and the evidence of it for the audit log.
    /// `randomizer` is the session's `r̃^N` ([`AwaitingOpening::draw_randomizer`]). Without one,
    /// this computes it now.
    ///
    /// # Errors
    /// [`SessionError::ApiMisuse`] when the charge is for something else, or the randomizer for
    /// another session.
    pub fn respond(
        self,
        charged: Charged,
        randomizer: Option<SessionRandomizer>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
        self.answer(randomizer, entropy)?.release(charged)
    }

    /// Computes and signs the answer before it is charged, so that the caller can record the charge
    /// together with the answer's hash. The answer stays inside until then.
    ///
    /// # Errors
    /// [`SessionError::ApiMisuse`] when the randomizer is another session's.
    pub fn answer(
        mut self,
        randomizer: Option<SessionRandomizer>,
        entropy: &mut dyn Entropy,
    ) -> Result<UnchargedAnswer, SessionError> {
        let terms = self.terms()?;
        let enrolment = &self.setup.enrolment;
        let randomizer = randomizer
            .unwrap_or_else(|| self.draw_randomizer(entropy).compute())
            .of_session(&self.sid2)
            .ok_or(ApiMisuse::Randomizer)?;
        // c3 = c_i^v · (1 + (u + ρ·q)·N) · r̃^N mod N².
        let share = self.setup.share.secret().to_bytes();
        let mut mask = hedge::generator(entropy, &*share, Purpose::Mask, &self.sid2);
        let plaintext = masked_plaintext(&terms.plaintext, &mut mask);
        let ciphertext =
            enrolment.affine(&terms.multiplier, &plaintext, randomizer).map_err(|error| match error {
                EncryptError::ForeignRandomizer => ApiMisuse::Randomizer,
                EncryptError::PlaintextRange | EncryptError::ForeignCiphertext => {
                    ApiMisuse::Internal("masking the answer")
                }
            })?;
        let (charge, nonce_hash) = (self.charge(), self.nonce.public_hash());
        let (message, evidence) = self.send(ciphertext.as_natural())?;
        Ok(UnchargedAnswer { charge, nonce_hash, message, evidence })
    }

    /// `v = k2⁻¹·r·λ_i`, `u = k2⁻¹·(m + r·(λ_j·x_j + δ))`, both reduced mod `q`.
    pub(crate) fn terms(&self) -> Result<AffineTerms, ApiMisuse> {
        let share = &self.setup.share;
        let wallet = share.wallet();
        let (own, other) = (share.index(), self.setup.enrolment.initiator_index());
        let own_lagrange = lagrange(own, other).ok_or(ApiMisuse::Roles)?;
        let other_lagrange = lagrange(other, own).ok_or(ApiMisuse::Roles)?;
        let (_, tweak) = wallet
            .public_key()
            .child(wallet.chain_code(), &self.agreement.path)
            .map_err(|_| ApiMisuse::Path)?;
        // Ethereum's digests are 32 bytes, taken mod q as ECDSA does.
        let message = crate::curve::reduce(&Natural::from_be_bytes(&self.agreement.digest));
        let inverse = self.nonce.inverse();
        let mut key = own_lagrange * share.secret().as_scalar() + tweak.0;
        let terms = AffineTerms {
            multiplier: Zeroizing::new(*inverse * self.r * other_lagrange),
            plaintext: Zeroizing::new(*inverse * (message + self.r * key)),
        };
        key.zeroize();
        Ok(terms)
    }

    fn send(&mut self, ciphertext: &Natural) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
        let statement = CipherStatement { sid: self.sid, ciphertext_hash: ciphertext_hash(ciphertext) };
        let signature = self.setup.keys.sign_statement(&statement);
        let answer = SignedCipher { ciphertext: ciphertext.clone(), signature };
        let message =
            self.channel.write(&encode(&answer)?).map_err(|_| ApiMisuse::Internal("sealing the answer"))?;
        let evidence = CipherEvidence {
            session: self.agreement.session,
            responder: self.setup.card.party().clone(),
            sid: statement.sid,
            ciphertext_hash: statement.ciphertext_hash,
            signature,
        };
        Ok((message, evidence))
    }

    /// `R2` ([`crate::door`]).
    pub(crate) const fn nonce_point(&self) -> Point {
        self.nonce.public()
    }

    /// The encrypted share to answer with ([`crate::door`]).
    pub(crate) fn enrolment(&self) -> &VerifiedEnrolment {
        &self.setup.enrolment
    }

    /// Signs and sends any number as the answer ([`crate::door`]).
    pub(crate) fn respond_with(
        mut self,
        ciphertext: &Natural,
    ) -> Result<(Vec<u8>, CipherEvidence), SessionError> {
        self.send(ciphertext)
    }
}

#[cfg(test)]
impl ReadyToRespond {
    pub(crate) fn sid(&self) -> [u8; 32] {
        self.sid
    }

    pub(crate) fn send_payload(&mut self, payload: &[u8]) -> Vec<u8> {
        self.channel.write(payload).unwrap()
    }
}
