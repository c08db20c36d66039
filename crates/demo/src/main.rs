//! The demonstration: a wallet without a single key holder signs two real transactions.
//!
//! `cargo xtask demo` installs and builds what it needs, and starts it. With `--once` it ends after
//! the last step. Otherwise everything runs until Ctrl-C. In both cases it leaves neither processes
//! nor files.
#![expect(clippy::print_stdout, reason = "it narrates on stdout")]

use std::{fs, path::Path, process::ExitCode, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use duet_harness::{
    anvil::{Anvil, CHAIN_ID},
    broker::Broker,
    duet::{Duet, text},
    judges,
    parties::PartyFolder,
    programs,
    stack::{ALL_KINDS, Stack, TENANT, Wallet, for_trying_out},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// One ether in wei.
const ETHER: u128 = 1_000_000_000_000_000_000;

/// The recipient of the transfers: an address without a known key.
const RECIPIENT: &str = "0x00000000000000000000000000000000DeaDBeef";

#[tokio::main]
async fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    let directory = match tempfile::Builder::new().prefix("duet-demo-").tempdir() {
        Ok(directory) => Arc::new(directory),
        Err(error) => {
            eprintln!("error: no temporary folder: {error}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        result = demonstrate(once, &directory) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nerror: {error:#}");
                print_logs(&directory.path().join("logs"));
                ExitCode::FAILURE
            }
        },
        () = interrupted() => {
            println!("\nInterrupted: ending every process and removing every file.");
            ExitCode::from(130)
        }
    }
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupted() {
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

/// Prints the end of every process's log.
fn print_logs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = fs::read(entry.path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("\n--- the end of {}", entry.file_name().to_string_lossy());
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            eprintln!("{line}");
        }
    }
}

/// Numbers the steps, and prints how long each took.
struct Narrator {
    step: u32,
    started: Instant,
}

impl Narrator {
    fn new() -> Self {
        Self { step: 0, started: Instant::now() }
    }

    /// Announces a step, runs it, and prints how long it took.
    async fn step<T>(&mut self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.step += 1;
        println!("\n[{}] {title}", self.step);
        let started = Instant::now();
        let done = work.await.with_context(|| format!("step {} failed ({title})", self.step))?;
        detail("done in", &format!("{:.2} s", started.elapsed().as_secs_f64()));
        Ok(done)
    }
}

/// Prints one fact about the last step.
fn detail(name: &str, value: &str) {
    println!("    {name:<22} {value}");
}

