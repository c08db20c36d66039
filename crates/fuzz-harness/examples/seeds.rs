//! Writes the seeds of the fuzzers, one valid input of each kind, into `fuzz/corpus`.
//! `cargo run --package duet-fuzz-harness --example seeds`
#![expect(clippy::unwrap_used, reason = "a seed that cannot be made stops")]

use std::{fs, path::Path};

use duet_adversary::world::{World, party};
use duet_at_rest::{Argon2Cost, KeyEncryptionKey, RecordKind, RecordLabel, SealedRecord, protection};
use duet_protocol::{
    arithmetic::default_arithmetic,
    codec,
    ids::{Epoch, PaillierKeyId, SessionId, ShareIndex, WalletId},
};
use duet_wire::{
    Code, Invitation, InvitationReply, Manifest, Outcome, OutcomeResult, Payload, Priority, Refusal, Seat,
    SignedOutcome, SignedRequest, SigningRequest,
    approval::{ApprovalAction, ApprovalRequest, SignedApproval},
    batch::{BatchItem, BatchRequest},
    card_request::{CardReply, CardRequest},
    gateway::{Authentication, ClientFrame, Destination, ServerFrame, WaitingQuestion},
    policy::Policy,
    share_request::{ShareReply, ShareRequest},
    signing::SigningKey,
};

const REQUEST: &str = r#"{"version":1,"tenant":"acme","wallet":"1111111111111111111111111111111111111111111111111111111111111111","path":"m/0/5","payload":PAYLOAD,"idempotency_key":"payout-1","expires_at":2000000000,"pairs":["device+service","service+partner"]}"#;

const PAYLOADS: [&str; 6] = [
    r#"{"kind":"transaction","type":"0x2","chainId":31337,"nonce":0,"to":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","value":"0xde0b6b3a7640000","gas":21000,"maxFeePerGas":"2000000000","maxPriorityFeePerGas":1}"#,
    r#"{"kind":"transaction","type":"0x1","chainId":1,"nonce":7,"to":null,"value":0,"gas":21000,"gasPrice":1,"data":"0x6001","accessList":[{"address":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","storageKeys":[]}]}"#,
    r#"{"kind":"personal_message","text":"hello"}"#,
    r#"{"kind":"personal_message","hex":"0xdeadbeef"}"#,
    r#"{"kind":"digest","digest":"0x5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"}"#,
    r#"{"kind":"typed_data","types":{"EIP712Domain":[{"name":"name","type":"string"}],"Mail":[{"name":"to","type":"address[]"},{"name":"body","type":"bytes"}]},"primaryType":"Mail","domain":{"name":"x"},"message":{"to":["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"],"body":"0x00"}}"#,
];

const POLICIES: [&str; 2] = [
    r#"{"version":1,"wallet":"9d3f0c2f6d0a4b1e8c7a5d9e2b4f6a8c0e1d3f5b7a9c8e6d4b2a1f3e5d7c9b8a","revision":1,"delay":"24h","limits":[{"within":"7d","signatures":5000}],"rules":[{"name":"payouts","payloads":["transaction"],"chains":[31337],"to":["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"],"max_value":"1000000000000000000","max_fee":"any","limits":[{"within":"24h","value":"1000000000000000000","signatures":100}],"times":[{"days":["mon","tue"],"from":"00:00","until":"24:00"}]},{"name":"calls","payloads":["transaction"],"chains":[1],"to":["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"],"calls":["0xa9059cbb"]}]}"#,
    r#"{"version":1,"wallet":"9d3f0c2f6d0a4b1e8c7a5d9e2b4f6a8c0e1d3f5b7a9c8e6d4b2a1f3e5d7c9b8a","revision":2,"rules":[{"name":"two-of-three","payloads":["transaction","typed_data","digest"],"chains":"any","to":"any","calls":"any","max_value":"any","max_fee":"any","create_contracts":true,"primary_types":"any","approvals":{"keys":["0202020202020202020202020202020202020202020202020202020202020202","0303030303030303030303030303030303030303030303030303030303030303"],"threshold":2}},{"name":"talk","payloads":["personal_message"],"pairs":["device+service"],"requesters":["0101010101010101010101010101010101010101010101010101010101010101"]}]}"#,
];

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

fn message<M: codec::Message>(target: &str, name: &str, message: &M) {
    write(target, name, &codec::encode(message).unwrap());
}

