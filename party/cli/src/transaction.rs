//! Transactions as a person or a program writes them: JSON and flags, together a [`Draft`].
//!
//! A draft becomes a typed transaction in two steps: a node, or the author, fills in what is
//! missing, then [`Draft::complete`] decides the type and refuses what does not fit it.

use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use clap::Args;
use duet_wire::{Code, payload::TransactionRequest};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    error::{CliError, ErrorCode},
    quantity::{Amount, Count, parse_address},
};

/// A transaction some of whose members may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Draft {
    /// EIP-2718 type: 0, 1 or 2. Decided by the fee members when absent.
    #[serde(rename = "type")]
    pub(crate) transaction_type: Option<Count>,
    pub(crate) chain_id: Option<Count>,
    /// The account it is meant to be sent from; checked against the wallet's.
    #[serde(deserialize_with = "address")]
    #[serde(default)]
    pub(crate) from: Option<Address>,
    pub(crate) nonce: Option<Count>,
    #[serde(default, deserialize_with = "destination")]
    pub(crate) to: Option<TxKind>,
    pub(crate) value: Option<Amount>,
    input: Option<Bytes>,
    data: Option<Bytes>,
    #[serde(alias = "gasLimit")]
    pub(crate) gas: Option<Count>,
    pub(crate) gas_price: Option<Amount>,
    pub(crate) max_fee_per_gas: Option<Amount>,
    pub(crate) max_priority_fee_per_gas: Option<Amount>,
    pub(crate) access_list: Option<AccessList>,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_address(&text).map_err(D::Error::custom)).transpose()
}

/// `null` is a statement here: it means that a contract is to be created.
fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TxKind>, D::Error> {
    Ok(Some(address(deserializer)?.map_or(TxKind::Create, TxKind::Call)))
}

/// The members of a transaction as flags; each overrides the JSON's.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DraftOptions {
    /// The recipient
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, help_heading = "Transaction")]
    to: Option<Address>,
    /// Create a contract instead of calling an address
    #[arg(long, conflicts_with = "to", help_heading = "Transaction")]
    create: bool,
    /// What is transferred: 0.5ether, 30gwei, or a number of wei
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
    /// The most that is paid for a unit of gas (EIP-1559)
    #[arg(long, value_name = "AMOUNT", help_heading = "Transaction")]
    max_fee: Option<Amount>,
    /// The most that the block's producer gets for a unit of gas (EIP-1559)
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
    /// Whether any member is given.
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

/// The three transaction types that Duet signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionType {
    /// Before EIP-2718, always with the chain id of EIP-155.
    Legacy,
    /// EIP-2930.
    AccessList,
    /// EIP-1559.
    DynamicFee,
}

