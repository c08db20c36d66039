//! Packages in which just one thing is wrong: each is refused by the name of that thing.

use super::*;
use crate::{
    arithmetic::default_arithmetic,
    curve::Scalar,
    keygen::PendingWallet,
    test_fixtures::rng,
    world::{NOW_UNIX_S, World, party},
};

const SERVICE: usize = 0;

struct Case {
    world: World,
    pending: PendingWallet,
}

impl Case {
    fn new() -> Self {
        let mut world = World::new(default_arithmetic(), 7);
        let pending = world.deal(None);
        Self { world, pending }
    }

    fn envelope(&self) -> Envelope {
        codec::decode(self.pending.deliveries()[SERVICE].envelope()).unwrap()
    }

    fn contents(&self) -> PackageContents {
        let service = &self.world.service;
        codec::decode(&self.envelope().open(&service.keys, &service.card).unwrap()).unwrap()
    }

    fn verify_bytes(&self, envelope: &[u8], wallets_held: u32) -> Result<PreparedShare, PackageRefusal> {
        let receiver = self.world.service.receiver(self.world.arithmetic);
        receiver.open(envelope)?.verify(&receiver, NOW_UNIX_S, wallets_held)
    }

    fn verify(&self, envelope: &Envelope) -> Result<PreparedShare, PackageRefusal> {
        self.verify_bytes(&codec::encode(envelope).unwrap(), 0)
    }

    /// Seals the changed contents as the device would have.
    fn seal(&mut self, contents: &PackageContents) -> Envelope {
        let device = &self.pending.device;
        let (keys, card) = (device.keys().clone(), device.card().clone());
        let receiver = self.world.service.card.clone();
        Envelope::seal(contents, ShareIndex::Service, &keys, &card, &receiver, &mut self.world.rng).unwrap()
    }

    /// The name of the check that refuses the package after `change`. With `rename`, the wallet id
    /// is made to fit the change, as a cheating dealer would.
    fn refusal(&mut self, rename: bool, change: impl FnOnce(&mut PackageContents)) -> &'static str {
        let mut contents = self.contents();
        change(&mut contents);
        if rename {
            contents.wallet = renamed(&contents);
        }
        let envelope = self.seal(&contents);
        self.verify(&envelope).unwrap_err().check()
    }
}

fn renamed(contents: &PackageContents) -> WalletId {
    let (public_key, commitment) = commitments(&contents.commitments).unwrap();
    WalletRecord {
        id: WalletId([0; 32]),
        epoch: contents.epoch,
        public_key,
        commitment,
        chain_code: contents.chain_code,
        nonce: contents.nonce,
        tenant: contents.tenant.clone(),
        holders: contents.holders.clone().try_into().unwrap(),
        requesters: contents.requesters.clone(),
    }
    .computed_id()
}

const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

#[test]
fn an_honest_package_is_taken_and_survives_storage() {
    let case = Case::new();
    let prepared = case.verify(&case.envelope()).unwrap();
    let bytes = prepared.to_secret_bytes().unwrap();
    let again = PreparedShare::from_secret_bytes(&bytes, case.world.arithmetic).unwrap();
    let service = &case.world.service;
    assert_eq!(
        prepared.receipt(&service.keys, &service.card),
        again.receipt(&service.keys, &service.card),
        "a repeated step gives the same receipt"
    );
    let shown = format!("{prepared:?}");
    assert!(!shown.contains(&hex::encode(*prepared.share().secret().to_bytes())));
}

