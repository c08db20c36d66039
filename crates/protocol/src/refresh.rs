//! Refresh: two holders give all three new shares of the same key.
//!
//! The wallet's polynomial `f` becomes `f(z) + a·z`. The key `x = f(0)`, its address and its chain
//! code stay. Old shares are worthless together with new ones. Both makers choose the slope `a`:
//! each commits to its part, then opens it (the coin toss of ePrint 2021/060, figure 6, with one
//! coefficient). The flow:
//!
//! 1. The lower index of the two [starts](Refresh::start), the other one [joins](Refresh::join).
//!    They exchange four messages inside Noise KK, whose prologue holds the hash of the record in
//!    force. Two holders that hold different records get no channel.
//! 2. Each stores its [`NextShare`] beside the share in use, and which record it signs
//!    ([`OneSuccessor`]). Only then does its signature leave.
//! 3. Two signatures make a [`SignedRecord`], the order to commit. Each maker commits the next
//!    share with a [box](crate::catch_up::SlopeBox) for every holder, and says so by an
//!    [`EpochAck`].
//! 4. With both acks in hand a maker destroys its old share.
//! 5. The third holder, and a maker that was restored from a backup, catches up by the record and
//!    one good box.
//!
//! A refresh takes back nothing that a bad answer leaked before: each maker knows the slope.

use core::fmt;
use std::sync::Arc;

use rand_core::Rng as _;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::{
    card::Card,
    channel::{Channel, Handshake, NotAuthentic, TAG_SIZE_BYTES},
    codec::{self, DecodeError, EncodeError, Message},
    curve::{Point, Scalar, SecretScalar},
    epoch::{EpochRecord, InvalidEpochRecord},
    hedge::{Entropy, Hedge, Purpose},
    history::{HolderSignature, OneSuccessor, OtherSuccessor, SignedRecord},
    identity::{IdentitySignature, PartyKeys, Statement},
    ids::{CardFingerprint, PartyId, ShareIndex, WalletId},
    session::{ApiMisuse, Seat, max_handshake_size_bytes},
    share::{InvalidShareRecord, InvalidWallet, KeyShare, ShareMismatch, WalletPublic},
    transcript,
};

/// The number `a` by which a refresh changes the polynomial's slope. Wiped on drop.
///
/// # Security
/// Two holders of one share before and after know it anyway. With an old share of another holder it
/// gives that holder's new share.
pub struct Slope(SecretScalar);

impl Slope {
    /// The sum of both makers' parts; `None` when it is zero.
    fn sum(one: &SecretScalar, other: &SecretScalar) -> Option<Self> {
        let mut sum = *one.as_scalar() + *other.as_scalar();
        let slope = SecretScalar::new(sum).ok().map(Self);
        sum.zeroize();
        slope
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        SecretScalar::from_bytes(bytes).ok().map(Self)
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.to_bytes()
    }

    /// `A1' = A1 + a·G`; `None` for the identity.
    pub(crate) fn moved(&self, commitment: &Point) -> Option<Point> {
        commitment.add(&self.0.public())
    }

    /// `a·index`, by which the share at `index` changes.
    pub(crate) fn at(&self, index: ShareIndex) -> Zeroizing<Scalar> {
        Zeroizing::new(*self.0.as_scalar() * Scalar::from(u64::from(u8::from(index))))
    }
}

impl fmt::Debug for Slope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slope(redacted)")
    }
}

impl KeyShare {
    /// The same holder's share of `after`, the wallet one epoch later: `x_i' = x_i + a·i`.
    ///
    /// # Errors
    /// When `after` is not moved by this slope.
    pub fn moved(&self, after: &WalletPublic, slope: &Slope) -> Result<Self, ShareMismatch> {
        let mut moved = *self.secret().as_scalar() + *slope.at(self.index());
        let secret = SecretScalar::new(moved).map_err(|_| ShareMismatch);
        moved.zeroize();
        Self::new(after.clone(), self.index(), secret?)
    }
}

