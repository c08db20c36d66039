//! The paths of the programs under test, and of their helpers.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

/// The repository's root, in which cargo runs this program. It may differ from the one in which the
/// program was compiled: a target folder may have been copied. A package's folder lies in the root,
/// or in a folder of the root; the root has `nats.conf`.
#[must_use]
pub fn repository() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = manifest.ancestors().find(|folder| folder.join("nats.conf").is_file());
    root.unwrap_or(&manifest).to_path_buf()
}

/// The `duet` program: `DUET_PROGRAM`, or the one in the target folder of this program.
///
/// # Errors
/// When it has not been built.
pub fn duet() -> Result<PathBuf> {
    if let Some(program) = env::var_os("DUET_PROGRAM") {
        return existing(PathBuf::from(program), "DUET_PROGRAM names it");
    }
    let here = env::current_exe()?;
    let folder = here.ancestors().nth(1).context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    existing(folder.join("duet"), "run `cargo build --workspace --bin duet`")
}

/// The folder of the built page, if `DUET_PAGE` names one.
#[must_use]
pub fn page() -> Option<PathBuf> {
    env::var_os("DUET_PAGE").map(PathBuf::from).filter(|folder| folder.join("index.html").is_file())
}

/// The local Ethereum node, from the npm packages of `tests/js`.
///
/// # Errors
/// When it has not been installed.
pub fn anvil() -> Result<PathBuf> {
    let processor = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("there is no anvil for {other}"),
    };
    let system = if env::consts::OS == "macos" { "darwin" } else { env::consts::OS };
    let package = format!("tests/js/node_modules/@foundry-rs/anvil-{system}-{processor}/bin/anvil");
    existing(repository().join(package), "run `cargo xtask install`")
}

/// The script with which ethers and viem verify signatures.
///
/// # Errors
/// When the npm packages have not been installed.
pub fn judges() -> Result<PathBuf> {
    existing(repository().join("tests/js/node_modules/viem"), "run `cargo xtask install`")?;
    Ok(repository().join("tests/js/verify.mjs"))
}

fn existing(path: PathBuf, remedy: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: {remedy}", path.display());
    }
    Ok(path)
}
