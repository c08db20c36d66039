//! An Ethereum node. It fills in the missing members of a transaction, and broadcasts it.

use std::{fmt, time::Duration};

use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U128, U256};
use backon::{ExponentialBuilder, Retryable as _};
use clap::Args;
use duet_wire::{
    Code,
    payload::{Chain, TransactionDraft, TransactionType},
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    duration,
    error::{CliError, ErrorCode, payload_error},
    json_rpc::{CallError, JsonRpc},
    outgoing::{self, Route},
    transaction::Draft,
};

/// The deadline of one call to the node.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The number of recent blocks from which the priority fee is derived.
const FEE_HISTORY_BLOCKS: u64 = 10;

/// No parameters: an empty list in JSON.
const NOTHING: [(); 0] = [];

/// The node, and whether it broadcasts.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeOptions {
    /// Ethereum node that fills in chain id, nonce, gas and fees
    #[arg(
        long,
        env = "DUET_RPC_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Ethereum node"
    )]
    pub(crate) rpc: Option<String>,
    /// Broadcast the signed transaction and wait for its receipt
    #[arg(long, requires = "rpc", help_heading = "Ethereum node")]
    pub(crate) broadcast: bool,
    /// How long to wait for the receipt
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "60s",
        value_parser = duration::parse,
        help_heading = "Ethereum node"
    )]
    pub(crate) receipt_timeout: Duration,
}

impl NodeOptions {
    /// The node, if the user named one.
    ///
    /// # Errors
    /// When its address is no HTTP URL.
    pub(crate) fn node(&self) -> Result<Option<Node>, CliError> {
        self.rpc.as_deref().map(Node::new).transpose()
    }
}

/// A connection to an Ethereum node.
pub(crate) struct Node {
    rpc: JsonRpc,
    // Errors show only the host: node providers put keys into paths and queries.
    host: String,
    route: Route,
}

/// The chain's record of an included transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Receipt {
    /// The transaction's hash.
    pub(crate) transaction_hash: B256,
    /// The block's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block_number: Option<u64>,
    /// Whether its execution succeeded.
    pub(crate) status: bool,
    /// Gas used.
    pub(crate) gas_used: u64,
    /// The price paid for a unit of gas, in wei, in decimal digits.
    pub(crate) effective_gas_price: String,
    /// The address of a created contract, with the EIP-55 checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contract: Option<String>,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "included")?;
        if let Some(number) = self.block_number {
            write!(f, " in block {number}")?;
        }
        write!(f, ", {} gas at {} wei", self.gas_used, self.effective_gas_price)?;
        if let Some(contract) = &self.contract {
            write!(f, ", contract {contract}")?;
        }
        Ok(())
    }
}

