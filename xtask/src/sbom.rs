//! `cargo xtask sbom`: writes bills of materials as CycloneDX 1.5 documents. One covers the
//! programs and the browser's module, from cargo's resolution of its lock file. The other covers
//! the page and the signer's package, from npm's lock file.
//!
//! `npm sbom` does not serve: it refuses a workspace whose root package has no version. Ours has
//! none, because it is never published.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};

use crate::run::{cargo, output, root};

/// The delivered crates: the command, and the browser's module.
const DELIVERED: [&str; 2] = ["duet", "duet-frontend-wasm"];

/// Writes both documents into `folder`.
pub(crate) fn sbom(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let lockfile = fs::read_to_string(root().join("Cargo.lock"))?;
    let document = bill(&metadata, &checksums(&lockfile))?;
    write(&folder.join("duet.cdx.json"), &document)?;
    let lockfile = fs::read(root().join("frontend-wasm/package-lock.json"))?;
    write(&folder.join("frontend.cdx.json"), &npm_bill(&serde_json::from_slice(&lockfile)?)?)
}

fn write(file: &Path, document: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(document)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let components = document.get("components").and_then(Value::as_array).map_or(0, Vec::len);
    println!("{components} components written to {}", file.display());
    Ok(())
}

fn document(name: &str, components: Vec<Value>, dependencies: Option<Vec<Value>>) -> Value {
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": name, "bom-ref": name } },
        "components": components,
    });
    if let (Some(fields), Some(dependencies)) = (document.as_object_mut(), dependencies) {
        fields.insert("dependencies".to_owned(), dependencies.into());
    }
    document
}

/// The SHA-256 of each crate's archive, by name and version, from Cargo.lock.
fn checksums(lockfile: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lockfile.split("[[package]]") {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_start_matches(" = ").trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

/// The document for everything that the delivered crates are built from, without the dependencies
/// of tests.
fn bill(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let list =
        |pointer: &str| metadata.pointer(pointer).and_then(Value::as_array).context("cargo's metadata");
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let packages: BTreeMap<String, &Value> =
        list("/packages")?.iter().filter_map(|package| Some((text(package, "id")?, package))).collect();
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in list("/resolve/nodes")? {
        let dependencies = node.get("deps").and_then(Value::as_array).into_iter().flatten();
        let built = dependencies.filter(|dependency| {
            let kinds = dependency.get("dep_kinds").and_then(Value::as_array).into_iter().flatten();
            kinds.into_iter().any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"))
        });
        let id = text(node, "id").context("a node has an id")?;
        edges.insert(id, built.filter_map(|dependency| text(dependency, "pkg")).collect());
    }
    let mut reached = BTreeSet::new();
    let delivered = |id: &&String| {
        packages
            .get(*id)
            .and_then(|package| text(package, "name"))
            .is_some_and(|name| DELIVERED.contains(&&*name))
    };
    let mut waiting: Vec<String> = packages.keys().filter(delivered).cloned().collect();
    while let Some(id) = waiting.pop() {
        if reached.insert(id.clone()) {
            waiting.extend(edges.get(&id).into_iter().flatten().cloned());
        }
    }
    let reference = |id: &String| -> Option<String> {
        let package = packages.get(id)?;
        Some(format!("pkg:cargo/{}@{}", text(package, "name")?, text(package, "version")?))
    };
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &reached {
        let package = packages.get(id).context("a node is a package")?;
        let (name, version) =
            (text(package, "name").unwrap_or_default(), text(package, "version").unwrap_or_default());
        let purl = reference(id).context("a package has a name and a version")?;
        let mut component = json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        });
        if let Some(fields) = component.as_object_mut() {
            if let Some(licence) = text(package, "license") {
                // Cargo still accepts a slash for OR.
                let licence = licence.replace('/', " OR ");
                fields.insert("licenses".to_owned(), json!([{ "expression": licence }]));
            }
            if let Some(checksum) = checksums.get(&(name, version)) {
                fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": checksum }]));
            }
        }
        components.push(component);
        let needs: BTreeSet<String> = edges.get(id).into_iter().flatten().filter_map(reference).collect();
        dependencies.push(json!({ "ref": purl, "dependsOn": needs }));
    }
    Ok(document("duet", components, Some(dependencies)))
}

