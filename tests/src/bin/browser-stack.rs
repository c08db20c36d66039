//! The real stack for tests in a browser: broker, orchestrator, parties, a gateway that serves the
//! page, and an Ethereum node. The test talks to it in JSON, one document a line.
//!
//! When everything serves, it prints one line of facts. Then it obeys orders `{"id", "do", …}` on
//! standard input, and answers each with `{"id", "value"}` or `{"id", "error"}`. When standard
//! input closes, it ends all processes and removes all files.
//!
//! `DUET_PAGE` is the folder of the built page. The gateway has the settings of the demonstration.
#![expect(clippy::print_stdout, reason = "its answers are its output")]

use std::{
    fs,
    io::{BufRead as _, stdin},
    path::PathBuf,
    thread,
};

use anyhow::{Context, Result, bail};
use duet_actors::{
    lying_gateway::{Lie, LyingGateway},
    malicious,
};
use duet_harness::{
    anvil::{Anvil, CHAIN_ID},
    duet::{Duet, text},
    programs,
    stack::{Server, Stack, TENANT, for_trying_out},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// The most orders that wait. A test that sends more blocks at the pipe.
const ORDERS: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let mut theatre = Theatre::start().await?;
    println!("{}", theatre.facts()?);
    let (sender, mut orders) = mpsc::channel(ORDERS);
    // In a thread of its own: a read of standard input cannot be cancelled at the end.
    thread::spawn(move || {
        stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.blocking_send(line))
    });
    while let Some(line) = orders.recv().await {
        let order: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        let id = order.get("id").cloned().unwrap_or_default();
        match theatre.obey(&order).await {
            Ok(value) => println!("{}", json!({"id": id, "value": value})),
            Err(error) => println!("{}", json!({"id": id, "error": format!("{error:#}")})),
        }
    }
    Ok(())
}

/// All running processes.
struct Theatre {
    anvil: Anvil,
    stack: Stack,
    /// A gateway that allows only its own page.
    strict: Server,
    strict_url: String,
    /// The key of a team that may queue jobs, for wallets made with it.
    requester_key: PathBuf,
    requester: String,
    /// A relay in front of the gateway, after a test asked for one that lies.
    liar: Option<LyingGateway>,
    /// A gateway with production settings, after a test asked for one.
    production: Option<Server>,
}

impl Theatre {
    async fn start() -> Result<Self> {
        programs::page().context("DUET_PAGE names no folder with a built page")?;
        let mut stack = Stack::start().await?;
        let anvil = Anvil::start(&stack.directory().join("logs")).await?;
        let mut strict = stack.another_gateway("strict", &[]);
        let ready = strict.start().await?;
        let strict_url = text(&ready, "/url")?.replace("127.0.0.1", "localhost");
        let more = for_trying_out(anvil.url());
        stack.restart_gateway_with(&more.each_ref().map(String::as_str)).await?;
        let requester_key = stack.directory().join("team.requester");
        let made =
            stack.duet().json(&["requester", "new", "--out", &requester_key.to_string_lossy()]).await?;
        let requester = text(&made, "/public_key")?.to_owned();
        Ok(Self { anvil, stack, strict, strict_url, requester_key, requester, liar: None, production: None })
    }

