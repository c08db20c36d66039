//! Finds PostgreSQL's programs, and the user that runs them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// The oldest server that the share store supports.
const MINIMUM_VERSION: u32 = 13;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// The folder with `postgres` and `initdb`: on the path, or else the newest one of Debian's
/// packages.
pub(crate) fn server_programs() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    packaged.sort();
    env::split_paths(&path)
        .chain(packaged.into_iter().rev())
        .find(|folder| folder.join("initdb").is_file() && version(folder) >= Some(MINIMUM_VERSION))
        .context("there is no PostgreSQL 13 or newer; `cargo xtask install` installs Debian's")
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(2)?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// The user that runs the server when this process is root: `postgres`, or else the unprivileged
/// user that every Unix has. `None` when this process is not root.
pub(crate) fn server_account() -> Result<Option<Account>> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata("/proc/self").context("who am I?")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let account = |name: &str| {
        users.lines().find_map(|line| {
            let mut parts = line.split(':');
            (parts.next()? == name).then_some(())?;
            let user = parts.nth(1)?.parse().ok()?;
            Some(Account { user, group: parts.next()?.parse().ok()? })
        })
    };
    account("postgres")
        .or_else(|| account("nobody"))
        .map(Some)
        .context("PostgreSQL refuses to run as root: add a user `postgres` to this machine")
}
