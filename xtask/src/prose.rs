//! The checks of `cargo xtask test fmt` beside the formatters. They cover the width of prose, words
//! that hide the actor, links between documents, the command lines of tasks in documents, the
//! versions of the broker that are named, the columns that SQL names ([`sql`]), and the subjects of
//! commits.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use duet_test_docs::commands;

use crate::{
    clocks, install,
    run::{command, output, probe, root},
    sql,
};

/// The widest line of prose: Markdown outside tables, code and links, and comments.
const COLUMNS: usize = 100;

/// The longest subject of a commit, in characters.
const SUBJECT: usize = 72;

/// The last commit before subjects were checked. Subjects before it may break the rules.
const FIRST_CHECKED: &str = "aa93363";

/// The most findings to print. The rest is only counted.
const SHOWN: usize = 40;

/// Words that hide the actor, and openings that make a comment depend on its neighbour.
const UNCLEAR: [&str; 7] =
    ["whoever", "whomever", "somebody", "nobody", "what came of", "what became of", "/// The same,"];

/// Documents about the past, which are never rewritten.
const RECORDS: [&str; 2] = ["CHANGELOG.md", "docs/measurements/"];

/// Where the broker's version may be named: what operators install from and read.
const DEPLOYED: [&str; 4] = ["deploy/", "docs/", "nats.conf", "README.md"];

/// How far behind the server's name its version may stand, in characters.
const NAME_TO_VERSION: usize = 40;

/// Checks every file that git tracks. `program` knows the tasks that documents may name.
pub(crate) fn check(program: &clap::Command) -> Result<()> {
    if probe("git", &["rev-parse", "HEAD"]).is_none() {
        println!("git knows no repository here: prose, links, SQL and commits are not checked");
        return Ok(());
    }
    let mut findings = Vec::new();
    let files = output(command("git").args(["ls-files", "-z"]))?;
    let files: BTreeSet<&str> = files.split('\0').filter(|file| !file.is_empty()).collect();
    let pinned = install::nats_server().context("xtask/wheels/nats-server.txt names no version")?;
    for file in &files {
        let path = root().join(file);
        if DEPLOYED.iter().any(|place| file.starts_with(place))
            && !RECORDS.iter().any(|record| file.starts_with(record))
            && let Ok(text) = fs::read_to_string(&path)
        {
            let found = servers(&text, pinned).into_iter();
            findings.extend(found.map(|(line, what)| format!("{file}:{line}: {what}")));
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_markdown = extension == "md";
        if !is_markdown && !["rs", "ts", "tsx", "mjs"].contains(&extension) {
            continue;
        }
        // The file was removed, but the removal is not committed yet.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let found = if is_markdown { markdown(&text) } else { comments(&text) };
        if !RECORDS.iter().any(|record| file.starts_with(record)) {
            findings.extend(found.into_iter().map(|(line, what)| format!("{file}:{line}: {what}")));
        }
        if extension == "rs" {
            let stars = sql::stars(&text).into_iter();
            findings.extend(stars.map(|line| format!("{file}:{line}: name the columns instead of a `*`")));
            let asks = clocks::asks(file, &text).into_iter();
            findings.extend(asks.map(|line| format!("{file}:{line}: take the time from the module `clock`")));
        }
        if is_markdown {
            findings.extend(links(&path, &text)?.into_iter().map(|what| format!("{file}: {what}")));
            findings.extend(tasks(&text, program).into_iter().map(|what| format!("{file}: {what}")));
        }
    }
    findings.extend(subjects()?);
    if findings.is_empty() {
        return Ok(());
    }
    let mut report = String::new();
    for finding in findings.iter().take(SHOWN) {
        let _ = write!(report, "\n  {finding}");
    }
    bail!("{} findings in prose, SQL and commits; the first are:{report}", findings.len())
}

/// The number of a line, from one, and the fault in it.
type Finding = (usize, String);

/// The faults in the prose of a Markdown document.
fn markdown(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let may_be_wide =
                line.trim_start().starts_with('|') || line.contains("](") || line.contains("://");
            prose(number, line, may_be_wide, &mut findings);
        }
    }
    findings
}

