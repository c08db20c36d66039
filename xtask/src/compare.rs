//! `cargo xtask compare COMMIT`: measures throughput and latency of another commit's build and of
//! this one, in turn in one run.
//!
//! Each commit's own harness starts its own programs. The rounds alternate, and every second round
//! begins with the other build. So a machine that changes its speed affects both builds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value};

use crate::{
    history::check_out,
    install::{self, Need},
    npm::Packages,
    run::{cargo, command, output, root, target_folder, visibly},
};

/// The options of the comparison.
#[derive(Args)]
pub(crate) struct Options {
    /// The commit to compare this tree with.
    commit: String,
    /// The number of rounds. The comparison uses the medians of the rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
}

/// The measuring programs, each with its arguments except the folder of reports.
const MEASUREMENTS: [(&str, &[&str]); 2] = [("stack-latency", &[]), ("stack-load", &["--saturated"])];

/// A source tree, and cargo's target folder for it.
struct Build {
    name: &'static str,
    source: PathBuf,
    target: PathBuf,
    /// The values of each figure, one for each round.
    figures: BTreeMap<String, Vec<f64>>,
}

pub(crate) fn compare(options: &Options) -> Result<()> {
    install::ensure(&[Need::Compiler, Need::Npm(Packages::Judges), Need::NatsServer], false)?;
    let folder = target_folder().join("compare");
    let source = folder.join("source");
    check_out(&source, &options.commit)?;
    let mut builds = [
        Build { name: "before", source, target: folder.join("target"), figures: BTreeMap::new() },
        Build { name: "after", source: root(), target: target_folder(), figures: BTreeMap::new() },
    ];
    for build in &builds {
        build.compile()?;
    }
    for round in 1..=options.rounds {
        builds.reverse();
        for (program, arguments) in MEASUREMENTS {
            for build in &mut builds {
                println!("round {round} of {}: {program}, {}", options.rounds, build.name);
                build.measure(&folder, program, arguments)?;
            }
        }
    }
    builds.sort_by_key(|build| build.name != "before");
    let [before, after] = &builds;
    println!("\n| figure | before | after | after / before |\n|---|---|---|---|");
    for (name, values) in &before.figures {
        let Some(others) = after.figures.get(name) else { continue };
        let (old, new) = (median(values)?, median(others)?);
        println!("| `{name}` | {old:.1} | {new:.1} | {:.2} |", new / old);
    }
    println!(
        "\nMedians of {} rounds; milliseconds, or signatures per second where the name has no quantile.",
        options.rounds
    );
    Ok(())
}

impl Build {
    /// Compiles the release program, and the harness that starts it.
    fn compile(&self) -> Result<()> {
        for arguments in [&["--release", "--package", "duet"][..], &["--workspace", "--bins"]] {
            let mut build = cargo();
            build.current_dir(&self.source).env("CARGO_TARGET_DIR", &self.target);
            visibly(build.args(["build", "--locked"]).args(arguments))?;
        }
        Ok(())
    }

    /// Runs one measurement, and keeps its figures.
    fn measure(&mut self, folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
        let mut run = command(self.target.join("debug").join(program));
        run.current_dir(&self.source).env("DUET_PROGRAM", self.target.join("release/duet"));
        // The harness finds the repository's files through its manifest.
        run.env("CARGO_MANIFEST_DIR", self.source.join("tests")).args(arguments);
        if !arguments.is_empty() {
            run.arg(folder.join(format!("reports-{}", self.name)));
        }
        let text = output(&mut run)?;
        let figures: Map<String, Value> = serde_json::from_str(&text)
            .with_context(|| format!("{program} of the build '{}' printed {text}", self.name))?;
        for (name, figure) in figures {
            let value = ["per_s", "median_ms"].iter().find_map(|member| figure.get(*member)?.as_f64());
            let Some(value) = value else { bail!("{name} has no figure: {figure}") };
            self.figures.entry(name).or_default().push(value);
        }
        Ok(())
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> Result<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).context("there are figures")?;
    match sorted.len() % 2 {
        0 => Ok((upper + sorted.get(middle.saturating_sub(1)).context("there are figures")?) / 2.0),
        _ => Ok(*upper),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).unwrap(), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).unwrap(), 2.5);
        assert!(median(&[]).is_err());
    }
}
