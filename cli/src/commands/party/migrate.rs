//! `duet party migrate`: compares the share store's schema with this build, and changes it.

use std::fmt;

use clap::Args;
use duet_party::store::SchemaReport;
use serde::Serialize;

use crate::{
    config::StorePlace,
    error::CliError,
    output::Output,
    share_store::{self, SchemaStep},
    store_location::StoreLocation,
};

#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateArguments {
    #[command(flatten)]
    place: StorePlace,
    #[command(flatten)]
    step: StepOptions,
}

#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
struct StepOptions {
    /// Show what would run, and change nothing; fails unless this build can use the store as it is
    #[arg(long)]
    check: bool,
    /// Add what this build needs; the build before goes on meanwhile
    #[arg(long)]
    expand: bool,
    /// Remove what only older builds need; refused while one of them has the store open
    #[arg(long)]
    contract: bool,
}

impl StepOptions {
    const fn step(self) -> SchemaStep {
        if self.expand {
            SchemaStep::Expand
        } else if self.contract {
            SchemaStep::Contract
        } else {
            SchemaStep::Check
        }
    }
}

#[derive(Debug, Serialize)]
struct Migrated {
    store: StoreLocation,
    missing: Vec<String>,
    removable: Vec<String>,
    newer: Vec<i64>,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: this build can use the store", self.store)?;
        for step in &self.removable {
            write!(f, "\n--contract would run {step}")?;
        }
        for version in &self.newer {
            write!(f, "\nexpansion {version} is a newer build's; this build does not use it")?;
        }
        Ok(())
    }
}

pub(super) async fn migrate(arguments: MigrateArguments, output: Output) -> Result<(), CliError> {
    let step = arguments.step.step();
    let SchemaReport { missing, removable, newer } = share_store::migrate(&arguments.place, step).await?;
    if !missing.is_empty() {
        let details = serde_json::json!({ "missing": missing });
        return Err(CliError::not_expanded(&missing.join("; ")).details(details));
    }
    output.emit(&Migrated { store: arguments.place.store, missing, removable, newer })
}
