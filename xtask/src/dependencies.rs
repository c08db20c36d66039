//! Checks the sources, licences and known vulnerabilities of dependencies. `cargo deny` checks
//! cargo's. Lock files and `npm audit` serve for npm's.

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    install,
    npm::Packages,
    run::{command, visibly},
};

/// The only permitted source of npm's packages.
const REGISTRY: &str = "https://registry.npmjs.org/";

/// The permitted licences of npm's packages: those that `deny.toml` permits, and `0BSD`.
const LICENCES: [&str; 7] = ["0BSD", "Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Unlicense"];

/// How long a database may take to answer.
const PATIENCE: [(&str, &str); 4] = [
    ("GIT_HTTP_LOW_SPEED_LIMIT", "1000"),
    ("GIT_HTTP_LOW_SPEED_TIME", "20"),
    ("npm_config_fetch_timeout", "20000"),
    ("npm_config_fetch_retries", "1"),
];

/// Checks licences, banned packages, sources and hashes.
///
/// # Errors
/// When a dependency breaks a rule.
pub(crate) fn check() -> Result<()> {
    let arguments = ["--log-level", "error", "check", "bans", "licenses", "sources"];
    visibly(command(deny()?).args(arguments))?;
    for packages in Packages::ALL {
        let file = packages.path().join("package-lock.json");
        let lock = serde_json::from_slice(&fs::read(&file)?).with_context(|| file.display().to_string())?;
        let count = check_lock(&lock).with_context(|| file.display().to_string())?;
        println!("{}: {count} packages: hash, source and licence of each", packages.folder());
    }
    Ok(())
}

/// Compares locked packages with the advisories of RustSec and npm. Checks both in any case.
///
/// # Errors
/// When an advisory applies that `deny.toml` does not exempt, or when a database cannot be asked.
pub(crate) fn advisories() -> Result<()> {
    let mut wrong = Vec::new();
    if let Err(error) = visibly(command(deny()?).args(["check", "advisories"]).envs(PATIENCE)) {
        wrong.push(format!("crates: {error:#}"));
    }
    for packages in Packages::ALL {
        let mut audit = command("npm");
        audit.args(["audit", "--json", "--package-lock-only"]).current_dir(packages.path()).envs(PATIENCE);
        let output = audit.stdin(Stdio::null()).stderr(Stdio::null()).output().context("npm")?;
        match vulnerable(&serde_json::from_slice(&output.stdout).unwrap_or_default()) {
            Ok(found) if found.is_empty() => println!("{}: npm knows of nothing", packages.folder()),
            Ok(found) => wrong.push(format!("{}: {}", packages.folder(), found.join(", "))),
            Err(error) => wrong.push(format!("{}: not compared: {error}", packages.folder())),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn deny() -> Result<PathBuf> {
    install::cargo_deny().context("cargo-deny is missing: run `cargo xtask install`")
}

/// Checks every package of a lock file. Returns their number.
fn check_lock(lock: &Value) -> Result<usize> {
    ensure!(lock.get("lockfileVersion") == Some(&Value::from(3)), "not a lock file of version 3");
    let packages = lock.get("packages").and_then(Value::as_object).context("no packages")?;
    let mut count = 0;
    // The other entries are the folder's own packages.
    for (name, package) in packages.iter().filter(|(name, _)| name.contains("node_modules/")) {
        if package.get("link") == Some(&Value::Bool(true)) {
            continue;
        }
        let text = |member: &str| package.get(member).and_then(Value::as_str);
        ensure!(text("integrity").is_some_and(|hash| hash.starts_with("sha512-")), "{name}: no SHA-512");
        // Without `resolved`, npm asks its configured registry.
        ensure!(text("resolved").is_none_or(|from| from.starts_with(REGISTRY)), "{name}: from elsewhere");
        let licence = text("license").with_context(|| format!("{name}: no licence"))?;
        if !is_listed(licence) {
            bail!("{name}: {licence} is not listed");
        }
        count += 1;
    }
    Ok(count)
}

/// Whether one alternative of a licence expression consists of permitted licences.
fn is_listed(licence: &str) -> bool {
    let plain = licence.trim_matches(['(', ')']);
    plain.split(" OR ").any(|all| all.split(" AND ").all(|licence| LICENCES.contains(&licence)))
}

/// The packages with advisories in the report of `npm audit --json`, and their severity. An error
/// when npm could not check.
fn vulnerable(report: &Value) -> Result<Vec<String>> {
    let Some(found) = report.get("vulnerabilities").and_then(Value::as_object) else {
        let message =
            ["/message", "/error/summary"].iter().find_map(|member| report.pointer(member)?.as_str());
        bail!("{}", message.unwrap_or("npm audit gave no report"));
    };
    let severity = |package: &Value| package.get("severity").and_then(Value::as_str).map(str::to_owned);
    let said = |(name, package)| format!("{name} ({})", severity(package).unwrap_or_default());
    Ok(found.iter().map(said).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lock(package: Value) -> Value {
        json!({"lockfileVersion": 3, "packages": {
            "": {"name": "own"}, "signer": {"version": "1"}, "node_modules/signer": {"link": true},
            "node_modules/a": package
        }})
    }

    #[test]
    fn each_thing_wrong_with_a_package_is_refused() {
        let good = json!({"integrity": "sha512-x", "resolved": "https://registry.npmjs.org/a", "license": "MIT OR GPL-3.0"});
        assert_eq!(check_lock(&lock(good.clone())).unwrap(), 1);
        let mut both = good.clone();
        both["license"] = json!("(Apache-2.0 AND MIT)");
        assert_eq!(check_lock(&lock(both)).unwrap(), 1);
        for (member, value, reason) in [
            ("integrity", Value::Null, "no SHA-512"),
            ("integrity", json!("sha1-x"), "no SHA-512"),
            ("resolved", json!("https://registry.npmjs.org.evil/a"), "from elsewhere"),
            ("resolved", json!("git+ssh://git@host/a.git"), "from elsewhere"),
            ("license", Value::Null, "no licence"),
            ("license", json!("GPL-3.0"), "not listed"),
            ("license", json!("MIT AND GPL-3.0"), "not listed"),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            let error = check_lock(&lock(bad)).unwrap_err().to_string();
            assert!(error.contains("node_modules/a") && error.contains(reason), "{error}");
        }
        let error = check_lock(&json!({"lockfileVersion": 2, "packages": {}})).unwrap_err().to_string();
        assert!(error.contains("version 3"), "{error}");
    }

    #[test]
    fn what_npm_found_is_told_from_that_it_could_not_look() {
        let none = json!({"auditReportVersion": 2, "vulnerabilities": {}});
        assert_eq!(vulnerable(&none).unwrap(), Vec::<String>::new());
        let one =
            json!({"auditReportVersion": 2, "vulnerabilities": {"ws": {"severity": "high", "via": []}}});
        assert_eq!(vulnerable(&one).unwrap(), ["ws (high)"]);
        let refused = json!({"message": "405 Method Not Allowed", "error": {"summary": ""}});
        assert!(vulnerable(&refused).unwrap_err().to_string().contains("405"));
        assert!(vulnerable(&Value::Null).is_err());
    }
}
