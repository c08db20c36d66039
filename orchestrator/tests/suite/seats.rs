//! Jobs that wait for a seat of a full party: they show it, and hold up no job that needs none.

use std::time::Duration;

use duet_bus::{Address, kv::Key};
use duet_orchestrator::api::JobView;
use duet_protocol::codec;
use duet_wire::{Code, JobStateName, Offer};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::rig::{DEADLINE, Party, Rig, Running, now_ms};

const BACKEND: &[&str] = &["service+partner"];
const OWNER: &[&str] = &["device+service"];

/// More jobs than one pull has announcements, many times over.
const JOBS: usize = 300;

/// Offers seats of the party's one worker, `free` of 64, again and again. Never returns.
async fn offer(party: &Party, free: u32) {
    let mut ticks = interval(Duration::from_millis(200));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1.. {
        ticks.tick().await;
        let offer = Offer {
            number,
            seats: 64,
            free_seats: free,
            now_ms: now_ms(),
            version: "test".to_owned(),
            reader_level: codec::READER_LEVEL,
        };
        let address = Address::Seats { party: party.name.clone(), instance: "scripted".parse().unwrap() };
        party.bus.publish(&address, codec::encode(&offer).unwrap()).await.unwrap();
    }
}

/// Waits until a metric has the value.
async fn shows(orchestrator: &Running, metric: &str, value: &str) {
    let shown = async {
        while orchestrator.metric(metric) != value {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, shown).await.unwrap_or_else(|_| panic!("{metric}: {}", orchestrator.metric(metric)));
}

async fn view(rig: &Rig, url: &str, job: &JobView) -> JobView {
    rig.get(url, &format!("/v1/jobs/{}", job.id)).await.json().await.unwrap()
}

#[tokio::test]
async fn jobs_of_a_full_party__should_show_it_and_hold_up_no_other_job() {
    let mut rig = Rig::new().await;
    rig.service.take_part_by_name().await;
    rig.partner.take_part_by_name().await;
    let orchestrator = rig.start().await;
    let url = &orchestrator.url;
    let mut jobs = Vec::new();
    let full = async {
        shows(&orchestrator, "duet_party_seats{party=\"service\"}", "64").await;
        shows(&orchestrator, "duet_party_seats{party=\"partner\"}", "64").await;
        for number in 0..JOBS {
            jobs.push(rig.accepted(url, &rig.request(&format!("waits-{number}"), BACKEND)).await);
        }
        shows(&orchestrator, "duet_jobs_waiting{code=\"no-seat\"}", &JOBS.to_string()).await;
        let owners = rig.accepted(url, &rig.request("owner's", OWNER)).await;
        rig.reaches(url, &owners, JobStateName::AwaitingOwner).await;
        let shown = view(&rig, url, &jobs[JOBS - 1]).await;
        let waiting = shown.waiting.unwrap();
        assert_eq!(
            (waiting.code, waiting.message.as_str()),
            (Code::NoSeat, "all seats of partner are taken")
        );
        assert!((shown.created_at_ms..=now_ms()).contains(&waiting.since_ms));
    };
    tokio::select! {
        () = async { tokio::join!(offer(&rig.service, 64), offer(&rig.partner, 0)); } => {}
        () = full => {}
    }
    // No entry was written to say so.
    let bucket = rig.bucket().await;
    for job in &jobs {
        let entry = bucket.get(&Key::from((&job.tenant, job.id))).await.unwrap().unwrap();
        assert_eq!((entry.value.state.name(), entry.value.waiting), (JobStateName::Queued, None));
        assert_eq!(entry.value.updated_at_ms, entry.value.created_at_ms);
    }
    let signed = async {
        for job in &jobs {
            assert_eq!(rig.settled(url, job).await.state, JobStateName::Signed);
        }
        shows(&orchestrator, "duet_jobs_waiting{code=\"no-seat\"}", "0").await;
    };
    tokio::select! {
        () = async { tokio::join!(offer(&rig.service, 64), offer(&rig.partner, 64)); } => {}
        () = signed => {}
    }
}
