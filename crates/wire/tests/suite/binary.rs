//! Binary messages: pinned layouts, and refusal of everything that is not exactly one message.

use core::fmt::Debug;
use std::{fs::OpenOptions, io::Write as _, path::Path};

use duet_protocol::{
    codec::{DecodeError, Message, READER_LEVEL, WITH_TAIL, decode, encode},
    ids::{CardFingerprint, Epoch, PaillierKeyId, SessionId, ShareIndex, WalletId},
};
use duet_wire::{
    Code, Invitation, InvitationReply, JobId, Manifest, Offer, Outcome, OutcomeReply, OutcomeResult,
    PayloadKindTag, Refusal, SignedOutcome, SignedRequest, WalletInfo,
    approval::{ApprovalAction, ApprovalReply, ApprovalRequest, SignedApproval, WaitingJob},
    audit::{ChainId, Head, HeadReply, HeadRequest, Position},
    card_request::{CardReply, CardRequest},
    gateway::{
        Authentication, ClientFrame, Destination, Limits, ServerFrame, WaitingAnswer, WaitingQuestion,
    },
    hello::{Hello, HelloReply},
    invite::TimeRefusal,
    policy::{PolicyReceipt, PolicyReply, PolicyRequest, SignedReceipt},
    remembered::{Recall, Recalled, Remembered},
    revocation::{RevocationProof, RevocationReply, SignedRevocation},
    share_request::{ShareReply, ShareRequest},
    wallet::{Initiates, InitiatorState, RequesterInfo, RespondsTo, WalletParty, WalletStatus},
};
use proptest::prelude::*;

use crate::samples::{manifest, requester, signature, signed_request};

/// Round trip, every prefix, an extension, and the size limit.
fn check<M: Message + PartialEq + Debug>(message: &M) -> Vec<u8> {
    let bytes = encode(message).unwrap();
    assert_eq!(decode::<M>(&bytes).as_ref(), Ok(message));
    for end in 0..bytes.len() {
        assert!(decode::<M>(&bytes[..end]).is_err(), "{message:?} cut to {end}");
    }
    let extended = [&bytes[..], &[0]].concat();
    assert!(decode::<M>(&extended).is_err(), "{message:?} extended");
    let oversized = vec![M::KIND; M::MAX_SIZE_BYTES + 1];
    assert!(matches!(decode::<M>(&oversized), Err(DecodeError::TooLarge { .. })));
    record::<M>(&bytes);
    bytes
}

/// With `DUET_RECORD`, adds a message to the recording of this release in that folder: a line with
/// its kind and its bytes in hexadecimal. `docs/releases.md` says when.
fn record<M>(bytes: &[u8]) {
    let Some(folder) = std::env::var_os("DUET_RECORD") else { return };
    let kind = core::any::type_name::<M>().rsplit("::").next().unwrap();
    let file = Path::new(&folder).join("messages.txt");
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    writeln!(file, "{kind} {}", hex::encode(bytes)).unwrap();
}

fn wallet() -> WalletInfo {
    let party = |name: &str| {
        Some(WalletParty {
            party: name.parse().unwrap(),
            card: CardFingerprint([4; 32]),
            signing_key: [5; 32],
        })
    };
    WalletInfo {
        id: WalletId([1; 32]),
        epoch: Epoch(2),
        public_key: [3; 33],
        chain_code: [6; 32],
        address: [7; 20],
        tenant: "acme".parse().unwrap(),
        parties: [party("device"), party("service"), None],
        requesters: vec![RequesterInfo { key: [8; 32], kinds: vec![PayloadKindTag::Transaction] }],
        index: ShareIndex::Service,
        status: WalletStatus::Committed,
        responds_to: vec![RespondsTo { initiator: ShareIndex::Device, paillier_key: PaillierKeyId([9; 16]) }],
        initiates: vec![Initiates {
            paillier_key: PaillierKeyId([10; 16]),
            responders: vec!["partner".parse().unwrap()],
            state: InitiatorState::Locked,
        }],
    }
}

fn recalled() -> Recalled {
    Recalled { remembered: vec![Remembered { epoch: 2, revision: 17, created_ns: 5 }] }
}

fn hello() -> HelloReply {
    HelloReply {
        instance: "01A".to_owned(),
        version: "0.1.0".to_owned(),
        now_ms: 1_900_000_000_000,
        seats: 32,
        free_seats: 31,
        is_store_ready: true,
        is_initiating: false,
    }
}

fn offer() -> Offer {
    Offer {
        number: 7,
        seats: 32,
        free_seats: 31,
        now_ms: 1_900_000_000_000,
        version: "0.1.0".to_owned(),
        reader_level: 2,
    }
}

fn outcome(result: OutcomeResult) -> Outcome {
    Outcome {
        session: SessionId([2; 16]),
        job: JobId([3; 16]),
        attempt: 1,
        from: "service".parse().unwrap(),
        result,
    }
}

