//! `cargo xtask test`: runs the suites of continuous integration, all of them or the named ones.

use std::{
    env, fs,
    num::NonZeroUsize,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    demo, dependencies,
    install::{self, Need},
    npm::Packages,
    page,
    programs::{self, Profile},
    prose,
    run::{Counts, cargo, command, human, root, target_folder, tests, visibly},
    wasm,
};

/// A suite of the test command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Suite {
    /// Formatting of every crate, prose and links, and the subjects of commits.
    Fmt,
    /// Clippy over all code of the workspace. Warnings are errors.
    Lint,
    /// Licences, banned crates, sources and hashes of dependencies.
    Deny,
    /// The native binary, the demonstration and the page, and the types of the page.
    Build,
    /// Unit, integration and documentation tests of every crate.
    Unit,
    /// The module and the signer's package under Node.
    Wasm,
    /// End-to-end: real broker, real processes, real Ethereum node, independent verification.
    E2e,
    /// The page in a real browser, against the same real stack.
    Browser,
}

/// The protocol with the constant-time arithmetic alone.
const WITHOUT_GMP: [&str; 3] = ["--package", "duet-protocol", "--no-default-features"];

const ALL: &[Suite] = &[
    Suite::Fmt,
    Suite::Lint,
    Suite::Deny,
    Suite::Build,
    Suite::Unit,
    Suite::Wasm,
    Suite::E2e,
    Suite::Browser,
];

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Lint => "lint",
            Self::Deny => "deny",
            Self::Build => "build",
            Self::Unit => "unit",
            Self::Wasm => "wasm",
            Self::E2e => "e2e",
            Self::Browser => "browser",
        }
    }

    const fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt => &[Need::Lints],
            Self::Lint => &[Need::Lints, Need::Compiler],
            Self::Deny => &[Need::CargoDeny],
            Self::Build => &[Need::Compiler, Need::Wasm, Need::Npm(Packages::Frontend)],
            // Some crates' own tests need a real broker or a real database.
            Self::Unit => &[Need::Compiler, Need::NatsServer, Need::Postgres],
            Self::Wasm => &[Need::Npm(Packages::Judges), Need::Npm(Packages::Frontend), Need::Wasm],
            Self::E2e => &[
                Need::Compiler,
                Need::Npm(Packages::Judges),
                Need::NatsServer,
                Need::Postgres,
                Need::Faketime,
                Need::Documented,
                Need::Nginx,
            ],
            Self::Browser => BROWSER,
        }
    }

    fn run(self, counts: &mut Counts) -> Result<()> {
        match self {
            Self::Fmt => {
                visibly(cargo().args(["fmt", "--all", "--check"]))?;
                visibly(cargo().args(["fmt", "--check", "--manifest-path", "crates/bindgen/Cargo.toml"]))?;
                prose::check()
            }
            Self::Lint => {
                // `--all-targets` leaves out the end-to-end tests, which run only by name.
                for targets in [&["--all-targets"][..], &["--test", "e2e"]] {
                    let mut clippy = cargo();
                    clippy.args(["clippy", "--locked", "--workspace"]).args(targets);
                    visibly(clippy.args(["--", "--deny", "warnings"]))?;
                }
                Ok(())
            }
            Self::Deny => dependencies::check(),
            Self::Build => {
                programs::duet(Profile::Debug)?;
                // The demonstration, and what its `duet` refuses because it was left out.
                let mut demo = cargo();
                demo.args(["test", "--locked"]).args(demo::BUILD);
                tests(demo.args(["--bins", "--", "is_refused"]), counts)?;
                // For users who build without GMP.
                visibly(cargo().args(["check", "--locked", "--all-targets"]).args(WITHOUT_GMP))?;
                page::build(&page::default_folder(), None)?;
                page::build_examples()?;
                page::check_types()
            }
            Self::Unit => tests(cargo().args(["test", "--locked", "--no-fail-fast", "--workspace"]), counts),
            Self::Wasm => {
                let folder = wasm::default_folder(wasm::Target::Nodejs);
                wasm::build(wasm::Target::Nodejs, &folder)?;
                let mut node = node_test();
                node.env("DUET_WASM_PACKAGE", &folder);
                tests(node.args(test_files("frontend-wasm/tests")?), counts)?;
                page::build_signer()?;
                // The package's tests, and the comparison with other libraries, read payloads with
                // the module.
                for tested in ["frontend-wasm/signer/tests", "tests/js/differential"] {
                    let mut node = node_test();
                    node.env("DUET_WASM_PACKAGE", &folder);
                    tests(node.args(test_files(tested)?), counts)?;
                }
                Ok(())
            }
            Self::E2e => {
                tests(node_test().args(test_files("tests/js")?), counts)?;
                let mut cargo = cargo();
                cargo.env("DUET_PROGRAM", programs::duet(Profile::Debug)?);
                // One and a half times as many as cores, because these tests wait much of the time.
                let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
                if env::var_os("RUST_TEST_THREADS").is_none() {
                    cargo.env("RUST_TEST_THREADS", (cores + cores / 2).to_string());
                }
                // The whole workspace, as for the unit tests: the features match, and nothing is
                // built again.
                tests(cargo.args(["test", "--locked", "--workspace", "--test", "e2e"]), counts)
            }
            Self::Browser => {
                page::build(&page::default_folder(), None)?;
                page::build_examples()?;
                let mut node = node_test();
                browser_environment(&mut node, Profile::Debug)?;
                tests(node.args(test_files("tests/browser")?), counts)
            }
        }
    }
}

