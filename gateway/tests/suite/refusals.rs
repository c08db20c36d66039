//! Messages that a gateway does not forward.

use duet_actors::{
    browser::{device::Device, socket::Socket},
    stage::{name as party, now_ms},
};
use duet_harness::stack::{ALL_KINDS, Stack};
use duet_protocol::{
    codec,
    ids::{SessionId, WalletId},
};
use duet_wire::{
    Code, OutcomeResult, Refusal,
    approval::ApprovalAction,
    card_request::CardRequest,
    gateway::{Authentication, Destination, MAX_AUTHENTICATION_AGE_MS, WaitingQuestion},
    progress::{Progress, Step},
    share_request::ShareRequest,
    signing::SigningKey,
};

/// The code of a refusal.
fn code_of(refusal: &anyhow::Error) -> Code {
    refusal.downcast_ref::<Refusal>().unwrap().code
}

#[tokio::test(flavor = "multi_thread")]
async fn stranger__should_get_nothing_but_cards_and_a_partys_own_refusal() {
    let stack = Stack::start().await.unwrap();
    let wallet: WalletId = stack.create_wallet("device", ALL_KINDS).await.unwrap().id.parse().unwrap();
    let mut socket = Socket::open(stack.gateway_url()).await.unwrap();
    let card = |name: &str| Destination::Card(party(name));
    let question = |request: &CardRequest| codec::encode(request).unwrap();

    socket.request(card("service"), question(&CardRequest::Card)).await.unwrap();
    let package = codec::encode(&ShareRequest::Prepare { package: vec![1; 64] }).unwrap();
    socket.request(Destination::Share(party("service")), package.clone()).await.unwrap();

    let session = SessionId([7; 16]);
    let progress = Progress { session, step: Step::Running, at_ms: now_ms() }.to_json();
    for (to, message, code) in [
        (card("service"), question(&CardRequest::Wallet { id: wallet }), Code::Unauthorized),
        (card("service"), question(&CardRequest::Wallets { after: None, limit: 9 }), Code::Unauthorized),
        (card("service"), question(&CardRequest::Enrol { offer: vec![1] }), Code::MalformedMessage),
        (card("service"), vec![1, 2, 3], Code::MalformedMessage),
        (card("absent"), question(&CardRequest::Card), Code::NotFound),
        (card("orchestrator"), question(&CardRequest::Card), Code::NotFound),
        (Destination::Share(party("absent")), package, Code::NotFound),
        (Destination::Share(party("service")), vec![1, 2, 3], Code::MalformedMessage),
        (Destination::Approval(wallet), vec![1, 2, 3], Code::Unauthorized),
        (
            Destination::Approval(wallet),
            codec::encode(&WaitingQuestion { wallet }).unwrap(),
            Code::Unauthorized,
        ),
        (Destination::Round { session, to: party("service") }, vec![1; 100], Code::Unauthorized),
        (Destination::Outcome { session }, vec![1; 100], Code::MalformedMessage),
        (Destination::Event { session }, progress, Code::Unauthorized),
    ] {
        assert_eq!(socket.refused(to.clone(), message).await.unwrap(), code, "{to:?}");
    }

    // A key of its own does not help either.
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let refusal = socket.authenticate(wallet, &stranger).await.unwrap_err();
    assert_eq!(code_of(&refusal), Code::BadSignature);
    let refusal = socket.authenticate(WalletId([1; 32]), &stranger).await.unwrap_err();
    assert_eq!(code_of(&refusal), Code::UnknownWallet);
}

