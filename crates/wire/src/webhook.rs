//! Webhooks under the [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks)
//! specification: how deliveries are signed, and how a receiver checks them.
//!
//! A receiver passes the headers and the body exactly as they arrived to [`verify`]. The same
//! message may arrive more than once and in any order; [`Delivered::id`] identifies it.
//! message may come more than once and in any order; [`Delivered::id`] tells.

use core::{fmt, str::FromStr};

use base64ct::{Base64, Encoding as _};
use duet_protocol::ids::InvalidId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The header with the message's id: the same for every delivery of the same message.
pub const ID_HEADER: &str = "webhook-id";
/// The header with the time of this delivery, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// How old a delivery, or how far in the future, a receiver accepts by default, in seconds. The
/// specification advises this bound against replays.
pub const TOLERANCE_SECONDS: u64 = 300;

/// How the text of a secret begins.
const SECRET_PREFIX: &str = "whsec_";

/// The size of a secret that this crate makes, in bytes. The specification requires 24 to 64.
pub const SECRET_SIZE_BYTES: usize = 32;

/// The version of symmetric signatures: HMAC-SHA256.
const SYMMETRIC: &str = "v1";

/// Where a tenant's results are delivered: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub [u8; 16]);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointId({self})")
    }
}

impl FromStr for EndpointId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Hex { expected: 32 })?;
        Ok(Self(bytes))
    }
}

impl Serialize for EndpointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::encoding::hex_array::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for EndpointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::encoding::hex_array::deserialize(deserializer).map(Self)
    }
}

/// The secret that both ends of a webhook share. Wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// The text is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook's secret is whsec_ and 24 to 64 bytes in base64")]
pub struct InvalidSecret;

impl Secret {
    /// The secret of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; SECRET_SIZE_BYTES]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The secret as text, as its receiver learns it once.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(Base64::encode_string(&self.0));
        Zeroizing::new(format!("{SECRET_PREFIX}{}", *encoded))
    }

    /// The signature over a delivery, as its header contains it.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let tag = self.mac(id, &timestamp.to_string(), body).finalize().into_bytes();
        format!("{SYMMETRIC},{}", Base64::encode_string(&tag))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        // RFC 2104: a key of at most one block is padded with zeros.
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(self.0.iter()).for_each(|(to, from)| *to = *from);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;
    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or(InvalidSecret)?;
        let bytes = Zeroizing::new(Base64::decode_vec(encoded).map_err(|_| InvalidSecret)?);
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The three headers of a delivery, as they arrived.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    /// [`ID_HEADER`].
    pub id: &'a str,
    /// [`TIMESTAMP_HEADER`].
    pub timestamp: &'a str,
    /// [`SIGNATURE_HEADER`].
    pub signature: &'a str,
}

/// A delivery that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The message's id. A receiver that has already handled it does nothing.
    pub id: String,
    /// When it was sent, in seconds since 1970.
    pub timestamp: u64,
}

/// Why a delivery is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The timestamp is not a number of seconds.
    #[error("{TIMESTAMP_HEADER}: expected a number of seconds since 1970")]
    MalformedTimestamp,
    /// It was sent too long ago, or too far in the future. It may be a replay.
    #[error("{TIMESTAMP_HEADER}: not within the accepted time")]
    OutOfTime,
    /// No signature is by the secret over this id, time and body.
    #[error("{SIGNATURE_HEADER}: none of the signatures verifies")]
    BadSignature,
}

/// Verifies a delivery whose body is `body`, byte for byte, at the time `now`. Until then a
/// receiver must not trust its content.
///
/// `tolerance` is in seconds, usually [`TOLERANCE_SECONDS`].
///
/// # Errors
/// See [`WebhookError`].
pub fn verify(
    secret: &Secret,
    headers: &Headers<'_>,
    body: &[u8],
    now: u64,
    tolerance: u64,
) -> Result<Delivered, WebhookError> {
    let digits =
        (1..=20).contains(&headers.timestamp.len()) && headers.timestamp.bytes().all(|b| b.is_ascii_digit());
    let timestamp: u64 =
        digits.then(|| headers.timestamp.parse().ok()).flatten().ok_or(WebhookError::MalformedTimestamp)?;
    if now.abs_diff(timestamp) > tolerance {
        return Err(WebhookError::OutOfTime);
    }
    // Signatures of unknown versions may stand beside this one.
    let verifies =
        headers.signature.split(' ').filter_map(|text| text.split_once(',')).any(|(version, tag)| {
            let mut bytes = [0; 32];
            version == SYMMETRIC
                && Base64::decode(tag, &mut bytes).is_ok_and(|tag| {
                    secret.mac(headers.id, headers.timestamp, body).verify_slice(tag).is_ok()
                })
        });
    if verifies {
        Ok(Delivered { id: headers.id.to_owned(), timestamp })
    } else {
        Err(WebhookError::BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_not_shown() {
        let secret = Secret::new(&[7; 32]);
        let text = secret.expose();
        assert!(text.starts_with("whsec_BwcH"));
        let again: Secret = text.parse().unwrap();
        assert_eq!(again.sign("a", 1, b"x"), secret.sign("a", 1, b"x"));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        for bad in ["", "whsec_", "BwcH", "whsec_****", "whsec_BwcHBwcH"] {
            assert_eq!(bad.parse::<Secret>().unwrap_err(), InvalidSecret, "{bad}");
        }
    }
}
