//! npm packages: which folders have some, whether they are installed, and how their programs are
//! run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::run::{command, root, visibly};

/// Written beside the packages once they are installed: the lock file they were installed from.
const STAMP: &str = "node_modules/.duet-lock";

/// A folder with a `package.json`, a lock file, and its packages in `node_modules`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packages {
    /// ethers, viem and MetaMask's eth-sig-util, which judge signatures, and anvil.
    Judges,
    /// What drives the browser and checks accessibility.
    Browser,
    /// The page, the signer's package, and the examples that use it.
    Frontend,
}

impl Packages {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Judges, Self::Browser, Self::Frontend];

    /// The folder, from the repository's top.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Judges => "tests/js",
            Self::Browser => "tests/browser",
            Self::Frontend => "frontend-wasm",
        }
    }

    /// What is in it, for whoever is told that it is missing.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Judges => {
                "npm packages of tests/js: ethers, viem, eth-sig-util, @foundry-rs/anvil (about 160 MB)"
            }
            Self::Browser => "npm packages of tests/browser: playwright-core, axe-core (about 20 MB)",
            Self::Frontend => "npm packages of frontend-wasm: Vite, TypeScript, what the page is made with",
        }
    }

    /// What it is for.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Judges => "independent verification, and a local Ethereum node",
            Self::Browser => "they drive the browser and judge the page's accessibility",
            Self::Frontend => "the page is built with them",
        }
    }

    /// The folder.
    pub(crate) fn path(self) -> PathBuf {
        root().join(self.folder())
    }

    /// Whether `node_modules` holds exactly what the lock file asks for.
    pub(crate) fn are_current(self) -> bool {
        let lock = fs::read(self.path().join("package-lock.json")).ok();
        lock.is_some() && lock == fs::read(self.path().join(STAMP)).ok()
    }

    /// Installs what the lock file asks for, and nothing else.
    pub(crate) fn install(self) -> Result<()> {
        // No package's script needs to run: those there are only check what npm has already
        // unpacked.
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        visibly(command("npm").args(arguments).current_dir(self.path()))?;
        fs::copy(self.path().join("package-lock.json"), self.path().join(STAMP))?;
        Ok(())
    }

    /// A command for a script of the folder's `package.json`.
    pub(crate) fn script(self, name: &str) -> Command {
        let mut npm = command("npm");
        npm.args(["run", "--silent", name]).current_dir(self.path());
        npm
    }
}

/// A command that runs a script of ours with Node.
pub(crate) fn node(script: impl AsRef<Path>) -> Command {
    let mut node = command("node");
    node.arg(script.as_ref());
    node
}
