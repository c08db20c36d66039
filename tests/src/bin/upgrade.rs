//! Upgrades an installation process by process while jobs go on, takes it back to the version
//! before, and upgrades it again.
//!
//!     upgrade BEFORE AFTER JOBS
//!
//! BEFORE and AFTER are `duet` programs. JOBS messages are submitted, spread over the whole run.
//! Prints one flat JSON object for `cargo xtask upgrade`. Fails unless every job is signed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "progress and figures are its output")]

use std::{
    env,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use duet_chaos::signers;
use duet_harness::{
    duet::text,
    http::Api,
    stack::{ALL_KINDS, Pair, Server, Stack, Wallet},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// How long the jobs may take that are open when the last process has been exchanged.
const DEADLINE: Duration = Duration::from_secs(300);

/// How long a client goes on submitting one job while orchestrators are exchanged.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(60);

/// How long a client waits before it submits the same job elsewhere.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long jobs are valid: longer than a run.
const VALID: Duration = Duration::from_secs(3600);

/// How many times each process is exchanged: to AFTER, back to BEFORE, and to AFTER again.
const PASSES: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next =
        |what| arguments.next().with_context(|| format!("usage: upgrade BEFORE AFTER JOBS: no {what}"));
    let (before, after) = (PathBuf::from(next("BEFORE")?), PathBuf::from(next("AFTER")?));
    let jobs: usize = next("JOBS")?.parse().context("JOBS is no number")?;

    // The harness starts everything with this program.
    ensure!(env::var_os("DUET_PROGRAM").as_deref() == Some(before.as_os_str()), "DUET_PROGRAM is not BEFORE");
    let mut installation = Installation::start().await?;
    let load = Load::start(&installation, jobs)?;
    let mut exchanged = 0;
    for (pass, program) in [&after, &before, &after].into_iter().enumerate() {
        exchanged += installation.exchange(program, pass, &load).await?;
    }
    let submitted = load.rest().await?;
    ensure!(submitted.len() == jobs, "{} of {jobs} jobs were submitted", submitted.len());
    let [api, _] = installation.clients()?;
    let states = api.all_settled(&submitted, DEADLINE).await?;
    for (number, job) in submitted.iter().enumerate() {
        let answer = api.get(&format!("/v1/jobs/{job}")).await?.body;
        let signer = signers::message_signer(message(number).as_bytes(), text(&answer, "/signature")?)?;
        ensure!(signer.to_string() == installation.wallet.address, "{job} has another signer: {answer}");
    }
    println!("{}", json!({"jobs": jobs, "states": states, "exchanged": exchanged}));
    ensure!(states.get("signed") == Some(&jobs), "not every job was signed: {states:?}");
    Ok(())
}

/// The message of a job, which is its idempotency key as well.
fn message(number: usize) -> String {
    format!("upgrade-{number}")
}

/// Two orchestrators, two workers of each party, a gateway and a device.
struct Installation {
    stack: Stack,
    second: Server,
    workers: [Server; 2],
    urls: [String; 2],
    wallet: Wallet,
}

impl Installation {
    async fn start() -> Result<Self> {
        let stack = Stack::start().await?;
        let wallet = stack.create_wallet("device", ALL_KINDS).await?;
        let workers = stack.second_workers().await?;
        let mut second = stack.another_orchestrator("orchestrator-2");
        let listen = text(&second.start().await?, "/listen")?.to_owned();
        second.set_argument("--listen", &listen);
        let urls = [stack.api_url().to_owned(), format!("http://{listen}")];
        Ok(Self { stack, second, workers, urls, wallet })
    }

    /// A client of each orchestrator.
    fn clients(&self) -> Result<[Api; 2]> {
        let [first, second] = &self.urls;
        let client = |url: &str| Api::at(url, self.stack.broker.credentials(), &self.wallet);
        Ok([client(first)?, client(second)?])
    }

    /// Exchanges one process after the other for `program`'s, and has a job signed after each.
    /// Returns how many processes it exchanged.
    async fn exchange(&mut self, program: &Path, pass: usize, load: &Load) -> Result<usize> {
        let mut exchanged = 0;
        // Once per store, before its first new worker. A store that is expanded stays so.
        if pass == 0 {
            for name in ["service", "partner"] {
                let party = self.stack.party(name).command(&self.stack.duet()).of(program);
                party.json(&["party", "migrate", "--expand"]).await?;
            }
        }
        let Self { stack, second, workers: [service, partner], .. } = self;
        let mut servers = [
            ("service", &mut stack.service),
            ("service-2", service),
            ("partner", &mut stack.partner),
            ("partner-2", partner),
            ("orchestrator", &mut stack.orchestrator),
            ("orchestrator-2", second),
            ("gateway", &mut stack.gateway),
        ];
        if pass % 2 == 1 {
            servers.reverse();
        }
        for (name, server) in servers {
            server.stop().await.with_context(|| format!("{name} in pass {pass}"))?;
            server.set_program(program);
            server.start().await.with_context(|| format!("{name} in pass {pass}"))?;
            exchanged += 1;
            load.goes_on().await.with_context(|| format!("after {name} in pass {pass}"))?;
            eprintln!("pass {} of {PASSES}: {name}, {} jobs submitted", pass + 1, load.submitted());
        }
        self.device(program, pass).await?;
        Ok(exchanged)
    }

    /// The device's program is exchanged as well, and signs with each party.
    async fn device(&mut self, program: &Path, pass: usize) -> Result<()> {
        self.wallet.duet = self.wallet.duet.clone().of(program);
        for pair in Pair::ALL {
            let text_of_pair = format!("{pair:?} in pass {pass}");
            let signed = self.wallet.sign_by(pair, &["message", &text_of_pair]).await?;
            let signer = signers::message_signer(text_of_pair.as_bytes(), text(&signed, "/signature")?)?;
            ensure!(signer.to_string() == self.wallet.address, "{text_of_pair}: another signer");
        }
        Ok(())
    }
}

/// A client that submits jobs to both orchestrators, one after the other.
struct Load {
    client: tokio::task::JoinHandle<Result<Vec<String>>>,
    submitted: Arc<AtomicUsize>,
    permitted: Arc<AtomicUsize>,
    per_step: usize,
    jobs: usize,
    probe: [Api; 2],
}

impl Load {
    /// Submits `jobs` messages: a share of them after each exchange, and so on the whole run.
    fn start(installation: &Installation, jobs: usize) -> Result<Self> {
        let steps = PASSES * 7 + 1;
        let per_step = jobs.div_ceil(steps);
        let (submitted, permitted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(per_step)));
        let submitting =
            submit(installation.clients()?, jobs, Arc::clone(&submitted), Arc::clone(&permitted));
        let (client, probe) = (tokio::spawn(submitting), installation.clients()?);
        Ok(Self { client, submitted, permitted, per_step, jobs, probe })
    }

    fn submitted(&self) -> usize {
        self.submitted.load(Ordering::SeqCst)
    }

    /// Permits the next share of jobs, and waits until a job of its own is signed.
    async fn goes_on(&self) -> Result<()> {
        let permitted = self.permitted.fetch_add(self.per_step, Ordering::SeqCst);
        let probe = format!("probe-{permitted}");
        let [first, second] = &self.probe;
        match first.sign_message(&probe).await {
            Ok(_) => Ok(()),
            Err(error) => second.sign_message(&probe).await.context(error).map(drop),
        }
    }

    /// Lets it submit what is left, and returns the ids of all jobs.
    async fn rest(self) -> Result<Vec<String>> {
        self.permitted.store(self.jobs, Ordering::SeqCst);
        self.client.await?
    }
}

