//! Builds the WebAssembly module with the toolchain that this machine has. `crates/bindgen` makes
//! its JavaScript.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::run::{self, cargo, command, human, probe, visibly};

const TRIPLE: &str = "wasm32-unknown-unknown";
/// The compiler of Debian's `rust-web-src`, which contains the standard library.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// The environment of the JavaScript around the module.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    Nodejs,
    Web,
    Bundler,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Nodejs => "nodejs",
            Self::Web => "web",
            Self::Bundler => "bundler",
        }
    }
}

/// The toolchain that compiles to wasm32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Toolchain {
    /// The toolchain that runs this task. It has the target.
    Rustup,
    /// Debian's `rustc-web` with `rust-web-src`, which builds the standard library as well.
    Debian,
}

/// The toolchain that can build for wasm32 on this machine, if there is one.
///
/// `DUET_WASM_TOOLCHAIN=debian` excludes rustup's toolchain.
pub(crate) fn toolchain() -> Option<Toolchain> {
    if !wants_debian() && rustup_has_target() {
        return Some(Toolchain::Rustup);
    }
    let sources = probe(DEBIAN_RUSTC, &["--print", "sysroot"])
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").exists());
    (sources && Path::new(DEBIAN_CARGO).exists()).then_some(Toolchain::Debian)
}

/// Whether the user asked for Debian's toolchain.
pub(crate) fn wants_debian() -> bool {
    std::env::var("DUET_WASM_TOOLCHAIN").is_ok_and(|choice| choice == "debian")
}

fn rustup_has_target() -> bool {
    probe("rustc", &["--print", "target-libdir", "--target", TRIPLE])
        .is_some_and(|folder| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()))
}

/// The default folder of a build for `target`.
pub(crate) fn default_folder(target: Target) -> PathBuf {
    run::target_folder().join("wasm").join(target.name())
}

/// A cargo command that compiles for wasm32, and its target folder.
fn cargo_for_wasm(subcommand: &str) -> Result<(Command, PathBuf)> {
    let folder = run::target_folder();
    match toolchain().context("nothing here compiles to wasm32: run `cargo xtask install`")? {
        Toolchain::Rustup => {
            let mut cargo = cargo();
            cargo.args([subcommand, "--locked", "--target", TRIPLE]);
            Ok((cargo, folder))
        }
        Toolchain::Debian => {
            let folder = folder.join("debian");
            let mut cargo = command(DEBIAN_CARGO);
            // The standard library is compiled from source, which needs unstable flags of the
            // compiler. Debian ships no linker for wasm with it, but rustup's toolchain has one.
            cargo.args([subcommand, "--locked", "--target", TRIPLE, "-Zbuild-std=std,panic_abort"]);
            cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", &folder);
            cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            if let Some(linker) = rust_lld() {
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            }
            Ok((cargo, folder))
        }
    }
}

fn rust_lld() -> Option<PathBuf> {
    let sysroot = probe("rustc", &["--print", "sysroot"])?;
    let host = probe("rustc", &["--print", "host-tuple"])?;
    let linker = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
    linker.exists().then_some(linker)
}

/// The variable that says that modules, package, page and examples were built before this process
/// began, from the same sources.
pub(crate) const BUILT_BEFORE: &str = "DUET_XTASK_BUILT";

/// Whether [`BUILT_BEFORE`] is set.
pub(crate) fn is_built() -> bool {
    std::env::var_os(BUILT_BEFORE).is_some()
}

/// The folders built since this task began. The sources do not change meanwhile. Without it, cargo
/// would link a module again after another one with other features had replaced its file.
static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Builds `frontend-wasm` with optimised cryptography, and puts the module and its JavaScript into
/// `out`. Does so once for each folder.
pub(crate) fn build(target: Target, out: &Path) -> Result<()> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if is_built() || built.contains(out) {
        return Ok(());
    }
    let started = Instant::now();
    require_matching_bindgen()?;
    let (mut cargo, folder) = cargo_for_wasm("build")?;
    cargo.args(["--package", "duet-frontend-wasm", "--lib", "--profile", "wasm"]);
    // Node runs the tests and benchmarks, which also need the other side of a session.
    if target == Target::Nodejs {
        cargo.args(["--features", "test-exports"]);
    }
    visibly(&mut cargo)?;
    let module = folder.join(TRIPLE).join("wasm/duet_frontend_wasm.wasm");

    let mut bindgen = self::bindgen();
    fs::create_dir_all(out)?;
    visibly(bindgen.arg("--").arg(&module).arg(target.name()).arg(out))?;
    // The code for Node is CommonJS, whatever the surrounding packages are.
    if target == Target::Nodejs {
        fs::write(out.join("package.json"), "{\"type\": \"commonjs\"}\n")?;
    }
    println!("WebAssembly for {} in {} ({})", target.name(), out.display(), human(started.elapsed()));
    built.insert(out.to_path_buf());
    Ok(())
}

/// A command that runs `crates/bindgen`, compiled first if necessary.
fn bindgen() -> Command {
    let mut cargo = cargo();
    cargo.args(["run", "--quiet", "--locked", "--manifest-path", "crates/bindgen/Cargo.toml"]);
    cargo.arg("--target-dir").arg(run::target_folder().join("bindgen"));
    cargo
}

/// Compiles `crates/bindgen`.
pub(crate) fn install_bindgen() -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["build", "--locked", "--manifest-path", "crates/bindgen/Cargo.toml"]);
    visibly(cargo.arg("--target-dir").arg(run::target_folder().join("bindgen")))
}

/// Whether `crates/bindgen` has been compiled.
pub(crate) fn has_bindgen() -> bool {
    run::target_folder().join("bindgen/debug/duet-bindgen").exists()
}

/// Checks that module and generator have the same version of wasm-bindgen. Their format changes
/// with every version.
fn require_matching_bindgen() -> Result<()> {
    let root = run::root();
    let ours = locked_version(&fs::read_to_string(root.join("Cargo.lock"))?, "wasm-bindgen");
    let tool = locked_version(
        &fs::read_to_string(root.join("crates/bindgen/Cargo.lock"))?,
        "wasm-bindgen-cli-support",
    );
    match (ours, tool) {
        (Some(ours), Some(tool)) if ours == tool => Ok(()),
        (ours, tool) => bail!(
            "Cargo.lock has wasm-bindgen {ours:?}, crates/bindgen has {tool:?}: set the version in crates/bindgen/Cargo.toml to match"
        ),
    }
}

/// The version of a package in a lock file.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::locked_version;

    #[test]
    fn the_version_of_a_locked_package_is_found() {
        let lock = "[[package]]\nname = \"wasm-bindgen-shared\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen").as_deref(), Some("0.2.130"));
        assert_eq!(locked_version(lock, "wasm"), None);
    }
}
