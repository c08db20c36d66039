//! Collects the evidence of a run, from the orchestrators, the broker and the parties' stores.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use duet_bus::{Role, streams};
use duet_harness::{anvil::http_client, parties::PartyFolder, process::resident_bytes};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::{Instant, sleep};

use super::{audit, load::Signers};
use crate::{
    databases,
    fleet::Fleet,
    history::{Charge, Footprint, Growth, History, PaillierKey, Streams, Submission},
};

/// How long the evidence may take to be complete. A sweeper publishes results that a crash left
/// unpublished.
const EVIDENCE_DEADLINE: Duration = Duration::from_secs(60);

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(300);

/// The name under which growth on the broker's side is recorded.
const SUBSCRIPTIONS_OF: &str = "subscriptions of role ";

/// The resources of each process, by name, and of the broker's streams.
pub(super) struct Before {
    footprints: BTreeMap<String, Footprint>,
    streams: Streams,
}

/// Every process by its name, nodes first. It has no id when it is not running.
pub(super) fn processes(fleet: &mut Fleet) -> Vec<(String, Option<u32>)> {
    let nodes = fleet.cluster().nodes().iter().enumerate();
    let mut all: Vec<_> = nodes.map(|(number, node)| (format!("n{}", number + 1), node.id())).collect();
    all.extend(fleet.members_mut().iter_mut().map(|member| {
        let id = member.process().ok().and_then(|process| process.id());
        (member.name().to_owned(), id)
    }));
    all
}

/// The resources that each process uses now.
pub(super) async fn footprints(fleet: &mut Fleet) -> Result<Before> {
    let mut footprints = BTreeMap::new();
    for (name, id) in processes(fleet) {
        let id = id.with_context(|| format!("{name} is not running"))?;
        footprints.insert(name, footprint(id)?);
    }
    for (role, subscriptions) in subscriptions(fleet).await? {
        let name = format!("{SUBSCRIPTIONS_OF}{role}");
        footprints.insert(name, Footprint { subscriptions, ..Footprint::default() });
    }
    Ok(Before { footprints, streams: consumers(fleet).await? })
}

fn footprint(process: u32) -> Result<Footprint> {
    const THREADS: &str = "Threads:";
    let folder = Path::new("/proc").join(process.to_string());
    let status = fs::read_to_string(folder.join("status"))?;
    let threads = status.lines().find_map(|line| line.strip_prefix(THREADS));
    Ok(Footprint {
        memory_kib: resident_bytes(process)? / 1024,
        threads: threads.with_context(|| format!("no {THREADS} in /proc"))?.trim().parse()?,
        files: u64::try_from(fs::read_dir(folder.join("fd"))?.count())?,
        subscriptions: 0,
    })
}

/// The number of subscriptions that the nodes count for the connections of each role.
async fn subscriptions(fleet: &Fleet) -> Result<BTreeMap<String, u64>> {
    let client = http_client()?;
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for node in fleet.cluster().nodes() {
        let url = format!("{}/connz?limit=4096", node.monitoring_url());
        let document: Value = client.get(url).send().await?.json().await?;
        for connection in document.get("connections").and_then(Value::as_array).into_iter().flatten() {
            let name = connection.get("name").and_then(Value::as_str).unwrap_or_default();
            let count = connection.get("subscriptions").and_then(Value::as_u64).unwrap_or_default();
            *all.entry(name.to_owned()).or_default() += count;
        }
    }
    Ok(all)
}

/// The streams and buckets, with the number of consumers of each.
async fn consumers(fleet: &Fleet) -> Result<Streams> {
    let client = http_client()?;
    let node = fleet.cluster().node(0)?;
    let url = format!("{}/jsz?accounts=true&streams=true", node.monitoring_url());
    let document: Value = client.get(url).send().await?.json().await?;
    let mut all = Streams::new();
    let accounts = document.get("account_details").and_then(Value::as_array);
    for account in accounts.into_iter().flatten() {
        for stream in account.get("stream_detail").and_then(Value::as_array).into_iter().flatten() {
            let name = stream.get("name").and_then(Value::as_str).unwrap_or_default();
            let count = stream.pointer("/state/consumer_count").and_then(Value::as_u64).unwrap_or_default();
            all.insert(name.to_owned(), count);
        }
    }
    Ok(all)
}

/// The sources of the evidence.
pub(super) struct Collector<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) signers: &'a Signers,
}

