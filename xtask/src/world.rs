//! `cargo xtask world`: runs the queue's core and the parties' sessions in their seeded worlds,
//! shows that the worlds notice mutants, and measures how long the core takes for an event.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    history::check_out,
    install::{self, Need},
    run::{cargo, command, line, root, target_folder, visibly},
};

/// What the world requires.
const NEEDS: &[Need] = &[Need::Compiler];

/// A seeded world: a test program.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum World {
    /// Of the queue's core: `crates/queue/tests/world`.
    Queue,
    /// Of the parties' sessions: `party/src/world`.
    Parties,
}

impl World {
    const ALL: [Self; 2] = [Self::Queue, Self::Parties];

    /// The package, its target, and the test.
    const fn test(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            Self::Queue => (
                "duet-queue",
                &["--test", "world"],
                "every_accepted_job_ends_once_whatever_the_broker_and_the_parties_do",
            ),
            Self::Parties => (
                "duet-party",
                &["--lib"],
                "world::each_nonce_and_answer_is_used_once_and_each_job_signs_one_payload",
            ),
        }
    }

    /// The world that a patch is for.
    fn of_patch(patch: &str) -> Self {
        if patch.contains("+++ b/party/") { Self::Parties } else { Self::Queue }
    }
}

/// The measurement, in the same program.
const TIMING: &str = "how_long_the_core_takes_for_an_event";

/// Where the mutants are: patches of this tree.
const MUTANTS: &str = "tests/mutants";

#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds to run in each world, from 0 on.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Run one seed of one world alone and print what happens in it.
    #[arg(long, requires = "world", conflicts_with_all = ["seeds", "mutants"])]
    seed: Option<u64>,
    /// Run this world only. Default: both.
    #[arg(long, value_enum)]
    world: Option<World>,
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
        return mutants(options.seeds, options.world);
    }
    if options.timing {
        let mut timing = cargo();
        timing.args(["test", "--locked", "--workspace", "--test", "world", "--", "--exact", "--nocapture"]);
        timing.args([TIMING, "--ignored"]).env("DUET_WORLD_SEEDS", options.seeds.to_string());
        return visibly(&mut timing);
    }
    for world in World::ALL.into_iter().filter(|world| options.world.is_none_or(|only| only == *world)) {
        let (_, target, name) = world.test();
        let mut test = cargo();
        test.args(["test", "--locked", "--workspace"]).args(target);
        test.args(["--", "--exact", name, "--nocapture"]);
        match options.seed {
            Some(seed) => test.env("DUET_WORLD_SEED", seed.to_string()),
            None => test.env("DUET_WORLD_SEEDS", options.seeds.to_string()),
        };
        visibly(&mut test)?;
    }
    Ok(())
}

/// The patches, in the order of their names.
fn patches() -> Result<Vec<PathBuf>> {
    let mut patches: Vec<PathBuf> = fs::read_dir(root().join(MUTANTS))
        .with_context(|| format!("cannot read {MUTANTS}"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    patches.sort();
    Ok(patches)
}

/// Checks that every patch still applies to this tree.
pub(crate) fn check_patches() -> Result<()> {
    let mut stale = Vec::new();
    for patch in patches()? {
        let mut check = command("git");
        check.args(["apply", "--check"]).arg(&patch);
        if !check.output().with_context(|| format!("cannot start: {}", line(&check)))?.status.success() {
            stale.push(patch.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    ensure!(stale.is_empty(), "these patches of {MUTANTS} no longer apply: {}", stale.join(", "));
    Ok(())
}

/// Runs the world of each mutant of the last commit. Fails if one survives.
fn mutants(seeds: u64, only: Option<World>) -> Result<()> {
    let folder = target_folder().join("mutants");
    let (source, target) = (folder.join("source"), folder.join("target"));
    let mut survivors = Vec::new();
    for patch in patches()? {
        let text =
            fs::read_to_string(&patch).with_context(|| format!("{} cannot be read", patch.display()))?;
        let world = World::of_patch(&text);
        if only.is_some_and(|only| only != world) {
            continue;
        }
        let (package, targets, name_of_test) = world.test();
        check_out(&source, "HEAD")?;
        visibly(command("git").arg("-C").arg(&source).arg("apply").arg(&patch))?;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut build = mutant_test(&source, &target, package, targets);
        visibly(build.arg("--no-run"))?;
        let began = Instant::now();
        let mut test = mutant_test(&source, &target, package, targets);
        test.args(["--", "--exact", name_of_test]).env("DUET_WORLD_SEEDS", seeds.to_string());
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
    ensure!(survivors.is_empty(), "the worlds do not notice: {}", survivors.join(", "));
    Ok(())
}

/// A world's test in the tree of a mutant.
fn mutant_test(source: &Path, target: &Path, package: &str, targets: &[&str]) -> Command {
    let mut test = cargo();
    test.current_dir(source).env("CARGO_TARGET_DIR", target);
    test.args(["test", "--locked", "--package", package]).args(targets);
    test
}
