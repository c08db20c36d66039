//! A process that a test or the demonstration started. It never outlives its owner.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

/// The most lines of stdout that wait for a reader. While no test reads, further lines go only to
/// the log.
const STDOUT_LINES: usize = 1024;

/// How long a killed process may take to disappear, which is the kernel's work alone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The resident memory of a process, in bytes.
///
/// # Errors
/// As [`memory`].
pub fn resident_bytes(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS")
}

/// A process's memory in `field` of `/proc/PID/status`, in bytes.
///
/// # Errors
/// When the process or the field does not exist.
pub fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes: u64 = line.context("no such field")?.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}

/// A running program. Its output goes to a log file, and a test can wait for lines of its standard
/// output.
///
/// It runs in its own process group. So a Ctrl-C in the terminal reaches only its owner, which then
/// ends it. Dropping it kills it, and waits until it has ended.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with its log in `<logs>/<name>.log`. The log is appended to, so that it
    /// survives a restart.
    ///
    /// # Errors
    /// When the program cannot be started, or when the log cannot be written.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file.try_clone()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, stdout) = mpsc::channel(STDOUT_LINES);
        if let Some(pipe) = child.stdout.take() {
            tokio::spawn(copy_lines(pipe, file, sender));
        }
        Ok(Self { name: name.to_owned(), child, stdout, log })
    }

    /// The name under which it was started.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id. `None` after it has ended and was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The next line of standard output for which `wanted` returns a value.
    ///
    /// # Errors
    /// When the process ends, or after `deadline`. The error contains the end of the log.
    ///
    /// # Cancel safety
    /// Lines that were read before the future was dropped are lost for the next call.
    pub async fn line<T>(&mut self, deadline: Duration, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let search = async {
            while let Some(line) = self.stdout.recv().await {
                if let Some(found) = wanted(&line) {
                    return Some(found);
                }
            }
            None
        };
        match timeout(deadline, search).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => {
                let status = timeout(deadline, self.child.wait()).await;
                Err(self.failure(&match status {
                    Ok(Ok(status)) => format!("ended ({status})"),
                    _ => "closed its output".to_owned(),
                }))
            }
            Err(_) => Err(self.failure(&format!("did not become ready in {deadline:?}"))),
        }
    }

    /// The line that [`Self::line`] would find, if it was printed already.
    pub fn line_so_far<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        while let Ok(line) = self.stdout.try_recv() {
            if let Some(found) = wanted(&line) {
                return Some(found);
            }
        }
        None
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Kills it with `kill -9`, and waits until it has ended.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Stops it at any point of its work, like `kill -STOP`. [`Self::resume`] continues it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues a paused process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it has not ended by `deadline`. The error contains the end of the log.
    pub async fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(self.failure(&format!("did not end in {deadline:?}"))),
        }
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// When it is not running.
    pub fn ask_to_end(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// When it has not ended by `deadline`. It is then killed.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.ask_to_end()?;
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.kill().await?;
                Err(self.failure(&format!("did not end within {deadline:?} of SIGTERM")))
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.with_context(|| format!("{} is not running", self.name))?;
        Ok(kill_process(id, signal)?)
    }

    /// The last `lines` lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text =
            fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
    }

    /// An error about this process, with the end of its log.
    #[must_use]
    pub fn failure(&self, what: &str) -> anyhow::Error {
        anyhow!("{} {what}; the end of its log:\n{}", self.name, self.log_tail(30))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error here means that it has ended, or has no caller to return to.
        let _ = self.child.start_kill();
        let killed = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && killed.elapsed() < KILL_DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Copies a process's output into its log, and to the test that waits for a line.
async fn copy_lines(pipe: impl AsyncRead + Unpin, mut log: File, lines: mpsc::Sender<String>) {
    let mut reader = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        // An unwritable log must not stop the process under test.
        let _ = writeln!(log, "{line}");
        let _ = lines.try_send(line);
    }
}

/// The command, started through `launcher`. The arguments `before` come ahead of the command's
/// program.
#[must_use]
pub fn through(launcher: &str, before: &[String], command: &Command) -> Command {
    let command = command.as_std();
    let mut launched = Command::new(launcher);
    launched.args(before).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => launched.env(name, value),
            None => launched.env_remove(name),
        };
    }
    launched
}

/// The result of a command that ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command to its end, with `input` on its standard input.
///
/// # Errors
/// When it cannot be started, or when it has not ended by `deadline`. It is then killed.
pub async fn run(mut command: Command, input: &str, deadline: Duration) -> Result<Output> {
    use tokio::io::AsyncWriteExt as _;
    let line = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {line}"))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program may end without reading its input. Its exit code tells.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let Ok(output) = timeout(deadline, both).await else {
        bail!("{line} did not end in {deadline:?}");
    };
    let output = output?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let logs = tempfile::tempdir().unwrap();
        let mut process =
            Process::start("loop", shell("echo ready; while :; do read line; done"), logs.path()).unwrap();
        process.line(KILL_DEADLINE, |line| (line == "ready").then_some(())).await.unwrap();
        let id = Pid::from_raw(i32::try_from(process.id().unwrap()).unwrap()).unwrap();
        assert!(rustix::process::test_kill_process(id).is_ok());
        drop(process);
        assert!(rustix::process::test_kill_process(id).is_err());
    }

    #[tokio::test]
    async fn a_process_that_is_not_ready_says_why() {
        let logs = tempfile::tempdir().unwrap();
        let mut process =
            Process::start("early", shell("echo no such thing >&2; exit 3"), logs.path()).unwrap();
        let error = process.line(KILL_DEADLINE, |_| None::<()>).await.unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains("exit status: 3"), "{error}");
    }

    #[tokio::test]
    async fn a_command_is_killed_at_its_deadline() {
        let error = run(shell("sleep 60"), "", Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(error.contains("did not end"), "{error}");
        assert_eq!(run(shell("cat"), "given", KILL_DEADLINE).await.unwrap().stdout, "given");
    }
}
