//! A whole Duet on this machine.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::{
    anvil::{CHAIN_ID, http_client},
    broker::Broker,
    clocks,
    duet::{Duet, text},
    folders::{copy_folder, kept_folder, make_private_folder},
    parties::{Database, PartyFolder},
    process::{self, Process},
    programs,
};

/// How long one of our servers may take before it serves.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long one of our servers may take to finish its work and end.
pub const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// The interval at which the orchestrator is asked whether a wallet's pairs are ready.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// The tenant of all wallets.
pub const TENANT: &str = "demo";

/// An origin whose pages may use the gateway, besides its own page.
pub const PAGE_ORIGIN: &str = "https://wallet.example";

/// Additional settings of the demonstration's gateway: an Ethereum node for pages, and connections
/// from pages of any origin on this machine.
#[must_use]
pub fn for_trying_out(node: &str) -> [String; 5] {
    let chain = CHAIN_ID.to_string();
    ["--rpc", node, "--chain-id", &chain, "--loopback-origins"].map(str::to_owned)
}

/// The device that owns the wallet of [`Stack::with_wallet`].
const DEVICE: &str = "device";

/// All kinds of payload, for a requester without restrictions.
pub const ALL_KINDS: &str = "transaction,personal_message,typed_data,digest";

/// The folder of a stack's files.
#[derive(Clone, Debug)]
pub enum Directory {
    /// Removed when its last clone is dropped.
    Temporary(Arc<TempDir>),
    /// Left as it is.
    Kept(PathBuf),
}

impl Directory {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

/// Broker, orchestrator, two parties and a gateway as separate processes. Each has its own files.
///
/// Dropping it kills all processes, and removes their files if they are in a temporary folder.
/// Fields drop in the order of their declaration.
#[derive(Debug)]
pub struct Stack {
    /// The service's worker.
    pub service: Server,
    /// The partner's worker.
    pub partner: Server,
    /// The gateway.
    pub gateway: Server,
    /// The orchestrator.
    pub orchestrator: Server,
    /// The broker.
    pub broker: Broker,
    api_url: String,
    gateway_url: String,
    orchestrator_key: String,
    folders: [PartyFolder; 2],
    fingerprints: [String; 2],
    tokens: [PathBuf; 2],
    directory: Directory,
}

/// One of our servers: the command that starts it, and its process while it runs.
#[derive(Debug)]
pub struct Server {
    name: String,
    duet: Duet,
    arguments: Vec<String>,
    /// A program, with arguments, that starts the server. Empty when the server is started
    /// directly.
    launcher: Vec<String>,
    logs: PathBuf,
    process: Option<Process>,
    /// The document that it printed when it last became ready.
    ready: Value,
}

impl Server {
    /// A server with these settings and arguments. [`Self::start`] starts it, and its log goes into
    /// `logs`.
    #[must_use]
    pub fn new(name: &str, duet: Duet, arguments: &[&str], logs: &Path) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self {
            name: name.to_owned(),
            duet,
            arguments,
            launcher: Vec::new(),
            logs: logs.to_path_buf(),
            process: None,
            ready: Value::Null,
        }
    }

    /// This server, under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Starts it through `launcher`, a program with its arguments, from now on. The launcher must
    /// become the server's process by `exec`.
    pub fn start_through(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
    }

    /// Starts it and waits until it serves. Returns the document that it prints then.
    ///
    /// # Errors
    /// When it does not become ready. The error contains the end of its log.
    pub async fn start(&mut self) -> Result<Value> {
        self.launch()?;
        let ready = self.serving().await;
        if ready.is_err() {
            self.process = None;
        }
        ready
    }

