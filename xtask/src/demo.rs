//! `cargo xtask demo`: installs, builds, and becomes the demonstration (`tests/src/bin/demo.rs`).

use std::os::unix::process::CommandExt as _;

use anyhow::{Context, Result};

use crate::{
    install::{self, Need},
    npm::Packages,
    page,
    run::{cargo, command, line, target_folder, visibly},
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
    page::build(&page)?;
    visibly(cargo().args(["build", "--locked", "--package", "duet"]))?;
    visibly(cargo().args(["build", "--locked", "--package", "duet-tests", "--bin", "demo"]))?;
    let mut demo = command(target_folder().join("debug/demo"));
    demo.env("DUET_PROGRAM", target_folder().join("debug/duet")).env("DUET_PAGE", page);
    if once {
        demo.arg("--once");
    }
    // In place of this process, so that signals reach the one that has something to clean up.
    let line = line(&demo);
    Err(demo.exec()).with_context(|| format!("cannot start {line}"))
}
