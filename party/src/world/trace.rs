//! What happened in a run, as a hash and, on request, as text.

use core::fmt::Display;

pub(super) struct Trace {
    hash: u64,
    is_shown: bool,
}

impl Trace {
    pub(super) const fn new(is_shown: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, is_shown }
    }

    /// FNV-1a over every line.
    pub(super) fn line(&mut self, at_ms: u64, line: impl Display) {
        let line = format!("{at_ms} {line}\n");
        if self.is_shown {
            print!("{line}");
        }
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }
}
