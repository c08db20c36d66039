//! Clocks of single processes, set by libfaketime. What measures durations stays as it is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::duet::Duet;

/// The library that sets a process's clock, as Debian's package `libfaketime` installs it; the one
/// for processes with several threads.
#[must_use]
pub fn library() -> Option<PathBuf> {
    let folder = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    Some(Path::new(&folder).join("libfaketimeMT.so.1")).filter(|library| library.exists())
}

/// A command whose processes take their time of day from the file `clock`, which may change while
/// they run.
#[must_use]
pub fn from_file(duet: Duet, library: &Path, clock: &Path) -> Duet {
    preloaded(duet, library)
        .with("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy())
        .with("FAKETIME_CACHE_DURATION", "1")
}

/// The command with a clock that is steadily ahead of the machine's by so many seconds, or behind
/// it.
///
/// # Errors
/// When libfaketime is not installed.
pub fn shifted(duet: Duet, seconds: i64) -> Result<Duet> {
    if seconds == 0 {
        return Ok(duet.without("LD_PRELOAD").without("FAKETIME"));
    }
    let library = library().context("libfaketime is not installed")?;
    Ok(preloaded(duet, &library).with("FAKETIME", &format!("{seconds:+}")))
}

fn preloaded(duet: Duet, library: &Path) -> Duet {
    duet.with("LD_PRELOAD", &library.to_string_lossy()).with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}
