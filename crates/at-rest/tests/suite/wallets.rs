//! Tests stored wallets and backups with wallets that a real dealing made.

use std::sync::Arc;

use duet_adversary::{
    dealing,
    test_fixtures::{self, rng},
};
use duet_at_rest::{
    KeyEncryptionKey, OpenError, SealedRecord,
    age::{DecryptError, WorkFactor},
    backup::{Backup, BackupError, Contents, RestoreError},
    device::{
        DeviceIdentity, InvalidRecord, OpenWalletError, OwnerKey, RotationError, StoredPending, StoredWallet,
    },
};
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::{Card, VerifiedCard},
    enrolment::{EnrolmentOffer, OfferVerifier},
    identity::{IdentityKey, PartyKeys},
    ids::{PaillierKeyId, ShareIndex, WalletId},
    keygen::{Backend, DealerSetup, Dealt, DeviceWallet, ThirdHolder},
    paillier::ModulusSize,
    paillier_key::PaillierKey,
    share::Requester,
};
use zeroize::Zeroizing;

const QUICK: WorkFactor = WorkFactor::new(4).unwrap();

fn key(byte: u8) -> KeyEncryptionKey {
    KeyEncryptionKey::from_bytes(Zeroizing::new([byte; 32]))
}

/// A party whose parameters count as proved: proving them takes seconds.
fn backend(name: &str, fixture: usize) -> Backend {
    let (rng, arithmetic) = (&mut rng(fixture as u64), default_arithmetic());
    let keys = PartyKeys::generate(rng);
    let (parameters, trapdoor) = test_fixtures::ring_pedersen(fixture, arithmetic, rng);
    let card = Arc::new(Card::new_verifier(name.parse().unwrap(), &keys, &parameters, &trapdoor, rng));
    let fingerprint = card.fingerprint();
    let card = VerifiedCard::verify(card, &fingerprint, arithmetic).unwrap();
    let token =
        AdmissionToken::issue(&keys, name.parse().unwrap(), "acme".parse().unwrap(), [1; 16], u64::MAX, 9);
    Backend { card, token }
}

struct Setting {
    owner: OwnerKey,
    service: Backend,
    partner: Backend,
}

impl Setting {
    fn new() -> Self {
        let owner = OwnerKey::generate(&mut rng(7));
        Self { owner, service: backend("service", 1), partner: backend("partner", 2) }
    }

    fn deal(&self, third: ThirdHolder) -> Dealt {
        let setup = DealerSetup {
            tenant: "acme".parse().unwrap(),
            device: "device".parse().unwrap(),
            service: self.service.clone(),
            third,
            requesters: vec![Requester::new(IdentityKey::from_bytes(&self.owner.public()).unwrap())],
            modulus: ModulusSize::Bits2048,
            generation: 1,
            arithmetic: default_arithmetic(),
        };
        let paillier = test_fixtures::decryption_key(0, default_arithmetic());
        dealing::deal_chosen(&setup, None, Some(paillier), &mut rng(3)).unwrap()
    }

    fn partnered(&self) -> Dealt {
        self.deal(ThirdHolder::Partner(self.partner.clone()))
    }

    fn wallet(&self) -> StoredWallet {
        StoredWallet::new(&device(&self.partnered()), self.owner.clone()).unwrap()
    }
}

/// The device's part, after all parties have committed.
fn device(dealt: &Dealt) -> DeviceWallet {
    let bytes = dealing::device(&dealt.pending).to_secret_bytes().unwrap();
    DeviceWallet::from_secret_bytes(&bytes, default_arithmetic()).unwrap()
}

fn new_key(fixture: usize) -> Arc<PaillierKey> {
    let decryption = test_fixtures::decryption_key(fixture, default_arithmetic());
    Arc::new(PaillierKey::new("device".parse().unwrap(), decryption))
}