/// A maker's inputs. The caller has looked up everything in its own store.
pub struct RefreshSetup {
    /// The refresh's name: random, never used twice.
    pub refresh: [u8; 16],
    /// The share in use.
    pub share: Arc<KeyShare>,
    /// The maker's secret keys.
    pub keys: Arc<PartyKeys>,
    /// The maker's card in force.
    pub card: Arc<Card>,
    /// The other maker's share.
    pub peer_index: ShareIndex,
    /// The other maker's card in force.
    pub peer: Arc<Card>,
    /// The cards in force of the owner's devices. The first record names them.
    pub devices: Vec<CardFingerprint>,
    /// How many Paillier keys of the wallet were locked, by what this maker knows.
    pub locked_keys: u32,
}

/// Everything on which both makers must agree before either sends a message.
#[derive(udigest::Digestable)]
struct RefreshAgreement<'a> {
    #[udigest(as_bytes)]
    refresh: [u8; 16],
    wallet: WalletId,
    #[udigest(as_bytes)]
    record: [u8; 32],
    coordinator: Seat,
    joiner: Seat,
    devices: &'a [CardFingerprint],
}

/// A maker's commitment to its part of the slope, with what it knows of locked keys.
#[derive(Debug, Serialize, Deserialize)]
struct SlopeCommitment {
    commitment: [u8; 32],
    locked_keys: u32,
}

impl Message for SlopeCommitment {
    const KIND: u8 = 0x1b;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 64;
}

/// What a [`SlopeCommitment`] commits to.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct SlopeOpening {
    part: [u8; 32],
    blinding: [u8; 32],
}

impl Message for SlopeOpening {
    const KIND: u8 = 0x1c;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 80;
}

/// The joiner's last message: its part, and its signature on the record.
#[derive(Serialize, Deserialize)]
struct SignedOpening {
    opening: SlopeOpening,
    signature: HolderSignature,
}

impl Message for SignedOpening {
    const KIND: u8 = 0x1d;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

/// The longest message of a refresh, in bytes.
pub const MAX_REFRESH_MESSAGE_SIZE_BYTES: usize = SignedOpening::MAX_SIZE_BYTES + TAG_SIZE_BYTES;

#[derive(udigest::Digestable)]
struct CommitmentInput<'a> {
    #[udigest(as_bytes)]
    prologue: &'a [u8; 32],
    maker: ShareIndex,
    #[udigest(as_bytes)]
    part: &'a [u8; 32],
    #[udigest(as_bytes)]
    blinding: &'a [u8; 32],
}

impl SlopeOpening {
    fn commitment(&self, prologue: &[u8; 32], maker: ShareIndex) -> [u8; 32] {
        let Self { part, blinding } = self;
        transcript::hash("slope-commitment", &CommitmentInput { prologue, maker, part, blinding })
    }
}

/// A breach of the refresh by an authenticated maker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshFault {
    /// Authentic bytes that do not parse.
    #[error("sent a malformed message: {0}")]
    Malformed(DecodeError),
    /// Another part of the slope than the one it had committed to, or none.
    #[error("opened another part of the slope than it had committed to")]
    Opening,
    /// The record is not signed with the card in force.
    #[error("did not sign the record of the new epoch")]
    Signature,
}

