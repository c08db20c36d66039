//! Runs `cargo build` with one line of progress in place of Cargo's output, which it prints if the
//! build fails.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _},
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, line, probe};

/// The interval of the line on a terminal.
const ON_TERMINAL: Duration = Duration::from_secs(1);

/// The interval of the lines in a file.
const IN_FILE: Duration = Duration::from_secs(20);

/// The share of the work that must be done before an estimate is shown.
const ENOUGH: f64 = 0.03;

/// One of our crates takes as long as so many dependencies.
const WEIGHT_OF_OURS: u32 = 20;

/// Builds with these options of `cargo build`.
///
/// # Errors
/// When the build fails, after all of Cargo's output.
pub(crate) fn quietly(options: &[&str]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--locked", "--message-format", "json-render-diagnostics"]).args(options);
    let line = line(&build);
    let mut progress = Progress::new(expected(options));
    let mut child = build
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {line}"))?;
    let stdout = child.stdout.take().context("no output")?;
    let mut stderr = child.stderr.take().context("no errors")?;
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| text)
    });
    let (sender, artifacts) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(package) = compiled(&line)
                && sender.send(package).is_err()
            {
                return;
            }
        }
    });
    loop {
        match artifacts.recv_timeout(ON_TERMINAL) {
            Ok(package) => progress.add(package),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress.show();
    }
    let status = child.wait()?;
    progress.end();
    let _ = reader.join();
    if !status.success() {
        let text = errors.join().ok().context("the reader of Cargo's output ended")??;
        std::io::stderr().write_all(&text)?;
        bail!("{line}: {status}");
    }
    Ok(())
}

/// The package that a message of Cargo reports as compiled.
fn compiled(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_library =
        |kind: &Value| kind.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind != "custom-build"));
    (message.get("reason")? == "compiler-artifact" && message.pointer("/target/kind").is_some_and(is_library))
        .then(|| message.get("package_id")?.as_str().map(str::to_owned))?
}

/// The work of the whole build, from Cargo's tree of packages.
fn expected(options: &[&str]) -> Option<u32> {
    let options: Vec<&str> =
        options.iter().copied().filter(|option| !["--profile", "demo"].contains(option)).collect();
    let fixed = ["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = probe(cargo().get_program(), &[&fixed[..], &options].concat())?;
    // Cargo marks what it has listed before, and names the folder of our own packages.
    let packages: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    Some(packages.iter().filter(|package| !package.is_empty()).map(|package| weight(package)).sum())
}

/// The work of a package, from its id or its line in Cargo's tree. Both name the folder of one of
/// ours.
fn weight(package: &str) -> u32 {
    if package.starts_with("path+") || package.contains("(/") { WEIGHT_OF_OURS } else { 1 }
}

/// How far the build is.
struct Progress {
    started: Instant,
    shown: Option<Instant>,
    expected: Option<u32>,
    done: BTreeSet<String>,
    is_terminal: bool,
}

impl Progress {
    fn new(expected: Option<u32>) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self { started: Instant::now(), shown: None, expected, done: BTreeSet::new(), is_terminal }
    }

    fn add(&mut self, package: String) {
        self.done.insert(package);
    }

    /// Shows the line, if the last one is old enough.
    fn show(&mut self) {
        let interval = if self.is_terminal { ON_TERMINAL } else { IN_FILE };
        if self.shown.is_some_and(|shown| shown.elapsed() < interval) {
            return;
        }
        self.shown = Some(Instant::now());
        let done = self.done.iter().map(|package| weight(package)).sum();
        let text = describe(self.started.elapsed(), done, self.expected);
        if self.is_terminal {
            // The line erases the one before it.
            print!("\r\x1b[2K{text}");
            let _ = std::io::stdout().flush();
        } else {
            println!("{text}");
        }
    }

    fn end(&self) {
        let erase = if self.is_terminal { "\r\x1b[2K" } else { "" };
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{erase}Compiled {} packages in {seconds:.1} s.", self.done.len());
    }
}

/// The line of progress.
fn describe(elapsed: Duration, done: u32, expected: Option<u32>) -> String {
    let seconds = elapsed.as_secs();
    let share = expected.map(|expected| (f64::from(done) / f64::from(expected.max(1))).min(1.0));
    match share {
        Some(share) if share >= ENOUGH => {
            let left = elapsed.as_secs_f64() * (1.0 - share) / share;
            format!("Compiling Duet: {:.0} % after {seconds} s, about {left:.0} s more", share * 100.0)
        }
        _ => format!("Compiling Duet: {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{WEIGHT_OF_OURS, compiled, describe, weight};

    #[test]
    fn packages_are_counted_once_and_ours_weigh_more() {
        let message = |kind: &str, reason: &str| {
            format!(
                r#"{{"reason":"{reason}","package_id":"registry+x#a@1.0.0","target":{{"kind":["{kind}"]}}}}"#
            )
        };
        assert_eq!(compiled(&message("lib", "compiler-artifact")).as_deref(), Some("registry+x#a@1.0.0"));
        assert_eq!(compiled(&message("custom-build", "compiler-artifact")), None);
        assert_eq!(compiled(&message("lib", "build-script-executed")), None);
        assert_eq!(compiled("no JSON"), None);
        assert_eq!(weight("registry+x#a@1.0.0"), 1);
        assert_eq!(weight("path+file:///duet/party#duet-party@0.1.0"), WEIGHT_OF_OURS);
        assert_eq!(weight("duet-party v0.1.0 (/duet/party)"), WEIGHT_OF_OURS);
        assert_eq!(weight("serde_derive v1.0.0 (proc-macro)"), 1);
    }

    #[test]
    fn the_line_has_an_estimate_once_there_is_one() {
        let after = Duration::from_secs(30);
        assert_eq!(describe(after, 0, Some(100)), "Compiling Duet: 30 s");
        assert_eq!(describe(after, 25, Some(100)), "Compiling Duet: 25 % after 30 s, about 90 s more");
        assert_eq!(describe(after, 200, Some(100)), "Compiling Duet: 100 % after 30 s, about 0 s more");
        assert_eq!(describe(after, 25, None), "Compiling Duet: 30 s");
    }
}
