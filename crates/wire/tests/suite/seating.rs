//! What a party checks of a manifest against the wallet's own record: each thing wrong by itself.

use std::sync::{Arc, LazyLock};

use duet_adversary::{
    dealing::deal_chosen,
    test_fixtures::{self, Seeded},
};
use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::{Card, VerifiedCard},
    identity::{IdentityKey, PartyKeys},
    ids::{Epoch, ShareIndex, WalletId},
    keygen::{Backend, DealerSetup, ThirdHolder},
    paillier::ModulusSize,
    share::{KeyShare, PayloadKindTag, Requester, WalletPublic},
};
use duet_wire::{Code, Manifest, SignedRequest, seating::Seated, signing::SigningKey};
use serde_json::{Value, json};

use crate::samples::{dated_document, manifest, requester};

const NOW_MS: u64 = 1_800_000_000_000;

fn backend(name: &str, which: usize, rng: &mut Seeded) -> Backend {
    let keys = PartyKeys::generate(rng);
    let (parameters, trapdoor) = test_fixtures::ring_pedersen(which, default_arithmetic(), rng);
    let card = Card::new_verifier(name.parse().unwrap(), &keys, &parameters, &trapdoor, rng);
    let fingerprint = card.fingerprint();
    let card = VerifiedCard::verify(Arc::new(card), &fingerprint, default_arithmetic()).unwrap();
    let token =
        AdmissionToken::issue(&keys, name.parse().unwrap(), "acme".parse().unwrap(), [1; 16], u64::MAX, 1);
    Backend { card, token }
}

/// A wallet of acme's whose owner may have transactions signed, and nothing else.
static SHARE: LazyLock<Arc<KeyShare>> = LazyLock::new(|| {
    let rng = &mut test_fixtures::rng(1);
    let owner = IdentityKey::from_bytes(&requester().verifying_key().to_bytes()).unwrap();
    let setup = DealerSetup {
        tenant: "acme".parse().unwrap(),
        device: "device".parse().unwrap(),
        service: backend("service", 0, rng),
        third: ThirdHolder::Backup,
        requesters: vec![Requester { key: owner, kinds: vec![PayloadKindTag::Transaction] }],
        modulus: ModulusSize::Bits2048,
        generation: 1,
        arithmetic: default_arithmetic(),
    };
    let paillier = test_fixtures::decryption_key(0, default_arithmetic());
    Arc::new(deal_chosen(&setup, None, Some(paillier), rng).unwrap().backup.unwrap())
});

fn wallet() -> &'static WalletPublic {
    SHARE.wallet()
}

/// A session of the device and the service for a request document, which is first made to fit.
fn session(change: impl FnOnce(&mut Value), key: &SigningKey) -> Manifest {
    let mut document = dated_document();
    document["wallet"] = wallet().id().to_string().into();
    document["pairs"] = json!(["device+service"]);
    change(&mut document);
    let mut manifest = manifest();
    manifest.request = SignedRequest::sign(document.to_string().into_bytes(), key);
    manifest.job = manifest.request.verify().unwrap().job();
    manifest.wallet = wallet().id();
    manifest.initiator.party = "device".parse().unwrap();
    manifest.initiator.index = ShareIndex::Device;
    manifest.responder.party = "service".parse().unwrap();
    manifest.responder.index = ShareIndex::Service;
    manifest
}

fn refused(manifest: &Manifest, own: ShareIndex) -> Code {
    Seated::check_for(&manifest.encode().unwrap(), wallet(), own, NOW_MS).unwrap_err().code
}

#[test]
fn a_session_that_fits_is_accepted_by_its_two_seats_alone() {
    let good = session(|_| {}, &requester());
    let bytes = good.encode().unwrap();
    for own in [ShareIndex::Device, ShareIndex::Service] {
        let seated = Seated::check_for(&bytes, wallet(), own, NOW_MS).unwrap();
        assert_eq!(seated.manifest, good);
        assert_eq!(seated.digest, seated.request.payload.digest().unwrap());
    }
    assert_eq!(refused(&good, ShareIndex::Partner), Code::CardMismatch);
    assert_eq!(Seated::check(&bytes, &SHARE, NOW_MS).unwrap_err().code, Code::CardMismatch);
}

#[test]
fn each_thing_wrong_is_refused_by_its_own_code() {
    let with = |change: fn(&mut Manifest)| {
        let mut manifest = session(|_| {}, &requester());
        change(&mut manifest);
        refused(&manifest, ShareIndex::Service)
    };
    assert_eq!(with(|m| m.initiator.party = "laptop".parse().unwrap()), Code::CardMismatch);
    assert_eq!(with(|m| m.responder.party = "partner".parse().unwrap()), Code::CardMismatch);
    assert_eq!(with(|m| m.epoch = Epoch(1)), Code::StaleEpoch);
    assert_eq!(with(|m| m.wallet = WalletId([9; 32])), Code::PeerMisbehaved);
    assert_eq!(with(|m| m.expires_at_ms = NOW_MS - 30_000), Code::ClockDiffers);
    assert_eq!(with(|m| m.request.signature[0] ^= 1), Code::BadSignature);

    let asked = |change: fn(&mut Value)| refused(&session(change, &requester()), ShareIndex::Service);
    assert_eq!(asked(|d| d["tenant"] = "other".into()), Code::WrongTenant);
    assert_eq!(asked(|d| d["expires_at"] = 1_799_999_970.into()), Code::JobExpired);
    assert_eq!(asked(|d| d["issued_at"] = 1_800_000_031.into()), Code::ClockDiffers);
    assert_eq!(asked(|d| d["expires_at"] = (1_799_999_999 + 30 * 86_400 + 1).into()), Code::ValidTooLong);
    assert_eq!(
        asked(|d| d["payload"] = json!({ "kind": "personal_message", "text": "x" })),
        Code::KindNotAllowed
    );
    let stranger = SigningKey::from_bytes(&[8; 32]);
    assert_eq!(refused(&session(|_| {}, &stranger), ShareIndex::Service), Code::RequesterNotAllowed);
}

#[test]
fn a_session_of_another_wallet_and_bytes_that_are_none_are_refused() {
    // Consistent in itself, but for another wallet.
    let mut other = session(|document| document["wallet"] = "77".repeat(32).into(), &requester());
    other.wallet = WalletId([0x77; 32]);
    assert_eq!(refused(&other, ShareIndex::Service), Code::UnknownWallet);
    let refusal = Seated::check_for(&[0x40, 1, 2], wallet(), ShareIndex::Service, NOW_MS).unwrap_err();
    assert_eq!(refusal.code, Code::MalformedMessage);
}
