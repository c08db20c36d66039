//! Parses the command lines of the documents.

use std::{fs, path::Path};

use clap::Command;
use duet_test_docs::commands::{Line, fault, lines};

use super::duet;

/// The documents that name commands, relative to the repository: files, and folders of files.
const DOCUMENTS: [&str; 4] = ["README.md", "SECURITY.md", "docs", "deploy"];

fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = Vec::new();
    for name in DOCUMENTS {
        let path = root.join(name);
        let files = match path.is_dir() {
            true => fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect(),
            false => vec![path],
        };
        let pages =
            files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"));
        documents.extend(pages.map(|file| (file.display().to_string(), fs::read_to_string(&file).unwrap())));
    }
    documents
}

/// The lines of the manual that leave out the program's name, as its tables do.
fn without_name(text: &str, duet: &Command) -> Vec<Line> {
    let groups = duet.get_subcommands().filter(|group| group.has_subcommands() && group.get_name() != "help");
    groups
        .flat_map(|group| {
            let named = |line: Line| {
                let is_long = !line.words.is_empty();
                let words = [vec![group.get_name().to_owned()], line.words].concat();
                is_long.then_some(Line { words, is_partial: true })
            };
            lines(text, &[group.get_name()]).into_iter().filter_map(named)
        })
        .collect()
}

#[test]
fn the_command_lines_of_documents_are_understood() {
    let duet = duet();
    let (mut faults, mut count) = (Vec::new(), 0);
    for (file, text) in documents() {
        let mut found = lines(&text, &["duet"]);
        if file.ends_with("docs/cli.md") {
            found.extend(without_name(&text, &duet));
        }
        count += found.len();
        faults.extend(
            found.iter().filter_map(|line| fault(&duet, line)).map(|fault| format!("{file}: {fault}")),
        );
    }
    assert!(faults.is_empty(), "{} of {count} lines:\n{}", faults.len(), faults.join("\n"));
    assert!(count > 150, "only {count} lines");
}
