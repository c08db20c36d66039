//! Parses transactions from JSON and flags into a [`Draft`].
//!
//! A draft becomes a typed transaction in two steps. A node or the author fills in missing members.
//! Then [`Draft::complete`] chooses the type, and refuses members that do not fit it.

use alloy_primitives::{Address, Bytes, TxKind};
use clap::Args;
use duet_wire::{
    Code,
    payload::{
        Chain, MAX_PAYLOAD_SIZE_BYTES, PayloadError, TransactionCall, TransactionDraft, TransactionRequest,
    },
    strict_json::{self, JsonError},
};
use serde_json::Value;

use crate::{
    error::{CliError, payload_error},
    quantity::{Amount, Count, parse_address},
};

/// The members that accept a unit, as in `0.5ether`.
const AMOUNTS: [&str; 4] = ["value", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"];

/// A transaction that may lack members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    /// The intended sender. It is compared with the wallet's account.
    pub(crate) from: Option<Address>,
    /// All other members.
    pub(crate) members: TransactionDraft,
}

/// The members of a transaction as flags. Each flag overrides the JSON's member.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DraftOptions {
    /// The recipient
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, help_heading = "Transaction")]
    to: Option<Address>,
    /// Create a contract instead of calling an address
    #[arg(long, conflicts_with = "to", help_heading = "Transaction")]
    create: bool,
    /// The value to transfer: 0.5ether, 30gwei, or a number of wei
    #[arg(long, value_name = "AMOUNT", help_heading = "Transaction")]
    value: Option<Amount>,
    /// Call data, or the contract's code
    #[arg(long, value_name = "HEX", help_heading = "Transaction")]
    data: Option<Bytes>,
    /// The account's next nonce
    #[arg(long, value_name = "NUMBER", help_heading = "Transaction")]
    nonce: Option<Count>,
    /// The gas limit
    #[arg(long, value_name = "NUMBER", help_heading = "Transaction")]
    gas: Option<Count>,
    /// The maximum price of a unit of gas (EIP-1559)
    #[arg(long, value_name = "AMOUNT", help_heading = "Transaction")]
    max_fee: Option<Amount>,
    /// The maximum tip for the block's producer for a unit of gas (EIP-1559)
    #[arg(long, value_name = "AMOUNT", help_heading = "Transaction")]
    max_priority_fee: Option<Amount>,
    /// The price of a unit of gas (legacy and EIP-2930)
    #[arg(
        long,
        value_name = "AMOUNT",
        conflicts_with_all = ["max_fee", "max_priority_fee"],
        help_heading = "Transaction"
    )]
    gas_price: Option<Amount>,
    /// The chain
    #[arg(long, value_name = "NUMBER", help_heading = "Transaction")]
    chain_id: Option<Count>,
}

impl DraftOptions {
    /// Whether no member is given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { to, create, value, data, nonce, gas, max_fee, max_priority_fee, gas_price, chain_id } =
            self;
        !create
            && to.is_none()
            && data.is_none()
            && [value, max_fee, max_priority_fee, gas_price].into_iter().all(Option::is_none)
            && [nonce, gas, chain_id].into_iter().all(Option::is_none)
    }
}

