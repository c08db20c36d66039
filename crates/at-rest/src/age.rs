//! The [age format](https://c2sp.org/age), version 1, for one small plaintext under one passphrase.
//! Other implementations of the format open the files (`age -d`, `rage -d`).
//!
//! This module implements only what a backup needs: a single scrypt stanza and a payload of one
//! chunk. The `age` crate implements the whole format, but adds 200 KiB of compressed WebAssembly
//! and second copies of the ciphers. The tests open a file of that crate, and pin a file of ours
//! that it opened.

use base64ct::{Base64Unpadded, Encoding as _};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

const VERSION_LINE: &str = "age-encryption.org/v1";
const SCRYPT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
const SALT_SIZE_BYTES: usize = 16;
const FILE_KEY_SIZE_BYTES: usize = 16;
const TAG_SIZE_BYTES: usize = 16;
const PAYLOAD_NONCE_SIZE_BYTES: usize = 16;

/// The largest plaintext: one chunk of the format.
pub const MAX_PLAINTEXT_SIZE_BYTES: usize = 64 * 1024;
/// The size of the largest file. The header of one scrypt stanza has less than 200 bytes.
pub const MAX_FILE_SIZE_BYTES: usize = MAX_PLAINTEXT_SIZE_BYTES + 512;

/// The base-2 logarithm of scrypt's cost, with r = 8 and p = 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkFactor(u8);

impl WorkFactor {
    /// 2¹⁷: 128 MiB. About half a second natively and one to two in a browser.
    pub const RECOMMENDED: Self = Self(17);
    /// The largest factor that is opened: 512 MiB. A file that needs more would stop a browser.
    pub const MAX: Self = Self(19);

    /// A work factor from 1 to [`Self::MAX`]. `None` for any other.
    #[must_use]
    pub const fn new(log_n: u8) -> Option<Self> {
        if log_n >= 1 && log_n <= Self::MAX.0 { Some(Self(log_n)) } else { None }
    }
}

/// Why encryption failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// The passphrase is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The plaintext has more than [`MAX_PLAINTEXT_SIZE_BYTES`].
    #[error("more than fits such a file")]
    TooLarge,
    /// The operating system provided no randomness.
    #[error("no randomness from the operating system")]
    Randomness,
}

/// Why a file does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The passphrase is not that of the file. A changed salt or stanza looks the same.
    #[error("the passphrase does not open the file")]
    WrongPassphrase,
    /// The passphrase is right, but the file was changed or is incomplete.
    #[error("the file was changed, or is not complete")]
    Changed,
    /// The file is not an age file under one passphrase.
    #[error("not a file that a passphrase opens in the age format")]
    Format,
    /// Opening the file would take more memory than [`WorkFactor::MAX`].
    #[error("opening the file would take too much memory (work factor {0})")]
    WorkFactor(u8),
}

fn wrapping_key(
    passphrase: &str,
    salt: &[u8; SALT_SIZE_BYTES],
    work_factor: WorkFactor,
) -> Option<Zeroizing<[u8; 32]>> {
    let parameters = scrypt::Params::new(work_factor.0, 8, 1).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), &[SCRYPT_LABEL, salt].concat(), &parameters, key.as_mut()).ok()?;
    Some(key)
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

fn derived(file_key: &[u8], salt: Option<&[u8]>, info: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(salt, file_key).expand(info, key.as_mut()).ok()?;
    Some(key)
}

fn header_mac(file_key: &[u8], header: &str) -> Option<Hmac<Sha256>> {
    let key = derived(file_key, None, b"header")?;
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key.as_ref()).ok()?;
    mac.update(header.as_bytes());
    Some(mac)
}

/// The nonce of the first chunk, which is also the last: an 11-byte counter and the flag.
const ONLY_CHUNK: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Encrypts `plaintext` under `passphrase`. Slow, because of scrypt.
///
/// # Errors
/// See [`EncryptError`].
pub fn encrypt(passphrase: &str, work_factor: WorkFactor, plaintext: &[u8]) -> Result<Vec<u8>, EncryptError> {
    if passphrase.is_empty() {
        return Err(EncryptError::EmptyPassphrase);
    }
    if plaintext.len() > MAX_PLAINTEXT_SIZE_BYTES {
        return Err(EncryptError::TooLarge);
    }
    let mut file_key = Zeroizing::new([0; FILE_KEY_SIZE_BYTES]);
    let (mut salt, mut nonce) = ([0; SALT_SIZE_BYTES], [0; PAYLOAD_NONCE_SIZE_BYTES]);
    for buffer in [&mut file_key[..], &mut salt, &mut nonce] {
        getrandom::fill(buffer).map_err(|_| EncryptError::Randomness)?;
    }
    sealed(passphrase, work_factor, plaintext, &file_key, &salt, &nonce).ok_or(EncryptError::TooLarge)
}

