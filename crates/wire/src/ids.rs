//! Identifiers of jobs, and the key that makes submissions repeatable.

use core::{fmt, str::FromStr};

use duet_protocol::ids::InvalidId;
pub use duet_protocol::ids::TenantId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use udigest::Digestable as _;

/// A requester's own name for a job: 1 to 255 visible ASCII characters. The same key of the same
/// tenant is the same job.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IdempotencyKey(String);

/// Why text is not an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;
    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({})", self.0)
    }
}

impl<'de> Deserialize<'de> for IdempotencyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The name that a worker process draws when it starts: 1 to 64 ASCII letters and digits, so that
/// it can be part of a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(String);

/// Why text is not the name of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a worker process is 1 to 64 ASCII letters and digits")]
pub struct InvalidInstanceId;

impl FromStr for InstanceId {
    type Err = InvalidInstanceId;
    fn from_str(text: &str) -> Result<Self, InvalidInstanceId> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInstanceId)
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A job's id: 16 bytes, derived from the tenant and the idempotency key. So the same key always
/// names the same entry of the job store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, udigest::Digestable)]
pub struct JobId(#[udigest(as_bytes)] pub [u8; 16]);

impl JobId {
    /// The id of `tenant`'s job under `key`: the first 16 bytes of a SHA-256 over an unambiguous
    /// encoding of both.
    #[must_use]
    pub fn derive(tenant: &TenantId, key: &IdempotencyKey) -> Self {
        #[derive(udigest::Digestable)]
        #[udigest(tag = "duet/v1/job")]
        struct Name<'a> {
            tenant: &'a str,
            idempotency_key: &'a str,
        }
        let name = Name { tenant: tenant.as_str(), idempotency_key: key.as_str() };
        let mut hasher = Hasher(Sha256::new());
        name.unambiguously_encode(udigest::encoding::EncodeValue::new(&mut hasher));
        let hash: [u8; 32] = hasher.0.finalize().into();
        let mut id = [0; 16];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// The identifier's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Hex { expected: 32 })?;
        Ok(Self(bytes))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::encoding::hex_array::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::encoding::hex_array::deserialize(deserializer).map(Self)
    }
}

/// Hashes the encoding while it is written; udigest's own type for that needs an older `digest`.
struct Hasher(Sha256);

impl udigest::encoding::Buffer for Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

/// The SHA-256 of `bytes`, to compare documents that arrived twice.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_of_the_same_tenant_is_the_same_job() {
        let id = |tenant: &str, key: &str| JobId::derive(&tenant.parse().unwrap(), &key.parse().unwrap());
        assert_eq!(id("acme", "payout-1"), id("acme", "payout-1"));
        assert_ne!(id("acme", "payout-1"), id("acme", "payout-2"));
        assert_eq!(id("acme", "payout-1").to_string(), "c4d0250503df9d3ab5c7205743e6dbec");
        // Both concatenate to the same text, and are still two jobs.
        assert_ne!(id("acme", "x1"), id("acmex", "1"));
    }

    #[test]
    fn keys_that_cannot_be_an_http_header_are_refused() {
        for bad in ["", " ", "a b", "é", "a\n", &"k".repeat(256)] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad:?}");
        }
        assert!("k".repeat(255).parse::<IdempotencyKey>().is_ok());
    }
}
