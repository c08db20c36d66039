//! Reads secrets from files, environment variables or a prompt, never from arguments.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use duet_credentials::secret_file::SecretFile;
use zeroize::Zeroizing;

use crate::error::CliError;

/// Bytes in a key file, which has twice as many hexadecimal digits.
const KEY_SIZE_BYTES: usize = 32;
/// The largest secret file, in bytes. A larger one is the wrong file.
const MAX_SECRET_FILE_SIZE_BYTES: u64 = 16 * 1024;

/// The character U+FEFF, which some editors and shells put before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// A byte order mark in UTF-16, in both byte orders.
const UTF16_MARKS: [&[u8]; 2] = [&[0xff, 0xfe], &[0xfe, 0xff]];

/// Whether the user chooses a new passphrase or enters an existing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassphraseUse {
    /// For something new: the prompt asks twice.
    Choose,
    /// For something that exists.
    Enter,
}

/// What a passphrase opens, and how it is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passphrase {
    /// What it opens, for the prompt.
    pub(crate) of: &'static str,
    /// The environment variable with the passphrase itself.
    pub(crate) variable: &'static str,
    /// How to give it where there is no terminal.
    pub(crate) remedy: &'static str,
}

/// Reads a file of 64 hexadecimal digits.
///
/// # Errors
/// When the file cannot be read or has other contents.
pub(crate) fn read_key_file(file: &Path) -> Result<Zeroizing<[u8; KEY_SIZE_BYTES]>, CliError> {
    parse_key(file, &read_line_file(file)?)
}

/// The key in the 64 hexadecimal digits of `file`.
///
/// # Errors
/// When the text has another form.
pub(crate) fn parse_key(file: &Path, digits: &str) -> Result<Zeroizing<[u8; KEY_SIZE_BYTES]>, CliError> {
    let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
    hex::decode_to_slice(digits.as_bytes(), key.as_mut_slice()).map_err(|_| {
        CliError::input(format!("{} does not hold a key: 64 hexadecimal digits expected", file.display()))
            .remedy("Name the file that the key was written to, or have a new one made.")
    })?;
    Ok(key)
}

/// Reads a file of one secret, or of two secrets during an exchange (`duet credentials`).
///
/// # Errors
/// When the file cannot be read or has other contents.
pub(crate) fn read_secret_file(file: &Path) -> Result<SecretFile, CliError> {
    SecretFile::parse(&read_line_file(file)?)
        .map_err(|error| CliError::input(format!("{}: {error}", file.display())))
}

/// Writes a fresh random key to `file`, readable by its owner only.
///
/// # Errors
/// When the file exists or cannot be written, or when the system has no randomness.
pub(crate) fn create_key_file(file: &Path) -> Result<(), CliError> {
    let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
    getrandom::fill(key.as_mut_slice())
        .map_err(|error| CliError::internal(format!("no randomness from the system: {error}")))?;
    let mut digits = Zeroizing::new(hex::encode(key.as_slice()));
    digits.push('\n');
    write_new_file(file, digits.as_bytes())
}

/// Writes `contents` to a file that must not exist yet, readable by its owner only, and makes it
/// durable.
///
/// # Errors
/// When the file exists or cannot be written.
pub(crate) fn write_new_file(file: &Path, contents: &[u8]) -> Result<(), CliError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(file).and_then(|mut opened| {
        opened.write_all(contents)?;
        opened.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists_already(file),
        _ => CliError::io(&file.display().to_string(), &error),
    })
}

/// The refusal to overwrite a file.
pub(crate) fn exists_already(file: &Path) -> CliError {
    CliError::input(format!("{} exists already", file.display()))
        .remedy("Choose another name, or move the existing file away.")
}

