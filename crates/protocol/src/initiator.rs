//! The initiator's side of a session (P1 of Lindell 2017). Each step consumes its state, so no step
//! can be repeated.
//!
//! [`Initiator::start`] → [`AwaitingResponse::receive`] → [`AwaitingCipher::authenticate`] →
//! [`AuthenticAnswer::decrypt`] → [`Verdict`]. The nonce lives in these states only. A crash, a
//! redelivery or a duplicate therefore means a new session.

use std::sync::Arc;

use rand_core::Rng as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    card::Card,
    channel::{Channel, Handshake},
    curve::{Point, Scalar, reduce},
    hedge::{Entropy, Hedge, Purpose},
    identity::PartyKeys,
    ids::{SessionId, ShareIndex},
    natural::Natural,
    nonce::Nonce,
    paillier::Ciphertext,
    paillier_key::PaillierKey,
    pending::{PendingVerdict, PendingWritten},
    proofs::schnorr::SchnorrProof,
    public_key::{DerivationPath, PublicKey},
    session::{
        Agreement, ApiMisuse, CipherEvidence, CipherStatement, MAX_ROUND_MESSAGE_SIZE_BYTES, NonceCommitment,
        NonceOpening, PeerFault, ResponderNonce, Round, SessionError, SignedCipher, Terms, ciphertext_hash,
        commit, decode, encode, max_handshake_size_bytes, signature_r,
    },
    share::KeyShare,
    signature::{self, RecoverableSignature},
    verdict::{GatedSignature, LockDemand, Verdict},
};

/// The initiator's inputs of a session. The caller has already checked the requester's signature,
/// the policy, and that the Paillier key is not locked. It has derived `digest` from the payload
/// itself.
pub struct InitiatorSetup {
    /// The session's manifest, exactly as received.
    pub manifest: Vec<u8>,
    /// The session's name in the manifest.
    pub session: SessionId,
    /// The digest to sign: 32 bytes.
    pub digest: [u8; 32],
    /// The path of the wallet's key that signs.
    pub path: DerivationPath,
    /// The initiator's share.
    pub share: Arc<KeyShare>,
    /// The initiator's Paillier key, the one enrolled with this responder.
    pub paillier: Arc<PaillierKey>,
    /// The initiator's secret keys.
    pub keys: Arc<PartyKeys>,
    /// The initiator's own card.
    pub card: Arc<Card>,
    /// The responder's share.
    pub responder_index: ShareIndex,
    /// The responder's card, pinned.
    pub responder: Arc<Card>,
}

/// The start of a session on the initiator's side.
#[derive(Debug)]
pub struct Initiator;

impl Initiator {
    /// Draws the nonce and commits to it: message 1.
    ///
    /// # Errors
    /// [`SessionError::ApiMisuse`] when the setup contradicts itself. Nothing else can fail yet.
    pub fn start(
        setup: InitiatorSetup,
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingResponse, Vec<u8>), SessionError> {
        start_with(setup, None, entropy)
    }
}

pub(crate) fn agree(setup: &InitiatorSetup) -> Result<Agreement, ApiMisuse> {
    let terms = Terms {
        manifest: &setup.manifest,
        session: setup.session,
        digest: setup.digest,
        path: &setup.path,
        wallet: setup.share.wallet(),
        paillier_key: setup.paillier.id(),
        paillier_owner: setup.paillier.owner(),
        initiator: (setup.share.index(), &setup.card),
        responder: (setup.responder_index, &setup.responder),
    };
    Agreement::new(&terms, &setup.card, &setup.keys)
}

/// Starts with a nonce that the caller chose ([`crate::door`]), or with a fresh one.
pub(crate) fn start_with(
    setup: InitiatorSetup,
    chosen: Option<Nonce>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitingResponse, Vec<u8>), SessionError> {
    let agreement = agree(&setup)?;
    let wallet = setup.share.wallet();
    let (child, _) =
        wallet.public_key().child(wallet.chain_code(), &setup.path).map_err(|_| ApiMisuse::Path)?;
    let sid1 = agreement.sid1();
    // Two copies that see the same manifest have the same `sid1`; only the environment differs.
    let mut hedge = Hedge::new(entropy, &*setup.share.secret().to_bytes(), &sid1);
    let nonce = chosen.unwrap_or_else(|| Nonce::draw(hedge.generator(Purpose::InitiatorNonce)));
    let mut blinding = [0; 32];
    hedge.generator(Purpose::Commitment).fill_bytes(&mut blinding);
    let mut ephemeral = Zeroizing::new([0; 32]);
    hedge.generator(Purpose::Ephemeral).fill_bytes(ephemeral.as_mut());
    let point = nonce.public();
    let proof = SchnorrProof::prove(nonce.secret(), &agreement.initiator_context(sid1), entropy);
    let commitment = commit(&sid1, &point, &proof, &blinding);

    let internal = |_| ApiMisuse::Internal("opening the channel");
    let mut handshake = Handshake::initiator(&setup.keys, setup.responder.noise_key(), &agreement.prologue())
        .map_err(internal)?;
    let message = handshake.write(&encode(&NonceCommitment { commitment })?, ephemeral).map_err(internal)?;
    let opening = NonceOpening { point, proof, blinding };
    let common = Common { agreement, child, nonce, paillier: setup.paillier, responder: setup.responder };
    Ok((AwaitingResponse { common, handshake, opening }, message))
}

