//! A good history, and the findings after each way of tampering with it.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use bytes::Bytes;
use duet_protocol::{
    codec,
    ids::{SessionId, WalletId},
};
use duet_wire::{
    Code, JobEnded, JobId, JobResult, JobStateName, Outcome, OutcomeResult, RecoverableSignature, Refusal,
    SignedOutcome, SignedResult, signing::SigningKey,
};
use serde_json::{Value, json};

use super::{Finding, check, jobs::digest};
use crate::{
    capture::{Run, Sighting},
    history::{
        Asked, Charge, Delivery, Footprint, Growth, History, Injected, OneTime, PaillierKey, Submission, Used,
    },
};

const JOBS: u8 = 3;

fn job(number: u8) -> JobId {
    format!("{number:02x}").repeat(16).parse().unwrap()
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn wallet() -> k256::ecdsa::SigningKey {
    k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap()
}

fn orchestrator() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn payload(number: u8) -> Asked {
    if number == 0 { Asked::Digest([5; 32]) } else { Asked::Message(format!("message {number}")) }
}

fn address() -> Address {
    let point = wallet().verifying_key().to_sec1_point(false);
    Address::from_raw_public_key(&point.as_bytes()[1..])
}

/// The wallet's signature over a digest, made by `k256`.
fn signed(digest: &[u8; 32]) -> RecoverableSignature {
    let (signature, recovery) = wallet().sign_prehash_recoverable(digest);
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = recovery.to_byte();
    RecoverableSignature::from_bytes(&bytes).unwrap()
}

fn result(number: u8, completed_at_ms: u64) -> Value {
    let digest = digest(&payload(number));
    let result = JobResult {
        job: job(number),
        tenant: "demo".parse().unwrap(),
        wallet: WalletId([1; 32]),
        path: "m".parse().unwrap(),
        address: address().into_array(),
        digest,
        signature: signed(&digest),
        signed_transaction: None,
        transaction_hash: None,
        session: session(number),
        completed_at_ms,
    };
    serde_json::to_value(SignedResult::sign(&result, &orchestrator()).unwrap()).unwrap()
}

fn sighting(by: (&str, u32), subject: String, reply: Option<&str>, payload: impl Into<Bytes>) -> Sighting {
    let by = Run { process: by.0.into(), number: by.1 };
    Sighting { by, subject, reply: reply.map(str::to_owned), payload: payload.into() }
}

/// The messages of one session, and the initiator's report.
fn said(number: u8) -> Vec<Sighting> {
    let session = session(number);
    let (initiator, responder) = (("service-1", 1), ("partner-1", 1));
    let round = format!("duet.v1.round.{session}.service.partner");
    let inbox = |message: u8| format!("_INBOX_service.a.{number}{message}");
    let bytes = |message: u8| vec![number, message];
    let outcome = Outcome {
        session,
        job: job(number),
        attempt: 1,
        from: "service".parse().unwrap(),
        result: OutcomeResult::Signed { signature: signed(&digest(&payload(number))) },
    };
    let report = codec::encode(&SignedOutcome::sign(&outcome, &orchestrator()).unwrap()).unwrap();
    vec![
        sighting(initiator, round.clone(), Some(&inbox(1)), bytes(1)),
        // Sent again, because the responder had not subscribed yet.
        sighting(initiator, round.clone(), Some(&inbox(2)), bytes(1)),
        sighting(responder, inbox(2), None, bytes(2)),
        sighting(initiator, round, Some(&inbox(3)), bytes(3)),
        sighting(responder, inbox(3), None, bytes(4)),
        sighting(initiator, format!("duet.v1.outcome.{session}.service"), Some("_INBOX_service.a.o"), report),
    ]
}

fn good() -> History {
    let submission = |number: u8| Submission {
        key: format!("key-{number}"),
        address: address().to_string(),
        payload: payload(number),
        earns: None,
        accepted: vec![job(number).to_string(), job(number).to_string()],
        with_another_payload: vec![409],
    };
    let document = |number: u8| {
        let signature = signed(&digest(&payload(number))).to_string();
        let document = json!({"id": job(number), "state": "signed", "signature": signature,
            "result": result(number, 1)});
        (job(number).to_string(), document)
    };
    let charge = |number: u8| Charge {
        party: "partner".to_owned(),
        session: session(number).to_string(),
        digest: digest(&payload(number)),
    };
    let used = |number: u8| {
        [OneTime::R1, OneTime::R2, OneTime::C3].map(|what| Used {
            party: "partner".to_owned(),
            session: session(number).to_string(),
            what,
            hash: vec![number, 40],
        })
    };
    let delivery = |number: u8| Delivery {
        receiver: "receiver-1".to_owned(),
        job: job(number).to_string(),
        body: result(number, 1),
    };
    let footprint = Footprint { memory_kib: 40_000, threads: 9, files: 30, subscriptions: 40 };
    let streams = BTreeMap::from([("DUET_RESULTS".to_owned(), 0)]);
    // A result published again after a crash is the same result.
    let repeated = (0..JOBS).chain([0]);
    History {
        orchestrator_key: hex::encode(orchestrator().verifying_key().as_bytes()),
        submissions: (0..JOBS).map(submission).collect(),
        jobs: (0..JOBS).map(document).collect(),
        results: repeated.map(|number| result(number, 1)).collect(),
        dead: Vec::new(),
        faults: Vec::new(),
        receivers: vec!["receiver-1".to_owned()],
        deliveries: (0..JOBS).map(delivery).collect(),
        captured: (0..JOBS).flat_map(said).collect(),
        charges: (0..JOBS).map(charge).collect(),
        paillier_keys: vec![PaillierKey {
            party: "service".to_owned(),
            id: "aa".to_owned(),
            is_locked: false,
        }],
        used: (0..JOBS).flat_map(used).collect(),
        growth: vec![Growth { process: "service-1".to_owned(), before: footprint, after: footprint }],
        streams: [streams.clone(), streams],
        unrecovered: Vec::new(),
    }
}

/// The findings after `tamper` has changed a good history.
fn found(tamper: impl FnOnce(&mut History)) -> Vec<Finding> {
    let mut history = good();
    tamper(&mut history);
    check(&history)
}

fn id(number: u8) -> String {
    job(number).to_string()
}

fn state(history: &mut History, number: u8, state: &str) {
    history.jobs.get_mut(&id(number)).unwrap()["state"] = json!(state);
}

fn sessions(numbers: [u8; 2]) -> Vec<String> {
    numbers.map(|number| session(number).to_string()).to_vec()
}

#[test]
fn nothing_is_found_in_a_good_history() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_lost_job_is_named() {
    let gone = Finding::Lost { key: "key-1".to_owned(), state: "gone".to_owned() };
    let without = |history: &mut History| {
        history.jobs.remove(&id(1));
    };
    assert_eq!(found(without), [gone]);
    let open = Finding::Lost { key: "key-1".to_owned(), state: "running".to_owned() };
    assert_eq!(found(|history| state(history, 1, "running")), [open]);
}

/// Has a job end without a signature: with `code`, after attempts that ended with `attempts`. Each
/// attempt took from 10 s to 11 s, counted from 1970.
fn give_up(history: &mut History, number: u8, end: JobStateName, code: Code, attempts: &[Code]) {
    history.results.retain(|result| super::signed_job(result) != Some(id(number)));
    history.deliveries.retain(|delivery| delivery.job != id(number));
    let attempts = attempts.iter().zip(1..).map(|(code, number)| {
        json!({"attempt": number, "started_at_ms": 10_000, "ended_at_ms": 11_000,
            "outcome": {"outcome": "failed", "code": code}})
    });
    let failure = Refusal::new(code, "the end of a test's job");
    let document = json!({"id": id(number), "state": end.as_str(), "failure": &failure,
        "history": attempts.collect::<Vec<_>>()});
    history.jobs.insert(id(number), document);
    let tenant = "demo".parse().unwrap();
    let ended = JobEnded { job: job(number), tenant, state: end, failure, ended_at_ms: 1 };
    history.results.push(serde_json::to_value(ended).unwrap());
    if end == JobStateName::Failed {
        history.dead.push(json!({"id": id(number)}));
    }
}

/// A fault from one second to another, counted from 1970.
fn injected(breaks_sessions: bool, from_s: u64, until_s: u64) -> Injected {
    let (from_ms, until_ms) = (1000 * from_s, 1000 * until_s);
    Injected { what: "a fault".to_owned(), breaks_sessions, clock_s: 0, from_ms, until_ms }
}

/// The findings after a job was given up, and `tamper` has changed the history.
fn found_given_up(code: Code, attempts: &[Code], tamper: impl FnOnce(&mut History)) -> Vec<Finding> {
    found(|history| {
        give_up(history, 1, JobStateName::Failed, code, attempts);
        tamper(history);
    })
}

fn unsigned(end: &str, why: &str) -> Finding {
    Finding::Unsigned { job: id(1), end: end.to_owned(), why: why.to_owned() }
}

#[test]
fn a_job_that_ended_twice_is_named() {
    for end in [JobStateName::Failed, JobStateName::Expired, JobStateName::Cancelled] {
        // Its signed result is published as well.
        let both = found(|history| {
            give_up(history, 1, end, Code::ValidTooLong, &[]);
            history.submissions[1].earns = Some(Code::ValidTooLong);
            history.results.push(result(1, 1));
        });
        let ends = vec![end.as_str().to_owned(), "signed".to_owned()];
        assert!(both.contains(&Finding::EndedTwice { job: id(1), ends }), "{both:?}");
    }
    let ends = |second: &str| vec![second.to_owned(), "signed".to_owned()];
    // It is signed, and a dead letter as well.
    let buried = found(|history| history.dead.push(json!({"id": id(1)})));
    assert_eq!(buried, [Finding::EndedTwice { job: id(1), ends: ends("failed") }]);
    // It is signed, and another end of it is published.
    let ended = found(|history| {
        let signed = history.jobs[&id(1)].clone();
        let result = history.results[1].clone();
        let deliveries = history.deliveries.clone();
        give_up(history, 1, JobStateName::Expired, Code::JobExpired, &[]);
        history.jobs.insert(id(1), signed);
        history.results.push(result);
        history.deliveries = deliveries;
    });
    let ends = vec!["signed".to_owned(), "expired".to_owned()];
    assert_eq!(ended, [Finding::EndedTwice { job: id(1), ends }]);
}

#[test]
fn a_dead_letter_without_a_cause_of_its_own_is_a_finding() {
    // A party that is busy, away or has another time says nothing about the job, whatever faults
    // there were.
    for code in [Code::Overloaded, Code::ClockDiffers, Code::NoPairAvailable, Code::StorageUnavailable] {
        let faults = |history: &mut History| history.faults.push(injected(true, 0, 60));
        let found = found_given_up(code, &[code; 6], faults);
        let why = "no injected fault makes a party refuse a payload";
        assert_eq!(found, [unsigned(&format!("failed {code}"), why)]);
    }
    // Nor does a refusal that its payload did not earn.
    let refused = found_given_up(Code::PolicyRefused, &[], |_| {});
    let why = "no injected fault makes a party refuse a payload";
    assert_eq!(refused, [unsigned("failed policy-refused", why)]);
    // Sessions that ended without an answer, and no fault at all.
    let quiet = found_given_up(Code::Deadline, &[Code::Deadline; 6], |_| {});
    let why = "no fault that breaks sessions ran during attempt 1";
    assert_eq!(quiet, [unsigned("failed deadline", why)]);
    // Only a rolling restart or a wrong clock, or a fault that was over long before or came after.
    for harmless in [injected(false, 0, 60), injected(true, 12, 60)] {
        let found = found_given_up(Code::Deadline, &[Code::Deadline; 6], |history| {
            history.faults.push(harmless);
        });
        assert_eq!(found, [unsigned("failed deadline", why)]);
    }
    let over = found(|history| {
        give_up(history, 1, JobStateName::Failed, Code::Deadline, &[Code::Deadline]);
        let attempt = history.jobs.get_mut(&id(1)).unwrap().pointer_mut("/history/0").unwrap();
        attempt["started_at_ms"] = json!(600_000);
        attempt["ended_at_ms"] = json!(601_000);
        history.faults.push(injected(true, 0, 60));
    });
    assert_eq!(over, [unsigned("failed deadline", why)]);
    let untried = found_given_up(Code::Deadline, &[Code::Overloaded; 6], |history| {
        history.faults.push(injected(true, 0, 60));
    });
    assert_eq!(untried, [unsigned("failed deadline", "no attempt of it was broken")]);
    // One that expired, or that no client cancelled.
    for (end, code) in [(JobStateName::Expired, Code::JobExpired), (JobStateName::Cancelled, Code::Cancelled)]
    {
        let ended = found(|history| give_up(history, 1, end, code, &[]));
        let why = "no client cancelled it, and it was valid for hours";
        assert_eq!(ended, [unsigned(&format!("{} {code}", end.as_str()), why)]);
    }
}

#[test]
fn a_dead_letter_has_a_cause_if_its_payload_earns_it_or_faults_broke_each_attempt() {
    let earns = |history: &mut History| history.submissions[1].earns = Some(Code::ValidTooLong);
    assert_eq!(found_given_up(Code::ValidTooLong, &[Code::ValidTooLong], earns), []);
    let other = found_given_up(Code::Deadline, &[Code::Deadline], earns);
    assert_eq!(other, [unsigned("failed deadline", "its payload earns valid-too-long")]);
    let signed = found(earns);
    assert_eq!(signed, [Finding::Undeserved { job: id(1), earns: "valid-too-long".to_owned() }]);

    let attempts = [Code::Deadline, Code::Overloaded, Code::Internal, Code::Deadline];
    let broken =
        |fault: Injected| found_given_up(Code::Deadline, &attempts, |history| history.faults.push(fault));
    assert_eq!(broken(injected(true, 0, 60)), []);
    // Its processes were still starting, or the orchestrator's clock was a minute off.
    assert_eq!(broken(injected(true, 0, 1)), []);
    let late = injected(true, 70, 80);
    assert_ne!(broken(late.clone()), []);
    assert_eq!(broken(Injected { clock_s: 60, ..late }), []);
}

#[test]
fn a_dead_letter_that_no_client_submitted_is_named() {
    let stray = found(|history| history.dead.push(json!({"id": id(200)})));
    assert_eq!(stray, [Finding::Unasked { job: id(200) }]);
}

#[test]
fn a_result_that_a_receiver_did_not_get_is_named() {
    let (job, receiver) = (id(1), "receiver-1".to_owned());
    let without = found(|history| history.deliveries.retain(|delivery| delivery.job != id(1)));
    assert_eq!(without, [Finding::Undelivered { job: job.clone(), receiver: receiver.clone() }]);
    let other = found(|history| {
        let delivery = Delivery { receiver: receiver.clone(), job: job.clone(), body: result(2, 1) };
        history.deliveries.push(delivery);
    });
    assert_eq!(other, [Finding::WrongDelivery { job, receiver: receiver.clone() }]);
    // Twice is permitted.
    assert_eq!(found(|history| history.deliveries.extend(history.deliveries.clone())), []);
}

#[test]
fn a_doubled_result_is_named() {
    let doubled = found(|history| history.results.push(result(1, 2)));
    assert_eq!(doubled, [Finding::TwoResults { job: id(1) }]);
    // The job itself shows another signature.
    let shown = |history: &mut History| {
        history.jobs.get_mut(&id(1)).unwrap()["result"] = result(1, 2);
    };
    assert_eq!(found(shown), [Finding::TwoResults { job: id(1) }]);
}

#[test]
fn a_key_that_stands_for_two_jobs_or_payloads_is_named() {
    let two = |history: &mut History| history.submissions[1].accepted.push(id(2));
    let jobs = vec![id(1), id(2)];
    assert!(found(two).contains(&Finding::TwoJobs { key: "key-1".to_owned(), jobs }));
    let reused = found(|history| history.submissions[1].with_another_payload = vec![200]);
    assert_eq!(reused, [Finding::KeyReused { key: "key-1".to_owned(), status: 200 }]);
}

#[test]
fn an_end_that_was_never_published_is_named() {
    let unpublished = Finding::Unpublished { job: id(1) };
    let swallowed = |history: &mut History| {
        history.results.remove(1);
        history.deliveries.remove(1);
    };
    assert_eq!(found(swallowed), std::slice::from_ref(&unpublished));
    // It is no dead letter, or a dead letter whose end readers of the results do not see.
    let buried_nowhere = found_given_up(Code::Deadline, &[], |history| history.dead.clear());
    assert!(buried_nowhere.contains(&unpublished));
    let unseen = found_given_up(Code::Deadline, &[], |history| drop(history.results.pop()));
    assert!(unseen.contains(&unpublished));
}

#[test]
fn results_without_a_submission_or_a_valid_signature_are_named() {
    let unasked = found(|history| {
        history.results.push(result(200, 1));
        let receiver = "receiver-1".to_owned();
        history.deliveries.push(Delivery { receiver, job: id(200), body: result(200, 1) });
    });
    assert_eq!(unasked, [Finding::Unasked { job: id(200) }]);
    let forged = |history: &mut History| history.orchestrator_key = "00".repeat(31) + "01";
    assert!(matches!(found(forged).as_slice(), [Finding::BadResult { .. }, ..]));
}

#[test]
fn a_signature_over_something_else_is_named() {
    let other = found(|history| history.submissions[1].payload = Asked::Message("another".to_owned()));
    assert!(other.contains(&Finding::BadSignature { job: id(1), seen: "the API".to_owned() }));
    assert!(other.contains(&Finding::BadSignature { job: id(1), seen: "its result".to_owned() }));
    let seen = format!("session {}", session(1));
    assert!(other.contains(&Finding::BadSignature { job: id(1), seen }));
    assert!(other.contains(&Finding::AnotherDigest { job: id(1), session: session(1).to_string() }));
}

#[test]
fn a_charge_that_is_missing_or_over_another_digest_is_named() {
    let session = session(1).to_string();
    let uncharged = found(|history| drop(history.charges.remove(1)));
    assert_eq!(uncharged, [Finding::Uncharged { session: session.clone() }]);
    let another = found(|history| history.charges[1].digest = [0; 32]);
    assert_eq!(another, [Finding::AnotherDigest { job: id(1), session }]);
}

#[test]
fn a_reused_one_time_value_is_named() {
    for what in [OneTime::R1, OneTime::R2, OneTime::C3] {
        let reuse = |history: &mut History| {
            let used = history.used.iter_mut().find(|used| used.what == what && used.hash == [1, 40]);
            used.unwrap().hash = vec![2, 40];
        };
        assert_eq!(found(reuse), [Finding::Reused { what, sessions: sessions([1, 2]) }]);
    }
}

#[test]
fn nonces_that_show_in_two_signatures_are_named() {
    // The same digest in two sessions. `k256` derives the nonce from the digest, so the nonce is
    // the same.
    let same = found(|history| {
        history.submissions[2].payload = payload(1);
        let (one, two) = (session(1).to_string(), session(2).to_string());
        let mut repeated = said(1).pop().unwrap();
        repeated.subject = repeated.subject.replace(&one, &two);
        let outcome = Outcome {
            session: session(2),
            job: job(1),
            attempt: 2,
            from: "service".parse().unwrap(),
            result: OutcomeResult::Signed { signature: signed(&digest(&payload(1))) },
        };
        let report = SignedOutcome::sign(&outcome, &orchestrator()).unwrap();
        repeated.payload = codec::encode(&report).unwrap().into();
        history.captured.push(repeated);
    });
    assert!(same.contains(&Finding::SameNonce { sessions: sessions([1, 2]) }), "{same:?}");
}

#[test]
fn a_session_that_was_resumed_is_named() {
    let session = session(1).to_string();
    let resumed = |seat, runs: [&str; 2]| Finding::Resumed {
        session: session.clone(),
        seat,
        runs: runs.map(str::to_owned).to_vec(),
    };
    // The third message comes from the process that was started after a crash.
    let initiator = found(|history| history.captured[6 + 3].by.number = 2);
    assert_eq!(initiator, [resumed("initiator", ["service-1#1", "service-1#2"])]);
    let responder = found(|history| history.captured[6 + 4].by.process = "partner-2".into());
    assert_eq!(responder, [resumed("responder", ["partner-1#1", "partner-2#1"])]);
}

#[test]
fn a_seat_that_said_too_much_is_named() {
    let session = session(1).to_string();
    let twice = found(|history| history.captured[6 + 1].payload = vec![1, 99].into());
    let initiator = Finding::SaidTooMuch { session: session.clone(), seat: "initiator", messages: 3 };
    assert_eq!(twice, [initiator]);
    let two_answers = found(|history| {
        let mut another = history.captured[6 + 4].clone();
        another.payload = vec![1, 98].into();
        history.captured.push(another);
    });
    assert_eq!(two_answers, [Finding::SaidTooMuch { session, seat: "responder", messages: 2 }]);
}

#[test]
fn a_signature_of_a_session_that_was_not_overheard_is_named() {
    let session = session(1).to_string();
    let unheard = |seat, messages| Finding::Unheard { session: session.clone(), seat, messages };
    // As if the initiator's link had not been overheard: its messages are missing, and answers to
    // them answer nothing.
    let deaf = found(|history| {
        let rounds = format!("duet.v1.round.{session}.");
        history.captured.retain(|sighting| !sighting.subject.starts_with(&rounds));
    });
    assert_eq!(deaf, [unheard("initiator", 0), unheard("responder", 0)]);
    let half = found(|history| drop(history.captured.remove(6 + 4)));
    assert_eq!(half, [unheard("responder", 1)]);
    // It does not help if the report of the signature was not overheard either.
    let nothing = found(|history| {
        history
            .captured
            .retain(|sighting| !sighting.subject.contains(&session) && &*sighting.by.process != "partner-1");
    });
    assert!(nothing.contains(&unheard("initiator", 0)), "{nothing:?}");
}

#[test]
fn a_signature_by_another_wallet_is_named() {
    let other = found(|history| history.submissions[1].address = Address::ZERO.to_string());
    assert!(other.contains(&Finding::BadSignature { job: id(1), seen: "the API".to_owned() }), "{other:?}");
}

#[test]
fn sealed_bytes_that_occur_in_two_sessions_are_named() {
    let replayed = found(|history| history.captured[2 * 6].payload = vec![1, 1].into());
    assert!(replayed.contains(&Finding::SameBytes { sessions: sessions([1, 2]) }), "{replayed:?}");
}

#[test]
fn a_locked_key_is_named() {
    let locked = found(|history| history.paillier_keys[0].is_locked = true);
    assert_eq!(locked, [Finding::Locked { party: "service".to_owned(), key: "aa".to_owned() }]);
}

#[test]
fn what_grew_or_did_not_recover_is_named() {
    let grown = found(|history| {
        history.growth[0].after.memory_kib += 100_000;
        history.growth[0].after.threads += 40;
        history.growth[0].after.files += 100;
        history.growth[0].after.subscriptions += 100;
        history.streams[1].insert("DUET_RESULTS".to_owned(), 30);
        history.streams[1].insert("STRAY".to_owned(), 0);
    });
    assert_eq!(grown.len(), 6, "{grown:?}");
    let dead = found(|history| history.unrecovered.push("gateway-1".to_owned()));
    assert_eq!(dead, [Finding::Unrecovered { what: "gateway-1".to_owned() }]);
}
