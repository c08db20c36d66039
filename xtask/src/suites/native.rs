//! Runs the tests in Rust.

use std::{
    env,
    io::{BufRead as _, BufReader},
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{
    install,
    programs::{self, Profile},
    run::{Counts, as_cargo, command, output, tests},
};

/// The crates whose tests share keys and proofs that take a second of both cores. One process runs
/// all tests of one of their binaries, so that it makes them once.
const IN_ONE_PROCESS: [&str; 2] = ["duet-protocol", "duet-at-rest"];

/// Runs the tests of `selection`: each in a process of its own, except those of
/// [`IN_ONE_PROCESS`]. All run, whichever fail.
pub(super) fn run(selection: &[&str], postgres: &TestPostgres, counts: &mut Counts) -> Result<()> {
    let packages = IN_ONE_PROCESS.map(|name| format!("package({name})")).join(" or ");
    let mut apart = nextest("run")?;
    apart.args(selection).args(["-E", &format!("not ({packages})")]);
    // Many of them wait for a broker: with two for two cores, a quarter of the processor was idle.
    set_threads(&mut apart, 3);
    let mut results = vec![tests(postgres.tell(&mut apart), counts)];
    let mut list = nextest("list")?;
    list.args(selection).args(["--message-format", "json", "-E", &packages]);
    for mut binary in binaries(&output(&mut list)?)? {
        results.push(tests(&mut binary, counts));
    }
    results.into_iter().collect()
}

/// Has nextest run so many tests at once for each two cores, unless the environment says how many.
pub(super) fn set_threads(nextest: &mut Command, for_two_cores: usize) {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if env::var_os("NEXTEST_TEST_THREADS").is_none() {
        nextest.args(["--test-threads", &(for_two_cores * cores).div_ceil(2).to_string()]);
    }
}

/// The commands that run the test binaries of [`IN_ONE_PROCESS`], from nextest's list.
fn binaries(list: &str) -> Result<Vec<Command>> {
    let list: serde_json::Value = serde_json::from_str(list).context("nextest's list is not JSON")?;
    let suites = list.get("rust-suites").and_then(serde_json::Value::as_object);
    let text = |suite: &serde_json::Value, name: &str| {
        suite.get(name).and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    let mut commands = Vec::new();
    for suite in suites.context("nextest's list has no suites")?.values() {
        let package = text(suite, "package-name").unwrap_or_default();
        if IN_ONE_PROCESS.contains(&package.as_str()) {
            let program = text(suite, "binary-path").context("a suite of nextest's list has no program")?;
            let mut binary = command(program);
            binary.current_dir(text(suite, "cwd").context("a suite of nextest's list has no folder")?);
            commands.push(binary);
        }
    }
    if commands.len() < IN_ONE_PROCESS.len() {
        bail!("nextest lists {} test binaries of {}", commands.len(), IN_ONE_PROCESS.join(" and "));
    }
    Ok(commands)
}

/// nextest, which runs each test in a process of its own. `.config/nextest.toml` has its settings.
pub(super) fn nextest(subcommand: &str) -> Result<Command> {
    let program = install::nextest().context("cargo-nextest is missing: run `cargo xtask install`")?;
    let mut nextest = as_cargo(program);
    nextest.args(["nextest", subcommand, "--locked", "--color=never"]);
    Ok(nextest)
}

/// A PostgreSQL server for all tests of a suite. Without it each test's process starts its own.
pub(super) struct TestPostgres {
    server: Child,
    folder: String,
}

impl TestPostgres {
    pub(super) fn start() -> Result<Self> {
        let program = programs::of_tests("test-postgres", Profile::Debug)?;
        let mut server = command(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut folder = String::new();
        let stdout = server.stdout.take().context("the server's output is piped")?;
        BufReader::new(stdout).read_line(&mut folder)?;
        if folder.is_empty() {
            bail!("the tests' PostgreSQL server did not start: {}", server.wait()?);
        }
        Ok(Self { server, folder: folder.trim_end().to_owned() })
    }

    pub(super) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("DUET_TEST_POSTGRES", &self.folder)
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        // The server ends when its standard input is closed.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binaries_that_run_whole_are_found_in_a_list() {
        let suite = |package: &str, program: &str| serde_json::json!({"package-name": package, "binary-path": program, "cwd": "/"});
        let list = |suites: serde_json::Value| serde_json::json!({"rust-suites": suites}).to_string();
        let both = list(serde_json::json!({
            "a": suite("duet-protocol", "/p"),
            "b": suite("duet-party", "/q"),
            "c": suite("duet-at-rest", "/r"),
        }));
        let found: Vec<_> =
            binaries(&both).unwrap().iter().map(|found| found.get_program().to_owned()).collect();
        assert_eq!(found, ["/p", "/r"]);
        assert!(binaries(&list(serde_json::json!({"b": suite("duet-party", "/q")}))).is_err());
        assert!(binaries("no list").is_err());
    }
}
