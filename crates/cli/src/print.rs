//! Where results go: standard output, as text for people or JSON for programs. Colours only where a person sees them.
//!
//! Everything that `pvc` prints passes here, whoever wrote it into the state tree: what a terminal would obey is replaced
//! ([`plain`]), in JSON escaped. Only what an operator sends into a file or a pipe to have it byte for byte is not ([`Out::verbatim`]).

pub(crate) mod ends;
pub(crate) mod guest;
pub(crate) mod screen;
pub(crate) mod table;
mod unseen;
mod yaml;

use std::io::{self, IsTerminal, Write};

use pvc_core::text::{is_plain, one_line};
use pvc_operate::Answer;
use serde::Serialize;

use crate::{args::Format, failure::Failure};

/// The output of a command.
pub(crate) struct Out {
    format: Format,
    colour: bool,
    terminal: bool,
    /// Whether a person watches standard error.
    watched: bool,
    sink: Sink,
}

enum Sink {
    Stdout,
    #[cfg(test)]
    Memory(std::sync::Mutex<String>),
}

impl Out {
    /// The process's own output.
    pub(crate) fn to_stdout(format: Format) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal();
        Self {
            format,
            colour: terminal && !no_colour,
            terminal,
            watched: io::stderr().is_terminal(),
            sink: Sink::Stdout,
        }
    }

    /// Collects what is written.
    #[cfg(test)]
    pub(crate) fn captured(format: Format) -> Self {
        Self {
            format,
            colour: false,
            terminal: false,
            watched: false,
            sink: Sink::Memory(std::sync::Mutex::default()),
        }
    }

    /// What was written so far.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        match &self.sink {
            Sink::Stdout => String::new(),
            Sink::Memory(text) => text.lock().unwrap().clone(),
        }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format != Format::Table
    }

    /// Whether words are coloured.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Whether a person reads the result.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes lines of text.
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
        self.put(&plain(text, self.colour))
    }

    /// Writes what is not ours, a definition or a console: byte for byte into a file or a pipe, as plain text to a terminal.
    pub(crate) fn verbatim(&self, text: &str) -> Result<(), Failure> {
        if self.terminal { self.write(text) } else { self.put(text) }
    }

    fn put(&self, text: &str) -> Result<(), Failure> {
        let written = match &self.sink {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            }
            #[cfg(test)]
            Sink::Memory(memory) => {
                memory.lock().unwrap().push_str(text);
                Ok(())
            }
        };
        written.map_err(|cause| Failure::Machine { doing: "write the result".into(), cause })
    }

    /// Writes a value as indented JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let failed =
            |e: serde_json::Error| Failure::Machine { doing: "write the result".into(), cause: e.into() };
        if self.format == Format::Yaml {
            return self.put(&yaml::text(&serde_json::to_value(value).map_err(failed)?));
        }
        let text = serde_json::to_string_pretty(value).map_err(failed)?;
        self.put(&(escaped(&text) + "\n"))
    }

    /// Writes a value as JSON on one line.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        if self.format == Format::Yaml {
            self.put("---\n")?;
            return self.json(value);
        }
        let text = serde_json::to_string(value)
            .map_err(|e| Failure::Machine { doing: "write the result as JSON".into(), cause: e.into() })?;
        self.put(&(escaped(&text) + "\n"))
    }

    /// Writes the outcome of a change: a line and notes, or the API's `{"message": …}`.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(answer);
        }
        self.write(&format!("{}\n", one_line(&answer.message)))?;
        answer.notes.iter().try_for_each(|note| self.write(&format!("note: {}\n", one_line(note))))
    }

    /// Shows a passing line to a person who waits; nothing elsewhere.
    pub(crate) fn progress(&self, line: &str) {
        if self.watched {
            // Erase the line, then write: a shorter text leaves nothing of a longer one.
            let short: String = line.chars().take(120).collect();
            say(&format!("\r\x1b[K{}", one_line(&short)));
        }
    }

    /// Removes the passing line.
    pub(crate) fn progress_done(&self) {
        self.progress("");
    }

    /// Says something beside the result, which must not mix with it.
    pub(crate) fn aside(&self, line: &str) {
        self.progress_done();
        complain(line);
    }
}

/// Says on standard error what went wrong. Further lines are indented: none of them looks like one of ours.
pub(crate) fn complain(text: &str) {
    say(&format!("pvc: {}\n", plain(text, false).trim_end().replace('\n', "\n  ")));
}

/// A terminal that is gone is told nothing, and ends nothing by that.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Asks on standard error; the answer is typed on the same line.
pub(crate) fn ask(question: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{} ", one_line(question))?;
    stderr.flush()
}

/// The same, of what nobody shall see; `None`: Ctrl-C was pressed. The terminal is as before when this returns.
pub(crate) fn ask_unseen(question: &str) -> io::Result<Option<String>> {
    let typed = unseen::read(&io::stdin(), || ask(question));
    say("\n");
    typed
}

/// The text with `·` in place of what a terminal would obey. Lines, tabs and, where asked for, our colours stay.
fn plain(text: &str, colour: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let code = table::COLOURS.iter().find(|code| colour && rest.starts_with(**code));
        let taken = code.map_or(c.len_utf8(), |code| code.len());
        if code.is_some() || is_plain(c) || matches!(c, '\n' | '\t') {
            shown.push_str(&rest[..taken]);
        } else {
            shown.push('·');
        }
        rest = &rest[taken..];
    }
    shown
}

/// JSON in which only plain characters stand for themselves. Line feeds stand between values only: within them they are escaped already.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_plain(c) || c == '\n' {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{9b}2J\u{7f}\u{202e}b\u{2028}c\x1b[31m\u{e0041}\n\td";

    #[test]
    fn nothing_that_a_terminal_obeys_is_written() {
        let out = Out::captured(Format::Table);
        out.write(HOSTILE).unwrap();
        assert_eq!(out.text(), "a·2J··b·c·[31m·\n\td");
        assert_eq!(plain("\x1b[31mred\x1b[0m\x1b[5m", true), "\x1b[31mred\x1b[0m·[5m");
    }

    #[test]
    fn json_says_the_same_in_plain_characters() {
        let out = Out::captured(Format::Json);
        out.json(&[HOSTILE]).unwrap();
        let text = out.text();
        assert!(text.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' '), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [HOSTILE]);
    }

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let out = Out::captured(Format::Table);
        let answer = Answer { message: "VM a\npvc: b".into(), notes: vec!["c\nd".into()] };
        out.answer(&answer).unwrap();
        assert_eq!(out.text(), "VM a·pvc: b\nnote: c·d\n");
    }
}
