//! Typed data under [EIP-712](https://eips.ethereum.org/EIPS/eip-712).
//!
//! Stricter than most implementations, so that what people are shown is what is signed: a field that
//! the types don't name is refused, and `EIP712Domain`, if it is declared, must be what the domain's
//! own fields say.

use std::collections::{BTreeMap, BTreeSet};

use alloy_dyn_abi::{DynSolType, TypedData};
use serde_json::Value;

use super::PayloadError;
use crate::strict_json::{JsonError, Node};

/// How many values the primary type may consist of once structs are spelt out. Types that refer to
/// each other can otherwise grow exponentially: 60 structs of two fields would make 2⁶⁰.
pub const MAX_TYPE_EXPANSION: usize = 4096;
/// How many characters the name of a type or a field may have.
const MAX_NAME_LENGTH: usize = 128;
/// How many dimensions an array may have.
const MAX_ARRAY_DIMENSIONS: usize = 8;
/// The name of the domain's own type.
const DOMAIN_TYPE: &str = "EIP712Domain";

/// A typed document, checked against its own types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedDataRequest {
    /// As it was given.
    document: Value,
    parsed: TypedData,
    digest: [u8; 32],
}

/// The declared structs: for each its fields as (name, type).
type Structs<'a> = BTreeMap<&'a str, Vec<(&'a str, &'a str)>>;

impl TypedDataRequest {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, PayloadError> {
        let fields = node.object(&["types", "primaryType", "domain", "message"])?;
        let types = fields.required("types")?;
        let primary_type = fields.required("primaryType")?;
        let domain = fields.required("domain")?;
        let message = fields.required("message")?;
        let structs = read_structs(&types)?;
        check_domain(&domain, structs.get(DOMAIN_TYPE))?;
        let primary = primary_type.text()?;
        if primary == DOMAIN_TYPE || !structs.contains_key(primary) {
            return Err(primary_type.error("expected one of the structs of `types`").into());
        }
        expansion(&structs, primary, &mut BTreeMap::new(), &mut Vec::new())
            .map_err(|problem| types.error(problem))?;
        check_message(&structs, primary, &message)?;
        let parsed: TypedData = serde_json::from_value(node.value.clone())
            .map_err(|e| PayloadError::TypedData(format!("not EIP-712 typed data: {e}")))?;
        let digest = parsed
            .eip712_signing_hash()
            .map_err(|e| PayloadError::TypedData(format!("the message does not fit its types: {e}")))?
            .0;
        Ok(Self { document: node.value.clone(), parsed, digest })
    }

    pub(super) const fn to_value(&self) -> &Value {
        &self.document
    }

    /// The document as it was given: `types`, `primaryType`, `domain`, `message`.
    #[must_use]
    pub const fn document(&self) -> &Value {
        &self.document
    }

    /// `keccak256(0x1901 ‖ domain separator ‖ hashStruct(message))`.
    ///
    /// # Errors
    /// None; the digest was made when the document was parsed.
    pub const fn digest(&self) -> Result<[u8; 32], PayloadError> {
        Ok(self.digest)
    }

    /// The contract that the domain says will verify the signature.
    #[must_use]
    pub fn verifying_contract(&self) -> Option<[u8; 20]> {
        self.parsed.domain.verifying_contract.map(|contract| contract.into_array())
    }

    /// The struct that is signed.
    #[must_use]
    pub fn primary_type(&self) -> &str {
        &self.parsed.primary_type
    }

    pub(super) const fn parsed(&self) -> &TypedData {
        &self.parsed
    }

    /// The domain's chain.
    #[must_use]
    pub fn chain_id(&self) -> Option<u64> {
        self.parsed.domain.chain_id.and_then(|id| u64::try_from(id).ok())
    }
}

fn read_structs<'a>(types: &Node<'a>) -> Result<Structs<'a>, PayloadError> {
    let map = types.value.as_object().ok_or_else(|| types.error("expected an object"))?;
    let mut structs = Structs::new();
    for (name, fields) in map {
        let node = Node { value: fields, path: format!("{}.{name}", types.path) };
        if !is_identifier(name) || is_elementary(name) {
            return Err(node
                .error("the name of a struct is an identifier, and not that of a Solidity type")
                .into());
        }
        let mut names = BTreeSet::new();
        let fields = node
            .array()?
            .map(|field| {
                let property = field.object(&["name", "type"])?;
                let (name, kind) = (property.required("name")?, property.required("type")?);
                if !is_identifier(name.text()?) {
                    return Err(name.error("the name of a field is an identifier"));
                }
                if !names.insert(name.text()?) {
                    return Err(name.error("the struct has this field twice"));
                }
                check_type(kind.text()?).map_err(|problem| kind.error(problem))?;
                if !is_elementary(stem(kind.text()?)) && map.get(stem(kind.text()?)).is_none() {
                    return Err(kind.error("neither a Solidity type nor one of the structs of `types`"));
                }
                Ok((name.text()?, kind.text()?))
            })
            .collect::<Result<Vec<_>, JsonError>>()?;
        structs.insert(name, fields);
    }
    Ok(structs)
}

