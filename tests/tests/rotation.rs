//! Every credential is exchanged while jobs continue, and the old ones are refused afterwards.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper that fails fails its test")]
#![expect(non_snake_case, reason = "test names read as sentences: subject, then what it should do")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use duet_bus::{Address, Bus, ConnectError, ConnectSettings, NkeySeed, Role};
use duet_chaos::{
    cluster::{Cluster, NODES},
    databases,
};
use duet_credentials::{InitSettings, Layout, initialise};
use duet_harness::{
    anvil::{http_client, https_client},
    broker::Broker,
    duet::{Duet, text},
    http::Api,
    nats_server::NatsServer,
    stack::{Server, Stack, TENANT, Wallet},
};
use duet_party::store::{
    RecordStore as _,
    postgres::{PostgresOptions, PostgresStore},
};
use duet_test_postgres::PostgresServer as Postgres;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_rustls::TlsConnector;

use crate::webhooks::{Receiver, add, check};

/// How long something may take that a restart interrupts, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The interval between two looks at a job, and the pause before a refused one is submitted again.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A tenant without jobs, so that its webhook receives only what a test sends.
const QUIET: &str = "quiet";

/// Jobs queued in parallel lanes, in each one after the other, until the test ends them.
struct Traffic {
    is_over: Arc<AtomicBool>,
    signed: Arc<AtomicU64>,
    lanes: JoinSet<Result<()>>,
}

/// One lane of jobs.
struct Lane {
    name: usize,
    url: String,
    credentials: PathBuf,
    wallet: Wallet,
    is_over: Arc<AtomicBool>,
    signed: Arc<AtomicU64>,
}

impl Traffic {
    fn start(stack: &Stack, wallet: &Wallet) -> Self {
        let mut traffic = Self { is_over: Arc::default(), signed: Arc::default(), lanes: JoinSet::new() };
        for name in 0..3 {
            let lane = Lane {
                name,
                url: stack.api_url().to_owned(),
                credentials: stack.broker.credentials().to_owned(),
                wallet: wallet.clone(),
                is_over: Arc::clone(&traffic.is_over),
                signed: Arc::clone(&traffic.signed),
            };
            traffic.lanes.spawn(lane.run());
        }
        traffic
    }

    /// Waits until jobs queued from now on are signed. This shows that restarted processes work.
    async fn goes_on(&mut self) -> Result<()> {
        // One job of each lane may have been under way.
        let enough = self.signed.load(Ordering::Relaxed) + 2 * self.lanes.len() as u64;
        let mut look_again = interval(LOOK_INTERVAL);
        let reached = async {
            while self.signed.load(Ordering::Relaxed) < enough {
                look_again.tick().await;
                // A lane ends early only when a job was lost.
                if let Some(ended) = self.lanes.try_join_next() {
                    ended??;
                    bail!("a lane ended");
                }
            }
            Ok(())
        };
        timeout(DEADLINE, reached).await.context("no job was signed any more")?
    }

    /// Waits until the last jobs are signed. Returns the number of signed jobs.
    async fn end(mut self) -> Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.lanes.join_next().await {
            ended??;
        }
        Ok(self.signed.load(Ordering::Relaxed))
    }
}

