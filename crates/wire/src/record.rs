//! Stored records that another release may have written, and what this build keeps of them.
//!
//! A record is a JSON object in a bucket. Orchestrators of two releases read and write the same
//! records while an installation is upgraded, or rolled back. So a reader accepts members that it
//! does not know, and writes them back with its own change. [`Kept`] holds them.
//!
//! A record may state two numbers. Both are levels of [`READER_LEVEL`], and 1 where they are
//! missing:
//! - `schema`: the level of the release that wrote it. For people; no reader decides by it.
//! - `min_reader`: the lowest level that can read it. A lower reader refuses the record with
//!   [`Code::UnsupportedVersion`](crate::Code) and leaves it as it is.
//!
//! # What is kept
//!
//! A record is written by comparing three values: the object as it was received, what this build
//! knows of it, and what this build knows after its change. What did not change is written as it
//! was received. What changed, or is new, is written as this build has it. Members that this build
//! does not know stay in the object where they were, while that object is there.
//!
//! - Elements of a list are matched by the member that names them ([`IDENTITIES`]), so that they
//!   keep their members when others are added or removed.
//! - When a tagged object changes its tag ([`TAGS`]), it is another object. Its unknown members
//!   belonged to the earlier one and go with it.
//!
//! Keeping members here, and not in the types, has a reason: requests, refusals and proofs are also
//! parts of binary messages, which have no members.

pub use duet_protocol::codec::READER_LEVEL;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The members that name an element of a list, in the order in which they are looked for.
const IDENTITIES: [&str; 4] = ["attempt", "number", "job", "party"];

/// The members that say which kind of object this is.
const TAGS: [&str; 3] = ["name", "outcome", "kind"];

/// Why an object is not a record that this build can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another release wrote it for readers of a later level.
    #[error("a later release wrote it: it needs a reader of level {needs}, this build's is {READER_LEVEL}")]
    Newer {
        /// The level that it needs.
        needs: u64,
    },
    /// It does not parse.
    #[error("{0}")]
    Malformed(String),
}

impl Unreadable {
    /// Why the stored bytes of a record did not parse with `error`.
    #[must_use]
    pub fn explain(bytes: &[u8], error: &serde_json::Error) -> Self {
        #[derive(Deserialize)]
        struct Header {
            min_reader: Option<u64>,
        }
        match serde_json::from_slice(bytes) {
            Ok(Header { min_reader: Some(needs) }) if needs > READER_LEVEL.into() => Self::Newer { needs },
            _ => Self::Malformed(error.to_string()),
        }
    }
}

/// A record as it was received, and what this build knew of it, if the two differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept(Option<Box<Received>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    whole: Value,
    known: Value,
}

impl Kept {
    /// Keeps what `known`, this build's own form of the record, lacks of `whole`.
    #[must_use]
    pub fn of(whole: Map<String, Value>, known: Value) -> Self {
        let whole = Value::Object(whole);
        Self((whole != known).then(|| Box::new(Received { whole, known })))
    }

    /// The record to write, whose known members are now `known`.
    #[must_use]
    pub fn with(&self, known: Value) -> Value {
        match &self.0 {
            Some(received) => merge(&received.whole, &received.known, known),
            None => known,
        }
    }
}

/// Reads the known members of a record, unless it needs a later reader.
///
/// # Errors
/// See [`Unreadable`].
pub fn require_readable(whole: &Map<String, Value>) -> Result<(), Unreadable> {
    match whole.get("min_reader").map(Value::as_u64) {
        None => Ok(()),
        Some(Some(needs)) if needs <= READER_LEVEL.into() => Ok(()),
        Some(Some(needs)) => Err(Unreadable::Newer { needs }),
        Some(None) => Err(Unreadable::Malformed("min_reader: expected a number".to_owned())),
    }
}

/// Reads a part of a record from its value.
///
/// # Errors
/// When it does not parse.
pub fn part<T: DeserializeOwned>(value: &Value) -> Result<T, Unreadable> {
    T::deserialize(value).map_err(|error| Unreadable::Malformed(error.to_string()))
}

