//! `cargo xtask fuzz`: the fuzzers of `fuzz/` with libFuzzer, on the stable compiler.
//!
//! The instrumentation is the one that cargo-fuzz asks for, without a sanitizer: there is no unsafe code of ours that one
//! could watch, and those that exist need a nightly compiler. Overflow checks and assertions are on.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    install::{self, Need},
    run::{cargo, command, output, root, target_folder, visibly},
};

/// What makes a program tell libFuzzer where it goes (SanitizerCoverage).
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// What is asked of this task.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which targets; all of them by default.
    targets: Vec<String>,
    /// How long each is run.
    #[arg(long, value_name = "NUMBER", default_value_t = 60)]
    seconds: u64,
    /// Put what reaches new code into `fuzz/corpus`, as little of it as reaches everything.
    #[arg(long)]
    keep: bool,
}

/// Runs each target for a while; fails at the first input that breaks what the target holds.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    install::ensure(&[Need::Compiler], false)?;
    let known = targets()?;
    for name in &options.targets {
        if !known.contains(name) {
            bail!("no fuzz target is called {name}; there are: {}", known.join(", "));
        }
    }
    let wanted = if options.targets.is_empty() { &known } else { &options.targets };
    let host = host()?;
    let folder = target_folder().join("fuzz");
    let mut build = cargo();
    build.args(["build", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    // With `--target`, build scripts and macros are left as they are.
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", INSTRUMENTATION);
    for name in wanted {
        build.args(["--bin", name]);
    }
    visibly(&mut build)?;
    for name in wanted {
        run(name, &folder, &host, options)?;
    }
    Ok(())
}

fn run(name: &str, folder: &std::path::Path, host: &str, options: &Options) -> Result<()> {
    let kept = root().join("fuzz/corpus").join(name);
    let found = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    for folder in [&kept, &found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let program = folder.join(host).join("release").join(name);
    let mut fuzzer = command(&program);
    // New finds go into the first folder; the kept ones are only read.
    fuzzer.arg(&found).arg(&kept);
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.arg(format!("-max_total_time={}", options.seconds));
    // An input that takes seconds, or gigabytes, is a finding as well.
    fuzzer.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    visibly(&mut fuzzer)
        .with_context(|| format!("the input that breaks {name} is in {}", artifacts.display()))?;
    if options.keep {
        visibly(command(&program).args(["-merge=1"]).arg(&kept).arg(&found))?;
    }
    Ok(())
}

/// The targets, by their files.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = files.flatten().map(|entry| PathBuf::from(entry.file_name()));
    let mut names: Vec<String> =
        names.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The machine's own target.
fn host() -> Result<String> {
    let version = output(command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}
