//! Project tasks. `cargo xtask --help` lists them.
//!
//! Each task is a module. [`install`] finds what the machine lacks and installs it. [`suites`] runs
//! the tests, as continuous integration does. [`attack`] plays the published attacks, and [`fuzz`]
//! runs the fuzzers. [`soak`] checks that jobs leave nothing behind. [`world`] runs the core of the
//! queue from seeds. [`wasm`] builds the browser's module, and [`page`] the page around it.
//! [`bench`] collects the measurements. [`demo`] hands over to the demonstration in `crates/demo`.
//!
//! [`Arguments`] parses the command line, and [`main`] calls the task's function.
#![expect(clippy::print_stdout, reason = "a command line talks on stdout")]

mod attack;
mod bench;
mod chaos;
mod clocks;
mod compare;
mod compile;
mod demo;
mod dependencies;
mod fuzz;
mod history;
mod install;
mod npm;
mod page;
mod programs;
mod prose;
mod run;
mod sbom;
mod soak;
mod sql;
mod structure;
mod suites;
mod upgrade;
mod wasm;
mod world;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Duet's project tasks", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other tasks need and this machine lacks.
    Install {
        /// Only list it, and fail if anything is missing.
        #[arg(long)]
        no_install: bool,
        /// Only what the demonstration fetches while Cargo compiles.
        #[arg(long, hide = true)]
        demo: bool,
    },
    /// Show Duet at work: broker, orchestrator, two parties, a device and an Ethereum node on this
    /// machine.
    Demo(demo::Options),
    /// Check formatting and lints, build, and run every test; or one suite.
    Test {
        /// Which suites, in the order given; all of them by default.
        #[arg(value_enum)]
        suites: Vec<suites::Suite>,
        /// Only list what is missing instead of installing it.
        #[arg(long)]
        no_install: bool,
    },
    /// Check formatting, prose and lints, before a commit.
    Check,
    /// Run many jobs while processes die, links break, disks fill and clocks jump, and check the
    /// outcome.
    Chaos {
        /// Options of the suite: `--seed N`, `--minutes N`, `--scenario NAME`; `--help` lists all.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
        /// Only list what is missing instead of installing it. Put it before the suite's options.
        #[arg(long)]
        no_install: bool,
    },
    /// Let many jobs come and go at a real broker, and check that nothing of them remains.
    Soak(soak::Options),
    /// Run the core of the queue in its seeded world.
    World(world::Options),
    /// Play every published attack, and print the outcome of each.
    Attack(attack::Options),
    /// Run the fuzzers of `fuzz/`.
    Fuzz(fuzz::Options),
    /// Measure key generation, proofs, signing steps and the stack's latency.
    Bench {
        /// Also write the figures as one flat JSON object.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Which parts; all of them by default.
        #[arg(long, value_enum)]
        only: Vec<bench::Part>,
    },
    /// Measure throughput and latency of another commit and of this tree, in turn in one run. Needs
    /// an idle machine.
    Compare(compare::Options),
    /// Upgrade an installation of the version before process by process while jobs go on, take it
    /// back, and upgrade it again. No job may be lost.
    Upgrade(upgrade::Options),
    /// Build the page: a static folder with compressed files and their hashes.
    Page {
        /// Where to put it; `target/page` by default.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        /// The deployment's configuration: the gateway, and the parties that receive shares
        /// (deploy/README.md). It becomes `config.json`, and is hashed with the rest.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Build it again from a copy of the sources in another folder, and compare the hashes.
        #[arg(long)]
        check_reproducible: bool,
    },
    /// Compare the locked dependencies with the advisories of RustSec and npm. Needs the network.
    Advisories,
    /// Write bills of materials of the programs and the page.
    Sbom {
        /// Where to put them; `target/sbom` by default.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// List the crates, the arrows between their files, and the circles that files form.
    Structure {
        /// The tree to read; this repository by default.
        tree: Option<PathBuf>,
    },
    /// Build the WebAssembly module and its JavaScript.
    Wasm {
        /// The environment of the JavaScript: nodejs, web or bundler.
        #[arg(long, default_value = "nodejs")]
        target: wasm::Target,
        /// Where to put it; `target/wasm/<target>` by default.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that `anyhow` appends: it does not help the user of a task.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Install { no_install, demo } => {
            install::ensure(if demo { demo::FETCHED } else { install::EVERYTHING }, no_install)
        }
        Task::Demo(options) => demo::demo(&options),
        Task::Test { suites, no_install } => suites::test(&suites, no_install, &Arguments::command()),
        Task::Check => suites::test(&[suites::Suite::Fmt, suites::Suite::Lint], false, &Arguments::command()),
        Task::Chaos { arguments, no_install } => chaos::chaos(&arguments, no_install),
        Task::Soak(options) => soak::soak(&options),
        Task::World(options) => world::world(&options),
        Task::Attack(options) => attack::attack(&options),
        Task::Fuzz(options) => fuzz::fuzz(&options),
        Task::Bench { json, only } => bench::bench(json.as_deref(), &only),
        Task::Compare(options) => compare::compare(&options),
        Task::Upgrade(options) => upgrade::upgrade(&options),
        Task::Page { out, config, check_reproducible } => {
            install::ensure(&[install::Need::Npm(npm::Packages::Frontend), install::Need::Wasm], false)?;
            let out = out.map_or_else(|| Ok(page::default_folder()), std::path::absolute)?;
            let config = config.map(std::path::absolute).transpose()?;
            if check_reproducible {
                page::check_reproducible(&out, config.as_deref())
            } else {
                page::build(&out, config.as_deref())
            }
        }
        Task::Advisories => {
            install::ensure(&[install::Need::CargoDeny], false)?;
            dependencies::advisories()
        }
        Task::Sbom { out } => sbom::sbom(&out.unwrap_or_else(|| run::target_folder().join("sbom"))),
        Task::Structure { tree } => structure::print(&tree.unwrap_or_else(run::root)),
        Task::Wasm { target, out } => {
            install::ensure(&[install::Need::Npm(npm::Packages::Judges), install::Need::Wasm], false)?;
            let out = out.unwrap_or_else(|| wasm::default_folder(target));
            wasm::build(target, &out)
        }
    }
}
