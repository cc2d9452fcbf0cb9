//! What is wrong with a configuration, where, and what to do about it: printed in the manner of a compiler.
//!
//! A diagnostic holds only text that may be shown: `source` has masked the passwords before it is made.

use std::fmt::{self, Write as _};

use crate::source::Excerpt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The daemon starts; the operator should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// The file as the operator named it.
    pub file: String,
    /// Line, from 1; `None` if it concerns the file as a whole.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// The setting as the manual names it: `cluster.networks.upstream.floating_ip`. Empty if none is concerned.
    pub path: String,
    /// What is wrong with it, continuing the path: `is outside its network`.
    pub problem: String,
    /// What was found; passwords are `***`.
    pub found: Option<String>,
    /// What is allowed.
    pub allowed: Option<String>,
    /// What to do, or why it is so.
    pub help: Vec<String>,
    /// The line concerned.
    pub excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// The first line, without its severity.
    pub fn headline(&self) -> String {
        if self.path.is_empty() { self.problem.clone() } else { format!("{} {}", self.path, self.problem) }
    }

    /// Several lines for people, ending in a line break.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { on: colour };
        let (tone, severity) = match self.severity {
            Severity::Error => (RED, "error"),
            Severity::Warning => (YELLOW, "warning"),
        };
        let number = self.line.map(|n| n.to_string()).unwrap_or_default();
        let margin = " ".repeat(number.len().max(1));
        let mut out = String::new();
        let bar = paint.with(BLUE, "|");
        let headline = paint.with(BOLD, &format!(": {}", self.headline()));
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{}{headline}", paint.with(tone, severity));
        let arrow = paint.with(BLUE, "-->");
        let place = match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.file),
            (Some(line), None) => format!("{}:{line}", self.file),
            _ => self.file.clone(),
        };
        let _ = writeln!(out, "{margin}{arrow} {place}");
        if let Some(excerpt) = &self.excerpt {
            let label = self.found.as_ref().map(|f| format!(" found {f}")).unwrap_or_default();
            let carets = paint.with(tone, &format!("{}{label}", "^".repeat(excerpt.width)));
            let _ = writeln!(out, "{margin} {bar}");
            let _ = writeln!(out, "{} {bar} {}", paint.with(BLUE, &number), excerpt.text.trim_end());
            let _ = writeln!(out, "{margin} {bar} {}{carets}", " ".repeat(excerpt.start));
        }
        let found = self.found.iter().filter(|_| self.excerpt.is_none()).map(|f| ("found", f));
        let notes = found
            .chain(self.allowed.iter().map(|a| ("allowed", a)))
            .chain(self.help.iter().map(|h| ("help", h)));
        let notes: Vec<_> = notes.collect();
        if self.excerpt.is_some() && !notes.is_empty() {
            let _ = writeln!(out, "{margin} {bar}");
        }
        for (label, note) in notes {
            let _ = writeln!(
                out,
                "{margin} {} {}{note}",
                paint.with(BLUE, "="),
                paint.with(BOLD, &format!("{label}: "))
            );
        }
        out
    }
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const BOLD: &str = "1";

struct Paint {
    on: bool,
}

impl Paint {
    fn with(&self, tone: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{tone}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
