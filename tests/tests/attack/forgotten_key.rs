//! The queue forgets which payload an idempotency key was for: its broker is put back to an older
//! copy of its store. The parties remember, and sign no other payload under the key.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use duet_actors::stage::Stage;
use duet_harness::{
    duet::text,
    http::Api,
    stack::{ALL_KINDS, Stack, Wallet},
};
use duet_party::PartyError;
use duet_protocol::ids::ShareIndex;
use duet_wire::{Code, InvitationReply, Manifest, OutcomeResult, Pair, Refusal, SigningRequest};
use serde_json::json;

/// A party's words, up to when the first was charged.
const SAID: &str = "charged under the same idempotency key at 20";

/// Puts the broker back to a copy of its store, or to an empty store, and starts the orchestrator
/// anew. Waits until the parties have come back.
async fn put_back(stack: &mut Stack, wallet: &Wallet, copy: Option<&Path>) -> Result<()> {
    stack.orchestrator.kill().await?;
    stack.broker.kill().await?;
    stack.broker.empty()?;
    if let Some(copy) = copy {
        stack.broker.put_back(copy)?;
    }
    stack.broker.resume().await?;
    stack.orchestrator.start().await?;
    stack.all_pairs_ready(&wallet.id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_put_back__should_have_no_second_payload_signed() -> Result<()> {
    let (mut stack, wallet) = Stack::with_wallet(ALL_KINDS).await?;
    let api = Api::new(&stack, &wallet)?;
    let yesterday = stack.directory().join("yesterday");
    stack.orchestrator.kill().await?;
    stack.broker.kill().await?;
    stack.broker.copy(&yesterday)?;
    stack.broker.resume().await?;
    stack.orchestrator.start().await?;
    stack.all_pairs_ready(&wallet.id).await?;

    let key = "payout-1";
    let ended = async |payee: &str| {
        let request = api.request(&json!({"kind": "personal_message", "text": payee}), key)?;
        let submitted = api.submit(&request, key).await?;
        let id = text(&submitted.body, "/id").with_context(|| format!("{submitted:?}"))?.to_owned();
        let state = api.settled(&id).await?;
        Ok::<_, anyhow::Error>((state, api.get(&format!("/v1/jobs/{id}")).await?.body))
    };
    let own = |payee, with| ["sign", "message", payee, "--idempotency-key", "own-1", "--with", with];
    assert_eq!(ended("pay Alice").await?.0, "signed");
    wallet.duet.json(&own("pay Alice", "service")).await?;

    // A retry gets a signature over the same payload.
    put_back(&mut stack, &wallet, Some(&yesterday)).await?;
    assert_eq!(ended("pay Alice").await?.0, "signed");
    wallet.duet.json(&own("pay Alice", "partner")).await?;

    let mut seconds = 0;
    // The owner's own: the service refuses it, or else the device itself.
    for (copy, with) in [(Some(yesterday.as_path()), "service"), (None, "partner")] {
        put_back(&mut stack, &wallet, copy).await?;
        let (state, job) = ended("pay Mallory").await?;
        seconds += u32::from(state == "signed");
        assert_eq!(state, "failed", "{job}");
        assert_eq!(text(&job, "/failure/code")?, "conflict", "{job}");
        assert!(text(&job, "/failure/message")?.contains(SAID), "{job}");
        let refusal = wallet.duet.refused(&own("pay Mallory", with)).await?;
        assert_eq!(refusal.code, "conflict", "{refusal:?}");
        assert!(refusal.message.contains(SAID), "{refusal:?}");
    }
    eprintln!("evidence: queues that forgot a key = 2; second payloads signed under it = {seconds}");
    Ok(())
}

/// Another request under the key of `first`.
fn under_the_key_of(first: &SigningRequest, another: SigningRequest) -> SigningRequest {
    SigningRequest { idempotency_key: first.idempotency_key.clone(), ..another }
}

async fn invited(stage: &Stage, manifest: &Manifest, index: ShareIndex) -> Result<Option<Refusal>> {
    let seat = if manifest.initiator.index == index { &manifest.initiator } else { &manifest.responder };
    Ok(match stage.invite(&seat.party, &manifest.encode()?).await? {
        InvitationReply::Accepted { .. } => None,
        InvitationReply::Refused(refusal) => Some(refusal),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_party__should_remember_in_whichever_seat() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let first = stage.request(&wallet, "m", "first");
    stage.approve(&wallet, Pair::DeviceService, &first).await?;
    let second = under_the_key_of(&first, stage.request(&wallet, "m", "second"));
    // The same text from another of the wallet's addresses is another payload.
    let moved = under_the_key_of(&first, stage.request(&wallet, "m/1", "first"));
    for other in [second, moved] {
        // The service answered, and does not initiate. The partner has heard of neither.
        let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
        let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &other);
        assert_eq!(invited(&stage, &manifest, ShareIndex::Partner).await?, None);
        let refusal = invited(&stage, &manifest, ShareIndex::Service).await?.context("it initiates")?;
        assert_eq!(refusal.code, Code::Conflict, "{refusal}");
        assert!(refusal.message.contains(SAID), "{refusal}");
        // Nor does it answer.
        let key = stage.paillier_key(wallet.id, Pair::DeviceService).await?;
        let manifest = stage.manifest(&wallet, Pair::DeviceService, key, &other);
        let refusal = invited(&stage, &manifest, ShareIndex::Service).await?.context("it answers")?;
        assert_eq!(refusal.code, Code::Conflict, "{refusal}");
        // The device initiated, and does not with the other party either.
        let refused = stage.approve(&wallet, Pair::DevicePartner, &other).await;
        let Err(error) = refused else { bail!("the device initiates") };
        let code = error.downcast_ref::<PartyError>().map(PartyError::code);
        assert_eq!(code, Some(Code::Conflict), "{error:#}");
    }
    // The same payload under the key passes at every party, also after they were started again.
    for backend in [&mut stage.service, &mut stage.partner] {
        backend.crash().await?;
        backend.start().await?;
    }
    stage.reopen_device().await?;
    let again = under_the_key_of(&first, stage.request(&wallet, "m", "first"));
    stage.approve(&wallet, Pair::DevicePartner, &again).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &again);
    for index in [ShareIndex::Partner, ShareIndex::Service] {
        let seat = if index == ShareIndex::Partner { &manifest.responder } else { &manifest.initiator };
        let reply = stage.invite_when_present(&seat.party, &manifest.encode()?).await?;
        assert!(matches!(reply, InvitationReply::Accepted { .. }), "{reply:?}");
    }
    let signed = stage.outcome(&manifest, ShareIndex::Service).await?;
    assert!(matches!(signed, OutcomeResult::Signed { .. }), "{signed:?}");
    Ok(())
}

/// Two sessions begin before either is charged.
#[tokio::test(flavor = "multi_thread")]
async fn two_payloads_at_once__should_get_one_answer() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let one = stage.request(&wallet, "m", "one");
    let other = under_the_key_of(&one, stage.request(&wallet, "m", "other"));
    let manifests = [&one, &other].map(|asked| stage.manifest(&wallet, Pair::ServicePartner, key, asked));
    for index in [ShareIndex::Partner, ShareIndex::Service] {
        let [first, second] = &manifests;
        let (first, second) =
            tokio::try_join!(invited(&stage, first, index), invited(&stage, second, index))?;
        assert_eq!((first, second), (None, None), "{index:?}");
    }
    // Two reports of the partner, in either order.
    let mut answered = 0;
    for result in stage.outcomes_of(&manifests, ShareIndex::Partner).await? {
        match result {
            OutcomeResult::Answered => answered += 1,
            OutcomeResult::Failed { code: Code::Conflict, culprit: None, .. } => {}
            result => bail!("{result:?}"),
        }
    }
    assert_eq!(answered, 1);
    let store = stage.partner.party.context().vault.store();
    let mut charges = 0;
    for asked in [&one, &other] {
        charges += store.charges(wallet.id, asked.payload.digest()?).await?;
    }
    assert_eq!(charges, 1);
    eprintln!("evidence: payloads at once under one key = 2; answers = {charges}");
    Ok(())
}

/// The initiator's session has begun, and the responder knows nothing of the key.
#[tokio::test(flavor = "multi_thread")]
async fn an_initiator__should_decrypt_no_answer_for_a_second_payload() -> Result<()> {
    let (mut stage, wallet) = Stage::with_wallet().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let one = stage.request(&wallet, "m", "one");
    let other = under_the_key_of(&one, stage.request(&wallet, "m", "other"));
    // The service initiates, and sends its first message until the partner is there.
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &other);
    assert_eq!(invited(&stage, &manifest, ShareIndex::Service).await?, None);
    stage.approve(&wallet, Pair::DeviceService, &one).await?;
    assert_eq!(invited(&stage, &manifest, ShareIndex::Partner).await?, None);
    let said = stage.outcome(&manifest, ShareIndex::Service).await?;
    assert!(matches!(said, OutcomeResult::Failed { code: Code::Conflict, culprit: None, .. }), "{said:?}");
    Ok(())
}