fn is_identifier(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}

/// Whether `name` is a type of Solidity's own that EIP-712 can encode: `uint8`, `bytes32`, `string`.
fn is_elementary(name: &str) -> bool {
    // Tuples and functions have no encoding under EIP-712; the library would not survive a tuple.
    is_identifier(name) && name != "function" && DynSolType::parse(name).is_ok()
}

/// A type without its array brackets.
fn stem(kind: &str) -> &str {
    kind.split('[').next().unwrap_or(kind)
}

/// Checks the spelling of a field's type: a name, then brackets with or without a length.
fn check_type(kind: &str) -> Result<(), String> {
    if kind.len() > MAX_NAME_LENGTH || kind.matches('[').count() > MAX_ARRAY_DIMENSIONS {
        return Err(format!(
            "a type has at most {MAX_NAME_LENGTH} characters and {MAX_ARRAY_DIMENSIONS} array dimensions"
        ));
    }
    let mut rest = kind;
    while let Some((element, length)) = rest.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        if !length.bytes().all(|digit| digit.is_ascii_digit()) || length.starts_with('0') {
            return Err("the length of an array is a decimal number".to_owned());
        }
        rest = element;
    }
    if is_identifier(rest) { Ok(()) } else { Err("a type is a name, with [] or [n] for arrays".to_owned()) }
}

/// The element type of an array type.
fn element(kind: &str) -> Option<&str> {
    kind.strip_suffix(']')?.rsplit_once('[').map(|(element, _)| element)
}

/// The domain's fields in the order of the standard, with their types.
const DOMAIN_FIELDS: [(&str, &str); 5] = [
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
    ("salt", "bytes32"),
];

fn check_domain(domain: &Node<'_>, declared: Option<&Vec<(&str, &str)>>) -> Result<(), PayloadError> {
    let fields = domain.object(&DOMAIN_FIELDS.map(|(name, _)| name))?;
    let present: Vec<_> =
        DOMAIN_FIELDS.into_iter().filter(|(name, _)| fields.field(name).is_some()).collect();
    match declared {
        Some(declared) if *declared != present => Err(domain
            .error("its fields are not those that `types.EIP712Domain` declares, in the order of EIP-712")
            .into()),
        _ => Ok(()),
    }
}

/// How many values `name` consists of; checks on the way that no struct contains itself.
fn expansion<'a>(
    structs: &Structs<'a>,
    name: &'a str,
    known: &mut BTreeMap<&'a str, usize>,
    inside: &mut Vec<&'a str>,
) -> Result<usize, String> {
    if let Some(size) = known.get(name) {
        return Ok(*size);
    }
    let Some(fields) = structs.get(name) else {
        return Ok(1);
    };
    if inside.contains(&name) {
        return Err(format!("the struct `{name}` contains itself"));
    }
    if inside.len() >= crate::strict_json::MAX_DEPTH {
        return Err(format!("structs inside each other more than {} deep", crate::strict_json::MAX_DEPTH));
    }
    inside.push(name);
    let mut total = 1_usize;
    for (_, kind) in fields {
        total = total.saturating_add(expansion(structs, stem(kind), known, inside)?);
    }
    inside.pop();
    if total > MAX_TYPE_EXPANSION {
        return Err(format!("`{name}` spelt out has more than {MAX_TYPE_EXPANSION} values"));
    }
    known.insert(name, total);
    Ok(total)
}

/// Refuses what the message says beyond its types, and names what is missing. That the values fit is
/// checked where they are encoded.
fn check_message(structs: &Structs<'_>, kind: &str, node: &Node<'_>) -> Result<(), JsonError> {
    if let Some(element) = element(kind) {
        return node.array()?.try_for_each(|item| check_message(structs, element, &item));
    }
    let Some(fields) = structs.get(kind) else {
        return Ok(());
    };
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    let object = node.object(&names)?;
    fields.iter().try_for_each(|(name, kind)| check_message(structs, kind, &object.required(name)?))
}
