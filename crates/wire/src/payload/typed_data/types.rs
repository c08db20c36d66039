//! The structs that a document declares, checked, and their EIP-712 encoding (`encodeType`).
//!
//! `alloy-dyn-abi` reads names by Solidity's grammar and refuses recursion. So it cannot express
//! documents that wallets sign every day: `HyperliquidTransaction:UsdSend`, `a-b`, a tree.

use std::collections::{BTreeMap, BTreeSet};

use crate::strict_json::{JsonError, Node};

/// The name of the domain's own type.
pub(super) const DOMAIN_TYPE: &str = "EIP712Domain";
/// The domain's members in the order of the standard, with their types.
pub(super) const DOMAIN_MEMBERS: [(&str, &str); 5] = [
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
    ("salt", "bytes32"),
];
/// How many characters the name of a struct, a member or a type may have.
const MAX_NAME_LENGTH: usize = 128;
/// How many dimensions an array may have.
const MAX_ARRAY_DIMENSIONS: usize = 8;

/// A member's type without its array brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stem<'a> {
    Leaf(Leaf),
    Struct(&'a str),
}

/// A built-in type of Solidity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    Address,
    Bool,
    String,
    Bytes,
    /// `bytesN`, by its bytes.
    FixedBytes(usize),
    /// `uintN`, by its bits.
    Uint(usize),
    /// `intN`, by its bits.
    Int(usize),
}

impl<'a> Stem<'a> {
    fn read(name: &'a str) -> Result<Self, &'static str> {
        let numbered = || {
            [("uint", 8), ("int", 8), ("bytes", 1)].into_iter().find_map(|(stem, unit)| {
                let digits = name.strip_prefix(stem)?;
                let width: usize = digits.parse().ok().filter(|_| !digits.starts_with('0'))?;
                (width.is_multiple_of(unit) && (1..=32).contains(&(width / unit))).then_some((stem, width))
            })
        };
        Ok(Self::Leaf(match name {
            "address" => Leaf::Address,
            "bool" => Leaf::Bool,
            "string" => Leaf::String,
            "bytes" => Leaf::Bytes,
            "int" | "uint" => {
                return Err("libraries hash `int` and `uint` in two ways; write int256 or uint256");
            }
            _ if !is_reserved(name) => return Ok(Self::Struct(name)),
            _ => match numbered().ok_or("Solidity has no such type")? {
                ("uint", bits) => Leaf::Uint(bits),
                ("int", bits) => Leaf::Int(bits),
                (_, bytes) => Leaf::FixedBytes(bytes),
            },
        }))
    }
}

/// A member's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Type<'a> {
    pub(super) stem: Stem<'a>,
    /// The arrays around the stem, innermost first, each with its length if that is fixed.
    pub(super) dimensions: Vec<Option<usize>>,
}

impl<'a> Type<'a> {
    pub(super) const fn is_struct(&self) -> bool {
        matches!(self.stem, Stem::Struct(_))
    }

    fn read(text: &'a str) -> Result<Self, String> {
        if text.len() > MAX_NAME_LENGTH || text.matches('[').count() > MAX_ARRAY_DIMENSIONS {
            return Err(format!(
                "a type has at most {MAX_NAME_LENGTH} bytes and {MAX_ARRAY_DIMENSIONS} array dimensions"
            ));
        }
        let mut dimensions = Vec::new();
        let mut rest = text;
        while let Some((element, length)) = rest.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
            dimensions.push(match length {
                "" => None,
                _ if length.starts_with('0') || !length.bytes().all(|digit| digit.is_ascii_digit()) => {
                    return Err("the length of an array is a decimal number from 1".to_owned());
                }
                _ => Some(length.parse().map_err(|_| "no array is as long as that".to_owned())?),
            });
            rest = element;
        }
        dimensions.reverse();
        check_name(rest)?;
        Ok(Self { stem: Stem::read(rest)?, dimensions })
    }
}

/// One member of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    /// The type's spelling in the document, which is hashed.
    pub(super) spelling: &'a str,
    pub(super) kind: Type<'a>,
}

/// The structs of a document by name.
#[derive(Debug, Default)]
pub(super) struct Structs<'a>(BTreeMap<&'a str, Vec<Member<'a>>>);

impl<'a> Structs<'a> {
    /// Reads the member `types`.
    ///
    /// # Errors
    /// With the path of the name or type that is refused.
    pub(super) fn read(types: &Node<'a>) -> Result<Self, JsonError> {
        let map = types.value.as_object().ok_or_else(|| types.error("expected an object"))?;
        let mut structs = BTreeMap::new();
        for (name, members) in map {
            let node = Node { value: members, path: format!("{}.{name}", types.path) };
            check_name(name).map_err(|problem| node.error(problem))?;
            if is_reserved(name) {
                return Err(node.error("a struct cannot have the name of a type of Solidity"));
            }
            let mut names = BTreeSet::new();
            let members = node
                .array()?
                .map(|member| {
                    let member = member.object(&["name", "type"])?;
                    let (name, kind) = (member.required("name")?, member.required("type")?);
                    check_name(name.text()?).map_err(|problem| name.error(problem))?;
                    if !names.insert(name.text()?) {
                        return Err(name.error("the struct has this member twice"));
                    }
                    let spelling = kind.text()?;
                    let read = Type::read(spelling).map_err(|problem| kind.error(problem))?;
                    if let Stem::Struct(name) = read.stem
                        && !map.contains_key(name)
                    {
                        return Err(
                            kind.error("neither a type of Solidity nor one of the structs of `types`")
                        );
                    }
                    Ok(Member { name: name.text()?, spelling, kind: read })
                })
                .collect::<Result<Vec<_>, JsonError>>()?;
            structs.insert(name.as_str(), members);
        }
        Ok(Self(structs))
    }

