//! Generated parts of the repository's documents.
//!
//! A test generates a table from the code and passes it to [`part`]. The part of a Markdown file
//! between `<!-- generated: NAME -->` and `<!-- end -->` must then hold that table. With
//! `DUET_WRITE_DOCS=1` in its environment the test writes it there instead. [`file`] does the same
//! with a whole file.
//!
//! [`Item`] reads the documentation of an enum's variants from its source. So a table says what the
//! code's own documentation says. [`commands`] finds the command lines of a document and parses
//! them as the program would. [`metrics`] parses what a process shows at `/metrics`.

pub mod commands;
mod item;
pub mod metrics;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

pub use item::{Field, Item, Variant};

/// The variable that makes tests write documents instead of comparing them.
const WRITE: &str = "DUET_WRITE_DOCS";

/// Tests of one program may write different parts of one file.
static FILES: Mutex<()> = Mutex::new(());

/// The file at `path`, which is relative to the repository.
fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Compares the generated part `name` of the Markdown file `path` with `text`, or writes it.
///
/// # Errors
/// When the file has no such part, or another text in it.
pub fn part(path: &str, name: &str, text: &str) -> Result<()> {
    let _only_writer = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(in_repository(path)).with_context(|| path.to_owned())?;
    let replaced = replace(&page, name, text).with_context(|| path.to_owned())?;
    settle(path, &page, &replaced)
}

/// Compares the whole file `path` with `text`, or writes it.
///
/// # Errors
/// When the file holds another text.
pub fn file(path: &str, text: &str) -> Result<()> {
    let _only_writer = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = fs::read_to_string(in_repository(path)).unwrap_or_default();
    settle(path, &kept, text)
}

fn settle(path: &str, kept: &str, generated: &str) -> Result<()> {
    if std::env::var_os(WRITE).is_some() {
        return fs::write(in_repository(path), generated).with_context(|| path.to_owned());
    }
    let differs = kept.lines().zip(generated.lines()).find(|(kept, generated)| kept != generated);
    let (kept_line, generated_line) = differs.unwrap_or_default();
    ensure!(
        kept == generated,
        "{path} differs from the code; run this test with {WRITE}=1 and look at what changed\n\
         kept:      {kept_line}\ngenerated: {generated_line}"
    );
    Ok(())
}

/// `page` with `text` as its part `name`.
fn replace(page: &str, name: &str, text: &str) -> Result<String> {
    let begin = format!("<!-- generated: {name} -->\n");
    let (before, rest) = page.split_once(&begin).with_context(|| format!("no part begins with {begin}"))?;
    let (_, after) =
        rest.split_once("<!-- end -->").with_context(|| format!("the part {name} has no end"))?;
    ensure!(!after.contains(&begin), "there are two parts {name}");
    Ok(format!("{before}{begin}{}\n<!-- end -->{after}", text.trim_end()))
}

/// A Markdown table. Cells may contain `|`.
#[must_use]
pub fn table<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", heading.join(" | "), "---|".repeat(N));
    for row in rows {
        let cells = row.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// `text` with links where it names documents of the repository. The links are for a page in
/// `docs/`.
#[must_use]
pub fn linked(text: &str) -> String {
    let link = |word: &str| {
        let name = word.trim_matches(['(', ')', ',', ';', '.', ':']);
        let file = name.split('#').next().unwrap_or_default();
        if Path::new(file).extension().is_none_or(|extension| extension != "md") || name.contains("](") {
            return word.to_owned();
        }
        let (shown, target) = match name.strip_prefix("docs/") {
            Some(page) => (file.trim_start_matches("docs/"), page.to_owned()),
            None => (file, format!("../{name}")),
        };
        word.replace(name, &format!("[{shown}]({target})"))
    };
    text.split(' ').map(link).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_and_nothing_else() {
        let page =
            "before\n<!-- generated: a -->\nold\n<!-- end -->\n<!-- generated: b -->\n<!-- end -->\nafter\n";
        let replaced = replace(page, "a", "new\n").unwrap();
        assert_eq!(replaced, page.replace("old", "new"));
        let replaced = replace(page, "b", "| x |").unwrap();
        assert_eq!(replaced, page.replace("b -->\n", "b -->\n| x |\n"));
        for (wrong, name) in [
            (page, "c"),
            ("<!-- generated: a -->\nold\n", "a"),
            ("<!-- generated: a -->\n<!-- end -->\n<!-- generated: a -->\n<!-- end -->\n", "a"),
        ] {
            assert!(replace(wrong, name, "new").is_err(), "{wrong}");
        }
    }

    #[test]
    fn documents_are_linked() {
        assert_eq!(
            linked("See docs/errors.md#locked, SECURITY.md (deploy/README.md) and `x.rs`."),
            "See [errors.md](errors.md#locked), [SECURITY.md](../SECURITY.md) \
             ([deploy/README.md](../deploy/README.md)) and `x.rs`."
        );
    }

    #[test]
    fn a_table_may_contain_bars() {
        assert_eq!(table(["a", "b"], [["1|2".into(), "–".into()]]), "| a | b |\n|---|---|\n| 1\\|2 | – |\n");
    }
}
