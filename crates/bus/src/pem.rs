//! PEM files as editors leave them.

use std::{fs, io, path::Path};

use zeroize::Zeroizing;

/// What some editors put before a text, in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a PEM file without the byte order marks in it, at its beginning or where files were
/// joined. Parsers take a marked `-----BEGIN` for a comment and pass over what follows it.
///
/// # Errors
/// When the file cannot be read.
pub fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    Ok(unmarked(&Zeroizing::new(fs::read(file)?)))
}

/// PEM text without the byte order marks in it.
#[must_use]
pub fn unmarked(mut pem: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut rest = Zeroizing::new(Vec::with_capacity(pem.len()));
    while let Some((first, after)) = pem.split_first() {
        pem = pem.strip_prefix(BYTE_ORDER_MARK).unwrap_or_else(|| {
            rest.push(*first);
            after
        });
    }
    rest
}

/// Whether there is a byte order mark in PEM text.
#[must_use]
pub fn is_marked(pem: &[u8]) -> bool {
    pem.windows(BYTE_ORDER_MARK.len()).any(|bytes| bytes == BYTE_ORDER_MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_left_out_wherever_files_were_joined() {
        let marked = "\u{feff}-----BEGIN A-----\n\u{feff}-----BEGIN B-----\n";
        let plain = "-----BEGIN A-----\n-----BEGIN B-----\n";
        assert!(is_marked(marked.as_bytes()) && !is_marked(plain.as_bytes()));
        for text in [marked, plain] {
            assert_eq!(*unmarked(text.as_bytes()), plain.as_bytes());
        }
    }
}
