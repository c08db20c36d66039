//! SQL in Rust sources: a statement names the columns that it reads. One that asks for every column
//! breaks, or reads what is not used, when a later migration adds a column.

/// The lines, from one, with a `*` among the columns of a `SELECT` or a `RETURNING`.
pub(crate) fn stars(text: &str) -> Vec<usize> {
    let mut lines: Vec<usize> = ["SELECT", "RETURNING"]
        .into_iter()
        .flat_map(|keyword| text.match_indices(keyword).map(move |(at, _)| at + keyword.len()))
        .filter(|at| has_star(text.get(*at..).unwrap_or_default()))
        .map(|at| text.get(..at).unwrap_or_default().matches('\n').count() + 1)
        .collect();
    lines.sort_unstable();
    lines
}

/// Whether the columns that `text` begins with have a `*`. In `COUNT(*)` and in a product it is
/// none of them: it follows neither a comma, nor a table's name and a full stop, nor nothing.
fn has_star(text: &str) -> bool {
    let columns = text.split(['"', ';']).next().unwrap_or_default();
    let columns = columns.split("FROM").next().unwrap_or_default();
    if !columns.starts_with(char::is_whitespace) {
        return false;
    }
    columns.match_indices('*').any(|(at, _)| {
        let before = columns.get(..at).unwrap_or_default().trim_end();
        before.is_empty() || before.ends_with([',', '.'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_among_columns_is_found_and_no_other() {
        // Put together, so that this file has none.
        let star = |before: &str, after: &str| format!("query(\"{before} *{after}\")\n");
        for found in [
            star("SELECT", " FROM wallets"),
            star("SELECT\n    ", " FROM wallets"),
            star("SELECT id,", ""),
            star("UPDATE wallets SET enrolled = 1 RETURNING", ""),
            format!("\"SELECT wallets.{}, revision FROM wallets\"", '*'),
        ] {
            assert_eq!(stars(&format!("// first\n{found}")), [2], "{found}");
        }
        for fine in [
            "\"SELECT COUNT(*), MAX(sequence) FROM records\"",
            "\"SELECT page_count * page_size FROM pragma_page_count\"",
            "\"SELECT id FROM wallets\"; let six = 2 * 3;",
            "/// The SELECTED *one*.",
        ] {
            assert!(stars(fine).is_empty(), "{fine}");
        }
    }
}
