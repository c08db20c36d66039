//! Manifests, outcomes, approvals and results: every field counts, every byte counts.

use duet_protocol::ids::{SessionId, ShareIndex, WalletId};
use duet_wire::{
    Code, JobId, Outcome, OutcomeResult, SignedOutcome, SignedRequest, SignedResult,
    approval::{ApprovalAction, ApprovalError, ApprovalRequest, SignedApproval},
    manifest::ManifestError,
    policy::{DatedApproval, RequestApproval},
    signing::{self, Purpose, SigningKey},
};

use crate::samples::{manifest, request, requester, result, signature};

const NOW_MS: u64 = 1_800_000_000_000;

fn outcome() -> Outcome {
    Outcome {
        session: SessionId([2; 16]),
        job: JobId([3; 16]),
        attempt: 1,
        from: "service".parse().unwrap(),
        result: OutcomeResult::Signed { signature: signature() },
    }
}

fn approval() -> ApprovalRequest {
    ApprovalRequest {
        wallet: WalletId([1; 32]),
        action: ApprovalAction::Approve { job: JobId([3; 16]) },
        issued_at_ms: NOW_MS,
        nonce: [9; 16],
    }
}

fn public(key: &SigningKey) -> [u8; 32] {
    key.verifying_key().to_bytes()
}

#[test]
fn the_date_of_a_request_and_of_an_approval_is_signed() {
    let key = requester();
    let dated = |issued_at: u64| {
        let document = format!(
            r#"{{"version":2,"tenant":"acme","wallet":"{}","payload":{{"kind":"personal_message","text":"hi"}},"idempotency_key":"k","issued_at":{issued_at},"expires_at":{}}}"#,
            "11".repeat(32),
            NOW_MS / 1000 + 60
        );
        SignedRequest::sign(document.into_bytes(), &key)
    };
    let (first, later) = (dated(NOW_MS / 1000), dated(NOW_MS / 1000 + 1));
    assert_eq!(first.verify().unwrap().issued_at, Some(NOW_MS / 1000));
    // A kept request with a new date, under the old signature.
    let moved = SignedRequest { body: later.body.clone(), ..first.clone() };
    assert_eq!(moved.verify().unwrap_err().code(), Code::BadSignature);
    assert_ne!(moved.content_hash(), first.content_hash(), "nor does an approval or a revocation follow it");

    let approval = DatedApproval::sign(first, NOW_MS / 1000, &key);
    assert!(approval.verify().is_ok());
    let redated = DatedApproval { issued_at: approval.issued_at + 1, ..approval };
    assert!(redated.verify().is_err());
}

#[test]
fn a_manifest_must_say_what_the_request_says() {
    assert_eq!(manifest().verify(NOW_MS), Ok(request()));
    let refused = |change: fn(&mut duet_wire::Manifest)| {
        let mut changed = manifest();
        change(&mut changed);
        changed.verify(NOW_MS).unwrap_err()
    };
    assert_eq!(refused(|m| m.wallet = WalletId([9; 32])), ManifestError::Contradiction("another wallet"));
    assert_eq!(refused(|m| m.job = JobId([9; 16])), ManifestError::Contradiction("another job"));
    assert!(matches!(refused(|m| m.attempt = 0), ManifestError::Contradiction(_)));
    assert!(matches!(refused(|m| m.initiator.index = ShareIndex::Partner), ManifestError::Contradiction(_)));
    assert!(matches!(refused(|m| m.responder = m.initiator.clone()), ManifestError::Contradiction(_)));
    // Service and device, in the wrong order; then a pair that the requester did not name.
    assert!(matches!(refused(|m| m.responder.index = ShareIndex::Device), ManifestError::Contradiction(_)));
    assert_eq!(
        refused(|m| m.initiator.index = ShareIndex::Device),
        ManifestError::Contradiction("a pair that the requester did not allow")
    );
    assert_eq!(refused(|m| m.request.body[0] = b' ').code(), Code::BadSignature);
    let over = refused(|m| m.expires_at_ms = NOW_MS - 35_000);
    assert_eq!((over.code(), &over), (Code::ClockDiffers, &ManifestError::SessionOver { by_ms: 35_000 }));
    assert!(over.to_string().contains("ended 35 s ago"), "{over}");
}

#[test]
fn a_manifest_cannot_outlive_its_request() {
    let mut late = manifest();
    late.expires_at_ms = u64::MAX;
    assert!(late.verify(2_000_000_029_999).is_ok());
    assert_eq!(late.verify(2_000_000_030_000).unwrap_err().code(), Code::JobExpired);
}

#[test]
fn every_bit_of_an_outcome_is_signed() {
    let key = requester();
    let signed = SignedOutcome::sign(&outcome(), &key).unwrap();
    assert_eq!(signed.verify(&public(&key)), Ok(outcome()));
    assert!(signed.verify(&public(&SigningKey::from_bytes(&[8; 32]))).is_err());
    for bit in 0..signed.outcome.len() * 8 {
        let mut changed = signed.clone();
        changed.outcome[bit / 8] ^= 1 << (bit % 8);
        assert!(changed.verify(&public(&key)).is_err(), "bit {bit}");
    }
}

