//! Identifiers. Each is checked when it is parsed, so none can hold an invalid value.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Why text is not the expected identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not the right number of hexadecimal digits, or another character among them.
    #[error("expected {expected} hexadecimal digits")]
    Hex {
        /// How many digits the identifier has.
        expected: usize,
    },
    /// Not a lowercase token of at most 32 characters that starts with a letter.
    #[error("expected 1 to 32 of a-z, 0-9 and '-', the first a letter")]
    Token,
    /// Not a share index.
    #[error("a share index is 1 (device), 2 (service) or 3 (partner)")]
    ShareIndex,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, udigest::Digestable)]
        pub struct $name(#[udigest(as_bytes)] pub [u8; $len]);

        impl $name {
            /// The identifier's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Hex { expected: 2 * $len })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

byte_id!(
    /// A wallet: the hash of its public key, Feldman commitment, cards and nonce. 32 bytes.
    WalletId, 32
);
byte_id!(
    /// One attempt of two parties to sign. 16 bytes, drawn at random, never used twice.
    SessionId, 16
);
byte_id!(
    /// A Paillier key of an initiator. 16 bytes, the head of the hash of its modulus and owner.
    PaillierKeyId, 16
);
byte_id!(
    /// A card's fingerprint: the hash of the whole card. 32 bytes.
    CardFingerprint, 32
);

/// The number of refreshes of a wallet's shares; 0 after key generation.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    udigest::Digestable,
)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether `text` is a token: 1 to 32 of `a-z`, `0-9` and `-`, the first a letter.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! token_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, udigest::Digestable)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_token(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId::Token) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

token_id!(
    /// A party's name: 1 to 32 of `a-z`, `0-9` and `-`, the first a letter, so that it can be a
    /// token of a NATS subject.
    PartyId
);
token_id!(
    /// A tenant's name, in the same alphabet and for the same reason as [`PartyId`].
    TenantId
);

/// The index of one of the three Shamir shares: the evaluation point of the degree-1 polynomial.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, udigest::Digestable,
)]
#[serde(try_from = "u8", into = "u8")]
pub enum ShareIndex {
    /// 1: the owner's device.
    Device = 1,
    /// 2: the service.
    Service = 2,
    /// 3: the partner, or the owner's sealed backup.
    Partner = 3,
}

impl ShareIndex {
    /// All three, in order.
    pub const ALL: [Self; 3] = [Self::Device, Self::Service, Self::Partner];
}

impl From<ShareIndex> for u8 {
    fn from(index: ShareIndex) -> Self {
        index as Self
    }
}

impl TryFrom<u8> for ShareIndex {
    type Error = InvalidId;
    fn try_from(value: u8) -> Result<Self, InvalidId> {
        match value {
            1 => Ok(Self::Device),
            2 => Ok(Self::Service),
            3 => Ok(Self::Partner),
            _ => Err(InvalidId::ShareIndex),
        }
    }
}

impl fmt::Display for ShareIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u8::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_could_change_a_subject_are_refused() {
        for bad in ["", "A", "a.b", "a*", ">", "1a", "a b", &"a".repeat(33)] {
            assert_eq!(bad.parse::<PartyId>(), Err(InvalidId::Token), "{bad}");
        }
        assert!("service-2".parse::<PartyId>().is_ok());
    }

    #[test]
    fn zero_and_four_are_no_share_indices() {
        assert!(ShareIndex::try_from(0).is_err() && ShareIndex::try_from(4).is_err());
    }

    #[test]
    fn byte_ids_round_trip_as_hex() {
        let id = SessionId([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("00".parse::<SessionId>().is_err());
    }
}