/// The faults in the comments of a source file.
fn comments(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let start = line.trim_start();
        if start.starts_with("//") || start.starts_with("* ") || start.starts_with("/* ") {
            let may_be_wide = start.contains("//! |") || start.contains("/// |") || start.contains("://");
            prose(number, line, may_be_wide, &mut findings);
        }
    }
    findings
}

fn prose(number: usize, line: &str, may_be_wide: bool, findings: &mut Vec<Finding>) {
    let width = line.chars().count();
    if width > COLUMNS && !may_be_wide {
        findings.push((number, format!("{width} columns, {COLUMNS} at most")));
    }
    let lower = line.to_lowercase();
    for words in UNCLEAR {
        let unclear = words.to_lowercase();
        let is_there = lower.match_indices(&unclear).any(|(at, _)| {
            let letter = |text: Option<char>| text.is_some_and(char::is_alphanumeric);
            let (before, after) = (lower.get(..at).unwrap_or_default(), lower.get(at + unclear.len()..));
            !letter(before.chars().next_back()) && !letter(after.unwrap_or_default().chars().next())
        });
        if is_there {
            findings.push((number, format!("\"{words}\": name the actor")));
        }
    }
}

/// The versions of `nats-server` that a file names and that are not `pinned`, in images, comments
/// and prose.
fn servers(text: &str, pinned: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let lower = line.to_lowercase();
        let mut named = BTreeSet::new();
        for (at, name) in lower.match_indices("nats") {
            let before = lower.get(..at).and_then(|before| before.chars().next_back());
            // `async-nats`, `DUET_NATS_URL` and `--nats-url` are other things.
            if before.is_some_and(|letter| letter.is_alphanumeric() || ['-', '_'].contains(&letter)) {
                continue;
            }
            let rest = lower.get(at + name.len()..).unwrap_or_default();
            // A version that begins near the name is read to its end.
            let end = rest
                .char_indices()
                .skip(NAME_TO_VERSION)
                .find(|(_, letter)| !letter.is_ascii_digit() && *letter != '.')
                .map_or(rest.len(), |(end, _)| end);
            let sentence = rest.get(..end).and_then(|near| near.split(". ").next()).unwrap_or_default();
            let numbers = sentence.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
            let versions = numbers.map(|number| number.trim_matches('.'));
            // An address has four parts.
            let version = versions.into_iter().find(|number| (1..=2).contains(&number.matches('.').count()));
            named.extend(version.filter(|version| *version != pinned).map(str::to_owned));
        }
        let finding = |version| (number, format!("nats-server {version}, but {pinned} is the pinned one"));
        findings.extend(named.into_iter().map(finding));
    }
    findings
}

/// The links of a document to files or headings that do not exist.
fn links(document: &Path, text: &str) -> Result<Vec<String>> {
    let folder = document.parent().context("a document lies in a folder")?;
    let mut findings = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else { continue };
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path: PathBuf = if file.is_empty() { document.to_owned() } else { folder.join(file) };
            if !path.exists() {
                findings.push(format!("the link to {target} leads nowhere"));
            } else if !anchor.is_empty() && path.extension().is_some_and(|extension| extension == "md") {
                let there = fs::read_to_string(&path)?;
                if !anchors(&there).contains(anchor) {
                    findings.push(format!("the link to {target} names no heading"));
                }
            }
        }
    }
    Ok(findings)
}