/// Why a refresh ended without a record. The share in use stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// A message that the other maker did not send in this refresh, or a maker that holds another
    /// record. No party can be blamed for it.
    #[error("message {0} is not authentic in this refresh")]
    NotAuthentic(u8),
    /// The other maker broke the protocol.
    #[error("{culprit} {fault}")]
    PeerMisbehaved {
        /// The party.
        culprit: PartyId,
        /// What it did.
        fault: RefreshFault,
    },
    /// The slopes cancel out, or a share would be zero (probability 2^-255). Start again.
    #[error("the slope gives no shares, start again")]
    Degenerate,
    /// The new epoch has no record.
    #[error(transparent)]
    Record(#[from] InvalidEpochRecord),
    /// The caller's mistake.
    #[error(transparent)]
    ApiMisuse(#[from] ApiMisuse),
    /// The stored row is for another record.
    #[error(transparent)]
    OtherSuccessor(#[from] OtherSuccessor),
}

impl From<InvalidWallet> for RefreshError {
    fn from(_: InvalidWallet) -> Self {
        Self::Degenerate
    }
}

/// A maker's state that lasts through all messages.
struct Maker {
    setup: RefreshSetup,
    prologue: [u8; 32],
    part: SecretScalar,
    opening: SlopeOpening,
}

impl Maker {
    /// Draws the maker's part. `ephemeral` is Noise's secret.
    fn new(
        setup: RefreshSetup,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Zeroizing<[u8; 32]>), RefreshError> {
        let wallet = setup.share.wallet();
        if setup.keys.identity() != *setup.card.identity() {
            return Err(ApiMisuse::Card.into());
        }
        let own = Seat::of(wallet, setup.share.index(), &setup.card)?;
        let peer = Seat::of(wallet, setup.peer_index, &setup.peer)?;
        let (coordinator, joiner) = if own.index < peer.index { (own, peer) } else { (peer, own) };
        if coordinator.index == joiner.index {
            return Err(ApiMisuse::Roles.into());
        }
        let agreement = RefreshAgreement {
            refresh: setup.refresh,
            wallet: wallet.id(),
            record: wallet.record_hash(),
            coordinator,
            joiner,
            devices: wallet.epoch_record().map_or(&setup.devices, EpochRecord::devices),
        };
        let prologue = transcript::hash("refresh-prologue", &agreement);
        let secret = setup.share.secret().to_bytes();
        let statement = (prologue, setup.share.index());
        let mut hedge = Hedge::new(entropy, &*secret, &statement);
        let mut generator = hedge.generator(Purpose::Slope);
        let part = SecretScalar::random(&mut generator);
        let mut opening = SlopeOpening { part: *part.to_bytes(), blinding: [0; 32] };
        generator.fill_bytes(&mut opening.blinding);
        let mut ephemeral = Zeroizing::new([0; 32]);
        hedge.generator(Purpose::Ephemeral).fill_bytes(ephemeral.as_mut());
        Ok((Self { setup, prologue, part, opening }, ephemeral))
    }

    fn commitment(&self) -> SlopeCommitment {
        SlopeCommitment {
            commitment: self.opening.commitment(&self.prologue, self.setup.share.index()),
            locked_keys: self.setup.locked_keys,
        }
    }

    fn fault(&self, fault: RefreshFault) -> RefreshError {
        RefreshError::PeerMisbehaved { culprit: self.setup.peer.party().clone(), fault }
    }

    fn decode<M: Message>(&self, bytes: &[u8]) -> Result<M, RefreshError> {
        codec::decode(bytes).map_err(|reason| self.fault(RefreshFault::Malformed(reason)))
    }

    /// Checks the peer's opening, and makes the next share.
    fn next(&self, theirs: &SlopeCommitment, opening: &SlopeOpening) -> Result<NextShare, RefreshError> {
        if opening.commitment(&self.prologue, self.setup.peer_index) != theirs.commitment {
            return Err(self.fault(RefreshFault::Opening));
        }
        let part = SecretScalar::from_bytes(&opening.part).map_err(|_| self.fault(RefreshFault::Opening))?;
        let slope = Slope::sum(&self.part, &part).ok_or(RefreshError::Degenerate)?;
        let RefreshSetup { share, devices, locked_keys, .. } = &self.setup;
        let wallet = share.wallet();
        let commitment = slope.moved(wallet.commitment()).ok_or(RefreshError::Degenerate)?;
        let locked_keys = theirs.locked_keys.max(*locked_keys);
        let record = match wallet.refreshed(commitment, devices, locked_keys) {
            Err(InvalidEpochRecord::Wallet(InvalidWallet::PublicShare)) => {
                return Err(RefreshError::Degenerate);
            }
            record => record?,
        };
        let share = share.moved(&wallet.at(record)?, &slope).map_err(|_| RefreshError::Degenerate)?;
        Ok(NextShare { share, slope })
    }

    /// The own signature on the next record.
    fn sign(&self, next: &NextShare, stored: OneSuccessor) -> Result<HolderSignature, RefreshError> {
        let RefreshSetup { share, card, keys, .. } = &self.setup;
        Ok(HolderSignature::sign(next.record()?, share.index(), card, keys, stored)?)
    }
}

const fn not_authentic(message: u8) -> impl FnOnce(NotAuthentic) -> RefreshError {
    move |NotAuthentic| RefreshError::NotAuthentic(message)
}

fn internal(_: NotAuthentic) -> RefreshError {
    ApiMisuse::Internal("a refresh's channel").into()
}

fn encode<M: Message>(message: &M) -> Result<Vec<u8>, RefreshError> {
    codec::encode(message).map_err(|_| ApiMisuse::Internal("encoding a message").into())
}

/// A maker's share of the next epoch, with the slope that leads to it. Both are wiped on drop.
pub struct NextShare {
    share: KeyShare,
    slope: Slope,
}

impl fmt::Debug for NextShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NextShare({:?})", self.share)
    }
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct NextShareRecord {
    share: Vec<u8>,
    slope: [u8; 32],
}

impl Message for NextShareRecord {
    const KIND: u8 = 0x1e;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 8192;
}

impl NextShare {
    pub(crate) const fn new(share: KeyShare, slope: Slope) -> Self {
        Self { share, slope }
    }

    /// The share, in use once the record is committed.
    #[must_use]
    pub const fn share(&self) -> &KeyShare {
        &self.share
    }

    /// The slope, for [boxes](crate::catch_up::SlopeBox) and enrolments.
    #[must_use]
    pub const fn slope(&self) -> &Slope {
        &self.slope
    }

    /// The record of the next epoch.
    ///
    /// # Errors
    /// Never: a next share has a record.
    pub fn record(&self) -> Result<&EpochRecord, ApiMisuse> {
        self.share.wallet().epoch_record().ok_or(ApiMisuse::Internal("a next share without a record"))
    }

    /// The share and the slope.
    #[must_use]
    pub fn into_parts(self) -> (KeyShare, Slope) {
        (self.share, self.slope)
    }

    /// The record to seal and store.
    ///
    /// # Errors
    /// The codec's limits, which no next share exceeds.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        codec::encode_secret(&NextShareRecord {
            share: self.share.to_secret_bytes()?.to_vec(),
            slope: *self.slope.to_bytes(),
        })
    }

    /// Parses what [`Self::to_secret_bytes`] wrote.
    ///
    /// # Errors
    /// When it is not such a record, or contradicts itself.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, InvalidShareRecord> {
        let record: NextShareRecord = codec::decode(bytes)?;
        let share = KeyShare::from_secret_bytes(&record.share)?;
        Ok(Self { share, slope: Slope::from_bytes(&record.slope).ok_or(ShareMismatch)? })
    }
}

