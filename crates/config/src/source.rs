//! The file's text as it may be shown: excerpts of the one line concerned, with nothing in them that could be a password.
//!
//! Two guards, either of which would do for an ordinary file. An excerpt holds only the key and value it is about: not
//! the rest of the line, not its comment, not the lines around it. And any text that stands as a password anywhere in the
//! file is masked wherever it turns up, also where the file is broken.

use pvc_core::text::is_plain;

use crate::tree::{LONGEST_LINE, Span, Tree};

pub(crate) const MASK: &str = "***";
/// Shorter texts are not searched for in what is shown: masking every `a` would spell the password out.
const SHORTEST_SOUGHT: usize = 3;
/// Longest value shown, in characters.
const LONGEST_SHOWN: usize = 100;
/// More passwords than this make every text look like one: then no text of the file is shown.
const MAX_SECRETS: usize = 1000;

/// A stretch of one line, with a part of it underlined. Safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line as it is shown.
    pub text: String,
    /// Characters before the underlined part.
    pub start: usize,
    /// Characters underlined, at least 1.
    pub width: usize,
}

/// What of a setting is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Its key; the value is nobody's business.
    Key,
    /// Its key and value.
    Value,
    /// Its key, and where the value is.
    Secret,
}

/// The text's lines and the passwords among them.
pub(crate) struct Source<'t> {
    lines: Vec<&'t str>,
    /// Longest first, so that a password within a password is not what is found.
    secrets: Vec<String>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str, tree: &Tree) -> Self {
        let bounded =
            |line: &'t str| if line.len() > LONGEST_LINE { "" } else { line.trim_end_matches('\r') };
        let lines: Vec<&str> = text.split('\n').map(bounded).collect();
        let mut secrets = secrets_by_look(&lines);
        let named = tree.entries().filter(|(name, _)| is_secret(name)).map(|(_, item)| *item);
        for scalar in tree.scalars_below(named) {
            secrets.push(scalar.text.trim().to_owned());
            secrets.extend(scalar.text.lines().map(|line| line.trim().to_owned()));
        }
        secrets.retain(|secret| secret.chars().count() >= SHORTEST_SOUGHT);
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { lines, secrets }
    }

    /// `text` for people: passwords masked, control characters visible, not too long.
    pub(crate) fn safe(&self, text: &str) -> String {
        if self.secrets.len() > MAX_SECRETS || text.len() > LONGEST_LINE {
            return MASK.to_owned();
        }
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MASK);
            }
        }
        let visible = |c: char| match c {
            '\n' => ' ',
            c if !is_plain(c) => '\u{fffd}',
            c => c,
        };
        let mut shown: String = text.chars().map(visible).collect();
        if let Some((end, _)) = shown.char_indices().nth(LONGEST_SHOWN) {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }

    /// The excerpt of a setting whose key (if it has one) and value stand at these places.
    pub(crate) fn setting(&self, key: Option<Span>, value: Span, show: Show) -> Option<Excerpt> {
        let under = if show == Show::Key { key.unwrap_or(value) } else { value };
        let line: Vec<char> = self.lines.get(under.start.line - 1)?.chars().collect();
        let cut = |from: usize, to: usize| -> String {
            let to = to.min(line.len() + 1).max(1);
            line[from.clamp(1, to) - 1..to - 1].iter().collect()
        };
        let end_on_line = |span: Span| {
            let end = if span.end.line == span.start.line { span.end.column } else { line.len() + 1 };
            end.min(line.len() + 1)
        };
        let from =
            key.filter(|k| k.start.line == under.start.line).map_or(under.start.column, |k| k.start.column);
        let before = cut(1, from);
        let indent: String = before.chars().take_while(|c| c.is_whitespace()).collect();
        let only_dashes = before.chars().all(|c| c.is_whitespace() || c == '-');
        let mut text = if only_dashes { indent_of(&before) } else { indent_of(&indent) + "… " };
        if show != Show::Key {
            // A known setting's name is no secret, and masking it would tell that the password is the same word.
            let lead = cut(from, under.start.column);
            text.push_str(&if lead.trim_end().ends_with(':') { lead } else { self.safe(&lead) });
        }
        let start = text.chars().count();
        let mut end = under.start.column + length_of_value(&cut(under.start.column, end_on_line(under)));
        let shown = match show {
            Show::Secret => MASK.to_owned(),
            Show::Key | Show::Value => self.safe(&cut(under.start.column, end)),
        };
        let width = shown.chars().count().max(1);
        text.push_str(&shown);
        if show == Show::Key && line.get(end - 1) == Some(&':') {
            text.push(':');
            end += 1;
        }
        let after = cut(end, line.len() + 1);
        let after = after.trim_start();
        if !(after.is_empty() || after.starts_with('#')) {
            text.push_str(" …");
        }
        Some(Excerpt { text, start, width })
    }

    /// The excerpt of a spot where the text is not YAML. Nobody knows there what is a password and what is not, so only
    /// lines that look harmless are shown, and of others only the key.
    pub(crate) fn spot(&self, at: Span) -> Option<Excerpt> {
        let index = at.start.line - 1;
        let line = *self.lines.get(index)?;
        let before = self.lines[..index].iter().rev().find(|l| !l.trim().is_empty());
        let speaks_of_one = [Some(&line), before].into_iter().flatten().any(|l| is_secret(l));
        // An anchor's value may be some password's, further down.
        let harmless = looks_like_a_setting(line) && !line.contains('&') && !speaks_of_one;
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
        let text = if harmless {
            indent_of(&indent) + &self.safe(line.trim_start())
        } else {
            let key =
                line.trim_start().split_once(':').map(|(key, _)| format!("{key}: ")).unwrap_or_default();
            indent_of(&indent) + &self.safe(&key) + "…"
        };
        let start = (at.start.column - 1).min(text.chars().count());
        Some(Excerpt { text, start, width: 1 })
    }
}