/// The anchors of a document's headings, in GitHub's form.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let mut anchors = BTreeSet::new();
    for heading in headings.map(|line| line.trim_start_matches('#').trim().to_lowercase()) {
        let kept =
            heading.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
        let anchor: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(repeated).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The command lines in a document that this program does not understand.
fn tasks(text: &str, program: &clap::Command) -> Vec<String> {
    let lines = commands::lines(text, &["cargo", "xtask"]);
    lines.iter().filter_map(|line| commands::fault(program, line)).collect()
}

/// Commits since [`FIRST_CHECKED`] whose subject is too long or ends in a full stop. Empty in a
/// copy without that commit or without git.
fn subjects() -> Result<Vec<String>> {
    if probe("git", &["cat-file", "-e", FIRST_CHECKED]).is_none() {
        println!("no commit {FIRST_CHECKED} here: subjects of commits are not checked");
        return Ok(Vec::new());
    }
    let range = format!("{FIRST_CHECKED}..HEAD");
    let log = output(command("git").args(["log", "--no-merges", "--format=%h %s", &range]))?;
    Ok(log.lines().filter_map(|line| line.split_once(' ')).filter_map(subject).collect())
}

fn subject((commit, subject): (&str, &str)) -> Option<String> {
    let length = subject.chars().count();
    if length > SUBJECT {
        return Some(format!("commit {commit}: the subject has {length} characters, {SUBJECT} at most"));
    }
    subject.ends_with('.').then(|| format!("commit {commit}: the subject ends in a full stop"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_lines_and_unclear_words_are_found_outside_code_and_tables() {
        let wide = "wide ".repeat(21);
        let text = format!("fine\n{wide}\n| {wide}|\n```\n{wide}\n```\nNobody knows.\nsomebodys\n");
        let lines: Vec<usize> = markdown(&text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 7]);
        let code = format!("let x = \"{wide}\";\n// {wide}\n    /// The same, but for whoever asks.\n");
        let lines: Vec<usize> = comments(&code).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 3, 3]);
    }

    #[test]
    fn one_server_is_named_and_no_other() {
        for other in [
            "FROM docker.io/library/nats:2.12-alpine AS server",
            "image: nats:2.15",
            "Each host needs `nats-server` 2.11 or later and",
            "#     nats-server -c nats.conf             # 2.11 or later",
            "(Jepsen, NATS 2.12.1, 2025)",
            "`nats-server` before 2.15.0 lost writes",
        ] {
            assert_eq!(servers(other, "2.15.1").len(), 1, "{other}");
        }
        for fine in [
            "FROM docker.io/library/nats:2.15.1-alpine AS server",
            "`nats-server` 2.15.1 or later",
            "#     nats-server -c nats.conf             # 2.15.1 or later",
            "the `nats-jetstream` trigger. It needs KEDA 2.12 or later",
            "DUET_NATS_URL=tls://10.0.0.1:4222, async-nats 0.51.0",
            "nats-server listens on 10.0.0.1",
        ] {
            assert_eq!(servers(fine, "2.15.1"), [], "{fine}");
        }
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("a.md");
        fs::write(folder.path().join("b.md"), "# One `two`: three\n\n## Again\n## Again\n").unwrap();
        let text = "# Here\n[1](b.md) [2](b.md#one-two-three) [3](#here) [4](b.md#again-1) [5](https://x.example/y)\n\
                    [6](c.md) [7](b.md#four) [8](#there)\n```\n[9](none.md)\n```\n";
        fs::write(&document, text).unwrap();
        assert_eq!(links(&document, text).unwrap().len(), 3);
    }

    #[test]
    fn only_tasks_that_exist_are_named() {
        let program = <crate::Arguments as clap::CommandFactory>::command();
        let tasks = |text| tasks(text, &program);
        assert_eq!(tasks("`cargo xtask test`, `cargo xtask tset`, `cargo xtask --help`").len(), 1);
        assert_eq!(tasks("`cargo xtask demo --once`, `cargo xtask demo --twice`").len(), 1);
        assert_eq!(tasks("`cargo xtask test SUITE`, `cargo xtask test suite`").len(), 1);
    }

    #[test]
    fn subjects_are_short_and_have_no_full_stop() {
        assert_eq!(subject(("1", "Add a check")), None);
        assert!(subject(("1", "Add a check.")).is_some());
        assert!(subject(("1", &"a".repeat(73))).is_some());
    }
}
