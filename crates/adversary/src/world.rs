//! Parties in one process: real cards, real keygen, real sessions, on published primes.
#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "test code that every test file uses a part of"
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::Arithmetic,
    card::{Card, VerifiedCard},
    codec,
    curve::SecretScalar,
    enrolment::{EnrolmentOffer, ModulusProofs, OfferSetup, OfferVerifier, VerifiedEnrolment},
    identity::{IdentityKey, PartyKeys},
    ids::{CardFingerprint, PartyId, SessionId, ShareIndex, TenantId},
    initiator::{AwaitingCipher, AwaitingResponse, Initiator, InitiatorSetup},
    keygen::{self, Backend, DealerSetup, DeviceWallet, PendingWallet, ThirdHolder},
    package::{PreparedShare, Receiver},
    paillier::ModulusSize,
    paillier_key::PaillierKey,
    public_key::DerivationPath,
    responder::{AwaitingOpening, Charged, ReadyToRespond, Responder, ResponderSetup},
    share::{KeyShare, Requester},
    signature::RecoverableSignature,
    test_fixtures,
    verdict::{LockWritten, Unlocked, Verdict},
};
use rand_chacha::ChaCha20Rng;
pub use rand_chacha::rand_core::{Rng, SeedableRng};

pub const NOW_UNIX_S: u64 = 1_800_000_000;

pub fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub fn random<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

pub fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

/// A backend party after set-up.
#[derive(Clone)]
pub struct Party {
    pub index: ShareIndex,
    pub keys: Arc<PartyKeys>,
    pub card: Arc<Card>,
    pub pinned: BTreeMap<PartyId, CardFingerprint>,
}

impl Party {
    fn new(
        name: &str,
        index: ShareIndex,
        arithmetic: &'static dyn Arithmetic,
        rng: &mut ChaCha20Rng,
    ) -> Self {
        let keys = PartyKeys::generate(rng);
        let (parameters, trapdoor) =
            test_fixtures::ring_pedersen(usize::from(u8::from(index)), arithmetic, rng);
        let card = Card::new_verifier(party(name), &keys, &parameters, &trapdoor, rng);
        Self { index, keys: Arc::new(keys), card: Arc::new(card), pinned: BTreeMap::new() }
    }

    pub fn receiver(&self, arithmetic: &'static dyn Arithmetic) -> Receiver<'_> {
        Receiver { index: self.index, keys: &self.keys, card: &self.card, pinned: &self.pinned, arithmetic }
    }

    pub fn token(&self, tenant: &TenantId) -> AdmissionToken {
        AdmissionToken::issue(
            &self.keys,
            self.card.party().clone(),
            tenant.clone(),
            [9; 16],
            NOW_UNIX_S + 60,
            10,
        )
    }
}

/// Service and partner, set up.
pub struct World {
    pub arithmetic: &'static dyn Arithmetic,
    pub rng: ChaCha20Rng,
    pub tenant: TenantId,
    pub owner: IdentityKey,
    pub service: Party,
    pub partner: Party,
    pub service_card: VerifiedCard,
    pub partner_card: VerifiedCard,
}

/// Both parties set up, once per arithmetic and test program: their proofs take most of a second.
type Parties = (Party, Party, VerifiedCard, VerifiedCard);

fn set_up(arithmetic: &'static dyn Arithmetic) -> Parties {
    static MADE: Mutex<BTreeMap<&'static str, Parties>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let parties = made.entry(arithmetic.name()).or_insert_with(|| {
        let mut rng = rng(1);
        let mut service = Party::new("service", ShareIndex::Service, arithmetic, &mut rng);
        let mut partner = Party::new("partner", ShareIndex::Partner, arithmetic, &mut rng);
        service.pinned.insert(party("partner"), partner.card.fingerprint());
        partner.pinned.insert(party("service"), service.card.fingerprint());
        let verify =
            |card: &Arc<Card>| VerifiedCard::verify(card.clone(), &card.fingerprint(), arithmetic).unwrap();
        let cards = (verify(&service.card), verify(&partner.card));
        (service, partner, cards.0, cards.1)
    });
    parties.clone()
}

impl World {
    pub fn new(arithmetic: &'static dyn Arithmetic, seed: u64) -> Self {
        let mut rng = rng(seed);
        let (service, partner, service_card, partner_card) = set_up(arithmetic);
        Self {
            owner: PartyKeys::generate(&mut rng).identity(),
            tenant: "acme".parse().unwrap(),
            service,
            partner,
            service_card,
            partner_card,
            arithmetic,
            rng,
        }
    }

    pub fn dealer_setup(&self) -> DealerSetup {
        DealerSetup {
            tenant: self.tenant.clone(),
            device: party("device"),
            service: Backend { card: self.service_card.clone(), token: self.service.token(&self.tenant) },
            third: ThirdHolder::Partner(Backend {
                card: self.partner_card.clone(),
                token: self.partner.token(&self.tenant),
            }),
            requesters: vec![Requester::new(self.owner)],
            modulus: ModulusSize::Bits2048,
            generation: 1,
            arithmetic: self.arithmetic,
        }
    }

