//! Processes die at any time, with no warning; what was asked for is signed all the same, once.
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use duet_tests::{
    duet::{Duet, text},
    http::Api,
    recovery,
    stack::{ALL_KINDS, Pair, Stack, Wallet},
};
use serde_json::{Value, json};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn parties__should_sign_again_after_kill_9() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    for round in ["first", "second"] {
        for pair in Pair::ALL {
            let signed = wallet.sign_by(pair, &["message", round]).await.unwrap();
            let signer =
                recovery::message_signer(round.as_bytes(), text(&signed, "/signature").unwrap()).unwrap();
            assert_eq!(signer.to_string(), wallet.address, "{round} {pair:?}");
        }
        stack.service.kill().await.unwrap();
        stack.partner.kill().await.unwrap();
        stack.service.start().await.unwrap();
        stack.partner.start().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_job__should_wait_for_an_absent_party() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    stack.partner.kill().await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let request = api.request(&json!({"kind": "personal_message", "text": "patience"}), "patience").unwrap();
    let submitted = api.submit(&request, "patience").await.unwrap();
    assert_eq!(submitted.status, 202, "{submitted:?}");
    let job = text(&submitted.body, "/id").unwrap().to_owned();

    stack.partner.start().await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_job__should_survive_the_death_of_orchestrator_and_broker() {
    let mut stack = Stack::start().await.unwrap();
    let wallet = stack.create_wallet("device", ALL_KINDS).await.unwrap();
    stack.partner.kill().await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let request = api.request(&json!({"kind": "personal_message", "text": "durable"}), "durable").unwrap();
    let job = text(&api.submit(&request, "durable").await.unwrap().body, "/id").unwrap().to_owned();

    stack.orchestrator.kill().await.unwrap();
    stack.broker.restart().await.unwrap();
    stack.orchestrator.start().await.unwrap();
    stack.partner.start().await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "signed");

    // The same request is the same job, with the very signature.
    let first = api.get(&format!("/v1/jobs/{job}")).await.unwrap();
    let again = api.submit(&request, "durable").await.unwrap();
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.body["id"], job);
    assert_eq!(first.body["result"], again.body["result"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers__should_end_cleanly_when_asked() {
    let mut stack = Stack::start().await.unwrap();
    assert_eq!(stack.service.stop().await.unwrap(), Some(0));
    assert_eq!(stack.partner.stop().await.unwrap(), Some(0));
    assert_eq!(stack.orchestrator.stop().await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wallet_creation__should_be_resumed_after_a_party_was_absent() {
    let mut stack = Stack::start().await.unwrap();
    let device = stack.device("device").unwrap();
    let arguments = stack.wallet_arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Cards are asked for first, so the partner has to be there and then die: it is killed while the device deals.
    let creation = tokio::spawn({
        let (device, arguments) =
            (device.clone(), arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>());
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            device.json(&arguments).await
        }
    });
    stack.partner.kill().await.unwrap();
    stack.partner.start().await.unwrap();
    // Either it never came to a wallet, or there is one that all pairs can sign with, at the latest after resuming.
    if creation.await.unwrap().is_err() {
        let listed = device.json(&["wallet", "list"]).await.unwrap();
        let unfinished = listed["wallets"].as_array().is_some_and(|wallets| !wallets.is_empty());
        if unfinished {
            device.json(&["wallet", "resume"]).await.unwrap();
        } else {
            device.json(&arguments).await.unwrap();
        }
    }
    for other in ["service", "partner"] {
        let signed = device.json(&["sign", "message", "resumed", "--with", other]).await.unwrap();
        let wallet = device.json(&["wallet", "show"]).await.unwrap();
        let signer = recovery::message_signer(b"resumed", text(&signed, "/signature").unwrap()).unwrap();
        assert_eq!(signer.to_string(), text(&wallet, "/wallet/address").unwrap());
    }
}

/// Who is killed while a wallet is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Device,
    Service,
    Partner,
}

/// Each side is killed at moments spread over a creation, whose length is measured first: before, between and after
/// the cards, packages, receipts, commits and acknowledgements. Wherever that fell, repeating ends in one wallet, and
/// every pair of it signs.
#[tokio::test(flavor = "multi_thread")]
async fn wallet_creation__should_survive_kill_9_of_either_side() {
    const MOMENTS: u32 = 4;
    let mut stack = Stack::start().await.unwrap();
    let started = Instant::now();
    stack.create_wallet("measured", ALL_KINDS).await.unwrap();
    let length = started.elapsed();
    for victim in [Victim::Device, Victim::Service, Victim::Partner] {
        for moment in 1..=MOMENTS {
            let name = format!("{victim:?}-{moment}").to_lowercase();
            let after = length * moment / (MOMENTS + 1);
            let wallet = interrupted_creation(&mut stack, &name, victim, after).await.unwrap();
            for pair in Pair::ALL {
                let signed = wallet.sign_by(pair, &["message", &name]).await.unwrap();
                let signature = text(&signed, "/signature").unwrap();
                let signer = recovery::message_signer(name.as_bytes(), signature).unwrap();
                assert_eq!(signer.to_string(), wallet.address, "{name} {pair:?}");
            }
        }
    }
}

/// Begins a creation, kills `victim` some time `after`, and repeats what was interrupted until there is a wallet.
async fn interrupted_creation(
    stack: &mut Stack,
    name: &str,
    victim: Victim,
    after: Duration,
) -> anyhow::Result<Wallet> {
    let device = stack.device(name)?;
    let (arguments, requester_key) = stack.creation(&device, name, ALL_KINDS).await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut creation = device.command(&arguments)?.kill_on_drop(true).stdout(Stdio::null()).spawn()?;
    // Not to wait for anything: this is the moment of the accident.
    let ended_before = timeout(after, creation.wait()).await.is_ok();
    match victim {
        Victim::Device if ended_before => {}
        Victim::Device => creation.kill().await?,
        Victim::Service => {
            stack.service.kill().await?;
            stack.service.start().await?;
        }
        Victim::Partner => {
            stack.partner.kill().await?;
            stack.partner.start().await?;
        }
    }
    creation.wait().await?;

    device.json(&["wallet", "resume"]).await?;
    if wallets(&device).await?.is_empty() {
        device.json(&arguments).await?;
    }
    let wallets = wallets(&device).await?;
    let [created] = wallets.as_slice() else { anyhow::bail!("expected one wallet: {wallets:?}") };
    let id = text(created, "/id")?.to_owned();
    stack.all_pairs_ready(&id).await?;
    let address = text(created, "/address")?.to_owned();
    Ok(Wallet { id, address, requester_key, created: created.clone(), duet: device })
}

async fn wallets(device: &Duet) -> anyhow::Result<Vec<Value>> {
    let listed = device.json(&["wallet", "list"]).await?;
    Ok(listed.pointer("/wallets").and_then(Value::as_array).cloned().unwrap_or_default())
}