async fn demonstrate(once: bool, directory: &Arc<TempDir>) -> Result<()> {
    println!("Duet: two of three parties sign; nobody ever holds the key.");
    println!("Everything below runs on this machine, in processes of its own, and is removed afterwards.");
    let mut narrator = Narrator::new();

    let credentials = directory.path().join("credentials");
    let duet = Duet::new(&credentials);
    narrator
        .step(
            "Development credentials: a key for each role, TLS certificates, a tenant's token (duet init)",
            async { duet.json(&["init", "--dir", &credentials.to_string_lossy(), "--tenant", TENANT]).await },
        )
        .await?;

    let broker = narrator
        .step("A broker from the repository's nats.conf, on a free port", Broker::start_in(&credentials))
        .await?;
    detail("nats-server", &broker.url());
    let duet = duet.with("DUET_NATS_URL", &broker.url());

    let folders =
        [PartyFolder::new(directory.path(), "service"), PartyFolder::new(directory.path(), "partner")];
    let fingerprints = narrator
        .step("Both parties make their cards (four safe primes of 1024 bits: the one slow step)", async {
            let [service, partner] = &folders;
            let (service, partner) = tokio::try_join!(service.set_up(&duet), partner.set_up(&duet))?;
            Ok([service, partner])
        })
        .await?;
    for (folder, fingerprint) in folders.iter().zip(&fingerprints) {
        detail(&format!("card of {}", folder.name()), fingerprint);
    }
    let [service, partner] = &folders;
    let tokens = [service.token(&duet, TENANT).await?, partner.token(&duet, TENANT).await?];

    let mut stack = narrator
        .step(
            "Orchestrator, service, partner and gateway start, each with its own files and credentials",
            Stack::run(Arc::clone(directory), broker, &duet, &folders, fingerprints, tokens),
        )
        .await?;
    detail("HTTP interface", stack.api_url());

    let anvil =
        narrator.step("A local Ethereum node (anvil)", Anvil::start(&directory.path().join("logs"))).await?;
    detail("node", &format!("{}, chain {CHAIN_ID}", anvil.url()));
    let more = for_trying_out(anvil.url());
    narrator
        .step(
            "The gateway is told of the node, for browsers, and to allow pages of this machine",
            stack.restart_gateway_with(&more.each_ref().map(String::as_str)),
        )
        .await?;
    detail("gateway", &stack.page_url());

    let wallet = narrator
        .step(
            "A device makes a 2-of-3 wallet; service and partner verify, store, and enrol with each other",
            stack.create_wallet("device", ALL_KINDS),
        )
        .await?;
    detail("address", &wallet.address);
    detail("wallet", &wallet.id);
    details_of_steps(&wallet.created);

    narrator
        .step("One of the node's rich accounts funds the address", anvil.fund(&wallet.address, 2 * ETHER))
        .await?;
    detail("balance", &ether(anvil.balance(&wallet.address).await?));

    let by_device = narrator
        .step("Device + service sign an EIP-1559 transfer of 0.5 ether and broadcast it", async {
            let payload =
                ["tx", "--to", RECIPIENT, "--value", "0.5ether", "--rpc", anvil.url(), "--broadcast"];
            wallet.sign(&payload, "service").await
        })
        .await?;
    details_of_steps(&by_device);
    detail("transaction", text(&by_device, "/transaction_hash")?);
    let receipt = by_device.get("receipt").context("the command shows the receipt")?;
    detail(
        "receipt",
        &format!("block {}, gas {}", member(receipt, "block_number"), member(receipt, "gas_used")),
    );

    let queued = narrator
        .step("A queued job: service + partner sign a transfer of 0.25 ether with the device absent", async {
            wallet.queue(&["tx", "--to", RECIPIENT, "--value", "0.25ether", "--rpc", anvil.url()]).await
        })
        .await?;
    let job = queued.get("job").context("the command shows the job")?;
    detail("job", text(job, "/id")?);
    detail("signed by", text(job, "/pair")?);

    let raw = text(job, "/signed_transaction")?;
    let receipt = narrator.step("It is broadcast too", anvil.broadcast(raw)).await?;
    detail("transaction", text(&receipt, "/transactionHash")?);
    detail("recipient's balance", &ether(anvil.balance(RECIPIENT).await?));

    let verdict = narrator
        .step("Both are verified by ethers and viem, which had no part in making them", async {
            let check = |name: &str, raw: &str, wei: u128| {
                json!({"name": name, "kind": "transaction", "address": wallet.address, "signed_transaction": raw,
                       "expect": {"chainId": CHAIN_ID, "to": RECIPIENT, "value": wei.to_string()}})
            };
            let first = check("device + service", text(&by_device, "/signed_transaction")?, ETHER / 2);
            judges::verify(&[first, check("service + partner", raw, ETHER / 4)]).await
        })
        .await?;
    for check in verdict.pointer("/checks").and_then(Value::as_array).into_iter().flatten() {
        let signers =
            format!("ethers {}, viem {}", text(check, "/ethers/signer")?, text(check, "/viem/signer")?);
        detail(text(check, "/name")?, &signers);
    }

    println!("\nAll of it took {:.1} s.", narrator.started.elapsed().as_secs_f64());
    if !once {
        summary(&stack, &wallet, anvil.url())?;
        interrupted().await;
        println!("\nEnding every process and removing every file.");
    }
    Ok(())
}

/// Prints what the user can try while everything runs.
fn summary(stack: &Stack, wallet: &Wallet, node: &str) -> Result<()> {
    println!("\nEverything keeps running until Ctrl-C. In another terminal:\n");
    for (name, value) in wallet.duet.variables() {
        println!("  export {name}='{value}'");
    }
    println!("  export DUET_RPC_URL='{node}'");
    let duet = programs::duet()?;
    let (duet, key) = (duet.display(), wallet.requester_key.display());
    println!("\n  {duet} wallet show");
    println!("  {duet} sign message 'Hello' --with partner");
    println!("  {duet} sign tx --to {RECIPIENT} --value 0.1ether --with service --broadcast");
    println!("  {duet} job submit message 'Paid' --wallet {} --requester-key {key} --wait", wallet.id);
    println!("  {duet} job list");
    println!("  curl {}/readyz", stack.api_url());
    if programs::page().is_some() {
        println!("\nThe page, in which a browser is the device:\n\n  {}", stack.page_url());
        println!(
            "\nA page of your own on this machine may use it too. The repository's example for viem, in frontend-wasm/:\n"
        );
        println!("  npm run dev --workspace examples/viem");
        println!("  http://localhost:5173/?gateway={}", stack.page_url());
    } else {
        println!(
            "\nThe page has not been built (DUET_PAGE names no folder of it); its gateway is at {}",
            stack.page_url()
        );
    }
    Ok(())
}

/// Prints the timings that a command reported of its steps.
fn details_of_steps(document: &Value) {
    for step in document.get("steps").and_then(Value::as_array).into_iter().flatten() {
        let name = step.get("name").and_then(Value::as_str).unwrap_or_default();
        detail(&format!("- {name}"), &format!("{} ms", member(step, "millis")));
    }
}

fn member(document: &Value, name: &str) -> String {
    document.get(name).map(ToString::to_string).unwrap_or_default()
}

fn ether(wei: u128) -> String {
    let (whole, rest) = (wei / ETHER, wei % ETHER);
    let text = format!("{whole}.{rest:018}");
    format!("{} ether", text.trim_end_matches('0').trim_end_matches('.'))
}
