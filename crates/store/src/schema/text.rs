//! The words of the tree: UTF-8, decimals, `True`/`False`, and the two ways to say "nothing".

use std::{fmt::Display, str::FromStr};

use pvc_core::model::{Field, Problem};

use crate::store::Value;

/// Collects the problems of one object while its keys are decoded.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pub(super) problems: Vec<Problem>,
    /// Keys that the store does not show.
    refused: Vec<Problem>,
}

impl Decoder {
    /// A decoder that knows that the store refused to show these keys.
    pub(super) fn without(refused: Vec<Problem>) -> Self {
        Self { problems: Vec::new(), refused }
    }

    /// Notes a problem with a key. Long rubbish is cut: it would fill the log.
    pub(super) fn problem(&mut self, key: &str, what: impl Display) {
        const LONGEST: usize = 300;
        let mut what = what.to_string();
        if what.len() > LONGEST {
            let cut = (0..=LONGEST).rev().find(|&i| what.is_char_boundary(i)).unwrap_or(0);
            what.truncate(cut);
            what.push('…');
        }
        self.problems.push(Problem { key: key.to_owned(), what });
    }

    /// The text of a key, `None` if it is absent.
    pub(super) fn text<'a>(&mut self, key: &str, value: Option<&'a Value>) -> Option<&'a str> {
        if let Some(refused) = self.refused.iter().find(|refused| refused.key == key) {
            self.problems.push(refused.clone());
            return None;
        }
        match std::str::from_utf8(&value?.data) {
            Ok(text) => Some(text),
            Err(e) => {
                self.problem(key, format_args!("not UTF-8 text: {e}"));
                None
            }
        }
    }

    /// A key that must exist and be well-formed.
    pub(super) fn required<T>(&mut self, key: &str, value: Option<&Value>) -> Option<Field<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(found) = value else {
            self.problem(key, "missing");
            return None;
        };
        let text = self.text(key, value)?;
        let value = self.parse(key, text)?;
        Some(Field { value, version: Some(found.version), zxid: found.mzxid })
    }

    /// A key that may be absent or say "nothing" (empty, `None`).
    pub(super) fn optional<T>(&mut self, key: &str, value: Option<&Value>) -> Field<Option<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(key, value).and_then(present);
        let parsed = text.and_then(|text| self.parse(key, text));
        field(parsed, value)
    }

    /// A number that counts as zero while its key is absent or empty.
    pub(super) fn number<T>(&mut self, key: &str, value: Option<&Value>) -> T
    where
        T: FromStr + Default,
    {
        let Some(text) = self.text(key, value).and_then(present) else { return T::default() };
        text.parse().unwrap_or_else(|_| {
            self.problem(key, format_args!("{text:?} is not a number in decimal digits"));
            T::default()
        })
    }

    /// Parses a text, noting what is wrong with it.
    pub(super) fn parse<T>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        text.trim().parse().map_err(|e: T::Err| self.problem(key, e)).ok()
    }
}

/// A value with the version of the key that it was read from.
pub(crate) fn field<T>(value: T, from: Option<&Value>) -> Field<T> {
    Field { value, version: from.map(|v| v.version), zxid: from.map_or(0, |v| v.mzxid) }
}

/// The text unless it says "nothing".
pub(super) fn present(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text != "None").then_some(text)
}

/// How the tree spells a truth value.
pub(super) fn truth_word(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A truth value; absent, empty and `None` are false.
pub(super) fn truth(d: &mut Decoder, key: &str, value: Option<&Value>) -> bool {
    match d.text(key, value).and_then(present) {
        Some("True") => true,
        Some("False") | None => false,
        Some(other) => {
            d.problem(key, format_args!("{other:?} is not a truth value: True or False"));
            false
        }
    }
}
