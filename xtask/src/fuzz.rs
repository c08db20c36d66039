//! `cargo xtask fuzz`: the fuzzers of `fuzz/` with libFuzzer, on the stable compiler.
//!
//! The instrumentation is that of cargo-fuzz, without a sanitizer. Sanitizers need a nightly
//! compiler, and would find little: our code has no `unsafe`. Overflow checks and assertions are
//! on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::{
    install::{self, Need},
    run::{cargo, command, line, output, root, target_folder, visibly},
};

/// Compiler flags that report coverage to libFuzzer (SanitizerCoverage).
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// The options of this task.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The targets to run; all of them by default.
    targets: Vec<String>,
    /// How long to run each target.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    minutes: f64,
    /// Add inputs that reach new code to `fuzz/corpus`, as few as reach all of it.
    #[arg(long)]
    keep: bool,
}

/// Runs each target for a while and prints the outcome. Fails when an input broke an invariant of a
/// target.
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
    // With `--target`, the flags do not apply to build scripts and macros.
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", INSTRUMENTATION);
    for name in wanted {
        build.args(["--bin", name]);
    }
    visibly(&mut build)?;
    let mut broken = Vec::new();
    let mut table = Vec::new();
    for name in wanted {
        let run = run(name, &folder, &host, options)?;
        table.push(format!(
            "{name:<12} {:>12} {:>8} {:>10} {:>8} {:>8}",
            run.executions, run.edges, run.features, run.inputs, run.findings
        ));
        if run.findings > 0 {
            broken.push(name.as_str());
        }
    }
    println!(
        "\n{:<12} {:>12} {:>8} {:>10} {:>8} {:>8}",
        "target", "executions", "edges", "features", "inputs", "findings"
    );
    for line in table {
        println!("{line}");
    }
    if !broken.is_empty() {
        bail!("broken: {}; the inputs are in {}", broken.join(", "), folder.join("artifacts").display());
    }
    Ok(())
}

/// The outcome of a target's run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    executions: u64,
    /// Edges of the control flow that the inputs reached.
    edges: u64,
    /// Edges together with their counts, and with the values compared.
    features: u64,
    /// The inputs that reach all of these.
    inputs: u64,
    /// The inputs that broke an invariant. libFuzzer stops at the first.
    findings: u64,
}

impl Run {
    /// Reads one line of libFuzzer's output.
    fn read(&mut self, line: &str) {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().unwrap_or_default();
        } else if line.contains("Test unit written to ") {
            self.findings += 1;
        } else if line.starts_with('#') {
            let mut words = line.split_whitespace();
            while let Some(word) = words.next() {
                let field = match word {
                    "cov:" => &mut self.edges,
                    "ft:" => &mut self.features,
                    "corp:" => &mut self.inputs,
                    _ => continue,
                };
                let number = words.next().and_then(|number| number.split('/').next()?.parse().ok());
                *field = number.unwrap_or(*field);
            }
        }
    }
}

fn run(name: &str, folder: &Path, host: &str, options: &Options) -> Result<Run> {
    let kept = root().join("fuzz/corpus").join(name);
    let found = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    for folder in [&kept, &found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let program = folder.join(host).join("release").join(name);
    let log = folder.join(format!("{name}.log"));
    let mut fuzzer = command(&program);
    // libFuzzer writes new inputs to the first folder, and only reads the second.
    fuzzer.arg(&found).arg(&kept);
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.arg(format!("-max_total_time={:.0}", (options.minutes * 60.0).max(1.0)));
    // An input that takes seconds or gigabytes is a finding too.
    fuzzer.args(["-timeout=60", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    println!("$ {} 2> {}", line(&fuzzer), log.display());
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = fuzzer
        .stdin(Stdio::null())
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut run = Run::default();
    String::from_utf8_lossy(&fs::read(&log)?).lines().for_each(|line| run.read(line));
    if !status.success() {
        // Count a death for any reason as a finding, even if libFuzzer wrote no input.
        run.findings = run.findings.max(1);
    } else if options.keep {
        visibly(command(&program).args(["-merge=1"]).arg(&kept).arg(&found))?;
    }
    Ok(run)
}

/// The names of the targets, from their files.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = files.flatten().map(|entry| PathBuf::from(entry.file_name()));
    let mut names: Vec<String> =
        names.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The target triple of this machine.
fn host() -> Result<String> {
    let version = output(command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Run;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let mut run = Run::default();
        for line in [
            "INFO: Seed: 3",
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 31Mb",
            "#131072\tpulse  cov: 1204 ft: 3210 corp: 321/14Kb lim: 1300 exec/s: 65536 rss: 80Mb",
            "stat::number_of_executed_units: 131072",
        ] {
            run.read(line);
        }
        let expected = Run { executions: 131_072, edges: 1204, features: 3210, inputs: 321, findings: 0 };
        assert_eq!(run, expected);
        run.read("artifact_prefix='x/'; Test unit written to x/crash-0");
        assert_eq!(run.findings, 1);
    }
}
