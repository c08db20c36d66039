//! The requests of a run, and the signatures that they get. What costs a signature is made once for
//! all runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

use duet_protocol::{
    ids::{SessionId, WalletId},
    public_key::PublicKey,
};
use duet_queue::{
    store::{JobKey, Version, request_of},
    verified::{SealedResult, Verified, VerifiedRequest, VerifiedRevocation},
};
use duet_wire::{
    JobRecord, RecoverableSignature, SignedRequest, SigningRequest,
    revocation::RevocationProof,
    signing::{Identity, SigningKey},
};

/// The wallet of all jobs.
pub(crate) const WALLET: WalletId = WalletId([7; 32]);

/// The job that parties often refuse for good, and that an operator soon puts back.
pub(crate) const REFUSED: u64 = 1;

/// The job that only the owner's device can sign.
pub(crate) const OWNERS: u64 = 2;

/// The two jobs with the same transaction.
pub(crate) const TWINS: [u64; 2] = [4, 5];

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

/// Which request a client submits under a job's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    First,
    /// The first one, drawn up anew with another expiry.
    Redated,
    /// It asks for something else.
    Changed,
}

/// What all runs share.
struct Made<K, V>(OnceLock<Mutex<BTreeMap<K, V>>>);

impl<K: Ord, V: Clone> Made<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let mut made = self.0.get_or_init(Mutex::default).lock().unwrap();
        made.entry(key).or_insert_with(make).clone()
    }
}

fn requester() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub(crate) fn tenant(number: u64) -> &'static str {
    if number == 3 || number == 0 { "globex" } else { "acme" }
}

/// The request of job `number`, which expires at `expires_at`, in seconds since 1970.
pub(crate) fn request(number: u64, variant: Variant, expires_at: u64) -> Arc<VerifiedRequest> {
    static MADE: Made<(u64, Variant, u64), Arc<VerifiedRequest>> = Made(OnceLock::new());
    MADE.get((number, variant, expires_at), || {
        let tenant = tenant(number);
        let payload = match variant {
            Variant::Changed => r#"{"kind":"personal_message","text":"pay more"}"#,
            _ if TWINS.contains(&number) => {
                r#"{"kind":"transaction","type":"0x2","chainId":31337,"nonce":1,"to":"0x00000000000000000000000000000000DeaDBeef","value":"1","gas":21000,"maxFeePerGas":"1000000000","maxPriorityFeePerGas":"1"}"#
            }
            _ => r#"{"kind":"personal_message","text":"pay"}"#,
        };
        let pairs = if number == OWNERS { "device+service" } else { "service+partner" };
        let expires_at = if variant == Variant::Redated { expires_at + 1 } else { expires_at };
        let body = format!(
            r#"{{"version":1,"tenant":"{tenant}","wallet":"{WALLET}","payload":{payload},"idempotency_key":"job-{number}","expires_at":{expires_at},"pairs":["{pairs}"]}}"#,
        );
        let signed = SignedRequest::sign(body.into_bytes(), &requester());
        Arc::new(VerifiedRequest::check(&signed).unwrap())
    })
}

/// The key of job `number`.
pub(crate) fn key(number: u64) -> JobKey {
    static MADE: Made<u64, JobKey> = Made(OnceLock::new());
    MADE.get(number, || request(number, Variant::First, 2_000_000_000).job())
}

/// Whether `record` has a request of the changed variant.
pub(crate) fn is_changed(record: &JobRecord) -> bool {
    asks_for_more(&record.request.body)
}

/// Whether a request's body is of the changed variant.
pub(crate) fn asks_for_more(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("pay more")
}

/// The revocation of a job's request by its requester.
pub(crate) fn revocation(version: &Version) -> VerifiedRevocation {
    static MADE: Made<[u8; 32], VerifiedRevocation> = Made(OnceLock::new());
    let content_hash = version.record.request.content_hash();
    MADE.get(content_hash, || {
        let proof = RevocationProof::sign(WALLET, content_hash, &requester());
        VerifiedRevocation::check(&version.record, &request_of(&version.record).unwrap(), proof).unwrap()
    })
}

/// The result of a session in which the parties sign `record`'s payload.
pub(crate) fn result(record: &JobRecord, session: SessionId, now_ms: u64) -> SealedResult {
    static MADE: Made<[u8; 32], Verified> = Made(OnceLock::new());
    let request = SigningRequest::from_json(&record.request.body).unwrap();
    let digest = request.payload.digest().unwrap();
    let verified = MADE.get(digest, || {
        let key = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let public: [u8; 33] = key.verifying_key().to_sec1_point(true).as_bytes().try_into().unwrap();
        let (signature, recovery) = key.sign_prehash_recoverable(&digest);
        let (r, s) = signature.split_bytes();
        let signature = RecoverableSignature::new(r.into(), s.into(), recovery.is_y_odd()).unwrap();
        Verified::check(&request, PublicKey::from_bytes(&public).unwrap(), signature).unwrap()
    });
    verified.seal(&request, session, now_ms, &Unsigned).unwrap()
}
