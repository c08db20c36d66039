//! `cargo xtask bench`: runs every measurement of the repository, and prints one flat JSON object.
//! It maps a dotted name to `{"median_ms", "min_ms", "n"}`. Sizes, rates and shares have
//! `{"bytes"}`, `{"per_s"}` or `{"per_cent"}` instead.
//!
//! Criterion's benchmarks are named `<group>/<function>` in the code and `<group>.<function>` here,
//! for example `native.gmp.sign.total`. The module under Node and the stack print objects of this
//! form themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::{
    install::{self, Need},
    npm::{Packages, node},
    page,
    programs::{self, Profile},
    run::{cargo, command, output, target_folder, visibly},
    suites, wasm,
};

/// A part of the measurements.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Key generation, proofs and signing, both Paillier implementations.
    Native,
    /// A party's own decisions: authorisation, policy, and the store's charge with limit and audit
    /// record.
    Party,
    /// The browser's module under Node.
    Wasm,
    /// From submission to result through broker, orchestrator and parties; the cost of queued jobs.
    Stack,
    /// The page in Chromium, from a click to its effect.
    Browser,
    /// Finding one wallet among a million in the share store, SQLite and PostgreSQL. Runs only by
    /// name: loading the stores takes a quarter of an hour and 6 GB.
    Store,
    /// Signatures per second, and latency under load, with both curves in `target/load`.
    Load,
}

/// Figures that are not times: the member of each, and its unit.
const COUNTED: [(&str, &str); 3] = [("bytes", "bytes"), ("per_s", "/s"), ("per_cent", "%")];

/// Figures by name.
type Figures = BTreeMap<String, Value>;

pub(crate) fn bench(json_file: Option<&Path>, only: &[Part]) -> Result<()> {
    let wanted = |part| (only.is_empty() && part != Part::Store) || only.contains(&part);
    if wanted(Part::Store) || wanted(Part::Party) {
        install::ensure(&[Need::Compiler, Need::Postgres], false)?;
    }
    install::ensure(&[Need::Compiler, Need::Npm(Packages::Judges), Need::NatsServer, Need::Wasm], false)?;
    if wanted(Part::Browser) {
        install::ensure(suites::BROWSER, false)?;
    }
    let mut figures = Figures::new();
    if wanted(Part::Native) {
        let started = SystemTime::now();
        visibly(cargo().args(["bench", "--locked", "--package", "duet-protocol", "--bench", "protocol"]))?;
        figures.append(&mut criterion(&target_folder().join("criterion"), started)?);
    }
    if wanted(Part::Party) {
        let started = SystemTime::now();
        visibly(cargo().args(["bench", "--locked", "--package", "duet-party", "--bench", "store"]))?;
        figures.append(&mut criterion(&target_folder().join("criterion"), started)?);
    }
    if wanted(Part::Wasm) {
        let folder = wasm::default_folder(wasm::Target::Nodejs);
        wasm::build(wasm::Target::Nodejs, &folder)?;
        let mut node = command("node");
        node.env("DUET_WASM_PACKAGE", &folder).arg("frontend-wasm/bench.mjs");
        figures.append(&mut flat(&output(&mut node)?)?);
    }
    if wanted(Part::Stack) {
        let duet = programs::duet(Profile::Release)?;
        for program in ["stack-latency", "queue-memory"] {
            let mut measurement = command(programs::of_tests(program, Profile::Debug)?);
            measurement.env("DUET_PROGRAM", &duet);
            figures.append(&mut flat(&output(&mut measurement)?)?);
        }
    }
    if wanted(Part::Store) {
        // It measures the store in its own process.
        let program = programs::of_tests("share-store", Profile::Release)?;
        figures.append(&mut flat(&output(&mut command(program))?)?);
    }
    if wanted(Part::Browser) {
        page::build(&page::default_folder(), None)?;
        let mut browser = node("tests/browser/bench.mjs");
        suites::browser_environment(&mut browser, Profile::Release)?;
        figures.append(&mut flat(&output(&mut browser)?)?);
    }

    if wanted(Part::Load) {
        figures.append(&mut load(&figures)?);
    }

    let (counts, times): (Figures, Figures) =
        figures.clone().into_iter().partition(|(_, figure)| counted(figure).is_some());
    println!("\n{:<44} {:>11} {:>11} {:>6}", "", "median ms", "min ms", "n");
    for (name, figure) in &times {
        let number = |member: &str| figure.get(member).and_then(Value::as_f64).unwrap_or(f64::NAN);
        println!("{name:<44} {:>11.3} {:>11.3} {:>6}", number("median_ms"), number("min_ms"), number("n"));
    }
    for (name, (number, unit)) in counts.iter().filter_map(|(name, figure)| Some((name, counted(figure)?))) {
        println!("{name:<44} {number:>11} {unit}");
    }
    if let Some(file) = json_file {
        let object: Map<String, Value> = figures.into_iter().collect();
        let text = serde_json::to_string_pretty(&Value::Object(object))?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nwritten to {}", file.display());
    }
    Ok(())
}

/// Benchmarks of all cryptography of one signature, with both parties' work added up, while every
/// core makes signatures. The first is for any wallet, the second uses the responder's randomizer
/// table.
const SIGNATURE_WORK: [&str; 2] =
    ["native.gmp.sign.total.all-cores", "native.gmp.sign.total.table.all-cores"];