/// The document for the packages in npm's lock file that the bundles contain, without those of
/// builds and tests.
fn npm_bill(lockfile: &Value) -> Result<Value> {
    let packages = lockfile.get("packages").and_then(Value::as_object).context("npm's lockfile")?;
    let mut components = Vec::new();
    for (path, package) in packages {
        // Our own packages are not in `node_modules`. Links to them have no archive.
        let Some((_, name)) = path.rsplit_once("node_modules/") else { continue };
        let text = |key: &str| package.get(key).and_then(Value::as_str);
        let (Some(version), Some(integrity)) = (text("version"), text("integrity")) else { continue };
        if package.get("dev") == Some(&Value::Bool(true)) {
            continue;
        }
        // Package URLs escape the @ of a scope.
        let purl = format!("pkg:npm/{}@{version}", name.replace('@', "%40"));
        let digest = integrity.strip_prefix("sha512-").and_then(|digest| Base64::decode_vec(digest).ok());
        let digest = digest.with_context(|| format!("{name} has no SHA-512"))?;
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut component = json!({
            "type": "library", "bom-ref": path, "name": name, "version": version, "purl": purl,
            "hashes": [{ "alg": "SHA-512", "content": digest }],
        });
        if let (Some(fields), Some(licence)) = (component.as_object_mut(), text("license")) {
            fields.insert("licenses".to_owned(), json!([{ "expression": licence }]));
        }
        components.push(component);
    }
    Ok(document("duet-frontend", components, None))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{bill, checksums, npm_bill};

    #[test]
    fn what_is_built_is_listed_with_its_hash_and_what_only_tests_use_is_not() {
        let lockfile = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"duet\"\nversion = \"0.1.0\"\n";
        let sums = checksums(lockfile);
        assert_eq!(sums, BTreeMap::from([(("a".to_owned(), "1.0.0".to_owned()), "00ff".to_owned())]));
        let package = |name: &str, version: &str| json!({"id": name, "name": name, "version": version, "license": "MIT/Apache-2.0"});
        let metadata = json!({
            "packages": [package("duet", "0.1.0"), package("a", "1.0.0"), package("t", "2.0.0")],
            "resolve": { "nodes": [
                { "id": "duet", "deps": [
                    { "pkg": "a", "dep_kinds": [{ "kind": null }, { "kind": "dev" }] },
                    { "pkg": "t", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "a", "deps": [] },
                { "id": "t", "deps": [] },
            ] },
        });
        let document = bill(&metadata, &sums).unwrap();
        let names: Vec<_> = document["components"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["a", "duet"]);
        assert_eq!(document["components"][0]["hashes"][0]["content"], "00ff");
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(
            document["dependencies"][1],
            json!({ "ref": "pkg:cargo/duet@0.1.0", "dependsOn": ["pkg:cargo/a@1.0.0"] })
        );
    }

    #[test]
    fn packages_of_the_page_are_listed_and_its_tools_are_not() {
        let lockfile = json!({ "packages": {
            "": { "name": "duet-frontend" },
            "page": { "version": "0.1.0" },
            "node_modules/@scope/used": { "version": "1.2.3", "integrity": "sha512-AP8=", "license": "MIT" },
            "node_modules/tool": { "version": "1.0.0", "integrity": "sha512-AP8=", "dev": true },
        }});
        let document = npm_bill(&lockfile).unwrap();
        let components = document["components"].as_array().unwrap();
        assert_eq!(components.len(), 1);
        assert_eq!(components[0]["purl"], "pkg:npm/%40scope/used@1.2.3");
        assert_eq!(components[0]["hashes"][0]["content"], "00ff");
    }
}
