//! Measures how much a whole stack signs on this machine, and how long each signature takes. It
//! runs `duet load` against a broker that flushes every write to the disk, an orchestrator, and two
//! workers of each party.
//!
//! `stack-load REPORTS PLOTS MILLISECONDS MILLISECONDS` writes the reports into one folder and both
//! curves into another. The two last arguments are the cryptography of one signature, in
//! milliseconds of one core while all cores sign. They add up the work of all parties. The first is
//! for any wallet. The second uses the randomizer table that each responding worker builds after
//! its first thousand answers.
//!
//! It measures the stack without tables first, and then with tables. It prints one flat JSON object
//! for `cargo xtask bench`, and rows for a record in `docs/measurements` on stderr.
//!
//! `stack-load --saturated REPORTS` is the short run with which two builds are compared.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are its output")]

use std::{
    env, fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use duet_harness::{
    duet::Duet,
    stack::{Server, Stack, Wallet},
};
use serde_json::{Value, json};

/// Wallets used in turn.
const WALLETS: usize = 4;

/// Open jobs: more than an orchestrator processes at a time (32). So the cores have work while some
/// jobs wait for the disk.
const SATURATING: &str = "64";

/// The rates at which latency is measured, in per cent of the saturated throughput.
const SHARES: [f64; 12] = [10.0, 25.0, 40.0, 50.0, 60.0, 75.0, 85.0, 92.0, 97.0, 102.0, 110.0, 120.0];

/// Longer than any of these runs, and than building the tables.
const RUN_DEADLINE: Duration = Duration::from_secs(900);

/// How many writes are flushed to the disk, and the pause between them.
const FLUSHES: usize = 1500;
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

/// The worker's log message after it built a table.
const TABLE_BUILT: &str = "built a table of randomizers";

struct Rig {
    stack: Stack,
    wallets: Vec<Wallet>,
    second: [Server; 2],
    reports: PathBuf,
}

/// The cryptography of one signature, in milliseconds of one core.
struct Work {
    any: f64,
    table: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [saturated, reports] = arguments.as_slice()
        && saturated == "--saturated"
    {
        println!("{}", saturated_without_tables(PathBuf::from(reports)).await?);
        return Ok(());
    }
    let [reports, plots, any, table] = arguments.as_slice() else {
        bail!("usage: stack-load REPORTS PLOTS MILLISECONDS MILLISECONDS, or stack-load --saturated REPORTS");
    };
    let (reports, plots) = (PathBuf::from(reports), PathBuf::from(plots));
    let milliseconds = |text: &str| text.parse::<f64>().with_context(|| format!("{text} is no number"));
    let work = Work { any: milliseconds(any)?, table: milliseconds(table)? };
    fs::create_dir_all(&reports)?;
    let flushes = flushes()?;
    let mut rig = Rig::start(reports.clone(), ("DUET_RANDOMIZER_TABLES", "0")).await?;
    rig.start_second().await?;
    let without_tables = rig.saturate("saturated-without-tables", 2).await?;
    drop(rig);
    let rig = Rig::start(reports, ("DUET_RANDOMIZER_TABLE_AFTER", "1")).await?;
    let mut figures = rig.measure(&plots, &work, &without_tables).await?;
    for (name, at) in [("p50", FLUSHES / 2), ("p99", FLUSHES * 99 / 100), ("longest", FLUSHES - 1)] {
        let flush = json!({"median_ms": flushes.get(at), "min_ms": flushes.first(), "n": FLUSHES});
        figures.as_object_mut().context("figures have names")?.insert(format!("load.disk.{name}"), flush);
    }
    println!("{figures}");
    Ok(())
}

/// Throughput and latency of two workers of each party that always have work, without randomizer
/// tables.
///
/// This is the shortest run that shows the effect of a change on a signature. `cargo xtask compare`
/// uses it for both builds.
async fn saturated_without_tables(reports: PathBuf) -> Result<Value> {
    fs::create_dir_all(&reports)?;
    let mut rig = Rig::start(reports, ("DUET_RANDOMIZER_TABLES", "0")).await?;
    rig.start_second().await?;
    let report = rig.saturate("saturated-without-tables", 2).await?;
    let step = steps(&report)?.first().context("a run has a step")?;
    let timed = |name: &str| -> Result<Value> {
        let quantile = number(step, &format!("/latency_ms/{name}"))?;
        Ok(
            json!({"median_ms": quantile, "min_ms": number(step, "/latency_ms/min")?, "n": number(step, "/outcomes/signed")?}),
        )
    };
    let cpu = processor_time(&report)?;
    Ok(json!({
        "load.saturated.without-tables": {"per_s": most(&report)?},
        "load.saturated.without-tables.p50": timed("p50")?,
        "load.saturated.without-tables.p99": timed("p99")?,
        "load.saturated.without-tables.processor": {"median_ms": cpu, "min_ms": cpu, "n": number(step, "/outcomes/signed")?},
    }))
}

/// How long the idle disk takes to flush 4 KiB, on the file system of the stack's stores. Returns
/// all times in milliseconds, sorted. A signature waits for several flushes, so the slowest ones
/// are part of its p99.
fn flushes() -> Result<Vec<f64>> {
    let file = tempfile::tempfile()?;
    let mut took = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let began = Instant::now();
        file.write_all_at(&[0; 4096], 0)?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        thread::sleep(FLUSH_PAUSE);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

impl Rig {
    async fn start(reports: PathBuf, tables: (&str, &str)) -> Result<Self> {
        let stack = Stack::start_with(&[tables]).await?;
        let mut wallets = Vec::with_capacity(WALLETS);
        for number in 1..=WALLETS {
            wallets.push(stack.create_wallet(&format!("device-{number}"), "personal_message").await?);
        }
        let second = [stack.service.another("service-2"), stack.partner.another("partner-2")];
        Ok(Self { stack, wallets, second, reports })
    }

    /// Starts the second worker of each party.
    async fn start_second(&mut self) -> Result<()> {
        for worker in &mut self.second {
            worker.start().await?;
        }
        Ok(())
    }

    /// A run at the highest throughput of `workers` workers of each party.
    async fn saturate(&mut self, name: &str, workers: u32) -> Result<Value> {
        self.run(name, workers, &["--in-flight", SATURATING]).await
    }

    async fn measure(mut self, plots: &Path, work: &Work, without_tables: &Value) -> Result<Value> {
        self.start_second().await?;
        self.build_tables().await?;
        let saturated = most(&self.saturate("saturated", 2).await?)?;
        let rates: Vec<String> =
            SHARES.iter().map(|share| format!("{:.1}", saturated * share / 100.0)).collect();
        let sweep = self.run("sweep", 2, &["--rate", &rates.join(",")]).await?;
        let sustained = steps(&sweep)?.iter().filter_map(sustained_rate).fold(0.0, f64::max);
        let half = self.run("half", 2, &["--rate", &format!("{:.1}", sustained / 2.0)]).await?;
        let half = steps(&half)?.first().cloned().context("a run has a step")?;
        // Measure both directly after each other, so that a change of the machine's speed affects
        // both.
        let two = self.saturate("saturated-2", 2).await?;
        for worker in &mut self.second {
            worker.stop().await?;
        }
        let one = self.saturate("saturated-1", 1).await?;

        let file = |name: &str| self.reports.join(format!("{name}.json")).display().to_string();
        let plot = |name: &str| plots.join(name).display().to_string();
        let duet = self.duet();
        duet.json(&["load", "plot", &file("sweep"), "--latency", &plot("load-latency.svg")]).await?;
        let scaling = plot("load-scaling.svg");
        duet.json(&["load", "plot", &file("saturated-1"), &file("saturated-2"), "--scaling", &scaling])
            .await?;

        let cores = number(&two, "/machine/cores")?;
        let ceiling = |work_ms: f64| (cores * 10_000.0 / work_ms).round() / 10.0;
        let (any, table) = (ceiling(work.any), ceiling(work.table));
        eprintln!(
            "\n| | signed/s | p50 | p90 | p99 | p99.9 | processor time per signature |\n|---|---|---|---|---|---|---|"
        );
        for (name, report) in [
            ("two workers per party, without tables", without_tables),
            ("one worker per party", &one),
            ("two workers per party", &two),
            ("", &sweep),
        ] {
            for step in steps(report)? {
                eprintln!("{}", row(name, step));
            }
        }
        eprintln!(
            "\nsustained {sustained:.1}/s; {cores} cores of cryptography alone allow {table:.1}/s, {any:.1}/s without table"
        );
        let quantile = |name: &str| number(&half, &format!("/latency_ms/{name}"));
        let timed = |name: &str| -> Result<Value> {
            Ok(json!({"median_ms": quantile(name)?, "min_ms": quantile("min")?, "n": number(&half, "/due")?}))
        };
        Ok(json!({
            "load.saturated.one-worker": {"per_s": most(&one)?},
            "load.saturated.two-workers": {"per_s": most(&two)?},
            "load.saturated.without-tables": {"per_s": most(without_tables)?},
            "load.sustained": {"per_s": sustained},
            "load.scaling": {"per_cent": (processor_time(&one)? / processor_time(&two)? * 1e3).round() / 10.0},
            "load.ceiling": {"per_s": table},
            "load.ceiling.any-wallet": {"per_s": any},
            "load.half.p50": timed("p50")?,
            "load.half.p99": timed("p99")?,
        }))
    }

    /// Makes every responding worker answer enough, and waits until it has built its table.
    async fn build_tables(&mut self) -> Result<()> {
        self.saturate("tables", 2).await?;
        let deadline = Instant::now() + RUN_DEADLINE;
        let [_, partner_2] = &self.second;
        for worker in [&self.stack.partner, partner_2] {
            while !worker.log_tail(usize::MAX).contains(TABLE_BUILT) {
                if Instant::now() > deadline {
                    bail!("a worker built no table:\n{}", worker.log_tail(20));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }

    fn duet(&self) -> Duet {
        self.stack.duet().within(RUN_DEADLINE)
    }

    /// One run of the load generator, against `workers` workers of each party.
    async fn run(&mut self, name: &str, workers: u32, offered: &[&str]) -> Result<Value> {
        let mut arguments =
            ["load", "run", "--duration", "20s", "--warm-up", "4s"].map(str::to_owned).to_vec();
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        for wallet in &self.wallets {
            option("--wallet", wallet.id.clone());
            option("--requester-key", wallet.requester_key.display().to_string());
        }
        for (name, id) in self.processes(workers)? {
            option("--process", format!("{name}={id}"));
        }
        option("--workers", workers.to_string());
        option("--out", self.reports.join(format!("{name}.json")).display().to_string());
        let arguments: Vec<&str> =
            arguments.iter().map(String::as_str).chain(offered.iter().copied()).collect();
        let report = self.duet().json(&arguments).await?;
        for step in steps(&report)? {
            eprintln!("{}", row(name, step));
        }
        Ok(report)
    }

    /// The processes whose use of resources a run measures.
    fn processes(&mut self, workers: u32) -> Result<Vec<(&'static str, u32)>> {
        let Stack { orchestrator, service, partner, .. } = &mut self.stack;
        let [service_2, partner_2] = &mut self.second;
        let mut servers = vec![("orchestrator", orchestrator), ("service", service), ("partner", partner)];
        if workers > 1 {
            servers.extend([("service-2", service_2), ("partner-2", partner_2)]);
        }
        let mut found = vec![("broker", child("nats-server")?)];
        for (name, server) in servers {
            found.push((name, server.process()?.id().with_context(|| format!("{name} has ended"))?));
        }
        Ok(found)
    }
}

/// The id of this process's child with this name.
fn child(name: &str) -> Result<u32> {
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|id| id.parse::<u32>().ok()) else { continue };
        // Other processes start and end in the meantime.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        if head.ends_with(&format!("({name}")) && rest.split(' ').nth(1) == Some(own.as_str()) {
            return Ok(id);
        }
    }
    bail!("no child called {name}")
}

fn steps(report: &Value) -> Result<&Vec<Value>> {
    report.get("steps").and_then(Value::as_array).context("a report has steps")
}

fn number(document: &Value, pointer: &str) -> Result<f64> {
    document.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no number at {pointer}"))
}

/// The highest rate of signatures of a report's steps.
fn most(report: &Value) -> Result<f64> {
    steps(report)?
        .iter()
        .map(|step| number(step, "/signed_per_s"))
        .try_fold(0.0, |most, rate| Ok(rate?.max(most)))
}

/// The processor time of all processes per signature, in milliseconds, of a report's only step. Its
/// change with the number of workers shows how they scale on more cores. On this machine, one pair
/// of workers can keep all cores busy.
fn processor_time(report: &Value) -> Result<f64> {
    let step = steps(report)?.first().context("a run has a step")?;
    let processes = step.get("processes").and_then(Value::as_array).context("a step has processes")?;
    processes.iter().map(|process| number(process, "/cpu_ms_per_signature")).sum()
}

/// The rate that a step offered, if every job was signed and no backlog grew.
fn sustained_rate(step: &Value) -> Option<f64> {
    (step.get("sustained")? == &Value::Bool(true)).then(|| step.get("per_second")?.as_f64()).flatten()
}

/// A row of the documentation's table.
fn row(name: &str, step: &Value) -> String {
    let text = |pointer: &str| {
        number(step, pointer).map_or_else(|_| "–".to_owned(), |number| format!("{number:.1}"))
    };
    let offered = match (step.get("per_second"), step.get("in_flight")) {
        (Some(rate), _) => format!("{rate}/s arriving"),
        (_, Some(open)) => format!("{open} in flight"),
        _ => String::new(),
    };
    let quantiles: Vec<String> =
        ["p50", "p90", "p99", "p999"].iter().map(|name| text(&format!("/latency_ms/{name}"))).collect();
    let processes = step.get("processes").and_then(Value::as_array).into_iter().flatten();
    let used: Vec<String> = processes
        .map(|process| {
            let name = process.get("name").and_then(Value::as_str).unwrap_or_default();
            let cpu = process.get("cpu_ms_per_signature").and_then(Value::as_f64).unwrap_or(f64::NAN);
            format!("{name} {cpu:.1}")
        })
        .collect();
    let [name, rest] = [name, &offered];
    let separator = if name.is_empty() { "" } else { ", " };
    format!(
        "| {name}{separator}{rest} | {} | {} | {} |",
        text("/signed_per_s"),
        quantiles.join(" | "),
        used.join(", ")
    )
}