/// Loads a whole stack, and compares it with what the cores' cryptography alone would permit. It
/// takes that figure from `measured`, or measures it now.
fn load(measured: &Figures) -> Result<Figures> {
    let mut works: Figures = measured
        .iter()
        .filter(|(name, _)| SIGNATURE_WORK.contains(&name.as_str()))
        .map(|(name, work)| (name.clone(), work.clone()))
        .collect();
    if works.len() < SIGNATURE_WORK.len() {
        let started = SystemTime::now();
        let mut bench = cargo();
        bench.args(["bench", "--locked", "--package", "duet-protocol", "--bench", "protocol"]);
        // As a pattern: a point also matches the slash in criterion's own name.
        visibly(bench.args(["--", &format!("^({})$", SIGNATURE_WORK.join("|"))]))?;
        works = criterion(&target_folder().join("criterion"), started)?;
        works.retain(|name, _| SIGNATURE_WORK.contains(&name.as_str()));
    }
    let duet = programs::duet(Profile::Release)?;
    let mut load = command(programs::of_tests("stack-load", Profile::Debug)?);
    load.env("DUET_PROGRAM", duet);
    let folder = target_folder().join("load");
    load.arg(&folder).arg(&folder);
    for name in SIGNATURE_WORK {
        let median = works.get(name).and_then(|work| work.get("median_ms")).and_then(Value::as_f64);
        load.arg(median.with_context(|| format!("{name} was not measured"))?.to_string());
    }
    let mut figures = flat(&output(&mut load)?)?;
    figures.append(&mut works);
    Ok(figures)
}

/// The number and unit of a figure that is not a time.
fn counted(figure: &Value) -> Option<(f64, &'static str)> {
    COUNTED.iter().find_map(|(member, unit)| Some((figure.get(*member)?.as_f64()?, *unit)))
}

/// Parses the flat object that one of our benchmarks printed.
fn flat(text: &str) -> Result<Figures> {
    let figures: Figures =
        serde_json::from_str(text).with_context(|| format!("not a flat object of figures: {text}"))?;
    for (name, figure) in &figures {
        if counted(figure).is_some() {
            continue;
        }
        for member in ["median_ms", "min_ms", "n"] {
            if figure.get(member).and_then(Value::as_f64).is_none() {
                bail!("{name}: {member} is missing");
            }
        }
    }
    Ok(figures)
}

/// The figures that criterion wrote since `started`. Older ones may belong to benchmarks that no
/// longer exist.
fn criterion(folder: &Path, started: SystemTime) -> Result<Figures> {
    let mut figures = Figures::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("new") && folder.join("benchmark.json").exists() {
            if fs::metadata(folder.join("sample.json"))?.modified()? >= started {
                let (name, figure) = criterion_figure(&folder)?;
                figures.insert(name, figure);
            }
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| format!("no results in {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    if figures.is_empty() {
        bail!("criterion wrote no results");
    }
    Ok(figures)
}

/// The figure of one benchmark: name, median and minimum in milliseconds, number of samples.
fn criterion_figure(folder: &Path) -> Result<(String, Value)> {
    let read = |file: &str| -> Result<Value> {
        let path = folder.join(file);
        serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("cannot read {}", path.display()))
    };
    let benchmark = read("benchmark.json")?;
    let name = benchmark.get("full_id").and_then(Value::as_str).context("benchmark.json names no full_id")?;
    let median = read("estimates.json")?.pointer("/median/point_estimate").and_then(Value::as_f64);
    let sample = read("sample.json")?;
    let numbers = |member: &str| -> Vec<f64> {
        sample.get(member).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let each: Vec<f64> =
        numbers("times").iter().zip(numbers("iters")).map(|(time, count)| time / count).collect();
    let minimum = each.iter().copied().reduce(f64::min).context("sample.json holds no samples")?;
    let milliseconds = |nanoseconds: f64| (nanoseconds / 1e3).round() / 1e3;
    let figure = json!({
        "median_ms": milliseconds(median.context("estimates.json holds no median")?),
        "min_ms": milliseconds(minimum),
        "n": each.len(),
    });
    Ok((name.replace('/', "."), figure))
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use serde_json::json;

    use super::{criterion, flat};

    #[test]
    fn criterions_files_become_flat_figures() {
        let folder = std::env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        let new = folder.join("native.gmp/sign.total/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("benchmark.json"), r#"{"full_id": "native.gmp/sign.total"}"#).unwrap();
        fs::write(new.join("estimates.json"), r#"{"median": {"point_estimate": 14500000.0}}"#).unwrap();
        fs::write(new.join("sample.json"), r#"{"iters": [1.0, 2.0], "times": [15000000.0, 28000000.0]}"#)
            .unwrap();
        let figures = criterion(&folder, SystemTime::UNIX_EPOCH).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            figures.get("native.gmp.sign.total"),
            Some(&json!({"median_ms": 14.5, "min_ms": 14.0, "n": 2}))
        );
    }

    #[test]
    fn a_figure_without_all_its_numbers_is_refused() {
        assert!(flat(r#"{"wasm.ct.sign.p1": {"median_ms": 1.0, "min_ms": 0.9, "n": 50}}"#).is_ok());
        assert!(flat(r#"{"wasm.ct.sign.p1": {"median_ms": 1.0, "n": 50}}"#).is_err());
        assert!(flat(r#"{"browser.wasm.compressed": {"bytes": 600000}}"#).is_ok());
        assert!(flat(r#"{"load.sustained": {"per_s": 60.0}}"#).is_ok());
        assert!(flat("not json").is_err());
    }
}
