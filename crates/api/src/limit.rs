//! `limit`: a regular expression of whoever asks, on lists. It is untrusted: bounded in size, and matched in linear time.

use regex::{Regex, RegexBuilder};

use crate::reply::Failed;

/// The longest that is taken, in bytes.
const LONGEST: usize = 256;

/// What it may cost when it is compiled.
const LARGEST: usize = 64 * 1024;

/// Which names are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limit(Option<Regex>);

impl Limit {
    /// Anything that contains the expression, unless it is anchored. `None`: everything.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Failed> {
        let Some(text) = text else { return Ok(Self::default()) };
        if text.len() > LONGEST {
            return Err(Failed::Bad(format!("limit is longer than {LONGEST} bytes")));
        }
        let built =
            RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(LARGEST).nest_limit(16).build();
        built.map(|regex| Self(Some(regex))).map_err(|error| {
            let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            Failed::Bad(format!("limit is no regular expression: {}", last.trim_start_matches("error: ")))
        })
    }

    /// Whether a name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_finds_what_contains_it_unless_it_is_anchored() {
        for (limit, wanted) in [
            (None, true),
            (Some("eb"), true),
            (Some("^eb"), false),
            (Some("^w.*1$"), true),
            (Some("mail"), false),
        ] {
            assert_eq!(Limit::parse(limit).unwrap().wants("web1"), wanted, "{limit:?}");
        }
    }

    #[test]
    fn an_expression_that_costs_too_much_is_refused() {
        let nested = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        for bomb in ["(", r"\w{1000}{100}", "(a{1000}){1000}", &nested, &"a".repeat(LONGEST + 1)] {
            let refused = Limit::parse(Some(bomb)).unwrap_err().to_string();
            assert!(refused.starts_with("limit "), "{refused}");
        }
        // What keeps other engines busy for hours.
        assert!(!Limit::parse(Some("^(a+)+$")).unwrap().wants(&format!("{}!", "a".repeat(10_000))));
    }
}
