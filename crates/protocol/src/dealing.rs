//! Deals a wallet step by step, for callers with several threads. [`crate::keygen::deal`] does all
//! of it in one call.
//!
//! 1. [`Drawn::draw`] draws shares, keys and card.
//! 2. [`Drawn::proof_tasks`] returns one [`ProofTask`] for each receiver. Any thread may do it; the
//!    dealer continues without waiting.
//! 3. [`Drawn::encrypt`] encrypts the device's share for each receiver and proves what is in it.
//! 4. [`Encrypted::assemble`] adds the finished proofs, signs the offers and seals the packages.

use core::fmt;
use std::sync::Arc;

use rand_core::Rng as _;
use udigest::Digestable;

use crate::{
    arithmetic::PrimeProgress,
    card::Card,
    codec,
    enrolment::{OfferSetup, UnsignedOffer},
    hedge::{self, Entropy, Purpose},
    holding::Holding,
    identity::PartyKeys,
    ids::{CardFingerprint, Epoch, PartyId, ShareIndex, TenantId, WalletId},
    keygen::{
        Backend, DealError, DealerSetup, Dealt, Delivery, DeviceWallet, KeygenObserver, KeygenStep,
        PendingWallet, ThirdHolder,
    },
    package::{Envelope, PackageContents, RawPoint, SealError},
    paillier_key::PaillierKey,
    proof_task::{MadeProofs, ProofTask},
    public_key::{ChainCode, PublicKey},
    share::{Holder, InvalidWallet, KeyShare, Polynomial, WalletPublic, WalletRecord},
};

/// A wallet whose shares and keys are drawn. Its secrets are wiped on drop.
pub struct Drawn {
    generation: u64,
    own: KeyShare,
    receivers: Vec<(Backend, KeyShare)>,
    backup: Option<KeyShare>,
    keys: PartyKeys,
    card: Card,
    paillier: PaillierKey,
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drawn({}, redacted)", self.own.wallet().id())
    }
}

/// The subject of a deal: the statement that hedges its random numbers.
#[derive(Digestable)]
struct Dealing<'a> {
    tenant: &'a TenantId,
    device: &'a PartyId,
    service: CardFingerprint,
    generation: u64,
}

impl<'a> Dealing<'a> {
    fn of(setup: &'a DealerSetup) -> Self {
        Self {
            tenant: &setup.tenant,
            device: &setup.device,
            service: setup.service.card.card().fingerprint(),
            generation: setup.generation,
        }
    }
}

fn holder(card: &Card) -> Holder {
    Holder::Party { party: card.party().clone(), card: card.fingerprint() }
}

fn share(wallet: &WalletPublic, polynomial: &Polynomial, index: ShareIndex) -> Result<KeyShare, DealError> {
    polynomial
        .share(index)
        .and_then(|secret| KeyShare::new(wallet.clone(), index, secret).ok())
        .ok_or(DealError::Wallet(InvalidWallet::PublicShare))
}

