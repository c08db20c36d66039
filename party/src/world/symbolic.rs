//! Symbols for the protocol. A nonce and an answer are numbers that may be used once, and a message
//! is what the real one hides. An answer that was changed on its way is not authentic.

use std::sync::Arc;

use duet_protocol::{
    codec::Message,
    hedge::Entropy,
    identity::IdentitySignature,
    ids::{PaillierKeyId, PartyId, SessionId, WalletId},
    pending::{PendingWritten, Unjudgeable},
    responder::Charged,
    session::{CipherEvidence, Round, SessionError},
    share::WalletPublic,
    signature::RecoverableSignature,
    transcript::sha256,
    verdict::{ForeignToken, LockWritten, Unlocked},
};

use serde::{Deserialize, Serialize};

use super::{
    engines::{Seen, Sent, WorldEngine},
    fixture::Fixture,
};
use crate::{
    context::{Context, paillier_label},
    error::PartyError,
    session::{Engine, Side, Trace, Verdict},
    store::EnrolmentRow,
};

/// The symbolic protocol.
#[derive(Debug)]
pub(super) struct Symbolic;

/// What both sides agree on before message 1.
fn agreement(side: &Side) -> [u8; 32] {
    sha256(&[side.manifest.as_slice(), side.session.as_bytes(), &side.digest].concat())
}

/// A message: which one, the agreement, `R1`, `R2`, `c3`, whether `c3` is right, and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Symbols {
    round: u8,
    agreement: [u8; 32],
    r1: u64,
    r2: u64,
    c3: u64,
    is_good: bool,
}

impl Symbols {
    fn encode(&self) -> Vec<u8> {
        let Self { round, agreement, r1, r2, c3, is_good } = self;
        let numbers = [r1.to_be_bytes(), r2.to_be_bytes(), c3.to_be_bytes()].concat();
        let content = [&[*round], agreement.as_slice(), &numbers, &[u8::from(*is_good)]].concat();
        let hash = sha256(&content);
        [content, hash.to_vec()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        let number = |at: usize| Some(u64::from_be_bytes(content.get(at..at + 8)?.try_into().ok()?));
        (sha256(content).as_slice() == hash).then_some(())?;
        Some(Self {
            round: *content.first()?,
            agreement: content.get(1..33)?.try_into().ok()?,
            r1: number(33)?,
            r2: number(41)?,
            c3: number(49)?,
            is_good: *content.get(57)? == 1,
        })
    }

    /// An authentic message of this session that follows what was said before.
    fn read(bytes: &[u8], round: Round, before: &Self) -> Result<Self, SessionError> {
        let number = match round {
            Round::Commitment => 1,
            Round::ResponderNonce => 2,
            Round::Opening => 3,
            Round::Cipher => 4,
        };
        Self::decode(bytes)
            .filter(|read| (read.round, read.agreement) == (number, before.agreement))
            .filter(|read| [0, read.r1].contains(&before.r1) && [0, read.r2].contains(&before.r2))
            .ok_or(SessionError::NotAuthentic(round))
    }
}

/// The state of either side.
pub(super) struct State {
    side: Side,
    key: PaillierKeyId,
    symbols: Symbols,
}

impl State {
    fn wallet(&self) -> WalletId {
        self.side.share.wallet().id()
    }
}

/// Evidence of an answer.
fn evidence(state: &State, responder: &PartyId) -> CipherEvidence {
    CipherEvidence {
        session: state.side.session,
        responder: responder.clone(),
        sid: state.symbols.agreement,
        ciphertext_hash: sha256(&state.symbols.c3.to_be_bytes()),
        signature: IdentitySignature([0; 64]),
    }
}

/// What is stored before a decryption.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    key: PaillierKeyId,
    wallet: WalletId,
    is_good: bool,
    evidence: CipherEvidence,
}

impl Message for Pending {
    const KIND: u8 = 0x3f;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048;
}

/// A key, which its record was read for.
#[derive(Debug)]
pub(super) struct Key(PaillierKeyId);

/// A signature behind the gate: the digest that it is of.
pub(super) struct Good {
    digest: [u8; 32],
    evidence: CipherEvidence,
}

/// The signature of a digest.
fn signature_of(digest: [u8; 32]) -> RecoverableSignature {
    let mut r = sha256(&digest);
    r[0] = 0;
    let mut s = [0; 32];
    s[31] = 1;
    RecoverableSignature::new(r, s, false).unwrap()
}

impl Engine for Symbolic {
    type Key = Key;
    type Enrolment = Key;
    type Committed = State;
    type Opened = State;
    type Answer = State;
    type Good = Good;
    type Bad = CipherEvidence;
    type Pending = Pending;
    type Listening = State;
    type Randomizer = bool;
    type Uncharged = State;

    async fn key(context: &Context, id: PaillierKeyId, _: &PartyId) -> Result<Arc<Key>, PartyError> {
        context.vault.require(&paillier_label(id), "Paillier key").await?;
        Ok(Arc::new(Key(id)))
    }

