//! Jobs: legal and illegal changes, fences, history.

use duet_protocol::ids::SessionId;
use duet_wire::{
    Code, JobEnded, JobEvent, JobRecord, JobState, JobStateName, Pair, SignedResult,
    error::Class,
    job::{AttemptOutcome, Evidence, JobRevocation, MAX_REMEMBERED_ATTEMPTS, TransitionError, next},
    revocation::RevocationProof,
};
use proptest::prelude::*;

use crate::samples::{request, requester, result, signed_request};

fn record() -> JobRecord {
    JobRecord::new(signed_request(), &request(), 1_000)
}

fn start(session: u8) -> JobEvent {
    JobEvent::Start { session: SessionId([session; 16]), pair: Pair::ServicePartner }
}

fn retry() -> JobEvent {
    JobEvent::Retry {
        code: Code::Deadline,
        culprit: Some("partner".parse().unwrap()),
        evidence: Some(Evidence::Report { by: "service".parse().unwrap(), sha256: [7; 32] }),
        message: "The partner did not answer.".to_owned(),
        next_attempt_at_ms: 9_000,
    }
}

fn wait(code: Code) -> JobEvent {
    JobEvent::Wait { code, message: "Rotate the key.".to_owned(), next_attempt_at_ms: 3_000 }
}

fn sign() -> JobEvent {
    JobEvent::Sign { result: SignedResult::sign(&result(), &requester()).unwrap() }
}

fn every_event() -> Vec<JobEvent> {
    let (code, culprit, message) = (Code::Internal, None, String::new());
    vec![
        JobEvent::Park,
        wait(Code::Locked),
        start(1),
        retry(),
        JobEvent::ReturnToOwner { code, culprit: culprit.clone(), evidence: None, message: message.clone() },
        sign(),
        JobEvent::Fail { code, culprit: culprit.clone(), evidence: None, message: message.clone() },
        JobEvent::Reject,
        JobEvent::Expire,
        JobEvent::Cancel,
        JobEvent::CancelRevoked { code, culprit, evidence: None, message },
        JobEvent::Requeue,
    ]
}

fn state_named(name: JobStateName) -> JobState {
    match name {
        JobStateName::Queued => JobState::Queued,
        JobStateName::AwaitingOwner => JobState::AwaitingOwner,
        JobStateName::Running => {
            JobState::Running { session: SessionId([1; 16]), attempt: 1, pair: Pair::DeviceService }
        }
        JobStateName::Signed => {
            JobState::Signed { result: SignedResult::sign(&result(), &requester()).unwrap() }
        }
        JobStateName::Failed => JobState::Failed { code: Code::Internal, message: String::new() },
        JobStateName::Expired => JobState::Expired,
        JobStateName::Cancelled => JobState::Cancelled,
        JobStateName::Unknown(name) => JobState::Unknown(name),
    }
}

#[test]
fn a_revoked_job_begins_no_session_and_does_not_come_back() {
    let mut job = record();
    job.apply(&start(1), 0, 2_000).unwrap();
    let proof = RevocationProof::sign(request().wallet, signed_request().content_hash(), &requester());
    let service = vec!["service".parse().unwrap()];
    job.revocation =
        Some(JobRevocation { proof, at_ms: 2_500, kept_by: vec![], waits_for: service, refused_by: vec![] });
    let stored: JobRecord = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
    assert_eq!(stored, job);
    job.apply(&retry(), 1, 3_000).unwrap();
    assert_eq!(job.apply(&start(2), 1, 4_000), Err(TransitionError::Revoked));
    let fail = JobEvent::Fail { code: Code::Internal, culprit: None, evidence: None, message: String::new() };
    job.apply(&fail, 1, 5_000).unwrap();
    assert_eq!(job.apply(&JobEvent::Requeue, 1, 6_000), Err(TransitionError::Revoked));
}

#[test]
fn exactly_these_changes_are_legal() {
    let legal: Vec<_> = JobStateName::ALL
        .into_iter()
        .map(|name| {
            let events: Vec<_> = every_event()
                .into_iter()
                .filter_map(|event| {
                    next(&state_named(name), &event, 0)
                        .ok()
                        .map(|after| (event.name(), after.name().as_str()))
                })
                .collect();
            (name.as_str(), events)
        })
        .collect();
    let queue = [("start", "running"), ("fail", "failed"), ("expire", "expired"), ("cancel", "cancelled")];
    assert_eq!(
        legal,
        [
            ("queued", [&[("park", "awaiting_owner"), ("wait", "queued")], &queue[..]].concat()),
            (
                "awaiting_owner",
                vec![
                    ("start", "running"),
                    ("fail", "failed"),
                    ("reject", "failed"),
                    ("expire", "expired"),
                    ("cancel", "cancelled")
                ]
            ),
            (
                "running",
                vec![
                    ("retry", "queued"),
                    ("return-to-owner", "awaiting_owner"),
                    ("sign", "signed"),
                    ("fail", "failed"),
                    ("expire", "expired"),
                    ("cancel-revoked", "cancelled")
                ]
            ),
            ("signed", vec![]),
            ("failed", vec![("requeue", "queued")]),
            ("expired", vec![]),
            ("cancelled", vec![]),
        ]
    );
}

