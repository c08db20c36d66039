//! The wire codec: bincode 2 in one fixed configuration, behind a two-byte header.
//!
//! Layout of an encoded message: kind (1 byte), version (1 byte), body (bincode, little endian,
//! variable-length integers). A decoder refuses another kind or version, a message over the kind's
//! size, and trailing bytes; the size is checked before anything is allocated.
//!
//! # The form with a tail
//!
//! A message of a later release may say more than this build knows: kind, version with its highest
//! bit set ([`WITH_TAIL`]), least reader (1 byte), body, tail. The least reader is the lowest
//! [`READER_LEVEL`] that may act on the message without what the tail says. The tail is a sequence
//! of entries: tag (2 bytes), length (4 bytes), then as many bytes; numbers are little endian. Tags
//! ascend. A decoder checks the tail and ignores it. No release writes this form yet.
//!
//! Versions stay below 0x80, so the second byte tells the two forms apart. A decoder of the
//! release before knows one version per kind, and refuses the form as another version.
//!
//! # Why nothing hashed or signed becomes malleable
//!
//! Anybody on the way can add a tail that a decoder ignores. So a kind takes one only if it says so
//! ([`Message::MAX_TAIL_SIZE_BYTES`]), and these do not:
//!
//! - **Every kind of this crate.** Transcripts, commitments, receipts and cards are over values
//!   that are encoded anew, so a tail would not be under their hashes. Nor would one on a round
//!   message, whose sender is known by the subject alone. For all of them a version with its
//!   highest bit set is what it always was, an unknown version. One value has one encoding.
//! - **The envelopes of signatures.** Their outer bytes are evidence by their hash, but only the
//!   inner bytes are signed.
//!
//! What is signed or hashed as it was received – a manifest, the body of an outcome or of an
//! approval – may take a tail: it is inside those bytes, so removing or adding one breaks the
//! signature, or leaves the two parties with different manifests and therefore without a session.
//! Processes forward such bytes and do not encode them anew. The rest are questions and answers
//! between neighbours that nothing hashes.

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// A value that is sent or stored as bytes.
pub trait Message: Serialize + DeserializeOwned {
    /// Identifies the kind. 0x01–0x3f belong to the protocol, 0x40–0x7f to messages between
    /// processes, 0x80–0xbf to records at rest.
    const KIND: u8;
    /// The version of the body's layout, below 0x80. It changes with the layout.
    const VERSION: u8;
    /// The largest encoding, header and tail included, in bytes.
    const MAX_SIZE_BYTES: usize;
    /// The largest tail that is accepted, in bytes. With 0 the kind has no form with a tail.
    ///
    /// # Security
    /// Leave it at 0 for whatever is hashed or signed in another form than its received bytes.
    const MAX_TAIL_SIZE_BYTES: usize = 0;
}

/// Why bytes are not the expected message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the kind allows.
    #[error("message of {size} bytes, at most {max} allowed")]
    TooLarge {
        /// The size in bytes.
        size: usize,
        /// The largest size in bytes.
        max: usize,
    },
    /// Another kind of message, or too short to have a kind.
    #[error("expected a message of kind {expected:#04x}")]
    Kind {
        /// The kind that was expected.
        expected: u8,
    },
    /// A version that this build does not support.
    #[error("message version {found}, this build speaks {supported}")]
    Version {
        /// The version found.
        found: u8,
        /// The version that this build supports.
        supported: u8,
    },
    /// A message for readers of a later release.
    #[error("the message needs a reader of level {needs}, this build's is {READER_LEVEL}")]
    Newer {
        /// The level that it needs.
        needs: u8,
    },
    /// The body does not parse.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The tail is too long, cut short or out of order.
    #[error("malformed tail after the message's body")]
    Tail,
    /// Bytes are left over after the body.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

/// A message that its own limits forbid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Longer than the kind allows.
    #[error("message of {size} bytes, at most {max} allowed")]
    TooLarge {
        /// The size in bytes.
        size: usize,
        /// The largest size in bytes.
        max: usize,
    },
    /// A value that has no encoding.
    #[error("unencodable message: {0}")]
    Unencodable(String),
}

const HEADER_SIZE_BYTES: usize = 2;

/// The level of the messages and records that this build reads. It grows with each release that
/// reads a form which the one before did not.
pub const READER_LEVEL: u8 = 2;

/// The first level whose readers know the form with a tail.
const FIRST_LEVEL_WITH_TAIL: u8 = 2;

/// The bit of the version byte that marks the form with a tail.
pub const WITH_TAIL: u8 = 0x80;

/// The tail that a message between processes may have, in bytes.
pub const TAIL_SIZE_BYTES: usize = 1024;

