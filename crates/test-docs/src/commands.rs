//! The command lines in a Markdown document, parsed by the program that they name.
//!
//! A document names commands in fenced code without a language, or with `sh` or `console`, and in
//! inline code. It may write them in the notation of a manual:
//!
//! - `[--wait]` may be left out; `(a|b)` and `a|b` are alternatives. Each alternative is parsed.
//! - `…` and `OPTION` stand for more of the same, and for what the document leaves out. After an
//!   option, `…` stands for its value.
//! - A value with a word in capitals, or with `<`, `$` or `…`, is a placeholder for any value.
//!
//! Inline code may leave out what a command requires, and the value of its last option, because
//! prose only names them.

use clap::{
    Arg, Command,
    error::{ContextKind, ErrorKind},
};

/// A command line of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The words after the program's name.
    pub words: Vec<String>,
    /// Whether it may leave out what the command requires.
    pub is_partial: bool,
}

/// The command lines of the Markdown document `text` that begin with the words `program`.
#[must_use]
pub fn lines(text: &str, program: &[&str]) -> Vec<Line> {
    let (mut found, mut prose, mut block) = (Vec::new(), String::new(), None::<(bool, String)>);
    for line in text.lines() {
        match (line.trim().strip_prefix("```"), &mut block) {
            (Some(language), None) => {
                block = Some((["", "sh", "console"].contains(&language), String::new()))
            }
            (Some(_), Some((is_shell, code))) => {
                if *is_shell {
                    let code = code.replace("\\\n", " ");
                    found.extend(code.lines().flat_map(|line| in_code(line, program, false)));
                }
                block = None;
            }
            (None, Some((_, code))) => {
                code.push_str(line);
                code.push('\n');
            }
            // Inline code goes on in the next line of its paragraph, but not beyond a table's row.
            (None, None) => {
                let ends = line.trim().is_empty() || line.trim_start().starts_with(['|', '#']);
                prose.push_str(&line.replace("\\|", "|"));
                prose.push(if ends { '\n' } else { ' ' });
            }
        }
    }
    for paragraph in prose.lines() {
        for code in paragraph.split('`').skip(1).step_by(2) {
            if code.split_whitespace().zip(program).filter(|(word, name)| word == *name).count()
                == program.len()
            {
                found.extend(in_code(code, program, true));
            }
        }
    }
    found
}

/// The command lines in one line of code.
fn in_code(code: &str, program: &[&str], is_inline: bool) -> Vec<Line> {
    let mut words = words(code);
    words.truncate(words.iter().position(|word| word.starts_with('#')).unwrap_or(words.len()));
    let mut found = Vec::new();
    for at in 0..words.len() {
        let Some(rest) = words.get(at..).and_then(|rest| strip(rest, program)) else { continue };
        // The name of a namespace (`kubectl -n duet`) is no command.
        if at > 0 && words.get(at - 1).is_some_and(|before| before.starts_with('-')) {
            continue;
        }
        let (mut depth, mut own) = (0_usize, Vec::new());
        for word in rest {
            match word.as_str() {
                "[" | "(" => depth += 1,
                "]" | ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = ["|", ";", "&&", "||", ">", ">>", "<", "2>", "&"].contains(&word.as_str());
            if depth == 0 && ends {
                break;
            }
            own.push(word.trim_end_matches(';').to_owned());
        }
        let is_partial = is_inline || own.iter().any(|word| word.contains('…') || word == "OPTION");
        found.extend(expand(&own).into_iter().map(|words| Line { words, is_partial }));
    }
    found
}

fn strip<'a>(words: &'a [String], program: &[&str]) -> Option<&'a [String]> {
    let (name, rest) = words.split_at_checked(program.len())?;
    (name == program).then_some(rest)
}

