//! The parties themselves enforce a wallet's policy, against every requester and orchestrator.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails"
)]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use duet_bus::{Address, Role};
use duet_harness::{
    duet::text,
    http::Api,
    stack::{Server, Stack, Wallet},
};
use duet_protocol::{
    codec,
    ids::{SessionId, ShareIndex},
};
use duet_wire::{
    Code, Invitation, InvitationReply, Manifest, Seat, SignedRequest, SigningRequest,
    card_request::{CardReply, CardRequest},
    policy::DatedApproval,
    signing::SigningKey,
};
use serde_json::{Value, json};

const PAYEE: &str = "0x00000000000000000000000000000000DeaDBeef";
const STRANGER: &str = "0x1111111111111111111111111111111111111111";
const DEADLINE: Duration = Duration::from_secs(20);

fn policy(wallet: &Wallet, revision: u64, rules: &Value) -> Value {
    json!({"version": 1, "wallet": wallet.id, "revision": revision, "delay": "1h", "rules": rules})
}

fn payouts() -> Value {
    json!({
        "name": "payouts", "payloads": ["transaction"], "chains": [31337], "to": [PAYEE], "max_value": "10",
        "limits": [{"within": "1h", "value": "25"}],
    })
}

fn talk() -> Value {
    json!({"name": "talk", "payloads": ["personal_message"]})
}

async fn set(stack: &Stack, wallet: &Wallet, policy: &Value) -> anyhow::Result<Value> {
    let file = stack.directory().join("policy.json");
    fs::write(&file, policy.to_string())?;
    wallet.duet.json(&["policy", "set", &file.to_string_lossy()]).await
}

fn transfer(to: &str, value: u64, nonce: u64) -> Value {
    json!({
        "kind": "transaction", "type": "0x2", "chainId": 31337, "nonce": nonce, "to": to, "value": value.to_string(),
        "gas": 21000, "maxFeePerGas": "1000000000", "maxPriorityFeePerGas": "1",
    })
}

/// The code with which a queued payment fails, or `signed`.
async fn pay(stack: &Stack, wallet: &Wallet, to: &str, value: u64, nonce: u64) -> String {
    pay_from("m", stack, wallet, to, value, nonce).await
}