    /// The members of a struct.
    pub(super) fn get(&self, name: &str) -> Option<&[Member<'a>]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// `encodeType`: the struct, then the structs that it uses in the order of their names.
    ///
    /// # Errors
    /// Where libraries would spell it differently. To find the structs that a struct uses, MetaMask
    /// reads its name only up to the first character that is no ASCII letter, digit or underscore.
    /// For `A:B` or `A$` it misses some, or finds those of another struct `A`.
    pub(super) fn spelt(&self, name: &str) -> Result<String, String> {
        let mut parts = self.reached(name, |name| name);
        let mut of_metamask = self.reached(name, word);
        parts.remove(name);
        of_metamask.remove(name);
        if parts != of_metamask {
            return Err(format!(
                "libraries do not agree on how `{name}` is spelt out, because of a struct whose name has \
                 other characters than letters, digits and underscores"
            ));
        }
        let spell = |name| spell(name, self.get(name).unwrap_or_default());
        Ok(core::iter::once(name).chain(parts).map(spell).collect())
    }

    /// The structs that `name` uses, itself included. `named` maps the names before the search.
    fn reached<'b>(&'b self, name: &'b str, named: impl Fn(&'b str) -> &'b str) -> BTreeSet<&'b str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![named(name)];
        while let Some(name) = open.pop() {
            let Some(members) = self.get(name) else { continue };
            if reached.insert(name) {
                open.extend(members.iter().filter_map(|member| match member.kind.stem {
                    Stem::Struct(name) => Some(named(name)),
                    _ => None,
                }));
            }
        }
        reached
    }

    /// A struct whose name viem refuses, since viem allows only some characters in names.
    pub(super) fn not_of_viem(&self) -> Option<&'a str> {
        let is_viems =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_$:".contains(&byte));
        self.0.keys().find(|name| !is_viems(name)).copied()
    }

    /// Whether ethers can express a document of these structs, so that it can confirm MetaMask's
    /// digest where viem cannot. It can if all structs are used, none contains itself, and the
    /// whole domain is signed.
    ///
    /// # Errors
    /// With the reason why it cannot.
    pub(super) fn are_of_ethers(&self, primary: &str, domain_is_covered: bool) -> Result<(), &'static str> {
        if !domain_is_covered || self.get(DOMAIN_TYPE).is_some_and(|declared| !is_standard(declared)) {
            return Err("EIP712Domain is not declared as the standard has it");
        }
        let mut others: BTreeSet<_> = self.0.keys().copied().filter(|name| *name != DOMAIN_TYPE).collect();
        // Removes structs that no other uses, until nothing is left or only structs that contain
        // themselves.
        let mut first = true;
        loop {
            let parts: BTreeSet<_> = others
                .iter()
                .flat_map(|name| self.get(name).unwrap_or_default())
                .filter_map(|member| match member.kind.stem {
                    Stem::Struct(name) => Some(name),
                    _ => None,
                })
                .collect();
            if parts.contains(DOMAIN_TYPE) {
                return Err("a struct has a member of the domain's type");
            }
            let roots: Vec<_> = others.difference(&parts).copied().collect();
            if first && roots != [primary] {
                return Err("a struct is not used, or contains itself");
            }
            first = false;
            if others.is_empty() {
                return Ok(());
            }
            if roots.is_empty() {
                return Err("a struct contains itself");
            }
            others.retain(|name| !roots.contains(name));
        }
    }
}

/// One struct in the form of `encodeType`: `Mail(address to,string text)`.
pub(super) fn spell(name: &str, members: &[Member<'_>]) -> String {
    let members: Vec<_> =
        members.iter().map(|member| format!("{} {}", member.spelling, member.name)).collect();
    format!("{name}({})", members.join(","))
}

/// Whether the declared members of a domain are the standard's, in its order and with its types.
fn is_standard(declared: &[Member<'_>]) -> bool {
    let mut standard = DOMAIN_MEMBERS.into_iter();
    declared.iter().all(|member| standard.any(|known| known == (member.name, member.spelling)))
}

/// Refuses the characters with which one list of types could be spelt like another.
fn check_name(name: &str) -> Result<(), String> {
    let is_structure = |c: char| "()[],\"'`".contains(c) || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_NAME_LENGTH || name.contains(is_structure) {
        return Err(format!(
            "a name has 1 to {MAX_NAME_LENGTH} bytes, and no brackets, commas, quotes, blanks or control \
             characters"
        ));
    }
    // In JavaScript it does not name a plain member.
    if name == "__proto__" { Err("this name means something else to JavaScript".to_owned()) } else { Ok(()) }
}

/// Whether a name is a built-in type of Solidity, or looks like one: `uint7`, `bytes33`.
fn is_reserved(name: &str) -> bool {
    let numbered = |stem: &str| {
        name.strip_prefix(stem).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
    };
    matches!(name, "address" | "bool" | "string") || ["uint", "int", "bytes"].into_iter().any(numbered)
}

/// The leading ASCII letters, digits and underscores of a name.
fn word(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    name.get(..end).unwrap_or_default()
}
