//! `cargo xtask demo`: installs, builds, and starts the demonstration (`crates/demo`).

use std::os::unix::process::CommandExt as _;

use anyhow::{Context, Result};

use crate::{
    install::{self, Need},
    npm::Packages,
    page,
    programs::{self, Profile},
    run::{command, line},
};

pub(crate) fn demo(once: bool, no_install: bool) -> Result<()> {
    let needs = [
        Need::Compiler,
        Need::Npm(Packages::Judges),
        Need::Npm(Packages::Frontend),
        Need::NatsServer,
        Need::Wasm,
    ];
    install::ensure(&needs, no_install)?;
    let page = page::default_folder();
    page::build(&page, None)?;
    let duet = programs::duet(Profile::Debug)?;
    let mut demo = command(programs::of_tests("demo", Profile::Debug)?);
    demo.env("DUET_PROGRAM", duet).env("DUET_PAGE", page);
    if once {
        demo.arg("--once");
    }
    // It replaces this process, so that signals reach the process that has to clean up.
    let line = line(&demo);
    Err(demo.exec()).with_context(|| format!("cannot start {line}"))
}