    /// Starts it without waiting. [`Self::serving`] waits until it serves.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = self.duet.command(&arguments)?;
        if let Some((program, before)) = self.launcher.split_first() {
            command = process::through(program, before, &command);
        }
        self.process = Some(Process::start(&self.name, command, &self.logs)?);
        Ok(())
    }

    /// Waits until it serves. Returns the document that it prints then, which it prints once.
    ///
    /// # Errors
    /// When it does not become ready. The error contains the end of its log.
    pub async fn serving(&mut self) -> Result<Value> {
        self.ready = self.process()?.line(START_DEADLINE, readiness).await?;
        Ok(self.ready.clone())
    }

    /// The text that it shows at `/metrics`. It needs `DUET_METRICS_LISTEN`.
    ///
    /// # Errors
    /// When it does not listen, or when its answer is invalid.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("http://{}/metrics", text(&self.ready, "/metrics")?);
        let answer = http_client()?.get(url).send().await?.error_for_status()?;
        let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        ensure!(kind == Some("text/plain; version=0.0.4; charset=utf-8"), "{kind:?}");
        Ok(answer.text().await?)
    }

    /// Whether it has reported that it serves, since its start or the last call.
    pub fn has_begun_to_serve(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.line_so_far(readiness).is_some())
    }

    /// A copy of this server that is not running.
    fn clone_settings(&self) -> Self {
        Self {
            name: self.name.clone(),
            duet: self.duet.clone(),
            arguments: self.arguments.clone(),
            launcher: self.launcher.clone(),
            logs: self.logs.clone(),
            process: None,
            ready: Value::Null,
        }
    }

    /// A second server with the same settings, called `name` and not started yet.
    #[must_use]
    pub fn another(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone_settings() }
    }

    /// Changes its settings for the next start.
    pub fn set_settings(&mut self, duet: Duet) {
        self.duet = duet;
    }

    /// Has the program of another version run it from its next start on.
    pub fn set_program(&mut self, program: &Path) {
        self.duet = self.duet.clone().of(program);
    }

    /// Has its clock be ahead of the machine's by so many seconds, or behind it, when it is started
    /// again.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn shift_clock(&mut self, seconds: i64) -> Result<()> {
        self.duet = clocks::shifted(self.duet.clone(), seconds)?;
        Ok(())
    }

    /// Gives the option `name`, which is among the arguments, another value.
    pub fn set_argument(&mut self, name: &str, value: &str) {
        let at = self.arguments.iter().position(|argument| argument == name);
        if let Some(argument) = at.and_then(|at| self.arguments.get_mut(at + 1)) {
            value.clone_into(argument);
        }
    }

    /// The running process.
    ///
    /// # Errors
    /// When it has not been started, or has been stopped.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.name))
    }

    /// Kills it with `kill -9`.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.process()?.kill().await?;
        self.process = None;
        Ok(())
    }

    /// Stops it as an operator does, and waits until it has ended. Returns its exit code.
    ///
    /// # Errors
    /// When it is not running, or does not end.
    pub async fn stop(&mut self) -> Result<Option<i32>> {
        let status = self.process()?.terminate(STOP_DEADLINE).await?;
        self.process = None;
        Ok(status.code())
    }

    /// The end of its log, for error messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.as_ref().map(|process| process.log_tail(lines)).unwrap_or_default()
    }
}

/// The document that a server prints when it serves.
fn readiness(line: &str) -> Option<Value> {
    let document: Value = serde_json::from_str(line).ok()?;
    (document.get("ready") == Some(&Value::Bool(true))).then_some(document)
}

/// The three pairs of a 2-of-3 wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// The device initiates, the service responds.
    DeviceService,
    /// The device initiates, the partner responds.
    DevicePartner,
    /// The service initiates, the partner responds; the device is absent.
    ServicePartner,
}

impl Pair {
    /// All pairs.
    pub const ALL: [Self; 3] = [Self::DeviceService, Self::DevicePartner, Self::ServicePartner];
}

/// A device and its wallet.
#[derive(Clone, Debug)]
pub struct Wallet {
    /// The command with the device's home.
    pub duet: Duet,
    /// The wallet's id.
    pub id: String,
    /// Its Ethereum address.
    pub address: String,
    /// The file with the key of a team that may queue signatures.
    pub requester_key: PathBuf,
    /// The document that the command printed when it created the wallet.
    pub created: Value,
}

impl Stack {
    /// Starts all processes, and waits until they serve.
    ///
    /// # Errors
    /// When a process does not start.
    pub async fn start() -> Result<Self> {
        Self::start_as(&[], None).await
    }