#[test]
fn the_envelope_is_checked_first() {
    let case = Case::new();
    let bytes = codec::encode(&case.envelope()).unwrap();
    for end in [0, 1, 2, 100, bytes.len() - 1] {
        assert_eq!(case.verify_bytes(&bytes[..end], 0).unwrap_err().check(), "envelope");
    }
    let mut other = case.envelope();
    other.index = ShareIndex::Partner;
    assert_eq!(case.verify(&other).unwrap_err().check(), "receiver");
    let mut other = case.envelope();
    other.wallet = WalletId([1; 32]);
    assert_eq!(case.verify(&other).unwrap_err().check(), "seal");
    let mut other = case.envelope();
    other.epoch = Epoch(1);
    assert_eq!(case.verify(&other).unwrap_err().check(), "seal");
    // Another device cannot pass the package off as its own.
    let mut other = case.envelope();
    let thief = PartyKeys::generate(&mut rng(3));
    other.sender = Card::new(party("device"), &thief);
    assert_eq!(case.verify(&other).unwrap_err().check(), "seal");
    // The partner's package is not the service's.
    let partners = case.pending.deliveries()[1].envelope();
    assert_eq!(case.verify_bytes(partners, 0).unwrap_err().check(), "receiver");
}

#[test]
fn the_inside_has_to_be_of_the_envelope() {
    let mut case = Case::new();
    assert_eq!(case.refusal(false, |c| c.epoch = Epoch(1)), "epoch");
    assert_eq!(case.refusal(false, |c| c.index = 3), "index");
    assert_eq!(case.refusal(false, |c| c.index = 0), "index");
    // Sealed for the envelope's wallet, but with another one inside.
    let mut contents = case.contents();
    contents.wallet = WalletId([1; 32]);
    let inside = codec::encode_secret(&contents).unwrap();
    assert_eq!(case.sealed_plaintext(&inside), "envelope-wallet");
    assert_eq!(case.sealed_plaintext(&inside[..inside.len() - 1]), "contents");
}

impl Case {
    fn sealed_plaintext(&mut self, plaintext: &[u8]) -> &'static str {
        let mut envelope = self.envelope();
        let context = SealContext {
            kind: "share-package",
            wallet: envelope.wallet,
            epoch: envelope.epoch,
            index: envelope.index,
            sender: envelope.sender.fingerprint(),
            receiver: self.world.service.card.fingerprint(),
        };
        let keys = self.pending.device.keys().clone();
        let to = *self.world.service.card.noise_key();
        envelope.sealed = seal::seal(&keys, &to, &context, plaintext, &mut self.world.rng).unwrap();
        self.verify(&envelope).unwrap_err().check()
    }
}

#[test]
fn commitments_and_numbers_are_checked_one_by_one() {
    let mut case = Case::new();
    assert_eq!(case.refusal(false, |c| c.commitments.clear()), "commitment-count");
    assert_eq!(case.refusal(false, |c| c.commitments.truncate(1)), "commitment-count");
    assert_eq!(case.refusal(false, |c| c.commitments.push(c.commitments[1])), "commitment-count");
    let mut off_curve = [0; 33];
    (off_curve[0], off_curve[32]) = (2, 5);
    for bad in [[0; 33], off_curve] {
        assert_eq!(case.refusal(false, |c| c.commitments[0] = RawPoint(bad)), "public-key");
        assert_eq!(case.refusal(false, |c| c.commitments[1] = RawPoint(bad)), "commitment");
    }
    assert_eq!(case.refusal(false, |c| c.share = [0; 32]), "share-range");
    assert_eq!(case.refusal(false, |c| hex::decode_to_slice(ORDER, &mut c.share).unwrap()), "share-range");
    assert_eq!(case.refusal(false, |c| c.share[31] ^= 1), "feldman");
    // A commitment to another polynomial, with the wallet id made to fit.
    assert_eq!(case.refusal(true, |c| c.commitments[1] = RawPoint(Point::generator().to_bytes())), "feldman");
    // f(z) = −a + a·z makes the device's share zero.
    assert_eq!(
        case.refusal(true, |c| {
            let slope = Point::from_bytes(&c.commitments[1].0).unwrap();
            let minus = slope.mul(&-Scalar::ONE).unwrap();
            c.commitments[0] = RawPoint(minus.to_bytes());
        }),
        "public-share"
    );
}