impl Draft {
    /// Parses the JSON of one transaction in the form of `eth_sendTransaction`. Amounts may have a
    /// unit.
    ///
    /// # Errors
    /// `malformed-json`, with the path of the fault.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, CliError> {
        let read = || -> Result<TransactionCall, PayloadError> {
            let mut document = strict_json::parse(text, MAX_PAYLOAD_SIZE_BYTES)?;
            for name in AMOUNTS {
                if let Some(value) = document.get_mut(name) {
                    write_out(name, value)?;
                }
            }
            TransactionCall::from_value(&document)
        };
        let TransactionCall { from, draft } = read().map_err(payload_error)?;
        Ok(Self { from: from.map(Into::into), members: draft })
    }

    /// Replaces members by those of the flags.
    ///
    /// # Errors
    /// When a fee in the flags exceeds 128 bits.
    pub(crate) fn overridden_by(mut self, options: &DraftOptions) -> Result<Self, CliError> {
        let fee = |name: &str, amount: Option<Amount>| {
            let fits = amount.map(|amount| u128::try_from(amount.0)).transpose();
            fits.map_err(|_| contradiction(JsonError::new(name, "more than 128 bits")))
        };
        let gas_price = fee("gasPrice", options.gas_price)?;
        let max_fee = fee("maxFeePerGas", options.max_fee)?;
        let max_priority_fee = fee("maxPriorityFeePerGas", options.max_priority_fee)?;
        let members = &mut self.members;
        let to = options.to.map(TxKind::Call).or_else(|| options.create.then_some(TxKind::Create));
        members.to = to.or(members.to);
        members.input = options.data.clone().or(members.input.take());
        // Fee flags choose the type: members of the other type in the JSON are dropped.
        if gas_price.is_some() {
            (members.max_fee_per_gas, members.max_priority_fee_per_gas) = (None, None);
        } else if max_fee.is_some() || max_priority_fee.is_some() {
            members.gas_price = None;
        }
        members.value = options.value.map(|amount| amount.0).or(members.value);
        members.nonce = options.nonce.map(|count| count.0).or(members.nonce);
        members.gas = options.gas.map(|count| count.0).or(members.gas);
        members.max_fee_per_gas = max_fee.or(members.max_fee_per_gas);
        members.max_priority_fee_per_gas = max_priority_fee.or(members.max_priority_fee_per_gas);
        members.gas_price = gas_price.or(members.gas_price);
        members.chain = options.chain_id.map(|count| Chain::Id(count.0)).or(members.chain);
        members.check().and_then(|()| members.check_creation()).map_err(contradiction)?;
        Ok(self)
    }

    /// Checks the intended sender, if there is one.
    ///
    /// # Errors
    /// When it is another account.
    pub(crate) fn check_sender(&self, account: Address) -> Result<(), CliError> {
        match self.from {
            Some(from) if from != account => Err(contradiction(JsonError::new(
                "from",
                format!("it is to be sent from {from}, but this wallet's account is {account}"),
            ))),
            _ => Ok(()),
        }
    }

    /// The typed transaction.
    ///
    /// # Errors
    /// When members are missing (the error names all of them) or contradict each other.
    pub(crate) fn complete(self) -> Result<TransactionRequest, CliError> {
        let missing = self.members.missing();
        if !missing.is_empty() {
            return Err(CliError::new(
                Code::InvalidPayload,
                format!("the transaction lacks {}", missing.join(", ")),
            )
            .remedy(if missing == ["to"] {
                "Give --to, or --create for a new contract."
            } else {
                "Give them, or name a node with --rpc that fills in all but the recipient."
            }));
        }
        self.members.complete().map_err(contradiction)
    }
}

/// Replaces an amount with a unit by its number of wei.
fn write_out(name: &str, value: &mut Value) -> Result<(), JsonError> {
    let Some(text) = value.as_str() else { return Ok(()) };
    let amount: Amount = text.parse().map_err(|problem| JsonError::new(name, format_args!("{problem}")))?;
    *value = amount.0.to_string().into();
    Ok(())
}

