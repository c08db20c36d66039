//! A stolen disk, its logs, a core dump, and the memory of a process that has signed: none contains
//! the bytes of a share.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use duet_harness::{
    process::{Process, memory},
    stack::{ALL_KINDS, Pair, Stack},
};
use duet_party::{
    at_rest::{RecordKind, RecordLabel},
    clock::Clock,
    key_encryption::KeyFile,
    store::{
        ShareStore,
        sqlite::{SqliteOptions, SqliteStore},
    },
    vault::Vault,
};
use duet_protocol::{
    ids::{Epoch, ShareIndex, WalletId},
    share::KeyShare,
};
use rustix::{
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use tokio::{process::Command, time::timeout};

/// How long a process may take to end, or to wipe finished work.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most of a process's memory that is read at a time.
const CHUNK: usize = 1 << 20;

/// The size of the guard page below a thread's stack.
const PAGE: u64 = 4096;

/// A secret, in the forms in which its bytes could occur.
struct Secret {
    whose: &'static str,
    writings: Vec<Vec<u8>>,
}

impl Secret {
    fn new(whose: &'static str, bytes: &[u8]) -> Self {
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        let hexadecimal = hex::encode(bytes);
        let upper = hexadecimal.to_uppercase();
        // Big-endian, in the order of a computation's limbs, and as text.
        Self { whose, writings: vec![bytes.to_vec(), reversed, hexadecimal.into(), upper.into()] }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.writings.iter().any(|writing| contains(bytes, writing))
    }
}

/// Whether `needle` is in `haystack`. Compares at each occurrence of its first byte.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// The share of a wallet in the store at `store`.
async fn share_of(whose: &'static str, store: PathBuf, key: PathBuf, wallet: &str) -> Result<Secret> {
    let opened: Arc<dyn ShareStore> = Arc::new(SqliteStore::open(&SqliteOptions::at(store)).await?);
    let vault = Vault::open(opened, &KeyFile::at(key), &Clock::system()).await?;
    let index = match whose {
        "service" => ShareIndex::Service,
        "partner" => ShareIndex::Partner,
        _ => ShareIndex::Device,
    };
    let wallet: WalletId = wallet.parse()?;
    let label = RecordLabel::of_wallet(RecordKind::Share, wallet, index, Epoch(0), &[]);
    let record = vault.read(&label).await?.context("no share")?;
    KeyShare::from_secret_bytes(&record)?;
    // The share is at the end of the record.
    Ok(Secret::new(whose, &record[record.len() - 32..]))
}

/// Collects every file below `folder`.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// The files that contain a secret, the number of searched files, and their bytes.
fn search(folders: &[impl AsRef<Path>], secrets: &[Secret]) -> Result<(Vec<String>, usize, u64)> {
    let (mut hits, mut all, mut bytes) = (Vec::new(), Vec::new(), 0);
    for folder in folders {
        files(folder.as_ref(), &mut all)?;
    }
    for file in &all {
        // The broker may have removed a file in the meantime.
        let Ok(content) = fs::read(file) else { continue };
        bytes += content.len() as u64;
        for secret in secrets.iter().filter(|secret| secret.is_in(&content)) {
            hits.push(format!("{} share in {}", secret.whose, file.display()));
        }
    }
    Ok((hits, all.len(), bytes))
}

/// The findings in a process's memory.
#[derive(Default)]
struct Memory {
    /// The secrets in allocated memory, with their addresses.
    allocated: Vec<String>,
    /// The secrets on the stacks of threads, with their addresses.
    on_stacks: Vec<String>,
    /// The number of bytes read.
    read: usize,
}

/// A range of addresses of `/proc/PID/maps`.
fn range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_once(' ')?.0.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

/// Searches the memory of a process. `None` when the system does not permit that.
fn search_memory(pid: u32, secrets: &[Secret]) -> Result<Option<Memory>> {
    let Ok(mut memory) = fs::File::open(format!("/proc/{pid}/mem")) else { return Ok(None) };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut found = Memory::default();
    let mut guard_ends_at = None;
    for line in maps.lines() {
        let (mut at, end) = range(line).with_context(|| line.to_owned())?;
        // A thread's stack lies above one inaccessible page.
        let is_stack = guard_ends_at == Some(at) || line.ends_with("[stack]");
        guard_ends_at = (line.contains(" ---p") && end - at == PAGE).then_some(end);
        // Writable memory can contain a secret: heap, stacks, data.
        if !line.contains(" rw") {
            continue;
        }
        let mut tail = Vec::new();
        while at < end {
            let length = usize::try_from(end - at)?.min(CHUNK);
            let mut chunk = vec![0; length];
            // A mapping may have disappeared, and some cannot be read at all.
            if memory.seek(SeekFrom::Start(at)).is_err() || memory.read_exact(&mut chunk).is_err() {
                break;
            }
            found.read += length;
            at += length as u64;
            let joined = [tail.as_slice(), &chunk].concat();
            let hits = secrets.iter().filter(|secret| secret.is_in(&joined));
            let hits = hits.map(|secret| format!("{} share in {line}", secret.whose));
            if is_stack {
                found.on_stacks.extend(hits);
            } else {
                found.allocated.extend(hits);
            }
            tail = chunk[length.saturating_sub(64)..].to_vec();
        }
    }
    Ok(Some(found))
}

/// Whether this system writes a core file into `folder` when a process aborts. Tries it with a
/// program that permits core dumps.
async fn writes_cores(folder: &Path) -> Result<bool> {
    let mut command = Command::new("sleep");
    command.arg("60").current_dir(folder);
    let mut process = Process::start("control", command, &folder.join("logs"))?;
    abort(&mut process).await?;
    Ok(cores(folder)? > 0)
}

async fn abort(process: &mut Process) -> Result<()> {
    let id = Pid::from_raw(i32::try_from(process.id().context("not running")?)?).context("no process id")?;
    kill_process(id, Signal::ABORT)?;
    let status = process.ended(DEADLINE).await?;
    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "{status}");
    Ok(())
}

