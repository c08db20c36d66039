//! The demonstration: a wallet without a single key holder signs two real transactions.
//!
//! `cargo xtask demo` installs and builds what it needs, and starts it. With `--once` it ends after
//! the last step. Otherwise everything runs until Ctrl-C. It leaves no processes, and without
//! `--keep` no files either.
//!
//! [`place`] is where the files are. [`narrator`] prints the steps.
#![expect(clippy::print_stdout, reason = "it narrates on stdout")]

mod narrator;
mod place;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
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
use tokio::signal::unix::{SignalKind, signal};

use self::{
    narrator::{Narrator, Stage, detail, details_of_steps, member},
    place::Place,
};

/// One ether in wei.
const ETHER: u128 = 1_000_000_000_000_000_000;

/// The folder of the device's wallets.
const DEVICE: &str = "device";

/// The recipient of the transfers: an address without a known key.
const RECIPIENT: &str = "0x00000000000000000000000000000000DeaDBeef";

/// The highest port of which three more are above it.
const MAX_PORT: i64 = u16::MAX as i64 - 3;

#[derive(Debug, Parser)]
#[command(name = "demo", about = "Shows Duet at work on this machine")]
struct Arguments {
    /// Stop after the last step
    #[arg(long)]
    once: bool,
    /// Keep wallets, stores and chain in this folder, and go on with those that are there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Port of the HTTP interface; gateway, node and broker take the three ports above it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_PORT))]
    port: Option<u16>,
    /// A stage that ended before, as NAME=SECONDS
    #[arg(long = "stage", hide = true)]
    stages: Vec<Stage>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let place = match Place::new(arguments.keep.as_deref(), arguments.port) {
        Ok(place) => place,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        result = demonstrate(&arguments, &place) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nerror: {error:#}");
                print_logs(&place.path().join("logs"));
                ExitCode::FAILURE
            }
        },
        () = interrupted() => {
            println!("\nInterrupted: {}", ending(&place));
            ExitCode::from(130)
        }
    }
}

