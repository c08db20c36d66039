//! `cargo xtask attack`: plays every published attack, and prints the outcome of each.
//!
//! [`rows`] lists the attacks and their tests. This module runs the tests and collects their
//! evidence: a passing test may print lines such as `evidence: bits recovered = 24; sessions = 24`.
//!
//! An attack has failed, and its row is held, when each of its tests ran and passed. A test that
//! did not run counts as a success of the attacker.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::rows::{Check, ROWS, Row, Target};
use crate::{
    install::{self, Need},
    programs::{self, Profile},
    run::{self, cargo, command, visibly},
};

/// The options of this task.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The rows to play, by name; all of them by default.
    rows: Vec<String>,
    /// Play the statistical attacks and the floods at full length.
    #[arg(long)]
    long: bool,
    /// Measure whether the time of operations reveals secrets, instead of playing attacks. Takes
    /// minutes and needs a quiet machine.
    #[arg(long, conflicts_with_all = ["rows", "long", "json", "markdown"])]
    timing: bool,
    /// Also write the table as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Also write the table as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<std::path::PathBuf>,
    /// Only list what is missing instead of installing it.
    #[arg(long)]
    no_install: bool,
}

/// The outcome of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TestResult {
    Passed,
    Failed,
}

/// The outcomes of a run of tests, by the tests' paths, and the evidence.
#[derive(Debug, Default)]
struct Report {
    results: BTreeMap<String, TestResult>,
    evidence: BTreeMap<String, Vec<(String, String)>>,
    /// The test that printed the current output.
    speaking: Option<String>,
}

impl Report {
    /// Reads one line of libtest's output.
    fn read(&mut self, line: &str) {
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let result = if result.starts_with("ok") { TestResult::Passed } else { TestResult::Failed };
            // Of several tests with one name, each must pass.
            let known = self.results.entry(name.to_owned()).or_insert(result);
            *known = (*known).max(result);
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.speaking = Some(name.to_owned());
        } else if let (Some(figures), Some(name)) = (line.strip_prefix("evidence: "), &self.speaking) {
            let figures = figures.split("; ").filter_map(|figure| figure.split_once(" = "));
            let kept = self.evidence.entry(name.clone()).or_default();
            kept.extend(figures.map(|(what, value)| (what.to_owned(), value.to_owned())));
        }
    }
}