#[test]
fn every_message_round_trips_and_nothing_else_decodes() {
    let refusal = || Refusal::new(Code::Locked, "The key is locked.");
    check(&manifest());
    check(&Invitation { manifest: vec![1, 2, 3] });
    check(&offer());
    check(&InvitationReply::Accepted { instance: "worker-1".to_owned() });
    check(&InvitationReply::Refused(refusal()));
    let late = TimeRefusal { refusal: refusal(), now_ms: 1_800_000_000_000 };
    check(&late);
    let read = InvitationReply::read(&encode(&late).unwrap());
    assert_eq!(read, Ok((InvitationReply::Refused(refusal()), Some(late.now_ms))));
    let read = InvitationReply::read(&encode(&InvitationReply::Refused(refusal())).unwrap());
    assert_eq!(read, Ok((InvitationReply::Refused(refusal()), None)));
    let proof = RevocationProof::sign(WalletId([0x11; 32]), signed_request().content_hash(), &requester());
    check(&SignedRevocation { request: signed_request(), proof });
    check(&RevocationReply::Kept);
    check(&RevocationReply::Refused(refusal()));
    check(&outcome(OutcomeResult::Signed { signature: signature() }));
    check(&outcome(OutcomeResult::Answered));
    check(&outcome(OutcomeResult::Failed {
        code: Code::PeerMisbehaved,
        culprit: Some("partner".parse().unwrap()),
        message: "Its proof fails.".to_owned(),
    }));
    check(&SignedOutcome::sign(&outcome(OutcomeResult::Answered), &requester()).unwrap());
    check(&OutcomeReply::Acknowledged);
    check(&OutcomeReply::Refused(refusal()));
    check(&CardRequest::Card);
    check(&CardRequest::Wallets { after: Some(WalletId([1; 32])), limit: 64 });
    check(&CardRequest::Wallet { id: WalletId([1; 32]) });
    check(&CardRequest::Enrol { offer: vec![1; 100] });
    check(&CardReply::Card { card: vec![1; 100] });
    check(&CardReply::Wallets { wallets: vec![wallet(), wallet()], more: true });
    check(&CardReply::Wallet { wallet: Box::new(wallet()) });
    check(&CardReply::Enrolled);
    check(&CardReply::Refused(refusal()));
    check(&Hello);
    check(&Recall);
    check(&recalled());
    check(&hello());
    check(&ShareRequest::Prepare { package: vec![1; 100] });
    check(&ShareRequest::Commit { bundle: vec![1; 100] });
    check(&ShareReply::Receipt { receipt: vec![1; 100] });
    check(&ShareReply::CommitAck { acknowledgement: vec![1; 100] });
    check(&ShareReply::Refused(refusal()));
    let approval = ApprovalRequest {
        wallet: WalletId([1; 32]),
        action: ApprovalAction::List,
        issued_at_ms: u64::MAX,
        nonce: [9; 16],
    };
    check(&approval);
    let (wallet, session) = (WalletId([1; 32]), SessionId([2; 16]));
    for action in [
        ApprovalAction::Approve { job: JobId([3; 16]) },
        ApprovalAction::Reject { job: JobId([3; 16]) },
        ApprovalAction::Job { job: JobId([3; 16]) },
        ApprovalAction::Sign { request: signed_request() },
    ] {
        check(&ApprovalRequest { action, ..approval.clone() });
    }
    check(&ApprovalReply::Job { record: b"{}".to_vec() });
    check(&ClientFrame::Hello { protocol: 1, build: "abc".to_owned() });
    check(&Authentication { challenge: [5; 32], wallet, issued_at_ms: 9 }.frame(&requester()));
    check(&ClientFrame::Leave { wallet });
    let party = || "service".parse().unwrap();
    for to in [
        Destination::Card(party()),
        Destination::Share(party()),
        Destination::Approval(wallet),
        Destination::Round { session, to: party() },
        Destination::Outcome { session },
        Destination::Event { session },
    ] {
        check(&ClientFrame::Request { id: 300, to, message: vec![1; 100] });
    }
    let limits = Limits { max_frame_bytes: 1 << 19, idle_s: 60 };
    check(&ServerFrame::Challenge { nonce: [4; 32], protocol: 1, build: String::new(), limits });
    check(&ServerFrame::Authenticated { wallet });
    check(&ServerFrame::Reply { id: 7, message: vec![1; 100] });
    check(&ServerFrame::Refused { id: None, refusal: refusal() });
    check(&ServerFrame::Refused { id: Some(1), refusal: refusal() });
    check(&ServerFrame::Waiting { wallet, jobs: 3 });
    check(&WaitingQuestion { wallet });
    check(&WaitingAnswer { wallet, jobs: 3 });
    check(&SignedApproval::sign(&approval, &requester()).unwrap());
    let waiting = WaitingJob { job: JobId([3; 16]), request: signed_request(), created_at_ms: 1 };
    check(&ApprovalReply::Jobs { jobs: vec![waiting], more: false });
    check(&ApprovalReply::Session { manifest: vec![1, 2] });
    check(&ApprovalReply::Done);
    check(&ApprovalReply::Refused(refusal()));
    let receipt = PolicyReceipt { wallet, revision: 2, hash: [4; 32], effective_at_ms: 9 };
    check(&receipt);
    check(&PolicyRequest::Show { wallet });
    check(&PolicyReply::Set { receipt: SignedReceipt::sign(&receipt, &requester()).unwrap() });
    check(&PolicyReply::Policies { policies: vec![] });
    check(&PolicyReply::Approved);
    check(&PolicyReply::Refused(refusal()));
    let position = Position { chain: ChainId([5; 16]), sequence: 7, hash: [6; 32] };
    let head = Head { writer: party(), position, locked: vec![PaillierKeyId([9; 16])] }.sign(&requester());
    check(&head);
    check(&HeadRequest::Keep { head: head.clone() });
    check(&HeadRequest::Show);
    check(&HeadReply::Kept);
    check(&HeadReply::Heads { heads: vec![head] });
    check(&HeadReply::Refused(refusal()));
}

