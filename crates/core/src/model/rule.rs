//! A rule of a client network's firewall: the body of an nftables rule, as operators and old clients write it.
//!
//! Untrusted: what is written lands in the input of `nft`, as root. So a body is taken apart into words that are known and harmless,
//! and what is handed on is made of these words, never the text itself.

#[cfg(test)]
mod tests;
mod words;

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which packets of a network a rule sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those that are routed to its clients.
    In,
    /// Those that are routed from its clients.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// As keys, commands and chains are called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A rule as the state tree has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called: its key.
    pub name: String,
    /// Which packets it sees.
    pub direction: Direction,
    /// Its place among those of its direction; `None`: it cannot be read, and the rule comes last.
    pub order: Option<u32>,
    /// What it says, on one line and not longer than is shown.
    pub text: String,
    /// What that means, or why it is refused.
    pub body: Result<Body, BodyError>,
}

impl Rule {
    /// Its place: one whose order cannot be read comes last.
    pub fn place(&self) -> u32 {
        self.order.unwrap_or(u32::MAX)
    }

    /// Whether leaving it out lets nothing pass that it would have stopped: it says that it accepts, and nothing else.
    pub fn only_accepts(&self) -> bool {
        let mut words = self.text.split(|c: char| !c.is_ascii_alphanumeric());
        let stops = ["drop", "reject", "jump", "goto", "queue", "vmap"];
        self.text.ends_with("accept") && !words.any(|word| stops.contains(&word))
    }
}

/// A body that holds nothing but known words, in an order that `nft` may still refuse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Body {
    matches: String,
    verdict: String,
}

impl Body {
    /// The longest, in characters.
    pub const LONGEST: usize = 512;

    /// What packets it is about; empty: all.
    pub fn matches(&self) -> &str {
        &self.matches
    }

    /// What becomes of them; empty: the next rule decides.
    pub fn verdict(&self) -> &str {
        &self.verdict
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.matches.is_empty() || self.verdict.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.matches, self.verdict)
    }
}

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Nothing is there.
    #[error("it says nothing")]
    Empty,
    /// It is too long.
    #[error("it has more than {} characters", Body::LONGEST)]
    Long,
    /// A character has no place in a rule.
    #[error("{0:?} has no place in a rule")]
    Character(char),
    /// A word is not among those that are allowed.
    #[error(
        "{0:?} is not allowed: a rule has matches such as ip, tcp, udp, icmp and ct state, numeric addresses and ports, and at its end accept, drop, reject or return"
    )]
    Word(String),
    /// Braces do not fit together.
    #[error("its braces do not fit together: a set is {{ 1, 2 }}, without sets in it")]
    Braces,
    /// Something follows the verdict.
    #[error("{0:?} follows the verdict, which ends a rule")]
    AfterVerdict(String),
    /// `nft` refuses it.
    #[error("nft refuses it: {0}")]
    Nft(String),
}

impl FromStr for Body {
    type Err = BodyError;

    fn from_str(text: &str) -> Result<Self, BodyError> {
        let text = text.trim_matches(' ');
        if text.is_empty() {
            return Err(BodyError::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(BodyError::Long);
        }
        if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || " .:/-_,{}<>=!".contains(*c))) {
            return Err(BodyError::Character(c));
        }
        let (mut matches, mut verdict) = (Vec::new(), Vec::new());
        let mut is_in_set = false;
        for token in tokens(text) {
            match token {
                "{" | "}" if is_in_set == (token == "{") || !verdict.is_empty() => {
                    return Err(BodyError::Braces);
                }
                "{" | "}" => {
                    is_in_set = token == "{";
                    matches.push(token);
                }
                // Every rule has a counter.
                "counter" if !is_in_set && verdict.is_empty() => {}
                word if words::is_verdict(word) && !is_in_set => {
                    if !verdict.is_empty() {
                        return Err(BodyError::AfterVerdict(word.to_owned()));
                    }
                    verdict.push(word);
                }
                word if verdict.first() == Some(&"reject") && words::is_reason(word) => verdict.push(word),
                word if !verdict.is_empty() => return Err(BodyError::AfterVerdict(word.to_owned())),
                word if words::is_allowed(word) || is_value(word) => matches.push(word),
                word => return Err(BodyError::Word(word.to_owned())),
            }
        }
        if is_in_set {
            return Err(BodyError::Braces);
        }
        Ok(Self { matches: matches.join(" "), verdict: verdict.join(" ") })
    }
}

/// Words, with braces and commas apart.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let is_mark = |c: char| "{},".contains(c);
    text.split(' ')
        .flat_map(move |word| {
            word.split_inclusive(is_mark).flat_map(move |part| {
                let (word, mark) = part.split_at(part.len() - usize::from(part.ends_with(is_mark)));
                [word, mark]
            })
        })
        .filter(|token| !token.is_empty())
}

/// A number, an address, a network, a range of either, or a rate.
fn is_value(word: &str) -> bool {
    let is_number = |text: &str| {
        (1..=10).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit())
            && text.parse::<u32>().is_ok()
    };
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    let is_rate = |text: &str| {
        text.split_once('/').is_some_and(|(number, unit)| is_number(number) && words::UNITS.contains(&unit))
    };
    let is_range = |text: &str| {
        text.split_once('-').is_some_and(|(first, last)| {
            (is_number(first) && is_number(last)) || (is_address(first) && is_address(last))
        })
    };
    is_number(word) || is_address(word) || word.parse::<IpNet>().is_ok() || is_range(word) || is_rate(word)
}
