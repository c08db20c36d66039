//! Admission tokens, with which a party lets a tenant store wallets with it.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, Message},
    identity::{IdentityKey, IdentitySignature, PartyKeys, Statement},
    ids::{PartyId, TenantId},
};

/// Why a token admits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionRefusal {
    /// Not signed by this party's key.
    #[error("the admission token is not signed by this party")]
    Signature,
    /// Issued by another party.
    #[error("the admission token is for another party")]
    Party,
    /// Issued to another tenant.
    #[error("the admission token is for another tenant")]
    Tenant,
    /// Expired.
    #[error("the admission token expired at {expired_at} (unix seconds)")]
    Expired {
        /// When, in seconds since 1970.
        expired_at: u64,
    },
    /// The party already stores as many wallets as the token admits.
    #[error("the admission token's {max_wallets} wallets are used up")]
    Quota {
        /// How many wallets the token admits.
        max_wallets: u32,
    },
}

/// The contents of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
struct Grant {
    party: PartyId,
    tenant: TenantId,
    #[udigest(as_bytes)]
    token: [u8; 16],
    expires_at: u64,
    max_wallets: u32,
}

impl Statement for Grant {
    const TAG: &'static str = "admission";
}

/// Admits up to a number of wallets of one tenant to one party's store until a time; signed by
/// that party. As text it is one line of hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, udigest::Digestable)]
pub struct AdmissionToken {
    grant: Grant,
    signature: IdentitySignature,
}

impl Message for AdmissionToken {
    const KIND: u8 = 0x05;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 256;
}

impl AdmissionToken {
    /// Issues a token. `token` is drawn at random, `expires_at` counts seconds since 1970.
    #[must_use]
    pub fn issue(
        keys: &PartyKeys,
        party: PartyId,
        tenant: TenantId,
        token: [u8; 16],
        expires_at: u64,
        max_wallets: u32,
    ) -> Self {
        let grant = Grant { party, tenant, token, expires_at, max_wallets };
        let signature = keys.sign_statement(&grant);
        Self { grant, signature }
    }

    /// The token's own name, under which the party counts its wallets.
    #[must_use]
    pub const fn id(&self) -> &[u8; 16] {
        &self.grant.token
    }

    /// The party that issued it.
    #[must_use]
    pub const fn party(&self) -> &PartyId {
        &self.grant.party
    }

    /// The tenant that it admits.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.grant.tenant
    }

    /// When it expires, in seconds since 1970.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.grant.expires_at
    }

    /// How many wallets it admits.
    #[must_use]
    pub const fn max_wallets(&self) -> u32 {
        self.grant.max_wallets
    }

    /// Checks that it admits one more wallet of `tenant` to the checking party.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn admit(
        &self,
        party: &PartyId,
        identity: &IdentityKey,
        tenant: &TenantId,
        now_unix_s: u64,
        wallets_held: u32,
    ) -> Result<(), AdmissionRefusal> {
        let grant = &self.grant;
        if grant.party != *party {
            return Err(AdmissionRefusal::Party);
        }
        identity.verify_statement(grant, &self.signature).map_err(|_| AdmissionRefusal::Signature)?;
        if grant.tenant != *tenant {
            return Err(AdmissionRefusal::Tenant);
        }
        if grant.expires_at <= now_unix_s {
            return Err(AdmissionRefusal::Expired { expired_at: grant.expires_at });
        }
        if wallets_held >= grant.max_wallets {
            return Err(AdmissionRefusal::Quota { max_wallets: grant.max_wallets });
        }
        Ok(())
    }
}

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an admission token: expected the line that the party printed")]
pub struct InvalidToken;

impl fmt::Display for AdmissionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(codec::encode(self).map_err(|_| fmt::Error)?))
    }
}

impl FromStr for AdmissionToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.len() > 2 * Self::MAX_SIZE_BYTES {
            return Err(InvalidToken);
        }
        codec::decode(&hex::decode(text).map_err(|_| InvalidToken)?).map_err(|_| InvalidToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

    #[test]
    fn each_thing_that_is_wrong_is_named() {
        let keys = PartyKeys::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let other = PartyKeys::generate(&mut ChaCha20Rng::seed_from_u64(2)).identity();
        let (party, tenant): (PartyId, TenantId) = ("service".parse().unwrap(), "acme".parse().unwrap());
        let token = AdmissionToken::issue(&keys, party.clone(), tenant.clone(), [1; 16], 100, 2);
        let key = keys.identity();
        assert_eq!(token.admit(&party, &key, &tenant, 99, 1), Ok(()));
        assert_eq!(token.admit(&party, &other, &tenant, 99, 1), Err(AdmissionRefusal::Signature));
        assert_eq!(
            token.admit(&party, &key, &tenant, 100, 1),
            Err(AdmissionRefusal::Expired { expired_at: 100 })
        );
        assert_eq!(
            token.admit(&party, &key, &tenant, 99, 2),
            Err(AdmissionRefusal::Quota { max_wallets: 2 })
        );
        assert_eq!(token.admit(&party, &key, &"evil".parse().unwrap(), 99, 1), Err(AdmissionRefusal::Tenant));
        assert_eq!(
            token.admit(&"partner".parse().unwrap(), &key, &tenant, 99, 1),
            Err(AdmissionRefusal::Party)
        );
        let mut raised = token.clone();
        raised.grant.max_wallets = 1000;
        assert_eq!(raised.admit(&party, &key, &tenant, 99, 1), Err(AdmissionRefusal::Signature));
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}