/// The words of a line: quotes are taken off, and brackets around words are words of their own.
fn words(code: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    let mut inner = 0_usize;
    for letter in code.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => (quote, is_word) = (Some(letter), true),
            (None, _) if letter.is_whitespace() => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                (is_word, inner) = (false, 0);
            }
            (None, '[' | '(') if !is_word => words.push(letter.to_string()),
            (None, ']' | ')') if inner == 0 => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                words.push(letter.to_string());
                is_word = false;
            }
            _ => {
                match (quote, letter) {
                    (None, '[' | '(') => inner += 1,
                    (None, ']' | ')') => inner -= 1,
                    _ => {}
                }
                word.push(letter);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// A part of a command line: each of its alternatives is a list of words.
struct Part {
    alternatives: Vec<Vec<String>>,
}

/// Command lines without notation: the first has the first alternative of every part, and each
/// other one another alternative of one part.
fn expand(words: &[String]) -> Vec<Vec<String>> {
    let mut parts: Vec<Part> = Vec::new();
    let before = std::iter::once("").chain(words.iter().map(String::as_str));
    let is_said = |(word, before): &(&String, &str)| match word.as_str() {
        "…" => before.starts_with("--"),
        "OPTION" => false,
        _ => true,
    };
    let mut words = words.iter().zip(before).filter(is_said).map(|(word, _)| word);
    while let Some(word) = words.next() {
        if word == "[" || word == "(" {
            let mut depth = 1;
            let mut inner: Vec<Vec<String>> = vec![Vec::new()];
            for word in words.by_ref() {
                match word.as_str() {
                    "[" | "(" => depth += 1,
                    "]" | ")" => depth -= 1,
                    _ => {}
                }
                match (depth, word.as_str()) {
                    (0, _) => break,
                    (1, "|") => inner.push(Vec::new()),
                    _ => {
                        if let Some(last) = inner.last_mut() {
                            last.push(word.clone());
                        }
                    }
                }
            }
            let alternatives = inner.iter().flat_map(|words| expand(words)).collect();
            parts.push(Part { alternatives });
        } else {
            let is_choice = word.contains('|') && !word.contains(['=', ',', ':', '[']);
            let alternatives = match is_choice {
                true => word.split('|').map(|one| vec![one.to_owned()]).collect(),
                false => vec![vec![word.clone()]],
            };
            parts.push(Part { alternatives });
        }
    }
    let most = parts.iter().map(|part| part.alternatives.len()).max().unwrap_or(1);
    let nth = |at: usize| {
        let own = |part: &Part| part.alternatives.get(at).or_else(|| part.alternatives.first()).cloned();
        parts.iter().filter_map(own).flatten().collect()
    };
    (0..most).map(nth).collect()
}

/// Whether `value` stands for any value.
#[must_use]
pub fn is_placeholder(value: &str) -> bool {
    let is_capital = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
    value.contains(['<', '$', '…']) || value.split(|c: char| !c.is_alphanumeric()).any(is_capital)
}

/// Why `program` does not understand the line, or `None` when it does.
#[must_use]
pub fn fault(program: &Command, line: &Line) -> Option<String> {
    let arguments = || std::iter::once(program.get_name()).chain(line.words.iter().map(String::as_str));
    let is_fine = |kind: ErrorKind| match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => line.is_partial,
        _ => false,
    };
    let shown = |error: clap::Error| {
        let text = error.render().to_string();
        format!("`{}`: {}", line.words.join(" "), text.lines().next().unwrap_or_default())
    };
    let invalid = |error: &clap::Error| error.get(ContextKind::InvalidValue).map(ToString::to_string);
    // Without their parsers, values stop no parse before its end.
    match of_texts(program.clone()).try_get_matches_from(arguments()) {
        Err(error) if is_fine(error.kind()) => return None,
        // A value is missing.
        Err(error) if line.is_partial && invalid(&error).is_some_and(|value| value.is_empty()) => {
            return None;
        }
        Err(error) => return Some(shown(error)),
        Ok(_) => {}
    }
    match program.clone().try_get_matches_from(arguments()) {
        Err(error) if [ErrorKind::InvalidValue, ErrorKind::ValueValidation].contains(&error.kind()) => {
            invalid(&error).filter(|value| !is_placeholder(value)).map(|_| shown(error))
        }
        Err(error) => Some(shown(error)),
        Ok(_) => None,
    }
}

/// The command with any text as the value of its options.
fn of_texts(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = command.mut_args(|arg: Arg| {
        if arg.get_action().takes_values() { arg.value_parser(clap::value_parser!(String)) } else { arg }
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, of_texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Run `tool run --count N
[--fast]` or `tool run`, never `tools run`.

| `tool card show\\|verify NAME` |
### `tool run (--count 1 | --all) [OPTION …]`
```sh
sudo -u x tool run \\
  --count 3 | cat  # tool no
kubectl -n tool create
```
```sql
tool no
```
";

    fn program() -> Command {
        let count = Arg::new("count").long("count").value_parser(clap::value_parser!(u8)).required(true);
        let flag = |name: &'static str| Arg::new(name).long(name).action(clap::ArgAction::SetTrue);
        let named = |name: &'static str| Command::new(name).arg(Arg::new("name").required(true));
        Command::new("tool")
            .subcommand(Command::new("run").arg(count).arg(flag("fast")).arg(flag("all")))
            .subcommand(Command::new("card").subcommand(named("show")).subcommand(named("verify")))
    }

    fn line(text: &str, is_partial: bool) -> Line {
        Line { words: text.split(' ').map(str::to_owned).collect(), is_partial }
    }

    #[test]
    fn lines_are_found_and_expanded() {
        let expected = [
            line("run --count 3", false),
            line("run --count N --fast", true),
            line("run", true),
            line("card show NAME", true),
            line("card verify NAME", true),
            line("run --count 1", true),
            line("run --all", true),
        ];
        assert_eq!(lines(TEXT, &["tool"]), expected);
    }

    #[test]
    fn what_a_program_does_not_understand_is_a_fault() {
        for fine in [
            line("run --count 3", false),
            line("run --count N", false),
            line("run --fast --count <n>", false),
            line("run", true),
            line("card", true),
            line("run --count …", false),
            line("run --count", true),
            line("--help", false),
        ] {
            assert_eq!(fault(&program(), &fine), None, "{fine:?}");
        }
        for wrong in [
            line("run", false),
            line("go", true),
            line("run --slow", true),
            line("run --count N --slow", true),
            line("run --count", false),
            line("run --count three", false),
            line("card show NAME more", true),
        ] {
            assert!(fault(&program(), &wrong).is_some(), "{wrong:?}");
        }
    }
}