/// Characters up to where a value ends on its line: what the parser calls its end may include a comment.
fn length_of_value(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| ['"', '\''].contains(c));
    let Some(quote) = quote else {
        return text.split(" #").next().unwrap_or_default().trim_end().chars().count();
    };
    let mut escaped = false;
    let inner = text.chars().skip(1).take_while(|&c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && quote == '"' && !escaped;
        !ends
    });
    (inner.count() + 2).min(text.chars().count())
}

/// What stands before the part shown: dashes and white space, a tab as one column.
fn indent_of(text: &str) -> String {
    text.chars().take(LONGEST_SHOWN).map(|c| if c == '-' { '-' } else { ' ' }).collect()
}

/// Whether a key (or a line) speaks of a password, also if it is misspelt.
pub(crate) fn is_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let slip = |word: &str| word.len() >= 2 && word.len() <= 5 && strsim::osa_distance(word, "pass") <= 1;
    ["pass", "pwd", "secret", "token", "cred"].iter().any(|word| lower.contains(word))
        || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(slip)
}

/// What follows a word like `pass` on a line, or stands on the next one: found without understanding the YAML.
fn secrets_by_look(lines: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = after_secret_word(line) else { continue };
        let next = lines[index + 1..].iter().find(|l| !l.trim().is_empty());
        let candidate = if rest.is_empty() || rest.starts_with(['|', '>', '&', '!']) {
            found.push(rest.to_owned());
            next.map_or("", |l| l.trim())
        } else {
            rest
        };
        found.push(candidate.to_owned());
        for part in [candidate.split(" #").next(), candidate.split([',', '}', ']']).next()] {
            let part = part.unwrap_or_default().trim();
            found.push(part.to_owned());
            found.push(part.trim_matches(['"', '\'']).to_owned());
        }
        found.extend(
            candidate.split_whitespace().next().map(|word| word.trim_matches(['"', '\'']).to_owned()),
        );
    }
    found
}

/// The rest of a line behind a password's key: a word that stands where keys stand, or is followed by a colon.
fn after_secret_word(line: &str) -> Option<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut start = 0;
    while let Some(found) = line[start..].find(is_word) {
        let begin = start + found;
        let end = line[begin..].find(|c| !is_word(c)).map_or(line.len(), |n| begin + n);
        let before = line[..begin].trim_end_matches([' ', '\t', '"', '\'']).chars().next_back();
        let rest = line[end..].trim_start_matches(['"', '\'', ' ', '\t']);
        let is_key = before.is_none_or(|c| "{,?-#".contains(c)) || rest.starts_with(':');
        if is_key && is_secret(&line[begin..end]) {
            return Some(rest.trim_start_matches([':', '=', ' ', '\t', '"', '\'']).trim_end());
        }
        start = end;
    }
    None
}

/// `key: value`, `key:` or `- item`, as far as one line can tell.
fn looks_like_a_setting(line: &str) -> bool {
    let body = line.trim_start();
    let key_end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    match key_end {
        Some(0) => body.starts_with("- "),
        Some(end) => body[end..].starts_with(':'),
        None => false,
    }
}
