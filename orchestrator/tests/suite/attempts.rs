//! Attempts that fail, parties that lie, orchestrators that die.

use std::{collections::HashSet, time::Duration};

use duet_bus::{Role, kv::Key, streams::StorageSettings};
use duet_protocol::ids::{PartyId, ShareIndex};
use duet_wire::{
    Code, JobRecord, JobStateName, OutcomeReply, OutcomeResult, Pair, SignedRequest, SigningRequest,
    job::{AttemptOutcome, Evidence},
};

use crate::rig::{Act, DEADLINE, Rig, TOKEN, now_ms, report, signature_for};

const BACKEND: &[&str] = &["service+partner"];

#[tokio::test]
async fn a_backend_that_rejects_in_the_owners_name__should_end_no_job() {
    let rig = Rig::new().await;
    rig.script(&[Act::Fail(Code::RejectedByOwner), Act::Refuse(Code::RejectedByOwner), Act::Sign]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("not-the-owner", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.state, JobStateName::Signed);
    let codes = settled.history.iter().filter_map(|attempt| match &attempt.outcome {
        Some(AttemptOutcome::Failed { code, .. }) => Some(*code),
        _ => None,
    });
    assert_eq!(codes.collect::<Vec<_>>(), [Code::PeerMisbehaved; 2]);
}

#[tokio::test]
async fn a_failed_attempt__should_be_tried_again_in_a_new_session() {
    let mut rig = Rig::new().await;
    rig.script(&[Act::Fail(Code::Deadline), Act::Refuse(Code::Overloaded), Act::Sign]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("again", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.state, JobStateName::Signed);
    let mut sessions: Vec<_> = settled.history.iter().map(|attempt| attempt.session).collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 3, "{:?}", settled.history);
    let failures: Vec<_> = settled
        .history
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Some(AttemptOutcome::Failed { code, culprit, evidence, .. }) => {
                assert_eq!(*culprit, None);
                Some((*code, evidence.clone().unwrap()))
            }
            _ => None,
        })
        .collect();
    let [
        (Code::Deadline, Evidence::Report { by: reporter, .. }),
        (Code::Overloaded, Evidence::Refusal { by }),
    ] = &failures[..]
    else {
        panic!("{failures:?}")
    };
    assert_eq!((reporter.as_str(), by.as_str()), ("service", "service"));

    // In each session, the responder was invited before the initiator.
    rig.invited.close();
    let mut invited: Vec<PartyId> = Vec::new();
    while let Some(party) = rig.invited.recv().await {
        invited.push(party);
    }
    for session in invited.chunks(2) {
        assert_eq!([session[0].as_str(), session[1].as_str()], ["partner", "service"]);
    }
}