/// No length prefix may claim more than this, in bytes. Without a limit bincode allocates what the
/// prefix of a string or of bytes claims before it looks at what is there.
const MAX_CLAIMED_SIZE_BYTES: usize = 4 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_CLAIMED_SIZE_BYTES>()
}

/// Encodes `message` with its header.
///
/// # Errors
/// When the encoding would exceed [`Message::MAX_SIZE_BYTES`].
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let body = bincode::serde::encode_to_vec(message, config())
        .map_err(|e| EncodeError::Unencodable(e.to_string()))?;
    let size = HEADER_SIZE_BYTES + body.len();
    if size > M::MAX_SIZE_BYTES {
        return Err(EncodeError::TooLarge { size, max: M::MAX_SIZE_BYTES });
    }
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&[M::KIND, M::VERSION]);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Encodes a record that holds secrets. It leaves no copy behind, and the result wipes itself.
///
/// # Errors
/// When the encoding would exceed [`Message::MAX_SIZE_BYTES`].
pub fn encode_secret<M: Message>(message: &M) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
    // Written in place: a vector that grows would leave its earlier, shorter copies unwiped.
    let mut bytes = Zeroizing::new(vec![0; M::MAX_SIZE_BYTES]);
    let (header, body) = bytes.split_at_mut(HEADER_SIZE_BYTES);
    header.copy_from_slice(&[M::KIND, M::VERSION]);
    let written = bincode::serde::encode_into_slice(message, body, config())
        .map_err(|e| EncodeError::Unencodable(e.to_string()))?;
    bytes.truncate(HEADER_SIZE_BYTES + written);
    Ok(bytes)
}

/// Decodes exactly one message of type `M` from all of `bytes`.
///
/// # Errors
/// On another kind or version, on too many bytes, on a malformed body, on trailing bytes.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > M::MAX_SIZE_BYTES {
        return Err(DecodeError::TooLarge { size: bytes.len(), max: M::MAX_SIZE_BYTES });
    }
    let [kind, version, body @ ..] = bytes else {
        return Err(DecodeError::Kind { expected: M::KIND });
    };
    if *kind != M::KIND {
        return Err(DecodeError::Kind { expected: M::KIND });
    }
    const { assert!(M::VERSION & WITH_TAIL == 0, "the highest bit marks the form with a tail") };
    let has_tail = M::MAX_TAIL_SIZE_BYTES > 0 && *version == M::VERSION | WITH_TAIL;
    let body = if has_tail {
        let [least_reader, body @ ..] = body else { return Err(DecodeError::Tail) };
        match *least_reader {
            needs if needs > READER_LEVEL => return Err(DecodeError::Newer { needs }),
            // Earlier readers do not know this form.
            needs if needs < FIRST_LEVEL_WITH_TAIL => return Err(DecodeError::Tail),
            _ => body,
        }
    } else if *version == M::VERSION {
        body
    } else {
        return Err(DecodeError::Version { found: *version, supported: M::VERSION });
    };
    // A length prefix inside the body cannot make us allocate much: the configuration limits
    // strings and bytes, and for sequences serde caps what it reserves ahead
    // (`size_hint::cautious`).
    let (message, read) = bincode::serde::decode_from_slice(body, config())
        .map_err(|e| DecodeError::Malformed(e.to_string()))?;
    match body.get(read..).unwrap_or_default() {
        [] => Ok(message),
        tail if has_tail && tail.len() <= M::MAX_TAIL_SIZE_BYTES && is_tail(tail) => Ok(message),
        _ if has_tail => Err(DecodeError::Tail),
        left => Err(DecodeError::Trailing(left.len())),
    }
}

