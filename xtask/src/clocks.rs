//! The time of day in the orchestrator: none of its files asks the machine for it. They take the
//! broker's time from its module `clock`, because one machine's clock may be wrong.

/// The folder that the rule is for.
const FOLDER: &str = "orchestrator/src/";

/// The lines of the file, from one, that ask the machine for the time of day.
pub(crate) fn asks(file: &str, text: &str) -> Vec<usize> {
    if !file.starts_with(FOLDER) {
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
    fn no_file_of_the_orchestrator_asks_the_machine() {
        let text = "let started = Instant::now();\nlet now = SystemTime::now();\n";
        assert_eq!(asks("orchestrator/src/work.rs", text), [2]);
        assert!(asks("party/src/clock.rs", text).is_empty());
        assert_eq!(asks("orchestrator/src/work.rs", "OffsetDateTime::now_utc()"), [1]);
    }
}
