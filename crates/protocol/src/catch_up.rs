//! Catching up: how a holder that took no part in a refresh follows to the new epoch.
//!
//! Each maker of a refresh seals the slope to every holder, itself included: its store may be put
//! back to last night's backup. A holder follows by a [`SignedRecord`] and one good box of either
//! maker. `A1' = A1 + a·G` shows that a box is good, so a maker that seals a wrong number is named
//! and the other maker's box serves.

use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    card::Card,
    codec::{self, Message},
    curve,
    enrolment::VerifiedEnrolment,
    hedge::Entropy,
    history::{RecordRefusal, SignedRecord, SignerCard},
    identity::PartyKeys,
    ids::{CardFingerprint, ShareIndex, WalletId},
    refresh::{NextShare, Slope},
    seal::{self, SealBroken, Sealed},
    session::ApiMisuse,
    share::{KeyShare, ShareMismatch, WalletPublic},
};

/// The place of a box, which its sealing is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
struct Label {
    wallet: WalletId,
    #[udigest(as_bytes)]
    record: [u8; 32],
    maker: ShareIndex,
    maker_card: CardFingerprint,
    receiver: CardFingerprint,
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct Contents {
    slope: [u8; 32],
}

impl Message for Contents {
    const KIND: u8 = 0x20;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 40;
}

/// A slope, sealed by one maker of a refresh to one holder's card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlopeBox {
    label: Label,
    sealed: Sealed,
}

impl Message for SlopeBox {
    const KIND: u8 = 0x21;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 512;
}

/// Why a box does not open, or holds no slope of the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoxRefusal {
    /// For another record or another receiver, or labelled with another maker's card.
    #[error("the box is for another record, maker or receiver")]
    Label,
    /// Not sealed by the maker to this card.
    #[error(transparent)]
    Sealed(#[from] SealBroken),
    /// The number in it does not lead to the record. Its maker is to blame.
    #[error("the box holds another slope than the record's")]
    Slope,
}

/// Why a holder does not follow to a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatchUpRefusal {
    /// The record does not follow on the one in force.
    #[error(transparent)]
    Record(#[from] RecordRefusal),
    /// The box does not open, or is wrong.
    #[error(transparent)]
    Box(#[from] BoxRefusal),
    /// The own share does not move to the record. Cannot happen with a good box.
    #[error(transparent)]
    Share(#[from] ShareMismatch),
}

impl SlopeBox {
    /// Seals the slope that leads to `next`, from a maker to `receiver`'s card.
    ///
    /// # Errors
    /// When `next` has no record, or a card's key cannot be used.
    pub fn seal(
        next: &NextShare,
        card: &Card,
        keys: &PartyKeys,
        receiver: &Card,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, ApiMisuse> {
        let share = next.share();
        let label = Label {
            wallet: share.wallet().id(),
            record: next.record()?.hash(),
            maker: share.index(),
            maker_card: card.fingerprint(),
            receiver: receiver.fingerprint(),
        };
        let contents = codec::encode_secret(&Contents { slope: *next.slope().to_bytes() })
            .map_err(|_| ApiMisuse::Internal("encoding a box"))?;
        let sealed = seal::seal(keys, receiver.noise_key(), &label, &contents, entropy)
            .map_err(|_| ApiMisuse::Internal("sealing a box"))?;
        Ok(Self { label, sealed })
    }

    /// The maker's share.
    #[must_use]
    pub const fn maker(&self) -> ShareIndex {
        self.label.maker
    }

    /// The record it leads to, by its hash.
    #[must_use]
    pub const fn record(&self) -> &[u8; 32] {
        &self.label.record
    }

    /// The card it is sealed to.
    #[must_use]
    pub const fn receiver(&self) -> CardFingerprint {
        self.label.receiver
    }

    /// Opens the box with the receiver's keys, and checks that its slope leads from `before` to
    /// `after`.
    ///
    /// # Errors
    /// When it does not open, or holds another number.
    pub fn open(
        &self,
        before: &WalletPublic,
        after: &WalletPublic,
        maker: &Card,
        card: &Card,
        keys: &PartyKeys,
    ) -> Result<Slope, BoxRefusal> {
        let label = Label {
            wallet: before.id(),
            record: after.record_hash(),
            maker: self.label.maker,
            maker_card: maker.fingerprint(),
            receiver: card.fingerprint(),
        };
        if label != self.label || before.holder(label.maker).party() != Some(maker.party()) {
            return Err(BoxRefusal::Label);
        }
        let contents = seal::open(keys, maker.noise_key(), &label, &self.sealed)?;
        let contents: Contents = codec::decode(&contents).map_err(|_| BoxRefusal::Slope)?;
        let slope = Slope::from_bytes(&contents.slope).ok_or(BoxRefusal::Slope)?;
        if slope.moved(before.commitment()).as_ref() == Some(after.commitment()) {
            Ok(slope)
        } else {
            Err(BoxRefusal::Slope)
        }
    }
}

/// A holder that follows from one epoch to the next, by its own store.
#[derive(Debug, Clone, Copy)]
pub struct Follower<'a> {
    /// The share in use.
    pub share: &'a KeyShare,
    /// The holder's card in force.
    pub card: &'a Card,
    /// Its secret keys.
    pub keys: &'a PartyKeys,
    /// The cards in force of the other holders.
    pub cards: &'a [SignerCard<'a>],
}

impl Follower<'_> {
    /// Follows to `signed` by one box.
    ///
    /// # Errors
    /// When the record does not follow on the one in force, or the box is not good. With the other
    /// maker's box it may still succeed.
    pub fn follow(&self, signed: &SignedRecord, slope: &SlopeBox) -> Result<NextShare, CatchUpRefusal> {
        let before = self.share.wallet();
        let after = before.follow(signed, self.cards)?;
        let maker = self
            .cards
            .iter()
            .find_map(|(index, card)| (*index == slope.maker()).then_some(*card))
            .ok_or(BoxRefusal::Label)?;
        if !signed.signers().contains(&slope.maker()) {
            return Err(BoxRefusal::Label.into());
        }
        let slope = slope.open(before, &after, maker, self.card, self.keys)?;
        Ok(NextShare::new(self.share.moved(&after, &slope)?, slope))
    }
}

/// The enrolment does not lead to the new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the enrolment is not of the epoch before")]
pub struct OtherEpoch;

impl VerifiedEnrolment {
    /// The enrolment of the next epoch: `c_i' = c_i·(1 + (a·i mod q)·N) mod N²`, an encryption of
    /// `x_i + (a·i mod q)`, which is `x_i'` modulo `q`.
    ///
    /// No proof is needed: the responder adds a number below `q` that it knows. The plaintext stays
    /// below `2^513 + e·q` after `e` epochs. With `e < 2^32` the mask of an answer is still 2^128
    /// times wider than `v` times the plaintext.
    ///
    /// # Errors
    /// When the enrolment is for another wallet or epoch than the one before `next`.
    pub fn carried(&self, next: &NextShare) -> Result<Self, OtherEpoch> {
        let after = next.share().wallet();
        let is_next = self.epoch().0.checked_add(1) == Some(after.epoch().0);
        if self.wallet() != after.id() || !is_next || self.responder_index() != next.share().index() {
            return Err(OtherEpoch);
        }
        let added = Zeroizing::new(*next.slope().at(self.initiator_index()));
        let ciphertext = self.encryption_key().add(self.ciphertext(), &curve::scalar_to_natural(&added));
        Ok(self.with(after.epoch(), ciphertext))
    }
}