impl Draft {
    /// Parses the JSON of one transaction.
    ///
    /// # Errors
    /// `malformed-json` with the path of what is wrong.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, CliError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let draft: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let path = if matches!(path.as_str(), "" | "." | "?") { "$".to_owned() } else { path };
            let inner = error.into_inner();
            CliError::new(
                Code::MalformedJson,
                format!("the transaction's JSON is malformed at {path}: {inner}"),
            )
            .at(path)
        })?;
        json.end().map_err(|error| {
            CliError::new(Code::MalformedJson, format!("the transaction's JSON is malformed: {error}"))
                .at("$")
        })?;
        if let (Some(input), Some(data)) = (&draft.input, &draft.data)
            && input != data
        {
            return Err(invalid("input", "`input` and `data` mean the same and differ"));
        }
        Ok(draft)
    }

    /// Lets flags override members.
    #[must_use]
    pub(crate) fn overridden_by(mut self, options: &DraftOptions) -> Self {
        let to = options.to.map(TxKind::Call).or_else(|| options.create.then_some(TxKind::Create));
        self.to = to.or(self.to);
        if let Some(data) = &options.data {
            self.input = Some(data.clone());
            self.data = None;
        }
        // Fee flags choose the type: those of the other kind in the JSON give way.
        if options.gas_price.is_some() {
            (self.max_fee_per_gas, self.max_priority_fee_per_gas) = (None, None);
        } else if options.max_fee.is_some() || options.max_priority_fee.is_some() {
            self.gas_price = None;
        }
        self.value = options.value.or(self.value);
        self.nonce = options.nonce.or(self.nonce);
        self.gas = options.gas.or(self.gas);
        self.max_fee_per_gas = options.max_fee.or(self.max_fee_per_gas);
        self.max_priority_fee_per_gas = options.max_priority_fee.or(self.max_priority_fee_per_gas);
        self.gas_price = options.gas_price.or(self.gas_price);
        self.chain_id = options.chain_id.or(self.chain_id);
        self
    }

    /// Call data, or the code of a contract to create.
    pub(crate) fn input(&self) -> Bytes {
        self.input.as_ref().or(self.data.as_ref()).cloned().unwrap_or_default()
    }

    /// The type the transaction will have.
    ///
    /// # Errors
    /// When the type is none of the three, or a fee member belongs to another one.
    pub(crate) fn transaction_type(&self) -> Result<TransactionType, CliError> {
        let dynamic = self.max_fee_per_gas.is_some() || self.max_priority_fee_per_gas.is_some();
        if dynamic && self.gas_price.is_some() {
            return Err(invalid(
                "gasPrice",
                "`gasPrice` does not go with the fees of EIP-1559; leave one of them out",
            ));
        }
        let decided = match self.transaction_type.map(|number| number.0) {
            Some(0) => TransactionType::Legacy,
            Some(1) => TransactionType::AccessList,
            Some(2) => TransactionType::DynamicFee,
            Some(other) => {
                return Err(invalid(
                    "type",
                    format!("transactions of type {other} are not signed here; 0, 1 and 2 are"),
                ));
            }
            None if self.gas_price.is_none() => TransactionType::DynamicFee,
            None if self.access_list.is_some() => TransactionType::AccessList,
            None => TransactionType::Legacy,
        };
        match decided {
            TransactionType::DynamicFee if self.gas_price.is_some() => {
                Err(invalid("gasPrice", "a transaction of type 2 has `maxFeePerGas` instead"))
            }
            TransactionType::Legacy | TransactionType::AccessList if dynamic => {
                Err(invalid("maxFeePerGas", "only transactions of type 2 have it"))
            }
            TransactionType::Legacy if self.access_list.is_some() => {
                Err(invalid("accessList", "a legacy transaction has none; use type 1 or 2"))
            }
            decided => Ok(decided),
        }
    }

    /// Checks who it is sent from, if it says so.
    ///
    /// # Errors
    /// When it names another account.
    pub(crate) fn check_sender(&self, account: Address) -> Result<(), CliError> {
        match self.from {
            Some(from) if from != account => Err(invalid(
                "from",
                format!("it is to be sent from {from}, but this wallet's account is {account}"),
            )),
            _ => Ok(()),
        }
    }

    /// The typed transaction.
    ///
    /// # Errors
    /// When members are missing (all of them are named) or contradict each other.
    pub(crate) fn complete(self) -> Result<TransactionRequest, CliError> {
        let kind = self.transaction_type()?;
        let priced = kind != TransactionType::DynamicFee;
        let missing: Vec<&str> = [
            ("chainId", self.chain_id.is_none()),
            ("nonce", self.nonce.is_none()),
            ("to", self.to.is_none()),
            ("gas", self.gas.is_none()),
            ("gasPrice", priced && self.gas_price.is_none()),
            ("maxFeePerGas", !priced && self.max_fee_per_gas.is_none()),
            ("maxPriorityFeePerGas", !priced && self.max_priority_fee_per_gas.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, absent)| absent.then_some(name))
        .collect();
        let (Some(chain_id), Some(nonce), Some(to), Some(gas), []) =
            (self.chain_id, self.nonce, self.to, self.gas, missing.as_slice())
        else {
            return Err(CliError::new(
                Code::InvalidPayload,
                format!("the transaction lacks {}", missing.join(", ")),
            )
            .remedy(if missing == ["to"] {
                "Give --to, or --create for a new contract."
            } else {
                "Give them, or name a node with --rpc that fills in all but the recipient."
            }));
        };
        let (chain_id, nonce, gas_limit) = (chain_id.0, nonce.0, gas.0);
        if chain_id == 0 {
            return Err(invalid("chainId", "0 is no chain"));
        }
        let value = self.value.map_or(U256::ZERO, |amount| amount.0);
        let input = self.input();
        if to == TxKind::Create && input.is_empty() {
            return Err(invalid("to", "creating a contract takes its code as `input`"));
        }
        let access_list = self.access_list.unwrap_or_default();
        let fee = |name: &str, amount: Option<Amount>| -> Result<u128, CliError> {
            amount.unwrap_or_default().0.try_into().map_err(|_| invalid(name, "more than 128 bits"))
        };
        let gas_price = fee("gasPrice", self.gas_price)?;
        Ok(match kind {
            TransactionType::Legacy => TransactionRequest::Legacy(TxLegacy {
                chain_id: Some(chain_id),
                nonce,
                gas_price,
                gas_limit,
                to,
                value,
                input,
            }),
            TransactionType::AccessList => TransactionRequest::Eip2930(TxEip2930 {
                chain_id,
                nonce,
                gas_price,
                gas_limit,
                to,
                value,
                access_list,
                input,
            }),
            TransactionType::DynamicFee => {
                let max_fee_per_gas = fee("maxFeePerGas", self.max_fee_per_gas)?;
                let max_priority_fee_per_gas = fee("maxPriorityFeePerGas", self.max_priority_fee_per_gas)?;
                if max_priority_fee_per_gas > max_fee_per_gas {
                    return Err(invalid("maxPriorityFeePerGas", "it is above maxFeePerGas"));
                }
                TransactionRequest::Eip1559(TxEip1559 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas,
                    max_priority_fee_per_gas,
                    to,
                    value,
                    access_list,
                    input,
                })
            }
        })
    }
}

