//! A file with one secret, and with a second one while the secret is exchanged.
//!
//! The first line is the secret in use. While both are accepted a second line names the other one:
//! `next …` before the change, `old …` after it. So one file says everything, changes whole, and
//! can be copied to wherever it is read: who presents a secret takes the first line, who checks it
//! takes both.

use core::fmt;

use serde::Serialize;
use zeroize::Zeroizing;

/// How far the exchange of a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// There is one, and nothing else is accepted.
    Settled,
    /// The next one is made and accepted, and not used yet.
    Prepared,
    /// The next one is in use, and the old one still accepted.
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

/// What the second line begins with before the change.
const NEXT: &str = "next ";
/// What the second line begins with after the change.
const OLD: &str = "old ";

/// The content of such a file. Wiped on drop and never printed.
pub struct SecretFile {
    in_use: Zeroizing<String>,
    other: Option<(Other, Zeroizing<String>)>,
}

/// What the second secret is.
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

/// The text holds no secret, or more than two, or says of the second one neither `next` nor `old`.
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
    /// When it holds something else.
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

    /// The other one that is accepted, while there is one.
    #[must_use]
    pub fn other(&self) -> Option<&str> {
        self.other.as_ref().map(|(_, secret)| secret.as_str())
    }

    /// All that are accepted.
    pub fn accepted(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.in_use()).chain(self.other())
    }

    /// How far the exchange is.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self.other {
            None => Stage::Settled,
            Some((Other::Next, _)) => Stage::Prepared,
            Some((Other::Old, _)) => Stage::Switched,
        }
    }

    /// The same with `next` accepted as well.
    pub(crate) fn prepared(self, next: Zeroizing<String>) -> Self {
        Self { in_use: self.in_use, other: Some((Other::Next, next)) }
    }

    /// The same with the next one in use, if there is a next one.
    pub(crate) fn switched(self) -> Self {
        match self.other {
            Some((Other::Next, next)) => Self { in_use: next, other: Some((Other::Old, self.in_use)) },
            other => Self { in_use: self.in_use, other },
        }
    }

    /// The same with the one in use alone.
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
        // Once more changes nothing.
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