/// Whether `bytes` are whole entries with ascending tags.
fn is_tail(mut bytes: &[u8]) -> bool {
    let mut last = None;
    while let Some((header, rest)) = bytes.split_first_chunk::<6>() {
        let [tag @ .., a, b, c, d] = *header;
        let (tag, size) = (u16::from_le_bytes(tag), u32::from_le_bytes([a, b, c, d]));
        if last.is_some_and(|last| tag <= last) {
            return false;
        }
        let Some(rest) = usize::try_from(size).ok().and_then(|size| rest.get(size..)) else { return false };
        (bytes, last) = (rest, Some(tag));
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: u32,
        bytes: Vec<u8>,
    }

    impl Message for Sample {
        const KIND: u8 = 0x01;
        const VERSION: u8 = 1;
        const MAX_SIZE_BYTES: usize = 64;
    }

    fn sample() -> Sample {
        Sample { number: 300, bytes: vec![1, 2, 3] }
    }

    #[test]
    fn layout_is_pinned() {
        assert_eq!(hex::encode(encode(&sample()).unwrap()), "0101fb2c0103010203");
    }

    #[test]
    fn round_trips() {
        assert_eq!(decode::<Sample>(&encode(&sample()).unwrap()), Ok(sample()));
    }

    #[test]
    fn every_prefix_and_every_extension_is_refused() {
        let bytes = encode(&sample()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<Sample>(&bytes[..end]).is_err(), "prefix of {end}");
        }
        let mut long = bytes;
        long.push(0);
        assert_eq!(decode::<Sample>(&long), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn other_kinds_versions_and_sizes_are_refused() {
        let bytes = encode(&sample()).unwrap();
        let with = |at: usize, value: u8| {
            let mut b = bytes.clone();
            b[at] = value;
            decode::<Sample>(&b)
        };
        assert_eq!(with(0, 2), Err(DecodeError::Kind { expected: 1 }));
        assert_eq!(with(1, 2), Err(DecodeError::Version { found: 2, supported: 1 }));
        assert_eq!(decode::<Sample>(&[1; 65]), Err(DecodeError::TooLarge { size: 65, max: 64 }));
    }

    /// A kind with a tail of at most 20 bytes.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Open(u32);

    impl Message for Open {
        const KIND: u8 = 0x40;
        const VERSION: u8 = 3;
        const MAX_SIZE_BYTES: usize = 64;
        const MAX_TAIL_SIZE_BYTES: usize = 20;
    }

    /// `Open(7)` with this least reader and tail.
    fn open(least_reader: u8, tail: &[&[u8]]) -> Result<Open, DecodeError> {
        decode(&[&[0x40, 0x83, least_reader, 7], &tail.concat()[..]].concat())
    }

    #[test]
    fn a_tail_is_checked_and_ignored() {
        let (one, two) = (&[1, 0, 2, 0, 0, 0, 0xaa, 0xbb][..], &[0, 1, 0, 0, 0, 0][..]);
        for tail in [&[][..], &[one], &[two], &[one, two]] {
            assert_eq!(open(2, tail), Ok(Open(7)));
        }
        assert_eq!(decode(&[0x40, 3, 7]), Ok(Open(7)));
        // Out of order, repeated, cut short, too long, and no entry at all.
        for tail in [&[two, one][..], &[one, one], &[&one[..7]], &[&one[..3]], &[one, one, one], &[&[0]]] {
            assert_eq!(open(2, tail), Err(DecodeError::Tail), "{tail:?}");
        }
        let long = [&[9, 0, 15, 0, 0, 0][..], &[0; 15]];
        assert_eq!(open(2, &long), Err(DecodeError::Tail));
    }

    #[test]
    fn a_tail_needs_a_reader_that_knows_it() {
        assert_eq!(open(READER_LEVEL + 1, &[]), Err(DecodeError::Newer { needs: READER_LEVEL + 1 }));
        assert_eq!([0, 1].map(|level| open(level, &[])), [Err(DecodeError::Tail), Err(DecodeError::Tail)]);
        assert_eq!(decode::<Open>(&[0x40, 0x83]), Err(DecodeError::Tail));
        // The plain form has none, and the form with a tail is of the known version.
        assert_eq!(decode::<Open>(&[0x40, 3, 7, 1, 0, 0, 0, 0, 0]), Err(DecodeError::Trailing(6)));
        for version in [0x80, 0x82, 0x84] {
            let refused = DecodeError::Version { found: version, supported: 3 };
            assert_eq!(decode::<Open>(&[0x40, version, 2, 7]), Err(refused));
        }
    }

    #[test]
    fn a_kind_without_a_tail_has_one_encoding() {
        let plain = encode(&sample()).unwrap();
        for tail in [&[][..], &[1, 0, 0, 0, 0, 0]] {
            let bytes = [&[1, 0x81, 2], &plain[2..], tail].concat();
            let refused = DecodeError::Version { found: 0x81, supported: 1 };
            assert_eq!(decode::<Sample>(&bytes), Err(refused));
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_without_allocating_it() {
        // kind, version, number 0, then a length of 2^32 - 1.
        assert!(matches!(
            decode::<Sample>(&[1, 1, 0, 0xfc, 0xff, 0xff, 0xff, 0xff]),
            Err(DecodeError::Malformed(_))
        ));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Text(String);

    impl Message for Text {
        const KIND: u8 = 0x02;
        const VERSION: u8 = 1;
        const MAX_SIZE_BYTES: usize = 64;
    }

    #[test]
    fn a_string_that_claims_exabytes_is_refused_without_allocating_them() {
        // kind, version, then a length of 2^62.
        assert!(matches!(
            decode::<Text>(&[2, 1, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x40]),
            Err(DecodeError::Malformed(_))
        ));
    }
}
