//! Where the demonstration has its files, and on which ports it listens.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use duet_harness::{folders::make_private_folder, stack::Directory};

/// A temporary folder with free ports, or a folder and ports that stay the same across runs.
#[derive(Debug)]
pub(crate) struct Place {
    directory: Directory,
    port: Option<u16>,
    /// Locked while this run uses a kept folder.
    _lock: Option<File>,
}

impl Place {
    /// The folder `keep`, or a temporary one. The ports are `port` and the three above it, or free
    /// ones.
    ///
    /// # Errors
    /// When the folder cannot be made, or when another demonstration uses it.
    pub(crate) fn new(keep: Option<&Path>, port: Option<u16>) -> Result<Self> {
        let (directory, lock) = match keep {
            None => {
                let folder = tempfile::Builder::new().prefix("duet-demo-").tempdir();
                (Directory::Temporary(Arc::new(folder.context("no temporary folder")?)), None)
            }
            Some(folder) => {
                let folder = std::path::absolute(folder)?;
                make_private_folder(&folder).with_context(|| format!("no folder {}", folder.display()))?;
                let lock = File::create(folder.join("lock"))?;
                match lock.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        bail!("another demonstration uses {}", folder.display())
                    }
                    Err(TryLockError::Error(error)) => return Err(error.into()),
                }
                (Directory::Kept(folder), Some(lock))
            }
        };
        Ok(Self { directory, port, _lock: lock })
    }

    pub(crate) const fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether its files stay after the run.
    pub(crate) const fn is_kept(&self) -> bool {
        matches!(self.directory, Directory::Kept(_))
    }

    /// The addresses of orchestrator and gateway.
    pub(crate) fn listen(&self) -> [String; 2] {
        [0, 1].map(|number| format!("127.0.0.1:{}", self.port(number)))
    }

    /// The Ethereum node's port. 0 lets the node choose.
    pub(crate) fn node_port(&self) -> u16 {
        self.port(2)
    }

    /// The broker's port for clients. 0 lets the broker choose.
    pub(crate) fn broker_port(&self) -> u16 {
        self.port(3)
    }

    fn port(&self, number: u16) -> u16 {
        self.port.map_or(0, |first| first.saturating_add(number))
    }

    /// The file of the node's chain. A kept wallet needs its chain: with a new one its nonces would
    /// begin anew, and the parties would refuse to sign the old transactions for new jobs.
    pub(crate) fn chain(&self) -> Option<PathBuf> {
        self.is_kept().then(|| self.path().join("chain.json"))
    }

    /// Removes a file that this run writes anew.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub(crate) fn forget(&self, file: impl AsRef<Path>) -> Result<()> {
        let file = self.path().join(file);
        if file.exists() {
            fs::remove_file(file)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_folder_is_used_once_at_a_time_and_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("kept");
        let first = Place::new(Some(&folder), Some(7000)).unwrap();
        assert!(Place::new(Some(&folder), None).is_err());
        assert_eq!(first.listen(), ["127.0.0.1:7000", "127.0.0.1:7001"]);
        assert_eq!((first.node_port(), first.broker_port()), (7002, 7003));
        fs::write(first.path().join("wallet"), "kept").unwrap();
        drop(first);
        let second = Place::new(Some(&folder), None).unwrap();
        assert_eq!(fs::read_to_string(second.path().join("wallet")).unwrap(), "kept");
        assert_eq!(second.listen(), ["127.0.0.1:0", "127.0.0.1:0"]);
    }

    #[test]
    fn a_temporary_folder_is_removed() {
        let place = Place::new(None, None).unwrap();
        let path = place.path().to_owned();
        assert!(path.exists() && place.chain().is_none());
        drop(place);
        assert!(!path.exists());
    }
}
