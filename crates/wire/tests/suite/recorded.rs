//! Messages that earlier releases wrote are read, and encode to the same bytes. The recordings are
//! made by the tests in `binary.rs`.

use std::collections::BTreeSet;

use duet_protocol::codec::{DecodeError, Message, READER_LEVEL, decode, encode};
use duet_wire::{
    Invitation, InvitationReply, Manifest, Outcome, OutcomeReply, SignedOutcome,
    approval::{ApprovalError, ApprovalReply, ApprovalRequest, SignedApproval},
    audit::{HeadReply, HeadRequest, SignedHead},
    card_request::{CardReply, CardRequest},
    gateway::{ClientFrame, ServerFrame, WaitingAnswer, WaitingQuestion},
    invite::TimeRefusal,
    policy::{PolicyReceipt, PolicyReply, PolicyRequest},
    revocation::{RevocationReply, SignedRevocation},
    share_request::{ShareReply, ShareRequest},
};

use crate::samples::requester;

/// The recordings, by the commit of the release.
const RECORDINGS: [(&str, &str); 1] = [("71c7f6f", include_str!("../fixtures/71c7f6f/messages.txt"))];

/// A message as a later release may send it: with a tail, for readers of `level`.
fn with_tail(plain: &[u8], level: u8, tail: &[u8]) -> Vec<u8> {
    let [kind, version, body @ ..] = plain else { panic!("a message has a header") };
    [&[*kind, *version | 0x80, level], body, tail].concat()
}

/// One entry: tag 7 and three bytes.
const TAIL: [u8; 9] = [7, 0, 3, 0, 0, 0, 1, 2, 3];

fn is_read<M: Message>(bytes: &[u8], takes_tail: bool) {
    let message = decode::<M>(bytes).unwrap();
    assert_eq!(hex::encode(encode(&message).unwrap()), hex::encode(bytes));
    // The second entry repeats the first one's tag.
    let bad_tails = [&[TAIL, TAIL].concat()[..], &TAIL[..8], &[0]];
    if takes_tail {
        for tail in [&TAIL[..], &[]] {
            let again = decode::<M>(&with_tail(bytes, READER_LEVEL, tail)).unwrap();
            assert_eq!(encode(&again).unwrap(), bytes, "the tail is ignored");
        }
        let needs = READER_LEVEL + 1;
        let newer = decode::<M>(&with_tail(bytes, needs, &TAIL)).err();
        assert_eq!(newer, Some(DecodeError::Newer { needs }));
        for tail in bad_tails {
            assert_eq!(decode::<M>(&with_tail(bytes, READER_LEVEL, tail)).err(), Some(DecodeError::Tail));
        }
    } else {
        for tail in bad_tails.into_iter().chain([&TAIL[..], &[]]) {
            let refused = decode::<M>(&with_tail(bytes, READER_LEVEL, tail)).err();
            assert!(matches!(refused, Some(DecodeError::Version { .. })), "{refused:?}");
        }
    }
}

macro_rules! kinds {
    ($($kind:ident: $takes_tail:literal,)+) => {
        const KINDS: &[&str] = &[$(stringify!($kind)),+];

        fn check(kind: &str, bytes: &[u8]) {
            match kind {
                $(stringify!($kind) => is_read::<$kind>(bytes, $takes_tail),)+
                _ => panic!("{kind} is no kind that this release reads"),
            }
        }
    };
}

// What is signed in another form than its received bytes, or around a signature, takes no tail.
kinds! {
    Manifest: true,
    Invitation: true,
    InvitationReply: true,
    TimeRefusal: true,
    Outcome: true,
    SignedOutcome: false,
    OutcomeReply: true,
    CardRequest: true,
    CardReply: true,
    ShareRequest: true,
    ShareReply: true,
    ApprovalRequest: true,
    SignedApproval: false,
    ApprovalReply: true,
    ClientFrame: true,
    ServerFrame: true,
    WaitingQuestion: true,
    WaitingAnswer: true,
    PolicyRequest: true,
    PolicyReply: true,
    PolicyReceipt: false,
    SignedHead: false,
    HeadRequest: true,
    HeadReply: true,
    SignedRevocation: false,
    RevocationReply: true,
}

#[test]
fn every_message_of_every_release_is_read() {
    for (release, recording) in RECORDINGS {
        let mut seen = BTreeSet::new();
        for line in recording.lines() {
            let (kind, bytes) = line.split_once(' ').unwrap();
            check(kind, &hex::decode(bytes).unwrap());
            seen.insert(kind);
        }
        assert_eq!(seen, KINDS.iter().copied().collect(), "{release}");
    }
}

#[test]
fn a_tail_is_under_the_signature_of_the_bytes_it_stands_in() {
    let key = requester();
    let signed = recorded::<SignedOutcome>("SignedOutcome");
    assert!(signed.verify(&key.verifying_key().to_bytes()).is_ok());
    let changed = SignedOutcome { outcome: with_tail(&signed.outcome, READER_LEVEL, &TAIL), ..signed };
    assert!(decode::<Outcome>(&changed.outcome).is_ok());
    assert!(changed.verify(&key.verifying_key().to_bytes()).is_err());
    let signed = recorded::<SignedApproval>("SignedApproval");
    let changed = SignedApproval { request: with_tail(&signed.request, READER_LEVEL, &TAIL), ..signed };
    assert!(decode::<ApprovalRequest>(&changed.request).is_ok());
    let refused = changed.verify(&key.verifying_key().to_bytes(), u64::MAX);
    assert!(matches!(refused, Err(ApprovalError::BadSignature(_))), "{refused:?}");
}

fn recorded<M: Message>(kind: &str) -> M {
    let (_, recording) = RECORDINGS[0];
    let bytes = recording.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).unwrap();
    decode(&hex::decode(bytes).unwrap()).unwrap()
}
