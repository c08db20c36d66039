//! Runs other programs, and prints what it runs.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// The repository's root, in which this task runs. It may differ from the one in which the task was
/// compiled: a target folder may have been copied.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().unwrap_or(&manifest).to_path_buf()
}

/// The `cargo` that runs this task, without the variables that it set for this task. Some build
/// scripts (ring's) run again when those variables change. Then half of the dependencies would be
/// built again after each command typed by hand.
pub(crate) fn cargo() -> Command {
    as_cargo(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// As [`cargo`], for a program that itself starts Cargo.
pub(crate) fn as_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut cargo = command(program);
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// A program to start in the repository's root.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The command as a user would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints the command, runs it, and fails if it fails.
pub(crate) fn visibly(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start: {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// The command's standard output. Fails if the command fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start: {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: output is not text"))
}

/// The command's standard output, if it can be run and succeeds. Its standard error is not shown.
pub(crate) fn probe(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = command(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `95.3 s`, `2 min 05 s`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 120 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

/// The folder of cargo's build output.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The number of tests that a run executed, from its closing lines.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Of the passed ones, those that failed once and passed when they ran again.
    pub(crate) flaky: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.flaky += other.flaky;
    }
}

impl Counts {
    /// The counts in one line of a test runner's output: cargo test's `test result:`, nextest's
    /// `Summary [`, or node's `# pass 5`. A browser's scenario that passed when it ran again says
    /// `# flaky 1`.
    fn of_line(line: &str) -> Self {
        let mut counts = Self::default();
        let nextest = line.trim_start().strip_prefix("Summary [").and_then(|rest| rest.split_once(':'));
        if let Some(result) = line.strip_prefix("test result: ").or(nextest.map(|(_, result)| result)) {
            for part in result.split([';', '.', ',', '(']) {
                let mut words = part.split_whitespace();
                let (Some(number), Some(word)) =
                    (words.next().and_then(|word| word.parse().ok()), words.next())
                else {
                    continue;
                };
                match word {
                    "passed" => counts.passed = number,
                    "failed" | "timed" => counts.failed += number,
                    "ignored" | "skipped" => counts.skipped = number,
                    "flaky)" => counts.flaky = number,
                    _ => {}
                }
            }
        } else if let Some(result) = line.strip_prefix("# ") {
            let mut words = result.split_whitespace();
            if let (Some(word), Some(Ok(number)), None) =
                (words.next(), words.next().map(str::parse), words.next())
            {
                match word {
                    "pass" => counts.passed = number,
                    "fail" => counts.failed = number,
                    "skipped" => counts.skipped = number,
                    "flaky" => counts.flaky = number,
                    _ => {}
                }
            }
        }
        counts
    }
}

/// Runs a test runner, prints its output, and adds up the counts in its closing lines. Fails if it
/// fails.
pub(crate) fn tests(command: &mut Command, counts: &mut Counts) -> Result<()> {
    let line = line(command);
    let status = lines(command, &mut |text| *counts += Counts::of_line(text))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Runs a command, prints its standard output and error, and passes each line to `read`.
pub(crate) fn lines(command: &mut Command, read: &mut dyn FnMut(&str)) -> Result<ExitStatus> {
    let line = line(command);
    println!("$ {line}");
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start: {line}"))?;
    // The command keeps this process's ends of the pipe open until they are replaced.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for text in BufReader::new(reader).split(b'\n') {
        let text = text?;
        let text = String::from_utf8_lossy(&text);
        println!("{text}");
        read(&text);
    }
    Ok(child.wait()?)
}

#[cfg(test)]
mod unit_tests {
    use super::Counts;

    #[test]
    fn closing_lines_are_counted() {
        let cargo = "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.53s";
        assert_eq!(Counts::of_line(cargo), Counts { passed: 12, failed: 1, skipped: 2, flaky: 0 });
        let nextest = "     Summary [ 577.214s] 526/617 tests run: 523 passed (1 slow, 2 flaky), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(Counts::of_line(nextest), Counts { passed: 523, failed: 3, skipped: 4, flaky: 2 });
        let one = "     Summary [   7.214s] 5 tests run: 5 passed (1 flaky), 0 skipped";
        assert_eq!(Counts::of_line(one), Counts { passed: 5, failed: 0, skipped: 0, flaky: 1 });
        assert_eq!(Counts::of_line("# flaky 1"), Counts { flaky: 1, ..Counts::default() });
        assert_eq!(Counts::of_line("# pass 5"), Counts { passed: 5, failed: 0, skipped: 0, flaky: 0 });
        assert_eq!(Counts::of_line("# Subtest: pass 5"), Counts::default());
        assert_eq!(Counts::of_line("test a::b ... ok"), Counts::default());
    }
}