/// The start of a refresh.
#[derive(Debug)]
pub struct Refresh;

impl Refresh {
    /// Starts as the maker with the lower index: message 1.
    ///
    /// # Errors
    /// When the setup contradicts itself.
    pub fn start(
        setup: RefreshSetup,
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingCommitment, Vec<u8>), RefreshError> {
        if setup.share.index() >= setup.peer_index {
            return Err(ApiMisuse::Roles.into());
        }
        let (maker, ephemeral) = Maker::new(setup, entropy)?;
        let mut handshake =
            Handshake::initiator(&maker.setup.keys, maker.setup.peer.noise_key(), &maker.prologue)
                .map_err(internal)?;
        let message = handshake.write(&encode(&maker.commitment())?, ephemeral).map_err(internal)?;
        Ok((AwaitingCommitment { maker, handshake }, message))
    }

    /// Joins as the maker with the higher index: message 2.
    ///
    /// # Errors
    /// When the setup contradicts itself, or message 1 is not authentic.
    pub fn join(
        setup: RefreshSetup,
        message1: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(AwaitingSlope, Vec<u8>), RefreshError> {
        if setup.share.index() <= setup.peer_index {
            return Err(ApiMisuse::Roles.into());
        }
        if message1.len() > max_handshake_size_bytes::<SlopeCommitment>() {
            return Err(RefreshError::NotAuthentic(1));
        }
        let (maker, ephemeral) = Maker::new(setup, entropy)?;
        let mut handshake =
            Handshake::responder(&maker.setup.keys, maker.setup.peer.noise_key(), &maker.prologue)
                .map_err(internal)?;
        let payload = handshake.read(message1).map_err(not_authentic(1))?;
        let theirs = maker.decode(&payload)?;
        let message = handshake.write(&encode(&maker.commitment())?, ephemeral).map_err(internal)?;
        let channel = handshake.finish().map_err(internal)?;
        Ok((AwaitingSlope { maker, theirs, channel }, message))
    }
}

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )*};
}