#[test]
fn a_late_worker_cannot_end_a_newer_attempt() {
    let mut job = record();
    job.apply(&start(1), 0, 1_100).unwrap();
    let first = job.fence;
    job.apply(&retry(), first, 1_200).unwrap();
    assert_eq!(job.next_attempt_at_ms, 9_000);
    job.apply(&start(2), 0, 9_000).unwrap();
    let before = job.clone();
    for late in [sign(), retry()] {
        assert_eq!(
            job.apply(&late, first, 9_100),
            Err(TransitionError::StaleFence { held: first, current: first + 1 })
        );
    }
    assert_eq!(job, before);
    job.apply(&sign(), first + 1, 9_200).unwrap();
    assert_eq!(job.state.name(), JobStateName::Signed);
}

#[test]
fn the_history_tells_how_each_attempt_ended() {
    let mut job = record();
    job.apply(&start(1), 0, 1_100).unwrap();
    job.apply(&retry(), 1, 1_200).unwrap();
    job.apply(&start(2), 0, 9_000).unwrap();
    job.apply(&JobEvent::Expire, 2, 9_500).unwrap();
    let [first, second] = &job.attempts[..] else { panic!("{:?}", job.attempts) };
    assert_eq!((first.attempt, first.session, first.ended_at_ms), (1, SessionId([1; 16]), Some(1_200)));
    assert!(matches!(
        &first.outcome,
        Some(AttemptOutcome::Failed { code: Code::Deadline, culprit: Some(_), evidence: Some(_), .. })
    ));
    assert_eq!((second.attempt, &second.outcome), (2, &Some(AttemptOutcome::Expired)));
}

#[test]
fn the_history_is_bounded() {
    let mut job = record();
    for attempt in 0..100 {
        job.apply(&start(attempt), 0, 0).unwrap();
        job.apply(&retry(), u64::from(attempt) + 1, 0).unwrap();
    }
    assert_eq!((job.attempts.len(), job.attempts_started), (MAX_REMEMBERED_ATTEMPTS, 100));
    assert_eq!(job.attempts.last().unwrap().attempt, 100);
}

/// The size of what the record says of its attempts, in bytes.
fn size_of_attempts(job: &JobRecord) -> usize {
    serde_json::to_vec(&job.attempts).unwrap().len()
}

/// The end of an attempt with this code, and by silence before both parties accepted or not.
fn ended(code: Code, before_acceptance: Option<bool>) -> JobEvent {
    let of = || "partner".parse().unwrap();
    let evidence =
        before_acceptance.map(|before_acceptance| Evidence::Silence { of: of(), before_acceptance });
    JobEvent::Retry { code, culprit: None, evidence, message: "Not now.".to_owned(), next_attempt_at_ms: 0 }
}

#[test]
fn thousands_of_waits_stay_small_and_leave_what_counts() {
    let mut job = record();
    let mut attempt = |event: JobEvent, at_ms: u64| {
        job.apply(&start(1), 0, at_ms).unwrap();
        job.apply(&event, job.fence, at_ms + 1).unwrap();
        job.clone()
    };
    attempt(ended(Code::Deadline, Some(false)), 0);
    let mut job_after = None;
    let codes = [Code::Overloaded, Code::Locked, Code::Deadline];
    for (at_ms, code) in (10..).zip(codes.into_iter().cycle()).take(3_000) {
        let event = ended(code, (code == Code::Deadline).then_some(true));
        job_after = Some(attempt(event, at_ms));
    }
    let job = job_after.unwrap();
    assert_eq!((job.attempts_started, job.attempts.len()), (3_001, 4));
    assert_eq!(job.attempts[0].attempt, 1, "the attempt that counts is still there");
    for waited in &job.attempts[1..] {
        assert_eq!((waited.times(), waited.outcome.as_ref().unwrap().class()), (1_000, Some(Class::Wait)));
        assert!(waited.first_started_at_ms() < 20);
    }
    assert!(size_of_attempts(&job) < 2_048, "{}", size_of_attempts(&job));
    let stored: JobRecord = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
    assert_eq!(stored, job);
}

