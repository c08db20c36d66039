//! A file with one secret, or with two during an exchange.
//!
//! The first line is the secret in use. While two are accepted, a second line has the other one:
//! `next …` before the change, `old …` after it. So one file contains everything, changes whole,
//! and can be copied to every process that reads it. A process that presents a secret uses the
//! first line. A process that checks one uses both.

use core::fmt;

use serde::Serialize;
use zeroize::Zeroizing;

/// The stage of a credential's exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// There is one secret, and no other is accepted.
    Settled,
    /// The next secret exists and is accepted, but is not in use yet.
    Prepared,
    /// The next secret is in use. The old one is still accepted.
    Switched,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settled => "settled",
            Self::Prepared => "prepared",
            Self::Switched => "switched",
        })
    }
}

/// How the second line begins before the change.
const NEXT: &str = "next ";
/// How the second line begins after the change.
const OLD: &str = "old ";

/// The content of such a file. Wiped on drop and never printed.
pub struct SecretFile {
    in_use: Zeroizing<String>,
    other: Option<(Other, Zeroizing<String>)>,
}

/// The role of the second secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    Next,
    Old,
}

impl Other {
    const fn mark(self) -> &'static str {
        match self {
            Self::Next => NEXT,
            Self::Old => OLD,
        }
    }
}

/// The text has no secret, more than two, or a second one without `next` or `old`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a line with the secret, and at most one more that begins with 'next ' or 'old '")]
pub struct InvalidSecretFile;

impl SecretFile {
    /// A file with this secret alone.
    #[must_use]
    pub const fn new(secret: Zeroizing<String>) -> Self {
        Self { in_use: secret, other: None }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When the text is malformed.
    pub fn parse(text: &str) -> Result<Self, InvalidSecretFile> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let held = |secret: &str| Zeroizing::new(secret.trim().to_owned());
        let in_use = lines.next().map(held).ok_or(InvalidSecretFile)?;
        let other = match lines.next() {
            None => None,
            Some(line) => [Other::Next, Other::Old]
                .into_iter()
                .find_map(|other| line.strip_prefix(other.mark()).map(|secret| Some((other, held(secret)))))
                .ok_or(InvalidSecretFile)?,
        };
        if lines.next().is_some() { Err(InvalidSecretFile) } else { Ok(Self { in_use, other }) }
    }

    /// The secret in use.
    #[must_use]
    pub fn in_use(&self) -> &str {
        &self.in_use
    }

    /// The other accepted secret, during an exchange.
    #[must_use]
    pub fn other(&self) -> Option<&str> {
        self.other.as_ref().map(|(_, secret)| secret.as_str())
    }

    /// All accepted secrets.
    pub fn accepted(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.in_use()).chain(self.other())
    }

    /// The stage of the exchange.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self.other {
            None => Stage::Settled,
            Some((Other::Next, _)) => Stage::Prepared,
            Some((Other::Old, _)) => Stage::Switched,
        }
    }

    /// Adds `next` as the next secret, which is then accepted as well.
    pub(crate) fn prepared(self, next: Zeroizing<String>) -> Self {
        Self { in_use: self.in_use, other: Some((Other::Next, next)) }
    }

    /// Puts the next secret into use, if there is one.
    pub(crate) fn switched(self) -> Self {
        match self.other {
            Some((Other::Next, next)) => Self { in_use: next, other: Some((Other::Old, self.in_use)) },
            other => Self { in_use: self.in_use, other },
        }
    }

    /// Drops all but the secret in use.
    pub(crate) fn retired(self) -> Self {
        Self::new(self.in_use)
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        match &self.other {
            None => self.in_use.clone(),
            Some((other, secret)) => {
                Zeroizing::new(format!("{}\n{}{}\n", *self.in_use, other.mark(), **secret))
            }
        }
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile").field("stage", &self.stage()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(file: &SecretFile) -> (Stage, Vec<&str>) {
        (file.stage(), file.accepted().collect())
    }

    #[test]
    fn both_are_accepted_between_the_first_step_and_the_last() {
        let file = SecretFile::parse("one\n").unwrap();
        assert_eq!(accepted(&file), (Stage::Settled, vec!["one"]));
        let file = SecretFile::parse(&file.prepared("two".to_owned().into()).to_text()).unwrap();
        assert_eq!(accepted(&file), (Stage::Prepared, vec!["one", "two"]));
        let file = SecretFile::parse(&file.switched().to_text()).unwrap();
        assert_eq!(accepted(&file), (Stage::Switched, vec!["two", "one"]));
        // A repeated switch changes nothing.
        let file = SecretFile::parse(&file.switched().to_text()).unwrap();
        assert_eq!(accepted(&file), (Stage::Switched, vec!["two", "one"]));
        let file = SecretFile::parse(&file.retired().to_text()).unwrap();
        assert_eq!(accepted(&file), (Stage::Settled, vec!["two"]));
    }

    #[test]
    fn anything_else_is_refused_and_nothing_is_shown() {
        for text in ["", "\n\n", "one\ntwo", "one\nnext two\nold three", "one\nnextwo"] {
            assert_eq!(SecretFile::parse(text).err(), Some(InvalidSecretFile), "{text}");
        }
        assert!(!format!("{:?}", SecretFile::parse("one\nold two").unwrap()).contains("two"));
    }
}
