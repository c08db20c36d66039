//! Answers: sample values of the types that routes answer with.

use std::collections::BTreeMap;

use duet_protocol::{
    ids::{Epoch, SessionId, WalletId},
    public_key::DerivationPath,
};
use duet_wire::{
    Code, JobId, JobRecord, JobResult, JobState, JobStateName, PayloadKindTag, Priority, Problem,
    RecoverableSignature, Refusal, SignedRequest, SignedResult,
    batch::BatchId,
    job::{Attempt, AttemptOutcome, Earlier, Evidence, JobRevocation, PutBack, RevocationRefused, Waiting},
    request::Pair,
    revocation::RevocationProof,
    signing::SigningKey,
    wallet::{RequesterInfo, WalletStatus},
    webhook::EndpointId,
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{Coverage, Schemas, mutations, named, note, objects, properties};
use crate::{
    api::{
        AddressPage, AddressView, BatchAnswer, BatchItemView, BatchJobView, BatchView, EndPage, EndView,
        ItemStatus, JobPage, JobView, PairView, ProgressEvent, WalletPage, WalletView, XpubView,
    },
    http::{
        ApiError,
        approvals::Noted,
        health::{Alive, Health},
    },
    webhooks::{
        Delivery, DeliveryOutcome, DeliveryPage, Disabled, Replay, ReplayAccepted, WebhookCreated,
        WebhookPage, WebhookView,
    },
};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn party(name: &str) -> duet_protocol::ids::PartyId {
    name.parse().unwrap()
}

fn request() -> SignedRequest {
    let payload = json!({
        "kind": "transaction", "chainId": 1, "nonce": 0, "to": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "gas": 21000, "gasPrice": 1,
    });
    let body = json!({
        "version": 2, "tenant": "acme", "wallet": "11".repeat(32), "payload": payload, "idempotency_key": "payout-1",
        "issued_at": 1_800_000_000, "expires_at": 1_800_000_600,
    });
    SignedRequest::sign(body.to_string().into_bytes(), &key())
}

/// A job in `state`, with no more than each job has.
fn record(state: JobState) -> JobRecord {
    let mut record = JobRecord::new(request(), &request().verify().unwrap(), 1);
    record.state = state;
    record
}

fn signed_result(with_transaction: bool) -> SignedResult {
    let result = JobResult {
        job: JobId([1; 16]),
        tenant: "acme".parse().unwrap(),
        wallet: WalletId([0x11; 32]),
        path: "m".parse().unwrap(),
        address: [1; 20],
        digest: [4; 32],
        signature: RecoverableSignature::new([1; 32], [2; 32], true).unwrap(),
        signed_transaction: with_transaction.then(|| vec![2, 0xf8].into()),
        transaction_hash: with_transaction.then(|| [6; 32].into()),
        session: SessionId([2; 16]),
        completed_at_ms: 2,
    };
    SignedResult::sign(&result, &key()).unwrap()
}

fn refusal() -> Refusal {
    Refusal::new(Code::Locked, "locked")
}

/// The attempts that there may be: each outcome, and each kind of evidence.
fn attempts() -> Vec<Attempt> {
    let by = || party("partner");
    let evidence = [
        None,
        Some(Evidence::Refusal { by: by() }),
        Some(Evidence::Nonsense { by: by(), sha256: [1; 32] }),
        Some(Evidence::Report { by: by(), sha256: [1; 32] }),
        Some(Evidence::InvalidSignature { by: by(), sha256: [1; 32] }),
        Some(Evidence::Silence { of: by(), before_acceptance: false }),
        Some(Evidence::Silence { of: by(), before_acceptance: true }),
    ];
    let failed = evidence.into_iter().map(|evidence| {
        let culprit = evidence.is_some().then(by);
        Some(AttemptOutcome::Failed { code: Code::Deadline, culprit, evidence, message: "late".to_owned() })
    });
    let outcomes = failed.chain([Some(AttemptOutcome::Expired), Some(AttemptOutcome::Signed), None]);
    let attempt = |(at, outcome): (usize, Option<AttemptOutcome>)| Attempt {
        attempt: at as u32 + 1,
        session: SessionId([2; 16]),
        pair: Pair::ServicePartner,
        started_at_ms: 1,
        ended_at_ms: outcome.is_some().then_some(2),
        outcome,
        earlier: (at == 0).then_some(Earlier { attempts: 3, first_started_at_ms: 1 }),
    };
    outcomes.enumerate().map(attempt).collect()
}

fn revocation(refused_by: Vec<RevocationRefused>) -> JobRevocation {
    JobRevocation {
        proof: RevocationProof::sign(WalletId([0x11; 32]), [1; 32], &key()),
        at_ms: 3,
        kept_by: vec![party("service")],
        waits_for: vec![party("partner")],
        refused_by,
    }
}

fn jobs() -> Vec<JobView> {
    let session = SessionId([2; 16]);
    let running = JobState::Running { session, attempt: 1, pair: Pair::ServicePartner };
    let failed = JobState::Failed { code: Code::Locked, message: "locked".to_owned() };
    let mut records =
        vec![record(JobState::Queued), record(running), record(failed), record(JobState::Expired)];
    records.push(record(JobState::Signed { result: signed_result(true) }));
    records.push(record(JobState::Signed { result: signed_result(false) }));
    let mut waiting = record(JobState::Queued);
    waiting.waiting = Some(Waiting { code: Code::Locked, message: "locked".to_owned(), since_ms: 1 });
    records.push(waiting);
    let mut full = record(JobState::Cancelled);
    full.attempts = attempts();
    full.put_back = Some(PutBack { at_ms: 2, attempts: 1 });
    full.priority = Priority::High;
    full.revocation =
        Some(revocation(vec![RevocationRefused { party: party("partner"), refusal: refusal() }]));
    records.push(full);
    let mut revoked = record(JobState::Cancelled);
    revoked.revocation = Some(revocation(Vec::new()));
    records.push(revoked);
    records.iter().map(|record| JobView::new(record).unwrap()).collect()
}

fn ends() -> Vec<EndView> {
    let failed = record(JobState::Failed { code: Code::Locked, message: "locked".to_owned() });
    let signed = [true, false].map(|with| record(JobState::Signed { result: signed_result(with) }));
    let end = |record: &JobRecord| EndView::of_record(record, "1".to_owned()).unwrap();
    signed.iter().chain([&failed]).map(end).collect()
}

fn wallets() -> Vec<WalletView> {
    let pair =
        |reason: Option<Refusal>| PairView { pair: Pair::DeviceService, usable: reason.is_none(), reason };
    let wallet = |status, partner| WalletView {
        id: WalletId([0x11; 32]),
        address: [1; 20],
        public_key: [2; 33],
        chain_code: [3; 32],
        epoch: Epoch(0),
        tenant: "acme".parse().unwrap(),
        status,
        parties: [Some(party("device")), Some(party("service")), partner],
        requesters: vec![RequesterInfo { key: [1; 32], kinds: vec![PayloadKindTag::TypedData] }],
        pairs: vec![pair(None), pair(Some(refusal()))],
    };
    vec![wallet(WalletStatus::Prepared, None), wallet(WalletStatus::Committed, Some(party("partner")))]
}

fn webhooks() -> Vec<WebhookView> {
    let least = WebhookView {
        id: EndpointId([1; 16]),
        url: "https://example.com/hook".to_owned(),
        created_at_ms: 1,
        failing_since_ms: None,
        retries_waiting: 0,
        disabled: None,
        replays: Vec::new(),
    };
    let full = WebhookView {
        failing_since_ms: Some(2),
        retries_waiting: 3,
        disabled: Some(Disabled { at_ms: 3, reason: "it fails".to_owned() }),
        replays: vec![replay()],
        ..least.clone()
    };
    vec![least, full]
}

fn replay() -> Replay {
    Replay { number: 1, from_ms: 1, until_ms: 2 }
}

fn deliveries() -> Vec<Delivery> {
    let least = Delivery {
        message: "test-1".to_owned(),
        attempt: 0,
        at_ms: 1,
        took_ms: 2,
        outcome: DeliveryOutcome::GivenUp,
        status: None,
        error: None,
        next_attempt_at_ms: None,
    };
    let full = Delivery {
        outcome: DeliveryOutcome::Retrying,
        status: Some(500),
        error: Some("500".to_owned()),
        next_attempt_at_ms: Some(9),
        ..least.clone()
    };
    let delivered = Delivery { outcome: DeliveryOutcome::Delivered, ..least.clone() };
    vec![least, full, delivered]
}

fn problem() -> Problem {
    Problem::new(Code::MalformedJson, "wrong")
}

fn values<T: Serialize>(samples: impl IntoIterator<Item = T>) -> Vec<Value> {
    samples.into_iter().map(|sample| serde_json::to_value(sample).unwrap()).collect()
}

/// Answers of every kind, by the schema of each.
fn samples() -> Vec<(&'static str, Vec<Value>)> {
    let item =
        |status| BatchItemView { status, job: None, state: None, problem: None, retry_after_seconds: None };
    let refused = BatchItemView {
        job: Some(JobId([1; 16])),
        state: Some(JobStateName::Queued),
        problem: Some(problem().at("nonce")),
        retry_after_seconds: Some(1),
        ..item(ItemStatus::Refused)
    };
    let items = vec![item(ItemStatus::Accepted), item(ItemStatus::Known), refused];
    let batch_job = |state| BatchJobView { job: JobId([1; 16]), state };
    let batch = BatchView {
        id: BatchId(JobId([1; 16])),
        created_at_ms: 1,
        jobs: vec![batch_job(None), batch_job(Some(JobStateName::Signed))],
    };
    let errors = [
        ApiError::from(problem()),
        ApiError::from(problem().at("payload.nonce")),
        ApiError::new(Code::Conflict, "another request").with_job(JobId([1; 16])),
    ];
    let event = RawValue::from_string("{\"step\":1}".to_owned()).unwrap();
    let progress = ProgressEvent { session: SessionId([2; 16]), from: "service".to_owned(), event };
    let first = |jobs: Vec<JobView>| jobs.into_iter().take(1).collect();
    let health = |broker, at_ms, broker_epoch| Health {
        status: "ready",
        broker,
        stores_lost_at_ms: at_ms,
        broker_went_back_at_ms: at_ms,
        broker_epoch,
    };
    let alive = Alive { status: "alive", version: "0.1.0", now_ms: 1, max_in_flight: 32 };
    let accepted = |delivery, replay| ReplayAccepted { delivery, replay };
    vec![
        ("AddressPage", {
            let path: DerivationPath = "m/0/0".parse().unwrap();
            let addresses = vec![AddressView { path, address: [1; 20], public_key: [2; 33] }];
            let page =
                |next| AddressPage { wallet: WalletId([0x11; 32]), addresses: addresses.clone(), next };
            values([page(None), page(Some(1))])
        }),
        ("Alive", values([alive])),
        ("Approved", values([Noted { parties: vec!["service".to_owned()] }])),
        ("Batch", values([batch])),
        (
            "BatchAnswer",
            values([
                BatchAnswer { id: None, items: items.clone() },
                BatchAnswer { id: Some(BatchId(JobId([1; 16]))), items },
            ]),
        ),
        ("Delivery", values(deliveries())),
        ("DeliveryPage", values([DeliveryPage { deliveries: deliveries() }])),
        ("EndPage", values([EndPage { results: ends(), next: "1".to_owned() }])),
        ("Health", values([health("safe", None, 1), health("trusted", Some(1), 2)])),
        ("Job", values(jobs())),
        (
            "JobPage",
            values([
                JobPage { jobs: first(jobs()), next: None },
                JobPage { jobs: jobs(), next: Some(JobId([1; 16])) },
            ]),
        ),
        ("Problem", errors.iter().map(|error| serde_json::from_slice(&error.body()).unwrap()).collect()),
        ("Progress", values([progress])),
        ("ReplayAccepted", {
            let delivery = deliveries().pop();
            values([accepted(delivery, None), accepted(None, Some(replay()))])
        }),
        ("SignedRequest", values([request()])),
        ("Wallet", values(wallets())),
        (
            "WalletPage",
            values([
                WalletPage { wallets: wallets(), next: None },
                WalletPage { wallets: wallets(), next: Some(WalletId([0x11; 32])) },
            ]),
        ),
        ("Webhook", values(webhooks())),
        (
            "WebhookCreated",
            values(webhooks().pop().map(|webhook| WebhookCreated { webhook, secret: "whsec_x".to_owned() })),
        ),
        ("WebhookPage", values([WebhookPage { webhooks: webhooks() }])),
        (
            "Xpub",
            values([XpubView {
                wallet: WalletId([0x11; 32]),
                path: DerivationPath::root(),
                xpub: format!("xpub{}", "6".repeat(107)),
            }]),
        ),
    ]
}

/// Whether the schemas say what the samples are. Validates the samples whose schema `is_affected`.
fn check(
    schemas: &Schemas,
    samples: &[(&str, Vec<Value>)],
    is_affected: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let (mut coverage, mut reachable) = (Coverage::new(), BTreeMap::new());
    for (name, values) in samples {
        let schema = named(name);
        let validator = is_affected(name).then(|| schemas.validator(&schema));
        for value in values {
            if let Some(error) = validator.as_ref().and_then(|validator| validator.iter_errors(value).next())
            {
                return Err(format!("{name}: {}: {error}\n{value:#}", error.instance_path()));
            }
            note(schemas, &schema, value, &mut coverage);
        }
        properties(schemas, &schema, &mut reachable);
    }
    for (property, is_required) in reachable {
        let seen = coverage.get(&property).copied().unwrap_or_default();
        if seen.present == 0 || !is_required && seen.absent == 0 {
            return Err(format!("{property:?}, required: {is_required}, was {seen:?}"));
        }
    }
    Ok(())
}

#[test]
fn answers_are_as_their_schemas_say() {
    let schemas = Schemas::new().closed();
    let samples = samples();
    let mut names = schemas.of_bodies(false);
    // The data of events.
    names.push("Progress".to_owned());
    names.sort_unstable();
    assert_eq!(samples.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names, "samples of each answer");
    check(&schemas, &samples, |_| true).unwrap();
}

#[test]
fn a_changed_schema_of_an_answer_is_noticed() {
    let samples = samples();
    let names: Vec<&str> = samples.iter().map(|(name, _)| *name).collect();
    let reach = |name: &str| {
        let mut places = Vec::new();
        objects(&Schemas::new(), &format!("/components/schemas/{name}"), &mut places);
        places
    };
    let reached: BTreeMap<&str, Vec<String>> = names.iter().map(|name| (*name, reach(name))).collect();
    for (what, place, schemas) in mutations(&names) {
        let is_affected = |name: &str| reached[name].contains(&place);
        assert!(check(&schemas.closed(), &samples, is_affected).is_err(), "{place}: {what}");
    }
}
