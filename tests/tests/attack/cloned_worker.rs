//! A worker is copied or rewound while a session is open.
//! `crates/protocol/tests/suite/cloned_worker.rs` tests on the protocol alone what repeats in a
//! copy. Here real workers notice that they were resumed.

use std::{path::Path, time::Duration};

use anyhow::{Result, anyhow};
use duet_actors::{malicious::MaliciousService, stage::Stage};
use duet_bus::RequestError;
use duet_chaos::fleet::{Fleet, Shape};
use duet_party::{ResumptionSettings, Worker, WorkerSettings, compute::system_rng};
use duet_protocol::{
    ids::ShareIndex,
    initiator::{AwaitingCipher, Initiator},
};
use duet_wire::{Code, InvitationReply, Manifest, OutcomeResult, Pair, SigningRequest};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// How often a worker noticed a resumption by this sign, from its metrics.
fn noticed(worker: &Worker, how: &str) -> Result<u64> {
    let (mut registry, mut text) = (Registry::default(), String::new());
    worker.register_metrics(&mut registry);
    encode(&mut text, &registry)?;
    let series = format!("duet_resumptions_total{{noticed=\"{how}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    Ok(value.ok_or_else(|| anyhow!("no series {series} in {text}"))?.parse()?)
}

/// Starts the partner's worker, with a file that identifies the copy of its machine.
async fn start_partner(stage: &mut Stage, generation: &Path) -> Result<()> {
    std::fs::write(generation, "first copy")?;
    drop(stage.partner.worker.take());
    let mut resumption = ResumptionSettings::default();
    resumption.identities.push(generation.to_owned());
    let settings = WorkerSettings { resumption, ..WorkerSettings::default() };
    let (party, bus) = (stage.partner.party.clone(), stage.partner.bus.clone());
    stage.partner.worker = Some(Worker::start(party, bus, settings).await?);
    Ok(())
}

/// Messages 1 to 3 of a session, of which the first two have been exchanged.
async fn opened(
    service: &MaliciousService,
    manifest: &Manifest,
    request: &SigningRequest,
) -> Result<(AwaitingCipher, Vec<u8>)> {
    let (state, first) = Initiator::start(service.setup(manifest, request)?, &mut system_rng())?;
    let second = service.send(manifest, first).await?;
    Ok(state.receive(&second, &mut system_rng())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_a_copied_machine__should_end_its_sessions_and_go_on_with_new_ones() -> Result<()> {
    let mut stage = Box::pin(Stage::set()).await?;
    let wallet = stage.create().await?;
    stage.enrolled(wallet.id).await?;
    let key = stage.paillier_key(wallet.id, Pair::ServicePartner).await?;
    let directory = tempfile::tempdir()?;
    let generation = directory.path().join("generation");
    start_partner(&mut stage, &generation).await?;
    drop(stage.service.worker.take());
    let service = MaliciousService::of(&stage, &wallet, key).await?;

    // Message 3 is in transit when the machine turns out to be another copy.
    let request = stage.request(&wallet, "m", "open while copied");
    let manifest = stage.manifest(&wallet, Pair::ServicePartner, key, &request);
    let accepted = stage.invite(&manifest.responder.party, &manifest.encode()?).await?;
    assert!(matches!(accepted, InvitationReply::Accepted { .. }), "{accepted:?}");
    let (_, third) = opened(&service, &manifest, &request).await?;
    std::fs::write(&generation, "second copy")?;
    match stage.outcome(&manifest, ShareIndex::Partner).await? {
        OutcomeResult::Failed { code, culprit: None, .. } => assert_eq!(code, Code::Overloaded),
        other => panic!("{other:?}"),
    }
    let answered = service.send(&manifest, third).await;
    assert!(matches!(answered, Err(RequestError::NoResponders { .. })), "{answered:?}");
    let worker = stage.partner.worker.as_ref().ok_or_else(|| anyhow!("it runs"))?;
    assert_eq!(noticed(worker, "identity")?, 1);
    // The store knows the session, so neither copy can resume it.
    let again = stage.invite(&manifest.responder.party, &manifest.encode()?).await?;
    match again {
        InvitationReply::Refused(refusal) => assert_eq!(refusal.code, Code::SessionReplayed),
        InvitationReply::Accepted { .. } => panic!("a session was taken up again"),
    }
    eprintln!("evidence: sessions open while a machine was copied = 1; answers in them = 0");

    stage.service.start().await?;
    stage.sign_service_partner(&wallet, "m").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clocks_go_apart__should_say_so() -> Result<()> {
    let mut fleet =
        Box::pin(Fleet::start(Shape { orchestrators: 1, workers: 1, gateways: 1, ..Shape::default() }))
            .await?;
    assert!(fleet.has_clocks(), "libfaketime is not installed");
    let member = fleet
        .members_mut()
        .iter_mut()
        .find(|member| member.name().starts_with("partner"))
        .ok_or_else(|| anyhow!("no partner"))?;
    // As after an hour in a snapshot, with the wall clock set right afterwards.
    member.shift_clock(3600)?;
    timeout(PATIENCE, async {
        while !member.log_tail(200).contains("this machine was resumed or copied") {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await?;
    Ok(())
}