#[tokio::test(flavor = "multi_thread")]
async fn device__should_speak_for_its_own_wallet_and_sessions_only() {
    let stack = Stack::start().await.unwrap();
    let url = stack.gateway_url();
    let (mut ours, mut theirs) = (Socket::open(url).await.unwrap(), Socket::open(url).await.unwrap());
    let device = Device::create(url, &mut ours).await.unwrap();
    let other = Device::create(url, &mut theirs).await.unwrap();

    // A proof is valid on its own socket, for its own wallet, within a minute.
    let proof = |challenge, wallet, issued_at_ms| {
        Authentication { challenge, wallet, issued_at_ms }.frame(&**device.wallet.keys())
    };
    let replayed = proof(theirs.challenge, device.id(), now_ms());
    let foreign = proof(ours.challenge, other.id(), now_ms());
    let stale = proof(ours.challenge, device.id(), now_ms() - 2 * MAX_AUTHENTICATION_AGE_MS);
    for (bad, code) in
        [(&replayed, Code::BadSignature), (&foreign, Code::BadSignature), (&stale, Code::ClockDiffers)]
    {
        assert_eq!(code_of(&ours.prove(bad).await.unwrap_err()), code);
    }
    let list = device.approval(ApprovalAction::List).unwrap();
    assert_eq!(ours.refused(Destination::Approval(device.id()), list).await.unwrap(), Code::Unauthorized);

    device.authenticate(&mut ours).await.unwrap();
    other.authenticate(&mut theirs).await.unwrap();
    // A socket may send approvals only for wallets whose key it proved, and only ones that name
    // that wallet.
    let list = other.approval(ApprovalAction::List).unwrap();
    assert_eq!(
        ours.refused(Destination::Approval(other.id()), list.clone()).await.unwrap(),
        Code::Unauthorized
    );
    assert_eq!(ours.refused(Destination::Approval(device.id()), list).await.unwrap(), Code::MalformedMessage);
    let of_other = codec::encode(&CardRequest::Wallet { id: other.id() }).unwrap();
    assert_eq!(
        ours.refused(Destination::Card(party("service")), of_other).await.unwrap(),
        Code::Unauthorized
    );

    let manifest = device.begin(&mut ours, "ours", "device+service").await.unwrap();
    let session = manifest.session;
    let failed = || OutcomeResult::Failed { code: Code::Cancelled, culprit: None, message: "no".to_owned() };
    let forged = other.report(&manifest, failed()).unwrap();
    let round = |name: &str| Destination::Round { session, to: party(name) };
    let progress = Progress { session, step: Step::Running, at_ms: now_ms() }.to_json();
    for (to, message) in [
        (round("service"), vec![1; 100]),
        (Destination::Event { session }, progress),
        (Destination::Outcome { session }, device.report(&manifest, failed()).unwrap()),
    ] {
        assert_eq!(theirs.refused(to.clone(), message).await.unwrap(), Code::Unauthorized, "{to:?}");
    }
    assert_eq!(
        ours.refused(round("partner"), vec![1; 100]).await.unwrap(),
        Code::Unauthorized,
        "another responder"
    );
    assert_eq!(ours.refused(Destination::Outcome { session }, forged).await.unwrap(), Code::Unauthorized);
    let elsewhere = Destination::Outcome { session: SessionId([1; 16]) };
    assert_eq!(
        ours.refused(elsewhere, device.report(&manifest, failed()).unwrap()).await.unwrap(),
        Code::MalformedMessage
    );
    let nonsense = b"{\"not\": \"progress\"}".to_vec();
    assert_eq!(ours.refused(Destination::Event { session }, nonsense).await.unwrap(), Code::MalformedMessage);

    // None of these refusals has affected the session.
    device.run(&mut ours, &manifest).await.unwrap();

    // A client with repeated invalid proofs is answered ever later. A valid proof from the same
    // address is not.
    let mut guesser = Socket::open(url).await.unwrap();
    let guess = proof(guesser.challenge, other.id(), now_ms());
    let guesses = tokio::spawn(async move {
        for _ in 0..60 {
            if !matches!(guesser.prove(&guess).await, Err(refusal) if code_of(&refusal) == Code::BadSignature)
            {
                break;
            }
        }
    });
    // More valid proofs than guesses, also one after the other. Without the delay, the guesses
    // would finish first.
    for _ in 0..150 {
        device.authenticate(&mut ours).await.unwrap();
    }
    assert!(!guesses.is_finished(), "proofs are refused as fast as they come");
    guesses.abort();
}