fn sealed(
    passphrase: &str,
    work_factor: WorkFactor,
    plaintext: &[u8],
    file_key: &[u8; FILE_KEY_SIZE_BYTES],
    salt: &[u8; SALT_SIZE_BYTES],
    nonce: &[u8; PAYLOAD_NONCE_SIZE_BYTES],
) -> Option<Vec<u8>> {
    let wrapping = wrapping_key(passphrase, salt, work_factor)?;
    let wrapped = cipher(&wrapping).encrypt(&Nonce::default(), file_key.as_slice()).ok()?;
    let header = format!(
        "{VERSION_LINE}\n-> scrypt {} {}\n{}\n---",
        Base64Unpadded::encode_string(salt),
        work_factor.0,
        Base64Unpadded::encode_string(&wrapped),
    );
    let mac = header_mac(file_key, &header)?.finalize().into_bytes();
    let payload_key = derived(file_key, Some(nonce), b"payload")?;
    let payload =
        cipher(&payload_key).encrypt(&Nonce::from(ONLY_CHUNK), Payload { msg: plaintext, aad: &[] }).ok()?;
    let mut file = header.into_bytes();
    file.extend_from_slice(format!(" {}\n", Base64Unpadded::encode_string(&mac)).as_bytes());
    file.extend_from_slice(nonce);
    file.extend_from_slice(&payload);
    Some(file)
}

/// The parts of a file, before the passphrase is tried.
struct Parsed<'a> {
    /// Everything up to and including `---`.
    header: &'a str,
    salt: [u8; SALT_SIZE_BYTES],
    work_factor: WorkFactor,
    wrapped: [u8; FILE_KEY_SIZE_BYTES + TAG_SIZE_BYTES],
    mac: [u8; 32],
    payload: &'a [u8],
}

/// Canonical base64 of exactly `N` bytes.
fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = Base64Unpadded::decode(text, &mut bytes).ok()?.len();
    (length == N).then_some(bytes)
}

/// The next line of `rest`, without its line break.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at_checked(end)?;
    *rest = after.get(1..)?;
    core::str::from_utf8(line).ok()
}

fn parse(file: &[u8]) -> Result<Parsed<'_>, DecryptError> {
    let bad = || DecryptError::Format;
    if file.len() > MAX_FILE_SIZE_BYTES {
        return Err(bad());
    }
    let mut rest = file;
    if line(&mut rest) != Some(VERSION_LINE) {
        return Err(bad());
    }
    let stanza = line(&mut rest).and_then(|line| line.strip_prefix("-> scrypt ")).ok_or_else(bad)?;
    let (salt, log_n) = stanza.split_once(' ').ok_or_else(bad)?;
    let salt = decoded(salt).ok_or_else(bad)?;
    // Digits only: no sign and no leading zero.
    if !log_n.bytes().all(|b| b.is_ascii_digit()) || log_n.starts_with('0') {
        return Err(bad());
    }
    let log_n: u8 = log_n.parse().map_err(|_| bad())?;
    let work_factor = WorkFactor::new(log_n).ok_or(DecryptError::WorkFactor(log_n))?;
    let wrapped = line(&mut rest).and_then(decoded).ok_or_else(bad)?;
    let mac = line(&mut rest).and_then(|line| line.strip_prefix("--- ")).ok_or_else(bad)?;
    // The authenticated header ends before the separator and the code.
    let header_size = file.len().checked_sub(rest.len() + mac.len() + " \n".len()).ok_or_else(bad)?;
    let header = file.get(..header_size).and_then(|header| core::str::from_utf8(header).ok());
    Ok(Parsed {
        header: header.ok_or_else(bad)?,
        salt,
        work_factor,
        wrapped,
        mac: decoded(mac).ok_or_else(bad)?,
        payload: rest,
    })
}

