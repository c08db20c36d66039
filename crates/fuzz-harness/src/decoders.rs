//! Every binary message. A decoder returns an error, or a value whose own encoding is equivalent
//! and not longer.

use duet_protocol::{
    admission::AdmissionToken,
    arithmetic::default_arithmetic,
    card::Card,
    card_update::DeviceCardUpdate,
    catch_up::SlopeBox,
    codec::{self, Message},
    enrolment::{EnrolmentOffer, VerifiedEnrolment},
    history::SignedRecord,
    keygen::{DeviceWallet, PendingWallet},
    package::{Envelope, PreparedShare},
    receipt::{CommitAck, Receipt, ReceiptBundle},
    refresh::{EpochAck, NextShare},
    session::CipherEvidence,
    share::{KeyShare, WalletPublic},
};
use duet_wire::{
    Invitation, InvitationReply, Manifest, Outcome, OutcomeReply, SignedOutcome,
    approval::{ApprovalReply, ApprovalRequest, SignedApproval},
    card_request::{CardReply, CardRequest},
    hello::{Hello, HelloReply},
    remembered::{Recall, Recalled},
    share_request::{ShareReply, ShareRequest},
};

/// Decodes `bytes` as `M`, and checks the encoding of the result.
pub(crate) fn canonical<M: Message>(bytes: &[u8]) {
    let Ok(message) = codec::decode::<M>(bytes) else { return };
    let Ok(again) = codec::encode(&message) else { return };
    assert!(again.len() <= bytes.len(), "what was parsed encodes no longer than it came");
    let twice = codec::decode::<M>(&again).map(|message| codec::encode(&message));
    assert!(matches!(twice, Ok(Ok(twice)) if twice == again), "an encoding has one meaning");
}

/// Any bytes to every decoder of the protocol and of messages between processes.
pub fn run(bytes: &[u8]) {
    canonical::<Card>(bytes);
    canonical::<DeviceCardUpdate>(bytes);
    canonical::<EnrolmentOffer>(bytes);
    canonical::<AdmissionToken>(bytes);
    canonical::<WalletPublic>(bytes);
    canonical::<Receipt>(bytes);
    canonical::<ReceiptBundle>(bytes);
    canonical::<CommitAck>(bytes);
    canonical::<Envelope>(bytes);
    canonical::<CipherEvidence>(bytes);
    canonical::<SignedRecord>(bytes);
    canonical::<EpochAck>(bytes);
    canonical::<SlopeBox>(bytes);
    canonical::<Manifest>(bytes);
    canonical::<Invitation>(bytes);
    canonical::<InvitationReply>(bytes);
    canonical::<Outcome>(bytes);
    canonical::<SignedOutcome>(bytes);
    canonical::<OutcomeReply>(bytes);
    canonical::<CardRequest>(bytes);
    canonical::<CardReply>(bytes);
    canonical::<Hello>(bytes);
    canonical::<Recall>(bytes);
    canonical::<Recalled>(bytes);
    canonical::<HelloReply>(bytes);
    canonical::<ShareRequest>(bytes);
    canonical::<ShareReply>(bytes);
    canonical::<ApprovalRequest>(bytes);
    canonical::<SignedApproval>(bytes);
    canonical::<ApprovalReply>(bytes);
    let arithmetic = default_arithmetic();
    // A party's own records, which are sealed at rest but parsed as strictly.
    drop(PendingWallet::from_secret_bytes(bytes, arithmetic));
    drop(PreparedShare::from_secret_bytes(bytes, arithmetic));
    drop(DeviceWallet::from_secret_bytes(bytes, arithmetic));
    drop(VerifiedEnrolment::from_trusted_bytes(bytes, arithmetic));
    drop(KeyShare::from_secret_bytes(bytes));
    drop(NextShare::from_secret_bytes(bytes));
}
