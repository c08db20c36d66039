//! JSON with one meaning: no field twice, no unknown field, no number that loses digits, bounded
//! size and depth. Every error names the path of what is wrong.

use core::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 32;

/// What is wrong with a JSON document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct JsonError {
    /// Where: field names and array positions joined by dots, `$` for the whole document.
    pub path: String,
    /// What is wrong, as a sentence without its subject.
    pub problem: String,
}

impl JsonError {
    /// An error about the value at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { path: path.into(), problem: problem.to_string() }
    }
}

/// Parses all of `bytes` as one JSON value.
///
/// # Errors
/// On more than `max_size_bytes`, anything that is not JSON, or anything after the value. Also on a
/// field given twice, a depth over [`MAX_DEPTH`], or a number that is not a 64-bit integer.
pub fn parse(bytes: &[u8], max_size_bytes: usize) -> Result<Value, JsonError> {
    if bytes.len() > max_size_bytes {
        return Err(JsonError::new(
            "$",
            format_args!("{} bytes, at most {max_size_bytes} are allowed", bytes.len()),
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let value = Strict { depth_left: MAX_DEPTH }
        .deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track))
        .map_err(|e| JsonError::new(root(&track.path().to_string()), e))?;
    json.end().map_err(|e| JsonError::new("$", e))?;
    Ok(value)
}

/// The text with every integer that exceeds 64 bits replaced by `write` of its digits. `None` if
/// there is no such integer. Text that is not JSON stays invalid.
pub(crate) fn replace_large_integers(text: &str, write: impl Fn(&str) -> String) -> Option<String> {
    let mut written = String::with_capacity(text.len());
    let mut found = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => end_of_string(rest),
            '-' | '0'..='9' => {
                let is_number = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                rest.find(|c| !is_number(c)).unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        let digits = token.strip_prefix('-').unwrap_or(token);
        let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_integer && !digits.starts_with('0') && token.parse::<i128>().map_or(true, is_large) {
            written.push_str(&write(token));
            found = true;
        } else {
            written.push_str(token);
        }
        rest = after;
    }
    found.then_some(written)
}

fn is_large(number: i128) -> bool {
    i64::try_from(number).is_err() && u64::try_from(number).is_err()
}

/// The length of the string with which `text` begins.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn root(path: &str) -> &str {
    if matches!(path, "" | "." | "?") { "$" } else { path }
}

/// A JSON value read by the strict rules, for use inside other deserializers.
pub(crate) struct StrictValue(pub(crate) Value);

