//! What is not in the program: the tools of cheating parties.
//!
//! The protocol crate always compiles its door (`duet_protocol::door`), so that the program and its
//! tests share one build. The linker has to leave the door out of a program that calls none of its
//! functions.

#![expect(non_snake_case, reason = "tests are named <subject>__should_<result>")]

use std::{env, fs, path::Path};

use anyhow::Result;
use object::{Object as _, ObjectSymbol as _};

/// Parts of mangled names: the door, and everything in the adversary crate.
const CHEATING: [&str; 2] = ["13duet_protocol4door", "14duet_adversary"];

/// A part of the mangled names in a module that every party runs.
const ORDINARY: &str = "13duet_protocol9responder";

/// The names in a program's symbol table.
fn symbols(program: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(program)?;
    let file = object::File::parse(bytes.as_slice())?;
    Ok(file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect())
}

fn holding<'a>(symbols: &'a [String], part: &str) -> Vec<&'a str> {
    symbols.iter().map(String::as_str).filter(|name| name.contains(part)).collect()
}

#[test]
fn the_program__should_have_no_tool_of_a_cheating_party() -> Result<()> {
    let shipped = symbols(&duet_harness::programs::duet()?)?;
    assert!(!holding(&shipped, ORDINARY).is_empty(), "the program has no symbols to search");
    for part in CHEATING {
        assert_eq!(holding(&shipped, part), [""; 0], "{part}");
    }
    // The search finds the tools where they are used: in this program.
    let tests = symbols(&env::current_exe()?)?;
    for part in CHEATING {
        assert!(!holding(&tests, part).is_empty(), "{part}");
    }
    Ok(())
}