#[test]
fn the_layout_of_a_manifest_is_pinned() {
    let mut small = manifest();
    small.request.body = b"{}".to_vec();
    small.job = JobId([1; 16]);
    small.request.signature = [0xee; 64];
    let expected = [
        "4001".to_owned(),                         // kind, version
        "02".repeat(16),                           // session
        "01".repeat(16),                           // job
        "01".to_owned(),                           // attempt
        "11".repeat(32),                           // wallet
        "00".to_owned(),                           // epoch
        "03".repeat(16),                           // Paillier key
        format!("07{}02", hex::encode("service")), // initiator
        format!("07{}03", hex::encode("partner")), // responder
        format!("02{}", hex::encode("{}")),        // request: document
        hex::encode(requester().verifying_key().to_bytes()),
        "ee".repeat(64),                 // request: signature
        "fd0038d360ba010000".to_owned(), // expiry, 8 bytes little endian
    ];
    assert_eq!(hex::encode(encode(&small).unwrap()), expected.concat());
}

#[test]
fn the_layout_of_an_outcome_is_pinned() {
    let failed =
        outcome(OutcomeResult::Failed { code: Code::Locked, culprit: None, message: "x".to_owned() });
    let expected = [
        "4301".to_owned(),
        "02".repeat(16),
        "03".repeat(16),
        "01".to_owned(),
        format!("07{}", hex::encode("service")),
        format!("0206{}000178", hex::encode("locked")), // variant, code, no culprit, message
    ];
    assert_eq!(hex::encode(encode(&failed).unwrap()), expected.concat());
}

#[test]
fn the_layout_of_what_a_party_remembers_is_pinned() {
    assert_eq!(hex::encode(encode(&Recall).unwrap()), "7c01");
    assert_eq!(hex::encode(encode(&recalled()).unwrap()), "7d0101021105");
}

#[test]
fn the_layout_of_a_hello_is_pinned() {
    assert_eq!(hex::encode(encode(&Hello).unwrap()), "7801");
    let expected = [
        "7901".to_owned(),
        format!("03{}", hex::encode("01A")),
        format!("05{}", hex::encode("0.1.0")),
        "fd0038d360ba010000".to_owned(), // clock, 8 bytes little endian
        "20".to_owned(),                 // seats
        "1f".to_owned(),                 // free seats
        "0100".to_owned(),               // store ready, not initiating
    ];
    assert_eq!(hex::encode(encode(&hello()).unwrap()), expected.concat());
    let expected = ["4e01", "07", "20", "1f", "fd0038d360ba010000", "05302e312e30", "02"];
    assert_eq!(hex::encode(encode(&offer()).unwrap()), expected.concat());
}