    async fn enrolment(_: &Context, row: &EnrolmentRow) -> Result<Arc<Key>, PartyError> {
        Ok(Arc::new(Key(row.paillier_key)))
    }

    fn start(side: Side, key: Arc<Key>, entropy: &mut dyn Entropy) -> Result<(State, Vec<u8>), SessionError> {
        let agreement = agreement(&side);
        let symbols = Symbols { round: 1, agreement, r1: entropy.next_u64(), r2: 0, c3: 0, is_good: true };
        Ok((State { side, key: key.0, symbols }, symbols.encode()))
    }

    fn nonce_hash(state: &State) -> [u8; 32] {
        sha256(&state.symbols.r1.to_be_bytes())
    }

    fn open(state: State, message2: &[u8], _: &mut dyn Entropy) -> Result<(State, Vec<u8>), SessionError> {
        let read = Symbols::read(message2, Round::ResponderNonce, &state.symbols)?;
        let symbols = Symbols { round: 3, ..read };
        Ok((State { symbols, ..state }, symbols.encode()))
    }

    fn authenticate(state: State, message4: &[u8]) -> Result<State, SessionError> {
        let symbols = Symbols::read(message4, Round::Cipher, &state.symbols)?;
        Ok(State { symbols, ..state })
    }

    fn pending(answer: &State) -> Pending {
        let evidence = evidence(answer, answer.side.peer.party());
        Pending { key: answer.key, wallet: answer.wallet(), is_good: answer.symbols.is_good, evidence }
    }

    fn decrypt(
        answer: State,
        _: &PendingWritten,
        _: &mut dyn Entropy,
    ) -> Result<Verdict<Self>, SessionError> {
        let evidence = evidence(&answer, answer.side.peer.party());
        Ok(if answer.symbols.is_good {
            Verdict::Good(Good { digest: answer.side.digest, evidence })
        } else {
            Verdict::Bad(evidence)
        })
    }

    fn release(good: Good, _: Unlocked) -> Result<(RecoverableSignature, [u8; 32]), ForeignToken> {
        Ok((signature_of(good.digest), good.evidence.ciphertext_hash))
    }

    fn evidence(bad: &CipherEvidence) -> &CipherEvidence {
        bad
    }

    fn settle(bad: CipherEvidence, _: LockWritten) -> Result<PartyId, ForeignToken> {
        Ok(bad.responder)
    }

    fn pending_of(pending: &Pending) -> (SessionId, PaillierKeyId, WalletId) {
        (pending.evidence.session, pending.key, pending.wallet)
    }

    fn judge(
        pending: Pending,
        wallet: &WalletPublic,
        key: &Key,
        _: &mut dyn Entropy,
    ) -> Result<Option<CipherEvidence>, Unjudgeable> {
        if (wallet.id(), key.0) != (pending.wallet, pending.key) {
            return Err(Unjudgeable);
        }
        Ok((!pending.is_good).then_some(pending.evidence))
    }

    fn accept(
        side: Side,
        enrolment: Arc<Key>,
        message1: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(State, Vec<u8>), SessionError> {
        let before = Symbols { round: 0, agreement: agreement(&side), r1: 0, r2: 0, c3: 0, is_good: true };
        let read = Symbols::read(message1, Round::Commitment, &before)?;
        let symbols = Symbols { round: 2, r2: entropy.next_u64(), ..read };
        Ok((State { side, key: enrolment.0, symbols }, symbols.encode()))
    }

    fn answer(
        state: State,
        message3: &[u8],
        is_good: bool,
        entropy: &mut dyn Entropy,
    ) -> Result<State, SessionError> {
        let read = Symbols::read(message3, Round::Opening, &state.symbols)?;
        let symbols = Symbols { round: 4, c3: entropy.next_u64(), is_good, ..read };
        Ok(State { symbols, ..state })
    }

    fn charge(answer: &State) -> (SessionId, WalletId, [u8; 32]) {
        (answer.side.session, answer.wallet(), answer.side.digest)
    }

    fn trace(answer: &State) -> Trace {
        Trace {
            nonce: sha256(&answer.symbols.r2.to_be_bytes()),
            answer: sha256(&answer.symbols.c3.to_be_bytes()),
        }
    }

    fn charged(answer: State, _: Charged) -> Result<Vec<u8>, SessionError> {
        Ok(answer.symbols.encode())
    }
}

impl WorldEngine for Symbolic {
    fn randomizer(is_honest: bool) -> bool {
        is_honest
    }

    fn seen(message: &[u8], _: Sent) -> Seen {
        let Symbols { round, r1, r2, c3, .. } = Symbols::decode(message).unwrap();
        match round {
            1 => Seen::R1(sha256(&r1.to_be_bytes())),
            2 => Seen::R2(sha256(&r2.to_be_bytes())),
            4 => Seen::C3(sha256(&c3.to_be_bytes())),
            _ => Seen::Opening,
        }
    }

    fn verify(_: &Fixture, digest: [u8; 32], signature: &RecoverableSignature) {
        assert_eq!(*signature, signature_of(digest), "another payload was signed");
    }
}