redacted!(AwaitingCommitment, AwaitingSlope, AwaitingSignature, JoinerReady, CoordinatorReady);

/// Message 1 is out; message 2 is due.
pub struct AwaitingCommitment {
    maker: Maker,
    handshake: Handshake,
}

impl AwaitingCommitment {
    /// Opens the own part: message 3.
    ///
    /// # Errors
    /// When message 2 is not authentic or malformed.
    pub fn receive(mut self, message2: &[u8]) -> Result<(AwaitingSignature, Vec<u8>), RefreshError> {
        if message2.len() > max_handshake_size_bytes::<SlopeCommitment>() {
            return Err(RefreshError::NotAuthentic(2));
        }
        let payload = self.handshake.read(message2).map_err(not_authentic(2))?;
        let theirs = self.maker.decode(&payload)?;
        let mut channel = self.handshake.finish().map_err(internal)?;
        let opening = Zeroizing::new(encode(&self.maker.opening)?);
        let message = channel.write(&opening).map_err(internal)?;
        Ok((AwaitingSignature { maker: self.maker, theirs, channel }, message))
    }
}

/// Message 2 is out; message 3 is due.
pub struct AwaitingSlope {
    maker: Maker,
    theirs: SlopeCommitment,
    channel: Channel,
}

impl AwaitingSlope {
    /// Checks the coordinator's part, and makes the next share.
    ///
    /// # Errors
    /// When message 3 is not authentic, malformed, or opens another commitment.
    pub fn receive(mut self, message3: &[u8]) -> Result<JoinerReady, RefreshError> {
        if message3.len() > SlopeOpening::MAX_SIZE_BYTES + TAG_SIZE_BYTES {
            return Err(RefreshError::NotAuthentic(3));
        }
        let payload = Zeroizing::new(self.channel.read(message3).map_err(not_authentic(3))?);
        let next = self.maker.next(&self.theirs, &self.maker.decode(&payload)?)?;
        Ok(JoinerReady { maker: self.maker, channel: self.channel, next })
    }
}

/// The joiner knows the next epoch. Store [`Self::next`] and the row of [`OneSuccessor`], then
/// [answer](Self::answer).
pub struct JoinerReady {
    maker: Maker,
    channel: Channel,
    next: NextShare,
}

impl JoinerReady {
    /// The share of the next epoch.
    #[must_use]
    pub const fn next(&self) -> &NextShare {
        &self.next
    }