impl Node {
    /// A client for the node. It sends nothing yet.
    ///
    /// # Errors
    /// When `url` is no HTTP URL, or contains a password that would travel without TLS.
    pub(crate) fn new(url: &str) -> Result<Self, CliError> {
        let url: reqwest::Url =
            url.parse().map_err(|error| CliError::usage(format!("--rpc is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(CliError::usage("--rpc takes an http or https URL"));
        }
        let host = url.host_str().unwrap_or("node").to_owned();
        if !url.username().is_empty() || url.password().is_some() {
            outgoing::may_carry("the password in it", &url, "rpc")?;
        }
        let route = Route::to(&url, "rpc")?;
        let client = route
            .client()?
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(|error| CliError::internal(format!("no HTTP client: {error}")))?;
        Ok(Self { rpc: JsonRpc::new(client, url), host, route })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: impl Serialize + Send,
    ) -> Result<T, CliError> {
        self.rpc.call(method, parameters).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &CallError) -> CliError {
        match error {
            CallError::Refused(answer) => CliError::new(
                ErrorCode::NodeRefused,
                format!("the node {} refuses: {} ({})", self.host, answer.message, answer.code),
            ),
            CallError::Unusable => {
                let what = format!("no usable answer from the node {}{}", self.host, self.route.described());
                let error = CliError::new(ErrorCode::NodeUnreachable, what);
                match self.route.remedy() {
                    Some(remedy) => error.remedy(remedy),
                    None => error,
                }
            }
        }
    }

    /// The node's chain.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(crate) async fn chain_id(&self) -> Result<u64, CliError> {
        Ok(self.call::<U64>("eth_chainId", NOTHING).await?.to())
    }

    /// Refuses a transaction for a chain other than the node's.
    ///
    /// # Errors
    /// `chain-id-mismatch`, or when the node does not answer.
    pub(crate) async fn check_chain_id(&self, wanted: Option<u64>) -> Result<u64, CliError> {
        let actual = self.chain_id().await?;
        match wanted {
            Some(wanted) if wanted != actual => Err(CliError::new(
                Code::ChainIdMismatch,
                format!(
                    "the transaction is for chain {wanted}, but the node {} is on chain {actual}",
                    self.host
                ),
            )
            .at("chainId")),
            _ => Ok(actual),
        }
    }

    /// Fills in chain id, nonce, gas and fees where `draft` has none. Given members stay.
    ///
    /// # Errors
    /// `chain-id-mismatch`. When the node does not answer, or cannot run the transaction.
    pub(crate) async fn fill(&self, mut draft: Draft, from: Address) -> Result<Draft, CliError> {
        let members = &mut draft.members;
        let wanted = match members.chain {
            Some(Chain::Id(id)) => Some(id),
            Some(Chain::Any) | None => None,
        };
        members.chain = Some(Chain::Id(self.check_chain_id(wanted).await?));
        if members.nonce.is_none() {
            let next: U64 = self.call("eth_getTransactionCount", (from, "pending")).await?;
            members.nonce = Some(next.to());
        }
        self.fill_fees(members).await?;
        if members.gas.is_none()
            && let Some(to) = members.to
        {
            let call = NodeCall {
                from,
                to,
                value: members.value,
                input: members.input.clone().unwrap_or_default(),
                access_list: members.access_list.clone(),
            };
            let gas: U64 = self.call("eth_estimateGas", (call, "pending")).await?;
            members.gas = Some(gas.to());
        }
        Ok(draft)
    }

    /// Fills in fees as the chain requires: EIP-1559 fees where blocks have a base fee, else a gas
    /// price.
    async fn fill_fees(&self, members: &mut TransactionDraft) -> Result<(), CliError> {
        match members.known_type() {
            Some(TransactionType::Legacy | TransactionType::AccessList) => self.fill_price(members).await,
            Some(TransactionType::DynamicFee)
                if members.max_fee_per_gas.is_some() && members.max_priority_fee_per_gas.is_some() =>
            {
                Ok(())
            }
            kind => match (self.base_fee().await?, kind) {
                (Some(base_fee), _) => self.fill_dynamic_fees(members, base_fee).await,
                (None, None) => {
                    let has_list = members.access_list.is_some();
                    let kind = if has_list { TransactionType::AccessList } else { TransactionType::Legacy };
                    members.transaction_type = Some(kind);
                    self.fill_price(members).await
                }
                (None, Some(_)) => Err(CliError::new(
                    Code::InvalidPayload,
                    "type: the chain's blocks have no base fee, so that it takes no transaction of EIP-1559",
                )
                .at("type")
                .remedy("Leave out the type and the fees of EIP-1559, or give a gas price.")),
            },
        }
    }

    async fn fill_price(&self, members: &mut TransactionDraft) -> Result<(), CliError> {
        if members.gas_price.is_none() {
            members.gas_price = Some(self.gas_price().await?);
        }
        Ok(())
    }

    async fn gas_price(&self) -> Result<u128, CliError> {
        Ok(self.call::<U128>("eth_gasPrice", NOTHING).await?.to())
    }

    /// The base fee of the latest block in wei. `None` on a chain without base fees.
    async fn base_fee(&self) -> Result<Option<u128>, CliError> {
        // Read only this member of a block: the others differ between chains.
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Block {
            base_fee_per_gas: Option<U128>,
        }
        let latest: Option<Block> = self.call("eth_getBlockByNumber", ("latest", false)).await?;
        Ok(latest.and_then(|block| block.base_fee_per_gas).map(|fee| fee.to()))
    }

    async fn fill_dynamic_fees(
        &self,
        members: &mut TransactionDraft,
        base_fee: u128,
    ) -> Result<(), CliError> {
        let tip = match members.max_priority_fee_per_gas {
            Some(tip) => tip,
            None => self.priority_fee(base_fee).await?,
        };
        // Twice the base fee: it takes six full blocks to double.
        let most = members.max_fee_per_gas.unwrap_or_else(|| base_fee.saturating_mul(2).saturating_add(tip));
        // The author's maximum also bounds a tip that the author left out.
        members.max_priority_fee_per_gas.get_or_insert(tip.min(most));
        members.max_fee_per_gas = Some(most);
        members.check().map_err(|error| payload_error(error.into()))
    }

    /// The priority fee for a unit of gas, in wei. It comes from the node's suggestion, else from
    /// the last blocks, else from the gas price minus the base fee. Not every node implements every
    /// method.
    async fn priority_fee(&self, base_fee: u128) -> Result<u128, CliError> {
        // Read only this member: nodes differ in the others.
        #[derive(Debug, Deserialize)]
        struct History {
            reward: Option<Vec<Vec<U128>>>,
        }
        match self.rpc.call::<U128>("eth_maxPriorityFeePerGas", NOTHING).await {
            Ok(tip) => return Ok(tip.to()),
            Err(CallError::Unusable) => return Err(self.failed(&CallError::Unusable)),
            Err(CallError::Refused(_)) => {}
        }
        let median = [50.0];
        let blocks = U64::from(FEE_HISTORY_BLOCKS);
        match self.rpc.call::<History>("eth_feeHistory", (blocks, "latest", median)).await {
            Ok(history) => {
                let mut paid: Vec<u128> = history
                    .reward
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|block| block.first().map(U128::to))
                    .collect();
                paid.sort_unstable();
                if let Some(median) = paid.get(paid.len() / 2) {
                    return Ok(*median);
                }
            }
            Err(CallError::Unusable) => return Err(self.failed(&CallError::Unusable)),
            Err(CallError::Refused(_)) => {}
        }
        Ok(self.gas_price().await?.saturating_sub(base_fee))
    }