    /// Starts a stack in which the device `device` has a wallet with a requester for `kinds`, as
    /// [`Self::create_wallet`] makes it. Its parties and its wallet are copies of kept ones. The
    /// broker is new: of the creation it knows nothing.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::create_wallet`].
    pub async fn with_wallet(kinds: &str) -> Result<(Self, Wallet)> {
        let program = programs::duet()?;
        let kept = kept_folder(&program, &format!("stack-{kinds}"), async |folder| {
            let mut stack = Box::pin(Self::start()).await?;
            let wallet = stack.create_wallet(DEVICE, kinds).await?;
            // Their stores are copied, so they may not be writing.
            stack.service.stop().await?;
            stack.partner.stop().await?;
            fs::remove_dir_all(stack.directory().join("logs"))?;
            for token in &stack.tokens {
                fs::remove_file(token)?;
            }
            copy_folder(stack.directory(), folder)?;
            Ok(fs::write(folder.join("created.json"), wallet.created.to_string())?)
        })
        .await?;
        let directory = Arc::new(tempfile::Builder::new().prefix("duet-test-").tempdir()?);
        copy_folder(&kept, directory.path())?;
        let broker = Broker::start().await?;
        let duet = Duet::new(broker.credentials()).with("DUET_NATS_URL", &broker.url());
        let folders =
            [PartyFolder::new(directory.path(), "service"), PartyFolder::new(directory.path(), "partner")];
        let [service, partner] = &folders;
        let fingerprints = [service.fingerprint(&duet).await?, partner.fingerprint(&duet).await?];
        let tokens = [service.token(&duet, TENANT).await?, partner.token(&duet, TENANT).await?];
        let created = serde_json::from_slice(&fs::read(directory.path().join("created.json"))?)?;
        let stack = Self::run(directory, broker, &duet, &folders, fingerprints, tokens).await?;
        let requester_key = stack.requester_key(DEVICE);
        let wallet = Wallet::of(stack.device(DEVICE)?, requester_key, created)?;
        stack.all_pairs_ready(&wallet.id).await?;
        Ok((stack, wallet))
    }

