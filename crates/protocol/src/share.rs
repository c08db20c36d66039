//! Wallets and shares: the public record that every holder keeps, and each holder's secret number.
//!
//! A wallet's secret is `x = f(0)` of a uniform polynomial `f` of degree 1; holder `i` has
//! `x_i = f(i)` (Shamir 1979), and `[Q, A1]`, the coefficients times `G`, commit to `f` (Feldman
//! 1987), so that everyone can compute everyone's `X_i = Q + i·A1`.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use crate::wallet::{Holder, InvalidWallet, MAX_REQUESTERS, PayloadKindTag, Requester};
pub(crate) use crate::wallet::{WalletRecord, lagrange};
use crate::{
    codec::{self, DecodeError, Message},
    curve::{Point, Scalar, SecretScalar},
    epoch::EpochRecord,
    identity::IdentityKey,
    ids::{Epoch, PartyId, ShareIndex, TenantId, WalletId},
    public_key::{ChainCode, PublicKey},
    transcript,
    wallet::{WalletIdPreimage, check_holders, check_requesters, public_shares},
};

/// Everything public about a wallet, the same for all three holders. It is checked when it is made
/// or parsed: the id matches, the holders and requesters are distinct, and no public share is the
/// identity.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WalletRecord")]
pub struct WalletPublic {
    /// What holds now. Commitment, holders and requesters are those of the latest epoch.
    record: WalletRecord,
    public_shares: [Point; 3],
    /// `None` in epoch 0.
    latest: Option<Arc<Latest>>,
}

/// A wallet of a later epoch: what its id is the hash of, beside the key, and the record in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Latest {
    /// `A1` of epoch 0.
    commitment: Point,
    /// The holders of epoch 0.
    holders: [Holder; 3],
    nonce: [u8; 32],
    record: EpochRecord,
}

impl TryFrom<Latest> for WalletPublic {
    type Error = InvalidWallet;

    fn try_from(latest: Latest) -> Result<Self, InvalidWallet> {
        let record = &latest.record;
        let founding = WalletIdPreimage {
            public_key: record.public_key(),
            commitment: &latest.commitment,
            holders: &latest.holders,
            nonce: &latest.nonce,
        };
        if founding.id() != record.wallet() {
            return Err(InvalidWallet::Id);
        }
        let public_shares = public_shares(record.public_key(), record.commitment())?;
        let record = record.in_force(latest.nonce);
        Ok(Self { record, public_shares, latest: Some(Arc::new(latest)) })
    }
}

/// Only the record of epoch 0 proves itself. So a later wallet has no encoding of its own: it is
/// stored with its share ([`KeyShare::to_secret_bytes`]), and travels as signed records.
impl Serialize for WalletPublic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.latest {
            None => self.record.serialize(serializer),
            Some(_) => Err(S::Error::custom("a wallet of a later epoch travels as signed records")),
        }
    }
}

impl TryFrom<WalletRecord> for WalletPublic {
    type Error = InvalidWallet;

    fn try_from(record: WalletRecord) -> Result<Self, InvalidWallet> {
        // A refresh (epoch 1 and up) changes the commitment and keeps the id: without the records
        // of all epochs before, any commitment could be passed off as the wallet's.
        if record.epoch != Epoch(0) {
            return Err(InvalidWallet::History(record.epoch));
        }
        if record.computed_id() != record.id {
            return Err(InvalidWallet::Id);
        }
        check_holders(&record.holders)?;
        check_requesters(&record.requesters)?;
        let public_shares = public_shares(&record.public_key, &record.commitment)?;
        Ok(Self { record, public_shares, latest: None })
    }
}

impl WalletPublic {
    /// The wallet's name: the hash of its public key, commitment, holders and nonce.
    #[must_use]
    pub const fn id(&self) -> WalletId {
        self.record.id
    }

