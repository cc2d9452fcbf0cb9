//! Single values as their authors meant them: the words and numbers of YAML 1.1 that Python's reader knew, with or
//! without quotes. What could mean two things is refused, never guessed.

use crate::tree::Scalar;

/// Why a text is not the number that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotWhole {
    /// Not a number at all.
    NoNumber,
    /// A number written in a way that is easily misread; the plain decimal to write instead, where there is one.
    WriteAs(&'static str, Option<u64>),
    /// Below zero.
    Negative,
    /// More than 64 bits.
    TooLarge,
}

impl Scalar {
    /// `None`, `null`, `~` and nothing at all. In quotes too, since files are often written by templates that quote.
    pub(crate) fn is_none(&self) -> bool {
        ["", "~", "none", "null"].iter().any(|word| self.text.trim().eq_ignore_ascii_case(word))
    }

    /// The same, but what stands in quotes is text: for names and passwords.
    pub(crate) fn is_unquoted_none(&self) -> bool {
        self.plain && self.is_none()
    }

    /// The words of YAML 1.1 as Python knows them (`y` and `n` are not among them).
    pub(crate) fn boolean(&self) -> Option<bool> {
        let is = |words: [&str; 3]| {
            let text = self.text.trim();
            words.iter().any(|word| {
                text == *word || text == word.to_ascii_uppercase() || {
                    let (first, rest) = word.split_at(1);
                    text.strip_prefix(&first.to_ascii_uppercase()) == Some(rest)
                }
            })
        };
        if is(["true", "yes", "on"]) {
            Some(true)
        } else if is(["false", "no", "off"]) {
            Some(false)
        } else {
            None
        }
    }

    /// A whole number in plain decimal: `5432`, `"5432"`, `1_500`, `+5`.
    pub(crate) fn whole(&self) -> Result<u64, NotWhole> {
        let text = self.text.trim();
        let digits = text.strip_prefix('+').unwrap_or(text);
        if let Some(negative) = text.strip_prefix('-') {
            return Err(if is_digits(negative) { NotWhole::Negative } else { NotWhole::NoNumber });
        }
        if let Some(refusal) = other_notation(digits) {
            return Err(refusal);
        }
        let plain = digits.replace('_', "");
        if !is_digits(&plain) || !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(NotWhole::NoNumber);
        }
        plain.parse().map_err(|_| NotWhole::TooLarge)
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Numbers that YAML 1.1, YAML 1.2 and people read differently.
fn other_notation(text: &str) -> Option<NotWhole> {
    let radix = |digits: &str, radix| u64::from_str_radix(&digits.replace('_', ""), radix).ok();
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return radix(hex, 16).map(|n| NotWhole::WriteAs("hexadecimal", Some(n)));
    }
    if let Some(binary) = lower.strip_prefix("0b") {
        return radix(binary, 2).map(|n| NotWhole::WriteAs("binary", Some(n)));
    }
    if let Some(octal) = lower.strip_prefix("0o") {
        return radix(octal, 8).map(|n| NotWhole::WriteAs("octal", Some(n)));
    }
    if text.len() > 1 && text.starts_with('0') && is_digits(text) {
        return Some(NotWhole::WriteAs("octal to some readers, with its leading zero", None));
    }
    if text.split(':').count() > 1 && text.split(':').all(is_digits) {
        return Some(NotWhole::WriteAs("in base 60 to some readers", None));
    }
    if !is_digits(text) && text.starts_with(|c: char| c.is_ascii_digit()) {
        let value = text.replace('_', "").parse::<f64>().ok()?;
        let whole = value.fract() == 0.0 && (0.0..1e15).contains(&value);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked one line above")]
        let whole = whole.then_some(value as u64);
        return (text.contains(['.', 'e', 'E']))
            .then_some(NotWhole::WriteAs("a floating-point number", whole));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.into(), plain: true }
    }

    #[test]
    fn the_words_that_python_reads_as_truth_values_are_truth_values_here() {
        for yes in ["True", "true", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"] {
            assert_eq!(plain(yes).boolean(), Some(true), "{yes}");
        }
        for no in ["False", "false", "FALSE", "no", "No", "NO", "off", "Off", "OFF"] {
            assert_eq!(plain(no).boolean(), Some(false), "{no}");
        }
        for neither in ["y", "n", "1", "0", "tRue", "None", "", "ja", "ÿes"] {
            assert_eq!(plain(neither).boolean(), None, "{neither}");
        }
    }

    #[test]
    fn quoting_a_truth_value_does_not_change_it() {
        assert_eq!(Scalar { text: "False".into(), plain: false }.boolean(), Some(false));
    }

    #[test]
    fn whole_numbers_are_decimal_and_everything_that_could_mean_two_things_is_refused() {
        use NotWhole::{Negative, NoNumber, TooLarge, WriteAs};
        let octal = "octal to some readers, with its leading zero";
        for (text, number) in [
            ("5432", Ok(5432)),
            ("0", Ok(0)),
            ("+5", Ok(5)),
            ("1_500", Ok(1500)),
            (" 7 ", Ok(7)),
            ("010", Err(WriteAs(octal, None))),
            ("0x5dc", Err(WriteAs("hexadecimal", Some(1500)))),
            ("0o17", Err(WriteAs("octal", Some(15)))),
            ("0b11", Err(WriteAs("binary", Some(3)))),
            ("1e3", Err(WriteAs("a floating-point number", Some(1000)))),
            ("5.0", Err(WriteAs("a floating-point number", Some(5)))),
            ("0.5", Err(WriteAs("a floating-point number", None))),
            ("1:30", Err(WriteAs("in base 60 to some readers", None))),
            ("-1", Err(Negative)),
            ("18446744073709551616", Err(TooLarge)),
            ("", Err(NoNumber)),
            ("_", Err(NoNumber)),
            ("five", Err(NoNumber)),
            ("5s", Err(NoNumber)),
            ("inf", Err(NoNumber)),
            ("0x", Err(NoNumber)),
        ] {
            assert_eq!(plain(text).whole(), number, "{text:?}");
        }
    }

    #[test]
    fn none_in_all_its_spellings_is_none() {
        for none in ["None", "none", "NONE", "null", "Null", "~", ""] {
            assert!(plain(none).is_none(), "{none:?}");
        }
        assert!(!plain("nothing").is_none());
        assert!(!Scalar { text: "None".into(), plain: false }.is_unquoted_none());
    }
}
