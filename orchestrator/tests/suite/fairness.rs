//! The order of jobs: tenants in turn, priorities within a tenant, and deadlines.

use std::collections::BTreeMap;

use duet_orchestrator::api::EndView;
use duet_protocol::ids::SessionId;
use duet_wire::{JobId, JobStateName, Manifest};
use reqwest::StatusCode;
use serde_json::json;

use crate::rig::{Act, OTHER_TOKEN, Rig, Running, TOKEN, now_ms};

const BACKEND: &[&str] = &["service+partner"];

/// A rig with one orchestrator that processes one job at a time, and a session that occupies that
/// place.
async fn held() -> (Rig, Running, Manifest) {
    let mut rig = Rig::with(|config| config.queue.max_in_flight = 1).await;
    rig.script(&[Act::Hold]);
    let orchestrator = rig.start().await;
    rig.accepted(&orchestrator.url, &rig.request("held", BACKEND)).await;
    let manifest = rig.held.recv().await.unwrap();
    (rig, orchestrator, manifest)
}

/// The end's place in the stream.
fn place(end: &EndView) -> u64 {
    end.cursor.split_once('.').unwrap().1.parse().unwrap()
}

/// The position at which each job ended, over both tenants.
async fn places(rig: &Rig, url: &str) -> BTreeMap<JobId, usize> {
    let mut ends = rig.ends(url, TOKEN).await;
    ends.extend(rig.ends(url, OTHER_TOKEN).await);
    ends.sort_by_key(place);
    ends.iter().enumerate().map(|(place, end)| (end.job, place)).collect()
}

#[tokio::test]
async fn a_flood_of_one_tenant__should_not_keep_anothers_job_waiting() {
    let (rig, orchestrator, manifest) = held().await;
    let url = &orchestrator.url;
    let mut flood = Vec::new();
    for number in 0..150 {
        flood.push(rig.accepted(url, &rig.request(&format!("flood-{number}"), BACKEND)).await);
    }
    let single = rig.accepted(url, &rig.other_request("single", BACKEND)).await;
    rig.release(&manifest).await;
    assert_eq!(rig.settled(url, &single).await.state, JobStateName::Signed);
    for job in &flood {
        assert_eq!(rig.settled(url, job).await.state, JobStateName::Signed);
    }
    rig.told(flood.iter().chain([&single])).await;
    let places = places(&rig, url).await;
    assert_eq!(places.len(), 152);
    // Before it: the held job, and at most one of the flood. (Ends are published concurrently, so
    // one more.)
    assert!(places[&single.id] <= 3, "it ended as number {}", places[&single.id]);
}

#[tokio::test]
async fn an_urgent_job__should_overtake_and_a_patient_one_not_starve() {
    let (rig, orchestrator, manifest) = held().await;
    let url = &orchestrator.url;
    let patient = rig.accepted_urgently(url, &rig.request("patient", BACKEND), "low").await;
    let mut normal = Vec::new();
    for number in 0..12 {
        normal.push(rig.accepted(url, &rig.request(&format!("normal-{number}"), BACKEND)).await);
    }
    let mut urgent = Vec::new();
    for number in 0..40 {
        let request = rig.request(&format!("urgent-{number}"), BACKEND);
        urgent.push(rig.accepted_urgently(url, &request, "high").await);
    }
    rig.release(&manifest).await;
    for job in urgent.iter().chain(&normal).chain([&patient]) {
        assert_eq!(rig.settled(url, job).await.state, JobStateName::Signed);
    }
    rig.told(urgent.iter().chain(&normal).chain([&patient])).await;
    let places = places(&rig, url).await;
    // Sixteen urgent jobs come first, except for one start that the pending announcement began. The
    // patient one comes within the first round of 21.
    let ahead = normal.iter().filter(|job| places[&job.id] < 14).count();
    assert!(ahead <= 1, "{ahead} of the others came before the urgent ones");
    assert!(places[&patient.id] <= 23, "the patient one ended as number {}", places[&patient.id]);
    assert!(urgent.iter().any(|job| places[&job.id] > places[&patient.id]));

    let refused = rig.submit_urgently(url, &rig.request("now", BACKEND), "now").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    // The priority is not part of the request: with another one it is the same job.
    let again = rig.submit_urgently(url, &rig.request("patient", BACKEND), "high").await;
    assert_eq!(again.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_deadline__should_hold_while_a_job_is_queued() {
    let (mut rig, orchestrator, manifest) = held().await;
    let url = &orchestrator.url;
    let mut request = rig.request("hurry", BACKEND);
    request["expires_at"] = json!(now_ms() / 1000 + 2);
    let job = rig.accepted(url, &request).await;
    let settled = rig.settled(url, &job).await;
    assert_eq!((settled.state, settled.attempts), (JobStateName::Expired, 0));
    // The expiry is reported as well.
    let ends = async {
        loop {
            if let Some(end) = rig.ends(url, TOKEN).await.into_iter().find(|end| end.job == job.id) {
                return end;
            }
            tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        }
    };
    let end = tokio::time::timeout(crate::rig::DEADLINE, ends).await.unwrap();
    assert_eq!(
        (end.state, end.ending.failure.unwrap().code.as_str()),
        (JobStateName::Expired, "job-expired")
    );
    // No party was invited to anything but the held session.
    rig.release(&manifest).await;
    let sessions: Vec<SessionId> = vec![manifest.session];
    assert_eq!(sessions.len(), 1);
    assert!(rig.held.try_recv().is_err());
}

#[tokio::test]
async fn sessions_that_hang__should_leave_places_to_other_tenants() {
    let mut rig = Rig::with(|config| config.queue.max_in_flight = 4).await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    rig.script(&[Act::Hold; 3]);
    let mut manifests = Vec::new();
    for number in 0..3 {
        rig.accepted(url, &rig.request(&format!("hangs-{number}"), BACKEND)).await;
        manifests.push(rig.held.recv().await.unwrap());
    }
    // Three quarters of the places are taken. The fourth job of this tenant waits, and another
    // tenant's does not.
    let waits = rig.accepted(url, &rig.request("waits", BACKEND)).await;
    let single = rig.accepted(url, &rig.other_request("single", BACKEND)).await;
    assert_eq!(rig.settled(url, &single).await.state, JobStateName::Signed);
    let shown = rig.get(url, &format!("/v1/jobs/{}", waits.id)).await;
    assert_eq!(shown.json::<serde_json::Value>().await.unwrap()["state"], "queued");
    rig.release(&manifests[0]).await;
    assert_eq!(rig.settled(url, &waits).await.state, JobStateName::Signed);
}
