//! npm packages: which folders have them, whether they are installed, and how to run their
//! programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::run::{command, root, visibly};

/// A copy of the lock file from which the packages were installed, stored beside them.
const STAMP: &str = "node_modules/.duet-lock";

/// A folder with a `package.json`, a lock file, and packages in `node_modules`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packages {
    /// ethers, viem and MetaMask's eth-sig-util, which verify signatures, and anvil.
    Judges,
    /// The driver of the browser, and the accessibility checker.
    Browser,
    /// The page, the signer's package, and the examples of its use.
    Frontend,
}

impl Packages {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Judges, Self::Browser, Self::Frontend];

    /// The path of the folder, relative to the repository's root.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::Judges => "tests/js",
            Self::Browser => "tests/browser",
            Self::Frontend => "frontend-wasm",
        }
    }

    /// What the folder contains, for the message that it is missing.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Judges => {
                "npm packages of tests/js: ethers, viem, eth-sig-util, @foundry-rs/anvil (about 160 MB)"
            }
            Self::Browser => "npm packages of tests/browser: playwright-core, axe-core (about 20 MB)",
            Self::Frontend => "npm packages of frontend-wasm: Vite, TypeScript, what the page is made with",
        }
    }

    /// The purpose of the folder's packages.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Judges => "independent verification, and a local Ethereum node",
            Self::Browser => "they drive the browser and judge the page's accessibility",
            Self::Frontend => "the page is built with them",
        }
    }

    /// The absolute path of the folder.
    pub(crate) fn path(self) -> PathBuf {
        root().join(self.folder())
    }

    /// Whether `node_modules` matches the lock file.
    pub(crate) fn are_current(self) -> bool {
        let lock = fs::read(self.path().join("package-lock.json")).ok();
        lock.is_some() && lock == fs::read(self.path().join(STAMP)).ok()
    }

    /// Installs exactly the packages of the lock file.
    pub(crate) fn install(self) -> Result<()> {
        // The packages' scripts need not run: they only check what npm has unpacked.
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

/// A command that runs one of our scripts with Node.
pub(crate) fn node(script: impl AsRef<Path>) -> Command {
    let mut node = command("node");
    node.arg(script.as_ref());
    node
}
