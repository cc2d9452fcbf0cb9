//! One event as one line of text, for people. Never more than one line and no control characters, whatever a guest, libvirt or a
//! client put into a text: a log that can be forged or that moves the reader's cursor is no log.

use std::{
    error::Error,
    fmt::{self, Write as _},
    time::SystemTime,
};

use chrono::{DateTime, Local};
use pvc_core::text::is_plain;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

/// Longer texts are cut: nobody reads more, and the queue is bounded in lines.
const LONGEST: usize = 8 * 1024;

/// The letter of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    Warning,
    Info,
    Keepalive,
    Debug,
    Trace,
}

impl Kind {
    fn of(target: &str, level: Level) -> Self {
        match level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO if target == super::KEEPALIVE => Self::Keepalive,
            Level::INFO => Self::Info,
            Level::DEBUG => Self::Debug,
            Level::TRACE => Self::Trace,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Error => 'E',
            Self::Warning => 'W',
            Self::Info => 'I',
            Self::Keepalive => 'K',
            Self::Debug => 'D',
            Self::Trace => 'T',
        }
    }

    /// ANSI colour of the letter; errors and warnings are coloured whole.
    fn colour(self) -> &'static str {
        match self {
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[33m",
            Self::Info => "\x1b[32m",
            Self::Keepalive => "\x1b[36m",
            Self::Debug | Self::Trace => "\x1b[2m",
        }
    }

    /// The priority as journald reads it from the start of a line (sd-daemon(3)).
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info | Self::Keepalive => 6,
            Self::Debug | Self::Trace => 7,
        }
    }
}

/// One line, not yet dressed for an outlet.
#[derive(Debug)]
pub(super) struct Line {
    at: SystemTime,
    kind: Kind,
    text: String,
}

/// How lines are dressed.
#[derive(Debug, Clone)]
pub(super) struct Dress {
    pub(super) node: String,
    pub(super) colours: bool,
    pub(super) dates: bool,
}

impl Line {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut words = Words::default();
        event.record(&mut words);
        let meta = event.metadata();
        Self::own(Kind::of(meta.target(), *meta.level()), words.sentence())
    }

    /// A line of the log's own.
    pub(super) fn own(kind: Kind, text: String) -> Self {
        #[allow(clippy::disallowed_methods, reason = "the log of a real machine, whatever the clock says")]
        let at = SystemTime::now();
        Self { at, kind, text }
    }

    /// Writes the line with its line feed. `journal` adds the priority that journald strips.
    pub(super) fn dress(&self, dress: &Dress, journal: bool, out: &mut String) {
        let (dim, colour, plain) =
            if dress.colours { ("\x1b[2m", self.kind.colour(), "\x1b[0m") } else { ("", "", "") };
        if journal {
            let _ = write!(out, "<{}>", self.kind.priority());
        }
        if dress.dates {
            let at = DateTime::<Local>::from(self.at).format("%Y-%m-%d %H:%M:%S%.3f");
            let _ = write!(out, "{dim}{at}{plain} ");
        }
        let whole = matches!(self.kind, Kind::Error | Kind::Warning);
        let (after_letter, after_text) = if whole { ("", plain) } else { (plain, "") };
        let _ = writeln!(
            out,
            "{} {colour}{}{after_letter} {}{after_text}",
            dress.node,
            self.kind.letter(),
            self.text
        );
    }
}

/// An error with all its causes: `could not start VM x: libvirt: no such file`.
pub fn chain(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent wrappers repeat their cause word for word.
        if !text.ends_with(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

/// The fields of an event by their role in the sentence.
#[derive(Default)]
struct Words {
    subject: String,
    message: String,
    error: String,
    rest: String,
}

impl Words {
    fn sentence(self) -> String {
        let Self { subject, message, error, rest } = self;
        let mut text = subject;
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
        if !rest.is_empty() {
            let _ = write!(text, " ({rest})");
        }
        if !error.is_empty() {
            let _ = write!(text, ": {error}");
        }
        one_line(&text)
    }

    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            "error" => self.error.write_fmt(value),
            name @ ("vm" | "node" | "network") => {
                let comma = if self.subject.is_empty() { "" } else { ", " };
                write!(self.subject, "{comma}{name} {value}")
            }
            name => {
                let comma = if self.rest.is_empty() { "" } else { ", " };
                write!(self.rest, "{comma}{name}={value}")
            }
        };
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, format_args!("{}", chain(value)));
    }
}

/// The text with only plain characters (others escaped, so that nothing is hidden), cut if very long.
fn one_line(text: &str) -> String {
    let text = text.trim_end();
    let cut = text.floor_char_boundary(LONGEST);
    let mut line = String::with_capacity(cut);
    for c in text[..cut].chars() {
        if is_plain(c) {
            line.push(c);
        } else {
            line.extend(c.escape_default());
        }
    }
    if cut < text.len() {
        let _ = write!(line, " … ({} more bytes)", text.len() - cut);
    }
    line
}
