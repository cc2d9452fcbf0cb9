//! What a node cannot do of the client networks, in words for people: what `pvc network explain` shows.

use serde::{Deserialize, Serialize};

use super::Vni;
use crate::text::one_line;

/// The longest text, in characters: parts of it come from rules, names and other programs.
const LONGEST: usize = 240;

/// One thing that cannot be as desired until something else changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Trouble {
    /// The network; `None`: all of them.
    pub network: Option<Vni>,
    /// What is the case.
    pub what: String,
    /// What would do, if anybody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Trouble {
    /// Of one network.
    pub fn of(network: Vni, what: impl AsRef<str>) -> Self {
        Self { network: Some(network), ..Self::of_all(what) }
    }

    /// Of all networks.
    pub fn of_all(what: impl AsRef<str>) -> Self {
        Self { network: None, what: bounded(what.as_ref()), todo: None }
    }

    /// With what would do.
    #[must_use]
    pub fn with_todo(mut self, todo: impl AsRef<str>) -> Self {
        self.todo = Some(bounded(todo.as_ref()));
        self
    }
}

fn bounded(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    one_line(&shown)
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(network) = self.network {
            write!(f, "network {network}: ")?;
        }
        f.write_str(&self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_have_a_part_in_is_bounded_and_on_one_line() {
        let vni = "100".parse().unwrap();
        let hostile = Trouble::of(vni, format!("the rule \"a\u{1b}[2J\n{}\"", "é".repeat(1000)));
        assert!(hostile.what.chars().count() == LONGEST + 1 && !hostile.what.contains('\u{1b}'));
        assert_eq!(Trouble::of(vni, "x").with_todo("y").to_string(), "network 100: x");
    }
}