    /// Opens the own part and signs the record: message 4.
    ///
    /// # Errors
    /// When `stored` is for another record.
    pub fn answer(mut self, stored: OneSuccessor) -> Result<(NextShare, Vec<u8>), RefreshError> {
        let signature = self.maker.sign(&self.next, stored)?;
        let opening = SlopeOpening { part: self.maker.opening.part, blinding: self.maker.opening.blinding };
        let payload = Zeroizing::new(encode(&SignedOpening { opening, signature })?);
        let message = self.channel.write(&payload).map_err(internal)?;
        Ok((self.next, message))
    }
}

/// Message 3 is out; message 4 is due.
pub struct AwaitingSignature {
    maker: Maker,
    theirs: SlopeCommitment,
    channel: Channel,
}

impl AwaitingSignature {
    /// Checks the joiner's part and its signature on the record.
    ///
    /// # Errors
    /// When message 4 is not authentic, malformed, opens another commitment, or signs another
    /// record.
    pub fn receive(mut self, message4: &[u8]) -> Result<CoordinatorReady, RefreshError> {
        if message4.len() > MAX_REFRESH_MESSAGE_SIZE_BYTES {
            return Err(RefreshError::NotAuthentic(4));
        }
        let payload = Zeroizing::new(self.channel.read(message4).map_err(not_authentic(4))?);
        let SignedOpening { opening, signature } = self.maker.decode(&payload)?;
        let next = self.maker.next(&self.theirs, &opening)?;
        let RefreshSetup { peer_index, peer, .. } = &self.maker.setup;
        if !signature.is_of(next.record()?, *peer_index, peer) {
            return Err(self.maker.fault(RefreshFault::Signature));
        }
        Ok(CoordinatorReady { maker: self.maker, next, signature })
    }
}

/// The coordinator knows the next epoch. Store [`Self::next`] and the row of [`OneSuccessor`], then
/// [sign](Self::sign).
pub struct CoordinatorReady {
    maker: Maker,
    next: NextShare,
    signature: HolderSignature,
}

impl CoordinatorReady {
    /// The share of the next epoch.
    #[must_use]
    pub const fn next(&self) -> &NextShare {
        &self.next
    }

    /// The record with both makers' signatures: the order to commit.
    ///
    /// # Errors
    /// When `stored` is for another record.
    pub fn sign(self, stored: OneSuccessor) -> Result<(NextShare, SignedRecord), RefreshError> {
        let own = self.maker.sign(&self.next, stored)?;
        let signed = SignedRecord::new(self.next.record()?.clone(), own, self.signature);
        Ok((self.next, signed))
    }
}

/// The statement that a holder has committed a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
struct AckBody {
    wallet: WalletId,
    #[udigest(as_bytes)]
    record: [u8; 32],
    index: ShareIndex,
    party: PartyId,
}

impl Statement for AckBody {
    const TAG: &'static str = "epoch-ack";
}

/// A holder's confirmation that its share of an epoch, and its own box, are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochAck {
    body: AckBody,
    signature: IdentitySignature,
}

impl Message for EpochAck {
    const KIND: u8 = 0x1f;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

impl EpochAck {
    /// Confirms that `share` is in use. Sign it only after the commit is durable.
    #[must_use]
    pub fn sign(share: &KeyShare, card: &Card, keys: &PartyKeys) -> Self {
        let body = AckBody {
            wallet: share.wallet().id(),
            record: share.wallet().record_hash(),
            index: share.index(),
            party: card.party().clone(),
        };
        let signature = keys.sign_statement(&body);
        Self { body, signature }
    }

    /// Whether the holder of share `index` committed the record in force of `wallet`, signed with
    /// `card`.
    #[must_use]
    pub fn is_of(&self, wallet: &WalletPublic, index: ShareIndex, card: &Card) -> bool {
        self.body.wallet == wallet.id()
            && self.body.record == wallet.record_hash()
            && self.body.index == index
            && self.body.party == *card.party()
            && wallet.holder(index).party() == Some(card.party())
            && card.identity().verify_statement(&self.body, &self.signature).is_ok()
    }
}

#[cfg(test)]
mod tests;
