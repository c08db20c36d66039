//! How byte strings are written in JSON, and in the binary codec.
//!
//! Each module here is for `#[serde(with = "…")]`: hexadecimal text in human-readable formats, the
//! plain bytes in the binary one.

use core::fmt;

use serde::{Deserializer, Serializer, de};

struct Array<const N: usize>;

impl<'de, const N: usize> de::Visitor<'de> for Array<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes, as {} hexadecimal digits where text is meant", 2 * N)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; N];
        hex::decode_to_slice(digits, &mut bytes)
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
        Ok(bytes)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<[u8; N], A::Error> {
        let mut bytes = [0; N];
        for (read, byte) in bytes.iter_mut().enumerate() {
            *byte = elements.next_element()?.ok_or_else(|| de::Error::invalid_length(read, &self))?;
        }
        Ok(bytes)
    }
}

fn serialize_array<S: Serializer, const N: usize>(
    prefix: &str,
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeTuple as _;
    if serializer.is_human_readable() {
        return serializer.collect_str(&format_args!("{prefix}{}", hex::encode(bytes)));
    }
    let mut tuple = serializer.serialize_tuple(N)?;
    for byte in bytes {
        tuple.serialize_element(byte)?;
    }
    tuple.end()
}

fn deserialize_array<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Array)
    } else {
        deserializer.deserialize_tuple(N, Array)
    }
}

/// `[u8; N]`: bare hexadecimal digits in text, for keys and identifiers.
pub mod hex_array {
    use super::{Deserializer, Serializer};

    /// Writes the bytes.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        super::serialize_array("", bytes, s)
    }

    /// Reads exactly `N` bytes; a `0x` before the digits is allowed.
    ///
    /// # Errors
    /// When the length differs, or the text is not hexadecimal.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
        super::deserialize_array(d)
    }
}

/// `[u8; N]`: `0x` and hexadecimal digits in text, for bytes that Ethereum tools read.
pub mod prefixed_array {
    use super::{Deserializer, Serializer};

    /// Writes the bytes.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        super::serialize_array("0x", bytes, s)
    }

    /// Reads exactly `N` bytes; the `0x` may be missing.
    ///
    /// # Errors
    /// When the length differs, or the text is not hexadecimal.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
        super::deserialize_array(d)
    }
}

/// `[u8; 20]`: an Ethereum address, with its EIP-55 checksum in text.
pub mod address {
    use alloy_primitives::Address;
    use serde::Deserialize as _;

    use super::{Deserializer, Serializer, de};

    /// Writes the address.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &[u8; 20], s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(&Address::from(*bytes).to_checksum(None))
        } else {
            super::serialize_array("", bytes, s)
        }
    }

    /// Reads an address. Checks its checksum, if it has one.
    ///
    /// # Errors
    /// When it is not an address.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 20], D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            super::parse_address(&text).map_err(de::Error::custom)
        } else {
            super::deserialize_array(d)
        }
    }
}

/// `Vec<u8>` that holds text, kept byte for byte: a string in JSON, bytes in the binary codec.
pub mod exact_text {
    use serde::{Deserialize as _, Serialize as _, ser::Error as _};

    use super::{Deserializer, Serializer};

    /// Writes the bytes.
    ///
    /// # Errors
    /// In JSON, when the bytes are not UTF-8.
    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(core::str::from_utf8(bytes).map_err(S::Error::custom)?)
        } else {
            bytes.serialize(s)
        }
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d).map(String::into_bytes)
        } else {
            Vec::deserialize(d)
        }
    }
}

/// An address with its [EIP-55](https://eips.ethereum.org/EIPS/eip-55) checksum.
#[must_use]
pub fn checksummed_address(address: &[u8; 20]) -> String {
    alloy_primitives::Address::from(*address).to_checksum(None)
}

/// Why text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not `0x` and 40 hexadecimal digits.
    #[error("expected an address: 0x and 40 hexadecimal digits")]
    Format,
    /// Mixed case that is not the EIP-55 checksum of the address: most likely a typing error.
    #[error("the address fails its EIP-55 checksum; check it for a typing error")]
    Checksum,
}

/// Reads an address. If its digits are of mixed case, they must be its
/// [EIP-55](https://eips.ethereum.org/EIPS/eip-55) checksum.
///
/// # Errors
/// See [`InvalidAddress`].
pub fn parse_address(text: &str) -> Result<[u8; 20], InvalidAddress> {
    let digits = text.strip_prefix("0x").ok_or(InvalidAddress::Format)?;
    let mut bytes = [0; 20];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidAddress::Format)?;
    let mixed =
        digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
    if mixed && alloy_primitives::Address::from(bytes).to_checksum(None) != text {
        return Err(InvalidAddress::Checksum);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_an_address_is_checked_when_there_is_one() {
        // The examples of EIP-55.
        for good in [
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        ] {
            assert!(parse_address(good).is_ok(), "{good}");
        }
        assert_eq!(
            parse_address("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"),
            Err(InvalidAddress::Checksum)
        );
        for bad in [
            "",
            "0x",
            "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae",
        ] {
            assert_eq!(parse_address(bad), Err(InvalidAddress::Format), "{bad}");
        }
    }
}
