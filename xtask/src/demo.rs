//! `cargo xtask demo`: compiles and fetches what the demonstration needs at the same time, and
//! starts it (`crates/demo`).

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    compile,
    install::{self, Need},
    npm::Packages,
    page,
    run::{command, line, target_folder},
};

/// What is fetched while Cargo compiles.
pub(crate) const FETCHED: &[Need] = &[Need::Npm(Packages::Judges), Need::NatsServer];

/// What the page needs in addition.
const OF_PAGE: &[Need] = &[Need::Npm(Packages::Frontend), Need::Wasm];

/// The program and the demonstration, without what the demonstration does not use: load generator,
/// PostgreSQL, traces. One command builds both, because another selection of packages has other
/// features, and would compile our crates again.
pub(crate) const SELECTION: [&str; 5] =
    ["--no-default-features", "--package", "duet", "--package", "duet-demo"];

/// Clock ticks in a second, in which Linux tells when a process started.
const TICKS: f64 = 100.0;

/// How the demonstration runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Stop after the last step instead of keeping everything running.
    #[arg(long)]
    once: bool,
    /// Keep wallets, stores and the chain in this folder. The next run with it goes on with them.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The port of the HTTP interface. Gateway, Ethereum node and broker take the three ports above
    /// it. All of them are free ports by default.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Also build the page, in which a browser is the device. That takes some minutes more.
    #[arg(long)]
    page: bool,
    /// Only list what is missing instead of installing it.
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn demo(options: &Options) -> Result<()> {
    let mut stages: Vec<(&str, Duration)> = Vec::new();
    stages.extend(age().map(|age| ("compiling cargo xtask", age)));
    let mut first = vec![Need::Compiler];
    if options.page {
        first.extend(OF_PAGE);
    }
    if options.no_install {
        install::ensure(&[&first, FETCHED].concat(), true)?;
    } else if !install::are_met(&first) {
        let started = Instant::now();
        install::ensure(&first, false)?;
        stages.push(("installing packages", started.elapsed()));
    }

    let started = Instant::now();
    let fetching = thread::spawn(fetch);
    let built = compile::quietly(&[&["--profile", "demo"][..], &SELECTION].concat());
    let compiled = started.elapsed();
    stages.push(("compiling Duet", compiled));
    let fetched = fetching.join().ok().context("the thread that fetches packages ended")?;
    built?;
    if let Some(took) = fetched? {
        println!("Fetched npm packages and the broker meanwhile, in {:.1} s.", took.as_secs_f64());
        stages.push(("waiting for packages", started.elapsed().saturating_sub(compiled)));
    }

    let programs = target_folder().join("demo");
    let mut demo = command(programs.join("demo"));
    demo.env("DUET_PROGRAM", programs.join("duet"));
    if options.page {
        let (folder, started) = (page::default_folder(), Instant::now());
        page::build(&folder, None)?;
        stages.push(("building the page", started.elapsed()));
        demo.env("DUET_PAGE", folder);
    }
    if options.once {
        demo.arg("--once");
    }
    if let Some(folder) = &options.keep {
        demo.arg("--keep").arg(std::path::absolute(folder)?);
    }
    if let Some(port) = options.port {
        demo.arg("--port").arg(port.to_string());
    }
    for (name, took) in stages {
        demo.arg("--stage").arg(format!("{name}={:.1}", took.as_secs_f64()));
    }
    println!();
    // It replaces this process, so that signals reach the process that has to clean up.
    let line = line(&demo);
    Err(demo.exec()).with_context(|| format!("cannot start {line}"))
}

/// Fetches what is missing of [`FETCHED`] in a process of its own, so that its output does not
/// disturb the line of progress. Returns how long that took, if anything was missing.
fn fetch() -> Result<Option<Duration>> {
    if install::are_met(FETCHED) {
        return Ok(None);
    }
    let started = Instant::now();
    let mut install = command(std::env::current_exe()?);
    let output = install.args(["install", "--demo"]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!(
            "npm packages or the broker were not installed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(Some(started.elapsed()))
}

/// How long ago the user typed the command. Cargo compiled this program in that time, and became
/// this program. `None` where the system does not tell.
fn age() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain spaces. The start is field 22.
    let start: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(uptime - start / TICKS).ok()
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_knows_its_age() {
        assert!(age().is_some_and(|age| age.as_secs() < 24 * 3600));
    }
}