fn decoders() {
    let mut world = World::new(default_arithmetic(), 71);
    let pending = world.deal(None);
    let (service, partner) = (world.prepare(&pending, 0), world.prepare(&pending, 1));
    let receipt = service.receipt(&world.service.keys, &world.service.card);
    let receipts = [receipt.clone(), partner.receipt(&world.partner.keys, &world.partner.card)];
    let bundle = pending.bundle(&receipts).unwrap();
    let order = bundle.verify(&service, &world.service.card, &[&world.partner.card]).unwrap();
    message("decoders", "card", &*world.service.card);
    message("decoders", "token", &world.service.token(&world.tenant));
    message("decoders", "wallet", service.share().wallet());
    message("decoders", "receipt", &receipt);
    message("decoders", "bundle", &bundle);
    message("decoders", "acknowledgement", &order.acknowledge(&world.service.keys));
    write("decoders", "share", &service.share().to_secret_bytes().unwrap());
    write("decoders", "enrolment", &service.enrolment().to_bytes().unwrap());

    let key = SigningKey::from_bytes(&[7; 32]);
    let signed = SignedRequest::sign(REQUEST.replace("PAYLOAD", PAYLOADS[0]).into_bytes(), &key);
    let request: SigningRequest = signed.verify().unwrap();
    let seat = |name: &str, index| Seat { party: party(name), index };
    let manifest = Manifest {
        session: SessionId([2; 16]),
        job: request.job(),
        attempt: 1,
        wallet: WalletId([0x11; 32]),
        epoch: Epoch(0),
        paillier_key: PaillierKeyId([3; 16]),
        initiator: seat("service", ShareIndex::Service),
        responder: seat("partner", ShareIndex::Partner),
        request: signed.clone(),
        expires_at_ms: 1_900_000_000_000,
    };
    message("decoders", "manifest", &manifest);
    message("decoders", "invitation", &Invitation { manifest: vec![1, 2, 3] });
    let refusal = Refusal::new(Code::Locked, "locked");
    message("decoders", "invitation-reply", &InvitationReply::Refused(refusal.clone()));
    let outcome = Outcome {
        session: manifest.session,
        job: manifest.job,
        attempt: 1,
        from: party("service"),
        result: OutcomeResult::Failed { code: Code::Deadline, culprit: None, message: "late".to_owned() },
    };
    message("decoders", "outcome", &outcome);
    message("decoders", "signed-outcome", &SignedOutcome::sign(&outcome, &key).unwrap());
    let wallets = CardRequest::Wallets { after: Some(WalletId([1; 32])), limit: 9 };
    message("decoders", "card-request", &wallets);
    message("decoders", "card-reply", &CardReply::Refused(refusal.clone()));
    message("decoders", "share-request", &ShareRequest::Prepare { package: vec![1; 64] });
    message("decoders", "share-reply", &ShareReply::Receipt { receipt: vec![1; 64] });
    let approval = ApprovalRequest {
        wallet: WalletId([1; 32]),
        action: ApprovalAction::Sign { request: signed },
        issued_at_ms: 7,
        nonce: [9; 16],
    };
    message("decoders", "approval", &approval);
    message("decoders", "signed-approval", &SignedApproval::sign(&approval, &key).unwrap());

    let (wallet, session) = (WalletId([1; 32]), SessionId([2; 16]));
    message("frames", "hello", &ClientFrame::Hello { protocol: 1, build: "x".to_owned() });
    let proof = Authentication { challenge: [1; 32], wallet, issued_at_ms: 7 };
    message("frames", "proof", &proof.frame(&key));
    let to = Destination::Round { session, to: party("service") };
    message("frames", "request", &ClientFrame::Request { id: 1, to, message: vec![1; 40] });
    message("frames", "leave", &ClientFrame::Leave { wallet });
    message("frames", "refused", &ServerFrame::Refused { id: Some(1), refusal });
    message("frames", "waiting", &ServerFrame::Waiting { wallet, jobs: 3 });
    message("frames", "question", &WaitingQuestion { wallet });
}

fn main() {
    decoders();
    for (number, payload) in PAYLOADS.iter().enumerate() {
        Payload::from_json(payload.as_bytes()).unwrap();
        write("documents", &format!("payload-{number}"), payload.as_bytes());
        write("documents", &format!("request-{number}"), REQUEST.replace("PAYLOAD", payload).as_bytes());
    }
    let signed = SignedRequest::sign(
        REQUEST.replace("PAYLOAD", PAYLOADS[2]).into_bytes(),
        &SigningKey::from_bytes(&[7; 32]),
    );
    let batch = BatchRequest {
        items: vec![BatchItem { request: signed, priority: Priority::default(), repeat_digest: false }],
    };
    write("documents", "batch", &batch.to_json().unwrap());
    for (number, policy) in POLICIES.iter().enumerate() {
        Policy::from_json(policy.as_bytes()).unwrap();
        for (kind, payload) in PAYLOADS.iter().enumerate() {
            // The requester, the pair, the time, and the approvers.
            let circumstances = [1, 2, 0x65, 0x54, 0x37, 0, 2, 3];
            let input = [policy.as_bytes(), payload.as_bytes(), &circumstances].join(&0);
            write("policies", &format!("{number}-{kind}"), &input);
        }
    }
    write("documents", "json", br#"{"a":[1,-2,"x",null,true,{"b":"\u00e9"}]}"#);
    let label = RecordLabel::of_party(RecordKind::Check, b"fuzz");
    let other = KeyEncryptionKey::from_bytes([8; 32].into());
    write("at_rest", "record", SealedRecord::seal(&other, &label, b"plaintext").unwrap().as_bytes());
    let cheap = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };
    let secret = protection::Secret::Passphrase("correct horse".to_owned().into());
    let (protection, _) = protection::Protection::create(&secret, cheap).unwrap();
    write("at_rest", "protection", protection.to_json().unwrap().as_bytes());
    write("jobs", "signed-and-put-back", &[0, 0, 1, 0, 2, 1, 5, 1, 1, 1, 3, 2]);
    write("jobs", "cancelled", &[4, 0, 1, 1, 3, 0]);
    // Messages 1 to 4. Then the same with message 1 repeated, changed, and taken from another
    // session.
    write("sessions", "signed", &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    write("sessions", "repeated", &[1, 0, 0, 3, 0, 0, 0, 0, 0]);
    write("sessions", "changed", &[1, 128, 1, 1, 0, 0, 0, 0, 0, 1, 200, 4]);
    // A side that a wrong message ended gets the right one.
    write("sessions", "over", &[1, 0, 0, 2, 0, 0, 0, 0, 0]);
    write("sessions", "of-another", &[1, 0, 0, 0, 0, 0, 255, 0, 0, 3, 0, 0, 7, 0, 0, 1, 0, 0]);
}