fn merge(whole: &Value, before: &Value, now: Value) -> Value {
    if now == *before {
        return whole.clone();
    }
    match (whole, before, now) {
        (Value::Object(whole), Value::Object(before), Value::Object(now)) => {
            if is_another_kind(before, &now) {
                return Value::Object(now);
            }
            let mut written: Map<String, Value> = whole
                .iter()
                .filter(|(name, _)| !before.contains_key(*name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            for (name, value) in now {
                let value = match (whole.get(&name), before.get(&name)) {
                    (Some(whole), Some(before)) => merge(whole, before, value),
                    _ => value,
                };
                written.insert(name, value);
            }
            Value::Object(written)
        }
        (Value::Array(whole), Value::Array(before), Value::Array(now)) if whole.len() == before.len() => {
            let written = now.into_iter().map(|element| {
                let place = before
                    .iter()
                    .position(|other| *other == element)
                    .or_else(|| before.iter().position(|other| is_same_element(other, &element)));
                match place.and_then(|at| Some((whole.get(at)?, before.get(at)?))) {
                    Some((whole, before)) => merge(whole, before, element),
                    None => element,
                }
            });
            Value::Array(written.collect())
        }
        (_, _, now) => now,
    }
}

fn is_another_kind(before: &Map<String, Value>, now: &Map<String, Value>) -> bool {
    TAGS.iter().any(|tag| match (before.get(*tag), now.get(*tag)) {
        (Some(Value::String(before)), Some(Value::String(now))) => before != now,
        _ => false,
    })
}

fn is_same_element(one: &Value, other: &Value) -> bool {
    IDENTITIES.iter().find_map(|name| Some(one.get(name)? == other.get(name)?)).unwrap_or(false)
}

/// Makes a struct a record: it keeps the members that it does not know, and refuses a record for
/// later readers.
///
/// The struct derives `Serialize` and `Deserialize` with `#[serde(remote = "Self")]`, and has a
/// member `#[serde(skip)] kept: Kept`.
#[macro_export]
macro_rules! stored_record {
    ($($record:ty),+ $(,)?) => {$(
        impl<'de> ::serde::Deserialize<'de> for $record {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use ::serde::de::Error as _;
                let whole = ::serde_json::Map::deserialize(deserializer)?;
                $crate::record::require_readable(&whole).map_err(D::Error::custom)?;
                let mut record = Self::deserialize(&whole).map_err(D::Error::custom)?;
                let known = Self::serialize(&record, ::serde_json::value::Serializer);
                record.kept = $crate::record::Kept::of(whole, known.map_err(D::Error::custom)?);
                Ok(record)
            }
        }

        impl ::serde::Serialize for $record {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::serde::ser::Error as _;
                let known = Self::serialize(self, ::serde_json::value::Serializer);
                self.kept.with(known.map_err(S::Error::custom)?).serialize(serializer)
            }
        }
    )+};
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(whole: Value, before: Value, now: Value) -> Value {
        let Value::Object(whole) = whole else { panic!("an object") };
        Kept::of(whole, before).with(now)
    }

    #[test]
    fn what_did_not_change_is_written_as_it_was_received() {
        let whole = json!({ "a": 1, "kind": "later", "new": { "x": [1] } });
        let known = json!({ "a": 1, "kind": "unknown" });
        assert_eq!(written(whole.clone(), known.clone(), known), whole);
    }

    #[test]
    fn a_change_keeps_what_is_unknown_and_removes_what_was_known() {
        let whole = json!({ "a": 1, "b": { "c": 2, "new": 3 }, "gone": 4, "default": 0, "new": 5 });
        let before = json!({ "a": 1, "b": { "c": 2 }, "gone": 4 });
        let now = json!({ "a": 9, "b": { "c": 8 }, "default": 7, "added": 6 });
        let expected = json!({ "a": 9, "b": { "c": 8, "new": 3 }, "default": 7, "added": 6, "new": 5 });
        assert_eq!(written(whole, before, now), expected);
    }

    #[test]
    fn elements_keep_their_members_when_others_come_and_go() {
        let whole = json!({ "list": [
            { "attempt": 1, "new": "a" }, { "attempt": 2, "new": "b" }, { "attempt": 3, "new": "c" },
        ] });
        let before = json!({ "list": [{ "attempt": 1 }, { "attempt": 2 }, { "attempt": 3 }] });
        let now = json!({ "list": [{ "attempt": 2 }, { "attempt": 3, "end": 1 }, { "attempt": 4 }] });
        let expected = json!({ "list": [
            { "attempt": 2, "new": "b" }, { "attempt": 3, "end": 1, "new": "c" }, { "attempt": 4 },
        ] });
        assert_eq!(written(whole, before, now), expected);
    }

    #[test]
    fn an_object_of_another_kind_is_another_object() {
        let whole = json!({ "state": { "name": "running", "since": 1 }, "outcome": null, "new": 1 });
        let before = json!({ "state": { "name": "running" }, "outcome": null });
        let now = json!({ "state": { "name": "queued" }, "outcome": { "outcome": "failed" } });
        let expected = json!({ "state": { "name": "queued" }, "outcome": { "outcome": "failed" }, "new": 1 });
        assert_eq!(written(whole, before, now), expected);
    }
}