    /// How often the shares were refreshed.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// `Q`, the key of the path `m`.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.record.public_key
    }

    /// The Ethereum address of the path `m`.
    #[must_use]
    pub fn address(&self) -> [u8; 20] {
        self.record.public_key.address()
    }

    /// `A1`, Feldman's commitment to the polynomial's slope.
    #[must_use]
    pub const fn commitment(&self) -> &Point {
        &self.record.commitment
    }

    /// BIP-32's chain code of the path `m`.
    #[must_use]
    pub const fn chain_code(&self) -> &ChainCode {
        &self.record.chain_code
    }

    /// What makes the id unique even for one key: 32 random bytes.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; 32] {
        &self.record.nonce
    }

    /// Whose wallet it is.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.record.tenant
    }

    /// Who holds the shares 1, 2 and 3.
    #[must_use]
    pub const fn holders(&self) -> &[Holder; 3] {
        &self.record.holders
    }

    /// Who holds share `index`.
    #[must_use]
    pub const fn holder(&self, index: ShareIndex) -> &Holder {
        let [device, service, partner] = &self.record.holders;
        match index {
            ShareIndex::Device => device,
            ShareIndex::Service => service,
            ShareIndex::Partner => partner,
        }
    }

    /// Which share this party holds.
    #[must_use]
    pub fn index_of(&self, party: &PartyId) -> Option<ShareIndex> {
        ShareIndex::ALL.into_iter().find(|index| self.holder(*index).party() == Some(party))
    }

    /// Who may ask for signatures; the owner is the first.
    #[must_use]
    pub fn requesters(&self) -> &[Requester] {
        &self.record.requesters
    }

    /// The owner's request key: the first requester's.
    #[must_use]
    pub fn owner(&self) -> Option<&IdentityKey> {
        self.record.requesters.first().map(|owner| &owner.key)
    }

    /// The requester with this key.
    #[must_use]
    pub fn requester(&self, key: &IdentityKey) -> Option<&Requester> {
        self.record.requesters.iter().find(|requester| requester.key == *key)
    }

    /// `X_i = x_i·G`.
    #[must_use]
    pub const fn public_share(&self, index: ShareIndex) -> &Point {
        let [device, service, partner] = &self.public_shares;
        match index {
            ShareIndex::Device => device,
            ShareIndex::Service => service,
            ShareIndex::Partner => partner,
        }
    }

    /// The hash of the record in force: of the whole record of epoch 0, on which all holders'
    /// receipts must agree, or of the latest [`EpochRecord`].
    #[must_use]
    pub fn record_hash(&self) -> [u8; 32] {
        match &self.latest {
            None => transcript::hash("wallet", &self.record),
            Some(latest) => latest.record.hash(),
        }
    }

    /// The record of the latest epoch; `None` in epoch 0.
    #[must_use]
    pub fn epoch_record(&self) -> Option<&EpochRecord> {
        self.latest.as_ref().map(|latest| &latest.record)
    }

    /// The same wallet with `record` in force.
    ///
    /// # Security
    /// Checks only that the record is of this wallet. The caller has verified the history that
    /// leads to it.
    pub(crate) fn at(&self, record: EpochRecord) -> Result<Self, InvalidWallet> {
        Self::try_from(match self.latest.as_deref() {
            Some(latest) => Latest { record, ..latest.clone() },
            None => Latest {
                commitment: self.record.commitment,
                holders: self.record.holders.clone(),
                nonce: self.record.nonce,
                record,
            },
        })
    }
}

impl fmt::Debug for WalletPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalletPublic")
            .field("id", &self.record.id)
            .field("epoch", &self.record.epoch)
            .field("public_key", &self.record.public_key)
            .field("tenant", &self.record.tenant)
            .finish_non_exhaustive()
    }
}

impl Message for WalletPublic {
    const KIND: u8 = 0x06;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048;
}

/// The number is not the share that the commitments promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the share does not match the wallet's public commitments")]
pub struct ShareMismatch;

