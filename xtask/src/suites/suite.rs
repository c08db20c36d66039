//! One suite of the test command: what it needs, and what it runs.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    demo, dependencies,
    install::{self, Need},
    npm::Packages,
    page,
    programs::{self, Profile},
    prose,
    run::{Counts, cargo, command, root, target_folder, tests, visibly},
    structure, wasm, world,
};

use super::native::{self, TestPostgres, nextest};

/// A suite of the test command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Suite {
    /// Formatting of every crate, circles of files, prose and links, the columns that SQL names,
    /// and the subjects of commits.
    Fmt,
    /// Clippy over all code of the workspace. Warnings are errors.
    Lint,
    /// Licences, banned crates, sources and hashes of dependencies.
    Deny,
    /// The native binary, every test, the demonstration, the page, and the types of the page.
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

/// The tests of all crates but those that start the program `duet`.
const UNIT: &[&str] = &["--workspace"];
/// The end-to-end tests, which run only by name. The whole workspace, as for the unit tests: the
/// features match, and nothing is built again.
const E2E: &[&str] = &["--workspace", "--test", "e2e", "--test", "gateway"];

impl Suite {
    /// Whether it uses no port, file or build folder of the tests in Rust, so that it may run
    /// beside them.
    pub(super) const fn runs_beside(self) -> bool {
        matches!(self, Self::Wasm | Self::Browser)
    }

    /// Whether others may run beside it.
    pub(super) const fn leaves_room(self) -> bool {
        matches!(self, Self::Unit | Self::E2e)
    }

    /// The seconds that it may take on two cores with its dependencies compiled. A suite over its
    /// line is reported, and does not fail: machines differ.
    pub(super) const fn line_seconds(self) -> u64 {
        match self {
            Self::Fmt => 20,
            Self::Lint => 100,
            Self::Deny => 10,
            Self::Build => 240,
            Self::Unit => 330,
            Self::Wasm => 120,
            Self::E2e => 530,
            Self::Browser => 600,
        }
    }

    pub(super) const fn name(self) -> &'static str {
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

    pub(super) const fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt => &[Need::Lints, Need::Npm(Packages::Frontend)],
            Self::Lint => &[Need::Lints, Need::Compiler],
            Self::Deny => &[Need::CargoDeny],
            Self::Build => &[Need::Compiler, Need::Nextest, Need::Wasm, Need::Npm(Packages::Frontend)],
            // Some crates' own tests need a real broker or a real database.
            Self::Unit => &[Need::Compiler, Need::Nextest, Need::NatsServer, Need::Postgres, Need::Nginx],
            Self::Wasm => &[Need::Npm(Packages::Judges), Need::Npm(Packages::Frontend), Need::Wasm],
            Self::E2e => &[
                Need::Compiler,
                Need::Nextest,
                Need::Npm(Packages::Judges),
                Need::NatsServer,
                Need::Postgres,
                Need::Faketime,
                Need::Documented,
            ],
            Self::Browser => BROWSER,
        }
    }

    pub(super) fn run(self, counts: &mut Counts, program: &clap::Command) -> Result<()> {
        match self {
            Self::Fmt => {
                visibly(cargo().args(["fmt", "--all", "--check"]))?;
                visibly(cargo().args(["fmt", "--check", "--manifest-path", "crates/bindgen/Cargo.toml"]))?;
                let mut prettier = command("node");
                prettier.arg("frontend-wasm/node_modules/prettier/bin/prettier.cjs");
                visibly(prettier.args(["--check", "--log-level=warn", "."]))?;
                structure::check(&root())?;
                world::check_patches()?;
                prose::check(program)
            }
            Self::Lint => {
                // `--all-targets` leaves out the end-to-end tests, which run only by name.
                for targets in [&["--all-targets"][..], &["--test", "e2e", "--test", "gateway"]] {
                    let mut clippy = cargo();
                    clippy.args(["clippy", "--locked", "--workspace"]).args(targets);
                    visibly(clippy.args(["--", "--deny", "warnings"]))?;
                }
                Ok(())
            }
            Self::Deny => dependencies::check(),
            Self::Build => {
                programs::duet(Profile::Debug)?;
                programs::of_tests("browser-stack", Profile::Debug)?;
                for selection in [UNIT, E2E] {
                    visibly(nextest("run")?.arg("--no-run").args(selection))?;
                }
                // The demonstration, whose `duet` has fewer features. Its profile would compile
                // every dependency's build script again.
                visibly(cargo().args(["check", "--locked"]).args(demo::SELECTION))?;
                // For users who build without GMP.
                visibly(cargo().args(["check", "--locked", "--all-targets"]).args(WITHOUT_GMP))?;
                wasm::build(wasm::Target::Nodejs, &wasm::default_folder(wasm::Target::Nodejs))?;
                page::build(&page::default_folder(), None)?;
                page::build_examples()?;
                page::check_types()
            }
            Self::Unit => {
                native::run(UNIT, &TestPostgres::start()?, counts)?;
                tests(cargo().args(["test", "--locked", "--workspace", "--doc"]), counts)
            }
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
                let postgres = TestPostgres::start()?;
                let mut nextest = nextest("run")?;
                nextest.args(E2E).env("DUET_PROGRAM", programs::duet(Profile::Debug)?);
                // These tests wait much of the time: with three for two cores, two fifths of the
                // processor were idle.
                native::set_threads(&mut nextest, 4);
                tests(postgres.tell(&mut nextest), counts)
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