    /// The facts that a test needs.
    fn facts(&self) -> Result<Value> {
        let arguments = self.stack.wallet_arguments();
        let option = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1)).with_context(|| format!("no {name}"))
        };
        let mut parties = Vec::new();
        let mut tokens = Vec::new();
        for role in ["service", "partner"] {
            let fingerprint = option(&format!("--{role}-fingerprint"))?;
            parties.push(json!({"role": role, "name": role, "fingerprint": fingerprint}));
            tokens.push(fs::read_to_string(option(&format!("--{role}-token-file"))?)?.trim().to_owned());
        }
        Ok(json!({
            "parties": parties,
            "tokens": tokens,
            "certificate": self.tls_file("server.pem"),
            "key": self.tls_file("server.key"),
            "ready": true,
            "gateway": self.stack.gateway_url(),
            "strictGateway": self.strict_url,
            "api": self.stack.api_url(),
            "rpc": self.anvil.url(),
            "chainId": CHAIN_ID,
            "tenant": TENANT,
            "requester": self.requester,
            "logs": self.stack.directory().join("logs"),
        }))
    }

    async fn obey(&mut self, order: &Value) -> Result<Value> {
        match text(order, "/do")? {
            "kill" => self.server(order)?.kill().await?,
            "stop" => return Ok(json!(self.server(order)?.stop().await?)),
            "start" => return self.server(order)?.start().await,
            "restart" => {
                let server = self.server(order)?;
                server.kill().await?;
                return server.start().await;
            }
            "pause" => self.server(order)?.process()?.pause()?,
            "resume" => self.server(order)?.process()?.resume()?,
            "log" => return Ok(json!(self.server(order)?.log_tail(50))),
            "fund" => self.anvil.fund(text(order, "/address")?, text(order, "/wei")?.parse()?).await?,
            "balance" => return Ok(json!(self.anvil.balance(text(order, "/address")?).await?.to_string())),
            "receipt" => return self.anvil.receipt(&json!(text(order, "/hash")?)).await,
            "spoil" => return self.spoil(order).await,
            "lie" => return self.lie(text(order, "/lie")?.parse()?).await,
            "taken" => {
                let liar = self.liar.as_ref().context("no gateway lies yet")?;
                return Ok(json!({"packages": liar.packages(), "key": liar.stolen_key()?.is_some()}));
            }
            "production" => return self.production(text(order, "/origin")?).await,
            "pairs-ready" => self.stack.all_pairs_ready(text(order, "/wallet")?).await?,
            "submit" => return self.submit(order).await,
            "job" => return self.team().json(&["job", "get", text(order, "/job")?]).await,
            "watch" => {
                return self.team().json(&["job", "watch", text(order, "/job")?, "--timeout", "60s"]).await;
            }
            other => bail!("there is no order `{other}`"),
        }
        Ok(Value::Null)
    }

    fn server(&mut self, order: &Value) -> Result<&mut Server> {
        Ok(match text(order, "/what")? {
            "gateway" => &mut self.stack.gateway,
            "strict" => &mut self.strict,
            "service" => &mut self.stack.service,
            "partner" => &mut self.stack.partner,
            "orchestrator" => &mut self.stack.orchestrator,
            other => bail!("there is no server `{other}`"),
        })
    }

    /// Makes a party, `what`, answer a wallet's device with wrong ciphertexts.
    async fn spoil(&mut self, order: &Value) -> Result<Value> {
        let wallet = text(order, "/wallet")?.parse().context("wallet: no wallet's id")?;
        self.server(order)?.stop().await?;
        malicious::answer_badly(&self.stack.party(text(order, "/what")?), wallet).await?;
        self.server(order)?.start().await
    }

    /// Puts a lying relay in front of the gateway, or changes what it lies about.
    async fn lie(&mut self, lie: Lie) -> Result<Value> {
        match &self.liar {
            Some(liar) => liar.lie(lie)?,
            None => self.liar = Some(LyingGateway::start(self.stack.gateway_url(), lie).await?),
        }
        Ok(json!(self.liar.as_ref().map(LyingGateway::url)))
    }

    /// Starts a gateway with production settings: reachable from other machines, with TLS, without
    /// tokens, for the pages of one origin.
    async fn production(&mut self, origin: &str) -> Result<Value> {
        let (certificate, key) = (self.tls_file("server.pem"), self.tls_file("server.key"));
        let (rpc, chain) = (self.anvil.url(), CHAIN_ID.to_string());
        let arguments = [
            &["gateway", "--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key][..],
            &["--origin", origin, "--tenant", TENANT, "--rpc", rpc, "--chain-id", &chain],
        ]
        .concat();
        let logs = self.stack.directory().join("logs");
        let gateway = Server::new("production", self.stack.duet(), &arguments, &logs);
        let ready = self.production.insert(gateway).start().await?;
        Ok(json!(text(&ready, "/url")?))
    }

    /// The path of this machine's certificate or of its key.
    fn tls_file(&self, name: &str) -> String {
        self.stack.broker.credentials().join("tls").join(name).to_string_lossy().into_owned()
    }

    /// The command with a team's settings.
    fn team(&self) -> Duet {
        self.stack.duet()
    }

    /// Queues a job as a team does: `duet job submit <payload> --wallet … --pairs …`.
    async fn submit(&self, order: &Value) -> Result<Value> {
        let words = |name: &str| -> Result<Vec<&str>> {
            let list = order.get(name).and_then(Value::as_array).with_context(|| format!("no {name}"))?;
            list.iter().map(|word| word.as_str().with_context(|| format!("{name}: not text"))).collect()
        };
        let key = self.requester_key.to_string_lossy();
        let mut arguments = vec!["job", "submit"];
        arguments.extend(words("payload")?);
        arguments.extend(["--wallet", text(order, "/wallet")?, "--requester-key", &key]);
        arguments.extend(["--pairs", text(order, "/pairs")?]);
        let document = self.team().json(&arguments).await?;
        document.get("job").cloned().with_context(|| format!("no job in {document}"))
    }
}
