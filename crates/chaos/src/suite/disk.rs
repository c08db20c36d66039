//! A small disk that a test can fill: a file system in memory, on machines that permit this process
//! to mount one.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use duet_harness::folders::make_private_folder;

/// What it holds, in mebibytes: a share store of a few wallets many times over.
const SIZE_MIB: u32 = 48;

/// The size of each write that fills the disk.
const BLOCK_BYTES: usize = 64 * 1024;

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Creates `folder` and mounts a small disk there.
    ///
    /// # Errors
    /// When this process may not mount. The error contains the system's reason.
    pub fn mount(folder: &Path) -> Result<Self> {
        Self::mount_of(folder, SIZE_MIB)
    }

    /// Mounts a disk of `size_mib` mebibytes at `folder`, which is made.
    ///
    /// # Errors
    /// When this process may not; with what the system says.
    pub fn mount_of(folder: &Path, size_mib: u32) -> Result<Self> {
        make_private_folder(folder)?;
        let options = format!("size={size_mib}m,mode=0700");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "duet-tests"])
            .arg(folder)
            .output()
            .context("there is no mount")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The owner, which is the folder's name.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.folder.file_name().and_then(|name| name.to_str()).unwrap_or("an unnamed owner")
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    /// When the ballast cannot be written for another reason than a full disk.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        let mut block = BLOCK_BYTES;
        while block > 0 {
            match file.write(&vec![1; block]) {
                Ok(written) if written > 0 => {}
                Ok(_) => block /= 2,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => block /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes room again by removing the ballast.
    ///
    /// # Errors
    /// When the ballast cannot be removed.
    pub fn empty(&self) -> Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount, because processes with open files there are killed next. A failure has no
        // caller to return to.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let disk = match SmallDisk::mount(&folder.path().join("disk")) {
            Ok(disk) => disk,
            Err(error) => {
                eprintln!("SKIPPED: no disk can be mounted here: {error}");
                return;
            }
        };
        let file = folder.path().join("disk").join("file");
        disk.fill().unwrap();
        assert!(fs::write(&file, [1; 8192]).is_err());
        disk.empty().unwrap();
        fs::write(&file, [1; 8192]).unwrap();
    }
}