/// What happens at the end.
const fn ending(place: &Place) -> &'static str {
    if place.is_kept() {
        "ending every process and keeping every file."
    } else {
        "ending every process and removing every file."
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

async fn demonstrate(arguments: &Arguments, place: &Place) -> Result<()> {
    println!("Duet: two of three parties sign; the whole key exists nowhere.");
    if place.is_kept() {
        println!("Everything below runs on this machine. Its files stay in {}.", place.path().display());
    } else {
        println!(
            "Everything below runs on this machine, in processes of its own, and is removed afterwards."
        );
    }
    let mut narrator = Narrator::new();
    let (mut stack, anvil) = start(place, &mut narrator).await?;

    let more = for_trying_out(anvil.url());
    narrator
        .step(
            "The gateway is told of the node, for browsers, and to allow pages of this machine",
            stack.restart_gateway_with(&more.each_ref().map(String::as_str)),
        )
        .await?;
    detail("gateway", &stack.page_url());

    let wallet = match stack.first_wallet(DEVICE).await? {
        Some(wallet) => {
            narrator
                .step("The device's wallet is there from an earlier run", stack.all_pairs_ready(&wallet.id))
                .await?;
            wallet
        }
        None => {
            place.forget(format!("{DEVICE}.requester"))?;
            narrator
                .step(
                    "A device makes a 2-of-3 wallet; service and partner verify, store, and enrol with each other",
                    stack.create_wallet(DEVICE, ALL_KINDS),
                )
                .await?
        }
    };
    detail("address", &wallet.address);
    detail("wallet", &wallet.id);
    details_of_steps(&wallet.created);
    sign(&wallet, &anvil, &mut narrator).await?;

    narrator.report(&arguments.stages);
    if arguments.once {
        next_steps(arguments);
    } else {
        summary(&stack, &wallet, anvil.url())?;
        interrupted().await;
        println!("\n{}", ending(place));
    }
    Ok(())
}

/// Starts every process of Duet, and an Ethereum node.
async fn start(place: &Place, narrator: &mut Narrator) -> Result<(Stack, Anvil)> {
    let credentials = place.path().join("credentials");
    let duet = Duet::new(&credentials);
    if credentials.join("orchestrator.key").exists() {
        println!("\nCredentials of an earlier run are there.");
    } else {
        narrator
            .step(
                "Development credentials: a key for each role, TLS certificates, a tenant's token (duet init)",
                async { duet.json(&["init", "--dir", &credentials.to_string_lossy(), "--tenant", TENANT]).await },
            )
            .await?;
    }

    let broker = narrator
        .step("A broker from the repository's nats.conf", Broker::start_at(&credentials, place.broker_port()))
        .await?;
    detail("nats-server", &broker.url());
    let duet = duet.with("DUET_NATS_URL", &broker.url());

    let folders = [PartyFolder::new(place.path(), "service"), PartyFolder::new(place.path(), "partner")];
    let [service, partner] = &folders;
    let known = tokio::join!(service.fingerprint(&duet), partner.fingerprint(&duet));
    let fingerprints = match known {
        (Ok(service), Ok(partner)) => {
            println!("\nThe cards of both parties are there from an earlier run.");
            [service, partner]
        }
        _ => {
            narrator
                .step(
                    "Both parties make their cards (four safe primes of 1024 bits: the one slow step)",
                    async {
                        let (service, partner) =
                            tokio::try_join!(service.set_up(&duet), partner.set_up(&duet))?;
                        Ok([service, partner])
                    },
                )
                .await?
        }
    };
    for (folder, fingerprint) in folders.iter().zip(&fingerprints) {
        detail(&format!("card of {}", folder.name()), fingerprint);
        place.forget(Path::new(folder.name()).join(format!("{TENANT}.token")))?;
    }
    let tokens = [service.token(&duet, TENANT).await?, partner.token(&duet, TENANT).await?];

    let stack = narrator
        .step(
            "Orchestrator, service, partner and gateway start, each with its own files and credentials",
            Stack::run_at(
                &place.listen(),
                place.directory().clone(),
                broker,
                &duet,
                &folders,
                fingerprints,
                tokens,
            ),
        )
        .await?;
    detail("HTTP interface", stack.api_url());

    let (logs, chain) = (place.path().join("logs"), place.chain());
    let anvil = narrator
        .step("A local Ethereum node (anvil)", Anvil::start_at(&logs, place.node_port(), chain.as_deref()))
        .await?;
    detail("node", &format!("{}, chain {CHAIN_ID}", anvil.url()));
    Ok((stack, anvil))
}

/// Has the wallet sign two transactions, and ethers and viem verify both.
async fn sign(wallet: &Wallet, anvil: &Anvil, narrator: &mut Narrator) -> Result<()> {
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
    narrator.signed();
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
    Ok(())
}

/// Prints what the user can type after a run that has ended.
fn next_steps(arguments: &Arguments) {
    println!("\nWhat to type next:\n");
    if let Some(folder) = &arguments.keep {
        let port = arguments.port.map(|port| format!(" --port {port}")).unwrap_or_default();
        let again = format!("cargo xtask demo --keep {}{port}", folder.display());
        println!("  {again} --once    # signs with this wallet again");
        println!("  {again}           # keeps everything running, to try the commands");
    } else {
        println!(
            "  cargo xtask demo                            # keeps everything running, to try the commands"
        );
        println!(
            "  cargo xtask demo --page                     # with the page, in which a browser is the device"
        );
        println!(
            "  cargo xtask demo --keep DIR --port 7000     # keeps wallet and addresses for the next run"
        );
    }
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
        println!("\nFor the page, in which a browser is the device: cargo xtask demo --page");
    }
    Ok(())
}

fn ether(wei: u128) -> String {
    let (whole, rest) = (wei / ETHER, wei % ETHER);
    let text = format!("{whole}.{rest:018}");
    format!("{} ether", text.trim_end_matches('0').trim_end_matches('.'))
}