impl Lane {
    async fn run(self) -> Result<()> {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("lane-{}-{number}", self.name);
            let job = timeout(DEADLINE, self.accepted(&key)).await.context("a job was not accepted")??;
            timeout(DEADLINE, self.signed(&job)).await.context("an accepted job was not signed")??;
            self.signed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The interface, with the token that is in use now.
    fn api(&self) -> Result<Api> {
        Ok(Api::at(&self.url, &self.credentials, &self.wallet)?.within(Duration::from_secs(5)))
    }

    /// Queues a message. Repeats this while no answer comes, or while the answer is that it is
    /// impossible right now.
    async fn accepted(&self, key: &str) -> Result<String> {
        let payload = json!({"kind": "personal_message", "text": key});
        let request = self.api()?.request(&payload, key)?;
        let mut again = interval(LOOK_INTERVAL);
        loop {
            again.tick().await;
            let Ok(answer) = self.api()?.submit(&request, key).await else { continue };
            match answer.status {
                200..300 => return Ok(text(&answer.body, "/id")?.to_owned()),
                429 | 500.. => {}
                _ => bail!("a job was refused: {answer:?}"),
            }
        }
    }

    async fn signed(&self, job: &str) -> Result<()> {
        let mut again = interval(LOOK_INTERVAL);
        loop {
            again.tick().await;
            let Ok(answer) = self.api()?.get(&format!("/v1/jobs/{job}")).await else { continue };
            match (answer.status, answer.body["state"].as_str()) {
                (200, Some("signed")) => return Ok(()),
                (200, Some("queued" | "running")) | (429 | 500.., _) => {}
                _ => bail!("an accepted job is lost: {answer:?}"),
            }
        }
    }
}

/// The credentials from before the exchange.
struct Before {
    seeds: Vec<(Role, NkeySeed)>,
    token: String,
    /// A folder with the authority, the broker's certificate and its key.
    files: PathBuf,
}

impl Before {
    fn note(stack: &Stack) -> Result<Self> {
        let layout = Layout::new(stack.broker.credentials());
        let files = stack.directory().join("before");
        fs::create_dir(&files)?;
        for file in [layout.ca_certificate(), layout.server_certificate(), layout.server_key()] {
            fs::copy(&file, files.join(file.file_name().unwrap()))?;
        }
        let seeds = Role::ALL.map(|role| layout.read_seed(role).map(|seed| (role, seed)));
        Ok(Self {
            seeds: seeds.into_iter().collect::<Result<_, _>>()?,
            token: fs::read_to_string(layout.token(&TENANT.parse()?))?,
            files,
        })
    }

    /// The settings with which a role connects with the old seed.
    fn settings(&self, broker: &Broker, role: Role) -> Result<ConnectSettings> {
        let seed = self.seeds.iter().find(|(known, _)| *known == role).map(|(_, seed)| seed.clone());
        Ok(ConnectSettings { seed: seed.context("all roles have one")?, ..broker.settings(role)? })
    }