struct Common {
    agreement: Agreement,
    child: PublicKey,
    nonce: Nonce,
    paillier: Arc<PaillierKey>,
    responder: Arc<Card>,
}

/// Message 1 is out; message 2 is due.
///
/// ```compile_fail
/// fn twice(state: duet_protocol::initiator::AwaitingResponse) {
///     let again = state.clone();
/// }
/// ```
#[must_use = "a session that is dropped has to be reported as failed"]
pub struct AwaitingResponse {
    common: Common,
    handshake: Handshake,
    opening: NonceOpening,
}

impl core::fmt::Debug for AwaitingResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AwaitingResponse(session {}, nonce redacted)", self.common.agreement.session)
    }
}

impl AwaitingResponse {
    /// The hash of the initiator's public nonce, for the audit log: no two sessions share one.
    #[must_use]
    pub fn nonce_hash(&self) -> [u8; 32] {
        self.common.nonce.public_hash()
    }

    /// `R1` ([`crate::door`]).
    pub(crate) const fn nonce_point(&self) -> Point {
        self.opening.point
    }

    /// Checks the responder's nonce proof and opens the commitment: message 3.
    ///
    /// # Errors
    /// When message 2 is not authentic, or the responder did not prove its nonce. The session is
    /// then over, and no key has to be locked.
    pub fn receive(
        mut self,
        message2: &[u8],
        _entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingCipher, Vec<u8>), SessionError> {
        const ROUND: Round = Round::ResponderNonce;
        let Common { agreement, responder, .. } = &self.common;
        if message2.len() > max_handshake_size_bytes::<ResponderNonce>() {
            return Err(SessionError::NotAuthentic(ROUND));
        }
        let sid2 = agreement.sid2(&self.handshake.hash());
        let payload = self.handshake.read(message2).map_err(SessionError::not_authentic(ROUND))?;
        let response: ResponderNonce = decode(&payload, ROUND, responder.party())?;
        response
            .proof
            .verify(&response.point, &agreement.responder_context(sid2))
            .map_err(|_| SessionError::peer(responder.party(), PeerFault::NonceProof))?;
        // R = k1·R2.
        let joint = response.point.mul(self.common.nonce.secret().as_scalar());
        let (r, y_parity) = joint
            .as_ref()
            .and_then(signature_r)
            .ok_or_else(|| SessionError::peer(responder.party(), PeerFault::JointNonce))?;

        let sid = agreement.sid(&self.handshake.hash());
        let internal = |_| ApiMisuse::Internal("finishing the handshake");
        let mut channel = self.handshake.finish().map_err(internal)?;
        let message = channel.write(&encode(&self.opening)?).map_err(internal)?;
        let responder_nonce = response.point;
        Ok((AwaitingCipher { common: self.common, channel, sid, responder_nonce, r, y_parity }, message))
    }
}

/// Message 3 is out; message 4 is due.
#[must_use = "a session that is dropped has to be reported as failed"]
pub struct AwaitingCipher {
    common: Common,
    channel: Channel,
    sid: [u8; 32],
    responder_nonce: Point,
    r: Scalar,
    y_parity: bool,
}

impl core::fmt::Debug for AwaitingCipher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AwaitingCipher(session {}, nonce redacted)", self.common.agreement.session)
    }
}

impl AwaitingCipher {
    /// `r` of the joint nonce `k1·k2·G` ([`crate::door`]).
    pub(crate) const fn signature_r(&self) -> Scalar {
        self.r
    }

