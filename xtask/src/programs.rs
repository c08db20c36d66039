//! Building the programs that tests, demonstration and measurements start.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::{cargo, target_folder, visibly};

/// How a program is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quickly, with only the cryptography optimised.
    Debug,
    /// As it is shipped.
    Release,
}

impl Profile {
    const fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds `duet` by itself, so that no feature of the tests is in it, and returns where it is.
pub(crate) fn duet(profile: Profile) -> Result<PathBuf> {
    build(profile, &["--package", "duet"], "duet")
}

/// Builds one of the programs in `tests/src/bin`, and returns where it is. The whole workspace is
/// named, so that features are those of its tests, and nothing is built twice.
pub(crate) fn of_tests(name: &str, profile: Profile) -> Result<PathBuf> {
    build(profile, &["--workspace", "--bin", name], name)
}

fn build(profile: Profile, selection: &[&str], name: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked"]).args(selection);
    if profile == Profile::Release {
        build.arg("--release");
    }
    visibly(&mut build)?;
    Ok(target_folder().join(profile.folder()).join(name))
}
