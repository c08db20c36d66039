//! Parties in one process: real cards, real keygen, real sessions, on published primes.
#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "test code; the protocol's own tests include this file and use a part of it"
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
    door::Door,
    enrolment::{EnrolmentOffer, ModulusProofs, OfferSetup, OfferVerifier, VerifiedEnrolment},
    identity::{IdentityKey, PartyKeys},
    ids::{CardFingerprint, PartyId, SessionId, ShareIndex, TenantId},
    initiator::{AwaitingCipher, AwaitingResponse, Initiator, InitiatorSetup},
    keygen::{Backend, DealerSetup, DeviceWallet, PendingWallet, ThirdHolder},
    package::{PreparedShare, Receiver},
    paillier::ModulusSize,
    paillier_key::PaillierKey,
    public_key::DerivationPath,
    responder::{AwaitingOpening, Charged, ReadyToRespond, Responder, ResponderSetup},
    share::{KeyShare, Requester},
    signature::RecoverableSignature,
    verdict::{LockWritten, Unlocked, Verdict},
};
use rand_core::Rng as _;

// The parent, because the protocol's own tests include this file and its neighbour.
use super::test_fixtures::{self, Seeded, rng};

/// The time of everything that happens here.
pub const NOW_UNIX_S: u64 = 1_800_000_000;

/// Random bytes.
pub fn random<const N: usize>(rng: &mut Seeded) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A party's id.
pub fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

/// A backend party after set-up.
#[derive(Clone)]
pub struct Party {
    /// Its share.
    pub index: ShareIndex,
    /// Its secret keys.
    pub keys: Arc<PartyKeys>,
    /// Its card.
    pub card: Arc<Card>,
    /// The cards that it has pinned.
    pub pinned: BTreeMap<PartyId, CardFingerprint>,
}

impl Party {
    fn new(name: &str, index: ShareIndex, arithmetic: &'static dyn Arithmetic, rng: &mut Seeded) -> Self {
        let keys = PartyKeys::generate(rng);
        let (parameters, trapdoor) =
            test_fixtures::ring_pedersen(usize::from(u8::from(index)), arithmetic, rng);
        let card = Card::new_verifier(party(name), &keys, &parameters, &trapdoor, rng);
        Self { index, keys: Arc::new(keys), card: Arc::new(card), pinned: BTreeMap::new() }
    }

    /// Its side of a key generation.
    pub fn receiver(&self, arithmetic: &'static dyn Arithmetic) -> Receiver<'_> {
        Receiver { index: self.index, keys: &self.keys, card: &self.card, pinned: &self.pinned, arithmetic }
    }

    /// A token for a tenant.
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
    /// The arithmetic of every party.
    pub arithmetic: &'static dyn Arithmetic,
    /// The generator of every party.
    pub rng: Seeded,
    /// The tenant of every wallet.
    pub tenant: TenantId,
    /// The owner's request key.
    pub owner: IdentityKey,
    /// The party with share 2.
    pub service: Party,
    /// The party with share 3.
    pub partner: Party,
    /// The service's card, its parameters verified.
    pub service_card: VerifiedCard,
    /// The partner's card, its parameters verified.
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
    /// Both parties, and a generator of this seed.
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

    /// The device's inputs for a wallet with both parties.
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

    /// A dealt wallet, of a given private key or a random one.
    pub fn deal(&mut self, private_key: Option<SecretScalar>) -> PendingWallet {
        let setup = self.dealer_setup();
        let paillier = test_fixtures::decryption_key(0, self.arithmetic);
        Door::deal(&setup, private_key, Some(paillier), &mut self.rng).unwrap().pending
    }

    /// What the service (0) or the partner (1) makes of its package.
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
    /// The device's part.
    pub device: DeviceWallet,
    /// The device's card, as the other holders have it.
    pub device_card: Arc<Card>,
    /// Share 2.
    pub service: Arc<KeyShare>,
    /// Share 3.
    pub partner: Arc<KeyShare>,
    /// With which the service answers the device.
    pub from_device_to_service: Arc<VerifiedEnrolment>,
    /// With which the partner answers the device.
    pub from_device_to_partner: Arc<VerifiedEnrolment>,
    /// With which the partner answers the service.
    pub from_service_to_partner: Option<Arc<VerifiedEnrolment>>,
    /// The service's Paillier key towards the partner.
    pub service_paillier: Arc<PaillierKey>,
}

/// Which two holders sign, the initiator first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// The device asks the service.
    DeviceService,
    /// The device asks the partner.
    DevicePartner,
    /// The service asks the partner.
    ServicePartner,
}

/// Every pair.
pub const PAIRS: [Pair; 3] = [Pair::DeviceService, Pair::DevicePartner, Pair::ServicePartner];

/// What a session signs.
#[derive(Clone)]
pub struct Job {
    /// The session's manifest. The protocol does not read it.
    pub manifest: Vec<u8>,
    /// The session's id.
    pub session: SessionId,
    /// The digest to sign.
    pub digest: [u8; 32],
    /// The path of the key that signs.
    pub path: DerivationPath,
}

impl Job {
    /// A random digest in a session of its own.
    pub fn random(rng: &mut Seeded, path: &str) -> Self {
        let session = SessionId(random(rng));
        Self {
            manifest: [b"manifest of ".as_slice(), session.as_bytes()].concat(),
            session,
            digest: random(rng),
            path: path.parse().unwrap(),
        }
    }

    /// That the responder has charged it.
    pub fn charged(&self, wallet: &Wallet) -> Charged {
        Charged::committed_durably(self.session, wallet.service.wallet().id(), self.digest)
    }
}

impl Wallet {
    /// The service's offer to the partner, with all proofs.
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

    /// What the partner checks such an offer against.
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

    /// Has the partner verify a new offer, and answer with it from now on.
    pub fn enrol_service_with_partner(&mut self, world: &mut World, generation: u64) {
        let offer = self.service_offer(world, generation);
        let offer: EnrolmentOffer = codec::decode(&codec::encode(&offer).unwrap()).unwrap();
        let (enrolment, _) = self.partner_verifier(world).verify(&offer).unwrap();
        self.from_service_to_partner = Some(Arc::new(enrolment));
    }

    /// With which the pair's responder answers.
    pub fn enrolment(&self, pair: Pair) -> Arc<VerifiedEnrolment> {
        match pair {
            Pair::DeviceService => self.from_device_to_service.clone(),
            Pair::DevicePartner => self.from_device_to_partner.clone(),
            Pair::ServicePartner => self.from_service_to_partner.clone().unwrap(),
        }
    }

    /// The initiator's inputs of a session.
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

    /// The responder's inputs of a session.
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
