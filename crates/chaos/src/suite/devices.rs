//! The owner's device in the load: a browser's party with its own wallet. It signs through gateways
//! while they die, and switches to any gateway that accepts it. It reports an interrupted session,
//! never resumes it, and signs the job in a new session.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use duet_actors::browser::{device::Device, socket::Socket};
use duet_protocol::ids::SessionId;
use duet_wire::{
    Code, JobId, JobRecord, Manifest, OutcomeReply, OutcomeResult, SignedRequest,
    approval::{ApprovalAction, ApprovalReply},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    pauses::{LONGEST_PAUSE, PAUSE},
    seed::Seed,
};
use crate::{
    fleet::{Fleet, READY_DEADLINE},
    history::{Asked, OneTime, PaillierKey, Submission, Used},
};

/// How long a gateway may take to accept the device, before the device tries another one.
const CONNECTING_DEADLINE: Duration = Duration::from_secs(4);

/// The deadline of one request: a little longer than a gateway waits for the orchestrator.
const REQUEST_DEADLINE: Duration = Duration::from_secs(16);

/// For how long the device repeats the report of a session, until it is acknowledged.
const REPORT_DEADLINE: Duration = Duration::from_secs(30);

/// How long the device waits in the middle of a session, in milliseconds. Most sessions would
/// otherwise be too short for a fault to hit them.
const SLOWNESS_MS: (u64, u64) = (100, 3000);

/// The name under which it records one-time values.
const PARTY: &str = "device";

/// The pairs with a device.
const PAIRS: [&str; 2] = ["device+service", "device+partner"];

/// A device and its connections.
pub(super) struct Devices {
    device: Arc<Device>,
    gateways: Vec<String>,
    /// Idle connections: never more than there were jobs at a time.
    idle: Mutex<Vec<Socket>>,
    failed: AtomicUsize,
    interrupted: AtomicUsize,
}

/// A job for the device to sign.
struct Order<'a> {
    request: &'a SignedRequest,
    job: JobId,
    /// Whether the owner requested it. Otherwise a team queued it.
    is_own: bool,
}

/// The answer to a request for a session.
enum Answered {
    /// The job has ended.
    Over,
    /// There is no session now: an earlier attempt has not ended, or this orchestrator does not
    /// know the job yet.
    NotYet,
    /// A session ran, and the device has to send this report.
    Ended { session: SessionId, report: Vec<u8>, interrupted: Option<anyhow::Error> },
}

impl Devices {
    /// Makes a wallet through the first gateway.
    pub(super) async fn start(fleet: &Fleet) -> Result<Self> {
        let gateways = fleet.gateway_urls();
        let url = gateways.first().context("there is no gateway")?;
        let device = Device::create(url, &mut Socket::open(url).await?).await?;
        fleet.all_pairs_ready(&device.id().to_string()).await?;
        Ok(Self::of(Arc::new(device), gateways))
    }