/// Opens a file with `passphrase`. Slow, because of scrypt.
///
/// # Errors
/// See [`DecryptError`].
pub fn decrypt(passphrase: &str, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let Parsed { header, salt, work_factor, wrapped, mac, payload } = parse(file)?;
    let wrapping = wrapping_key(passphrase, &salt, work_factor).ok_or(DecryptError::Format)?;
    let file_key = cipher(&wrapping)
        .decrypt(&Nonce::default(), wrapped.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| DecryptError::WrongPassphrase)?;
    header_mac(&file_key, header)
        .ok_or(DecryptError::Format)?
        .verify_slice(&mac)
        .map_err(|_| DecryptError::Changed)?;
    let (nonce, chunk) =
        payload.split_first_chunk::<PAYLOAD_NONCE_SIZE_BYTES>().ok_or(DecryptError::Changed)?;
    let payload_key = derived(&file_key, Some(nonce), b"payload").ok_or(DecryptError::Format)?;
    cipher(&payload_key)
        .decrypt(&Nonce::from(ONLY_CHUNK), chunk)
        .map(Zeroizing::new)
        .map_err(|_| DecryptError::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: WorkFactor = WorkFactor(4);

    /// Written by the `age` crate 0.12.1: "a share of a key", passphrase "correct horse", work
    /// factor 10.
    const FROM_THE_AGE_CRATE: &[u8] = include_bytes!("../tests/age-0.12.1.age");

    #[test]
    fn a_file_of_the_age_crate_opens() {
        let opened = decrypt("correct horse", FROM_THE_AGE_CRATE).unwrap();
        assert_eq!(opened.as_slice(), b"a share of a key");
        assert_eq!(decrypt("correct house", FROM_THE_AGE_CRATE), Err(DecryptError::WrongPassphrase));
    }

    #[test]
    fn the_bytes_are_pinned() {
        // The age crate 0.12.1 opened these bytes.
        let file = sealed("correct horse", QUICK, b"a share of a key", &[1; 16], &[2; 16], &[3; 16]).unwrap();
        assert_eq!(file, include_bytes!("../tests/ours.age"));
    }

    #[test]
    fn every_changed_byte_and_every_prefix_is_refused() {
        let file = encrypt("correct horse", QUICK, b"a share of a key").unwrap();
        assert_eq!(decrypt("correct horse", &file).unwrap().as_slice(), b"a share of a key");
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(decrypt("correct horse", &changed).is_err(), "byte {at}");
            assert!(decrypt("correct horse", &file[..at]).is_err(), "prefix {at}");
        }
        assert!(decrypt("correct horse", &[file.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn what_would_stop_a_browser_is_refused_before_it_is_tried() {
        let file = String::from_utf8(FROM_THE_AGE_CRATE[..60].to_vec()).unwrap();
        let rest = &FROM_THE_AGE_CRATE[60..];
        let asks = |log_n: &str| [file.replace(" 10\n", log_n).as_bytes(), rest].concat();
        assert_eq!(decrypt("x", &asks(" 22\n")), Err(DecryptError::WorkFactor(22)));
        assert_eq!(decrypt("x", &asks(" 010\n")), Err(DecryptError::Format));
        assert_eq!(decrypt("x", &asks(" +10\n")), Err(DecryptError::Format));
        assert_eq!(decrypt("x", &vec![b'a'; MAX_FILE_SIZE_BYTES + 1]), Err(DecryptError::Format));
        assert_eq!(encrypt("", QUICK, b"x"), Err(EncryptError::EmptyPassphrase));
        assert_eq!(encrypt("x", QUICK, &vec![0; MAX_PLAINTEXT_SIZE_BYTES + 1]), Err(EncryptError::TooLarge));
    }

    #[test]
    fn the_largest_plaintext_fits() {
        let plaintext = vec![7; MAX_PLAINTEXT_SIZE_BYTES];
        let file = encrypt("x", QUICK, &plaintext).unwrap();
        assert!(file.len() <= MAX_FILE_SIZE_BYTES);
        assert_eq!(decrypt("x", &file).unwrap().as_slice(), plaintext);
    }
}
