//! The broker's time, told by nodes that the test plays.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use duet_bus::{Bus, Role};
use duet_wire::{Code, JobStateName};
use futures::StreamExt as _;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::rig::{Rig, now_ms};

const BACKEND: &[&str] = &["service+partner"];

/// Has the test's own connections answer in place of the nodes.
async fn without_nodes(rig: &mut Rig) {
    rig.broker.kill().await.unwrap();
    rig.broker
        .change_configuration(|text| {
            let import =
                r#"{ service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ" }, to: "duet.v1.broker" }"#;
            let (own_inbox, inbox) = (r#""_INBOX_orchestrator.sync.*""#, r#""_INBOX_orchestrator.>""#);
            let heard = r#""duet.v1.approval.* orchestrator""#;
            assert!([import, own_inbox, heard].iter().all(|line| text.contains(line)));
            let hears_more = format!(r#"{heard}, "duet.v1.broker""#);
            text.replace(import, "").replace(own_inbox, inbox).replace(heard, &hears_more)
        })
        .unwrap();
    rig.broker.resume().await.unwrap();
}

/// What a node of two says whose clock is ahead by so much.
fn told(name: &str, ahead_ms: i64) -> String {
    let now = i128::from(now_ms().saturating_add_signed(ahead_ms)) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(now).unwrap().format(&Rfc3339).unwrap();
    json!({
        "server": {"name": name, "id": name, "cluster": "duet", "ver": "2.15.1", "time": time},
        "data": {"config": {"sync_always": true}, "meta_cluster": {"leader": "n1", "cluster_size": 2}},
    })
    .to_string()
}

/// Answers as two nodes, of which the second one's clock is ahead by `ahead_ms`.
async fn play_nodes(bus: Bus, ahead_ms: Arc<AtomicI64>) {
    let mut questions = bus.client().subscribe("duet.v1.broker").await.unwrap();
    bus.sync(crate::rig::DEADLINE).await.unwrap();
    while let Some(question) = questions.next().await {
        let reply = question.reply.unwrap();
        for (name, ahead_ms) in [("n1", 0), ("n2", ahead_ms.load(SeqCst))] {
            bus.client().publish(reply.clone(), told(name, ahead_ms).into()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_job__should_not_expire_while_the_nodes_differ() {
    let mut rig = Rig::new().await;
    without_nodes(&mut rig).await;
    let ahead_ms = Arc::new(AtomicI64::new(60_000));
    let nodes = rig.broker.connect(Role::Orchestrator).await.unwrap();
    let playing = tokio::spawn(play_nodes(nodes, Arc::clone(&ahead_ms)));
    let orchestrator = rig.start().await;
    rig.partner.leave().await;
    let mut request = rig.request("short", BACKEND);
    request["expires_at"] = json!(now_ms() / 1000 + 3);
    let job = rig.accepted(&orchestrator.url, &request).await;
    let waits = rig.waits(&orchestrator.url, &job, Code::ClockDiffers).await;
    assert_eq!(waits.state, JobStateName::Queued);
    let message = waits.waiting.unwrap().message;
    assert!(message.contains("node n2") && message.contains("nothing expires"), "{message}");
    assert_eq!(orchestrator.metric("duet_broker_clocks_agree"), "0");
    ahead_ms.store(0, SeqCst);
    assert_eq!(rig.settled(&orchestrator.url, &job).await.state, JobStateName::Expired);
    assert_eq!(orchestrator.metric("duet_broker_clocks_agree"), "1");
    playing.abort();
}