    pub fn deal(&mut self, private_key: Option<SecretScalar>) -> PendingWallet {
        let setup = self.dealer_setup();
        let paillier = test_fixtures::decryption_key(0, self.arithmetic);
        keygen::deal_chosen(&setup, private_key, Some(paillier), &mut self.rng).unwrap().pending
    }

    pub fn prepare(&self, pending: &PendingWallet, at: usize) -> PreparedShare {
        let receiver = [&self.service, &self.partner][at].receiver(self.arithmetic);
        let opened = receiver.open(pending.deliveries()[at].envelope()).unwrap();
        opened.verify(&receiver, NOW_UNIX_S, 0).unwrap()
    }

    /// A whole key generation, then the service's first contact with the partner.
    pub fn wallet(&mut self, private_key: Option<SecretScalar>) -> Wallet {
        let pending = self.deal(private_key);
        self.complete(pending)
    }

    /// What follows the deal.
    pub fn complete(&mut self, pending: PendingWallet) -> Wallet {
        let service = self.prepare(&pending, 0);
        let partner = self.prepare(&pending, 1);
        let receipts = [
            service.receipt(&self.service.keys, &self.service.card),
            partner.receipt(&self.partner.keys, &self.partner.card),
        ];
        let bundle = pending.bundle(&receipts).unwrap();
        let acks = [
            bundle
                .verify(&service, &self.service.card, &[&self.partner.card])
                .unwrap()
                .acknowledge(&self.service.keys),
            bundle
                .verify(&partner, &self.partner.card, &[&self.service.card])
                .unwrap()
                .acknowledge(&self.partner.keys),
        ];
        let device = pending.finish(&bundle, &acks).map_err(|(_, refusal)| refusal).unwrap();
        let (service, from_device_to_service, device_card) = service.into_parts();
        let (partner, from_device_to_partner, _) = partner.into_parts();
        let service_paillier =
            PaillierKey::new(party("service"), test_fixtures::decryption_key(1, self.arithmetic));
        let mut wallet = Wallet {
            device_card,
            service: Arc::new(service),
            partner: Arc::new(partner),
            from_device_to_service: Arc::new(from_device_to_service),
            from_device_to_partner: Arc::new(from_device_to_partner),
            // Replaced below by the service's own offer.
            from_service_to_partner: None,
            service_paillier: Arc::new(service_paillier),
            device,
        };
        wallet.enrol_service_with_partner(self, 1);
        wallet
    }
}

/// A wallet as its three holders have it.
pub struct Wallet {
    pub device: DeviceWallet,
    pub device_card: Arc<Card>,
    pub service: Arc<KeyShare>,
    pub partner: Arc<KeyShare>,
    pub from_device_to_service: Arc<VerifiedEnrolment>,
    pub from_device_to_partner: Arc<VerifiedEnrolment>,
    pub from_service_to_partner: Option<Arc<VerifiedEnrolment>>,
    pub service_paillier: Arc<PaillierKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    DeviceService,
    DevicePartner,
    ServicePartner,
}

pub const PAIRS: [Pair; 3] = [Pair::DeviceService, Pair::DevicePartner, Pair::ServicePartner];

/// What a session signs.
#[derive(Clone)]
pub struct Job {
    pub manifest: Vec<u8>,
    pub session: SessionId,
    pub digest: [u8; 32],
    pub path: DerivationPath,
}

impl Job {
    pub fn random(rng: &mut ChaCha20Rng, path: &str) -> Self {
        let session = SessionId(random(rng));
        Self {
            manifest: [b"manifest of ".as_slice(), session.as_bytes()].concat(),
            session,
            digest: random(rng),
            path: path.parse().unwrap(),
        }
    }

    pub fn charged(&self, wallet: &Wallet) -> Charged {
        Charged::committed_durably(self.session, wallet.service.wallet().id(), self.digest)
    }
}

impl Wallet {
    pub fn service_offer(&self, world: &mut World, generation: u64) -> EnrolmentOffer {
        let proofs = ModulusProofs::prove(
            &self.service_paillier,
            &world.service.card,
            &world.partner_card,
            &mut world.rng,
        );
        let setup = OfferSetup {
            share: &self.service,
            paillier: &self.service_paillier,
            keys: &world.service.keys,
            card: &world.service.card,
            responder: &world.partner_card,
            responder_index: ShareIndex::Partner,
            generation,
        };
        EnrolmentOffer::make(&setup, Some(proofs.unwrap()), &mut world.rng).unwrap()
    }

    pub fn partner_verifier<'a>(&'a self, world: &'a World) -> OfferVerifier<'a> {
        OfferVerifier {
            wallet: self.partner.wallet(),
            index: ShareIndex::Partner,
            card: &world.partner.card,
            initiator: &world.service.card,
            modulus: None,
            newest_generation: self.from_service_to_partner.as_ref().map(|e| e.generation()),
            arithmetic: world.arithmetic,
        }
    }