#[test]
fn the_layout_of_gateway_frames_is_pinned() {
    let (wallet, session) = (WalletId([1; 32]), SessionId([2; 16]));
    let hex_of = |frame: &ClientFrame| hex::encode(encode(frame).unwrap());
    assert_eq!(hex_of(&ClientFrame::Hello { protocol: 1, build: "abc".to_owned() }), "6001000103616263");
    let signature = [0xee; 64];
    assert_eq!(
        hex_of(&ClientFrame::Authenticate { wallet, issued_at_ms: 1_900_000_000_000, signature }),
        ["600101", &"01".repeat(32), "fd0038d360ba010000", &"ee".repeat(64)].concat()
    );
    let request = |to| hex_of(&ClientFrame::Request { id: 300, to, message: vec![9, 8] });
    let party = || "service".parse().unwrap();
    let name = format!("07{}", hex::encode("service"));
    for (to, expected) in [
        (Destination::Card(party()), format!("00{name}")),
        (Destination::Share(party()), format!("01{name}")),
        (Destination::Approval(wallet), format!("02{}", "01".repeat(32))),
        (Destination::Round { session, to: party() }, format!("03{}{name}", "02".repeat(16))),
        (Destination::Outcome { session }, format!("04{}", "02".repeat(16))),
        (Destination::Event { session }, format!("05{}", "02".repeat(16))),
    ] {
        assert_eq!(request(to), format!("600102fb2c01{expected}020908"));
    }
    assert_eq!(hex_of(&ClientFrame::Leave { wallet }), format!("600103{}", "01".repeat(32)));

    let hex_of = |frame: &ServerFrame| hex::encode(encode(frame).unwrap());
    let limits = Limits { max_frame_bytes: 1 << 19, idle_s: 60 };
    assert_eq!(
        hex_of(&ServerFrame::Challenge { nonce: [4; 32], protocol: 1, build: "abc".to_owned(), limits }),
        ["610100", &"04".repeat(32), "0103616263", "fc00000800", "3c"].concat()
    );
    assert_eq!(hex_of(&ServerFrame::Authenticated { wallet }), format!("610101{}", "01".repeat(32)));
    assert_eq!(hex_of(&ServerFrame::Reply { id: 1, message: vec![9, 8] }), "61010201020908");
    let refusal = Refusal::new(Code::Locked, "x");
    assert_eq!(
        hex_of(&ServerFrame::Refused { id: None, refusal: refusal.clone() }),
        format!("6101030006{}0178", hex::encode("locked"))
    );
    assert_eq!(
        hex_of(&ServerFrame::Refused { id: Some(2), refusal }),
        format!("610103010206{}0178", hex::encode("locked"))
    );
    assert_eq!(hex_of(&ServerFrame::Waiting { wallet, jobs: 3 }), format!("610104{}03", "01".repeat(32)));
}

#[test]
fn the_layout_of_approvals_is_pinned() {
    let small = SignedRequest { body: b"{}".to_vec(), requester: [5; 32], signature: [0xee; 64] };
    let sign = ApprovalRequest {
        wallet: WalletId([1; 32]),
        action: ApprovalAction::Sign { request: small },
        issued_at_ms: 7,
        nonce: [9; 16],
    };
    let expected = [
        "4a02".to_owned(),
        "01".repeat(32),
        format!("0302{}{}{}", hex::encode("{}"), "05".repeat(32), "ee".repeat(64)),
        "07".to_owned(),
        "09".repeat(16),
    ];
    assert_eq!(hex::encode(encode(&sign).unwrap()), expected.concat());
    let job = ApprovalReply::Job { record: b"{}".to_vec() };
    assert_eq!(hex::encode(encode(&job).unwrap()), "4c0202027b7d");
}

#[test]
fn a_mebibyte_of_lies_is_refused_before_it_is_read() {
    assert!(matches!(decode::<InvitationReply>(&[0x42; 1 << 20]), Err(DecodeError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 2..300)) {
        fn try_as<M: Message>(bytes: &mut [u8]) {
            bytes[0] = M::KIND;
            bytes[1] = M::VERSION;
            let _ = decode::<M>(bytes);
            let with_tail = [&[M::KIND, M::VERSION | WITH_TAIL, READER_LEVEL], &bytes[2..]].concat();
            let _ = decode::<M>(&with_tail);
        }
        try_as::<Manifest>(&mut bytes);
        try_as::<Invitation>(&mut bytes);
        try_as::<InvitationReply>(&mut bytes);
        try_as::<Outcome>(&mut bytes);
        try_as::<SignedOutcome>(&mut bytes);
        try_as::<OutcomeReply>(&mut bytes);
        try_as::<CardRequest>(&mut bytes);
        try_as::<CardReply>(&mut bytes);
        try_as::<Hello>(&mut bytes);
        try_as::<Recall>(&mut bytes);
        try_as::<Recalled>(&mut bytes);
        try_as::<HelloReply>(&mut bytes);
        try_as::<Offer>(&mut bytes);
        try_as::<ShareRequest>(&mut bytes);
        try_as::<ShareReply>(&mut bytes);
        try_as::<ApprovalRequest>(&mut bytes);
        try_as::<SignedApproval>(&mut bytes);
        try_as::<ApprovalReply>(&mut bytes);
        try_as::<ClientFrame>(&mut bytes);
        try_as::<ServerFrame>(&mut bytes);
        try_as::<WaitingQuestion>(&mut bytes);
        try_as::<WaitingAnswer>(&mut bytes);
    }
}
