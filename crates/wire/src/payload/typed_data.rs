//! Typed data under [EIP-712](https://eips.ethereum.org/EIPS/eip-712).
//!
//! This module signs what MetaMask signs and ethers or viem confirm, with the same digest, and
//! refuses everything else. It reads values as strictly as those of transactions. A member that the
//! types do not declare is refused, unless the document says that it is to be dropped.
//! `docs/adapters.md` lists what is refused although libraries would sign it, and why.

mod types;
mod walk;

use alloy_primitives::keccak256;
use serde_json::Value;

use self::{
    types::{DOMAIN_MEMBERS, DOMAIN_TYPE, Member, Structs},
    walk::{Undeclared, Walk},
};
use super::{DescribedField, NotSigned, PayloadError};
use crate::{
    encoding::parse_address,
    strict_json::{JsonError, Node, Object},
};

/// A typed document, checked against its own types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedDataRequest {
    /// The document as it was given.
    document: Value,
    primary_type: String,
    chain_id: Option<u64>,
    verifying_contract: Option<[u8; 20]>,
    digest: [u8; 32],
    fields: Vec<DescribedField>,
    not_signed: Vec<NotSigned>,
}

impl TypedDataRequest {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, PayloadError> {
        let members = node.object(&["types", "primaryType", "domain", "message", "undeclared"])?;
        let types = members.required("types")?;
        let primary_type = members.required("primaryType")?;
        let domain = members.required("domain")?;
        let message = members.required("message")?;
        let undeclared = match members.field("undeclared") {
            None => Undeclared::Refuse,
            Some(node) => match node.text()? {
                "refuse" => Undeclared::Refuse,
                "drop" => Undeclared::Drop,
                _ => return Err(node.error("expected `refuse` or `drop`").into()),
            },
        };
        let structs = Structs::read(&types)?;
        let primary = primary_type.text()?;
        if primary == DOMAIN_TYPE || structs.get(primary).is_none() {
            return Err(primary_type
                .error("expected one of the structs of `types`, not the domain's")
                .into());
        }
        let implied = implied_domain(&domain)?;
        let implied = Structs::read(&Node { value: &implied, path: types.path.clone() })?;
        let domain_members =
            structs.get(DOMAIN_TYPE).or_else(|| implied.get(DOMAIN_TYPE)).unwrap_or_default();
        let domain_object = domain.any_object()?;
        let is_covered = DOMAIN_MEMBERS.iter().all(|(name, _)| {
            !is_there(&domain_object, name) || domain_members.iter().any(|member| member.name == *name)
        });
        let of_ethers = || structs.are_of_ethers(primary, is_covered);
        if let Some(name) = structs.not_of_viem()
            && let Err(problem) = of_ethers()
        {
            return Err(types
                .error(format_args!("with the struct `{name}` only one library signs this: {problem}"))
                .into());
        }
        if domain_members.iter().any(|member| member.kind.is_struct()) {
            return Err(types.error("the members of EIP712Domain are no structs").into());
        }

        let mut walk = Walk::new(&structs, undeclared);
        let separator = walk.hash_domain(domain_members, &domain)?;
        walk.note("primaryType", "string", primary);
        let hash = walk.hash_struct(primary, &message)?;
        let Walk { fields, not_signed, capitals, .. } = walk;
        if let Some(path) = capitals
            && let Err(problem) = of_ethers()
        {
            return Err(JsonError::new(
                path,
                format_args!(
                    "an address in capital letters, with which only one library signs this: {problem}; write it \
                     in small letters or with its EIP-55 checksum"
                ),
            )
            .into());
        }

        let covered = Covered { domain: domain_object, members: domain_members };
        let chain_id = covered.get("chainId").map(|id| id.quantity(256)).transpose()?;
        let verifying_contract = covered
            .get("verifyingContract")
            .map(|contract| parse_address(contract.text()?).map_err(|problem| contract.error(problem)))
            .transpose()?;
        Ok(Self {
            primary_type: primary.to_owned(),
            chain_id: chain_id.and_then(|id| u64::try_from(id).ok()),
            verifying_contract,
            digest: keccak256([&[0x19, 0x01], separator.as_slice(), hash.as_slice()].concat()).0,
            fields,
            not_signed,
            document: node.value.clone(),
        })
    }

    pub(super) const fn to_value(&self) -> &Value {
        &self.document
    }

    /// The document as it was given: `types`, `primaryType`, `domain`, `message`, and `undeclared`
    /// if it says what happens to members that the types do not declare.
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

    /// The contract that is to verify the signature. `None` where the domain's type does not cover
    /// it; then the signature is valid for any contract.
    #[must_use]
    pub const fn verifying_contract(&self) -> Option<[u8; 20]> {
        self.verifying_contract
    }

    /// The struct that is signed.
    #[must_use]
    pub fn primary_type(&self) -> &str {
        &self.primary_type
    }

    /// The domain's chain. `None` where the domain's type does not cover it; then the signature is
    /// valid on any chain.
    #[must_use]
    pub const fn chain_id(&self) -> Option<u64> {
        self.chain_id
    }

    /// Every value that goes into the digest, in order.
    pub(super) fn fields(&self) -> &[DescribedField] {
        &self.fields
    }

    /// Every member of the document that does not go into the digest.
    pub(super) fn not_signed(&self) -> &[NotSigned] {
        &self.not_signed
    }
}

/// The type of a domain that the document does not declare: the standard's members that are
/// present, in the standard's order. `null` counts as absent.
fn implied_domain(domain: &Node<'_>) -> Result<Value, JsonError> {
    let object = domain.any_object()?;
    let present = DOMAIN_MEMBERS.iter().filter(|(name, _)| is_there(&object, name));
    let members: Vec<_> =
        present.map(|(name, kind)| serde_json::json!({ "name": name, "type": kind })).collect();
    Ok(serde_json::json!({ DOMAIN_TYPE: members }))
}

fn is_there(object: &Object<'_>, name: &str) -> bool {
    object.field(name).is_some_and(|node| !node.value.is_null())
}

/// The members of a domain that its type covers with their standard types. No decision depends on
/// others.
struct Covered<'a> {
    domain: Object<'a>,
    members: &'a [Member<'a>],
}

impl<'a> Covered<'a> {
    fn get(&self, name: &str) -> Option<Node<'a>> {
        let covered = |member: &Member<'_>| {
            member.name == name && DOMAIN_MEMBERS.contains(&(member.name, member.spelling))
        };
        self.members.iter().any(covered).then(|| self.domain.field(name))?
    }
}