/// The error of members that contradict each other.
fn contradiction(error: JsonError) -> CliError {
    CliError::new(Code::InvalidPayload, error.to_string()).at(error.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        draft: DraftOptions,
    }

    fn flags(line: &str) -> DraftOptions {
        Flags::parse_from(std::iter::once("duet").chain(line.split_whitespace())).draft
    }

    fn transfer() -> Draft {
        Draft::default()
            .overridden_by(&flags(
                "--to 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --value 0.5ether --nonce 3 --gas 21000 \
             --max-fee 30gwei --max-priority-fee 1gwei --chain-id 31337",
            ))
            .unwrap()
    }

    fn problem(json: &str) -> (String, String) {
        let error = Draft::from_json(json.as_bytes()).and_then(Draft::complete).unwrap_err();
        let document = serde_json::to_value(error.document()).unwrap();
        let text = |name: &str| document["error"][name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("path"))
    }

    #[test]
    fn flags_and_json_say_the_same() {
        let json = r#"{"to":"0x70997970c51812dc3a010c7d01b50e0d17dc79c8","value":"0.5 ether","nonce":"0x3",
            "gas":21000,"maxFeePerGas":"30 gwei","maxPriorityFeePerGas":"0x3b9aca00","chainId":31337}"#;
        let from_json = Draft::from_json(json.as_bytes()).unwrap().complete().unwrap();
        assert_eq!(from_json, transfer().complete().unwrap());
        assert!(matches!(from_json, TransactionRequest::Eip1559(_)));
    }

    #[test]
    fn the_fee_members_decide_the_type() {
        let with = |json: &str| {
            let json = format!(
                r#"{{"to":"0x70997970c51812dc3a010c7d01b50e0d17dc79c8","nonce":0,"gas":21000,"chainId":1,{json}}}"#
            );
            Draft::from_json(json.as_bytes()).unwrap().complete().unwrap()
        };
        assert!(matches!(with(r#""gasPrice":1"#), TransactionRequest::Legacy(_)));
        assert!(matches!(with(r#""gasPrice":1,"accessList":[]"#), TransactionRequest::Eip2930(_)));
        assert!(matches!(with(r#""gasPrice":1,"type":"0x1""#), TransactionRequest::Eip2930(_)));
        assert!(matches!(
            with(r#""maxFeePerGas":1,"maxPriorityFeePerGas":1"#),
            TransactionRequest::Eip1559(_)
        ));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (json, path) in [
            ("", "$"),
            ("[", "$"),
            ("{", "$"),
            ("{} {}", "$"),
            (r#"{"value":"1 parsec"}"#, "value"),
            (r#"{"value":1.5}"#, "value"),
            (r#"{"nonce":-1}"#, "nonce"),
            (r#"{"to":"0x1234"}"#, "to"),
            (
                r#"{"accessList":[{"address":"0x70997970c51812dc3a010c7d01b50e0d17dc79c8","storageKeys":["0x1"]}]}"#,
                "accessList[0].storageKeys[0]",
            ),
            (r#"{"nonsense":1}"#, "nonsense"),
            (r#"{"authorizationList":[]}"#, "authorizationList"),
            (r#"{"input":"0x00","data":"0x01"}"#, "input"),
            (r#"{"type":3}"#, "type"),
            (r#"{"gasPrice":1,"maxFeePerGas":1}"#, "gasPrice"),
            (r#"{"type":0,"maxFeePerGas":1}"#, "maxFeePerGas"),
            // One digit of a checksummed address has the other case.
            (r#"{"to":"0x70997970C51812dc3A010C7d01b50e0d17dc79c8"}"#, "to"),
        ] {
            assert_eq!(problem(json), ("malformed-json".to_owned(), path.to_owned()), "{json}");
        }
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let error = Draft::default().complete().unwrap_err().to_string();
        for name in ["chainId", "nonce", "to", "gas", "maxFeePerGas", "maxPriorityFeePerGas"] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_forgotten_recipient_creates_no_contract() {
        let mut draft = transfer();
        draft.members.to = None;
        let draft = draft.overridden_by(&flags("--data 0x6000")).unwrap();
        assert!(draft.clone().complete().unwrap_err().to_string().contains("lacks to"));
        assert!(draft.overridden_by(&flags("--create")).unwrap().complete().is_ok());
        let mut without_code = transfer();
        without_code.members.to = Some(TxKind::Create);
        assert!(without_code.complete().unwrap_err().to_string().contains("takes its code"));
    }

    #[test]
    fn another_sender_is_refused() {
        let draft = Draft::from_json(br#"{"from":"0x70997970c51812dc3a010c7d01b50e0d17dc79c8"}"#).unwrap();
        assert!(draft.check_sender(Address::ZERO).is_err());
        assert!(draft.check_sender("0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap()).is_ok());
    }

    #[test]
    fn transactions_of_the_field_have_their_wanted_outcome() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cases/transactions.json");
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for case in
            cases.iter().filter(|case| case["via"].as_array().unwrap().contains(&"command line".into()))
        {
            let name = &case["name"];
            let priced = case["request"].get("gasPrice").is_some();
            let fees = if priced { "" } else { "--max-fee 2gwei --max-priority-fee 1gwei" };
            let filled_in = flags(&format!("--chain-id 1 --nonce 0 --gas 100000 {fees}"));
            let outcome = Draft::from_json(case["request"].to_string().as_bytes())
                .and_then(|draft| draft.overridden_by(&filled_in))
                .and_then(Draft::complete);
            match (outcome, case["refused"].as_array()) {
                (Ok(transaction), None) => {
                    let written = serde_json::to_value(&transaction).unwrap();
                    for (member, value) in case["signed"].as_object().unwrap() {
                        assert_eq!(written[member], *value, "{name}: {member}");
                    }
                }
                (Err(error), Some(members)) => {
                    let problem = error.to_string();
                    for member in members {
                        assert!(problem.contains(member.as_str().unwrap()), "{name}: {problem}");
                    }
                }
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
        }
    }
}
