//! The jobs of a run, and the one signature that all of them get.

use std::sync::OnceLock;

use duet_protocol::{ids::SessionId, public_key::PublicKey};
use duet_queue::{
    store::JobKey,
    verified::{SealedResult, Verified},
};
use duet_wire::{
    JobRecord, Priority, RecoverableSignature, SignedRequest, SigningRequest, signing::Identity,
};

/// Signs results, with a signature that no test looks at.
struct Unsigned;

impl Identity for Unsigned {
    fn verification_key(&self) -> [u8; 32] {
        [0; 32]
    }

    fn sign_bytes(&self, _: &[u8]) -> [u8; 64] {
        [0; 64]
    }
}

/// A job that is accepted at `now_ms`.
pub(crate) fn job(number: u64, now_ms: u64, expires_at_ms: u64) -> JobRecord {
    let tenant = if number.is_multiple_of(3) { "globex" } else { "acme" };
    let body = format!(
        r#"{{"version":1,"tenant":"{tenant}","wallet":"{}","payload":{{"kind":"personal_message","text":"pay"}},"idempotency_key":"job-{number}","expires_at":{},"pairs":["service+partner"]}}"#,
        "07".repeat(32),
        expires_at_ms / 1000,
    );
    let request = SigningRequest::from_json(body.as_bytes()).unwrap();
    let signed = SignedRequest { body: body.into_bytes(), requester: [0; 32], signature: [0; 64] };
    let priority = Priority::ALL[usize::try_from(number % 3).unwrap()];
    JobRecord::new(signed, &request, now_ms).with_priority(priority)
}

pub(crate) fn key(record: &JobRecord) -> JobKey {
    JobKey::of(record)
}

/// The result of a session in which the parties sign `record`'s payload.
pub(crate) fn result(record: &JobRecord, session: SessionId, now_ms: u64) -> SealedResult {
    static SIGNED: OnceLock<Verified> = OnceLock::new();
    let request = SigningRequest::from_json(&record.request.body).unwrap();
    let verified = SIGNED.get_or_init(|| {
        let key = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let public: [u8; 33] = key.verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap();
        let (signature, recovery) = key.sign_prehash_recoverable(&request.payload.digest().unwrap());
        let (r, s) = signature.split_bytes();
        let signature = RecoverableSignature::new(r.into(), s.into(), recovery.is_y_odd()).unwrap();
        Verified::check(&request, PublicKey::from_bytes(&public).unwrap(), signature).unwrap()
    });
    verified.clone().seal(&request, session, now_ms, &Unsigned).unwrap()
}
