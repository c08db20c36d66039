//! Wallets and signatures made through gateways.

use duet_actors::browser::{device::Device, socket::Socket};
use duet_harness::{duet::text, stack::Stack};
use duet_protocol::signature;
use duet_wire::{
    JobRecord, JobState, Payload,
    approval::{ApprovalAction, ApprovalReply},
    gateway::{ClientFrame, Destination},
};

/// Checks with the library's verifier that `signed` is the wallet's signature over the message.
fn assert_signed(device: &Device, message: &str, signed: &duet_wire::RecoverableSignature) {
    let document = serde_json::json!({"kind": "personal_message", "text": message}).to_string();
    let digest = Payload::from_json(document.as_bytes()).unwrap().digest().unwrap();
    let key = device.wallet.share().wallet().public_key();
    signature::verify(key, &digest, signed).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn browser_party__should_make_a_wallet_sign_and_decide_on_jobs_through_the_gateway() {
    let stack = Stack::start().await.unwrap();
    let mut socket = Socket::open(stack.gateway_url()).await.unwrap();
    let device = Device::create(stack.gateway_url(), &mut socket).await.unwrap();
    let id = device.id();
    stack.all_pairs_ready(&id.to_string()).await.unwrap();

    device.authenticate(&mut socket).await.unwrap();
    socket.waits(id, 0).await.unwrap();
    for responder in ["device+service", "device+partner"] {
        let message = format!("with {responder}");
        let signed = device.sign(&mut socket, &message, responder).await.unwrap();
        assert_signed(&device, &message, &signed);
    }

    // A job that a team queued waits for the owner, and the page learns of it.
    let key = stack.directory().join("owner.requester");
    std::fs::write(&key, hex::encode(device.owner.to_bytes())).unwrap();
    std::process::Command::new("chmod").arg("600").arg(&key).status().unwrap();
    let submit = async |message: &str| {
        let (key, wallet) = (key.to_string_lossy(), id.to_string());
        let rest = ["--wallet", &wallet, "--requester-key", &key, "--pairs", "device+service"];
        let arguments = [&["job", "submit", "message", message], &rest[..]].concat();
        stack.duet().json(&arguments).await.unwrap()
    };
    let queued = submit("pay me").await;
    socket.waits(id, 1).await.unwrap();
    let ApprovalReply::Jobs { jobs, .. } = device.ask(&mut socket, ApprovalAction::List).await.unwrap()
    else {
        panic!("no list")
    };
    assert_eq!(jobs[0].job.to_string(), text(&queued, "/job/id").unwrap());
    let signed = device.approve(&mut socket, jobs[0].job).await.unwrap();
    assert_signed(&device, "pay me", &signed);
    socket.waits(id, 0).await.unwrap();
    let record = device.ask(&mut socket, ApprovalAction::Job { job: jobs[0].job }).await.unwrap();
    let ApprovalReply::Job { record } = record else { panic!("no record") };
    let record: JobRecord = serde_json::from_slice(&record).unwrap();
    assert!(matches!(record.state, JobState::Signed { .. }), "{:?}", record.state);

    submit("pay me again").await;
    socket.waits(id, 1).await.unwrap();
    let ApprovalReply::Jobs { jobs, .. } = device.ask(&mut socket, ApprovalAction::List).await.unwrap()
    else {
        panic!("no list")
    };
    let reply = device.ask(&mut socket, ApprovalAction::Reject { job: jobs[0].job }).await.unwrap();
    assert_eq!(reply, ApprovalReply::Done);
    socket.waits(id, 0).await.unwrap();

    // Once the wallet is locked in the page, the gateway forwards nothing about it.
    socket.send(&ClientFrame::Leave { wallet: id }).await.unwrap();
    let list = device.approval(ApprovalAction::List).unwrap();
    assert_eq!(socket.refused(Destination::Approval(id), list).await.unwrap().as_str(), "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_killed_in_the_middle__should_cost_no_more_than_the_session() {
    let mut stack = Stack::start().await.unwrap();
    let url = stack.gateway_url().to_owned();
    let mut socket = Socket::open(&url).await.unwrap();
    let device = Device::create(stack.gateway_url(), &mut socket).await.unwrap();
    stack.all_pairs_ready(&device.id().to_string()).await.unwrap();
    device.authenticate(&mut socket).await.unwrap();

    // The gateway is killed after the signature and before its report. The report still gets
    // through on another socket.
    let manifest = device.begin(&mut socket, "before the report", "device+service").await.unwrap();
    let (signed, report) = device.compute(&mut socket, &manifest).await.unwrap();
    stack.gateway.kill().await.unwrap();
    stack.gateway.start().await.unwrap();
    let mut socket = Socket::open(&url).await.unwrap();
    let outcome = Destination::Outcome { session: manifest.session };
    let refused = socket.refused(outcome.clone(), report.clone()).await.unwrap();
    assert_eq!(refused.as_str(), "unauthorized", "the restarted gateway knows no device yet");
    device.authenticate(&mut socket).await.unwrap();
    socket.request(outcome, report).await.unwrap();
    let request = device.request("before the report", &["device+service"]);
    let ApprovalReply::Job { record } =
        device.ask(&mut socket, ApprovalAction::Sign { request }).await.unwrap()
    else {
        panic!("the same request is the same job")
    };
    let record: JobRecord = serde_json::from_slice(&record).unwrap();
    let JobState::Signed { result } = record.state else { panic!("{:?}", record.state) };
    let result = result.verify(&key_of(stack.orchestrator_key())).unwrap();
    assert_eq!(result.signature, signed);

    // The gateway is killed right after the session began. That session is lost, and a later one
    // signs.
    device.begin(&mut socket, "lost", "device+service").await.unwrap();
    stack.gateway.kill().await.unwrap();
    stack.gateway.start().await.unwrap();
    let mut socket = Socket::open(&url).await.unwrap();
    device.authenticate(&mut socket).await.unwrap();
    let signed = device.sign(&mut socket, "afterwards", "device+service").await.unwrap();
    assert_signed(&device, "afterwards", &signed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_at_once__should_serve_one_wallet_alike() {
    let stack = Stack::start().await.unwrap();
    let mut second = stack.another_gateway("gateway-2", &[]);
    let ready = second.start().await.unwrap();
    let mut sockets = [
        Socket::open(stack.gateway_url()).await.unwrap(),
        Socket::open(text(&ready, "/url").unwrap()).await.unwrap(),
    ];
    let device = Device::create(stack.gateway_url(), &mut sockets[0]).await.unwrap();
    for (number, socket) in sockets.iter_mut().enumerate() {
        device.authenticate(socket).await.unwrap();
        let message = format!("through gateway {number}");
        let signed = device.sign(socket, &message, "device+partner").await.unwrap();
        assert_signed(&device, &message, &signed);
    }
    // A session belongs to the socket that received its manifest.
    let manifest = device.begin(&mut sockets[0], "begun on one", "device+service").await.unwrap();
    let refused = device.compute(&mut sockets[1], &manifest).await.unwrap_err();
    assert!(refused.to_string().contains("unauthorized"), "{refused}");
}

fn key_of(hexadecimal: &str) -> [u8; 32] {
    hex::decode(hexadecimal).unwrap().try_into().unwrap()
}
