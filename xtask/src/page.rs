//! Builds the page: a static bundle whose published hashes let a reader reproduce it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    npm::{Packages, node},
    run::{cargo, command, human, output, root, target_folder, visibly},
    wasm,
};

/// The hashes of all files in the page's folder, in the format of `sha256sum --check`.
const HASHES: &str = "SHA256SUMS";

/// The default folder of the page.
pub(crate) fn default_folder() -> PathBuf {
    target_folder().join("page")
}

/// Builds the module, the signer's package and the page. Writes the page to `out`, compressed and
/// with hashes. A deployment's `config` replaces the empty one.
pub(crate) fn build(out: &Path, config: Option<&Path>) -> Result<()> {
    if wasm::is_built() {
        return Ok(());
    }
    let started = Instant::now();
    build_signer()?;
    bundle(out, config)?;
    println!("The page in {} ({})", out.display(), human(started.elapsed()));
    Ok(())
}

/// Builds the module, and the package around it.
pub(crate) fn build_signer() -> Result<()> {
    if wasm::is_built() {
        return Ok(());
    }
    wasm::build(wasm::Target::Web, &root().join("frontend-wasm/signer/wasm"))?;
    visibly(&mut Packages::Frontend.script("build:signer"))
}

/// Builds the examples for developers, from the output of [`build_signer`].
pub(crate) fn build_examples() -> Result<()> {
    if wasm::is_built() {
        return Ok(());
    }
    visibly(&mut Packages::Frontend.script("build:examples"))
}

/// Checks the types of all TypeScript code, against the declarations of the built module.
pub(crate) fn check_types() -> Result<()> {
    visibly(Packages::Frontend.script("check").args(["--workspaces", "--if-present"]))
}

/// Builds the page alone, from the output of [`build`].
fn bundle(out: &Path, config: Option<&Path>) -> Result<()> {
    let mut vite = Packages::Frontend.script("build");
    vite.args(["--workspace", "page", "--", "--emptyOutDir", "--outDir"]).arg(out);
    visibly(&mut vite)?;
    visibly(node("xtask/publish.mjs").arg(out).args(config))
}

/// Builds the page again, from a copy of the sources in another folder, and without anything of the
/// first build. Then compares the hashes.
pub(crate) fn check_reproducible(out: &Path, config: Option<&Path>) -> Result<()> {
    build(out, config)?;
    let copy = target_folder().join("page-check/sources");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_sources(&copy)?;
    let again = copy.join("target/page");
    let mut build = cargo();
    build.args(["xtask", "page"]);
    if let Some(config) = config {
        build.arg("--config").arg(config);
    }
    build.current_dir(&copy).env_remove("CARGO_TARGET_DIR");
    visibly(&mut build)?;
    let hashes = |folder: &Path| {
        let file = folder.join(HASHES);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let (first, second) = (hashes(out)?, hashes(&again)?);
    let differing: Vec<&str> =
        first.lines().filter(|line| !second.lines().any(|other| other == *line)).collect();
    if first != second {
        bail!("built in another folder, these files are not the same:\n{}", differing.join("\n"));
    }
    println!("Built twice, in {} and in {}: all hashes are the same.", root().display(), copy.display());
    fs::remove_dir_all(copy)?;
    Ok(())
}

/// Copies the files that git tracks or would add.
fn copy_sources(folder: &Path) -> Result<()> {
    let list = output(command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    for file in list.split_terminator('\0') {
        let (from, to) = (root().join(file), folder.join(file));
        // The file was removed, but the removal is not committed yet.
        if !from.exists() {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}
