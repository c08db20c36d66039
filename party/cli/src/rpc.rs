//! An Ethereum node: fills in what a transaction lacks, and broadcasts it.

use std::{fmt, time::Duration};

use alloy_eips::BlockId;
use alloy_network::Ethereum;
use alloy_primitives::{Address, B256, U256};
use alloy_provider::{Identity, Provider as _, ProviderBuilder, RootProvider};
use alloy_rpc_types_eth::{TransactionInput, TransactionReceipt, TransactionRequest as NodeRequest};
use backon::{ExponentialBuilder, Retryable as _};
use clap::Args;
use duet_wire::Code;
use serde::Serialize;

use crate::{
    duration,
    error::{CliError, ErrorCode},
    outgoing::{self, Route},
    quantity::{Amount, Count},
    transaction::{Draft, TransactionType},
};

/// How long one call to the node may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A node, and whether to broadcast through it.
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
    /// How long the receipt is waited for
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
    /// The node, if one is named.
    ///
    /// # Errors
    /// When its address is no HTTP URL.
    pub(crate) fn node(&self) -> Result<Option<Node>, CliError> {
        self.rpc.as_deref().map(Node::new).transpose()
    }
}

/// A connection to an Ethereum node.
pub(crate) struct Node {
    provider: RootProvider<Ethereum>,
    // Only the host is ever shown: paths and queries of node providers carry keys.
    host: String,
    route: Route,
}

/// What a block says about a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Receipt {
    /// The transaction's hash.
    pub(crate) transaction_hash: B256,
    /// The block's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block_number: Option<u64>,
    /// Whether it took effect.
    pub(crate) status: bool,
    /// Gas used.
    pub(crate) gas_used: u64,
    /// What was paid for a unit of gas, in wei, in decimal digits.
    pub(crate) effective_gas_price: String,
    /// The contract that was created: its address with the EIP-55 checksum.
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
    /// Names a node; nothing is sent yet.
    ///
    /// # Errors
    /// When `url` is no HTTP URL, or has a password in it that would travel in the clear.
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
        let provider =
            ProviderBuilder::<Identity, Identity, Ethereum>::default().connect_reqwest(client, url);
        Ok(Self { provider, host, route })
    }

    fn failed(&self, error: &alloy_provider::transport::TransportError) -> CliError {
        match error.as_error_resp() {
            Some(answer) => CliError::new(
                ErrorCode::NodeRefused,
                format!("the node {} refuses: {} ({})", self.host, answer.message, answer.code),
            ),
            None => {
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
        self.provider.get_chain_id().await.map_err(|error| self.failed(&error))
    }

    /// Refuses a transaction for another chain than the node's.
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

    /// Fills in chain id, nonce, gas and fees where `draft` has none; what it has is kept.
    ///
    /// # Errors
    /// `chain-id-mismatch`; when the node does not answer; when it cannot run the transaction.
    pub(crate) async fn fill(&self, mut draft: Draft, from: Address) -> Result<Draft, CliError> {
        let kind = draft.transaction_type()?;
        let chain_id = self.check_chain_id(draft.chain_id.map(|count| count.0)).await?;
        draft.chain_id = Some(Count(chain_id));
        if draft.nonce.is_none() {
            let next = self.provider.get_transaction_count(from).block_id(BlockId::pending()).await;
            draft.nonce = Some(Count(next.map_err(|error| self.failed(&error))?));
        }
        match kind {
            TransactionType::DynamicFee => self.fill_dynamic_fees(&mut draft).await?,
            TransactionType::Legacy | TransactionType::AccessList if draft.gas_price.is_none() => {
                let price = self.provider.get_gas_price().await.map_err(|error| self.failed(&error))?;
                draft.gas_price = Some(Amount(U256::from(price)));
            }
            TransactionType::Legacy | TransactionType::AccessList => {}
        }
        if draft.gas.is_none()
            && let Some(to) = draft.to
        {
            let call = NodeRequest {
                from: Some(from),
                to: Some(to),
                value: draft.value.map(|amount| amount.0),
                input: TransactionInput::new(draft.input()),
                access_list: draft.access_list.clone(),
                ..NodeRequest::default()
            };
            let gas = self.provider.estimate_gas(call).await.map_err(|error| self.failed(&error))?;
            draft.gas = Some(Count(gas));
        }
        Ok(draft)
    }

    async fn fill_dynamic_fees(&self, draft: &mut Draft) -> Result<(), CliError> {
        if draft.max_fee_per_gas.is_some() && draft.max_priority_fee_per_gas.is_some() {
            return Ok(());
        }
        let estimate = self.provider.estimate_eip1559_fees().await.map_err(|error| self.failed(&error))?;
        let estimated_tip = U256::from(estimate.max_priority_fee_per_gas);
        let tip = match (draft.max_priority_fee_per_gas, draft.max_fee_per_gas) {
            (Some(tip), _) => tip.0,
            // An author's ceiling also bounds the tip.
            (None, Some(ceiling)) => estimated_tip.min(ceiling.0),
            (None, None) => estimated_tip,
        };
        let ceiling = draft.max_fee_per_gas.map_or_else(
            || U256::from(estimate.max_fee_per_gas).saturating_sub(estimated_tip).saturating_add(tip),
            |amount| amount.0,
        );
        draft.max_priority_fee_per_gas = Some(Amount(tip));
        draft.max_fee_per_gas = Some(Amount(ceiling));
        Ok(())
    }

    /// Broadcasts a signed transaction and waits for its receipt. One that the node knows already
    /// is waited for all the same.
    ///
    /// # Errors
    /// When the node refuses it, when it fails on the chain, or when no block includes it in time.
    pub(crate) async fn broadcast(
        &self,
        raw: &[u8],
        hash: B256,
        timeout: Duration,
    ) -> Result<Receipt, CliError> {
        if let Err(error) = self.provider.send_raw_transaction(raw).await {
            // Nodes word it differently when they know it already; whether they do is asked instead.
            let known = self.provider.get_transaction_by_hash(hash).await.is_ok_and(|found| found.is_some());
            if !known {
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
            let found =
                self.provider.get_transaction_receipt(hash).await.map_err(|error| self.failed(&error))?;
            found.ok_or_else(|| CliError::new(Code::Deadline, "not included yet"))
        };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_factor(1.5)
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            // The caller's deadline ends it.
            .without_max_times();
        poll.retry(pauses).await.map(|receipt| Receipt::from(&receipt))
    }
}

impl From<&TransactionReceipt> for Receipt {
    fn from(receipt: &TransactionReceipt) -> Self {
        Self {
            transaction_hash: receipt.transaction_hash,
            block_number: receipt.block_number,
            status: receipt.status(),
            gas_used: receipt.gas_used,
            effective_gas_price: receipt.effective_gas_price.to_string(),
            contract: receipt.contract_address.map(|address| address.to_checksum(None)),
        }
    }
}
