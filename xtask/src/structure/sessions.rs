//! What the parties' session code must not name: it runs in a seeded world, so the time, tasks,
//! randomness and every order come from its host.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use super::tokens::{tokens, without_tests, without_texts};

/// The session code.
const FOLDER: &str = "party/src/session";

/// The files in it that belong to a party's own process.
const ONLINE: [&str; 4] = ["cut.rs", "online.rs", "outcome.rs", "reporter.rs"];

/// What a seed cannot repeat.
const UNREPEATABLE: [&str; 11] = [
    "tokio",
    "tokio_util",
    "duet_bus",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "getrandom",
    "system_rng",
    "thread",
];

/// Fails if session code names what a seed cannot repeat.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut found = String::new();
    for entry in fs::read_dir(root.join(FOLDER)).with_context(|| format!("{FOLDER} cannot be read"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ONLINE.contains(&name.as_str()) {
            continue;
        }
        let code = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let names = without_tests(&tokens(&without_texts(&code)));
        for token in names.iter().filter(|token| UNREPEATABLE.contains(&token.as_str())) {
            found += &format!("\n  {FOLDER}/{name}: {token}");
        }
    }
    if !found.is_empty() {
        bail!("session code names what a seed cannot repeat; a host provides it:{found}");
    }
    Ok(())
}
