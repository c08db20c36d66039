//! Many jobs come and go, and nothing of them remains at the broker.
//!
//! `cargo xtask soak --jobs N` runs the same test with more jobs, and prints what the broker and
//! this process hold meanwhile.

use std::{collections::BTreeMap, env, fs, num::NonZeroU32, ops::Range, path::Path, time::Duration};

use duet_wire::JobStateName;
use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::rig::{DEADLINE, Rig, Running, TOKEN};

const BACKEND: &[&str] = &["service+partner"];
const DEVICE: &[&str] = &["device+service"];

/// How many jobs come and go.
const JOBS: usize = 5_000;

/// The variable with another number of jobs. With it, the test prints figures.
const JOBS_VARIABLE: &str = "DUET_SOAK_JOBS";

/// One job in so many is signed, and so has a session. The others are cancelled.
const SIGNED: usize = 20;

/// After so many jobs, a webhook is added and removed.
const WEBHOOK: usize = 250;

/// How many clients submit at once.
const CLIENTS: usize = 32;

/// How often the figures are printed.
const FIGURES: usize = 10;

/// The streams that keep a record of each job on purpose, until it is old enough, and for how long.
/// A soak ends before that.
const KEPT_BY_AGE: &[(&str, &str)] = &[
    ("DUET_RESULTS", "how jobs ended: --results-age"),
    ("DUET_AUDIT", "audit records: --audit-age"),
    ("DUET_DEAD", "dead letters: 30 days"),
    ("DUET_DELIVERIES", "the log of webhooks: --results-age, 512 entries an endpoint"),
    ("KV_duet_batches", "batches: --results-age"),
    ("KV_duet_digests", "the job that a transaction belongs to: --results-age"),
    ("KV_duet_answers", "the first signature of a message: --audit-age"),
];

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    messages: u64,
    bytes: u64,
}

/// What every stream at the broker holds, by name.
async fn streams(rig: &Rig) -> BTreeMap<String, Held> {
    let url = format!("{}/jsz?accounts=true&streams=true", rig.broker.monitoring_url());
    let answer: Value = rig.http.get(url).send().await.unwrap().json().await.unwrap();
    let accounts = answer["account_details"].as_array().unwrap();
    let streams =
        accounts.iter().flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    let held = streams.map(|stream| {
        let count = |name: &str| stream["state"][name].as_u64().unwrap();
        let held = Held { messages: count("messages"), bytes: count("bytes") };
        (stream["name"].as_str().unwrap().to_owned(), held)
    });
    held.collect()
}

/// What the streams hold that keep nothing of a removed job.
async fn lasting(rig: &Rig) -> BTreeMap<String, Held> {
    let mut streams = streams(rig).await;
    for (name, _) in KEPT_BY_AGE {
        streams.remove(*name).expect("there is no such stream");
    }
    streams
}

/// Asks again until `wanted` agrees or the deadline has passed. Returns the last answer.
async fn lasting_once(rig: &Rig, wanted: impl Fn(&BTreeMap<String, Held>) -> bool) -> BTreeMap<String, Held> {
    let mut look = interval(Duration::from_millis(50));
    let agreed = async {
        loop {
            look.tick().await;
            let streams = lasting(rig).await;
            if wanted(&streams) {
                return streams;
            }
        }
    };
    match timeout(DEADLINE, agreed).await {
        Ok(streams) => streams,
        Err(_) => lasting(rig).await,
    }
}

/// Submits a job that ends: signed, or cancelled at another orchestrator.
async fn job(rig: &Rig, [one, other]: [&Running; 2], number: usize) {
    let key = format!("soak-{number}");
    if number.is_multiple_of(SIGNED) {
        rig.accepted(&one.url, &rig.request(&key, BACKEND)).await;
    } else {
        let job = rig.accepted(&one.url, &rig.request(&key, DEVICE)).await;
        assert_eq!(rig.cancel(&other.url, &job).await.status(), StatusCode::OK);
    }
    if number.is_multiple_of(WEBHOOK) {
        webhook(rig, one).await;
    }
}

/// Adds a webhook, and removes it.
async fn webhook(rig: &Rig, orchestrator: &Running) {
    let url = format!("{}/v1/webhooks", orchestrator.url);
    let added: Value = timeout(DEADLINE, async {
        loop {
            let add = rig.http.post(&url).bearer_auth(TOKEN).json(&json!({"url": "http://127.0.0.1:1/hook"}));
            let added = add.send().await.unwrap();
            match added.status() {
                StatusCode::CREATED => return added.json().await.unwrap(),
                // The broker is busy with the jobs.
                status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
            }
        }
    })
    .await
    .unwrap();
    let remove =
        rig.http.delete(format!("{url}/{}", added["webhook"]["id"].as_str().unwrap())).bearer_auth(TOKEN);
    assert!(remove.timeout(DEADLINE).send().await.unwrap().status().is_success());
}