    fn of(device: Arc<Device>, gateways: Vec<String>) -> Self {
        let (failed, interrupted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { device, gateways, idle: Mutex::default(), failed, interrupted }
    }

    /// Signs one more message of the owner through each gateway.
    pub(super) async fn last_signatures(&self) -> Result<Vec<Submission>> {
        let mut submissions = Vec::new();
        for (number, gateway) in self.gateways.iter().enumerate() {
            let through_it = Self::of(Arc::clone(&self.device), vec![gateway.clone()]);
            let text = format!("the last one through gateway {}", number + 1);
            let key = text.replace(' ', "-");
            // With one gateway, only the order of the pairs is random.
            let mut seed = Seed::new(u64::try_from(number)?);
            let request = self.request(&key, &text, &mut seed);
            let accepted = through_it.sign(&request, true, &mut seed, Instant::now() + READY_DEADLINE);
            submissions.push(Submission {
                address: self.address(),
                payload: Asked::Message(text),
                earns: None,
                accepted: accepted.await.with_context(|| key.clone())?,
                with_another_payload: Vec::new(),
                key,
            });
        }
        Ok(submissions)
    }

    /// The wallet's id.
    pub(super) fn wallet(&self) -> String {
        self.device.id().to_string()
    }

    /// The wallet's address.
    pub(super) fn address(&self) -> String {
        format!("0x{}", hex::encode(self.device.wallet.share().wallet().address()))
    }

    /// The wallet's Paillier key.
    pub(super) fn paillier_key(&self) -> PaillierKey {
        let (id, is_locked) = self.device.paillier_key();
        PaillierKey { party: PARTY.to_owned(), id: id.to_string(), is_locked }
    }

    /// The one-time values that the device used.
    pub(super) fn used(&self) -> impl Iterator<Item = Used> {
        self.device.nonces().into_iter().map(|(session, hash)| Used {
            party: PARTY.to_owned(),
            session: session.to_string(),
            what: OneTime::R1,
            hash: hash.to_vec(),
        })
    }

    /// The number of failed attempts, and of those that failed in the middle of a session.
    pub(super) fn failures(&self) -> [usize; 2] {
        [&self.failed, &self.interrupted].map(|count| count.load(Ordering::Relaxed))
    }

    /// Closes the connections.
    pub(super) fn hang_up(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The owner's request to sign a message, for either pair.
    pub(super) fn request(&self, key: &str, text: &str, seed: &mut Seed) -> SignedRequest {
        let [mut first, mut second] = PAIRS;
        if seed.once_in(2) {
            (first, second) = (second, first);
        }
        self.device.request_under(key, text, &[first, second])
    }

    /// Signs what `request` asks for, in as many sessions as necessary: as the owner's own job, or
    /// as a waiting job. Returns the job's id from each answer.
    ///
    /// # Errors
    /// When the job has not ended at `end`.
    pub(super) async fn sign(
        &self,
        request: &SignedRequest,
        is_own: bool,
        seed: &mut Seed,
        end: Instant,
    ) -> Result<Vec<String>> {
        let order = Order { request, job: request.verify()?.job(), is_own };
        let mut named = Vec::new();
        let mut pause = PAUSE;
        loop {
            let last = match self.attempt(&order, seed, &mut named).await {
                Ok(true) => return Ok(named),
                Ok(false) => anyhow!("it does not wait for its owner"),
                Err(error) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    error
                }
            };
            if Instant::now() > end {
                return Err(last.context(format!("the device did not see job {} end", order.job)));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs at most one session. Returns whether the job has ended.
    async fn attempt(&self, order: &Order<'_>, seed: &mut Seed, named: &mut Vec<String>) -> Result<bool> {
        let mut socket = self.connection(seed).await?;
        let answered = self.ask(&mut socket, order, seed, named).await;
        self.give_back(socket);
        match answered? {
            Answered::Over => Ok(true),
            Answered::NotYet => Ok(false),
            Answered::Ended { session, report, interrupted: None } => {
                self.report(session, &report, seed).await?;
                Ok(true)
            }
            Answered::Ended { session, report, interrupted: Some(why) } => {
                self.interrupted.fetch_add(1, Ordering::Relaxed);
                // With the report, the orchestrator need not wait until the session expires.
                // Without it, it does.
                self.report(session, &report, seed).await.ok();
                Err(why)
            }
        }
    }

    /// Asks for a session for the job, and runs it if there is one.
    async fn ask(
        &self,
        socket: &mut Socket,
        order: &Order<'_>,
        seed: &mut Seed,
        named: &mut Vec<String>,
    ) -> Result<Answered> {
        let action = if order.is_own {
            ApprovalAction::Sign { request: order.request.clone() }
        } else if self.is_waiting(socket, order).await? {
            ApprovalAction::Approve { job: order.job }
        } else {
            ApprovalAction::Job { job: order.job }
        };
        let manifest = match self.device.ask(socket, action).await? {
            ApprovalReply::Session { manifest } => Manifest::decode(&manifest)?,
            ApprovalReply::Job { record } => {
                let record: JobRecord = serde_json::from_slice(&record)?;
                named.push(record.id.to_string());
                return Ok(if record.state.is_final() { Answered::Over } else { Answered::NotYet });
            }
            ApprovalReply::Refused(refusal) => return Err(refusal.into()),
            other => bail!("{other:?}"),
        };
        named.push(manifest.job.to_string());
        ensure!(manifest.request == *order.request, "the session is about something else");
        let session = manifest.session;
        let (least, most) = SLOWNESS_MS;
        let computing = self.device.compute_slowly(socket, &manifest, seed.millis(least, most));
        // Boxed, because a session's states are large.
        Ok(match Box::pin(computing).await {
            Ok((_, report)) => Answered::Ended { session, report, interrupted: None },
            Err(why) => {
                let message = "the device's connection broke".to_owned();
                let failed = OutcomeResult::Failed { code: Code::Deadline, culprit: None, message };
                let report = self.device.report(&manifest, failed)?;
                Answered::Ended { session, report, interrupted: Some(why) }
            }
        })
    }

    /// Whether the job is among those shown to the owner, with exactly this request.
    async fn is_waiting(&self, socket: &mut Socket, order: &Order<'_>) -> Result<bool> {
        match self.device.ask(socket, ApprovalAction::List).await? {
            ApprovalReply::Jobs { jobs, .. } => {
                let shown = jobs.into_iter().find(|waiting| waiting.job == order.job);
                let Some(shown) = shown else { return Ok(false) };
                ensure!(shown.request == *order.request, "the owner is shown something else");
                Ok(true)
            }
            ApprovalReply::Refused(refusal) => Err(refusal.into()),
            other => bail!("{other:?}"),
        }
    }

    /// Reports the end of a session, through any gateway that accepts the device, until the
    /// orchestrator has judged the report.
    async fn report(&self, session: SessionId, report: &[u8], seed: &mut Seed) -> Result<()> {
        let end = Instant::now() + REPORT_DEADLINE;
        loop {
            let last = match self.tell(session, report, seed).await {
                Ok(OutcomeReply::Acknowledged) => return Ok(()),
                Ok(OutcomeReply::Refused(refusal)) => return Err(refusal.into()),
                Err(error) => error,
            };
            if Instant::now() > end {
                return Err(last.context("no orchestrator acknowledged the report"));
            }
            sleep(PAUSE).await;
        }
    }

    async fn tell(&self, session: SessionId, report: &[u8], seed: &mut Seed) -> Result<OutcomeReply> {
        let mut socket = self.connection(seed).await?;
        let told = self.device.tell(&mut socket, session, report.to_vec()).await;
        self.give_back(socket);
        told
    }

    /// A connection on which the device is authenticated: an idle one, or a new one through any
    /// gateway.
    async fn connection(&self, seed: &mut Seed) -> Result<Socket> {
        if let Some(socket) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(socket);
        }
        let gateway = self.gateways.get(seed.below(self.gateways.len())).context("there is no gateway")?;
        let connecting = async {
            let mut socket = Socket::open(gateway).await?.within(REQUEST_DEADLINE);
            self.device.authenticate(&mut socket).await?;
            anyhow::Ok(socket)
        };
        timeout(CONNECTING_DEADLINE, connecting).await.with_context(|| format!("{gateway} is silent"))?
    }

    /// Keeps a connection for later use, unless it broke.
    fn give_back(&self, socket: Socket) {
        if socket.is_at_rest() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        }
    }
}
