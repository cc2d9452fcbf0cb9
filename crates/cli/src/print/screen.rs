//! A terminal as a whole, for what is shown anew again and again: lines, cut to its size. Only what differs is sent, so that it is quick over a slow line.
//!
//! What a terminal would obey is replaced in every line, but our colours; nothing else is sent than what is written here.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::{plain, table::COLOURS};

/// Another screen than the shell's, without a cursor; lines that are too long are cut, whatever this program takes for the width of a character.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const END: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// What is assumed of a terminal that does not say it.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// A terminal.
pub(crate) trait Terminal {
    fn size(&self) -> Size;
    fn send(&mut self, text: &str) -> io::Result<()>;
}

/// What it shows. When this is dropped, the terminal is as before.
pub(crate) struct Screen<T: Terminal> {
    terminal: T,
    shown: Vec<String>,
    size: Size,
}

impl<T: Terminal> Screen<T> {
    /// Takes a terminal.
    pub(crate) fn begin(mut terminal: T) -> io::Result<Self> {
        let size = terminal.size();
        terminal.send(BEGIN)?;
        Ok(Self { terminal, shown: Vec::new(), size })
    }

    /// Its size now.
    pub(crate) fn size(&self) -> Size {
        self.terminal.size()
    }

    /// Shows these lines, as many as it has.
    pub(crate) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let size = self.terminal.size();
        let mut sent = String::new();
        if size != self.size {
            self.size = size;
            self.shown.clear();
            sent.push_str("\x1b[2J");
        }
        let lines: Vec<String> = lines.iter().take(size.rows).map(|line| cut(line, size.columns)).collect();
        for row in 0..lines.len().max(self.shown.len()) {
            let line = lines.get(row).map_or("", String::as_str);
            if self.shown.get(row).map_or("", String::as_str) != line {
                // Writing to a text cannot fail.
                let _ = write!(sent, "\x1b[{};1H{line}\x1b[K", row + 1);
            }
        }
        self.shown = lines;
        if sent.is_empty() { Ok(()) } else { self.terminal.send(&sent) }
    }
}

impl<T: Terminal> Drop for Screen<T> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.terminal.send(END);
    }
}

/// The line without what a terminal would obey, in so many columns. Colours take none, and end with it.
fn cut(line: &str, columns: usize) -> String {
    let line = plain(line, true);
    let mut shown = String::with_capacity(line.len());
    let (mut rest, mut left, mut coloured) = (line.as_str(), columns, false);
    while let Some(c) = rest.chars().next() {
        if let Some(code) = COLOURS.iter().find(|code| rest.starts_with(**code)) {
            coloured = *code != COLOURS[3];
            shown.push_str(code);
            rest = &rest[code.len()..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        // A tabulator would jump, and a line feed would begin another line.
        let c = if matches!(c, '\t' | '\n') { ' ' } else { c };
        let width = width(c);
        if width > left {
            break;
        }
        left -= width;
        shown.push(c);
    }
    if coloured {
        shown.push_str(COLOURS[3]);
    }
    shown
}

/// At most so many columns: of what is not Latin, Greek or Cyrillic, or one of our own signs, two are counted.
fn width(c: char) -> usize {
    if c < '\u{530}'
        || matches!(c, '\u{2010}'..='\u{2027}' | '\u{2190}'..='\u{21ff}' | '\u{2500}'..='\u{259f}')
    {
        1
    } else {
        2
    }
}

/// The process's own terminal, of which each key is heard at once.
pub(crate) struct Own {
    before: Termios,
}

impl Own {
    /// `None`: there is none, or not on both sides.
    pub(crate) fn take() -> io::Result<Option<Self>> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Terminal for Own {
    fn size(&self) -> Size {
        let said = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        said.map_or(USUAL, |size| Size { columns: size.ws_col.into(), rows: size.ws_row.into() })
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // As above. What was typed, or what the terminal answered to a guest that asked it, is for nobody any more.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}