/// The same outcome for a payment by the key at `path`.
async fn pay_from(path: &str, stack: &Stack, wallet: &Wallet, to: &str, value: u64, nonce: u64) -> String {
    let mut payload = transfer(to, value, nonce);
    payload.as_object_mut().unwrap().remove("kind");
    let file = stack.directory().join("transaction.json");
    fs::write(&file, payload.to_string()).unwrap();
    match wallet.queue(&["tx", &file.to_string_lossy(), "--path", path]).await {
        Ok(_) => "signed".to_owned(),
        Err(error) => {
            let text = format!("{error:#}");
            let (_, rest) = text.split_once("\"code\":\"").unwrap_or_else(|| panic!("{text}"));
            rest.split('"').next().unwrap().to_owned()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy__should_decide_what_is_signed_and_by_which_rule() {
    let (stack, wallet) = Stack::with_wallet("transaction,personal_message").await.unwrap();
    assert_eq!(pay(&stack, &wallet, STRANGER, 1, 0).await, "signed", "there is no policy yet");

    let first = policy(&wallet, 1, &json!([payouts(), talk()]));
    let held = set(&stack, &wallet, &first).await.unwrap();
    assert_eq!(held["parties"].as_array().unwrap().len(), 2, "{held}");
    let shown = wallet.duet.json(&["policy", "show"]).await.unwrap();
    assert_eq!(shown["policies"][0]["policy"], first);

    assert_eq!(pay(&stack, &wallet, PAYEE, 10, 1).await, "signed");
    assert_eq!(pay(&stack, &wallet, STRANGER, 1, 2).await, "policy-refused");
    assert_eq!(pay(&stack, &wallet, PAYEE, 11, 3).await, "policy-refused");
    wallet.queue(&["message", "hello"]).await.unwrap();

    // A change that permits more waits for the delay. One that permits less does not. Until then
    // both apply.
    let mut anywhere = payouts();
    anywhere["to"] = json!("any");
    let widened = set(&stack, &wallet, &policy(&wallet, 2, &json!([anywhere]))).await.unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(u128::from(widened["parties"][0]["effective_at_ms"].as_u64().unwrap()) > now_ms + 3_000_000);
    assert_eq!(pay(&stack, &wallet, STRANGER, 1, 4).await, "policy-refused");
    assert_eq!(pay(&stack, &wallet, PAYEE, 10, 5).await, "signed", "both allow it, and it is charged once");
    assert!(wallet.queue(&["message", "no more of this"]).await.is_err());

    // No older revision is accepted.
    let file = stack.directory().join("older.json");
    fs::write(&file, policy(&wallet, 1, &json!([talk()])).to_string()).unwrap();
    let refusal = wallet.duet.refused(&["policy", "set", &file.to_string_lossy()]).await.unwrap();
    assert_eq!(refusal.code, "conflict", "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limit__should_hold_across_workers_and_restarts() {
    let (mut stack, wallet) = Stack::with_wallet("transaction").await.unwrap();
    set(&stack, &wallet, &policy(&wallet, 1, &json!([payouts()]))).await.unwrap();
    assert_eq!(pay(&stack, &wallet, PAYEE, 10, 0).await, "signed");

    // Another worker of the partner, instead of the first one.
    let partner = stack.party("partner").command(&stack.duet());
    let logs = stack.directory().join("logs");
    let mut second = Server::new("partner-2", partner, &["party", "run"], &logs);
    second.start().await.unwrap();
    stack.partner.stop().await.unwrap();
    assert_eq!(pay(&stack, &wallet, PAYEE, 10, 1).await, "signed");
    assert_eq!(pay(&stack, &wallet, PAYEE, 10, 2).await, "limit-exceeded");

    // The first worker again, after the other was killed. The initiator has restarted, too.
    second.kill().await.unwrap();
    stack.partner.start().await.unwrap();
    stack.service.kill().await.unwrap();
    stack.service.start().await.unwrap();
    assert_eq!(pay(&stack, &wallet, PAYEE, 10, 3).await, "limit-exceeded");
    assert_eq!(pay(&stack, &wallet, PAYEE, 5, 4).await, "signed", "there is room for this");
    assert_eq!(pay(&stack, &wallet, PAYEE, 1, 5).await, "limit-exceeded");
    // The signed bytes name no sender: signed by another key of the wallet, the same transaction
    // pays a second time.
    assert_eq!(pay_from("m/7", &stack, &wallet, PAYEE, 5, 4).await, "limit-exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn narrowed_policy__should_bind_every_worker_at_once() {
    let stack = Stack::start().await.unwrap();
    let _more = stack.second_workers().await.unwrap();
    let wallet = stack.create_wallet("device", "transaction,personal_message").await.unwrap();
    set(&stack, &wallet, &policy(&wallet, 1, &json!([payouts(), talk()]))).await.unwrap();
    // Enough jobs that each worker has applied the policy and keeps it in memory.
    for nonce in 0..10 {
        assert_eq!(pay(&stack, &wallet, PAYEE, 1, nonce).await, "signed");
    }
    // One worker of each party stores this policy.
    set(&stack, &wallet, &policy(&wallet, 2, &json!([talk()]))).await.unwrap();
    for nonce in 10..16 {
        assert_eq!(pay(&stack, &wallet, PAYEE, 1, nonce).await, "policy-refused");
    }
    wallet.queue(&["message", "hello"]).await.unwrap();
}

/// A party's answer to an invitation that a lying orchestrator made.
async fn invited(stack: &Stack, wallet: &Wallet, signed: SignedRequest, to: ShareIndex) -> InvitationReply {
    let bus = stack.broker.connect(Role::Orchestrator).await.unwrap();
    let id = wallet.id.parse().unwrap();
    let facts = |party: &str| {
        let address = Address::Card { from: duet_bus::Speaker::Orchestrator, to: party.parse().unwrap() };
        let question = codec::encode(&CardRequest::Wallet { id }).unwrap();
        let bus = &bus;
        async move {
            let reply = bus.request(&address, question, DEADLINE).await.unwrap();
            match codec::decode::<CardReply>(&reply).unwrap() {
                CardReply::Wallet { wallet } => *wallet,
                other => panic!("{other:?}"),
            }
        }
    };
    let (service, partner) = (facts("service").await, facts("partner").await);
    let key = service.initiates[0].paillier_key;
    assert!(partner.responds_to.iter().any(|enrolled| enrolled.paillier_key == key));
    let request = SigningRequest::from_json(&signed.body).unwrap();
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let mut session = [0; 16];
    session[..8].copy_from_slice(&now_ms.to_be_bytes());
    session[8] = to.into();
    let manifest = Manifest {
        session: SessionId(session),
        job: request.job(),
        attempt: 1,
        wallet: request.wallet,
        epoch: partner.epoch,
        paillier_key: key,
        initiator: Seat { party: "service".parse().unwrap(), index: ShareIndex::Service },
        responder: Seat { party: "partner".parse().unwrap(), index: ShareIndex::Partner },
        request: signed,
        expires_at_ms: now_ms + 30_000,
    };
    let invitation = codec::encode(&Invitation { manifest: manifest.encode().unwrap() }).unwrap();
    let party = if to == ShareIndex::Service { "service" } else { "partner" };
    let reply = bus.request(&Address::Invite(party.parse().unwrap()), invitation, DEADLINE).await.unwrap();
    codec::decode(&reply).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_orchestrator__should_not_get_around_the_policy() {
    let (stack, wallet) = Stack::with_wallet("transaction,personal_message").await.unwrap();
    set(&stack, &wallet, &policy(&wallet, 1, &json!([payouts()]))).await.unwrap();
    let api = Api::new(&stack, &wallet).unwrap();
    // The orchestrator asks the parties itself, in its own session, with a request that the
    // requester really signed.
    let evil = api.request(&transfer(STRANGER, 1, 0), "evil").unwrap();
    for index in [ShareIndex::Service, ShareIndex::Partner] {
        match invited(&stack, &wallet, evil.clone(), index).await {
            InvitationReply::Refused(refusal) => {
                assert_eq!(refusal.code, Code::PolicyRefused, "{refusal}");
                assert!(refusal.message.contains("payouts"), "{refusal}");
            }
            InvitationReply::Accepted { .. } => panic!("{index} takes its seat"),
        }
    }
    let good = api.request(&transfer(PAYEE, 1, 0), "good").unwrap();
    let reply = invited(&stack, &wallet, good, ShareIndex::Partner).await;
    assert!(matches!(reply, InvitationReply::Accepted { .. }), "{reply:?}");

    // The auditor sees who tried, and which rule refused.
    let shown = async || {
        let about = ["audit", "show", "--about", "policy-refused", "--about", &wallet.id];
        stack.duet().json(&about).await.unwrap()["records"].as_array().unwrap().clone()
    };
    let mut look_again = tokio::time::interval(Duration::from_millis(300));
    let refused = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            look_again.tick().await;
            let records = shown().await;
            if records.len() >= 2 {
                return records;
            }
        }
    });
    for record in refused.await.unwrap() {
        assert_eq!(record["body"]["event"]["rule"], "payouts", "{record}");
        assert!(text(&record, "/body/event/asked/requester").is_ok(), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals__should_be_counted_by_the_parties() {
    let (stack, wallet) = Stack::with_wallet("transaction").await.unwrap();
    let duet = stack.duet();
    let mut keys = Vec::new();
    for name in ["one", "two", "stranger"] {
        let file = stack.directory().join(name).to_string_lossy().into_owned();
        let made = duet.json(&["requester", "new", "--out", &file]).await.unwrap();
        keys.push((file, text(&made, "/public_key").unwrap().to_owned()));
    }
    let mut rule = payouts();
    rule["approvals"] = json!({"keys": [keys[0].1, keys[1].1], "threshold": 2});
    set(&stack, &wallet, &policy(&wallet, 1, &json!([rule]))).await.unwrap();

    let api = Api::new(&stack, &wallet).unwrap();
    let request = api.request(&transfer(PAYEE, 1, 0), "approved").unwrap();
    let submitted = api.submit(&request, "approved").await.unwrap();
    let job = submitted.body["id"].as_str().unwrap().to_owned();
    let digest = submitted.body["digest"].as_str().unwrap().to_owned();
    assert_eq!(api.settled(&job).await.unwrap(), "failed", "no approver has approved it");
    let failed = api.get(&format!("/v1/jobs/{job}")).await.unwrap();
    assert_eq!(failed.body["failure"]["code"], "approval-missing", "{failed:?}");

    let approve = |key: &str, digest: &str| {
        let arguments = ["policy", "approve", &job, "--digest", digest, "--key", key].map(str::to_owned);
        let duet = duet.clone();
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            duet.json(&arguments).await
        }
    };
    // Not another digest, not a stranger, and not one approver alone.
    assert!(approve(&keys[0].0, &format!("0x{}", "11".repeat(32))).await.is_err());
    assert!(approve(&keys[2].0, &digest).await.unwrap_err().to_string().contains("unauthorized"));

    // Over HTTP: a stranger learns whose approval counts; a date that is too old or in the future
    // does not count.
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (day, path) = (24 * 60 * 60, format!("/v1/jobs/{job}/approvals"));
    for (key, issued_at, status, code, says) in [
        (&keys[2], now_s, 401, "unauthorized", "expected a key of `approvals` in a rule that counts"),
        (&keys[0], now_s - day - 60, 403, "approval-missing", "older than 24 h"),
        (&keys[0], now_s + 90, 503, "clock-differs", "ahead of this party's"),
    ] {
        let mut bytes = [0; 32];
        hex::decode_to_slice(fs::read_to_string(&key.0).unwrap().trim(), &mut bytes).unwrap();
        let approval = DatedApproval::sign(request.clone(), issued_at, &SigningKey::from_bytes(&bytes));
        let document = json!({
            "approver": key.1, "issued_at": issued_at, "signature": hex::encode(approval.signature),
        });
        let answer = api.send("POST", &path, Some(&document)).await.unwrap();
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains(says), "{answer:?}");
    }
    approve(&keys[0].0, &digest).await.unwrap();
    assert_eq!(api.settled(&job).await.unwrap(), "failed", "one of two has approved it");
    let noted = approve(&keys[1].0, &digest).await.unwrap();
    assert_eq!(noted["parties"], json!(["service", "partner"]));
    assert_eq!(api.settled(&job).await.unwrap(), "signed");

    // The approvals were for that request, and do not count for another one.
    let other = api.request(&transfer(PAYEE, 2, 1), "other").unwrap();
    let submitted = api.submit(&other, "other").await.unwrap();
    assert_eq!(api.settled(submitted.body["id"].as_str().unwrap()).await.unwrap(), "failed");
}
