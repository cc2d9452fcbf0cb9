//! Where results go: standard output, as text for people or JSON for programs. Colours only where a person sees them.

pub(crate) mod table;

use std::io::{self, IsTerminal, Write};

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
        self.format == Format::Json
    }

    /// Whether words are coloured.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Whether a person reads the result.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes text as it is.
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
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
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::Machine { doing: "write the result as JSON".into(), cause: e.into() })?;
        self.write(&(text + "\n"))
    }

    /// Writes the outcome of a change: a line, or the API's `{"message": …}`.
    pub(crate) fn message(&self, message: &str, notes: &[String]) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Message<'a> {
            message: &'a str,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            notes: &'a [String],
        }
        if self.is_json() {
            return self.json(&Message { message, notes });
        }
        self.write(&format!("{message}\n"))?;
        notes.iter().try_for_each(|note| self.write(&format!("note: {note}\n")))
    }

    /// Shows a passing line to a person who waits; nothing elsewhere.
    pub(crate) fn progress(&self, line: &str) {
        if self.watched {
            // Erase the line, then write: a shorter text leaves nothing of a longer one.
            let short: String = line.chars().filter(|c| !c.is_control()).take(120).collect();
            eprint!("\r\x1b[K{short}");
        }
    }

    /// Removes the passing line.
    pub(crate) fn progress_done(&self) {
        self.progress("");
    }

    /// Says something beside the result, which must not mix with it.
    pub(crate) fn aside(&self, line: &str) {
        self.progress_done();
        eprintln!("pvc: {line}");
    }
}
