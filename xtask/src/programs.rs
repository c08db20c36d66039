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

/// Builds `duet`, and returns its path. The program of the tests comes from the tests' selection.
/// The shipped one is selected alone, as its packagers build it.
pub(crate) fn duet(profile: Profile) -> Result<PathBuf> {
    match profile {
        Profile::Debug => of_tests("duet", profile),
        Profile::Release => build(profile, &["--package", "duet"], "duet"),
    }
}

/// Builds a program of the workspace, and returns its path. It selects what the tests select, so
/// that nothing is built twice: the whole workspace, and an example beside the program. With an
/// example the selection takes the features that dev-dependencies ask for, as tests do.
pub(crate) fn of_tests(name: &str, profile: Profile) -> Result<PathBuf> {
    match profile {
        Profile::Debug => build(profile, &["--workspace", "--bin", name, "--example", "seeds"], name),
        Profile::Release => build(profile, &["--workspace", "--bin", name], name),
    }
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
