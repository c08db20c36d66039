//! The wire codec: bincode 2 in one fixed configuration, behind a two-byte header.
//!
//! Layout of an encoded message: kind (1 byte), version (1 byte), body (bincode, little endian,
//! variable-length integers). A decoder refuses another kind or version, a message over the kind's
//! size, and trailing bytes; the size is checked before anything is allocated.

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// A value that is sent or stored as bytes.
pub trait Message: Serialize + DeserializeOwned {
    /// Identifies the kind. 0x01–0x3f belong to the protocol, 0x40–0x7f to messages between
    /// processes, 0x80–0xbf to records at rest.
    const KIND: u8;
    /// The version of the body's layout. It changes with the layout.
    const VERSION: u8;
    /// The largest encoding, header included, in bytes.
    const MAX_SIZE_BYTES: usize;
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
    /// The body does not parse.
    #[error("malformed message: {0}")]
    Malformed(String),
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
    if *version != M::VERSION {
        return Err(DecodeError::Version { found: *version, supported: M::VERSION });
    }
    // A length prefix inside the body cannot make us allocate much: the configuration limits
    // strings and bytes, and for sequences serde caps what it reserves ahead
    // (`size_hint::cautious`).
    let (message, read) = bincode::serde::decode_from_slice(body, config())
        .map_err(|e| DecodeError::Malformed(e.to_string()))?;
    match body.len() - read {
        0 => Ok(message),
        left => Err(DecodeError::Trailing(left)),
    }
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