async fn submit(
    apis: [Api; 2],
    jobs: usize,
    submitted: Arc<AtomicUsize>,
    permitted: Arc<AtomicUsize>,
) -> Result<Vec<String>> {
    let mut ids = Vec::with_capacity(jobs);
    for number in 0..jobs {
        while number >= permitted.load(Ordering::SeqCst) {
            sleep(RETRY_PAUSE).await;
        }
        let key = message(number);
        let [first, second] = &apis;
        // The same bytes go to both: an answer may be lost.
        let request = first.request_within(&json!({"kind": "personal_message", "text": key}), &key, VALID)?;
        let accepted = async {
            let mut to_first = number % 2 == 0;
            loop {
                let api = if to_first { first } else { second };
                to_first = !to_first;
                match api.submit(&request, &key).await {
                    Ok(answer) if (200..300).contains(&answer.status) => {
                        return Ok(text(&answer.body, "/id")?.to_owned());
                    }
                    Ok(answer) => ensure!(answer.status == 429 || answer.status == 503, "{key}: {answer:?}"),
                    // It is being exchanged.
                    Err(_) => {}
                }
                sleep(RETRY_PAUSE).await;
            }
        };
        ids.push(
            timeout(SUBMIT_DEADLINE, accepted).await.with_context(|| format!("{key} is not accepted"))??,
        );
        submitted.fetch_add(1, Ordering::SeqCst);
    }
    Ok(ids)
}