/// Proves the newest key and offers it.
fn offer_to(wallet: &StoredWallet, responder: &Backend) -> Result<EnrolmentOffer, RotationError> {
    let proofs = wallet.proof_task(&responder.card)?.prove(default_arithmetic(), &mut rng(4)).unwrap();
    wallet.offer(&responder.card, proofs, 2, &mut rng(4))
}

fn parties(wallet: &StoredWallet) -> Vec<String> {
    wallet.unenrolled().map(|(_, party)| party.to_string()).collect()
}

#[test]
fn a_sealed_wallet_opens_for_its_own_key_and_id_only() {
    let wallet = Setting::new().wallet();
    let id = wallet.wallet().id();
    let sealed = SealedRecord::from_bytes(wallet.seal(&key(1)).unwrap().as_bytes().to_vec());
    let open = |key: &KeyEncryptionKey, id| StoredWallet::open(&sealed, key, id, default_arithmetic());
    let opened = open(&key(1), id).unwrap();
    assert_eq!(opened.wallet(), wallet.wallet());
    assert_eq!(opened.newest_key().unwrap().id(), wallet.newest_key().unwrap().id());
    assert_eq!(opened.identity().owner().public(), wallet.identity().owner().public());
    assert_eq!(parties(&opened), Vec::<String>::new());
    assert_eq!(open(&key(2), id).unwrap_err(), OpenWalletError::Open(OpenError::Refused));
    assert_eq!(open(&key(1), WalletId([0; 32])).unwrap_err(), OpenWalletError::Open(OpenError::Refused));
}

#[test]
fn a_sealed_pending_wallet_opens_and_is_no_finished_one() {
    let setting = Setting::new();
    let pending = StoredPending::new(setting.partnered().pending, setting.owner.clone());
    let id = pending.pending().wallet();
    let sealed = pending.seal(&key(1)).unwrap();
    let opened = StoredPending::open(&sealed, &key(1), id, default_arithmetic()).unwrap();
    assert_eq!(opened.pending().deliveries().len(), 2);
    assert_eq!(opened.owner().public(), setting.owner.public());
    assert!(StoredWallet::open(&sealed, &key(1), id, default_arithmetic()).is_err());
}

#[test]
fn parts_of_different_wallets_are_refused() {
    let setting = Setting::new();
    let stranger = OwnerKey::generate(&mut rng(8));
    assert_eq!(
        StoredWallet::new(&device(&setting.partnered()), stranger).unwrap_err(),
        InvalidRecord::Contradiction
    );
    let ours = device(&setting.partnered());
    let keys = Arc::new(PartyKeys::generate(&mut rng(9)));
    assert_eq!(
        DeviceIdentity::new(Arc::clone(ours.share()), keys, Arc::clone(ours.card()), setting.owner.clone())
            .unwrap_err(),
        InvalidRecord::Contradiction
    );
}

#[test]
fn an_old_key_serves_until_its_responder_has_agreed_on_the_new_one() {
    let setting = Setting::new();
    let mut wallet = setting.wallet();
    let (service, partner) = ("service".parse().unwrap(), "partner".parse().unwrap());
    let old = wallet.newest_key().unwrap().id();
    let new = new_key(1);
    let foreign =
        PaillierKey::new("other".parse().unwrap(), test_fixtures::decryption_key(1, default_arithmetic()));
    assert_eq!(wallet.begin_rotation(Arc::new(foreign)), Err(RotationError::ForeignKey));
    wallet.begin_rotation(Arc::clone(&new)).unwrap();
    assert_eq!(parties(&wallet), ["service", "partner"]);
    let serves = |wallet: &StoredWallet, party, id: PaillierKeyId| wallet.key_for(party, id).is_some();
    assert!(serves(&wallet, &service, old) && serves(&wallet, &partner, old));
    // The responder may have accepted the key while its answer was lost.
    assert!(serves(&wallet, &service, new.id()));

    wallet.agree(&service, new.id()).unwrap();
    assert_eq!(parties(&wallet), ["partner"]);
    assert!(!serves(&wallet, &service, old) && serves(&wallet, &partner, old));
    assert_eq!(
        wallet.agree(&"other".parse().unwrap(), new.id()),
        Err(RotationError::Stranger("other".parse().unwrap()))
    );
    assert_eq!(wallet.agree(&partner, PaillierKeyId([0; 16])), Err(RotationError::NoKey));
    wallet.agree(&partner, new.id()).unwrap();
    assert!(!serves(&wallet, &partner, old));
    assert_eq!(wallet.keys().len(), 1, "the old key is forgotten");
}

