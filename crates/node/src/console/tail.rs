//! The last lines of a console, in bounded memory, whatever a guest prints.
//! Knows no file and no store. Bytes are kept as they came, so that a character split between two reads is whole again when the
//! text is asked for; only NUL is dropped: it shows nothing, and a log that was truncated under its writer begins with a hole of it.

use std::collections::VecDeque;

/// The longest text, in bytes: well below ZooKeeper's limit of 1 MiB for a whole request.
pub(super) const LONGEST_TEXT: usize = 900 * 1024;

/// The longest line, in bytes. Of a longer one the end is kept: progress bars rewrite one line for hours.
pub(super) const LONGEST_LINE: usize = 64 * 1024;

/// Begins a line whose beginning was cut off.
pub(super) const CUT: &str = "[...] ";

/// What a console printed, or that nobody knows what it printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Printed<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What comes next does not follow what came before.
    Gap,
}

/// The last lines that were printed.
#[derive(Debug)]
pub(super) struct Tail {
    limit: usize,
    /// Complete lines, each with its line feed.
    lines: VecDeque<u8>,
    count: usize,
    /// The line that is being printed.
    last: Vec<u8>,
    /// The beginning of `last` is missing.
    cut: bool,
}

impl Tail {
    /// Keeps `limit` lines.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, lines: VecDeque::new(), count: 0, last: Vec::new(), cut: false }
    }

    /// Takes what was printed.
    pub(super) fn take(&mut self, printed: Printed<'_>) {
        match printed {
            Printed::Bytes(bytes) => self.push(bytes),
            Printed::Gap => *self = Self { cut: true, ..Self::new(self.limit) },
        }
    }

    fn push(&mut self, printed: &[u8]) {
        for part in printed.split_inclusive(|&b| b == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            self.last.extend(text.iter().filter(|&&b| b != 0));
            if self.last.len() > 2 * LONGEST_LINE || (ends && self.last.len() > LONGEST_LINE) {
                self.last.drain(..self.last.len() - LONGEST_LINE);
                self.cut = true;
            }
            if ends {
                self.end_line();
            }
        }
    }

    /// About how many bytes its text has.
    pub(super) fn weight(&self) -> usize {
        (self.lines.len() + self.last.len()).min(LONGEST_TEXT)
    }

    /// The last lines as text of at most [`LONGEST_TEXT`] bytes, the unfinished one included. What is not UTF-8 appears as U+FFFD;
    /// the beginning of a character whose end was not printed yet does not appear.
    pub(super) fn text(&self) -> String {
        let shown = &self.last[..self.last.len() - unfinished(&self.last)];
        let has_last = !shown.is_empty();
        let mut bytes = Vec::with_capacity(self.lines.len() + CUT.len() + shown.len());
        let (front, back) = self.lines.as_slices();
        bytes.extend_from_slice(front);
        bytes.extend_from_slice(back);
        if has_last && self.count >= self.limit {
            bytes.drain(..first_line(bytes.iter()));
        }
        if has_last && self.limit > 0 {
            push_line(&mut bytes, self.cut, shown);
        }
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if text.len() > LONGEST_TEXT {
            // A replacement character is longer than the byte it stands for, so only the text can be measured.
            let from = text.ceil_char_boundary(text.len() - LONGEST_TEXT);
            let from = text[from..].find('\n').map_or(from, |i| from + i + 1);
            text.drain(..from);
        }
        text
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.last);
        if self.cut {
            self.cut = false;
            let mut whole = Vec::with_capacity(CUT.len() + line.len() + 1);
            push_line(&mut whole, true, &line);
            line = whole;
        }
        line.push(b'\n');
        self.lines.extend(&line);
        self.count += 1;
        while self.count > self.limit || self.lines.len() > LONGEST_TEXT {
            self.lines.drain(..first_line(self.lines.iter()));
            self.count -= 1;
        }
        // The buffer is used again by the next line, unless it became large.
        line.clear();
        line.shrink_to(4096);
        self.last = line;
    }
}

fn push_line(to: &mut Vec<u8>, cut: bool, line: &[u8]) {
    let mut line = line;
    if cut {
        to.extend_from_slice(CUT.as_bytes());
        // A character of which only the end is left.
        let broken = line.iter().take(3).take_while(|&&b| b & 0b1100_0000 == 0b1000_0000).count();
        line = &line[broken..];
    }
    to.extend_from_slice(line);
}

/// The length of the first line, with its line feed.
fn first_line<'a>(mut bytes: impl ExactSizeIterator<Item = &'a u8>) -> usize {
    let all = bytes.len();
    bytes.position(|&b| b == b'\n').map_or(all, |i| i + 1)
}

