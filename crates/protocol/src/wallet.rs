//! The parts of a wallet's public record: its holders, its requesters and their checks.

use serde::{Deserialize, Serialize};

use crate::{
    curve::{Point, Scalar},
    identity::IdentityKey,
    ids::{CardFingerprint, Epoch, PartyId, ShareIndex, TenantId, WalletId},
    public_key::{ChainCode, PublicKey},
    transcript,
};

/// The most requesters a wallet has.
pub const MAX_REQUESTERS: usize = 16;

/// A kind of payload that a requester may ask the parties to sign.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, udigest::Digestable,
)]
#[serde(rename_all = "snake_case")]
pub enum PayloadKindTag {
    /// An Ethereum transaction: legacy, EIP-2930 or EIP-1559.
    Transaction,
    /// A personal message, EIP-191.
    PersonalMessage,
    /// Typed data, EIP-712.
    TypedData,
    /// A bare 32-byte digest: blind signing. Off unless the wallet's owner turns it on.
    Digest,
}

/// A requester of signatures, with the kinds of payload it may request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct Requester {
    /// The Ed25519 key that signs the requests.
    pub key: IdentityKey,
    /// The kinds of payload that this requester may request.
    pub kinds: Vec<PayloadKindTag>,
}

impl Requester {
    /// A requester for all kinds of payload but bare digests.
    #[must_use]
    pub fn new(key: IdentityKey) -> Self {
        use PayloadKindTag::{PersonalMessage, Transaction, TypedData};
        Self { key, kinds: vec![Transaction, PersonalMessage, TypedData] }
    }

    /// A requester for all kinds of payload, bare digests included.
    #[must_use]
    pub fn with_digest(mut self) -> Self {
        if !self.allows(PayloadKindTag::Digest) {
            self.kinds.push(PayloadKindTag::Digest);
        }
        self
    }

    /// Whether this requester may request payloads of this kind.
    #[must_use]
    pub fn allows(&self, kind: PayloadKindTag) -> bool {
        self.kinds.contains(&kind)
    }
}

/// The holder of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub enum Holder {
    /// A party with a card.
    Party {
        /// Its name.
        party: PartyId,
        /// Its card when the wallet was made.
        card: CardFingerprint,
    },
    /// The owner's sealed backup file, without party and card.
    Backup,
}

impl Holder {
    /// The party, unless the share is a backup.
    #[must_use]
    pub const fn party(&self) -> Option<&PartyId> {
        match self {
            Self::Party { party, .. } => Some(party),
            Self::Backup => None,
        }
    }

    /// The card, unless the share is a backup.
    #[must_use]
    pub const fn card(&self) -> Option<&CardFingerprint> {
        match self {
            Self::Party { card, .. } => Some(card),
            Self::Backup => None,
        }
    }
}

/// Why a wallet's public record contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWallet {
    /// A later epoch than the first, which only the chain of epoch records could vouch for. This
    /// build reads none.
    #[error("a wallet's record of epoch {0} comes without the history that vouches for it")]
    History(Epoch),
    /// The id is not the hash of what it names.
    #[error("the wallet id is not the hash of its public key, commitment, cards and nonce")]
    Id,
    /// The device or the service is a backup, or two holders are one party.
    #[error("the holders are not a device, a service and a partner (or backup), all distinct")]
    Holders,
    /// No requester, too many, or one of them twice.
    #[error("a wallet has 1 to {MAX_REQUESTERS} distinct requesters with distinct kinds")]
    Requesters,
    /// A share would be zero.
    #[error("a public share is the identity")]
    PublicShare,
}

/// The values that hash to the wallet's id.
#[derive(udigest::Digestable)]
pub(crate) struct WalletIdPreimage<'a> {
    pub(crate) public_key: &'a PublicKey,
    pub(crate) commitment: &'a Point,
    pub(crate) holders: &'a [Holder; 3],
    #[udigest(as_bytes)]
    pub(crate) nonce: &'a [u8; 32],
}

/// The contents of a wallet's public record before they are checked against each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub(crate) struct WalletRecord {
    pub(crate) id: WalletId,
    pub(crate) epoch: Epoch,
    pub(crate) public_key: PublicKey,
    pub(crate) commitment: Point,
    pub(crate) chain_code: ChainCode,
    #[udigest(as_bytes)]
    pub(crate) nonce: [u8; 32],
    pub(crate) tenant: TenantId,
    pub(crate) holders: [Holder; 3],
    pub(crate) requesters: Vec<Requester>,
}

impl WalletIdPreimage<'_> {
    pub(crate) fn id(&self) -> WalletId {
        WalletId(transcript::hash("wallet-id", self))
    }
}

impl WalletRecord {
    pub(crate) fn computed_id(&self) -> WalletId {
        WalletIdPreimage {
            public_key: &self.public_key,
            commitment: &self.commitment,
            holders: &self.holders,
            nonce: &self.nonce,
        }
        .id()
    }
}

/// All `X_i`.
pub(crate) fn public_shares(public_key: &PublicKey, commitment: &Point) -> Result<[Point; 3], InvalidWallet> {
    let share = |index| public_share(public_key, commitment, index).ok_or(InvalidWallet::PublicShare);
    Ok([share(ShareIndex::Device)?, share(ShareIndex::Service)?, share(ShareIndex::Partner)?])
}

pub(crate) fn check_holders(holders: &[Holder; 3]) -> Result<(), InvalidWallet> {
    let [device, service, partner] = holders;
    let distinct = match (device, service, partner) {
        (Holder::Backup, _, _) | (_, Holder::Backup, _) => false,
        (device, service, Holder::Backup) => {
            device.party() != service.party() && device.card() != service.card()
        }
        (device, service, partner) => [(device, service), (device, partner), (service, partner)]
            .iter()
            .all(|(a, b)| a.party() != b.party() && a.card() != b.card()),
    };
    if distinct { Ok(()) } else { Err(InvalidWallet::Holders) }
}

pub(crate) fn check_requesters(requesters: &[Requester]) -> Result<(), InvalidWallet> {
    let distinct = |requesters: &[Requester]| {
        requesters.iter().enumerate().all(|(at, requester)| {
            !requester.kinds.is_empty()
                && requester
                    .kinds
                    .iter()
                    .enumerate()
                    .all(|(at, kind)| requester.kinds.iter().skip(at + 1).all(|other| other != kind))
                && requesters.iter().skip(at + 1).all(|other| other.key != requester.key)
        })
    };
    let counted = (1..=MAX_REQUESTERS).contains(&requesters.len());
    if counted && distinct(requesters) { Ok(()) } else { Err(InvalidWallet::Requesters) }
}

/// `X_i = Q + i·A1`; `None` for the identity.
pub(crate) fn public_share(public_key: &PublicKey, commitment: &Point, index: ShareIndex) -> Option<Point> {
    let slope = commitment.to_projective();
    // Nothing here is secret, and the index is 3 at the most.
    Point::from_projective((0..u8::from(index)).fold(public_key.to_projective(), |sum, _| sum + slope))
}

/// Lagrange's coefficient of `own` in the pair `(own, other)`: `other / (other − own) mod q`.
pub(crate) fn lagrange(own: ShareIndex, other: ShareIndex) -> Option<Scalar> {
    let scalar = |index: ShareIndex| Scalar::from(u64::from(u8::from(index)));
    let inverse = Option::<Scalar>::from((scalar(other) - scalar(own)).invert())?;
    Some(scalar(other) * inverse)
}
