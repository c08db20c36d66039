//! Names that this build does not know: of states and error codes that a later release added.

use core::fmt;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize as _, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest name, in bytes.
const MAX_SIZE_BYTES: usize = 48;

/// How many names a process remembers. A release adds a few; more are made up.
const MAX_NAMES: usize = 255;

/// The names that were seen. They stay for the life of the process, some 12 kilobytes at most. So a
/// code with such a name is as small, and as easily copied, as any other.
static SEEN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// The name of a state or an error code that this build does not know, as it was received: 1 to 48
/// lower-case letters, digits, `-` and `_`. After 255 names, further ones read [`Self::LABEL`].
/// Records keep them all the same, see [`crate::record`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownName(
    /// The place in [`SEEN`], or the number of places.
    u8,
);

/// The text is no name at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a name of 1 to {MAX_SIZE_BYTES} lower-case letters, digits, - and _")]
pub struct NoName;

impl UnknownName {
    /// The label of all such names where only texts of this program may stand, as in metrics.
    pub const LABEL: &'static str = "unknown";

    /// The name `text`.
    ///
    /// # Errors
    /// When it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Result<Self, NoName> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if !(1..=MAX_SIZE_BYTES).contains(&text.len()) || !text.bytes().all(is_part) {
            return Err(NoName);
        }
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let place = seen.iter().position(|name| *name == text).unwrap_or(seen.len());
        if place == seen.len() && place < MAX_NAMES {
            seen.push(Box::leak(text.into()));
        }
        Ok(Self(u8::try_from(place).unwrap_or(u8::MAX)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(usize::from(self.0)).copied().unwrap_or(Self::LABEL)
    }
}

impl fmt::Debug for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnknownName({self})")
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for UnknownName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads a name, for `#[serde(deserialize_with = "…")]`.
///
/// # Errors
/// When the text is no name.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnknownName, D::Error> {
    UnknownName::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_other_texts_refused() {
        let longest = "a".repeat(MAX_SIZE_BYTES);
        for text in ["paused", "no-seat", "awaiting_owner_2", &longest] {
            assert_eq!(UnknownName::new(text).unwrap().as_str(), text);
        }
        for text in ["", "Paused", "a b", "é", &"a".repeat(49), &"a".repeat(300)] {
            assert_eq!(UnknownName::new(text), Err(NoName), "{text}");
        }
        // Names that a peer makes up take no more room.
        let known = UnknownName::new("paused").unwrap();
        for number in 0..2 * MAX_NAMES {
            UnknownName::new(&format!("made-up-{number}")).unwrap();
        }
        assert_eq!(SEEN.lock().unwrap().len(), MAX_NAMES);
        assert_eq!(UnknownName::new("one-more").unwrap().as_str(), UnknownName::LABEL);
        assert_eq!(UnknownName::new("paused"), Ok(known));
    }
}
