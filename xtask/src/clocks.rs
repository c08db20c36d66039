//! The time of day in the orchestrator: its module `clock` alone asks the machine for it. All
//! others take the broker's time from there, because one machine's clock may be wrong.

/// The folder that the rule is for, and its one file that may ask.
const FOLDER: &str = "orchestrator/src/";
const CLOCK: &str = "orchestrator/src/clock.rs";

/// The lines of the file, from one, that ask the machine for the time of day.
pub(crate) fn asks(file: &str, text: &str) -> Vec<usize> {
    if !file.starts_with(FOLDER) || file == CLOCK {
        return Vec::new();
    }
    let asks = |line: &str| {
        ["SystemTime::now", "UtcDateTime::now", "OffsetDateTime::now"].iter().any(|call| line.contains(call))
    };
    (1..).zip(text.lines()).filter(|(_, line)| asks(line)).map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clock_of_the_orchestrator_asks_the_machine() {
        let text = "let started = Instant::now();\nlet now = SystemTime::now();\n";
        assert_eq!(asks("orchestrator/src/work.rs", text), [2]);
        assert!(asks("orchestrator/src/clock.rs", text).is_empty());
        assert!(asks("party/src/clock.rs", text).is_empty());
        assert_eq!(asks("orchestrator/src/work.rs", "OffsetDateTime::now_utc()"), [1]);
    }
}