    fn authority(&self) -> PathBuf {
        self.files.join("ca.pem")
    }
}

/// Takes a step with every credential, and restarts all processes, one after the other.
async fn step(stack: &mut Stack, more: &mut [Server; 2], step: &str) -> Result<Value> {
    let taken = stack.duet().json(&["credentials", step, "all"]).await?;
    stack.broker.restart_anew().await?;
    // One worker of each party is always there: without any, a job fails for good after some
    // seconds.
    let [service, partner] = more;
    for server in [&mut stack.service, &mut stack.partner, service, partner, &mut stack.orchestrator] {
        again(server).await?;
    }
    Ok(taken)
}

async fn again(server: &mut Server) -> Result<Value> {
    ensure!(server.stop().await? == Some(0), "{}", server.log_tail(20));
    server.start().await
}

/// The HTTP status with which the interface answers a tenant's token.
async fn status_with(stack: &Stack, token: &str) -> Result<u16> {
    let url = format!("{}/v1/jobs?limit=1", stack.api_url());
    Ok(http_client()?.get(url).bearer_auth(token.trim()).send().await?.status().as_u16())
}

/// The public half of the orchestrator's or the gateway's key in use.
fn public(taken: &Value, credential: &str) -> Result<String> {
    let all = taken["credentials"].as_array().context("a list")?;
    let one = all.iter().find(|one| one["credential"] == credential).context("all are there")?;
    Ok(text(one, "/in_use")?.to_owned())
}

/// A broker with the old certificate, on its own port and store.
async fn with_old_certificate(stack: &Stack, before: &Before) -> Result<NatsServer> {
    let mut environment = Layout::new(stack.broker.credentials()).read_broker_environment()?;
    for (name, file) in
        [("DUET_TLS_CERT", "server.pem"), ("DUET_TLS_KEY", "server.key"), ("DUET_STORE_DIR", "store")]
    {
        environment.retain(|(known, _)| known != name);
        environment.push((name.to_owned(), format!("\"{}\"", before.files.join(file).display())));
    }
    let mut server = NatsServer::new("nats.conf", false, environment).await?;
    server.resume().await?;
    Ok(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_credential__should_be_exchanged_while_jobs_go_on() -> Result<()> {
    let mut stack = Stack::start_with(&[("DUET_WEBHOOKS_TO_PRIVATE", "1")]).await?;
    let tenants = vec![QUIET.parse()?];
    initialise(stack.broker.credentials(), &InitSettings { tenants, ..InitSettings::default() })?;
    again(&mut stack.orchestrator).await?;
    let mut more = stack.second_workers().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let first = wallet.queue(&["message", "before"]).await?;
    let quiet = stack.duet().with("DUET_TENANT", QUIET);
    let mut receiver = Receiver::start().await?;
    let (old_hook, old_secret) = add(&quiet, &receiver).await?;
    let before = Before::note(&stack)?;
    let mut traffic = Traffic::start(&stack, &wallet);
    traffic.goes_on().await?;

    // The next credentials are accepted, but not used yet.
    let prepared = step(&mut stack, &mut more, "prepare").await?;
    let old_keys = [public(&prepared, "orchestrator-key")?, public(&prepared, "gateway-key")?];
    assert_eq!(old_keys[0], stack.orchestrator_key());
    traffic.goes_on().await?;
    quiet.json(&["webhook", "test", &old_hook]).await?;
    check(&old_secret, &receiver.next().await?)?;

    // The next credentials are used, and the old ones still accepted.
    let switched = step(&mut stack, &mut more, "switch").await?;
    let new_keys = [public(&switched, "orchestrator-key")?, public(&switched, "gateway-key")?];
    assert_eq!(text(&again(&mut stack.gateway).await?, "/audit_key")?, new_keys[1]);
    traffic.goes_on().await?;
    let new_token = fs::read_to_string(stack.broker.credentials().join("tokens").join(TENANT))?;
    let new_token = new_token.lines().next().context("a token")?;
    assert_ne!(new_token, before.token.trim());
    for token in [before.token.as_str(), new_token] {
        assert_eq!(status_with(&stack, token).await?, 200);
    }
    for role in Role::ALL {
        stack.broker.connect(role).await?;
        Bus::connect(before.settings(&stack.broker, role)?).await.with_context(|| format!("old {role}"))?;
    }
    let (new_hook, new_secret) = add(&quiet, &receiver).await?;
    for (hook, secret) in [(&old_hook, &old_secret), (&new_hook, &new_secret)] {
        quiet.json(&["webhook", "test", hook]).await?;
        check(secret, &receiver.next().await?)?;
    }

    // The old credentials are refused.
    step(&mut stack, &mut more, "retire").await?;
    again(&mut stack.gateway).await?;
    traffic.goes_on().await?;
    let signed = traffic.end().await?;
    ensure!(signed > 20, "only {signed} jobs were queued meanwhile");
    assert_eq!(status_with(&stack, &before.token).await?, 401);
    assert_eq!(status_with(&stack, new_token).await?, 200);
    for role in Role::ALL {
        let refused = Bus::connect(before.settings(&stack.broker, role)?).await;
        assert!(matches!(refused, Err(ConnectError::Refused { .. })), "old {role}: {refused:?}");
        stack.broker.connect(role).await?;
    }
    let mut settings = stack.broker.settings(Role::Service)?;
    settings.ca_file = Some(before.authority());
    let refused = Bus::connect(settings.clone()).await;
    assert!(matches!(refused, Err(ConnectError::Tls { .. })), "{refused:?}");
    let impostor = with_old_certificate(&stack, &before).await?;
    settings.urls = vec![impostor.url()];
    Bus::connect(settings.clone()).await.context("the old authority vouches for it")?;
    settings.ca_file = stack.broker.settings(Role::Service)?.ca_file;
    let refused = Bus::connect(settings).await;
    assert!(matches!(refused, Err(ConnectError::Tls { .. })), "{refused:?}");
    for (hook, secret, is_theirs) in [(&old_hook, &old_secret, false), (&new_hook, &new_secret, true)] {
        quiet.json(&["webhook", "test", hook]).await?;
        assert_eq!(check(secret, &receiver.next().await?).is_ok(), is_theirs);
    }
    let last = wallet.queue(&["message", "after"]).await?;
    results_are_by(&stack, &[(&first, &old_keys[0]), (&last, &new_keys[0])]).await?;
    records_are_by(&stack.duet(), &old_keys, &new_keys).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_databases_password__should_be_exchanged_worker_by_worker_while_jobs_go_on() -> Result<()> {
    // A server of its own, because a role and its password are shared by all databases of a server.
    let server = Postgres::start(&[]).await?;
    let mut stack = Stack::start_on(Some(databases::two(&server).await?)).await?;
    let mut more = stack.second_workers().await?;
    let wallet = stack.create_wallet("device", "personal_message").await?;
    let mut traffic = Traffic::start(&stack, &wallet);
    traffic.goes_on().await?;

    let next = "the next password";
    server.change_password(next).await?;
    let with_next = |party: &str| stack.party(party).command(&stack.duet()).with("DUET_STORE_PASSWORD", next);
    let (of_service, of_partner) = (with_next("service"), with_next("partner"));
    let [service, partner] = &mut more;
    for (worker, settings) in [
        (&mut stack.service, &of_service),
        (&mut stack.partner, &of_partner),
        (service, &of_service),
        (partner, &of_partner),
    ] {
        worker.set_settings(settings.clone());
        again(worker).await?;
    }
    traffic.goes_on().await?;
    traffic.end().await?;

    let party = stack.party("service");
    let database = party.database().context("the stack is on a server")?;
    let open = async |password: &str| {
        let options = PostgresOptions::at(&database.url).unwrap().with_password(&password.to_owned().into());
        PostgresStore::open(&options).await
    };
    let refused = open(&database.password).await.unwrap_err();
    // The SQL code of a wrong password.
    ensure!(format!("{refused:?}").contains("28P01"), "for another reason: {refused:?}");
    open(next).await?.close().await;
    Ok(())
}

/// Whether a client that trusts `authority` accepts the gateway.
async fn is_trusted_by(gateway: &str, authority: &Path) -> Result<bool> {
    let asked = https_client(authority)?.get(format!("{gateway}/healthz")).send().await;
    Ok(asked.is_ok_and(|answer| answer.status() == 200))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_certificate__should_be_exchanged_gateway_by_gateway() -> Result<()> {
    let stack = Stack::start().await?;
    // Two authorities, each with a certificate for the loopback.
    let directories = [tempfile::tempdir()?, tempfile::tempdir()?];
    for directory in &directories {
        initialise(directory.path(), &InitSettings::default())?;
    }
    let [old, new] = directories.each_ref().map(|directory| Layout::new(directory.path()));
    let served = tempfile::tempdir()?;
    let (certificate, key) = (served.path().join("certificate.pem"), served.path().join("key.pem"));
    let put = |layout: &Layout| -> Result<()> {
        fs::copy(layout.server_certificate(), &certificate)?;
        fs::copy(layout.server_key(), &key)?;
        Ok(())
    };
    put(&old)?;
    let paths = [&certificate, &key].map(|path| path.to_string_lossy().into_owned());
    let arguments = ["--tls-cert", &paths[0], "--tls-key", &paths[1]];
    let mut gateways = ["first", "second"].map(|name| stack.another_gateway(name, &arguments));
    let mut urls = Vec::new();
    for gateway in &mut gateways {
        urls.push(text(&gateway.start().await?, "/url")?.to_owned());
    }
    put(&new)?;
    for number in 0..gateways.len() {
        // Until its restart, it continues with its present certificate.
        ensure!(is_trusted_by(&urls[number], &old.ca_certificate()).await?);
        urls[number] = text(&again(&mut gateways[number]).await?, "/url")?.to_owned();
        ensure!(is_trusted_by(&urls[number], &new.ca_certificate()).await?);
        ensure!(!is_trusted_by(&urls[number], &old.ca_certificate()).await?);
    }
    Ok(())
}

/// Checks that each result is signed by its own key, and not by another.
async fn results_are_by(stack: &Stack, results: &[(&Value, &String)]) -> Result<()> {
    let all = results.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(",");
    for (number, (result, own)) in results.iter().enumerate() {
        let file = stack.directory().join(format!("result-{number}"));
        fs::write(&file, result.to_string())?;
        let file = file.to_string_lossy();
        let verify = |keys| ["verify", "result", file.as_ref(), "--orchestrator-key", keys];
        stack.duet().json(&verify(own)).await?;
        stack.duet().json(&verify(&all)).await?;
        for (_, other) in results.iter().filter(|(_, other)| other != own) {
            assert_eq!(stack.duet().refused(&verify(other)).await?.code, "bad-signature");
        }
    }
    Ok(())
}

/// Checks that the audit log has chains under the old and the new keys. An auditor who pins only
/// the new keys must learn of the old ones.
async fn records_are_by(duet: &Duet, old: &[String; 2], new: &[String; 2]) -> Result<()> {
    let pins = |keys: &[String; 2]| -> Vec<String> {
        let names = ["orchestrator", "gateway"].into_iter().zip(keys);
        names.flat_map(|(name, key)| ["--key".to_owned(), format!("{name}={key}")]).collect()
    };
    let verify = |pins: Vec<String>| [vec!["audit".to_owned(), "verify".to_owned()], pins].concat();
    let both = verify([pins(old), pins(new)].concat());
    duet.json(&both.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let new = verify(pins(new));
    let refused = duet.refused(&new.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    assert_eq!(refused.code, "audit-broken");
    Ok(())
}

/// Whether a node accepts this certificate from a peer that claims to be a node.
async fn is_taken_as_a_node(port: u16, folder: &Path, authority: &Path) -> Result<bool> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(folder.join("route.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("route.key"))?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("127.0.0.1")?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // With TLS 1.3, the peer learns of a refusal from what comes instead of the greeting.
    let mut greeting = [0; 4];
    let read = timeout(DEADLINE, stream.read_exact(&mut greeting)).await?;
    Ok(read.is_ok() && &greeting == b"INFO")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clusters_certificates__should_be_exchanged_node_by_node_while_messages_are_stored() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let layout = Layout::new(cluster.credentials());
    let duet = Duet::new(cluster.credentials());
    let before = tempfile::tempdir()?;
    let own = layout.node("n1");
    for file in [own.route_certificate(), own.route_key(), own.route_ca_certificate()] {
        fs::copy(&file, before.path().join(file.file_name().unwrap()))?;
    }
    let bus = cluster.connect(Role::Orchestrator).await?;
    bus.ensure_streams(&Cluster::storage()).await?;
    let (is_over, stored) = (Arc::new(AtomicBool::default()), Arc::new(AtomicU64::default()));
    let publisher = tokio::spawn({
        let (bus, is_over, stored) = (bus.clone(), Arc::clone(&is_over), Arc::clone(&stored));
        async move {
            let address = Address::Result(TENANT.parse()?);
            let mut again = interval(LOOK_INTERVAL);
            while !is_over.load(Ordering::Relaxed) {
                again.tick().await;
                let number = stored.load(Ordering::Relaxed);
                let id = format!("result-{number}");
                // An unacknowledged message is sent again, and stored once.
                if bus.publish_stored(&address, id.clone(), Some(&id), Duration::from_secs(5)).await.is_ok() {
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    for step in ["prepare", "switch", "retire"] {
        duet.json(&["credentials", step, "route-tls", "tls"]).await?;
        let so_far = stored.load(Ordering::Relaxed);
        for number in 0..NODES {
            cluster.restart_anew(number).await.with_context(|| format!("{step}, node {number}"))?;
        }
        ensure!(stored.load(Ordering::Relaxed) > so_far, "nothing was stored during {step}");
    }
    is_over.store(true, Ordering::Relaxed);
    publisher.await??;

    // All acknowledged messages are there. The nodes accept no node's certificate of the old
    // authority.
    let mut stream = bus.jetstream().get_stream(duet_bus::streams::RESULTS).await?;
    let there = stream.info().await?.state.messages;
    ensure!(there >= stored.load(Ordering::Relaxed), "{there} of {stored:?} are there");
    let port = cluster.node(1)?.ports().cluster;
    let authority = own.route_ca_certificate();
    assert!(is_taken_as_a_node(port, own.directory(), &authority).await?);
    assert!(!is_taken_as_a_node(port, before.path(), &authority).await?);
    let refused = is_taken_as_a_node(port, own.directory(), &before.path().join("route-ca.pem")).await;
    assert!(refused.is_err(), "the old authority vouches for no node");
    Ok(())
}