/// Plays the attacks, prints the table, and fails if an attack succeeded.
pub(crate) fn attack(options: &Options) -> Result<()> {
    if options.timing {
        install::ensure(&[Need::Compiler], options.no_install)?;
        return visibly(cargo().args([
            "bench",
            "--locked",
            "--package",
            "duet-protocol",
            "--bench",
            "timing",
        ]));
    }
    let rows = chosen(&options.rows)?;
    let wanted = |check: &&Check| options.long || !matches!(check, Check::Tests { long: true, .. });
    let mut needs = vec![Need::Compiler];
    if rows.iter().flat_map(|row| row.checks).any(|check| matches!(check, Check::Deny(_))) {
        needs.push(Need::CargoDeny);
    }
    let tests = Wanted::of(rows.iter().flat_map(|row| row.checks).filter(wanted));
    if !tests.packages.is_disjoint(&BTreeSet::from(ON_A_BROKER)) {
        needs.push(Need::NatsServer);
    }
    if tests.packages.contains("duet-party") {
        needs.push(Need::Postgres);
    }
    install::ensure(&needs, options.no_install)?;

    let report = tests.run(options.long)?;
    let mut outcomes = Vec::new();
    for row in rows {
        outcomes.push(Outcome::of(row, row.checks.iter().filter(wanted), &report)?);
    }
    print(&outcomes);
    if let Some(file) = &options.json {
        let rows: Vec<Value> = outcomes.iter().map(Outcome::to_json).collect();
        write(file, &(serde_json::to_string_pretty(&rows)? + "\n"))?;
    }
    if let Some(file) = &options.markdown {
        write(file, &markdown(&outcomes))?;
    }
    let succeeded: Vec<&str> = outcomes.iter().filter(|o| !o.held()).map(|o| o.row.name).collect();
    if !succeeded.is_empty() {
        bail!("not held: {}", succeeded.join(", "));
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        ROWS.iter().find(|row| row.name == name).with_context(|| {
            let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            format!("no attack is called {name}; there are: {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// The package with the end-to-end tests.
const END_TO_END: &str = "duet-tests";

/// The program with the end-to-end tests. Each of their targets is a module in it.
const END_TO_END_PROGRAM: Target = Target::Test("e2e");

/// The packages whose tests start a broker.
const ON_A_BROKER: [&str; 4] = [END_TO_END, "duet-bus", "duet-gateway", "duet-orchestrator"];

/// The packages whose tests start the program `duet`.
const WITH_THE_PROGRAM: [&str; 2] = [END_TO_END, "duet-gateway"];

/// What to run: each target and each test once, even if it serves several rows.
#[derive(Default)]
struct Wanted {
    packages: BTreeSet<&'static str>,
    targets: BTreeSet<Target>,
    names: BTreeSet<String>,
}

impl Wanted {
    fn of(checks: impl Iterator<Item = &'static Check>) -> Self {
        let mut wanted = Self::default();
        for check in checks {
            if let Check::Tests { package, target, names, .. } = check {
                wanted.packages.insert(package);
                wanted.targets.insert(if package == &END_TO_END { END_TO_END_PROGRAM } else { *target });
                wanted.names.extend(names.iter().map(|name| path(package, *target, name)));
            }
        }
        wanted
    }

    fn run(&self, long: bool) -> Result<Report> {
        let mut report = Report::default();
        if self.targets.is_empty() {
            return Ok(report);
        }
        let mut test = cargo();
        // Build the whole workspace, as `cargo xtask test` does. Other tests of the same name run
        // too.
        test.args(["test", "--locked", "--no-fail-fast", "--workspace"]);
        for target in &self.targets {
            match target {
                Target::Lib => test.arg("--lib"),
                Target::Test(name) => test.args(["--test", name]),
            };
        }
        test.args(["--", "--exact", "--show-output"]).args(&self.names);
        if long {
            test.env("DUET_ATTACK_LONG", "1");
        }
        if !self.packages.is_disjoint(&BTreeSet::from(WITH_THE_PROGRAM)) {
            test.env("DUET_PROGRAM", programs::duet(Profile::Debug)?);
        }
        // The results show failed tests. A test that was cut short has no result.
        let _ = run::lines(&mut test, &mut |line| report.read(line))?;
        Ok(report)
    }
}

/// The path of a test, as `cargo test` prints it.
fn path(package: &str, target: Target, name: &str) -> String {
    match target {
        Target::Test(module) if package == END_TO_END => format!("{module}::{name}"),
        Target::Test(_) | Target::Lib => name.to_owned(),
    }
}

/// The outcome of one row.
#[derive(Debug)]
struct Outcome {
    row: &'static Row,
    /// The tests that ran and passed, or the commands that succeeded, in words.
    held: Vec<String>,
    /// The names of the others.
    broken: Vec<String>,
    evidence: Vec<(String, String)>,
}

impl Outcome {
    fn of(row: &'static Row, checks: impl Iterator<Item = &'static Check>, report: &Report) -> Result<Self> {
        let mut outcome = Self { row, held: Vec::new(), broken: Vec::new(), evidence: Vec::new() };
        for check in checks {
            match check {
                Check::Tests { package, target, names, .. } => {
                    for name in *names {
                        outcome.count(&path(package, *target, name), report);
                    }
                }
                Check::Deny(checks) => {
                    let program = install::cargo_deny().context("cargo-deny was installed")?;
                    let mut deny: Command = command(program);
                    match visibly(deny.args(["--log-level", "error", "check"]).args(*checks)) {
                        Ok(()) => outcome.held.push(format!("cargo deny check {}", checks.join(" "))),
                        Err(error) => outcome.broken.push(error.to_string()),
                    }
                }
            }
        }
        Ok(outcome)
    }

    fn count(&mut self, name: &str, report: &Report) {
        match report.results.get(name) {
            Some(TestResult::Passed) => self.held.push(in_words(name)),
            Some(TestResult::Failed) => self.broken.push(name.to_owned()),
            None => self.broken.push(format!("{name} (did not run)")),
        }
        self.evidence.extend(report.evidence.get(name).into_iter().flatten().cloned());
    }

    const fn held(&self) -> bool {
        self.broken.is_empty()
    }

    const fn word(&self) -> &'static str {
        if self.held() { "fails" } else { "SUCCEEDS" }
    }

    /// The number of tests, and their evidence. Without evidence, what the tests are about.
    fn evidence(&self) -> String {
        let tests = match self.held.len() {
            1 => "1 test".to_owned(),
            count => format!("{count} tests"),
        };
        if self.evidence.is_empty() {
            return format!("{tests}: {}", self.held.join("; "));
        }
        let figures = self.evidence.iter().map(|(what, value)| format!("{what} {value}"));
        std::iter::once(tests).chain(figures).collect::<Vec<_>>().join(", ")
    }

    fn to_json(&self) -> Value {
        let evidence: Vec<Value> =
            self.evidence.iter().map(|(what, value)| json!({"what": what, "value": value})).collect();
        json!({
            "name": self.row.name,
            "attack": self.row.attack,
            "source": self.row.source,
            "outcome": self.word(),
            "tests_held": self.held,
            "tests_broken": self.broken,
            "evidence": evidence,
        })
    }
}

/// A test's name as words: `a::range_proof__should_hold` becomes "range proof should hold".
fn in_words(name: &str) -> String {
    name.rsplit("::").next().unwrap_or(name).replace("__", " ").replace('_', " ")
}

fn print(outcomes: &[Outcome]) {
    println!("\n{:<18} {:<9} evidence", "attack", "outcome");
    for outcome in outcomes {
        println!("{:<18} {:<9} {}", outcome.row.name, outcome.word(), outcome.evidence());
        println!("{:<28} {} ({})", "", outcome.row.attack, outcome.row.source);
        for broken in &outcome.broken {
            println!("{:<28} not held: {broken}", "");
        }
    }
}

fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = "| attack | source | outcome | evidence |\n|---|---|---|---|\n".to_owned();
    for outcome in outcomes {
        let Row { name, attack, source, .. } = outcome.row;
        let (word, evidence) = (outcome.word(), outcome.evidence());
        let attack = attack.replace('*', "\\*");
        text.push_str(&format!("| `{name}`: {attack} | {source} | {word} | {evidence} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::{Check, ROWS, Report, TestResult, in_words};
    use crate::run::root;

    #[test]
    fn results_and_evidence_are_read() {
        let mut report = Report::default();
        for line in [
            "running 2 tests",
            "test a::b ... ok",
            "test c ... FAILED",
            "successes:",
            "---- a::b stdout ----",
            "something else",
            "evidence: bits recovered = 24; sessions = 24",
        ] {
            report.read(line);
        }
        assert_eq!(report.results.get("a::b"), Some(&TestResult::Passed));
        assert_eq!(report.results.get("c"), Some(&TestResult::Failed));
        let figures = report.evidence.get("a::b").unwrap();
        assert_eq!(
            figures,
            &[("bits recovered", "24"), ("sessions", "24")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }

    #[test]
    fn names_of_tests_are_told_in_words() {
        assert_eq!(in_words("range::a_proof__should_hold_once"), "a proof should hold once");
    }

    /// Appends every Rust file of the repository to `text`.
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir()
                && !["target", "node_modules", ".git", ".tools"].contains(&name.to_str().unwrap())
            {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_named_test_is_there_and_every_row_has_some() {
        let mut text = String::new();
        for folder in ["cli", "crates", "gateway", "orchestrator", "party", "tests"] {
            sources(&root().join(folder), &mut text);
        }
        let mut names = BTreeSet::new();
        for row in ROWS {
            assert!(names.insert(row.name), "{} is there twice", row.name);
            assert!(!row.checks.is_empty(), "{}", row.name);
            for check in row.checks {
                let Check::Tests { names, .. } = check else { continue };
                for name in *names {
                    let function = name.rsplit("::").next().unwrap();
                    assert!(text.contains(&format!("fn {function}(")), "{name} of {}", row.name);
                }
            }
        }
    }
}