    /// Broadcasts a signed transaction and waits for its receipt. Also waits when the node has the
    /// transaction already.
    ///
    /// # Errors
    /// When the node refuses it, when its execution fails, or when no block includes it in time.
    pub(crate) async fn broadcast(
        &self,
        raw: &[u8],
        hash: B256,
        timeout: Duration,
    ) -> Result<Receipt, CliError> {
        let raw = Bytes::copy_from_slice(raw);
        if let Err(error) = self.rpc.call::<B256>("eth_sendRawTransaction", (raw,)).await {
            // Nodes report a known transaction with different words. So ask whether the node has
            // it.
            let found = self.rpc.call::<Option<IgnoredAny>>("eth_getTransactionByHash", (hash,)).await;
            if !matches!(found, Ok(Some(_))) {
                return Err(self.failed(&error));
            }
        }
        let receipt = tokio::time::timeout(timeout, self.receipt(hash)).await.map_err(|_| {
            CliError::new(
                Code::Deadline,
                format!(
                    "{hash} is broadcast, but no block included it within {}",
                    humantime::format_duration(timeout)
                ),
            )
            .remedy("It can still be included; look it up by its hash. A higher fee may be needed.")
        })??;
        if receipt.status {
            Ok(receipt)
        } else {
            Err(CliError::new(ErrorCode::TransactionReverted, format!("{hash} was {receipt}, and reverted")))
        }
    }

    async fn receipt(&self, hash: B256) -> Result<Receipt, CliError> {
        let poll = || async {
            let found: Option<NodeReceipt> = self.call("eth_getTransactionReceipt", (hash,)).await?;
            found.ok_or_else(|| CliError::new(Code::Deadline, "not included yet"))
        };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_factor(1.5)
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            // The caller's deadline ends the retries.
            .without_max_times();
        poll.retry(pauses).await.map(Receipt::from)
    }
}

/// The call of a transaction without its fees, for the node to run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeCall {
    from: Address,
    to: TxKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<U256>,
    input: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_list: Option<AccessList>,
}

/// The members of a node's receipt that are shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeReceipt {
    transaction_hash: B256,
    block_number: Option<U64>,
    /// 0 after a failure. Receipts from before EIP-658 have none.
    status: Option<U64>,
    gas_used: U64,
    /// Older nodes call it the gas price, or leave it out.
    #[serde(alias = "gasPrice")]
    effective_gas_price: Option<U128>,
    contract_address: Option<Address>,
}