/// The resident memory of this process in bytes: orchestrators, scripted parties and clients.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// The size of all files below `folder`. Files that are removed meanwhile do not count.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// What is printed while a soak runs.
struct Figures {
    /// After how many jobs there is a line.
    every: usize,
    /// The bytes in streams that were there before.
    before: u64,
}

impl Figures {
    #[expect(clippy::print_stdout, reason = "`cargo xtask soak` shows the figures to a person")]
    async fn print(&self, rig: &Rig, done: usize) {
        let streams = streams(rig).await;
        let is_aged = |name: &str| KEPT_BY_AGE.iter().any(|(aged, _)| *aged == name);
        let bytes = |aged: bool| -> u64 {
            streams.iter().filter(|(name, _)| is_aged(name) == aged).map(|(_, held)| held.bytes).sum()
        };
        let lasting = bytes(false).saturating_sub(self.before);
        let (jobs, store) = (done.max(1) as u64, rig.broker.credentials().join("jetstream"));
        println!(
            "| {done} | {lasting} | {} | {} | {:.1} | {:.1} |",
            lasting / jobs,
            bytes(true) / jobs,
            disk_bytes(&store) as f64 / 1e6,
            resident_bytes() as f64 / 1e6,
        );
    }
}

/// Lets the jobs with these numbers come and go.
async fn come_and_go(
    rig: &Rig,
    orchestrators: [&Running; 2],
    numbers: Range<usize>,
    figures: Option<&Figures>,
) {
    let [one, other] = orchestrators;
    let mut ended = futures::stream::iter(numbers.clone())
        .map(|number| job(rig, if number.is_multiple_of(2) { [one, other] } else { [other, one] }, number))
        .buffer_unordered(CLIENTS)
        .zip(futures::stream::iter(numbers));
    while let Some(((), number)) = ended.next().await {
        if let Some(figures) = figures
            && (number + 1).is_multiple_of(figures.every)
        {
            figures.print(rig, number + 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_come_and_go__should_leave_nothing_at_the_broker() {
    let wanted = env::var(JOBS_VARIABLE).ok().map(|jobs| jobs.parse().expect("a number of jobs"));
    let jobs: usize = wanted.unwrap_or(JOBS);
    let rig = Rig::with(|config| {
        config.storage.marker_ttl = Duration::from_secs(1);
        config.queue.keep_settled = Duration::from_secs(1);
        config.queue.sweep_interval = Duration::from_millis(50);
        config.http.requests_per_second_per_tenant = NonZeroU32::new(1_000_000).unwrap();
        config.webhooks.allow_private = true;
    })
    .await;
    let one = rig.start().await;
    // One job waits for its owner all the time.
    let stays = rig.accepted(&one.url, &rig.request("stays", DEVICE)).await;
    rig.reaches(&one.url, &stays, JobStateName::AwaitingOwner).await;
    let began = lasting_once(&rig, |streams| streams["DUET_JOBS"].messages == 0).await;
    assert_eq!((began["KV_duet_jobs"].messages, began["DUET_JOBS"].messages), (1, 0), "{began:?}");

    let figures = wanted.is_some().then(|| Figures {
        every: jobs.div_ceil(FIGURES).max(1),
        before: began.values().map(|held| held.bytes).sum(),
    });
    if figures.is_some() {
        println!("| jobs | bytes in streams | a job | a job, kept by age | broker's disk, MB | memory, MB |");
        println!("|---|---|---|---|---|---|");
    }
    // The last tenth goes through two orchestrators, which write to the same entries.
    let last = jobs - jobs / 10;
    come_and_go(&rig, [&one, &one], 0..last, figures.as_ref()).await;
    let other = rig.start().await;
    come_and_go(&rig, [&one, &other], last..jobs, figures.as_ref()).await;

    let ended = lasting_once(&rig, |streams| *streams == began).await;
    if let Some(figures) = &figures {
        figures.print(&rig, jobs).await;
    }
    assert_eq!(ended, began, "{jobs} jobs have left something");
    // No orchestrator remembers more.
    for url in [&one.url, &other.url] {
        let listed: Value = rig.get(url, "/v1/jobs").await.json().await.unwrap();
        let listed = listed["jobs"].as_array().unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0]["id"], json!(stays.id));
    }
    one.stop().await;
    other.stop().await;
}