    pub fn enrol_service_with_partner(&mut self, world: &mut World, generation: u64) {
        let offer = self.service_offer(world, generation);
        let offer: EnrolmentOffer = codec::decode(&codec::encode(&offer).unwrap()).unwrap();
        let (enrolment, _) = self.partner_verifier(world).verify(&offer).unwrap();
        self.from_service_to_partner = Some(Arc::new(enrolment));
    }

    pub fn enrolment(&self, pair: Pair) -> Arc<VerifiedEnrolment> {
        match pair {
            Pair::DeviceService => self.from_device_to_service.clone(),
            Pair::DevicePartner => self.from_device_to_partner.clone(),
            Pair::ServicePartner => self.from_service_to_partner.clone().unwrap(),
        }
    }

    pub fn initiator(&self, world: &World, pair: Pair, job: &Job) -> InitiatorSetup {
        let (responder_index, responder) = match pair {
            Pair::DeviceService => (ShareIndex::Service, &world.service),
            Pair::DevicePartner | Pair::ServicePartner => (ShareIndex::Partner, &world.partner),
        };
        let (share, paillier, keys, card) = match pair {
            Pair::DeviceService | Pair::DevicePartner => (
                self.device.share().clone(),
                self.device.paillier().clone(),
                self.device.keys().clone(),
                self.device.card().clone(),
            ),
            Pair::ServicePartner => (
                self.service.clone(),
                self.service_paillier.clone(),
                world.service.keys.clone(),
                world.service.card.clone(),
            ),
        };
        InitiatorSetup {
            manifest: job.manifest.clone(),
            session: job.session,
            digest: job.digest,
            path: job.path.clone(),
            share,
            paillier,
            keys,
            card,
            responder_index,
            responder: responder.card.clone(),
        }
    }

    pub fn responder(&self, world: &World, pair: Pair, job: &Job) -> ResponderSetup {
        let (share, party) = match pair {
            Pair::DeviceService => (&self.service, &world.service),
            Pair::DevicePartner | Pair::ServicePartner => (&self.partner, &world.partner),
        };
        let initiator = match pair {
            Pair::DeviceService | Pair::DevicePartner => &self.device_card,
            Pair::ServicePartner => &world.service.card,
        };
        ResponderSetup {
            manifest: job.manifest.clone(),
            session: job.session,
            digest: job.digest,
            path: job.path.clone(),
            share: share.clone(),
            enrolment: self.enrolment(pair),
            keys: party.keys.clone(),
            card: party.card.clone(),
            initiator: initiator.clone(),
        }
    }

    /// Messages 1 and 2.
    pub fn open(
        &self,
        world: &mut World,
        pair: Pair,
        job: &Job,
    ) -> (AwaitingResponse, AwaitingOpening, [Vec<u8>; 2]) {
        let (initiator, message1) =
            Initiator::start(self.initiator(world, pair, job), &mut world.rng).unwrap();
        let (responder, message2) =
            Responder::accept(self.responder(world, pair, job), &message1, &mut world.rng).unwrap();
        (initiator, responder, [message1, message2])
    }

    /// Messages 1 to 3.
    pub fn run_to_answer(
        &self,
        world: &mut World,
        pair: Pair,
        job: &Job,
    ) -> (AwaitingCipher, ReadyToRespond, [Vec<u8>; 3]) {
        let (initiator, responder, [message1, message2]) = self.open(world, pair, job);
        let (initiator, message3) = initiator.receive(&message2, &mut world.rng).unwrap();
        let responder = responder.receive(&message3).unwrap();
        (initiator, responder, [message1, message2, message3])
    }

    /// A whole session.
    pub fn sign(&self, world: &mut World, pair: Pair, job: &Job) -> RecoverableSignature {
        let (initiator, responder, _) = self.run_to_answer(world, pair, job);
        let (message4, sent) = responder.respond(job.charged(self), None, &mut world.rng).unwrap();
        let verdict = initiator.receive(&message4, &mut world.rng).unwrap();
        let (signature, evidence) = good(verdict, job);
        assert_eq!(evidence, sent, "both sides keep the same evidence");
        signature
    }
}

/// What an unlocked store lets through.
pub fn good(verdict: Verdict, job: &Job) -> (RecoverableSignature, duet_protocol::session::CipherEvidence) {
    let key = verdict.paillier_key();
    let Verdict::Good(gated) = verdict else { panic!("a good signature") };
    gated.release(Unlocked::found_by_linearisable_read(key, job.session)).unwrap()
}

/// Locks for a bad verdict, and says who is to blame.
pub fn bad(verdict: Verdict, job: &Job) -> PartyId {
    let key = verdict.paillier_key();
    let Verdict::Bad(demand) = verdict else { panic!("a bad signature") };
    let report = demand.settle(LockWritten::committed_durably(key, job.session)).unwrap();
    report.culprit().clone()
}
