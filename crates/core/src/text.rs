//! Which characters of untrusted text may reach a person. A terminal obeys control characters; others move, hide or reorder what
//! stands beside them, so that a name can look like another name.

/// Whether a character only shows itself: no control character (C0, DEL, C1), no line or paragraph separator (U+2028, U+2029), nothing
/// that turns the direction of the text (UAX #9) or is invisible by itself.
pub fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text on one line, with `·` in place of each character that [`is_plain`] refuses.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { '·' }).collect()
}

/// The first of some names, and how many more there are.
pub fn some(names: &[&str]) -> String {
    const NAMED: usize = 5;
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_hides_is_replaced() {
        for c in [
            '\0', '\n', '\r', '\t', '\x1b', '\x7f', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}', '\u{202e}',
            '\u{2066}', '\u{200b}', '\u{feff}',
        ] {
            assert_eq!(one_line(&format!("a{c}b")), "a·b", "{c:?}");
        }
        assert_eq!(one_line("é 漢字 🎉 … ·"), "é 漢字 🎉 … ·");
    }
}