#[test]
fn an_approval_is_by_the_device_and_fresh() {
    let key = requester();
    let signed = SignedApproval::sign(&approval(), &key).unwrap();
    assert_eq!(signed.verify(&public(&key), NOW_MS + 59_000), Ok(approval()));
    assert_eq!(signed.unverified(), Ok(approval()));
    for now in [NOW_MS + 61_000, NOW_MS - 61_000] {
        let refused = signed.verify(&public(&key), now);
        assert!(matches!(refused, Err(ApprovalError::NotFresh { .. })), "{refused:?}");
    }
    for at in 0..signed.request.len() {
        let mut changed = signed.clone();
        changed.request[at] ^= 1;
        assert!(changed.verify(&public(&key), NOW_MS).is_err(), "byte {at}");
    }
}

#[test]
fn a_result_is_by_the_orchestrator_and_every_byte_is_signed() {
    let key = requester();
    let signed = SignedResult::sign(&result(), &key).unwrap();
    assert_eq!(signed.verify(&public(&key)), Ok(result()));
    let other = SigningKey::from_bytes(&[8; 32]);
    assert!(SignedResult::sign(&result(), &other).unwrap().verify(&public(&key)).is_err());
    for at in 0..signed.body.len() {
        let mut changed = signed.clone();
        changed.body[at] ^= 1;
        assert!(changed.verify(&public(&key)).is_err(), "byte {at}");
    }
    let stored: SignedResult = serde_json::from_value(serde_json::to_value(&signed).unwrap()).unwrap();
    assert_eq!(stored, signed);
}

#[test]
fn the_result_document_is_pinned() {
    let signed = SignedResult::sign(&result(), &requester()).unwrap();
    assert_eq!(
        String::from_utf8(signed.body).unwrap(),
        format!(
            concat!(
                r#"{{"job":"{job}","tenant":"acme","wallet":"{wallet}","path":"m/0/5","#,
                r#""address":"{address}","digest":"0x{digest}","signature":"0x{r}{s}1c","#,
                r#""signed_transaction":"0x02f8","transaction_hash":"0x{hash}","session":"{session}","#,
                r#""completed_at_ms":1900000000000}}"#
            ),
            job = request().job(),
            wallet = "11".repeat(32),
            address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            digest = "04".repeat(32),
            r = "01".repeat(32),
            s = "02".repeat(32),
            hash = "06".repeat(32),
            session = "02".repeat(16),
        )
    );
}

#[test]
fn a_result_of_the_version_before_is_still_read() {
    // It has the parity where there is v now.
    let mut body = SignedResult::sign(&result(), &requester()).unwrap().body;
    let text = String::from_utf8(body).unwrap();
    assert_eq!(text.matches("1c\",\"signed_transaction").count(), 1);
    body = text.replace("1c\",\"signed_transaction", "01\",\"signed_transaction").into_bytes();
    let signature = signing::sign(Purpose::Result, &body, &requester());
    let old = SignedResult { body, key: public(&requester()), signature };
    assert_eq!(old.verify(&public(&requester())), Ok(result()));
}

/// The vectors of docs/signing.md, which other languages' programs are compared with.
#[test]
fn the_documentations_vectors_are_what_this_crate_signs() {
    const PAGE: &str = include_str!("../../../../docs/signing.md");
    let (_, rest) = PAGE.split_once("```json\n").unwrap();
    let vectors: serde_json::Value = serde_json::from_str(rest.split_once("\n```").unwrap().0).unwrap();
    let text = |name: &str| vectors[name].as_str().unwrap();
    let key = |name: &str| {
        let mut seed = [0; 32];
        hex::decode_to_slice(text(name), &mut seed).unwrap();
        SigningKey::from_bytes(&seed)
    };
    let signed = SignedRequest::sign(text("request").as_bytes().to_vec(), &key("requester_seed"));
    signed.verify().unwrap();
    assert_eq!(hex::encode(signed.requester), text("requester"));
    assert_eq!(hex::encode(signed.signature), text("signature"));
    assert_eq!(hex::encode(signed.content_hash()), text("approved"));
    let approval = RequestApproval::sign(signed, &key("approver_seed"));
    approval.verify().unwrap();
    assert_eq!(hex::encode(approval.approver), text("approver"));
    assert_eq!(hex::encode(approval.signature), text("approval"));
}

/// Every line that something is signed under is on the page.
#[test]
fn the_documentation_names_every_line() {
    const PAGE: &str = include_str!("../../../../docs/signing.md");
    const SOURCE: &str = include_str!("../../src/signing.rs");
    let lines: Vec<&str> =
        SOURCE.split("b\"duet/v1/").skip(1).filter_map(|rest| Some(rest.split_once("\\n\"")?.0)).collect();
    assert!(lines.len() >= 12, "{lines:?}");
    for line in lines {
        assert!(PAGE.contains(&format!("`duet/v1/{line}`")), "{line}");
    }
}