/// Why bytes are no share record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShareRecord {
    /// They do not parse.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The share is zero or not below the order, or does not match the commitments.
    #[error(transparent)]
    Mismatch(#[from] ShareMismatch),
    /// The wallet's records contradict each other.
    #[error(transparent)]
    Wallet(#[from] InvalidWallet),
}

/// One holder's share of one wallet. The number is wiped on drop and never printed.
pub struct KeyShare {
    wallet: WalletPublic,
    index: ShareIndex,
    secret: SecretScalar,
}

impl KeyShare {
    /// Takes `secret` as share `index` of `wallet`.
    ///
    /// # Errors
    /// When `secret·G` is not `X_index`.
    pub fn new(wallet: WalletPublic, index: ShareIndex, secret: SecretScalar) -> Result<Self, ShareMismatch> {
        if secret.public() == *wallet.public_share(index) {
            Ok(Self { wallet, index, secret })
        } else {
            Err(ShareMismatch)
        }
    }

    /// The wallet's public record.
    #[must_use]
    pub const fn wallet(&self) -> &WalletPublic {
        &self.wallet
    }

    /// Which share it is.
    #[must_use]
    pub const fn index(&self) -> ShareIndex {
        self.index
    }

    pub(crate) const fn secret(&self) -> &SecretScalar {
        &self.secret
    }

    /// The record to seal and store.
    ///
    /// # Errors
    /// Never for a share that was parsed; the codec's limits.
    pub fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, codec::EncodeError> {
        let (index, secret) = (self.index, *self.secret.to_bytes());
        match &self.wallet.latest {
            None => codec::encode_secret(&ShareRecord { wallet: self.wallet.clone(), index, secret }),
            Some(latest) => {
                codec::encode_secret(&LaterShareRecord { wallet: Latest::clone(latest), index, secret })
            }
        }
    }

    /// Parses what [`Self::to_secret_bytes`] wrote.
    ///
    /// # Errors
    /// When it is not such a record, or contradicts itself.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, InvalidShareRecord> {
        let (wallet, index, secret) = if bytes.get(1) == Some(&LaterShareRecord::VERSION) {
            let record: LaterShareRecord = codec::decode(bytes)?;
            let wallet = WalletPublic::try_from(record.wallet.clone())?;
            (wallet, record.index, SecretScalar::from_bytes(&record.secret))
        } else {
            let record: ShareRecord = codec::decode(bytes)?;
            (record.wallet.clone(), record.index, SecretScalar::from_bytes(&record.secret))
        };
        Ok(Self::new(wallet, index, secret.map_err(|_| ShareMismatch)?)?)
    }
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyShare({}, share {}, secret redacted)", self.wallet.id(), self.index)
    }
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct ShareRecord {
    #[zeroize(skip)]
    wallet: WalletPublic,
    #[zeroize(skip)]
    index: ShareIndex,
    secret: [u8; 32],
}

impl Message for ShareRecord {
    const KIND: u8 = 0x07;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 2048 + 64;
}

/// A share of epoch 1 or later.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
struct LaterShareRecord {
    #[zeroize(skip)]
    wallet: Latest,
    #[zeroize(skip)]
    index: ShareIndex,
    secret: [u8; 32],
}

impl Message for LaterShareRecord {
    const KIND: u8 = ShareRecord::KIND;
    const VERSION: u8 = 2;
    const MAX_SIZE_BYTES: usize = ShareRecord::MAX_SIZE_BYTES + EpochRecord::MAX_SIZE_BYTES;
}

/// The dealer's polynomial `f(z) = x + a·z`. Wiped on drop.
pub(crate) struct Polynomial {
    constant: SecretScalar,
    slope: SecretScalar,
}

impl Polynomial {
    pub(crate) fn random(rng: &mut dyn rand_core::CryptoRng) -> Self {
        Self { constant: SecretScalar::random(rng), slope: SecretScalar::random(rng) }
    }

    /// A polynomial through a key that the caller chose ([`crate::door`]).
    pub(crate) fn through(constant: SecretScalar, rng: &mut dyn rand_core::CryptoRng) -> Self {
        Self { constant, slope: SecretScalar::random(rng) }
    }

    /// `x`.
    pub(crate) const fn constant(&self) -> &SecretScalar {
        &self.constant
    }

    /// `x·G`, Feldman's first commitment.
    pub(crate) fn constant_commitment(&self) -> Point {
        self.constant.public()
    }

    /// `A1 = a·G`, Feldman's second commitment.
    pub(crate) fn slope_commitment(&self) -> Point {
        self.slope.public()
    }

    /// `f(index)`; `None` when that is zero (probability 2^-256: draw again).
    pub(crate) fn share(&self, index: ShareIndex) -> Option<SecretScalar> {
        let index = Scalar::from(u64::from(u8::from(index)));
        let mut value = *self.constant.as_scalar() + *self.slope.as_scalar() * index;
        let share = SecretScalar::new(value).ok();
        value.zeroize();
        share
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{identity::PartyKeys, ids::CardFingerprint};
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    fn record(seed: u64) -> (WalletRecord, Polynomial) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let polynomial = Polynomial::random(&mut rng);
        let holder = |name: &str, byte| Holder::Party {
            party: name.parse().unwrap(),
            card: CardFingerprint([byte; 32]),
        };
        let mut record = WalletRecord {
            id: WalletId([0; 32]),
            epoch: Epoch(0),
            public_key: PublicKey::from_projective(&polynomial.constant_commitment().to_projective())
                .unwrap(),
            commitment: polynomial.slope_commitment(),
            chain_code: ChainCode([1; 32]),
            nonce: [2; 32],
            tenant: "acme".parse().unwrap(),
            holders: [holder("device", 1), holder("service", 2), holder("partner", 3)],
            requesters: vec![Requester::new(PartyKeys::generate(&mut rng).identity())],
        };
        record.id = record.computed_id();
        (record, polynomial)
    }

