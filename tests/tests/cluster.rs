//! The three-node broker with its own configuration files, and several of each process on it.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::time::Duration;

use duet_bus::{Address, PublishError, Role, kv, streams};
use duet_chaos::{
    cluster::{Cluster, NODES},
    fleet::{Fleet, Shape},
    signers,
};
use duet_harness::{
    anvil::http_client,
    duet::{Duet, text},
    stack::{Pair, Server},
};
use duet_protocol::ids::SessionId;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn every_pair__should_sign_on_a_cluster_with_several_of_each_process() {
    let fleet = Fleet::start(Shape::default()).await.unwrap();
    let wallet = fleet.create_wallet("device").await.unwrap();
    for pair in Pair::ALL {
        let signed = wallet.sign_by(pair, &["message", "three nodes"]).await.unwrap();
        let signer = signers::message_signer(b"three nodes", text(&signed, "/signature").unwrap()).unwrap();
        assert_eq!(signer.to_string(), wallet.address, "{pair:?}");
    }
}

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged__should_outlive_any_one_node() {
    let mut cluster = Cluster::start().await.unwrap();
    let bus = cluster.connect(Role::Orchestrator).await.unwrap();
    bus.ensure_streams(&Cluster::storage()).await.unwrap();
    // Several orchestrators do this at once.
    bus.ensure_streams(&Cluster::storage()).await.unwrap();
    let bucket = bus.ensure_bucket::<u32>(kv::SESSIONS, &Cluster::storage()).await.unwrap();
    let key = kv::Key::from(SessionId([1; 16]));
    let mut revision = bucket.create(&key, &0).await.unwrap();
    for node in 0..NODES {
        let address = Address::Result("demo".parse().unwrap());
        bus.publish_stored(&address, format!("before {node}"), None, DEADLINE).await.unwrap();
        cluster.node_mut(node).unwrap().kill().await.unwrap();
        // Two nodes are a majority. They continue after the client has found one of them and the
        // stream has a leader.
        let number = u32::try_from(node).unwrap() + 1;
        let written = async {
            loop {
                match bucket.update(&key, &number, revision).await {
                    Ok(written) => return written,
                    // An unconfirmed attempt may have written it.
                    Err(kv::WriteError::Conflict { .. }) => {
                        // While the stream has no leader, its entries cannot be read.
                        let Ok(entry) = bucket.get(&key).await else { continue };
                        let entry = entry.unwrap();
                        assert_eq!(entry.value, number);
                        return entry.revision;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        revision = tokio::time::timeout(DEADLINE, written).await.unwrap();
        cluster.node_mut(node).unwrap().resume().await.unwrap();
        cluster.agreed().await.unwrap();
    }
    let mut results = bus.jetstream().get_stream(streams::RESULTS).await.unwrap();
    let info = results.info().await.unwrap();
    assert_eq!((info.state.messages, info.config.num_replicas), (3, NODES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone__should_confirm_nothing() {
    let mut cluster = Cluster::start().await.unwrap();
    let bus = cluster.connect(Role::Orchestrator).await.unwrap();
    bus.ensure_streams(&Cluster::storage()).await.unwrap();
    for node in 1..NODES {
        cluster.node_mut(node).unwrap().kill().await.unwrap();
    }
    let address = Address::Result("demo".parse().unwrap());
    let stored = bus.publish_stored(&address, "alone", None, Duration::from_secs(3)).await;
    assert!(
        matches!(
            stored,
            Err(PublishError::TimedOut { .. } | PublishError::NoStream { .. } | PublishError::Unreachable)
        ),
        "{stored:?}"
    );
}

/// Asks an orchestrator for readiness until a member of the answer has this value.
async fn readiness(listen: &str, member: &str, value: &str) -> Value {
    let client = http_client().unwrap();
    let (mut look, mut last) = (tokio::time::interval(Duration::from_millis(100)), Value::Null);
    let came = tokio::time::timeout(DEADLINE, async {
        while last.get(member).and_then(Value::as_str) != Some(value) {
            look.tick().await;
            last = client.get(format!("http://{listen}/readyz")).send().await.unwrap().json().await.unwrap();
        }
    });
    assert!(came.await.is_ok(), "{member} never was {value}: {last}");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator__should_judge_every_node_that_answers() {
    let mut cluster = Cluster::start().await.unwrap();
    let changed = tempfile::tempdir().unwrap();
    let third = cluster.node_mut(2).unwrap();
    third.kill().await.unwrap();
    third.change_configuration(changed.path(), |text| text.replace("sync_interval: always", "")).unwrap();
    third.resume().await.unwrap();
    cluster.agreed().await.unwrap();

    let first = cluster.node(0).unwrap().url();
    let start = async |name, more: &[&str]| {
        let arguments = [&["orchestrator", "--listen", "127.0.0.1:0", "--replicas", "3"], more].concat();
        let duet = Duet::new(cluster.credentials()).with("DUET_NATS_URL", &first);
        let mut server = Server::new(name, duet, &arguments, changed.path());
        let ready = server.start().await.unwrap();
        (server, text(&ready, "/listen").unwrap().to_owned())
    };
    let (_doubts, doubts) = start("doubts", &[]).await;
    let (_trusts, trusts) = start("trusts", &["--trust-broker"]).await;
    let refusal = readiness(&doubts, "code", "unsafe-broker").await;
    assert!(text(&refusal, "/detail").unwrap().contains("node n3 "), "{refusal}");
    readiness(&trusts, "broker", "trusted").await;

    // Of a node that is away, nothing is known.
    cluster.node_mut(2).unwrap().kill().await.unwrap();
    readiness(&doubts, "broker", "safe").await;
}
