//! Aligned columns, and pairs of a word and its value. Each cell is one bounded line of plain characters: a name or reason in the
//! state tree neither writes to the operator's terminal nor makes a line that looks like another row.

use std::fmt::Write as _;

use pvc_core::text::one_line;

/// Longest text of a cell or line, in characters.
const LONGEST: usize = 1000;

/// Widest that a column is padded to, in characters: one long cell does not push every other row's cells away.
const WIDEST: usize = 60;

/// How a cell looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    Good,
    Busy,
    Bad,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    look: Look,
}

impl Cell {
    /// A cell of that look.
    pub(crate) fn new(text: impl AsRef<str>, look: Look) -> Self {
        Self { text: printable(text.as_ref()), look }
    }

    /// A word of the state tree in the colour of its meaning.
    pub(crate) fn state(word: &str) -> Self {
        let look = match word {
            "start" | "run" | "ready" | "primary" => Look::Good,
            "failed" | "dead" | "?" => Look::Bad,
            "shutdown" | "restart" | "migrate" | "delete" | "init" | "flush" | "unflush" => Look::Busy,
            _ => Look::Plain,
        };
        Self::new(word, look)
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Look::Plain)
    }
}

/// Lays rows out below a header.
pub(crate) fn table(header: &[&str], rows: &[Vec<Cell>], colour: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.max().unwrap_or(0).min(WIDEST).max(header[column].chars().count())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let heads: Vec<Cell> = header.iter().map(|head| Cell::from(head.to_uppercase())).collect();
    for row in std::iter::once(&heads).chain(rows) {
        line(&mut text, row, &widths, colour);
    }
    text
}

fn line(text: &mut String, row: &[Cell], widths: &[usize], colour: bool) {
    let last = row.len().saturating_sub(1);
    for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
        let (on, off) = codes(cell.look, colour);
        let padding = if i == last { 0 } else { width.saturating_sub(cell.text.chars().count()) + 2 };
        // Writing to a String cannot fail.
        let _ = write!(text, "{on}{}{off}{:padding$}", cell.text, "");
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// Lays pairs out, one a line, values aligned.
pub(crate) fn pairs(pairs: &[(&str, Cell)], colour: bool) -> String {
    let width = pairs.iter().map(|(word, _)| word.chars().count() + 3).max().unwrap_or(0);
    let mut text = String::new();
    for (word, cell) in pairs {
        let (on, off) = codes(cell.look, colour);
        let head = format!("{word}:");
        let _ = writeln!(text, "{}", format!("{head:width$}{on}{}{off}", cell.text).trim_end());
    }
    text
}

/// A cell by itself.
pub(crate) fn words(cell: &Cell, colour: bool) -> String {
    let (on, off) = codes(cell.look, colour);
    format!("{on}{}{off}", cell.text)
}

/// Green, yellow, red and their end: all that is ever asked of a terminal.
pub(super) const COLOURS: [&str; 4] = ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"];

fn codes(look: Look, colour: bool) -> (&'static str, &'static str) {
    let [green, yellow, red, end] = COLOURS;
    match look {
        _ if !colour => ("", ""),
        Look::Plain => ("", ""),
        Look::Good => (green, end),
        Look::Busy => (yellow, end),
        Look::Bad => (red, end),
    }
}

/// The text on one line, cut where nobody would read on.
pub(crate) fn printable(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => one_line(&text[..end]) + "…",
        None => one_line(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let rows = [
            vec!["web1".into(), Cell::state("start"), "".into()],
            vec!["m".into(), "stop".into(), "x".into()],
        ];
        assert_eq!(
            table(&["name", "state", "note"], &rows, false),
            "NAME  STATE  NOTE\nweb1  start\nm     stop   x\n"
        );
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let rows = [vec![Cell::state("start"), "a".into()], vec![Cell::state("failed"), "b".into()]];
        let text = table(&["state", "x"], &rows, true);
        assert_eq!(text, "STATE   X\n\x1b[32mstart\x1b[0m   a\n\x1b[31mfailed\x1b[0m  b\n");
    }

    #[test]
    fn text_of_the_state_tree_cannot_command_the_terminal() {
        assert_eq!(pairs(&[("reason", "a\x1b[2Jb\nc".into())], true), "reason:  a·[2Jb·c\n");
    }
}