/// What tests and measurements of the page in a browser require.
pub(crate) const BROWSER: &[Need] = &[
    Need::Compiler,
    Need::Npm(Packages::Judges),
    Need::Npm(Packages::Frontend),
    Need::Npm(Packages::Browser),
    Need::NatsServer,
    Need::Wasm,
    Need::Chromium,
];

/// Builds the program of `profile` and the program that starts the browser's stack. Tells `command`
/// where they are. The page must be built already.
pub(crate) fn browser_environment(command: &mut Command, profile: Profile) -> Result<()> {
    let duet = programs::duet(profile)?;
    let stack = programs::of_tests("browser-stack", Profile::Debug)?;
    // The tests read a backup as the page does, to learn which bytes must not appear anywhere in
    // the clear.
    let module = wasm::default_folder(wasm::Target::Nodejs);
    wasm::build(wasm::Target::Nodejs, &module)?;
    let chromium = install::chromium().context("Chromium is missing: run `cargo xtask install`")?;
    command
        .env("DUET_PROGRAM", duet)
        .env("DUET_BROWSER_STACK", stack)
        .env("DUET_PAGE", page::default_folder())
        .env("DUET_WASM_PACKAGE", module)
        .env("DUET_BROWSER_RESULTS", target_folder().join("browser"))
        .env("CHROMIUM", chromium);
    println!("With these settings:");
    for (name, value) in command.get_envs() {
        println!("  {}='{}'", name.display(), value.unwrap_or_default().display());
    }
    Ok(())
}

/// Node's test runner, with the reporter whose closing lines are counted.
fn node_test() -> Command {
    let mut node = command("node");
    node.args(["--test", "--test-reporter=tap"]);
    node
}

/// The `*.test.mjs` files of a folder. A folder without any is a mistake, and not a success.
fn test_files(folder: &str) -> Result<Vec<String>> {
    let mut files: Vec<String> = fs::read_dir(root().join(folder))
        .with_context(|| format!("{folder} cannot be read"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".test.mjs"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    if files.is_empty() {
        bail!("{folder} holds no *.test.mjs");
    }
    files.sort();
    Ok(files)
}

/// Runs the named suites to the end, or all suites. Then prints a summary.
pub(crate) fn test(suites: &[Suite], no_install: bool) -> Result<()> {
    let suites = if suites.is_empty() { ALL } else { suites };
    let mut needs: Vec<Need> = Vec::new();
    for need in suites.iter().flat_map(|suite| suite.needs()) {
        if !needs.contains(need) {
            needs.push(*need);
        }
    }
    install::ensure(&needs, no_install)?;

    let started = Instant::now();
    let mut counts = Counts::default();
    let mut reports: Vec<(Suite, Duration, Counts, Result<()>)> = Vec::new();
    for &suite in suites {
        println!("\n=== {} ===", suite.name());
        let started = Instant::now();
        let mut own = Counts::default();
        let result = suite.run(&mut own);
        if let Err(error) = &result {
            println!("{} failed: {error:#}", suite.name());
        }
        counts += own;
        reports.push((suite, started.elapsed(), own, result));
    }

    println!("\n=== summary ===");
    for (suite, duration, own, result) in &reports {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        let tests = match own.passed + own.failed + own.skipped {
            0 => String::new(),
            _ => format!("  {} passed, {} failed, {} skipped", own.passed, own.failed, own.skipped),
        };
        println!("{:<8} {verdict:<7} {:>13}{tests}", suite.name(), human(*duration));
    }
    println!("{:<8} {:<7} {:>13}", "total", "", human(started.elapsed()));
    let failures = reports.iter().filter(|(.., result)| result.is_err()).count();
    if counts != Counts::default() {
        println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    }
    if failures > 0 {
        bail!("{failures} of {} suites failed", reports.len());
    }
    Ok(())
}
