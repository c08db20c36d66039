//! What a process remembers of the broker's bucket of jobs: a header of invitations, and a question
//! to parties. By it an orchestrator finds out that the broker was put back to an earlier copy.

use core::{fmt, str::FromStr};

use duet_protocol::codec::{self, Message};
use serde::{Deserialize, Serialize};

/// How many of these a party tells at most: those of the latest epochs.
pub const MAX_REMEMBERED: u32 = 16;

/// The header of an invitation that says how far the bucket of jobs went: a [`Remembered`]. It is
/// no part of the manifest, whose bytes workers of the version before could not read then.
pub const REMEMBERED_HEADER: &str = "Duet-Broker";

/// The header of an invitation that says when it was issued, by the broker's time, in milliseconds
/// since 1970.
pub const ISSUED_AT_HEADER: &str = "Duet-Issued-At";

/// How far the bucket of jobs went. An orchestrator sends it with each invitation, a responder
/// keeps the highest of each bucket, and tells them when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Remembered {
    /// The broker's epoch: how often, counted from 1, it was found to have gone back.
    pub epoch: u64,
    /// A revision of the bucket that the broker has acknowledged.
    pub revision: u64,
    /// When the bucket was created, in nanoseconds since 1970 by the broker's clock.
    pub created_ns: u64,
}

impl fmt::Display for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.revision, self.created_ns)
    }
}

/// The text does not say how far a bucket went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected epoch, revision and time of creation, with dots between them")]
pub struct InvalidRemembered;

impl FromStr for Remembered {
    type Err = InvalidRemembered;
    fn from_str(text: &str) -> Result<Self, InvalidRemembered> {
        let mut numbers = text.split('.').map(|number| number.parse().map_err(|_| InvalidRemembered));
        let mut next = || numbers.next().ok_or(InvalidRemembered)?;
        let read = Self { epoch: next()?, revision: next()?, created_ns: next()? };
        if numbers.next().is_some() { Err(InvalidRemembered) } else { Ok(read) }
    }
}

/// The question to a party what it remembers of the broker: on
/// `duet.v1.card.orchestrator.<party>`. A worker of an earlier version refuses it as a malformed
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall;

impl Message for Recall {
    const KIND: u8 = 0x7c;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 16;
}

/// What a party remembers of the broker, whichever of its workers answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    /// The highest of each bucket that it has seen, at most [`MAX_REMEMBERED`], latest epoch first.
    pub remembered: Vec<Remembered>,
}

impl Message for Recalled {
    const KIND: u8 = 0x7d;
    const VERSION: u8 = 1;
    const MAX_SIZE_BYTES: usize = 1024;
    const MAX_TAIL_SIZE_BYTES: usize = codec::TAIL_SIZE_BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let one = Remembered { epoch: 2, revision: 17, created_ns: u64::MAX };
        assert_eq!(one.to_string().parse(), Ok(one));
        for text in ["", "1.2", "1.2.3.4", "1..3", "1.2.x", "-1.2.3", "1.2.18446744073709551616"] {
            assert_eq!(text.parse::<Remembered>(), Err(InvalidRemembered), "{text}");
        }
    }
}
