//! `cargo xtask chaos`: builds the fault suite, and hands over to `crates/chaos/src/main.rs`.

use anyhow::Result;

use crate::{
    install::{self, Need},
    programs::{self, Profile},
    run::{command, visibly},
};

/// What the fault suite requires.
const NEEDS: &[Need] = &[Need::Compiler, Need::NatsServer, Need::Postgres, Need::Faketime];

pub(crate) fn chaos(arguments: &[String], no_install: bool) -> Result<()> {
    install::ensure(NEEDS, no_install)?;
    let duet = programs::duet(Profile::Debug)?;
    let mut chaos = command(programs::of_tests("chaos", Profile::Debug)?);
    visibly(chaos.env("DUET_PROGRAM", duet).args(arguments))
}
