//! `duet audit`: reads the audit log, and checks that no record was removed or altered.

use std::{collections::BTreeSet, fmt, fs, io::Read as _, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use duet_bus::{Role, audit as stream};
use duet_party::store::ShareStore;
use duet_wire::audit::{
    Body, ChainId, Event, Record, lines,
    verify::{ChainReport, PinnedKey, Report, Verifier},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    broker::{self, COMMAND_PATIENCE},
    config::{BrokerOptions, CredentialsOptions, DatabaseOptions},
    error::{CliError, ErrorCode},
    output::Output,
    share_store::open_sealed,
    store_location::StoreLocation,
};

/// Records that one query asks of a store.
const STORE_PAGE: u32 = 1024;

/// A command about the audit log.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that nothing was removed, moved, altered or brought in, and that no nonce was used
    /// twice
    Verify(VerifyArguments),
    /// Write the log to a file, one record a line
    Export(ExportArguments),
    /// Show records, the newest last
    Show(ShowArguments),
}

/// Where to read the log: from the stream, as the broker's user `auditor`, or from the file or
/// store that an option names.
#[derive(Debug, Clone, Args)]
struct Source {
    /// Read an exported file instead of the stream; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    file: Option<PathBuf>,
    /// Read a party's share store instead of the stream; nothing sealed is opened
    #[arg(long, value_name = "FILE|URL")]
    store: Option<StoreLocation>,
    #[command(flatten)]
    database: DatabaseOptions,
    #[command(flatten)]
    broker: BrokerOptions,
    #[command(flatten)]
    credentials: CredentialsOptions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    source: Source,
    /// Whose chains must be signed by which Ed25519 key: a party's as `duet party card` shows it,
    /// the orchestrator's and the gateway's as they say when they start; can be repeated
    #[arg(long = "key", value_name = "NAME=HEX")]
    keys: Vec<KeyArgument>,
    /// The report of an earlier verification (--json): its records must still be there
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Accept chains without their beginning: old records are removed when their time is over
    #[arg(long)]
    allow_missing_beginnings: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    source: Source,
    /// The file; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    source: Source,
    /// Only records of this writer: a party, `orchestrator` or `gateway`
    #[arg(long, value_name = "NAME")]
    writer: Option<String>,
    /// Only records that name this: a job, session, wallet, requester, code or kind of event
    #[arg(long = "about", value_name = "TEXT")]
    about: Vec<String>,
    /// At most this many, the newest
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
}

/// A writer and its key.
#[derive(Debug, Clone)]
struct KeyArgument(PinnedKey);

impl FromStr for KeyArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (writer, digits) = text.split_once('=').ok_or("write NAME=KEY")?;
        let mut key = [0; 32];
        hex::decode_to_slice(digits, &mut key)
            .map_err(|_| format!("{digits}: expected 64 hexadecimal digits"))?;
        Ok(Self(PinnedKey { writer: writer.to_owned(), key }))
    }
}

/// Runs the command.
///
/// # Errors
/// When the log cannot be read, or when verification finds something wrong.
pub(crate) async fn run(command: AuditCommand, output: Output) -> Result<(), CliError> {
    match command {
        AuditCommand::Verify(arguments) => verify(arguments, output).await,
        AuditCommand::Export(arguments) => export(arguments, output).await,
        AuditCommand::Show(arguments) => show(arguments, output).await,
    }
}

impl Source {
    /// Calls `take` with each line, and with the only role that may have published it, where known.
    async fn read(&self, mut take: impl FnMut(&[u8], Option<&str>)) -> Result<(), CliError> {
        if let Some(file) = &self.file {
            let mut bytes = Vec::new();
            let read = if file.as_os_str() == "-" {
                std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
            } else {
                fs::read(file).map(|read| bytes = read)
            };
            read.map_err(|error| CliError::io(&file.display().to_string(), &error))?;
            lines(&bytes).for_each(|line| take(line, None));
            return Ok(());
        }
        if let Some(store) = &self.store {
            return read_store(&*open_sealed(store, &self.database).await?, take).await;
        }
        let bus = broker::connect(&self.broker, &self.credentials, Role::Auditor, COMMAND_PATIENCE).await?;
        let read = stream::read(&bus, |message| {
            lines(&message.records).for_each(|line| take(line, Some(&message.speaker)));
        });
        read.await.map_err(|error| CliError::new(duet_wire::Code::StorageUnavailable, error.to_string()))?;
        bus.drain().await;
        Ok(())
    }
}

async fn read_store(
    store: &dyn ShareStore,
    mut take: impl FnMut(&[u8], Option<&str>),
) -> Result<(), CliError> {
    for chain in store.audit_chains().await? {
        let mut after = 0;
        loop {
            let records = store.audit_records(chain.head.chain, after, STORE_PAGE).await?;
            let Some(last) = records.last() else { break };
            after = last.sequence;
            records.iter().for_each(|record| take(&record.to_line(), None));
        }
    }
    store.close().await;
    Ok(())
}

#[derive(Debug, Serialize)]
struct Verified(Report);

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { chains, .. } = &self.0;
        let records: u64 = chains.iter().map(|chain| chain.records).sum();
        write!(f, "{records} records in {} chains, nothing missing or altered", chains.len())?;
        for chain in chains {
            write!(f, "\n{}", describe(chain))?;
        }
        Ok(())
    }
}

