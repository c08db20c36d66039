//! The protocol as a session's engine.

use std::sync::Arc;

use duet_protocol::{
    enrolment::VerifiedEnrolment,
    hedge::Entropy,
    ids::{PaillierKeyId, PartyId, SessionId, WalletId},
    initiator::{AuthenticAnswer, AwaitingCipher, AwaitingResponse, Initiator, InitiatorSetup},
    paillier_key::PaillierKey,
    pending::{Judged, PendingVerdict, PendingWritten, Unjudgeable},
    responder::{AwaitingOpening, Charged, Responder, ResponderSetup, UnchargedAnswer},
    session::{CipherEvidence, SessionError},
    share::WalletPublic,
    signature::RecoverableSignature,
    verdict::{self, ForeignToken, GatedSignature, LockDemand, LockWritten, Unlocked},
};

use super::{
    Trace,
    engine::{Engine, Side, Verdict},
};
use crate::{context::Context, error::PartyError, randomizers::Taken, store::EnrolmentRow};

/// Lindell 2017, as `duet-protocol` computes it.
#[derive(Debug)]
pub(crate) struct Protocol;

impl Engine for Protocol {
    type Key = PaillierKey;
    type Enrolment = VerifiedEnrolment;
    type Committed = AwaitingResponse;
    type Opened = AwaitingCipher;
    type Answer = AuthenticAnswer;
    type Good = GatedSignature;
    type Bad = LockDemand;
    type Pending = PendingVerdict;
    type Listening = AwaitingOpening;
    type Randomizer = Taken;
    type Uncharged = UnchargedAnswer;

    async fn key(
        context: &Context,
        id: PaillierKeyId,
        owner: &PartyId,
    ) -> Result<Arc<PaillierKey>, PartyError> {
        context.paillier_key(id, owner).await
    }

    async fn enrolment(context: &Context, row: &EnrolmentRow) -> Result<Arc<VerifiedEnrolment>, PartyError> {
        context.enrolment(row).await
    }

    fn start(
        side: Side,
        paillier: Arc<PaillierKey>,
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingResponse, Vec<u8>), SessionError> {
        let Side { manifest, session, digest, path, share, keys, card, peer_index, peer } = side;
        let setup = InitiatorSetup {
            manifest,
            session,
            digest,
            path,
            share,
            paillier,
            keys,
            card,
            responder_index: peer_index,
            responder: peer,
        };
        Initiator::start(setup, entropy)
    }

    fn nonce_hash(state: &AwaitingResponse) -> [u8; 32] {
        state.nonce_hash()
    }

    fn open(
        state: AwaitingResponse,
        message2: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingCipher, Vec<u8>), SessionError> {
        state.receive(message2, entropy)
    }

    fn authenticate(state: AwaitingCipher, message4: &[u8]) -> Result<AuthenticAnswer, SessionError> {
        state.authenticate(message4)
    }

    fn pending(answer: &AuthenticAnswer) -> PendingVerdict {
        answer.pending()
    }

    fn decrypt(
        answer: AuthenticAnswer,
        written: &PendingWritten,
        entropy: &mut dyn Entropy,
    ) -> Result<Verdict<Self>, SessionError> {
        Ok(match answer.decrypt(written, entropy)? {
            verdict::Verdict::Good(gated) => Verdict::Good(gated),
            verdict::Verdict::Bad(demand) => Verdict::Bad(demand),
        })
    }

    fn release(
        good: GatedSignature,
        unlocked: Unlocked,
    ) -> Result<(RecoverableSignature, [u8; 32]), ForeignToken> {
        good.release(unlocked).map(|(signature, evidence)| (signature, evidence.ciphertext_hash))
    }

    fn evidence(bad: &LockDemand) -> &CipherEvidence {
        bad.evidence()
    }

    fn settle(bad: LockDemand, written: LockWritten) -> Result<PartyId, ForeignToken> {
        bad.settle(written).map(|report| report.culprit().clone())
    }

    fn pending_of(pending: &PendingVerdict) -> (SessionId, PaillierKeyId, WalletId) {
        (pending.session(), pending.paillier_key(), pending.wallet())
    }

    fn judge(
        pending: PendingVerdict,
        wallet: &WalletPublic,
        key: &PaillierKey,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<LockDemand>, Unjudgeable> {
        pending.judge(wallet, key, entropy).map(|judged| match judged {
            Judged::Good => None,
            Judged::Bad(demand) => Some(demand),
        })
    }

    fn accept(
        side: Side,
        enrolment: Arc<VerifiedEnrolment>,
        message1: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingOpening, Vec<u8>), SessionError> {
        let Side { manifest, session, digest, path, share, keys, card, peer_index: _, peer } = side;
        let setup =
            ResponderSetup { manifest, session, digest, path, share, enrolment, keys, card, initiator: peer };
        Responder::accept(setup, message1, entropy)
    }

    fn answer(
        state: AwaitingOpening,
        message3: &[u8],
        randomizer: Taken,
        entropy: &mut dyn Entropy,
    ) -> Result<UnchargedAnswer, SessionError> {
        let state = state.receive(message3)?;
        let randomizer = match randomizer {
            Taken::Computed(randomizer) => Some(randomizer),
            Taken::Table(table) => Some(state.draw_randomizer(entropy).choose(&table)),
            Taken::Nothing => None,
        };
        state.answer(randomizer, entropy)
    }

    fn charge(answer: &UnchargedAnswer) -> (SessionId, WalletId, [u8; 32]) {
        answer.charge()
    }

    fn trace(answer: &UnchargedAnswer) -> Trace {
        Trace { nonce: answer.nonce_hash(), answer: answer.ciphertext_hash() }
    }

    fn charged(answer: UnchargedAnswer, charged: Charged) -> Result<Vec<u8>, SessionError> {
        answer.release(charged).map(|(message, _)| message)
    }
}
