//! Authenticates callers of the HTTP interface: bearer tokens, one or more per tenant.
//!
//! The orchestrator knows tokens only by their SHA-256, so its configuration contains no
//! credential. A token opens the interface but authorises no signature. What a wallet signs depends
//! on the requester's own Ed25519 signature, which every party checks again.

use core::{fmt, str::FromStr};

use duet_wire::TenantId;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The SHA-256 of a bearer token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of `token`: the bytes that follow `Bearer ` in the header.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token hash is the 64 hexadecimal digits of a SHA-256")]
pub struct InvalidTokenHash;

impl FromStr for TokenHash {
    type Err = InvalidTokenHash;

    fn from_str(text: &str) -> Result<Self, InvalidTokenHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| InvalidTokenHash)?;
        Ok(Self(bytes))
    }
}

/// One tenant's access to the HTTP interface.
#[derive(Debug, Clone)]
pub struct TenantAccess {
    /// The tenant whose jobs and wallets the tokens open.
    pub tenant: TenantId,
    /// The hashes of its tokens. With two, a token can be replaced without a pause.
    pub tokens: Vec<TokenHash>,
}

/// All tenants' tokens.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<(TokenHash, TenantId)>);

impl Tokens {
    /// The tokens of `tenants`.
    #[must_use]
    pub fn new(tenants: &[TenantAccess]) -> Self {
        let pairs = tenants
            .iter()
            .flat_map(|access| access.tokens.iter().map(|token| (*token, access.tenant.clone())));
        Self(pairs.collect())
    }

    /// The tenant that `token` belongs to. It compares every known hash, each in constant time. So
    /// the time taken reveals neither how close a guess came nor whose token it was.
    #[must_use]
    pub fn tenant_of(&self, token: &str) -> Option<&TenantId> {
        let presented = TokenHash::of(token);
        let mut found = Choice::from(0);
        let mut position = 0_u64;
        for (index, (known, _)) in (0_u64..).zip(&self.0) {
            let same = known.0.ct_eq(&presented.0);
            position.conditional_assign(&index, same);
            found |= same;
        }
        let position = usize::try_from(position).ok()?;
        if bool::from(found) { self.0.get(position).map(|(_, tenant)| tenant) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&[
            TenantAccess {
                tenant: "acme".parse().unwrap(),
                tokens: vec![TokenHash::of("first"), TokenHash::of("second")],
            },
            TenantAccess { tenant: "globex".parse().unwrap(), tokens: vec![TokenHash::of("third")] },
        ])
    }

    #[test]
    fn each_token_opens_its_own_tenant() {
        let tokens = tokens();
        for (token, tenant) in [("first", "acme"), ("second", "acme"), ("third", "globex")] {
            assert_eq!(tokens.tenant_of(token).map(ToString::to_string).as_deref(), Some(tenant));
        }
    }

    #[test]
    fn anything_else_opens_nothing() {
        let tokens = tokens();
        for token in ["", "firs", "first ", "FIRST"] {
            assert_eq!(tokens.tenant_of(token), None, "{token}");
        }
        assert_eq!(Tokens::default().tenant_of("first"), None);
    }

    #[test]
    fn a_hash_is_read_from_hexadecimal_and_not_shown() {
        let text = hex::encode(Sha256::digest(b"first"));
        assert_eq!(text.parse(), Ok(TokenHash::of("first")));
        assert_eq!("00".parse::<TokenHash>(), Err(InvalidTokenHash));
        assert!(!format!("{:?}", TokenHash::of("first")).contains(&text[..8]));
    }
}
