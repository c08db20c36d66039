//! Parses numbers and addresses as people write them.

use std::{fmt, str::FromStr};

use alloy_primitives::{
    Address, U256,
    utils::{ParseUnits, Unit},
};
use serde::{Deserialize, Deserializer, de};

/// An amount of wei: `0x` digits, decimal digits, or decimals with a unit (`0.5ether`, `30 gwei`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) U256);

/// A count that fits 64 bits: `0x` digits or decimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl FromStr for Amount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("0x") {
            return hexadecimal(text).map(Self);
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim() {
            "" | "wei" => Unit::WEI,
            "gwei" => Unit::GWEI,
            "ether" | "eth" => Unit::ETHER,
            other => return Err(format!("`{other}` is no unit; write wei, gwei or ether")),
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || decimals.is_empty() || decimals.contains('.') {
            return Err(format!("`{text}` is no amount; write for example 0.5ether, 30gwei or 1000"));
        }
        // The underlying parser drops surplus decimals. Refuse them, so that the amount is the
        // written one.
        if number.contains('.') && decimals.len() > usize::from(unit.get()) {
            return Err(format!("`{text}` has a fraction of a wei"));
        }
        let parsed =
            ParseUnits::parse_units(number, unit).map_err(|_| format!("`{text}` exceeds 256 bits"))?;
        Ok(Self(parsed.get_absolute()))
    }
}

impl FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = if text.starts_with("0x") {
            hexadecimal(text)?
        } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            U256::from_str_radix(text, 10).map_err(|e| e.to_string())?
        } else {
            return Err(format!("`{text}` is no count; write decimal digits, or 0x and hexadecimal digits"));
        };
        number.try_into().map(Self).map_err(|_| format!("`{text}` exceeds 64 bits"))
    }
}

fn hexadecimal(text: &str) -> Result<U256, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("`{text}` is no quantity: 0x and hexadecimal digits expected"));
    }
    U256::from_str_radix(digits, 16).map_err(|_| format!("`{text}` exceeds 256 bits"))
}

/// Parses an address; one in mixed case must carry the right checksum (EIP-55).
///
/// # Errors
/// When the text is no address, or when its checksum is wrong.
pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    let digits = text.strip_prefix("0x").ok_or("an address is 0x and 40 hexadecimal digits")?;
    let address: Address = text.parse().map_err(|_| "an address is 0x and 40 hexadecimal digits")?;
    let mixed =
        digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
    if mixed && Address::parse_checksummed(text, None).is_err() {
        return Err(format!("the checksum of {text} is wrong: a digit was mistyped (EIP-55)"));
    }
    Ok(address)
}

/// Reads a JSON number or string with the parser of `T`.
struct NumberOrText<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> de::Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a non-negative integer or a string")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let wei = |text: &str| text.parse::<Amount>().map(|a| a.0.to_string());
        assert_eq!(wei("0.5ether").unwrap(), "500000000000000000");
        assert_eq!(wei("30 gwei").unwrap(), "30000000000");
        assert_eq!(wei("1.000000001gwei").unwrap(), "1000000001");
        assert_eq!(wei("1000").unwrap(), "1000");
        assert_eq!(wei("0x3e8").unwrap(), "1000");
        for bad in [
            "",
            "ether",
            ".5ether",
            "1.",
            "1.5",
            "1.5wei",
            "1.0000000001gwei",
            "-1",
            "1e3",
            "1_0",
            "1 btc",
            "0x",
            "1..5ether",
            "115792089237316195423570985008687907853269984665640564039457584007913129639936",
        ] {
            assert!(wei(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_fit_64_bits() {
        assert_eq!("0x10".parse::<Count>().unwrap().0, 16);
        assert_eq!("18446744073709551615".parse::<Count>().unwrap().0, u64::MAX);
        for bad in ["", "18446744073709551616", "1 ", "+1", "1gwei", "0x"] {
            assert!(bad.parse::<Count>().is_err(), "{bad}");
        }
    }

    #[test]
    fn checksums_of_mixed_case_addresses_are_checked() {
        assert!(parse_address("0x70997970C51812dc3A010C7d01b50e0d17dc79C8").is_ok());
        assert!(parse_address("0x70997970c51812dc3a010c7d01b50e0d17dc79c8").is_ok());
        assert!(
            parse_address("0x70997970C51812dc3A010C7d01b50e0d17dc79c8").unwrap_err().contains("checksum")
        );
        for bad in
            ["", "0x", "70997970c51812dc3a010c7d01b50e0d17dc79c8", "0x70997970c51812dc3a010c7d01b50e0d17dc79"]
        {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }
}
