//! `cargo xtask world`: runs the core of the queue in its seeded world, shows that the world
//! notices mutants, and measures how long the core takes for an event.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    history::check_out,
    install::{self, Need},
    run::{cargo, command, line, root, target_folder, visibly},
};

/// What the world requires.
const NEEDS: &[Need] = &[Need::Compiler];

/// The test, in `crates/queue/tests/world`.
const TEST: &str = "every_accepted_job_ends_once_whatever_the_broker_and_the_parties_do";

/// The measurement, in the same program.
const TIMING: &str = "how_long_the_core_takes_for_an_event";

/// Where the mutants are: patches of this tree.
const MUTANTS: &str = "tests/mutants";

#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds to run, from 0 on.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Run one seed alone and print what happens in it.
    #[arg(long, conflicts_with_all = ["seeds", "mutants"])]
    seed: Option<u64>,
    /// Apply each patch in `tests/mutants` to the last commit, in a tree of its own, and run the
    /// seeds until one fails.
    #[arg(long)]
    mutants: bool,
    /// Measure how long the core takes for an event of these seeds. Of its dependencies only those
    /// that multiply or hash are optimised, so the shipped program is faster.
    #[arg(long, conflicts_with_all = ["seed", "mutants"])]
    timing: bool,
    /// Only list what is missing instead of installing it.
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn world(options: &Options) -> Result<()> {
    install::ensure(NEEDS, options.no_install)?;
    if options.mutants {
        return mutants(options.seeds);
    }
    let mut test = cargo();
    test.args(["test", "--locked", "--workspace", "--test", "world", "--", "--exact", "--nocapture"]);
    test.args(if options.timing { &[TIMING, "--ignored"][..] } else { &[TEST] });
    match options.seed {
        Some(seed) => test.env("DUET_WORLD_SEED", seed.to_string()),
        None => test.env("DUET_WORLD_SEEDS", options.seeds.to_string()),
    };
    visibly(&mut test)
}

/// Runs the world on each mutant of the last commit. Fails if one survives.
fn mutants(seeds: u64) -> Result<()> {
    let folder = target_folder().join("mutants");
    let (source, target) = (folder.join("source"), folder.join("target"));
    let mut patches: Vec<PathBuf> = fs::read_dir(root().join(MUTANTS))
        .with_context(|| format!("cannot read {MUTANTS}"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    patches.sort();
    let mut survivors = Vec::new();
    for patch in patches {
        check_out(&source, "HEAD")?;
        visibly(command("git").arg("-C").arg(&source).arg("apply").arg(&patch))?;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut build = mutant_test(&source, &target);
        visibly(build.arg("--no-run"))?;
        let began = Instant::now();
        let mut test = mutant_test(&source, &target);
        test.args(["--", "--exact", TEST]).env("DUET_WORLD_SEEDS", seeds.to_string());
        let run = test.output().with_context(|| format!("cannot start: {}", line(&test)))?;
        let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        let seed = said.lines().rev().find_map(|line| line.strip_prefix("seed ")?.split(' ').next());
        match seed {
            Some(seed) if !run.status.success() => {
                println!("| {name} | {seed} | {:.1} |", began.elapsed().as_secs_f64());
            }
            _ => survivors.push(name),
        }
    }
    ensure!(survivors.is_empty(), "the world does not notice: {}", survivors.join(", "));
    Ok(())
}

/// The world's test in the tree of a mutant.
fn mutant_test(source: &Path, target: &Path) -> Command {
    let mut test = cargo();
    test.current_dir(source).env("CARGO_TARGET_DIR", target);
    test.args(["test", "--locked", "--package", "duet-queue", "--test", "world"]);
    test
}