    /// Checks that the answer comes from the responder and is a ciphertext. It decrypts nothing
    /// yet.
    ///
    /// # Errors
    /// When message 4 is not authentic, not signed by the responder's card, or not a ciphertext.
    /// Anyone can check that without a secret, so it locks nothing. All results that depend on the
    /// decryption are in the [`Verdict`].
    pub fn authenticate(mut self, message4: &[u8]) -> Result<AuthenticAnswer, SessionError> {
        const ROUND: Round = Round::Cipher;
        let Common { agreement, responder, paillier, .. } = &self.common;
        if message4.len() > MAX_ROUND_MESSAGE_SIZE_BYTES {
            return Err(SessionError::NotAuthentic(ROUND));
        }
        let payload = self.channel.read(message4).map_err(SessionError::not_authentic(ROUND))?;
        let answer: SignedCipher = decode(&payload, ROUND, responder.party())?;
        let ciphertext_hash = ciphertext_hash(&answer.ciphertext);
        responder
            .identity()
            .verify_statement(&CipherStatement { sid: self.sid, ciphertext_hash }, &answer.signature)
            .map_err(|_| SessionError::peer(responder.party(), PeerFault::CipherSignature))?;
        let ciphertext = Ciphertext::parse(&answer.ciphertext, paillier.decryption().encryption_key())
            .map_err(|invalid| SessionError::peer(responder.party(), invalid))?;

        let evidence = CipherEvidence {
            session: agreement.session,
            responder: responder.party().clone(),
            sid: self.sid,
            ciphertext_hash,
            signature: answer.signature,
        };
        let Self { common, responder_nonce, r, y_parity, .. } = self;
        Ok(AuthenticAnswer { common, responder_nonce, r, y_parity, ciphertext, evidence })
    }

    /// Authenticates and decrypts in one step, for callers that keep no pending verdicts.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub fn receive(self, message4: &[u8], entropy: &mut dyn Entropy) -> Result<Verdict, SessionError> {
        Ok(self.authenticate(message4)?.finish(entropy))
    }
}

/// The responder's answer has arrived and is authentic, but not yet known to be right. Decrypt it
/// only after storing [`AuthenticAnswer::pending`].
#[must_use = "a session that is dropped has to be reported as failed"]
pub struct AuthenticAnswer {
    common: Common,
    responder_nonce: Point,
    r: Scalar,
    y_parity: bool,
    ciphertext: Ciphertext,
    evidence: CipherEvidence,
}

impl core::fmt::Debug for AuthenticAnswer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AuthenticAnswer(session {}, nonce redacted)", self.evidence.session)
    }
}

impl AuthenticAnswer {
    /// The record to store before the decryption, so that a bad verdict outlives this process.
    #[must_use]
    pub fn pending(&self) -> PendingVerdict {
        let agreement = &self.common.agreement;
        PendingVerdict {
            paillier_key: agreement.paillier_key,
            wallet: agreement.wallet,
            path: agreement.path.clone(),
            digest: agreement.digest,
            responder_nonce: self.responder_nonce,
            r: self.r.to_bytes().into(),
            ciphertext: self.ciphertext.as_natural().clone(),
            evidence: self.evidence.clone(),
        }
    }

    /// Decrypts the answer, finishes the signature and verifies it.
    ///
    /// # Errors
    /// [`SessionError::ApiMisuse`] when `written` is for another session. Then nothing was
    /// decrypted.
    pub fn decrypt(
        self,
        written: &PendingWritten,
        entropy: &mut dyn Entropy,
    ) -> Result<Verdict, SessionError> {
        if !written.is_for(self.evidence.session) {
            return Err(ApiMisuse::Pending.into());
        }
        Ok(self.finish(entropy))
    }

    /// `c3`, and its plaintext as an integer ([`crate::door`]).
    pub(crate) fn look_into(&self, entropy: &mut dyn Entropy) -> (Natural, Natural) {
        let key = self.common.paillier.decryption();
        (self.ciphertext.as_natural().clone(), key.decrypt(&self.ciphertext, entropy))
    }

    fn finish(self, entropy: &mut dyn Entropy) -> Verdict {
        let signature = self.signature(entropy);
        let Self { common: Common { agreement, .. }, evidence, .. } = self;
        let (paillier_key, session) = (agreement.paillier_key, agreement.session);
        match signature {
            Some(signature) => Verdict::Good(GatedSignature { paillier_key, session, signature, evidence }),
            None => Verdict::Bad(LockDemand { paillier_key, session, evidence }),
        }
    }

    /// `s = k1⁻¹·Dec(c3) mod q`, made low, and verified by the library's verifier under the child's
    /// key before it leaves this function.
    fn signature(&self, entropy: &mut dyn Entropy) -> Option<RecoverableSignature> {
        let Common { agreement, child, nonce, paillier, .. } = &self.common;
        let mut plaintext = reduce(&paillier.decryption().decrypt(&self.ciphertext, entropy));
        let s = *nonce.inverse() * plaintext;
        plaintext.zeroize();
        let signature = RecoverableSignature::normalized(&self.r, &s, self.y_parity)?;
        signature::verify(child, &agreement.digest, &signature).ok()?;
        Some(signature)
    }
}

#[cfg(test)]
impl AwaitingResponse {
    pub(crate) fn opening_mut(&mut self) -> &mut NonceOpening {
        &mut self.opening
    }
}