fn describe(chain: &ChainReport) -> String {
    let writer = chain.writer.as_deref().unwrap_or("an unknown writer");
    let vouched = match (chain.signed_through, chain.pinned) {
        (0, _) => "no checkpoint vouches for it".to_owned(),
        (through, true) => format!("signed up to {through} by the pinned key"),
        (through, false) => format!("signed up to {through} by the key that it names itself"),
    };
    let end = if chain.closed { ", closed" } else { "" };
    format!(
        "{} {writer}: records {} to {}, {vouched}{end}",
        chain.last.chain, chain.first, chain.last.sequence
    )
}

async fn verify(arguments: VerifyArguments, output: Output) -> Result<(), CliError> {
    let mut verifier = Verifier::new(arguments.keys.into_iter().map(|key| key.0).collect());
    if arguments.allow_missing_beginnings {
        verifier.allow_missing_beginnings();
    }
    if let Some(file) = &arguments.since {
        let text = fs::read(file).map_err(|error| CliError::io(&file.display().to_string(), &error))?;
        let earlier: Report = serde_json::from_slice(&text).map_err(|error| {
            CliError::input(format!("{} is no report of a verification: {error}", file.display()))
        })?;
        earlier.heads().for_each(|head| verifier.remember(head));
    }
    arguments.source.read(|line, speaker| verifier.line(line, speaker)).await?;
    let report = verifier.finish();
    if report.valid {
        return output.emit(&Verified(report));
    }
    let mut message = format!("the audit log is not what was written; findings: {}", report.findings.len());
    for finding in report.findings.iter().take(SHOWN_FINDINGS) {
        message.push_str(&format!("\n  {finding}"));
    }
    let details = serde_json::to_value(&report).unwrap_or(Value::Null);
    Err(CliError::new(ErrorCode::AuditBroken, message).details(details))
}

/// Findings that the text shows one by one. The JSON document has all of them.
const SHOWN_FINDINGS: usize = 20;

#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    records: u64,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records are in {}", self.records, self.file.display())
    }
}

async fn export(arguments: ExportArguments, output: Output) -> Result<(), CliError> {
    let name = arguments.out.display().to_string();
    let file = fs::File::options()
        .write(true)
        .create_new(true)
        .open(&arguments.out)
        .map_err(|error| CliError::io(&name, &error))?;
    let mut file = std::io::BufWriter::new(file);
    let (mut records, mut failed) = (0, None);
    let read = arguments.source.read(|line, _| {
        use std::io::Write as _;
        let written = file.write_all(line).and_then(|()| file.write_all(b"\n"));
        records += 1;
        failed = failed.take().or(written.err());
    });
    read.await?;
    failed
        .or(std::io::Write::flush(&mut file).err())
        .map_or(Ok(()), |error| Err(CliError::io(&name, &error)))?;
    output.emit(&Exported { file: arguments.out, records })
}

/// A record as the command prints it.
#[derive(Debug, Serialize)]
struct Shown {
    chain: ChainId,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    body: Value,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_ms = self.body.get("at_ms").and_then(Value::as_u64).unwrap_or_default();
        let at = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(at_ms));
        let writer = self.writer.as_deref().unwrap_or("?");
        let event = self.body.get("event").cloned().unwrap_or(Value::Null);
        write!(f, "{at} {writer} {}", event.get("kind").and_then(Value::as_str).unwrap_or("?"))?;
        for (name, value) in event.as_object().into_iter().flatten().filter(|(name, _)| *name != "kind") {
            match value {
                Value::String(text) => write!(f, " {name}={text}")?,
                other => write!(f, " {name}={other}")?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct Listing {
    records: Vec<Shown>,
    /// The number of further, older records that match.
    older: usize,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.records.is_empty() {
            return f.write_str("there is nothing of that kind in the audit log");
        }
        let lines: Vec<String> = self.records.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

async fn show(arguments: ShowArguments, output: Output) -> Result<(), CliError> {
    let mut writers = std::collections::BTreeMap::<ChainId, String>::new();
    let mut seen = BTreeSet::new();
    let (mut records, mut older) = (std::collections::VecDeque::new(), 0);
    let read = arguments.source.read(|line, speaker| {
        let Ok(record) = Record::from_line(line) else { return };
        if !seen.insert((record.chain, record.sequence)) {
            return;
        }
        if let Ok(Body { event: Event::Opened { writer, .. }, .. }) = serde_json::from_slice(&record.body) {
            writers.insert(record.chain, writer);
        }
        let writer = speaker.map(str::to_owned).or_else(|| writers.get(&record.chain).cloned());
        let text = String::from_utf8_lossy(&record.body);
        let wanted = arguments.writer.is_none() || writer == arguments.writer;
        if !wanted || !arguments.about.iter().all(|about| text.contains(about.as_str())) {
            return;
        }
        let body = serde_json::from_slice(&record.body).unwrap_or(Value::Null);
        records.push_back(Shown { chain: record.chain, sequence: record.sequence, writer, body });
        if records.len() > arguments.limit {
            records.pop_front();
            older += 1;
        }
    });
    read.await?;
    output.emit(&Listing { records: records.into(), older })
}
