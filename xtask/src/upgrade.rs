//! `cargo xtask upgrade`: upgrades an installation of an earlier version process by process while
//! jobs go on, takes it back, and upgrades it again (`tests/src/bin/upgrade.rs`).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    history::check_out,
    install::{self, Need},
    programs::{self, Profile},
    run::{cargo, command, target_folder, visibly},
};

/// The version that this one follows. `docs/releases.md` names it.
const BASE: &str = "71c7f6f";

/// The options of the upgrade.
#[derive(Args)]
pub(crate) struct Options {
    /// The commit of the version before.
    #[arg(long, value_name = "COMMIT", default_value = BASE)]
    from: String,
    /// Its `duet` program, if it is built already. Otherwise it is built from the history.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// How many jobs are submitted during the run.
    #[arg(long, value_name = "NUMBER", default_value_t = 660)]
    jobs: usize,
}

pub(crate) fn upgrade(options: &Options) -> Result<()> {
    install::ensure(&[Need::Compiler, Need::NatsServer], false)?;
    let before = match &options.program {
        Some(program) => {
            program.canonicalize().with_context(|| format!("there is no {}", program.display()))?
        }
        None => build(&options.from)?,
    };
    let after = programs::duet(Profile::Debug)?;
    let upgrade = programs::of_tests("upgrade", Profile::Debug)?;
    let mut run = command(upgrade);
    run.env("DUET_PROGRAM", &before).arg(before).arg(after).arg(options.jobs.to_string());
    visibly(&mut run)
}

/// Builds the `duet` of a commit, and returns its path.
fn build(commit: &str) -> Result<PathBuf> {
    let folder = target_folder().join("upgrade");
    let (source, target) = (folder.join("source"), folder.join("target"));
    check_out(&source, commit)?;
    let mut build = cargo();
    build.current_dir(&source).env("CARGO_TARGET_DIR", &target);
    visibly(build.args(["build", "--locked", "--package", "duet"]))?;
    Ok(target.join("debug/duet"))
}
