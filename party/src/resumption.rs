//! Notices that this process continues from a snapshot: on a copied machine, after a pause, or in a
//! restored container.
//!
//! Everything random is hedged ([`duet_protocol::hedge`]), so a copy of this process repeats
//! nothing in another session. But copies share the sessions that were open. This module ends those
//! before either copy can continue them, as far as the machine lets a process notice:
//!
//! - `/proc/sys/kernel/random/boot_id` differs: the process was restored under another kernel.
//! - A file with the machine's generation differs. Linux uses a virtual machine's generation id
//!   (ACPI `VMGENID`) for its own generator, but shows it to no process. A platform that writes it
//!   to a file can name that file.
//! - The wall clock moved against the monotonic clock. The monotonic clock stands still while a
//!   machine is stopped.
//!
//! A live copy shows none of these if its wall clock is behind by the length of the pause.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Identifies the kernel: a random number that it draws when it boots.
#[cfg(target_os = "linux")]
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How often a worker checks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a worker notices that its machine was resumed or copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumptionSettings {
    /// Files that identify this copy of the machine. Default: the boot id of Linux.
    pub identities: Vec<PathBuf>,
    /// How far the wall clock may move against the monotonic clock between two checks. Default 2 s.
    /// A slewed clock moves by half a millisecond. A stepped clock costs open sessions, which are
    /// tried again.
    pub clocks_apart: Duration,
}

impl Default for ResumptionSettings {
    fn default() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            identities: vec![PathBuf::from(BOOT_ID)],
            #[cfg(not(target_os = "linux"))]
            identities: Vec::new(),
            clocks_apart: Duration::from_secs(2),
        }
    }
}

/// The sign by which a resumption was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// The content of this file changed.
    Identity(PathBuf),
    /// The clocks moved apart by this much.
    Clocks(Duration),
}

impl Noticed {
    /// The values of the metrics' label.
    pub(crate) const ALL: [&'static str; 2] = ["identity", "clocks"];

    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Clocks(_) => "clocks",
        }
    }
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(file) => write!(f, "{} has changed", file.display()),
            Self::Clocks(apart) => write!(f, "the wall clock moved {apart:?} against the monotonic clock"),
        }
    }
}

/// The machine's identity and clocks at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reading {
    monotonic: Instant,
    wall: Duration,
    identities: Vec<Option<Vec<u8>>>,
}

/// Compares each reading with the previous one.
#[derive(Debug)]
pub(crate) struct Watch {
    settings: ResumptionSettings,
    last: Reading,
}

fn read(settings: &ResumptionSettings) -> Reading {
    Reading {
        // A file that cannot be read is ignored.
        identities: settings.identities.iter().map(|file| std::fs::read(file).ok()).collect(),
        monotonic: Instant::now(),
        wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
    }
}

impl Watch {
    pub(crate) fn new(settings: ResumptionSettings) -> Self {
        let last = read(&settings);
        Self { settings, last }
    }

    /// Checks again. Reports each change once.
    pub(crate) fn look(&mut self) -> Option<Noticed> {
        let now = read(&self.settings);
        self.compare(now)
    }

    fn compare(&mut self, mut now: Reading) -> Option<Noticed> {
        let mut noticed = None;
        let files = self.settings.identities.iter();
        for ((file, before), after) in files.zip(&self.last.identities).zip(&mut now.identities) {
            match (before, &*after) {
                (Some(before), Some(after)) if before != after => {
                    noticed = Some(Noticed::Identity(file.clone()));
                }
                (Some(before), None) => *after = Some(before.clone()),
                _ => {}
            }
        }
        let monotonic = now.monotonic.saturating_duration_since(self.last.monotonic);
        let apart = now.wall.abs_diff(self.last.wall + monotonic);
        if noticed.is_none() && apart > self.settings.clocks_apart {
            noticed = Some(Noticed::Clocks(apart));
        }
        self.last = now;
        noticed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch::new(ResumptionSettings {
            identities: vec![PathBuf::from("/generation")],
            clocks_apart: Duration::from_secs(2),
        })
    }

    fn after(watch: &Watch, monotonic_ms: u64, wall_ms: i64, identity: Option<&[u8]>) -> Reading {
        let Reading { monotonic, wall, .. } = watch.last;
        let by = Duration::from_millis(wall_ms.unsigned_abs());
        Reading {
            monotonic: monotonic + Duration::from_millis(monotonic_ms),
            wall: if wall_ms < 0 { wall - by } else { wall + by },
            identities: vec![identity.map(<[u8]>::to_vec)],
        }
    }

    #[test]
    fn clocks_that_go_together_say_nothing() {
        let mut watch = watch();
        for (monotonic, wall) in [(1_000, 1_000), (1_000, 1_001), (60_000, 59_000), (1, 0), (0, 1_900)] {
            let now = after(&watch, monotonic, wall, None);
            assert_eq!(watch.compare(now), None);
        }
    }

    #[test]
    fn a_jump_either_way_is_noticed_once() {
        for wall in [3_600_000, 4_000, -4_000] {
            let mut watch = watch();
            let now = after(&watch, 1_000, wall, None);
            assert!(matches!(watch.compare(now), Some(Noticed::Clocks(_))), "{wall}");
            let now = after(&watch, 1_000, 1_000, None);
            assert_eq!(watch.compare(now), None, "{wall}");
        }
    }

    #[test]
    fn another_identity_is_noticed_and_a_missing_one_is_not() {
        let mut watch = watch();
        let looks: [(Option<&[u8]>, bool); 6] = [
            (Some(b"a"), false),
            (Some(b"a"), false),
            (None, false),
            (Some(b"b"), true),
            (Some(b"b"), false),
            (Some(b"a"), true),
        ];
        for (identity, noticed) in looks {
            let now = after(&watch, 1_000, 1_000, identity);
            let expected = noticed.then(|| Noticed::Identity(PathBuf::from("/generation")));
            assert_eq!(watch.compare(now), expected, "{identity:?}");
        }
    }
}