#[test]
fn indices_holders_and_cards_are_checked_one_by_one() {
    let mut case = Case::new();
    for bad in
        [vec![], vec![0, 2, 3], vec![1, 2, 2], vec![1, 2], vec![1, 2, 3, 4], vec![3, 2, 1], vec![1, 2, 4]]
    {
        assert_eq!(case.refusal(false, |c| c.indices = bad), "indices");
    }
    assert_eq!(case.refusal(false, |c| c.holders.truncate(2)), "holder-count");
    assert_eq!(case.refusal(false, |c| c.holders.push(Holder::Backup)), "holder-count");
    let other = |name| Holder::Party { party: party(name), card: CardFingerprint([5; 32]) };
    assert_eq!(case.refusal(true, |c| c.holders[1] = other("service")), "own-card");
    assert_eq!(case.refusal(true, |c| c.holders[1] = Holder::Backup), "own-card");
    assert_eq!(case.refusal(true, |c| c.holders[0] = other("device")), "device-card");
    assert_eq!(case.refusal(true, |c| c.holders[2] = other("partner")), "peer-card");
    assert_eq!(case.refusal(true, |c| c.holders[2] = other("stranger")), "peer-card");
    assert_eq!(case.refusal(true, |c| c.holders[0] = Holder::Backup), "holders");
    assert_eq!(case.refusal(false, |c| c.nonce[0] ^= 1), "wallet-id");
    assert_eq!(case.refusal(true, |c| c.requesters.clear()), "requesters");
}

#[test]
fn the_token_is_checked_in_every_field() {
    let mut case = Case::new();
    let (keys, tenant) = (case.world.service.keys.clone(), case.world.tenant.clone());
    let stranger = case.world.partner.keys.clone();
    let issue = |keys: &PartyKeys, name: &str, tenant: &str, expires_at| {
        AdmissionToken::issue(keys, party(name), tenant.parse().unwrap(), [1; 16], expires_at, 5)
    };
    let acme = tenant.as_str();
    let later = NOW_UNIX_S + 1;
    assert_eq!(
        case.refusal(false, |c| c.token = issue(&stranger, "service", acme, later)),
        "token-signature"
    );
    assert_eq!(case.refusal(false, |c| c.token = issue(&keys, "partner", acme, later)), "token-party");
    assert_eq!(case.refusal(false, |c| c.token = issue(&keys, "service", "evil", later)), "token-tenant");
    assert_eq!(case.refusal(false, |c| c.token = issue(&keys, "service", acme, NOW_UNIX_S)), "token-expiry");
    // The token of the harness admits ten wallets.
    let bytes = codec::encode(&case.envelope()).unwrap();
    assert!(case.verify_bytes(&bytes, 9).is_ok());
    assert_eq!(case.verify_bytes(&bytes, 10).unwrap_err().check(), "token-quota");
}

#[test]
fn the_enrolment_is_checked_against_the_receivers_own_data() {
    let mut case = Case::new();
    // The partner's offer, honest in itself, in the service's package.
    let partner = &case.world.partner;
    let envelope: Envelope = codec::decode(case.pending.deliveries()[1].envelope()).unwrap();
    let partners: PackageContents =
        codec::decode(&envelope.open(&partner.keys, &partner.card).unwrap()).unwrap();
    assert_eq!(case.refusal(false, |c| c.enrolment = partners.enrolment.clone()), "enrolment-roles");
    // An honest package of another wallet.
    let other = case.world.deal(None);
    let service = &case.world.service;
    let envelope: Envelope = codec::decode(other.deliveries()[SERVICE].envelope()).unwrap();
    let others: PackageContents =
        codec::decode(&envelope.open(&service.keys, &service.card).unwrap()).unwrap();
    assert_eq!(case.refusal(false, |c| c.enrolment = others.enrolment.clone()), "enrolment-wallet");
}
