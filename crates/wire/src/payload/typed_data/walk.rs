//! Reads and hashes the values of a document (`hashStruct`), with the same readers as transactions.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};

use super::types::{DOMAIN_MEMBERS, DOMAIN_TYPE, Leaf, Member, Stem, Structs, Type, spell};
use crate::{
    encoding::parse_address,
    payload::{
        PayloadError,
        field::{DescribedField, NotSigned, NotSignedReason, hexadecimal},
    },
    strict_json::{JsonError, Node},
};

/// How many bytes the types of a document may have once they are spelt out. Every struct is spelt
/// out with all structs that it uses, so the whole can grow with the square of the document's size.
const MAX_SPELT_TYPES_BYTES: usize = 1024 * 1024;

/// What happens to a member that the types do not declare: the document's own member `undeclared`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undeclared {
    /// `refuse`, the default.
    Refuse,
    /// `drop`: it is not signed, and the description says so.
    Drop,
}

/// One walk through a document. It hashes each value and notes it for people, so that what is shown
/// is what is signed.
pub(super) struct Walk<'a> {
    structs: &'a Structs<'a>,
    undeclared: Undeclared,
    type_hashes: BTreeMap<&'a str, B256>,
    spelt_bytes: usize,
    pub(super) fields: Vec<DescribedField>,
    pub(super) not_signed: Vec<NotSigned>,
    /// The path of an address in capital letters that are not its checksum, which viem refuses.
    pub(super) capitals: Option<String>,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(structs: &'a Structs<'a>, undeclared: Undeclared) -> Self {
        Self {
            structs,
            undeclared,
            type_hashes: BTreeMap::new(),
            spelt_bytes: 0,
            fields: Vec::new(),
            not_signed: Vec::new(),
            capitals: None,
        }
    }

    /// Notes a value that goes into the digest.
    pub(super) fn note(&mut self, path: &str, kind: impl Into<String>, value: impl ToString) {
        self.fields.push(DescribedField {
            path: path.to_owned(),
            kind: kind.into(),
            value: value.to_string(),
        });
    }

    /// `hashStruct` of a declared struct.
    pub(super) fn hash_struct(&mut self, name: &'a str, node: &Node<'a>) -> Result<B256, PayloadError> {
        let structs = self.structs;
        let members =
            structs.get(name).ok_or_else(|| node.error(format_args!("there is no struct `{name}`")))?;
        let type_hash = match self.type_hashes.get(name) {
            Some(hash) => *hash,
            None => {
                let spelt =
                    structs.spelt(name).map_err(|problem| PayloadError::TypedData(node.error(problem)))?;
                self.spelt_bytes = self.spelt_bytes.saturating_add(spelt.len());
                if self.spelt_bytes > MAX_SPELT_TYPES_BYTES {
                    let problem =
                        format_args!("the types spelt out have more than {MAX_SPELT_TYPES_BYTES} bytes");
                    return Err(node.error(problem).into());
                }
                let hash = keccak256(spelt);
                self.type_hashes.insert(name, hash);
                hash
            }
        };
        self.hash_members(name, type_hash, members, node, &[])
    }

    /// `hashStruct` of the domain: the separator. Members that the standard knows and `members`
    /// does not cover are left out, as the libraries do.
    pub(super) fn hash_domain(
        &mut self,
        members: &'a [Member<'a>],
        node: &Node<'a>,
    ) -> Result<B256, PayloadError> {
        let object = node.any_object()?;
        let not_covered =
            DOMAIN_MEMBERS.map(|(name, _)| name).into_iter().filter(|name| !declares(members, name));
        let not_covered: Vec<_> = not_covered.collect();
        for name in &not_covered {
            if let Some(value) = object.field(name).filter(|value| !value.value.is_null()) {
                self.leave_out(object.path_of(name), &value, NotSignedReason::NotCovered);
            }
        }
        self.hash_members(DOMAIN_TYPE, keccak256(spell(DOMAIN_TYPE, members)), members, node, &not_covered)
    }

    /// `hashStruct` of `members`, whose type is already hashed. `passed_over` are names that may
    /// also be present.
    fn hash_members(
        &mut self,
        name: &str,
        type_hash: B256,
        members: &'a [Member<'a>],
        node: &Node<'a>,
        passed_over: &[&str],
    ) -> Result<B256, PayloadError> {
        let object = node.any_object()?;
        let unknown = object.names().filter(|name| !declares(members, name) && !passed_over.contains(name));
        for unknown in unknown {
            let path = object.path_of(unknown);
            if self.undeclared == Undeclared::Refuse {
                let known: Vec<_> = members.iter().map(|member| member.name).collect();
                return Err(JsonError::new(
                    path,
                    format_args!(
                        "unknown field; `types` declares {} for `{name}`. Remove it, declare it, or set \
                         `undeclared` to `drop` to sign without it",
                        if known.is_empty() { "nothing".to_owned() } else { known.join(", ") }
                    ),
                )
                .into());
            }
            if let Some(value) = object.field(unknown) {
                self.leave_out(path, &value, NotSignedReason::Undeclared);
            }
        }
        if members.is_empty() {
            self.note(&node.path, name, "empty");
        }
        let mut encoded = type_hash.to_vec();
        for member in members {
            let value = object.required(member.name)?;
            encoded.extend(self.word(&member.kind, &member.kind.dimensions, &value)?);
        }
        Ok(keccak256(encoded))
    }

    /// Notes a member that does not go into the digest.
    fn leave_out(&mut self, path: String, value: &Node<'_>, reason: NotSignedReason) {
        self.not_signed.push(NotSigned { path, value: value.value.to_string(), reason });
    }

    /// The 32 bytes that encode a value of `kind` inside the arrays of `dimensions`, innermost
    /// first.
    fn word(
        &mut self,
        kind: &Type<'a>,
        dimensions: &[Option<usize>],
        node: &Node<'a>,
    ) -> Result<B256, PayloadError> {
        let Some((length, inner)) = dimensions.split_last() else {
            return self.stem(kind.stem, node);
        };
        let items: Vec<_> = node.array()?.collect();
        if let Some(length) = length.filter(|length| *length != items.len()) {
            let found = items.len();
            let problem = format_args!("does not fit its type: {found} elements, declared are {length}");
            return Err(PayloadError::TypedData(node.error(problem)));
        }
        // An empty array is signed, too, and has to be shown.
        if items.is_empty() {
            self.note(&node.path, "array", "empty");
        }
        let mut encoded = Vec::with_capacity(32 * items.len());
        for item in &items {
            encoded.extend(self.word(kind, inner, item)?);
        }
        Ok(keccak256(encoded))
    }

    fn stem(&mut self, stem: Stem<'a>, node: &Node<'a>) -> Result<B256, PayloadError> {
        match stem {
            Stem::Struct(name) => self.hash_struct(name, node),
            Stem::Leaf(leaf) => self.leaf(leaf, node).map_err(PayloadError::TypedData),
        }
    }

    fn leaf(&mut self, leaf: Leaf, node: &Node<'a>) -> Result<B256, JsonError> {
        let path = node.path.as_str();
        Ok(match leaf {
            Leaf::Address => {
                let address =
                    Address::from(parse_address(node.text()?).map_err(|problem| node.error(problem))?);
                let checksummed = address.to_checksum(None);
                if node.text()? != checksummed && node.text()?.contains(|c: char| c.is_ascii_uppercase()) {
                    self.capitals.get_or_insert_with(|| path.to_owned());
                }
                self.note(path, "address", checksummed);
                address.into_word()
            }
            Leaf::Bool => {
                let bit = node.boolean()?;
                self.note(path, "bool", bit);
                B256::with_last_byte(bit.into())
            }
            Leaf::String => {
                self.note(path, "string", node.text()?);
                keccak256(node.text()?)
            }
            Leaf::Bytes => {
                let bytes = node.bytes()?;
                self.note(path, "bytes", hexadecimal(&bytes));
                keccak256(bytes)
            }
            Leaf::FixedBytes(size) => {
                let bytes = node.bytes()?;
                if bytes.len() != size {
                    return Err(node.error(format_args!(
                        "does not fit its type: {} bytes, bytes{size} has {size}",
                        bytes.len()
                    )));
                }
                self.note(path, format!("bytes{size}"), hexadecimal(&bytes));
                B256::right_padding_from(&bytes)
            }
            Leaf::Uint(bits) => {
                let number = node.quantity(bits)?;
                self.note(path, format!("uint{bits}"), number);
                number.into()
            }
            Leaf::Int(bits) => {
                let (is_negative, size) = node.signed_quantity(bits)?;
                let sign = if is_negative { "-" } else { "" };
                self.note(path, format!("int{bits}"), format_args!("{sign}{size}"));
                if is_negative { U256::ZERO.wrapping_sub(size) } else { size }.into()
            }
        })
    }
}

fn declares(members: &[Member<'_>], name: &str) -> bool {
    members.iter().any(|member| member.name == name)
}
