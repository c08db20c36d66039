//! Key files: exactly 32 random bytes that only their owner may read.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
};

use zeroize::Zeroizing;

use crate::{KeyEncryptionKey, KeyError, key::KEY_SIZE_BYTES};

/// The creator of a key file, which decides its allowed permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file's owner: mode 0600, or less.
    Owner,
    /// systemd, as a credential. An access-control list gives access to the service's user. The
    /// bits of the group show the mask of that list: 0440 does not mean that a group can read the
    /// file.
    Systemd,
}

impl Origin {
    /// Permission bits that must not be set.
    #[cfg(unix)]
    const fn forbidden(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::Systemd => 0o037,
        }
    }
}

/// Writes a fresh random key to a file that must not exist, and makes it durable.
///
/// # Errors
/// When the file exists or cannot be written, or when the system provides no randomness.
pub fn create(path: &Path) -> Result<KeyEncryptionKey, KeyError> {
    let key = KeyEncryptionKey::generate()?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(key.expose())?;
            file.sync_all()?;
            // Losing the key loses everything sealed under it. So the file's name must survive a
            // power cut, too.
            match path.parent() {
                Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
                _ => Ok(()),
            }
        })
        .map_err(|source| KeyError::File { path: path.to_owned(), source })?;
    Ok(key)
}

/// Reads a key.
///
/// # Errors
/// When the file cannot be read, when its length is not 32 bytes, or when other users can read or
/// write it.
pub fn read(path: &Path, origin: Origin) -> Result<KeyEncryptionKey, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    #[cfg(not(unix))]
    let _ = origin;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & origin.forbidden() != 0 {
            return Err(KeyError::Permissions { path: path.to_owned(), mode });
        }
    }
    if metadata.len() != KEY_SIZE_BYTES as u64 {
        return Err(KeyError::Length(path.to_owned()));
    }
    let mut key = Zeroizing::new([0; KEY_SIZE_BYTES]);
    file.read_exact(key.as_mut()).map_err(failed)?;
    Ok(KeyEncryptionKey::from_bytes(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = create(&path).unwrap();
        assert_eq!(read(&path, Origin::Owner).unwrap().id(), made.id());
        assert!(matches!(create(&path), Err(KeyError::File { .. })), "a key is never overwritten");
        assert_eq!(read(&path, Origin::Owner).unwrap().id(), made.id());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path).unwrap();
        for (mode, of_owner, of_systemd) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o440, false, true),
            (0o460, false, false),
            (0o404, false, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            for (origin, accepted) in [(Origin::Owner, of_owner), (Origin::Systemd, of_systemd)] {
                match read(&path, origin) {
                    Ok(_) => assert!(accepted, "{mode:o} of {origin:?}"),
                    Err(error) => {
                        assert!(!accepted, "{mode:o} of {origin:?}");
                        assert!(
                            matches!(error, KeyError::Permissions { mode: refused, .. } if refused == mode)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_short_or_long_key_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 31, 33] {
            let path = directory.path().join(format!("key-{length}"));
            std::fs::write(&path, vec![1; length]).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(read(&path, Origin::Owner), Err(KeyError::Length(_))));
        }
    }
}