fn invalid(path: &str, problem: impl std::fmt::Display) -> CliError {
    CliError::new(ErrorCode::Shared(Code::InvalidPayload), format!("{path}: {problem}")).at(path)
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
        Draft::default().overridden_by(&flags(
            "--to 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --value 0.5ether --nonce 3 --gas 21000 \
             --max-fee 30gwei --max-priority-fee 1gwei --chain-id 31337",
        ))
    }

    fn problem(json: &str) -> (String, String) {
        let error = Draft::from_json(json.as_bytes()).and_then(Draft::complete).unwrap_err();
        let document = serde_json::to_value(error.document()).unwrap();
        let text = |name: &str| document["error"][name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("path"))
    }

    #[test]
    fn flags_and_json_say_the_same() {
        let json = r#"{"to":"0x70997970c51812dc3a010c7d01b50e0d17dc79c8","value":"500000000000000000","nonce":"0x3",
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
            // One digit of a checksummed address changed its case.
            (r#"{"to":"0x70997970C51812dc3A010C7d01b50e0d17dc79c8"}"#, "to"),
        ] {
            assert_eq!(problem(json), ("malformed-json".to_owned(), path.to_owned()), "{json}");
        }
        assert_eq!(problem(r#"{"nonsense":1}"#).0, "malformed-json");
        for (json, path) in [
            (r#"{"input":"0x00","data":"0x01"}"#, "input"),
            (r#"{"type":3}"#, "type"),
            (r#"{"gasPrice":1,"maxFeePerGas":1}"#, "gasPrice"),
            (r#"{"type":0,"maxFeePerGas":1}"#, "maxFeePerGas"),
        ] {
            assert_eq!(problem(json), ("invalid-payload".to_owned(), path.to_owned()), "{json}");
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
        let draft = Draft { to: None, ..transfer() }.overridden_by(&flags("--data 0x6000"));
        assert!(draft.clone().complete().unwrap_err().to_string().contains("lacks to"));
        assert!(draft.overridden_by(&flags("--create")).complete().is_ok());
        assert!(Draft { to: Some(TxKind::Create), ..transfer() }.complete().is_err(), "no code");
    }

    #[test]
    fn another_sender_is_refused() {
        let draft = Draft::from_json(br#"{"from":"0x70997970c51812dc3a010c7d01b50e0d17dc79c8"}"#).unwrap();
        assert!(draft.check_sender(Address::ZERO).is_err());
        assert!(draft.check_sender("0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap()).is_ok());
    }
}