/// Reads a secret of one line: the whole file without a leading byte order mark and surrounding
/// line breaks.
///
/// # Errors
/// When the file cannot be read, is empty or too large, or is not UTF-8 text.
pub(crate) fn read_line_file(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = read_text(file)?;
    let line = bare_line(&text);
    if line.is_empty() {
        return Err(CliError::input(format!("{} is empty", file.display())).remedy(
            "Name the file that the secret was written to; an interrupted copy leaves an empty one.",
        ));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// `text` without a byte order mark and surrounding line breaks.
fn bare_line(text: &str) -> &str {
    without_mark(text).trim_matches(['\r', '\n'])
}

/// `text` without a leading byte order mark.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The bytes of the document `name`, in JSON or hexadecimal digits, without a leading byte order
/// mark.
///
/// # Errors
/// When the document is UTF-16.
pub(crate) fn document_bytes(name: &str, mut bytes: Vec<u8>) -> Result<Vec<u8>, CliError> {
    refuse_utf16(name, &bytes)?;
    let mark = BYTE_ORDER_MARK.len_utf8();
    if str::from_utf8(&bytes).is_ok_and(|text| text.starts_with(BYTE_ORDER_MARK)) {
        bytes.drain(..mark);
    }
    Ok(bytes)
}

fn refuse_utf16(name: &str, bytes: &[u8]) -> Result<(), CliError> {
    if UTF16_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(CliError::input(format!("{name} is UTF-16, and UTF-8 is expected"))
            .remedy("Save it as UTF-8; in PowerShell: Set-Content -Encoding utf8."));
    }
    Ok(())
}

/// Reads a small text file unchanged.
///
/// # Errors
/// When the file cannot be read, is too large, or is not UTF-8 text.
fn read_text(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let name = || file.display().to_string();
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(file)
        .and_then(|opened| opened.take(MAX_SECRET_FILE_SIZE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| CliError::io(&name(), &error))?;
    if bytes.len() as u64 > MAX_SECRET_FILE_SIZE_BYTES {
        return Err(CliError::input(format!("{} is too large to be a secret", name())));
    }
    refuse_utf16(&name(), &bytes)?;
    let text = str::from_utf8(&bytes).map_err(|_| CliError::input(format!("{} is not text", name())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The secret from the file that an option names, else from an environment variable.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn file_or_variable(
    file: Option<&PathBuf>,
    name: &str,
) -> Result<Option<Zeroizing<String>>, CliError> {
    let bare = |text: Zeroizing<String>| Zeroizing::new(bare_line(&text).to_owned());
    file.map_or_else(|| Ok(variable(name).map(bare)), |file| read_line_file(file).map(Some))
}

fn variable(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name).ok().map(Zeroizing::new)
}

/// A passphrase: from the file that an option names, else from an environment variable, else from a
/// prompt.
///
/// # Errors
/// When the file cannot be read, or there is neither a passphrase nor a terminal.
pub(crate) fn passphrase(
    file: Option<&PathBuf>,
    passphrase: &Passphrase,
    usage: PassphraseUse,
) -> Result<Zeroizing<String>, CliError> {
    if let Some(file) = file {
        return read_passphrase_file(file, usage);
    }
    match variable(passphrase.variable) {
        Some(given) => non_empty(given),
        None => prompt(passphrase, usage),
    }
}

/// Reads a passphrase: the whole file without its final line breaks.
///
/// A byte order mark is part of the passphrase, because stores exist that were sealed with it. A
/// new passphrase may not have one.
fn read_passphrase_file(file: &Path, usage: PassphraseUse) -> Result<Zeroizing<String>, CliError> {
    let text = read_text(file)?;
    if text.starts_with(BYTE_ORDER_MARK) {
        let what = format!(
            "{} begins with a byte order mark, which would be part of the passphrase",
            file.display()
        );
        match usage {
            PassphraseUse::Choose => {
                return Err(CliError::input(what).remedy("Save the file as UTF-8 without a byte order mark."));
            }
            PassphraseUse::Enter => {
                tracing::warn!("{what}: if it opens nothing, save it without one")
            }
        }
    }
    non_empty(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn non_empty(passphrase: Zeroizing<String>) -> Result<Zeroizing<String>, CliError> {
    if passphrase.is_empty() {
        return Err(CliError::input("the passphrase is empty"));
    }
    Ok(passphrase)
}

fn prompt(passphrase: &Passphrase, usage: PassphraseUse) -> Result<Zeroizing<String>, CliError> {
    let Passphrase { of, remedy, .. } = *passphrase;
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(format!("no passphrase of {of} is given")).remedy(remedy));
    }
    let ask = |question: &str| {
        rpassword::prompt_password(question)
            .map(Zeroizing::new)
            .map_err(|error| CliError::io("the terminal", &error))
    };
    let given = non_empty(ask(&match usage {
        PassphraseUse::Choose => format!("New passphrase of {of}: "),
        PassphraseUse::Enter => format!("Passphrase of {of}: "),
    })?)?;
    if usage == PassphraseUse::Choose && *ask("The same again: ")? != *given {
        return Err(CliError::input("the two passphrases differ"));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        create_key_file(&file).unwrap();
        let key = read_key_file(&file).unwrap();
        assert_ne!(*key, [0; 32]);
        assert!(create_key_file(&file).is_err(), "a key is never overwritten");
        assert_eq!(*read_key_file(&file).unwrap(), *key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_editors_put_around_a_secret_is_no_part_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        for text in
            ["secret", "secret\n", "secret\r\n", "\nsecret\n\n", "\u{feff}secret", "\u{feff}\r\nsecret\r\n"]
        {
            fs::write(&file, text).unwrap();
            assert_eq!(*read_line_file(&file).unwrap(), "secret", "{text:?}");
            assert_eq!(read_secret_file(&file).unwrap().in_use(), "secret", "{text:?}");
        }
        let refused = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            read_line_file(&file).unwrap_err().to_string()
        };
        for little_or_big in [b"\xff\xfes\0".as_slice(), b"\xfe\xff\0s"] {
            assert!(refused(little_or_big).contains("UTF-16"));
        }
        for empty in [b"".as_slice(), b"\n", b"\xef\xbb\xbf\r\n"] {
            assert!(refused(empty).ends_with("token is empty"));
        }
        assert!(refused(b"\x80").ends_with("is not text"));
    }

    const UNSET: Passphrase =
        Passphrase { of: "a test", variable: "DUET_TEST_UNSET", remedy: "Give a file." };

    #[test]
    fn a_mark_before_a_passphrase_counts_and_is_not_chosen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passphrase");
        fs::write(&file, "\u{feff} two words \r\n").unwrap();
        let read = |usage| passphrase(Some(&file), &UNSET, usage);
        // Stores sealed with such a passphrase still open.
        assert_eq!(*read(PassphraseUse::Enter).unwrap(), "\u{feff} two words ");
        assert!(read(PassphraseUse::Choose).unwrap_err().to_string().contains("byte order mark"));
        fs::write(&file, " two words \n").unwrap();
        assert_eq!(*read(PassphraseUse::Choose).unwrap(), " two words ");
    }

    #[test]
    fn other_files_are_no_keys() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        for text in ["", "00", &"zz".repeat(32), &"00".repeat(33)] {
            fs::write(&file, text).unwrap();
            assert!(read_key_file(&file).is_err(), "{text:?}");
        }
        fs::write(&file, vec![b'0'; 20_000]).unwrap();
        assert!(read_key_file(&file).unwrap_err().to_string().contains("too large"));
    }
}
