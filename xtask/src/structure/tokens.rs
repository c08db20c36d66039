//! Reads as much of Rust's syntax as the search for circles needs.

/// `code` without comments and literals. The path in `#[serde(with = "…")]` stays.
pub(super) fn without_texts(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::with_capacity(code.len());
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => {
                let (length, text) = literal(rest, &kept);
                if kept.ends_with("with = ") {
                    kept += text;
                    // A module as well as a function: a path goes through it.
                    kept += "::with";
                }
                length
            }
            // A character, and not a lifetime.
            '\'' if rest.starts_with("'\\") => {
                rest.get(3..).and_then(|after| after.find('\'')).map_or(rest.len(), |end| end + 4)
            }
            '\'' if rest.chars().nth(2) == Some('\'') => rest.chars().take(3).map(char::len_utf8).sum(),
            _ => {
                kept.push(next);
                next.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    kept
}

/// The length of the text literal at the start of `code`, and the text. `before` says whether it is
/// a raw one.
fn literal<'a>(code: &'a str, before: &str) -> (usize, &'a str) {
    let name = before.trim_end_matches('#');
    let is_raw =
        name.ends_with('r') && !name.trim_end_matches(['b', 'c', 'r']).ends_with(char::is_alphanumeric);
    let end = if is_raw {
        let closing = format!("\"{}", "#".repeat(before.len() - name.len()));
        code.get(1..).and_then(|inner| inner.find(&closing)).map(|end| (end + 1, closing.len()))
    } else {
        let mut is_escaped = false;
        code.char_indices().skip(1).find_map(|(at, character)| {
            let is_end = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            is_end.then_some((at, 1))
        })
    };
    let (end, closing) = end.unwrap_or((code.len(), 0));
    (end + closing, code.get(1..end).unwrap_or_default())
}

/// The names, `::`, and single signs of `code`.
pub(super) fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(next) = rest.chars().next() {
        let length = if is_of_name(next) {
            rest.find(|character| !is_of_name(character)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            next.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    tokens
}

fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

pub(super) fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(|first| is_of_name(first) && !first.is_numeric())
}

/// The token before the one at `at`.
pub(super) fn before(tokens: &[String], at: usize) -> &str {
    at.checked_sub(1).and_then(|at| tokens.get(at)).map_or("", String::as_str)
}

/// The position of the bracket that closes the one at `open`.
pub(super) fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// `tokens` without the items that only tests compile.
pub(super) fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let end = closing(tokens, at + 1);
        let attribute = tokens.get(at + 1..end).unwrap_or_default();
        let has = |name: &str| attribute.iter().any(|token| token == name);
        if token == "#" && attribute.get(1).is_some_and(|name| name == "cfg") && has("test") && !has("not") {
            at = end + 1;
            // To the end of the item: a semicolon, or the end of a block.
            while let Some(token) = tokens.get(at) {
                at = match token.as_str() {
                    "(" | "[" | "{" => closing(tokens, at) + 1,
                    _ => at + 1,
                };
                if token == ";" || token == "{" {
                    break;
                }
            }
        } else {
            kept.push(token.clone());
            at += 1;
        }
    }
    kept
}

/// Reads the tree of a `use` declaration from `at` on, below `prefix`, into `imported`. Returns the
/// position after it.
pub(super) fn import(
    tokens: &[String],
    mut at: usize,
    prefix: &[String],
    imported: &mut Vec<(String, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut alias = None;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                let end = closing(tokens, at);
                at += 1;
                while at < end {
                    at = import(tokens, at, &path, imported) + 1;
                }
                return end + 1;
            }
            "," | ";" | "}" => break,
            "as" => alias = tokens.get(at + 1).cloned(),
            // `a::{self}` is the module `a`, never a function of that name.
            "self" if !path.is_empty() => {
                alias = path.last().cloned();
                path.push(token.clone());
            }
            name if alias.is_none() && (is_name(name) || name == "*") => path.push(name.to_owned()),
            _ => {}
        }
        at += 1;
    }
    if let Some(visible) = alias.or_else(|| path.last().cloned()) {
        imported.push((visible, path));
    }
    at
}