#[test]
fn a_long_history_still_tells_how_often_and_since_when() {
    let mut job = record();
    for attempt in 0..200_u64 {
        job.apply(&start(1), 0, 10 + attempt).unwrap();
        job.apply(&ended(Code::Deadline, Some(false)), job.fence, 11 + attempt).unwrap();
    }
    assert_eq!(job.attempts.len(), MAX_REMEMBERED_ATTEMPTS);
    assert_eq!(job.attempts.iter().map(|attempt| attempt.times()).sum::<u32>(), 200);
    assert_eq!(job.attempts.iter().map(|attempt| attempt.first_started_at_ms()).min(), Some(10));
    // What was before a return from the dead letters is not counted after it.
    job.apply(
        &JobEvent::Fail { code: Code::Deadline, culprit: None, evidence: None, message: String::new() },
        job.fence,
        500,
    )
    .unwrap();
    job.apply(&JobEvent::Requeue, job.fence, 501).unwrap();
    for attempt in 0..200_u64 {
        job.apply(&start(1), 0, 600 + attempt).unwrap();
        job.apply(&ended(Code::Deadline, Some(false)), job.fence, 601 + attempt).unwrap();
    }
    assert_eq!(job.counting_attempts().map(|attempt| attempt.times()).sum::<u32>(), 200);
    assert_eq!(job.counting_attempts().map(|attempt| attempt.first_started_at_ms()).min(), Some(600));
}

#[test]
fn a_job_shows_why_it_waits_until_it_goes_on() {
    let mut job = record();
    job.apply(&wait(Code::Locked), 0, 2_000).unwrap();
    job.apply(&wait(Code::PartyAway), 0, 2_500).unwrap();
    let waiting = job.waiting.clone().unwrap();
    assert_eq!((waiting.code, waiting.since_ms), (Code::PartyAway, 2_000));
    assert_eq!((job.state.name(), job.next_attempt_at_ms), (JobStateName::Queued, 3_000));
    job.apply(&start(1), 0, 3_000).unwrap();
    job.apply(&ended(Code::Overloaded, None), 1, 3_100).unwrap();
    assert_eq!(job.waiting.as_ref().unwrap().code, Code::Overloaded);
    let mut expired = job.clone();
    expired.apply(&JobEvent::Expire, 1, 9_000).unwrap();
    let failure = JobEnded::of(&expired).unwrap().failure;
    assert_eq!(failure.code, Code::JobExpired);
    assert!(failure.message.contains("Not now. [overloaded]"), "{failure}");
    job.apply(&start(2), 0, 4_000).unwrap();
    job.apply(&ended(Code::Internal, None), 2, 4_100).unwrap();
    assert_eq!(job.waiting, None);
}

/// A record that the version before this one wrote.
#[test]
fn an_older_record_is_read_with_its_attempts() {
    let mut job = record();
    job.apply(&start(1), 0, 1_100).unwrap();
    job.apply(&ended(Code::Deadline, Some(false)), 1, 1_200).unwrap();
    let mut older = serde_json::to_value(&job).unwrap();
    let attempt = older["attempts"][0].as_object_mut().unwrap();
    assert!(!attempt.contains_key("earlier"), "an attempt of its own is written as before");
    let evidence = attempt["outcome"]["evidence"].as_object_mut().unwrap();
    assert_eq!(evidence.keys().collect::<Vec<_>>(), ["kind", "of"]);
    assert!(older.get("waiting").is_none());
    let read: JobRecord = serde_json::from_value(older).unwrap();
    assert_eq!(read, job);
    assert_eq!(read.attempts[0].outcome.as_ref().unwrap().class(), Some(Class::Tried));
}

#[test]
fn a_record_survives_json_in_every_state() {
    for name in JobStateName::ALL {
        let mut job = record();
        job.apply(&start(1), 0, 1_100).unwrap();
        job.apply(&retry(), 1, 1_200).unwrap();
        job.state = state_named(name);
        let json = serde_json::to_value(&job).unwrap();
        assert_eq!(json["state"], name.as_str());
        assert_eq!(serde_json::from_value::<JobRecord>(json).unwrap(), job);
        assert_eq!(name.as_str().parse(), Ok(name));
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_job_is_signed_at_most_once_and_only_while_it_runs(
        steps in prop::collection::vec((prop::sample::select(every_event()), 0..4_u64), 0..40)
    ) {
        let mut job = record();
        for (event, fence) in steps {
            let before = job.clone();
            match job.apply(&event, fence, 2_000) {
                Ok(()) => {
                    prop_assert!(!before.state.is_final() || matches!(event, JobEvent::Requeue));
                    prop_assert!(job.fence >= before.fence);
                    if job.state.name() == JobStateName::Signed {
                        prop_assert_eq!(before.state.name(), JobStateName::Running);
                        prop_assert_eq!(fence, before.fence);
                    }
                }
                Err(_) => prop_assert_eq!(&job, &before),
            }
        }
    }
}
