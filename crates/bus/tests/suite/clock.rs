//! The broker's clock, as parties and gateways read it from real nodes.
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{collections::BTreeSet, time::Duration};

use duet_bus::{BrokerClock, Bus, RequestError, Role, streams::StorageSettings};
use duet_chaos::cluster::{Cluster, NODES};
use duet_harness::broker::Broker;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// Those that measure their machines' clocks by the broker's.
const FOLLOWERS: [Role; 3] = [Role::Service, Role::Partner, Role::Gateway];

const IMPORT: &str =
    "{ service: { account: SYS, subject: \"$SYS.REQ.SERVER.PING.STATSZ\" }, to: \"duet.v1.clock\" }";

#[tokio::test(flavor = "multi_thread")]
async fn parties_and_gateways__should_hear_every_nodes_clock() {
    let cluster = Cluster::start().await.unwrap();
    for role in FOLLOWERS {
        let bus = cluster.connect(role).await.unwrap();
        let mut heard = BTreeSet::new();
        // Nodes that have just met do not know yet how many there are.
        let hears_all = timeout(DEADLINE, async {
            while heard.len() < NODES {
                let clocks = bus.clocks(DEADLINE).await.unwrap();
                heard = clocks.into_iter().map(|answer| answer.value.node).collect();
            }
        });
        assert!(hears_all.await.is_ok(), "{role}: {heard:?}");
        let (clock, _following) = BrokerClock::follow(&bus).await;
        // They are on one machine.
        assert!(clock.ahead_ms().is_some(), "{role}");
        assert_eq!(clock.require_right_machine(), Ok(()), "{role}");
    }
}

/// Whatever is asked, the answer names no account, stream, consumer or user.
#[tokio::test]
async fn a_question_for_the_time__should_be_told_no_names() {
    let broker = Broker::start().await.unwrap();
    let orchestrator = broker.connect(Role::Orchestrator).await.unwrap();
    orchestrator.ensure_streams(&StorageSettings::default()).await.unwrap();
    let party = broker.connect(Role::Partner).await.unwrap();
    let all = r#"{"accounts": true, "streams": true, "consumer": true, "config": true, "auth": true, "subscriptions": true,
        "subs": true, "details": true, "account": "DUET", "acc": "DUET", "user": "x"}"#;
    let answer = party.client().request("duet.v1.clock", all.into()).await.unwrap();
    let text = String::from_utf8(answer.payload.to_vec()).unwrap();
    assert!(text.contains("\"time\":"), "{text}");
    for name in ["DUET", "PARTIES", "AUDIT", "orchestrator", "partner", "nkey"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_broker_without_the_import__should_tell_no_time() {
    let mut broker = Broker::start().await.unwrap();
    broker.kill().await.unwrap();
    broker
        .change_configuration(|text| {
            assert!(text.contains(IMPORT));
            text.replace(IMPORT, "")
        })
        .unwrap();
    broker.resume().await.unwrap();
    let bus: Bus = broker.connect(Role::Gateway).await.unwrap();
    let asked = bus.clocks(DEADLINE).await;
    assert!(matches!(asked, Err(RequestError::NoResponders { .. })), "{asked:?}");
    let (clock, _following) = BrokerClock::follow(&bus).await;
    assert_eq!(clock.ahead_ms(), None);
    assert_eq!(clock.require_right_machine(), Ok(()), "an unknown difference is no fault");
}