impl Drawn {
    /// Draws a wallet. A Paillier key that the caller passes in has to be new, because a key serves
    /// one wallet. This wipes the polynomial before it returns.
    ///
    /// # Errors
    /// When the setup contradicts itself.
    pub fn draw(
        setup: &DealerSetup,
        paillier: Option<PaillierKey>,
        progress: &mut dyn KeygenObserver,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, DealError> {
        progress.step(KeygenStep::Shares);
        let mut rng = hedge::generator(entropy, &[], Purpose::Polynomial, &Dealing::of(setup));
        // A zero among the shares has probability 2^-254; this then draws another polynomial.
        let polynomial = loop {
            let polynomial = Polynomial::random(&mut rng);
            if ShareIndex::ALL.iter().all(|index| polynomial.share(*index).is_some()) {
                break polynomial;
            }
        };
        Self::of_polynomial(setup, &polynomial, paillier, progress, entropy)
    }

    pub(crate) fn of_polynomial(
        setup: &DealerSetup,
        polynomial: &Polynomial,
        paillier: Option<PaillierKey>,
        progress: &mut dyn KeygenObserver,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, DealError> {
        let keys = PartyKeys::generate(entropy);
        let card = Card::new(setup.device.clone(), &keys);
        let public_key = PublicKey::from_projective(&polynomial.constant_commitment().to_projective())
            .map_err(|_| InvalidWallet::PublicShare)?;
        let secret = polynomial.constant().to_bytes();
        let mut rng = hedge::generator(entropy, &*secret, Purpose::Wallet, &Dealing::of(setup));
        let mut chain_code = [0; 32];
        rng.fill_bytes(&mut chain_code);
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let third = match &setup.third {
            ThirdHolder::Partner(partner) => holder(partner.card.card()),
            ThirdHolder::Backup => Holder::Backup,
        };
        let mut record = WalletRecord {
            id: WalletId([0; 32]),
            epoch: Epoch(0),
            public_key,
            commitment: polynomial.slope_commitment(),
            chain_code: ChainCode(chain_code),
            nonce,
            tenant: setup.tenant.clone(),
            holders: [holder(&card), holder(setup.service.card.card()), third],
            requesters: setup.requesters.clone(),
        };
        record.id = record.computed_id();
        let wallet = WalletPublic::try_from(record)?;
        let own = share(&wallet, polynomial, ShareIndex::Device)?;
        let third = share(&wallet, polynomial, ShareIndex::Partner)?;
        let mut receivers = vec![(setup.service.clone(), share(&wallet, polynomial, ShareIndex::Service)?)];
        let backup = match &setup.third {
            ThirdHolder::Partner(partner) => {
                receivers.push((partner.clone(), third));
                None
            }
            ThirdHolder::Backup => Some(third),
        };

        progress.step(KeygenStep::PaillierKey);
        let paillier = paillier.unwrap_or_else(|| {
            let mut candidate = |_: PrimeProgress| progress.candidate();
            PaillierKey::generate(
                setup.device.clone(),
                setup.modulus,
                setup.arithmetic,
                entropy,
                &mut candidate,
            )
        });
        Ok(Self { generation: setup.generation, own, receivers, backup, keys, card, paillier })
    }

    /// The proofs to make, one task for each receiver.
    pub fn proof_tasks(&self) -> impl Iterator<Item = (ShareIndex, ProofTask)> {
        self.receivers.iter().map(|(backend, share)| {
            (share.index(), ProofTask::new(&self.paillier, &self.card, &backend.card))
        })
    }

    /// Encrypts the device's share for each receiver.
    ///
    /// # Errors
    /// When the Paillier key is another party's.
    pub fn encrypt(self, entropy: &mut dyn Entropy) -> Result<Encrypted, DealError> {
        let offers = self
            .receivers
            .iter()
            .map(|(backend, share)| {
                let setup = OfferSetup {
                    share: &self.own,
                    paillier: &self.paillier,
                    keys: &self.keys,
                    card: &self.card,
                    responder: &backend.card,
                    responder_index: share.index(),
                    generation: self.generation,
                };
                UnsignedOffer::make(&setup, entropy)
            })
            .collect::<Result<_, _>>()?;
        Ok(Encrypted { drawn: self, offers })
    }

    /// Deals with every proof made in this thread, one after the other.
    pub(crate) fn deal(
        self,
        progress: &mut dyn KeygenObserver,
        entropy: &mut dyn Entropy,
    ) -> Result<Dealt, DealError> {
        let mut proofs = Vec::new();
        for (backend, share) in &self.receivers {
            progress.step(KeygenStep::Proofs(share.index()));
            proofs.push(MadeProofs::make(&self.paillier, &self.card, &backend.card, entropy)?);
        }
        self.encrypt(entropy)?.assemble(proofs, progress, entropy)
    }

    fn seal(
        &self,
        (backend, share): &(Backend, KeyShare),
        offer: UnsignedOffer,
        proofs: MadeProofs,
        entropy: &mut dyn Entropy,
    ) -> Result<Delivery, DealError> {
        let (wallet, index, receiver) = (self.own.wallet(), share.index(), backend.card.card());
        let enrolment = offer.sign(&self.keys, Some(proofs.into_proofs()));
        let holding = Holding {
            wallet: wallet.record_hash(),
            index,
            device_card: self.card.fingerprint(),
            token: *backend.token.id(),
            enrolment: enrolment.content_hash(),
        };
        let contents = PackageContents {
            wallet: wallet.id(),
            epoch: wallet.epoch(),
            index: u8::from(index),
            share: *share.secret().to_bytes(),
            commitments: vec![
                RawPoint(wallet.public_key().to_bytes()),
                RawPoint(wallet.commitment().to_bytes()),
            ],
            chain_code: *wallet.chain_code(),
            nonce: *wallet.nonce(),
            tenant: wallet.tenant().clone(),
            indices: ShareIndex::ALL.map(u8::from).to_vec(),
            holders: wallet.holders().to_vec(),
            requesters: wallet.requesters().to_vec(),
            token: backend.token.clone(),
            enrolment,
        };
        let envelope = Envelope::seal(&contents, index, &self.keys, &self.card, receiver, entropy)?;
        let envelope = codec::encode(&envelope).map_err(SealError::from)?;
        Ok(Delivery::new(index, receiver, envelope, holding))
    }
}

/// A drawn wallet whose device share is encrypted for every receiver: all but the proofs about the
/// modulus.
#[derive(Debug)]
pub struct Encrypted {
    drawn: Drawn,
    offers: Vec<UnsignedOffer>,
}

impl Encrypted {
    /// Puts the packages together and seals them. This wipes the others' shares before it returns.
    ///
    /// # Errors
    /// When a receiver's proofs are not among `proofs`.
    pub fn assemble(
        self,
        mut proofs: Vec<MadeProofs>,
        progress: &mut dyn KeygenObserver,
        entropy: &mut dyn Entropy,
    ) -> Result<Dealt, DealError> {
        let Self { drawn, offers } = self;
        let mut deliveries = Vec::new();
        for (receiver, offer) in drawn.receivers.iter().zip(offers) {
            let card = receiver.0.card.card();
            let made = proofs
                .iter()
                .position(|made| made.is_for(&drawn.paillier, &drawn.card, card))
                .map(|at| proofs.swap_remove(at))
                .ok_or_else(|| DealError::Proofs(card.party().clone()))?;
            progress.step(KeygenStep::Sealing(receiver.1.index()));
            deliveries.push(drawn.seal(receiver, offer, made, entropy)?);
        }
        let Drawn { own, backup, keys, card, paillier, .. } = drawn;
        let device = DeviceWallet {
            share: Arc::new(own),
            paillier: Arc::new(paillier),
            keys: Arc::new(keys),
            card: Arc::new(card),
        };
        Ok(Dealt { pending: PendingWallet { device, deliveries }, backup })
    }
}
