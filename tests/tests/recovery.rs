//! Processes die at any time without a warning. Accepted requests are still signed, once.
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use duet_chaos::signers;
use duet_harness::{
    duet::{Duet, text},
    http::Api,
    process::Process,
    stack::{ALL_KINDS, Pair, Stack, Wallet},
};
use serde_json::{Value, json};

use crate::traffic::{Connections, Traffic};

#[tokio::test(flavor = "multi_thread")]
async fn parties__should_sign_again_after_kill_9() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    for round in ["first", "second"] {
        for pair in Pair::ALL {
            let signed = wallet.sign_by(pair, &["message", round]).await.unwrap();
            let signer =
                signers::message_signer(round.as_bytes(), text(&signed, "/signature").unwrap()).unwrap();
            assert_eq!(signer.to_string(), wallet.address, "{round} {pair:?}");
        }
        stack.service.kill().await.unwrap();
        stack.partner.kill().await.unwrap();
        stack.service.start().await.unwrap();
        stack.partner.start().await.unwrap();
    }
}

/// The accepted job that signs `message`. The message is also its idempotency key.
async fn accepted(api: &Api, message: &str) -> anyhow::Result<String> {
    let request = api.request(&json!({"kind": "personal_message", "text": message}), message)?;
    let submitted = api.submit(&request, message).await?;
    ensure!(submitted.status == 202, "{submitted:?}");
    Ok(text(&submitted.body, "/id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_job__should_wait_for_an_absent_party() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    stack.partner.kill().await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let job = accepted(&api, "patience").await.unwrap();

    stack.partner.start().await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs__should_be_taken_while_no_party_is_there() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let before = accepted(&api, "before").await.unwrap();
    assert_eq!(api.settled(&before).await.unwrap(), "signed");

    stack.service.stop().await.unwrap();
    stack.partner.stop().await.unwrap();
    let first = accepted(&api, "first").await.unwrap();
    // The orchestrator learns that no worker is there.
    let told = async {
        loop {
            let job = api.get(&format!("/v1/jobs/{first}")).await.unwrap();
            if job.body.pointer("/waiting/code").is_some_and(|code| code == "party-away") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    let second = accepted(&api, "second").await.unwrap();

    stack.service.start().await.unwrap();
    stack.partner.start().await.unwrap();
    for job in [first, second] {
        assert_eq!(api.settled(&job).await.unwrap(), "signed");
    }
}

/// Longer than all attempts at a job that fail at once: 5 s with the default settings.
const LONGER_THAN_ALL_ATTEMPTS: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn jobs__should_wait_while_a_partys_only_worker_is_started_again() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    // The orchestrator has just heard of the partner, and assumes that it is there.
    let before = accepted(&api, "before").await.unwrap();
    assert_eq!(api.settled(&before).await.unwrap(), "signed");

    stack.partner.stop().await.unwrap();
    let mut jobs = Vec::new();
    for number in 0..5 {
        jobs.push(accepted(&api, &format!("meanwhile-{number}")).await.unwrap());
    }
    tokio::time::sleep(LONGER_THAN_ALL_ATTEMPTS).await;
    stack.partner.start().await.unwrap();
    for job in jobs {
        assert_eq!(api.settled(&job).await.unwrap(), "signed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_job__should_survive_the_death_of_orchestrator_and_broker() {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await.unwrap();
    stack.partner.kill().await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    let request = api.request(&json!({"kind": "personal_message", "text": "durable"}), "durable").unwrap();
    let job = text(&api.submit(&request, "durable").await.unwrap().body, "/id").unwrap().to_owned();

    stack.orchestrator.kill().await.unwrap();
    stack.broker.restart().await.unwrap();
    stack.orchestrator.start().await.unwrap();
    stack.partner.start().await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "signed");

    // The same request gives the same job, with the same signature.
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
    // Cards come first, so the partner must be there and die afterwards. It is killed while the
    // device deals.
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
    // Either there is no wallet, or one with which all pairs can sign, at the latest after
    // resuming.
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
        let signer = signers::message_signer(b"resumed", text(&signed, "/signature").unwrap()).unwrap();
        assert_eq!(signer.to_string(), text(&wallet, "/wallet/address").unwrap());
    }
}

/// The process that is killed while a wallet is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Device,
    Service,
    Partner,
}

/// The number of messages that the device sends and receives during a creation. There is a request
/// and an answer for each party's card, package and commit, one after the other.
const MESSAGES: u64 = 12;

/// Up to the answer with the second card nothing is dealt. So a device that dies then leaves
/// nothing.
const LAST_MESSAGE_BEFORE_THE_DEAL: u64 = 4;

/// How long a creation may take that has to notice a party's death.
const CREATION_DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn wallet_creation__should_survive_kill_9_of_the_device_at_every_message() {
    survives_kill_9_at_every_message(Victim::Device).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wallet_creation__should_survive_kill_9_of_the_service_at_every_message() {
    survives_kill_9_at_every_message(Victim::Service).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wallet_creation__should_survive_kill_9_of_the_partner_at_every_message() {
    survives_kill_9_at_every_message(Victim::Partner).await.unwrap();
}

/// Kills `victim` when message `k` of a creation has reached the broker and before its receiver
/// acts, for every `k`. Then resumes whatever was interrupted. There must be one wallet that every
/// pair signs with, or none.
async fn survives_kill_9_at_every_message(victim: Victim) -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    // Let the parties meet now. Later they ask each other nothing during a creation.
    stack.create_wallet("first", ALL_KINDS).await?;
    for message in 1..=MESSAGES {
        let name = format!("{victim:?}-{message}").to_lowercase();
        let made = creation_with_a_death(&mut stack, &name, victim, message).await.context(name.clone())?;
        let Some(wallet) = made else {
            let too_late = message > LAST_MESSAGE_BEFORE_THE_DEAL;
            ensure!(!too_late, "{name}: what had been dealt is lost");
            continue;
        };
        for pair in Pair::ALL {
            let signed = wallet
                .sign_by(pair, &["message", &name])
                .await
                .with_context(|| format!("{name} {pair:?}"))?;
            let signer = signers::message_signer(name.as_bytes(), text(&signed, "/signature")?)?;
            ensure!(signer.to_string() == wallet.address, "{name} {pair:?}");
        }
    }
    // The next creation succeeds.
    stack.create_wallet("last", ALL_KINDS).await.map(drop)
}

/// Begins a creation, kills `victim` at `message`, starts it again, and resumes the creation.
async fn creation_with_a_death(
    stack: &mut Stack,
    name: &str,
    victim: Victim,
    message: u64,
) -> anyhow::Result<Option<Wallet>> {
    let duet = stack.device(name)?;
    let (arguments, requester_key) = stack.creation(&duet, name, ALL_KINDS).await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let connections = Connections::of(&stack.broker)?;
    let before = connections.newest().await?;
    pause_parties(stack)?;
    let mut device = Process::start(name, duet.command(&arguments)?, &stack.directory().join("logs"))?;
    let connection = connections.first_after(before).await?;
    for passing in 1..=message {
        // One side runs up to its next message. The other is paused, and cannot act on it.
        if passing % 2 == 1 {
            connections.until(connection, |traffic| traffic.sent > passing / 2).await?;
            device.pause()?;
        } else {
            resume_parties(stack)?;
            connections.until(connection, |traffic| traffic.received >= passing / 2).await?;
            pause_parties(stack)?;
            if passing < message {
                device.resume()?;
            }
        }
    }
    match victim {
        Victim::Device => device.kill().await?,
        Victim::Service => stack.service.kill().await?,
        Victim::Partner => stack.partner.kill().await?,
    }
    if victim != Victim::Service {
        stack.service.process()?.resume()?;
    }
    if victim != Victim::Partner {
        stack.partner.process()?.resume()?;
    }
    match victim {
        Victim::Device => {}
        Victim::Service => drop(stack.service.start().await?),
        Victim::Partner => drop(stack.partner.start().await?),
    }
    if victim != Victim::Device {
        device.resume()?;
        device.ended(CREATION_DEADLINE).await?;
    }
    let traffic = connections.traffic(connection).await?;
    if message == MESSAGES {
        // There are no further messages than those counted.
        ensure!(traffic == Traffic { sent: MESSAGES / 2, received: MESSAGES / 2 }, "{traffic:?}");
    }

    duet.json(&["wallet", "resume"]).await?;
    let wallets = wallets(&duet).await?;
    let created = match wallets.as_slice() {
        [] => return Ok(None),
        [created] => created,
        several => bail!("expected one wallet at most: {several:?}"),
    };
    let id = text(created, "/id")?.to_owned();
    stack.all_pairs_ready(&id).await?;
    let address = text(created, "/address")?.to_owned();
    Ok(Some(Wallet { id, address, requester_key, created: created.clone(), duet }))
}

fn pause_parties(stack: &mut Stack) -> anyhow::Result<()> {
    stack.service.process()?.pause()?;
    stack.partner.process()?.pause()
}

fn resume_parties(stack: &mut Stack) -> anyhow::Result<()> {
    stack.service.process()?.resume()?;
    stack.partner.process()?.resume()
}

async fn wallets(device: &Duet) -> anyhow::Result<Vec<Value>> {
    let listed = device.json(&["wallet", "list"]).await?;
    Ok(listed.pointer("/wallets").and_then(Value::as_array).cloned().unwrap_or_default())
}
