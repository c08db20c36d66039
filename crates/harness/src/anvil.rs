//! A local Ethereum node, and the calls that tests make to it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{interval, timeout},
};

use crate::{process::Process, programs};

/// How long the node may take before it listens.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long the node may take to answer. It mines at once.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// The interval between two questions for a receipt.
const RECEIPT_INTERVAL: Duration = Duration::from_millis(20);

/// The chain id of a local node.
pub const CHAIN_ID: u64 = 31337;

/// A node on a free port. Its accounts hold 10,000 ether each, and are unlocked.
#[derive(Debug)]
pub struct Anvil {
    process: Process,
    url: String,
    client: reqwest::Client,
}

impl Anvil {
    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// When anvil is not installed or does not start.
    pub async fn start(logs: &Path) -> Result<Self> {
        Self::start_at(logs, 0, None).await
    }

    /// Starts a node at this port, and waits until it listens. 0 picks a free one. With a file, the
    /// node goes on with the chain in it, and saves its chain there every second.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(logs: &Path, port: u16, chain: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(programs::anvil()?);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        if let Some(file) = chain {
            command.arg("--state").arg(file).args(["--state-interval", "1"]);
        }
        let mut process = Process::start("anvil", command, logs)?;
        let address = process
            .line(START_DEADLINE, |line| {
                line.strip_prefix("Listening on ").map(|address| address.trim().to_owned())
            })
            .await?;
        Ok(Self { process, url: format!("http://{address}"), client: http_client()? })
    }

    /// The URL of its interface.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The node's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Calls a method of the node.
    ///
    /// # Errors
    /// When the node cannot be reached or answers with an error.
    pub async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let answer: Value =
            self.client.post(&self.url).timeout(CALL_DEADLINE).json(&request).send().await?.json().await?;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error}");
        }
        answer.get("result").cloned().with_context(|| format!("{method}: no result"))
    }

    /// Sends `wei` from the node's first account.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn fund(&self, address: &str, wei: u128) -> Result<()> {
        let accounts = self.call("eth_accounts", json!([])).await?;
        let from = accounts.get(0).context("the node has no accounts")?;
        let transaction = json!({"from": from, "to": address, "value": format!("{wei:#x}")});
        let hash = self.call("eth_sendTransaction", json!([transaction])).await?;
        self.receipt(&hash).await.map(|_| ())
    }

    /// Broadcasts a signed transaction and returns its receipt.
    ///
    /// # Errors
    /// When the node refuses it or it reverts.
    pub async fn broadcast(&self, signed_transaction: &str) -> Result<Value> {
        let hash = self.call("eth_sendRawTransaction", json!([signed_transaction])).await?;
        self.receipt(&hash).await
    }

    /// The receipt of a sent transaction, once it is mined.
    ///
    /// # Errors
    /// When it is not mined in time or reverts.
    pub async fn receipt(&self, hash: &Value) -> Result<Value> {
        // The node mines every transaction at once, but answers before it has mined it.
        let mut look_again = interval(RECEIPT_INTERVAL);
        let receipt = timeout(CALL_DEADLINE, async {
            loop {
                look_again.tick().await;
                let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await?;
                if !receipt.is_null() {
                    return Ok::<_, anyhow::Error>(receipt);
                }
            }
        });
        let receipt = receipt.await.with_context(|| format!("transaction {hash} was not mined"))??;
        if receipt.get("status").and_then(Value::as_str) != Some("0x1") {
            bail!("transaction {hash} was not executed: {receipt}");
        }
        Ok(receipt)
    }

    /// An address's balance in wei.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn balance(&self, address: &str) -> Result<u128> {
        let balance = self.call("eth_getBalance", json!([address, "latest"])).await?;
        let balance = balance.as_str().context("a balance is text")?;
        Ok(u128::from_str_radix(balance.trim_start_matches("0x"), 16)?)
    }

    /// The nonce of an address's next transaction.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn nonce(&self, address: &str) -> Result<u64> {
        let count = self.call("eth_getTransactionCount", json!([address, "latest"])).await?;
        let count = count.as_str().context("a count is text")?;
        Ok(u64::from_str_radix(count.trim_start_matches("0x"), 16)?)
    }
}

/// An HTTP client for servers on this machine.
///
/// # Errors
/// When the client cannot be built.
pub fn http_client() -> Result<reqwest::Client> {
    Ok(client_builder().build()?)
}

/// An HTTP client that trusts only the authorities in this file (PEM).
///
/// # Errors
/// When the client cannot be built, or when the file has no certificate.
pub fn https_client(authorities: &Path) -> Result<reqwest::Client> {
    let authorities = reqwest::Certificate::from_pem_bundle(&std::fs::read(authorities)?)?;
    anyhow::ensure!(!authorities.is_empty(), "no certificate");
    Ok(client_builder().tls_certs_only(authorities).build()?)
}

fn client_builder() -> reqwest::ClientBuilder {
    // An error means that a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Limits idle connections: what a server holds for them would look like a leak.
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(4)
}