#[test]
fn an_offer_convinces_its_responder() {
    let setting = Setting::new();
    let mut wallet = setting.wallet();
    wallet.begin_rotation(new_key(1)).unwrap();
    let offer = offer_to(&wallet, &setting.service).unwrap();
    let verifier = OfferVerifier {
        wallet: wallet.wallet(),
        index: ShareIndex::Service,
        card: setting.service.card.card(),
        initiator: wallet.identity().card(),
        modulus: None,
        newest_generation: Some(1),
        arithmetic: default_arithmetic(),
    };
    let (enrolment, _) = verifier.verify(&offer).unwrap();
    assert_eq!(enrolment.paillier_key(), wallet.newest_key().unwrap().id());
    assert!(matches!(offer_to(&wallet, &backend("service", 3)), Err(RotationError::Stranger(_))));
    // Proofs for one responder do not serve another.
    let for_service = wallet.proof_task(&setting.service.card).unwrap();
    let proofs = for_service.prove(default_arithmetic(), &mut rng(5)).unwrap();
    assert_eq!(
        wallet.offer(&setting.partner.card, proofs, 2, &mut rng(4)).unwrap_err(),
        RotationError::Proofs("partner".parse().unwrap())
    );
}

#[test]
fn a_restored_wallet_has_no_key_to_initiate_with() {
    let setting = Setting::new();
    let wallet = setting.wallet();
    let file = Backup::of_device(wallet.identity().clone(), 5).to_file("correct horse", QUICK).unwrap();
    assert_eq!(
        Backup::from_file("correct house", &file).unwrap_err(),
        RestoreError::Decrypt(DecryptError::WrongPassphrase)
    );
    let backup = Backup::from_file("correct horse", &file).unwrap();
    assert_eq!((backup.made_at_ms(), backup.wallet()), (5, wallet.wallet()));
    let Contents::Device(identity) = backup.into_contents() else { panic!("not a device's") };
    let mut restored = StoredWallet::restored(identity);
    assert!(restored.newest_key().is_none());
    let old = wallet.newest_key().unwrap().id();
    assert!(restored.key_for(&"service".parse().unwrap(), old).is_none());
    assert_eq!(parties(&restored), ["service", "partner"]);
    assert!(matches!(offer_to(&restored, &setting.service), Err(RotationError::NoKey)));
    restored.begin_rotation(new_key(2)).unwrap();
    offer_to(&restored, &setting.service).unwrap();
}

#[test]
fn the_third_share_of_a_wallet_without_a_partner_goes_to_a_file() {
    let setting = Setting::new();
    let dealt = setting.deal(ThirdHolder::Backup);
    let share = Arc::new(dealt.backup.unwrap());
    let backup = Backup::of_third(Arc::clone(&share), 6).unwrap();
    let file = backup.to_file("correct horse", QUICK).unwrap();
    let read = Backup::from_file("correct horse", &file).unwrap();
    let Contents::Third(read) = read.into_contents() else { panic!("not the third share") };
    assert_eq!(read.to_secret_bytes().unwrap(), share.to_secret_bytes().unwrap());

    let ours = Arc::clone(setting.wallet().identity().share());
    assert_eq!(Backup::of_third(ours, 6).unwrap_err(), BackupError::NotTheOwners(ShareIndex::Device));
}
