//! Tells the program from which commit it is built: `DUET_COMMIT`, or what Git says of the sources.

use std::{env, process::Command};

/// What Git answers.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|answer| !answer.is_empty())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DUET_COMMIT");
    // Sources without a repository, as in an image's build, have no commit unless they are told.
    let given = env::var("DUET_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        // Each commit and each checkout adds a line to this log.
        if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
            println!("cargo::rerun-if-changed={log}");
        }
        git(&["rev-parse", "--short=12", "HEAD"])
    });
    println!("cargo::rustc-env=DUET_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}
