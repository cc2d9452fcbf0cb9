//! What a node's BMC said when it was asked last. Nobody waits for it: a BMC that does not answer is told before its node dies.

use serde::{Deserialize, Serialize};

/// The word of a BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "says", rename_all = "kebab-case")]
pub enum BmcWord {
    /// Its machine has power.
    On,
    /// Its machine has none.
    Off,
    /// Its machine has none, and afterwards the node said that it lives: so it is another machine's.
    Elsewhere,
    /// It refuses the user or the password.
    WrongCredentials {
        /// Why, without secrets.
        why: String,
    },
    /// It cannot be reached, or does not answer as it should.
    NoAnswer {
        /// Why, without secrets.
        why: String,
    },
    /// The node names none.
    NotConfigured,
}

/// What is recorded of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcReport {
    /// Its word.
    #[serde(flatten)]
    pub word: BmcWord,
    /// Its name or address.
    pub host: String,
    /// The node that asked.
    pub by: String,
    /// When, by that node's clock, seconds since 1970: for people.
    pub at_unix_s: u64,
    /// The boot of its node in which it said last, while the node spoke, that its machine has power.
    #[serde(default)]
    pub on_in_boot: Option<String>,
}

impl BmcReport {
    /// What is wrong, for people; `None` if a fence can rely on it.
    pub fn trouble(&self) -> Option<String> {
        let host = &self.host;
        match &self.word {
            BmcWord::On | BmcWord::Off => None,
            BmcWord::Elsewhere => Some(format!(
                "the BMC {host} says that its machine is off while the node lives: it is another machine's"
            )),
            // They name it.
            BmcWord::WrongCredentials { why } | BmcWord::NoAnswer { why } => Some(why.clone()),
            BmcWord::NotConfigured => Some("it has no BMC configured".to_owned()),
        }
    }
}