/// How many bytes at the end are the beginning of a character that may still be completed.
fn unfinished(bytes: &[u8]) -> usize {
    let near_end = &bytes[bytes.len().saturating_sub(3)..];
    let Some(lead) = near_end.iter().rposition(|&b| b & 0b1100_0000 != 0b1000_0000) else {
        return 0;
    };
    match std::str::from_utf8(&near_end[lead..]) {
        Err(e) if e.valid_up_to() == 0 && e.error_len().is_none() => near_end.len() - lead,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tail_of(limit: usize, pushes: &[&[u8]]) -> String {
        let mut tail = Tail::new(limit);
        for push in pushes {
            tail.push(push);
        }
        tail.text()
    }

    #[test]
    fn the_last_lines_are_kept_and_the_unfinished_one_counts() {
        assert_eq!(tail_of(2, &[b"one\ntwo\nthree\n"]), "two\nthree\n");
        assert_eq!(tail_of(2, &[b"one\ntwo\nthree\nlog", b"in: "]), "three\nlogin: ");
        assert_eq!(tail_of(2, &[b"\n\n\n"]), "\n\n");
        assert_eq!(tail_of(0, &[b"one\ntwo"]), "");
    }

    #[test]
    fn a_character_split_between_reads_is_not_damaged() {
        let mut tail = Tail::new(10);
        tail.push(b"gr\xc3");
        assert_eq!(tail.text(), "gr", "half a character is not shown");
        tail.push(b"\xbc\xc3\x9f \xf0\x9f");
        assert_eq!(tail.text(), "grüß ");
        tail.push(b"\x98\x80\n");
        assert_eq!(tail.text(), "grüß 😀\n");
    }

    #[test]
    fn bytes_that_are_not_text_survive_as_replacement_characters_and_controls_as_they_are() {
        assert_eq!(tail_of(9, &[b"a\xffb\xc3\nc\x1b[1m\td\r\n"]), "a\u{fffd}b\u{fffd}\nc\x1b[1m\td\r\n");
        assert_eq!(tail_of(9, &[b"\0\0a\0b\n\0"]), "ab\n");
    }

    #[test]
    fn of_an_overlong_line_the_end_is_kept_and_marked() {
        let mut tail = Tail::new(5);
        tail.push(b"before\n");
        for _ in 0..100 {
            tail.push(&[b'x'; 10_000]);
        }
        tail.push(b"end");
        let text = tail.text();
        let last = text.strip_prefix("before\n").unwrap();
        assert!(last.starts_with(CUT) && last.ends_with("xend"), "{}", last.len());
        assert!((LONGEST_LINE..=2 * LONGEST_LINE + CUT.len()).contains(&last.len()), "{}", last.len());
        tail.push(b"\nafter\n");
        let text = tail.text();
        assert_eq!(text.len(), "before\n".len() + CUT.len() + LONGEST_LINE + "\nafter\n".len());
    }

    #[test]
    fn the_text_never_comes_near_the_stores_limit() {
        let mut tail = Tail::new(usize::MAX);
        for _ in 0..40_000 {
            tail.push(&[0xff; 99]);
            tail.push(b"\n");
        }
        let text = tail.text();
        assert!(text.len() <= LONGEST_TEXT && text.len() > LONGEST_TEXT - 300, "{}", text.len());
        assert!(text.lines().all(|l| l.chars().count() == 99), "lines are cut whole");
        assert!(tail.lines.len() <= LONGEST_TEXT && tail.count < 10_000, "and memory is bounded too");
    }

    #[test]
    fn after_a_gap_the_first_line_is_marked_as_cut() {
        let mut tail = Tail::new(5);
        tail.push(b"old\n");
        tail.take(Printed::Gap);
        tail.push(b"\x9f\x98rest\nnext\n");
        assert_eq!(tail.text(), format!("{CUT}rest\nnext\n"));
    }

    proptest! {
        #[test]
        fn the_tail_does_not_depend_on_how_the_output_was_cut_into_reads(
            bytes in prop::collection::vec(prop_oneof![
                8 => any::<u8>(), 2 => Just(b'\n'), 1 => Just(0xc3), 1 => Just(0xbc), 1 => Just(0xf0), 1 => Just(0x9f)], 0..400),
            cuts in prop::collection::vec(0..400_usize, 0..20),
            limit in 1..8_usize,
        ) {
            let mut tail = Tail::new(limit);
            let mut ends: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let mut from = 0;
            for to in ends {
                tail.push(&bytes[from..to]);
                from = to;
            }
            // Half a character at the very end is the only thing that may be missing.
            let kept: Vec<u8> = bytes.iter().copied().filter(|&b| b != 0).collect();
            let whole = kept.utf8_chunks().enumerate().fold(String::new(), |text, (_, chunk)| {
                let incomplete = std::str::from_utf8(chunk.invalid()).err().is_some_and(|e| e.error_len().is_none());
                let at_end = kept.ends_with(chunk.invalid()) && chunk.invalid().as_ptr_range().end == kept.as_ptr_range().end;
                let mark = if chunk.invalid().is_empty() || (incomplete && at_end) { "" } else { "\u{fffd}" };
                text + chunk.valid() + mark
            });
            let lines: Vec<&str> = whole.split_inclusive('\n').collect();
            let expected = lines[lines.len().saturating_sub(limit)..].concat();
            prop_assert_eq!(tail.text(), expected);
        }
    }
}