/// The number of core files in a folder.
fn cores(folder: &Path) -> Result<usize> {
    let names = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.to_string_lossy().starts_with("core")).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_signed__should_leave_its_share_in_no_file_log_memory_or_core() -> Result<()> {
    // Permit core files for child processes, whatever the shell permits.
    let hard = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: hard, maximum: hard })?;

    let mut stack = Stack::start().await?;
    let wallet = stack.create_wallet("device", ALL_KINDS).await?;
    for pair in Pair::ALL {
        wallet.sign_by(pair, &["message", "nothing to see"]).await?;
    }
    let mut secrets = Vec::new();
    for whose in ["service", "partner"] {
        let folder = stack.party(whose);
        secrets.push(share_of(whose, folder.store(), folder.key_file(), &wallet.id).await?);
    }
    let home = stack.directory().join("device");
    let key = stack.directory().join("device.key");
    secrets.push(share_of("device", home.join("device.db"), key, &wallet.id).await?);

    // Check that the search finds secrets that are there.
    let folders = [stack.directory().to_owned(), stack.broker.credentials().to_owned()];
    for secret in &secrets {
        for writing in &secret.writings {
            let decoy = home.join("decoy");
            fs::write(&decoy, [b"before ", writing.as_slice(), b" after"].concat())?;
            ensure!(search(&[&home], &secrets)?.0.len() == 1, "the search is blind");
            fs::remove_file(decoy)?;
        }
    }
    let (hits, count, bytes) = search(&folders, &secrets)?;
    assert_eq!(hits, Vec::<String>::new());

    // Check that the search of memory finds secrets that are there: this process has all of them.
    if let Some(Memory { allocated, .. }) = search_memory(std::process::id(), &secrets)? {
        let found = |secret: &Secret| allocated.iter().any(|hit| hit.starts_with(secret.whose));
        assert!(secrets.iter().all(found), "the search is blind");
    }
    // The workers have signed and are idle. A session's allocations are wiped at its end. Copies
    // that the compiler made on a thread's stack remain until they are overwritten: the test only
    // counts them.
    let (mut memory_read, mut on_stacks) = (0, 0);
    for server in [&mut stack.service, &mut stack.partner] {
        let pid = server.process()?.id().context("it runs")?;
        let mut last = Memory::default();
        let forgotten = async {
            while let Some(memory) = search_memory(pid, &secrets)? {
                last = memory;
                if last.allocated.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, anyhow::Error>(())
        };
        let ended = timeout(DEADLINE, forgotten).await;
        ended.with_context(|| format!("in memory stays: {:?}", last.allocated))??;
        memory_read += last.read;
        on_stacks += last.on_stacks.len();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
        assert!(core.split_whitespace().filter(|&word| word == "0").count() == 2, "{core}");
    }

    // Aborted workers leave no core, where another program does.
    let here = std::env::current_dir()?;
    let before = cores(&here)?;
    for server in [&mut stack.service, &mut stack.partner] {
        abort(server.process()?).await?;
    }
    assert_eq!(cores(&here)?, before);
    let control = tempfile::tempdir()?;
    let control = writes_cores(control.path()).await?;
    let (hits, ..) = search(&folders, &secrets)?;
    assert_eq!(hits, Vec::<String>::new());
    eprintln!(
        "evidence: shares looked for = {}; files searched = {count}; bytes of files = {bytes}; bytes of memory = \
         {memory_read}; shares found = 0; copies on stacks = {on_stacks}; cores of aborted workers = 0; cores of another program = {}",
        secrets.len(),
        u8::from(control)
    );
    for server in [&mut stack.service, &mut stack.partner] {
        server.start().await?;
    }
    for pair in Pair::ALL {
        wallet.sign_by(pair, &["message", "and on it goes"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker__should_lock_its_memory_where_there_is_no_limit_to_that() -> Result<()> {
    const LIMITED: [&str; 2] = ["prlimit", "--memlock=65536:65536"];
    const UNLIMITED: [&str; 2] = ["prlimit", "--memlock=unlimited:unlimited"];
    const WITHOUT_CAPABILITY: [&str; 2] = ["setpriv", "--bounding-set=-ipc_lock"];
    let runs = async |[program, argument]: [&'static str; 2]| {
        let status = Command::new(program).args([argument, "true"]).stderr(Stdio::null()).status().await?;
        Ok::<_, anyhow::Error>(status.success())
    };
    let mut stack = Stack::start().await?;
    let wallet = stack.create_wallet("device", ALL_KINDS).await?;

    // One worker with a limit on locked memory. If this user has the right, also one without a
    // limit: by the capability, or by the limit itself.
    let capable = capabilities(None)?.effective.contains(CapabilitySet::IPC_LOCK);
    let limited = if capable { [WITHOUT_CAPABILITY, LIMITED].concat() } else { LIMITED.to_vec() };
    let by_limit = runs(UNLIMITED).await?;
    let free = if by_limit { UNLIMITED } else { LIMITED };
    let mut evidence = String::new();
    for (server, launcher, locks) in [
        (&mut stack.service, limited.as_slice(), false),
        (&mut stack.partner, free.as_slice(), capable || by_limit),
    ] {
        server.stop().await?;
        server.start_through(launcher);
        server.start().await?;
        let process = server.process()?;
        let pid = process.id().context("it runs")?;
        let (locked, swapped) = (memory(pid, "VmLck")?, memory(pid, "VmSwap")?);
        // Under a limit, the first allocation beyond it would end the worker.
        assert_eq!((locked > 0, swapped), (locks, 0), "{locked} bytes are locked");
        let log = process.log_tail(1000);
        let says = log.lines().rfind(|line| line.contains("memory is ")).context("it does not say")?;
        assert_eq!(says.contains("memory is locked"), locks, "{says}");
        evidence += &format!("; bytes locked by {} = {locked}", process.name());
    }
    for pair in Pair::ALL {
        wallet.sign_by(pair, &["message", "from locked memory"]).await?;
    }
    eprintln!("evidence: the partner may lock memory = {}{evidence}", capable || by_limit);
    Ok(())
}