    /// Starts a stack with the share stores of service and partner in these databases, or in files.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(databases: Option<[Database; 2]>) -> Result<Self> {
        Self::start_as(&[], databases).await
    }

    /// Starts a stack with these settings in the environment of every process.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(settings, None).await
    }

    /// Starts everything with these settings in every process's environment, and with the share
    /// stores of service and partner in these databases, or in files.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_as(settings: &[(&str, &str)], databases: Option<[Database; 2]>) -> Result<Self> {
        let directory = Arc::new(tempfile::Builder::new().prefix("duet-test-").tempdir()?);
        let broker = Broker::start().await?;
        let duet = Duet::new(broker.credentials()).with("DUET_NATS_URL", &broker.url());
        let duet = settings.iter().fold(duet, |duet, (name, value)| duet.with(name, value));

        let mut folders =
            [PartyFolder::new(directory.path(), "service"), PartyFolder::new(directory.path(), "partner")];
        let [service, partner] = &mut folders;
        let fingerprints = [service.copy_or_set_up(&duet).await?, partner.copy_or_set_up(&duet).await?];
        if let Some([of_service, of_partner]) = databases {
            service.move_to(&duet, of_service).await?;
            partner.move_to(&duet, of_partner).await?;
        }
        let tokens = [service.token(&duet, TENANT).await?, partner.token(&duet, TENANT).await?];
        Self::run(directory, broker, &duet, &folders, fingerprints, tokens).await
    }

    /// Starts the orchestrator, and the parties in `folders`, which are set up already. A caller
    /// that holds a clone of `directory` keeps the files, including logs, beyond the stack's life.
    ///
    /// # Errors
    /// When a process does not start.
    pub async fn run(
        directory: Arc<TempDir>,
        broker: Broker,
        duet: &Duet,
        folders: &[PartyFolder; 2],
        fingerprints: [String; 2],
        tokens: [PathBuf; 2],
    ) -> Result<Self> {
        let listen = ["127.0.0.1:0", "127.0.0.1:0"].map(str::to_owned);
        let directory = Directory::Temporary(directory);
        Self::run_at(&listen, directory, broker, duet, folders, fingerprints, tokens).await
    }

    /// Starts what [`Self::run`] starts, with the orchestrator and the gateway at the addresses
    /// `listen`.
    ///
    /// # Errors
    /// As [`Self::run`], or when another process listens there.
    pub async fn run_at(
        listen: &[String; 2],
        directory: Directory,
        broker: Broker,
        duet: &Duet,
        folders: &[PartyFolder; 2],
        fingerprints: [String; 2],
        tokens: [PathBuf; 2],
    ) -> Result<Self> {
        let [listen, gateway_listen] = listen;
        let logs = directory.path().join("logs");
        let [service_folder, partner_folder] = folders;
        let [service_fingerprint, partner_fingerprint] = &fingerprints;
        let worker = |folder: &PartyFolder, peer: &PartyFolder, fingerprint: &str| {
            let pin = format!("{}={fingerprint}", peer.name());
            Server::new(
                folder.name(),
                folder.command(duet),
                &["party", "run", "--peer-fingerprint", &pin],
                &logs,
            )
        };
        let mut service = worker(service_folder, partner_folder, partner_fingerprint);
        let mut partner = worker(partner_folder, service_folder, service_fingerprint);
        let mut orchestrator =
            Server::new("orchestrator", duet.clone(), &["orchestrator", "--listen", listen], &logs);

        let ready = orchestrator.start().await?;
        let listen = text(&ready, "/listen")?.to_owned();
        let orchestrator_key = text(&ready, "/public_key")?.to_owned();
        // It keeps this address when it is started again.
        orchestrator.set_argument("--listen", &listen);
        service.start().await?;
        partner.start().await?;
        let mut gateway = gateway(duet, gateway_listen, folders, &fingerprints, &tokens, &logs);
        let ready = gateway.start().await?;
        let gateway_listen = text(&ready, "/listen")?;
        gateway.set_argument("--listen", gateway_listen);
        Ok(Self {
            service,
            partner,
            gateway,
            orchestrator,
            broker,
            api_url: format!("http://{listen}"),
            gateway_url: format!("http://{gateway_listen}"),
            orchestrator_key,
            folders: folders.clone(),
            fingerprints,
            tokens,
            directory,
        })
    }

    /// The URL of the orchestrator's HTTP interface.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// The URL of the gateway for browsers. Its own page may connect there, and any other page from
    /// this address.
    #[must_use]
    pub fn gateway_url(&self) -> &str {
        &self.gateway_url
    }

    /// The URL at which a user on this machine opens the page. It has a host name, because passkeys
    /// belong to one.
    #[must_use]
    pub fn page_url(&self) -> String {
        self.gateway_url.replace("127.0.0.1", "localhost")
    }

    /// Starts the gateway again at its address, with `more` arguments.
    ///
    /// # Errors
    /// When it does not end or start.
    pub async fn restart_gateway_with(&mut self, more: &[&str]) -> Result<()> {
        self.gateway.stop().await?;
        self.gateway.arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        self.gateway.start().await.map(drop)
    }

    /// Another gateway on a free port, with the same settings and `more` arguments. It is not
    /// started yet.
    #[must_use]
    pub fn another_gateway(&self, name: &str, more: &[&str]) -> Server {
        let mut arguments = self.gateway.arguments.clone();
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let mut gateway =
            Server { name: name.to_owned(), arguments, process: None, ..self.gateway.clone_settings() };
        gateway.set_argument("--listen", "127.0.0.1:0");
        gateway
    }

    /// Another orchestrator on a free port, with the same settings. It is not started yet.
    #[must_use]
    pub fn another_orchestrator(&self, name: &str) -> Server {
        let mut orchestrator = self.orchestrator.another(name);
        orchestrator.set_argument("--listen", "127.0.0.1:0");
        orchestrator
    }

    /// The public key of results, in hexadecimal.
    #[must_use]
    pub fn orchestrator_key(&self) -> &str {
        &self.orchestrator_key
    }

    /// The folder of all files except the broker's.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The folder of a party of this stack.
    #[must_use]
    pub fn party(&self, name: &str) -> PartyFolder {
        let known = self.folders.iter().find(|folder| folder.name() == name);
        known.cloned().unwrap_or_else(|| PartyFolder::new(self.directory.path(), name))
    }

    /// Another worker of the same party as `worker`, on the same share store, with `more`
    /// arguments. It is not started yet.
    #[must_use]
    pub fn another_worker(&self, worker: &Server, name: &str, more: &[&str]) -> Server {
        let mut another = Server { name: name.to_owned(), ..worker.clone_settings() };
        another.arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        another
    }

    /// Starts a second worker of the service, and one of the partner.
    ///
    /// # Errors
    /// When one does not start. The error contains the end of its log.
    pub async fn second_workers(&self) -> Result<[Server; 2]> {
        let mut workers = [
            self.another_worker(&self.service, "service-2", &[]),
            self.another_worker(&self.partner, "partner-2", &[]),
        ];
        for worker in &mut workers {
            worker.start().await?;
        }
        Ok(workers)
    }

    /// The command with a team's settings: no shares, only the API.
    #[must_use]
    pub fn duet(&self) -> Duet {
        Duet::new(self.broker.credentials())
            .with("DUET_NATS_URL", &self.broker.url())
            .with("DUET_API_URL", &self.api_url)
    }

    /// The command of a device whose wallets are in the folder `name`.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn device(&self, name: &str) -> Result<Duet> {
        let home = self.directory.path().join(name);
        make_private_folder(&home)?;
        let key_file = self.directory.path().join(format!("{name}.key"));
        if !key_file.exists() {
            write_key(&key_file)?;
        }
        Ok(self
            .duet()
            .with("DUET_HOME", &home.to_string_lossy())
            .with("DUET_KEY_FILE", &key_file.to_string_lossy()))
    }

    /// Creates a wallet on the device `name`, with a requester that may ask for the payloads in
    /// `kinds`. The owner may ask for all kinds, but for bare digests only if the requester may.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn create_wallet(&self, name: &str, kinds: &str) -> Result<Wallet> {
        let duet = self.device(name)?;
        let (arguments, requester_key) = self.creation(&duet, name, kinds).await?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let created = duet.json(&arguments).await?;
        self.all_pairs_ready(text(&created, "/wallet/id")?).await?;
        Wallet::of(duet, requester_key, created)
    }

    /// The first usable wallet that the device `name` has already.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn first_wallet(&self, name: &str) -> Result<Option<Wallet>> {
        if !self.directory().join(name).is_dir() {
            return Ok(None);
        }
        let duet = self.device(name)?;
        let list = duet.json(&["wallet", "list"]).await?;
        let wallets = list.get("wallets").and_then(Value::as_array).context("no wallets in the list")?;
        let usable = |wallet: &&Value| wallet.get("status").is_some_and(|status| status == "ready");
        let Some(wallet) = wallets.iter().find(usable) else { return Ok(None) };
        Wallet::of(duet, self.requester_key(name), json!({"wallet": wallet})).map(Some)
    }

    /// The file of the key with which a team asks for signatures of the device's wallet.
    fn requester_key(&self, name: &str) -> PathBuf {
        self.directory().join(format!("{name}.requester"))
    }

    /// The arguments that create such a wallet, and the file of its requester's key, which this
    /// creates.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn creation(&self, duet: &Duet, name: &str, kinds: &str) -> Result<(Vec<String>, PathBuf)> {
        let requester_key = self.requester_key(name);
        let requester = duet.json(&["requester", "new", "--out", &requester_key.to_string_lossy()]).await?;
        let requester = format!("{}={kinds}", text(&requester, "/public_key")?);
        let mut arguments = self.wallet_arguments();
        arguments.extend(["--requester".to_owned(), requester]);
        if kinds.contains("digest") {
            arguments.push("--allow-digests".to_owned());
        }
        Ok((arguments, requester_key))
    }

    /// Waits until every pair of a wallet can sign. After the commit, the service has yet to enrol
    /// with the partner.
    ///
    /// # Errors
    /// After a minute.
    pub async fn all_pairs_ready(&self, wallet: &str) -> Result<()> {
        let token = fs::read_to_string(self.broker.credentials().join("tokens").join(TENANT))?;
        let token = token.lines().next().context("the token's file is empty")?;
        let client = http_client()?;
        let url = format!("{}/v1/wallets/{wallet}", self.api_url);
        let mut look_again = interval(READY_INTERVAL);
        let mut last = Value::Null;
        let ready = timeout(START_DEADLINE, async {
            loop {
                look_again.tick().await;
                last = client.get(&url).bearer_auth(token.trim()).send().await?.json().await?;
                let pairs = last.get("pairs").and_then(Value::as_array);
                let usable = |pair: &Value| pair.get("usable") == Some(&Value::Bool(true));
                if pairs.is_some_and(|pairs| pairs.len() == Pair::ALL.len() && pairs.iter().all(usable)) {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        });
        match ready.await {
            Ok(result) => result,
            Err(_) => bail!("not every pair of the wallet came to be usable: {last}"),
        }
    }

    /// `wallet create` with the pinned cards and the tokens of both parties.
    #[must_use]
    pub fn wallet_arguments(&self) -> Vec<String> {
        creation_arguments(&self.fingerprints, &self.tokens)
    }
}

/// `wallet create` with the pinned cards and the tokens of service and partner.
#[must_use]
pub fn creation_arguments(fingerprints: &[String; 2], tokens: &[PathBuf; 2]) -> Vec<String> {
    let [service, partner] = fingerprints;
    let [service_token, partner_token] = tokens;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    [
        "wallet",
        "create",
        "--service-fingerprint",
        service,
        "--partner-fingerprint",
        partner,
        "--service-token-file",
        &path(service_token),
        "--partner-token-file",
        &path(partner_token),
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Wallet {
    /// The wallet that the document `created` describes, of the device whose command is `duet`.
    fn of(duet: Duet, requester_key: PathBuf, created: Value) -> Result<Self> {
        Ok(Self {
            id: text(&created, "/wallet/id")?.to_owned(),
            address: text(&created, "/wallet/address")?.to_owned(),
            requester_key,
            created,
            duet,
        })
    }

    /// Signs as the device, together with `other` (`service` or `partner`): `duet sign <payload>
    /// --with <other>`.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn sign(&self, payload: &[&str], other: &str) -> Result<Value> {
        let arguments = [&["sign"], payload, &["--wallet", &self.id, "--with", other]].concat();
        self.duet.json(&arguments).await
    }

    /// Signs with a pair. Returns the document with `signature`, `digest` and, for transactions,
    /// `signed_transaction`.
    ///
    /// # Errors
    /// When a command fails, or when another pair signed the job.
    pub async fn sign_by(&self, pair: Pair, payload: &[&str]) -> Result<Value> {
        match pair {
            Pair::DeviceService => self.sign(payload, "service").await,
            Pair::DevicePartner => self.sign(payload, "partner").await,
            Pair::ServicePartner => {
                let queued = self.queue(payload).await?;
                let job = queued.get("job").with_context(|| format!("no job in {queued}"))?;
                ensure!(
                    text(job, "/state")? == "signed" && text(job, "/pair")? == "service+partner",
                    "{job}"
                );
                Ok(job.clone())
            }
        }
    }

    /// Queues a signature by service and partner, and waits for it: `duet job submit <payload>
    /// --wait`.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn queue(&self, payload: &[&str]) -> Result<Value> {
        let key = self.requester_key.to_string_lossy();
        let rest = ["--wallet", &self.id, "--requester-key", &key, "--pairs", "service+partner", "--wait"];
        let arguments = [&["job", "submit"], payload, &rest].concat();
        self.duet.json(&arguments).await
    }
}

/// A gateway for the parties in `folders`. All tests connect from one address, so limits per
/// address are raised, except those that a test is about.
#[must_use]
pub fn gateway(
    duet: &Duet,
    listen: &str,
    folders: &[PartyFolder; 2],
    fingerprints: &[String; 2],
    tokens: &[PathBuf; 2],
    logs: &Path,
) -> Server {
    let mut arguments =
        ["gateway", "--trial", "--listen", listen, "--origin", PAGE_ORIGIN, "--tenant", TENANT]
            .map(str::to_owned)
            .to_vec();
    for (limit, value) in [
        ("--max-connections-per-address", "256"),
        ("--connections-per-second", "200"),
        ("--frames-per-second", "1000"),
        ("--shares-per-minute", "600"),
        ("--requests-per-second-per-device", "1000"),
    ] {
        arguments.extend([limit.to_owned(), value.to_owned()]);
    }
    for ((folder, fingerprint), token) in folders.iter().zip(fingerprints).zip(tokens) {
        let name = folder.name();
        arguments.extend([format!("--{name}"), format!("{name}={fingerprint}")]);
        arguments.extend(["--admission-token".to_owned(), format!("{name}={}", token.display())]);
    }
    if let Some(page) = programs::page() {
        arguments.extend(["--page".to_owned(), page.display().to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Server::new("gateway", duet.clone(), &arguments, logs)
}

/// Writes a new random key, readable by its owner only.
///
/// # Errors
/// When the file exists already, or cannot be written.
pub fn write_key(path: &Path) -> Result<()> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    Ok(())
}