#[tokio::test]
async fn a_job_that_keeps_failing__should_end_as_a_dead_letter_with_its_history() {
    let rig = Rig::with(|config| config.queue.max_attempts = 3).await;
    rig.script(&[Act::Fail(Code::Deadline); 3]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("hopeless", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.state, JobStateName::Failed);
    assert_eq!(settled.ending.failure.unwrap().code, Code::Deadline);
    assert_eq!(settled.history.len(), 3);

    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let dead = async {
        loop {
            let mut stream = bus.jetstream().get_stream(duet_bus::streams::DEAD).await.unwrap();
            if stream.info().await.unwrap().state.messages == 1 {
                return stream.get_last_raw_message_by_subject("duet.v1.dead.demo").await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let letter = tokio::time::timeout(DEADLINE, dead).await.unwrap();
    let record: JobRecord = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!((record.id, record.attempts.len()), (job.id, 3));
}

#[tokio::test]
async fn a_locked_initiator__should_give_way_to_the_next_pair() {
    let rig = Rig::new().await;
    rig.script(&[Act::Refuse(Code::Locked)]);
    let orchestrator = rig.start().await;
    let pairs = &["service+partner", "device+partner"];
    let job = rig.accepted(&orchestrator.url, &rig.request("locked", pairs)).await;
    let waiting = rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    assert_eq!(waiting.history.len(), 1);
    assert_eq!(waiting.history[0].pair, Pair::ServicePartner);
}

#[tokio::test]
async fn a_pair_that_a_bad_answer_locked__should_give_way_to_the_next_pair_at_once() {
    let rig = Rig::new().await;
    rig.script(&[Act::Fail(Code::PeerMisbehaved)]);
    let orchestrator = rig.start().await;
    let pairs = &["service+partner", "device+partner"];
    let job = rig.accepted(&orchestrator.url, &rig.request("just-locked", pairs)).await;
    let waiting = rig.reaches(&orchestrator.url, &job, JobStateName::AwaitingOwner).await;
    assert_eq!(waiting.history.len(), 1, "{:?}", waiting.history);
    assert_eq!(waiting.history[0].pair, Pair::ServicePartner);
}

#[tokio::test]
async fn an_invalid_signature__should_be_refused_and_blamed() {
    let rig = Rig::new().await;
    rig.script(&[Act::SignAnotherDigest, Act::Sign]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("forged", BACKEND)).await;
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!(settled.state, JobStateName::Signed);
    let Some(AttemptOutcome::Failed { code, culprit, evidence, .. }) = &settled.history[0].outcome else {
        panic!("{:?}", settled.history)
    };
    assert!(matches!(evidence, Some(Evidence::InvalidSignature { by, .. }) if by.as_str() == "service"));
    assert_eq!(*code, Code::PeerMisbehaved);
    assert_eq!(culprit.as_ref().map(PartyId::as_str), Some("service"));
}

#[tokio::test]
async fn an_outcome_from_the_wrong_party__should_change_nothing() {
    let mut rig = Rig::new().await;
    rig.script(&[Act::Hold]);
    let orchestrator = rig.start().await;
    let job = rig.accepted(&orchestrator.url, &rig.request("impostors", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    let signed = || OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) };
    let failed = || OutcomeResult::Failed { code: Code::Internal, culprit: None, message: "lies".to_owned() };
    let refused = |reply| match reply {
        OutcomeReply::Refused(refusal) => refusal.code,
        OutcomeReply::Acknowledged => panic!("an impostor was believed"),
    };
    let device_key = rig.world.card(ShareIndex::Device);
    let partner_key = rig.world.card(ShareIndex::Partner);
    let service_key = rig.world.card(ShareIndex::Service);

    // A party without a seat in this session.
    let device: PartyId = "device".parse().unwrap();
    let reply = report(&rig.device, &device_key, &device, &manifest, failed()).await;
    assert_eq!(refused(reply), Code::Unauthorized);
    // A report for the party's own seat, signed with another party's key.
    let reply = report(&rig.service.bus, &device_key, &rig.service.name, &manifest, failed()).await;
    assert_eq!(refused(reply), Code::BadSignature);
    // A responder never learns a signature.
    let reply = report(&rig.partner.bus, &partner_key, &rig.partner.name, &manifest, signed()).await;
    assert_eq!(refused(reply), Code::PeerMisbehaved);
    // A report about another attempt.
    let mut other = manifest.clone();
    other.attempt += 1;
    let reply = report(&rig.service.bus, &service_key, &rig.service.name, &other, signed()).await;
    assert_eq!(refused(reply), Code::Conflict);
    // A report about a session that never existed.
    let mut other = manifest.clone();
    other.session.0[0] ^= 1;
    let reply = report(&rig.service.bus, &service_key, &rig.service.name, &other, signed()).await;
    assert_eq!(refused(reply), Code::NotFound);

    // The job still runs in its first session, and the initiator may still report.
    let reply = report(&rig.service.bus, &service_key, &rig.service.name, &manifest, signed()).await;
    assert_eq!(reply, OutcomeReply::Acknowledged);
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 1));
    // A repeated report is acknowledged again.
    let reply = report(&rig.service.bus, &service_key, &rig.service.name, &manifest, signed()).await;
    assert_eq!(reply, OutcomeReply::Acknowledged);
}

#[tokio::test]
async fn a_session_whose_orchestrator_died__should_end_once_through_another() {
    let mut rig = Rig::new().await;
    rig.script(&[Act::Hold]);
    let first = rig.start().await;
    let job = rig.accepted(&first.url, &rig.request("crash", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    first.crash().await;

    let second = rig.start().await;
    let signed = OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) };
    let key = rig.world.card(ShareIndex::Service);
    let reply = report(&rig.service.bus, &key, &rig.service.name, &manifest, signed).await;
    assert_eq!(reply, OutcomeReply::Acknowledged);
    let settled = rig.settled(&second.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 1));

    // The announcement that the first orchestrator left is delivered again, and starts nothing.
    let bus = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let drained = async {
        loop {
            let mut consumer = bus.jobs_consumer(&StorageSettings::default()).await.unwrap();
            let info = consumer.info().await.unwrap();
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, drained).await.unwrap();
    assert!(rig.held.try_recv().is_err());
    rig.told([&job]).await;
    assert_eq!(rig.ends(&second.url, TOKEN).await.len(), 1);
}

#[tokio::test]
async fn a_session_that_died_with_its_orchestrator__should_be_followed_by_another() {
    let mut rig = Rig::with(|config| {
        config.queue.session_timeout = Duration::from_secs(2);
        config.queue.outcome_grace = Duration::from_millis(200);
    })
    .await;
    rig.script(&[Act::Hold, Act::Sign]);
    let first = rig.start().await;
    let job = rig.accepted(&first.url, &rig.request("crash-both", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    first.crash().await;

    let second = rig.start().await;
    let settled = rig.settled(&second.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 2));
    // The first session's signature, if it exists after all, comes too late.
    let signed = OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) };
    let key = rig.world.card(ShareIndex::Service);
    let reply = report(&rig.service.bus, &key, &rig.service.name, &manifest, signed).await;
    assert!(matches!(reply, OutcomeReply::Refused(refusal) if refusal.code == Code::Conflict));
}

#[tokio::test]
async fn a_job_that_was_never_announced__should_be_found() {
    let rig = Rig::new().await;
    let orchestrator = rig.start().await;
    let document = serde_json::to_vec(&rig.request("unannounced", BACKEND)).unwrap();
    let signed = SignedRequest::sign(document, &rig.world.requester);
    let request = SigningRequest::from_json(&signed.body).unwrap();
    let record = JobRecord::new(signed, &request, now_ms());
    let key = Key::from((&record.tenant, record.id));

    rig.bucket().await.create(&key, &record).await.unwrap();

    let view = duet_orchestrator::api::JobView::new(&record).unwrap();
    assert_eq!(rig.settled(&orchestrator.url, &view).await.state, JobStateName::Signed);
}

#[tokio::test]
async fn several_orchestrators__should_sign_each_job_once() {
    let rig = Rig::new().await;
    let orchestrators = [rig.start().await, rig.start().await, rig.start().await];
    let mut jobs = Vec::new();
    for number in 0..30 {
        let url = &orchestrators[number % 3].url;
        jobs.push(rig.accepted(url, &rig.request(&format!("job-{number}"), BACKEND)).await);
    }
    for (number, job) in jobs.iter().enumerate() {
        let settled = rig.settled(&orchestrators[(number + 1) % 3].url, job).await;
        assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 1));
    }
    rig.told(&jobs).await;
    let ends = rig.ends(&orchestrators[0].url, TOKEN).await;
    let told: HashSet<_> = rig.with_results(&ends).into_iter().collect();
    assert_eq!((ends.len(), told.len()), (30, 30));
}

#[tokio::test]
async fn a_broker_that_is_killed__should_cost_time_and_no_job() {
    let mut rig = Rig::new().await;
    let orchestrator = rig.start().await;
    rig.script(&[Act::Hold]);
    let job = rig.accepted(&orchestrator.url, &rig.request("power-cut", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    rig.broker.kill().await.unwrap();
    rig.broker.resume().await.unwrap();
    let key = rig.world.card(ShareIndex::Service);
    rig.service.bus.sync(DEADLINE).await.unwrap();
    let signed = OutcomeResult::Signed { signature: signature_for(&rig.world, &manifest) };
    let reply = report(&rig.service.bus, &key, &rig.service.name, &manifest, signed).await;
    assert_eq!(reply, OutcomeReply::Acknowledged);
    let settled = rig.settled(&orchestrator.url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Signed, 1));
}
