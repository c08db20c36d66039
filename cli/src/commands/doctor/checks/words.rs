//! What several checks say alike.

use crate::commands::doctor::{facts::Unasked, finding::Finding};

/// The finding that something was not asked.
pub(super) fn unasked(subject: &str, Unasked { why, remedy }: &Unasked) -> Finding {
    Finding::skipped(subject, why, remedy)
}

/// A number with its noun: `1 node`, `3 nodes`.
pub(super) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// A length of time, in the largest unit of which it has at least two.
pub(super) fn span(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let unit = UNITS.into_iter().find(|(length, _)| milliseconds >= 2 * length);
    let (length, unit) = unit.unwrap_or((1, "ms"));
    format!("{} {unit}", milliseconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (milliseconds, text) in [
            (1_999, "1999 ms"),
            (60_000, "60 s"),
            (300_000, "5 min"),
            (7_200_000, "2 h"),
            (432_000_000, "5 days"),
        ] {
            assert_eq!(span(milliseconds), text);
        }
    }
}
