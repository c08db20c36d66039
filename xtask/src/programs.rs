//! Builds the programs that tests, the demonstration and measurements start.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::{cargo, target_folder, visibly};

/// The profile of a build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Compiles fast. Only the cryptography is optimised.
    Debug,
    /// The profile of the shipped program.
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

/// Builds `duet` alone, so that it has no feature for tests. Returns its path.
pub(crate) fn duet(profile: Profile) -> Result<PathBuf> {
    build(profile, &["--package", "duet"], "duet")
}

/// Builds a program in `tests/src/bin`, and returns its path. It selects the whole workspace, so
/// that features match those of the tests and nothing is built twice.
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
