//! `cargo xtask chaos`: builds what the fault suite needs and hands over to `tests/src/bin/chaos.rs`.

use anyhow::Result;

use crate::{
    install::{self, Need},
    run::{cargo, command, target_folder, visibly},
};

/// What the fault suite takes.
const NEEDS: &[Need] = &[Need::Compiler, Need::NatsServer, Need::Postgres, Need::Faketime];

pub(crate) fn chaos(arguments: &[String], no_install: bool) -> Result<()> {
    install::ensure(NEEDS, no_install)?;
    visibly(cargo().args(["build", "--locked", "--package", "duet"]))?;
    visibly(cargo().args(["build", "--locked", "--package", "duet-tests", "--bin", "chaos"]))?;
    let mut chaos = command(target_folder().join("debug/chaos"));
    visibly(chaos.env("DUET_PROGRAM", target_folder().join("debug/duet")).args(arguments))
}