impl<'de> de::Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Strict { depth_left: MAX_DEPTH }.deserialize(deserializer).map(Self)
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth_left: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        self.depth_left
            .checked_sub(1)
            .map(|depth_left| Self { depth_left })
            .ok_or_else(|| E::custom(format_args!("nested more than {MAX_DEPTH} deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number must be an integer of at most 64 bits; write a larger one as a string"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(seed)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the field `{key}` is there twice")));
            }
            let value = entries.next_value_seed(seed)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A value and its path.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, path: "$".to_owned() }
    }

    pub(crate) fn error(&self, problem: impl fmt::Display) -> JsonError {
        JsonError::new(self.path.clone(), problem)
    }

    pub(crate) fn text(&self) -> Result<&'a str, JsonError> {
        self.value
            .as_str()
            .ok_or_else(|| self.error(format_args!("expected a string, found {}", kind(self.value))))
    }

    pub(crate) fn array(&self) -> Result<impl Iterator<Item = Node<'a>> + use<'a>, JsonError> {
        let path = self.path.clone();
        let elements = self
            .value
            .as_array()
            .ok_or_else(|| self.error(format_args!("expected an array, found {}", kind(self.value))))?;
        Ok(elements.iter().enumerate().map(move |(i, value)| Node { value, path: format!("{path}[{i}]") }))
    }

    /// The value as an object without other fields than `allowed`.
    pub(crate) fn object(&self, allowed: &[&str]) -> Result<Object<'a>, JsonError> {
        let object = self.any_object()?;
        match object.map.keys().find(|key| !allowed.contains(&key.as_str())) {
            Some(unknown) => Err(JsonError::new(
                object.path_of(unknown),
                format_args!("unknown field; the fields here are {}", allowed.join(", ")),
            )),
            None => Ok(object),
        }
    }

    /// The value as an object whose field names the caller checks.
    pub(crate) fn any_object(&self) -> Result<Object<'a>, JsonError> {
        let map = self
            .value
            .as_object()
            .ok_or_else(|| self.error(format_args!("expected an object, found {}", kind(self.value))))?;
        Ok(Object { map, path: self.path.clone() })
    }

    /// `true` or `false`, and nothing that other languages accept for them.
    pub(crate) fn boolean(&self) -> Result<bool, JsonError> {
        self.value
            .as_bool()
            .ok_or_else(|| self.error(format_args!("expected true or false, found {}", kind(self.value))))
    }

    /// The value parsed from a string.
    pub(crate) fn parse<T>(&self) -> Result<T, JsonError>
    where
        T: core::str::FromStr<Err: fmt::Display>,
    {
        self.text()?.parse().map_err(|e| self.error(e))
    }

    /// A number, a string of `0x` and hexadecimal digits, or a string of decimal digits, of at most
    /// `bits`.
    pub(crate) fn quantity(&self, bits: usize) -> Result<alloy_primitives::U256, JsonError> {
        use alloy_primitives::U256;
        let refused = || {
            self.error(
                "expected a non-negative integer: a number, decimal digits, or 0x and hexadecimal digits",
            )
        };
        let number = match self.value {
            Value::Number(number) => U256::from(number.as_u64().ok_or_else(refused)?),
            Value::String(text) => {
                let (digits, radix) = text.strip_prefix("0x").map_or((text.as_str(), 10), |d| (d, 16));
                // The parser below would also accept underscores and signs.
                if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
                    return Err(refused());
                }
                U256::from_str_radix(digits, u64::from(radix))
                    .map_err(|_| self.error("expected at most 256 bits"))?
            }
            _ => return Err(refused()),
        };
        if number.bit_len() > bits {
            return Err(self.error(format_args!("expected at most {bits} bits")));
        }
        Ok(number)
    }

    /// An integer of at most `bits` in two's complement, as its sign (whether it is negative) and
    /// its size. It may be a quantity, a negative number, or a minus sign and decimal digits.
    pub(crate) fn signed_quantity(&self, bits: usize) -> Result<(bool, alloy_primitives::U256), JsonError> {
        use alloy_primitives::U256;
        let digits = match self.value {
            Value::Number(number) => {
                number.as_i64().filter(|number| *number < 0).map(|number| number.unsigned_abs().to_string())
            }
            Value::String(text) => text.strip_prefix('-').map(str::to_owned),
            _ => None,
        };
        let too_large =
            || self.error(format_args!("expected an integer of at most {bits} bits with its sign"));
        let Some(digits) = digits else {
            let number = self.quantity(256)?;
            return if number.bit_len() < bits { Ok((false, number)) } else { Err(too_large()) };
        };
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(
                self.error("expected an integer: a number, decimal digits, or 0x and hexadecimal digits")
            );
        }
        let size = U256::from_str_radix(&digits, 10).map_err(|_| too_large())?;
        let least = U256::from(1) << bits.saturating_sub(1);
        if size <= least { Ok((!size.is_zero(), size)) } else { Err(too_large()) }
    }

    /// A quantity that fits `u64`.
    pub(crate) fn quantity_u64(&self) -> Result<u64, JsonError> {
        self.quantity(64).map(|number| number.saturating_to())
    }

    /// A quantity that fits `u128`.
    pub(crate) fn quantity_u128(&self) -> Result<u128, JsonError> {
        self.quantity(128).map(|number| number.saturating_to())
    }

    /// A string of `0x` and an even number of hexadecimal digits.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, JsonError> {
        self.text()?
            .strip_prefix("0x")
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or_else(|| self.error("expected 0x and an even number of hexadecimal digits"))
    }

    /// A string of `0x` and hexadecimal digits for exactly `N` bytes.
    pub(crate) fn array_of_bytes<const N: usize>(&self) -> Result<[u8; N], JsonError> {
        self.bytes()?
            .try_into()
            .map_err(|_| self.error(format_args!("expected 0x and {} hexadecimal digits", 2 * N)))
    }
}

/// An object whose field names are all known.
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path == "$" { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The names of the fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    /// The field, if it is present; `null` counts as present.
    pub(crate) fn field(&self, name: &str) -> Option<Node<'a>> {
        self.map.get(name).map(|value| Node { value, path: self.path_of(name) })
    }

    /// The field.
    pub(crate) fn required(&self, name: &str) -> Result<Node<'a>, JsonError> {
        self.field(name).ok_or_else(|| JsonError::new(self.path_of(name), "missing"))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> JsonError {
        parse(text.as_bytes(), 1024).unwrap_err()
    }

    #[test]
    fn a_field_given_twice_is_refused_with_its_path() {
        let error = problem(r#"{"a":{"b":[0,{"c":1,"c":2}]}}"#);
        assert_eq!(error.path, "a.b[1]");
        assert!(error.problem.contains("`c` is there twice"), "{error}");
    }

    #[test]
    fn numbers_that_would_lose_digits_are_refused() {
        assert_eq!(problem(r#"{"v":18446744073709551616}"#).path, "v");
        assert_eq!(problem(r#"{"v":0.5}"#).path, "v");
        assert!(parse(br#"{"v":18446744073709551615}"#, 64).is_ok());
    }

    #[test]
    fn size_depth_and_what_follows_are_bounded() {
        assert!(parse(b"[]", 1).is_err());
        assert!(problem("[] []").problem.contains("trailing"));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes(), 1024).is_ok());
        assert!(problem(&nested(MAX_DEPTH + 1)).problem.contains("deep"));
    }

    #[test]
    fn quantities_are_decimal_or_hexadecimal_and_nothing_else() {
        let read = |json: &str| {
            let value = parse(json.as_bytes(), 1024).unwrap();
            Node::root(&value).quantity_u64()
        };
        assert_eq!(read("7"), Ok(7));
        assert_eq!(read("\"0x1f\""), Ok(31));
        assert_eq!(read("\"31\""), Ok(31));
        for bad in [
            "\"\"",
            "\"0x\"",
            "\"-1\"",
            "-1",
            "\"1_0\"",
            "\"+1\"",
            "\"1e3\"",
            "null",
            "\"0x10000000000000000\"",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