impl Collector<'_> {
    /// Collects all evidence about `submissions`.
    ///
    /// # Errors
    /// When a source cannot be read.
    pub(super) async fn collect(&mut self, submissions: Vec<Submission>, before: Before) -> Result<History> {
        let mut jobs = BTreeMap::new();
        for job in submissions.iter().flat_map(|submission| &submission.accepted) {
            if !jobs.contains_key(job)
                && let Some(document) = self.job(job).await?
            {
                jobs.insert(job.clone(), document);
            }
        }
        let (results, dead) = self.published(&jobs).await?;
        let trail = self.messages(streams::AUDIT).await?;
        let devices = &self.signers.devices;
        let used = trail.iter().flat_map(|(subject, message)| audit::used(subject, message));
        let used = used.chain(devices.used()).collect();
        let mut charges = Vec::new();
        let mut paillier_keys = vec![devices.paillier_key()];
        for party in self.fleet.parties() {
            let (charged, keys) = read_store(party).await?;
            charges.extend(charged);
            paillier_keys.extend(keys);
        }
        let after = footprints(self.fleet).await?;
        let growth = before.footprints.into_iter().filter_map(|(process, before)| {
            let after = *after.footprints.get(&process)?;
            Some(Growth { process, before, after })
        });
        let orchestrator = self.fleet.cluster().credentials().to_owned();
        let key = duet_credentials::Layout::new(&orchestrator).read_orchestrator_key()?;
        Ok(History {
            orchestrator_key: hex::encode(key.verifying_key().as_bytes()),
            submissions,
            jobs,
            results,
            dead,
            captured: self.fleet.capture().sightings(),
            charges,
            paillier_keys,
            used,
            growth: growth.collect(),
            streams: [before.streams, after.streams],
            // The caller adds what it knows itself.
            unrecovered: Vec::new(),
            faults: Vec::new(),
            receivers: Vec::new(),
            deliveries: Vec::new(),
        })
    }

    /// A job as any orchestrator returns it. `None` when the orchestrator does not know it.
    async fn job(&self, job: &str) -> Result<Option<Value>> {
        let end = Instant::now() + EVIDENCE_DEADLINE;
        loop {
            for api in self.signers.apis.iter() {
                match api.get(&format!("/v1/jobs/{job}")).await {
                    Ok(answer) if answer.status == 200 => return Ok(Some(answer.body)),
                    Ok(answer) if answer.status == 404 => return Ok(None),
                    Ok(_) | Err(_) => {}
                }
            }
            if Instant::now() > end {
                bail!("no orchestrator shows job {job}");
            }
            sleep(PAUSE).await;
        }
    }

    /// Both streams, complete. Waits until they contain the end of every job, or until the
    /// deadline.
    async fn published(&self, jobs: &BTreeMap<String, Value>) -> Result<(Vec<Value>, Vec<Value>)> {
        let end = Instant::now() + EVIDENCE_DEADLINE;
        loop {
            let results = self.stream(streams::RESULTS).await?;
            let dead = self.stream(streams::DEAD).await?;
            let ended = |state: &str| {
                jobs.values().filter(|job| job.get("state").and_then(Value::as_str) == Some(state)).count()
            };
            let ends: usize = ["signed", "failed", "expired", "cancelled"].map(ended).iter().sum();
            let complete = results.len() >= ends && dead.len() >= ended("failed");
            if complete || Instant::now() > end {
                return Ok((results, dead));
            }
            sleep(PAUSE).await;
        }
    }

    async fn stream(&self, name: &str) -> Result<Vec<Value>> {
        let messages = self.messages(name).await?;
        messages.iter().map(|(_, message)| Ok(serde_json::from_slice(message)?)).collect()
    }

    /// All messages of a stream with their subjects, in order.
    async fn messages(&self, name: &str) -> Result<Vec<(String, Bytes)>> {
        let bus = self.fleet.cluster().connect(Role::Orchestrator).await?;
        let mut stream = bus.jetstream().get_stream(name).await?;
        let state = stream.info().await?.state.clone();
        let mut messages = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await?;
            messages.push((message.subject.to_string(), message.payload));
        }
        bus.drain().await;
        Ok(messages)
    }
}

/// A session and a digest.
type Charged = (Vec<u8>, Vec<u8>);

/// A Paillier key and its state.
type Kept = (Vec<u8>, i64);

/// A party's charges and Paillier keys, from its store.
async fn read_store(party: &PartyFolder) -> Result<(Vec<Charge>, Vec<PaillierKey>)> {
    const CHARGES: &str = "SELECT session, digest FROM charges";
    const KEYS: &str = "SELECT id, state FROM paillier_keys";
    let (charged, kept): (Vec<Charged>, Vec<Kept>) = match party.database() {
        Some(_) => {
            let mut connection = databases::administered(party)?.administer().await?;
            let charged = sqlx::query_as(CHARGES).fetch_all(&mut connection).await?;
            let kept = sqlx::query_as(KEYS).fetch_all(&mut connection).await?;
            connection.close().await?;
            (charged, kept)
        }
        None => {
            let options = SqliteConnectOptions::new().filename(party.store()).read_only(true);
            let mut connection = SqliteConnection::connect_with(&options).await?;
            let charged = sqlx::query_as(CHARGES).fetch_all(&mut connection).await?;
            let kept = sqlx::query_as(KEYS).fetch_all(&mut connection).await?;
            connection.close().await?;
            (charged, kept)
        }
    };
    let name = party.name();
    let charges = charged.into_iter().map(|(session, digest)| {
        let digest = digest.try_into().ok().context("a digest has 32 bytes")?;
        Ok(Charge { party: name.to_owned(), session: hex::encode(session), digest })
    });
    let keys = kept.into_iter().map(|(id, state)| PaillierKey {
        party: name.to_owned(),
        id: hex::encode(id),
        is_locked: state == 1,
    });
    Ok((charges.collect::<Result<_>>()?, keys.collect()))
}