    /// The three shares of a new wallet whose holders have these cards.
    pub(crate) fn shares_with(
        cards: &[Arc<crate::card::Card>; 3],
        rng: &mut crate::test_fixtures::Seeded,
    ) -> [Arc<KeyShare>; 3] {
        let (mut record, polynomial) = record(rand_core::Rng::next_u64(rng));
        record.holders = [0, 1, 2].map(|at: usize| Holder::Party {
            party: cards[at].party().clone(),
            card: cards[at].fingerprint(),
        });
        record.id = record.computed_id();
        let wallet = WalletPublic::try_from(record).unwrap();
        ShareIndex::ALL.map(|index| {
            Arc::new(KeyShare::new(wallet.clone(), index, polynomial.share(index).unwrap()).unwrap())
        })
    }

    #[test]
    fn any_two_shares_give_the_secret() {
        let (_, polynomial) = record(1);
        for (i, j) in [(1, 2), (1, 3), (2, 3)] {
            let (i, j) = (ShareIndex::try_from(i).unwrap(), ShareIndex::try_from(j).unwrap());
            let sum = lagrange(i, j).unwrap() * polynomial.share(i).unwrap().as_scalar()
                + lagrange(j, i).unwrap() * polynomial.share(j).unwrap().as_scalar();
            assert_eq!(sum, *polynomial.constant.as_scalar());
        }
        assert_eq!(lagrange(ShareIndex::Device, ShareIndex::Device), None);
    }

    #[test]
    fn only_the_committed_number_is_a_share() {
        let (record, polynomial) = record(1);
        let wallet = WalletPublic::try_from(record).unwrap();
        for index in ShareIndex::ALL {
            let share = KeyShare::new(wallet.clone(), index, polynomial.share(index).unwrap()).unwrap();
            let bytes = share.to_secret_bytes().unwrap();
            let again = KeyShare::from_secret_bytes(&bytes).unwrap();
            assert_eq!((again.wallet(), again.index()), (share.wallet(), share.index()));
            assert!(!format!("{share:?}").contains(&hex::encode(*share.secret.to_bytes())));
        }
        let wrong = polynomial.share(ShareIndex::Partner).unwrap();
        assert_eq!(KeyShare::new(wallet, ShareIndex::Service, wrong).unwrap_err(), ShareMismatch);
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut WalletRecord)| {
            let (mut record, _) = record(1);
            change(&mut record);
            record.id = record.computed_id();
            WalletPublic::try_from(record).unwrap_err()
        };
        assert_eq!(refused(|r| r.requesters.clear()), InvalidWallet::Requesters);
        assert_eq!(refused(|r| r.requesters.push(r.requesters[0].clone())), InvalidWallet::Requesters);
        assert_eq!(refused(|r| r.requesters[0].kinds.clear()), InvalidWallet::Requesters);
        assert_eq!(
            refused(|r| r.requesters[0].kinds.push(PayloadKindTag::Transaction)),
            InvalidWallet::Requesters
        );
        assert_eq!(refused(|r| r.holders[0] = Holder::Backup), InvalidWallet::Holders);
        assert_eq!(refused(|r| r.holders[2] = r.holders[1].clone()), InvalidWallet::Holders);
        let (mut other, _) = record(1);
        other.nonce = [3; 32];
        assert_eq!(WalletPublic::try_from(other).unwrap_err(), InvalidWallet::Id);
        // A later epoch may have any commitment, so it counts only with the history that leads to
        // it.
        let (mut later, _) = record(1);
        (later.epoch, later.commitment) = (Epoch(1), record(2).0.commitment);
        assert_eq!(WalletPublic::try_from(later).unwrap_err(), InvalidWallet::History(Epoch(1)));
        // Q = -A1 makes X_1 the identity.
        assert_eq!(
            refused(|r| {
                r.public_key = PublicKey::from_projective(&-r.commitment.to_projective()).unwrap();
            }),
            InvalidWallet::PublicShare
        );
    }

    #[test]
    fn digests_are_off_until_turned_on() {
        let requester = Requester::new(PartyKeys::generate(&mut ChaCha20Rng::seed_from_u64(1)).identity());
        assert!(!requester.allows(PayloadKindTag::Digest));
        assert!(requester.with_digest().allows(PayloadKindTag::Digest));
    }
}