impl From<NodeReceipt> for Receipt {
    fn from(receipt: NodeReceipt) -> Self {
        Self {
            transaction_hash: receipt.transaction_hash,
            block_number: receipt.block_number.map(|number| number.to()),
            status: receipt.status.is_none_or(|status| !status.is_zero()),
            gas_used: receipt.gas_used.to(),
            effective_gas_price: receipt.effective_gas_price.unwrap_or_default().to_string(),
            contract: receipt.contract_address.map(|address| address.to_checksum(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    /// The body of one HTTP request.
    async fn read_request(stream: &mut TcpStream) -> Option<Value> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length =
                    head.to_lowercase().split("content-length: ").nth(1)?.lines().next()?.parse().ok()?;
                if body.len() >= length {
                    return serde_json::from_str(body).ok();
                }
            }
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
            bytes.extend(part.get(..read)?);
        }
    }

    /// A node that implements only the methods of `answers`.
    async fn node(answers: Value) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answers = answers.clone();
                tokio::spawn(async move {
                    let Some(call) = read_request(&mut stream).await else { return };
                    let mut answer = json!({"jsonrpc": "2.0", "id": call["id"]});
                    match call["method"].as_str().and_then(|method| answers.get(method)) {
                        Some(result) => answer["result"] = result.clone(),
                        None => answer["error"] = json!({"code": -32601, "message": "no such method"}),
                    }
                    let body = answer.to_string();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                         content-length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                });
            }
        });
        // The program does this at its start. Another test may have done it already.
        rustls::crypto::ring::default_provider().install_default().ok();
        Node::new(&url).unwrap()
    }

    /// The JSON that a node with `changes` fills in for a transfer with `members`.
    async fn filled(changes: Value, members: Value) -> Result<Value, CliError> {
        let mut answers = json!({
            "eth_chainId": "0x7a69", "eth_getTransactionCount": "0x5", "eth_estimateGas": "0x5208",
            "eth_gasPrice": "0x7", "eth_getBlockByNumber": {"baseFeePerGas": "0x64"},
        });
        answers.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut draft = json!({"to": TO, "value": "1"});
        draft.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let draft = Draft::from_json(draft.to_string().as_bytes()).unwrap();
        let complete = node(answers).await.fill(draft, Address::ZERO).await?.complete()?;
        Ok(serde_json::to_value(&complete).unwrap())
    }

    #[tokio::test]
    async fn fees_are_found_without_methods_that_a_node_lacks() {
        let dynamic = |filled: &Value| {
            assert_eq!(filled["type"], "0x2");
            (filled["maxFeePerGas"].clone(), filled["maxPriorityFeePerGas"].clone())
        };
        let said = filled(json!({"eth_maxPriorityFeePerGas": "0x3"}), json!({})).await.unwrap();
        assert_eq!(dynamic(&said), ("0xcb".into(), "0x3".into()));
        let history = json!({"eth_feeHistory": {
            "oldestBlock": "0x1", "baseFeePerGas": ["0x64", "0x64"], "gasUsedRatio": [0.5],
            "reward": [["0x3"], ["0x9"], ["0x5"]],
        }});
        let paid = filled(history.clone(), json!({})).await.unwrap();
        assert_eq!(dynamic(&paid), ("0xcd".into(), "0x5".into()));
        let price = filled(json!({"eth_gasPrice": "0x70"}), json!({})).await.unwrap();
        assert_eq!(dynamic(&price), ("0xd4".into(), "0xc".into()));
        // A chain without base fee.
        let old = json!({"eth_getBlockByNumber": {}});
        let legacy = filled(old.clone(), json!({})).await.unwrap();
        assert_eq!((&legacy["type"], &legacy["gasPrice"]), (&json!("0x0"), &json!("0x7")));
        let listed = filled(old.clone(), json!({"accessList": []})).await.unwrap();
        assert_eq!((&listed["type"], &listed["gasPrice"]), (&json!("0x1"), &json!("0x7")));
        let refused = filled(old, json!({"type": "0x2"})).await.unwrap_err().to_string();
        assert!(refused.contains("no base fee"), "{refused}");
        // The author's values stay, and bound those that the author left out.
        let bounded = filled(history, json!({"maxFeePerGas": "0x2"})).await.unwrap();
        assert_eq!(dynamic(&bounded), ("0x2".into(), "0x2".into()));
    }
}
