//! Names, validated once at the edge so that nothing behind it has to ask again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a valid {what}: {allowed}")]
pub struct NameError {
    /// What kind of name was wanted, for the message.
    pub what: &'static str,
    /// The text as found.
    pub found: String,
    /// What would be valid.
    pub allowed: &'static str,
}

/// The short host name of a node: letters, digits and inner hyphens, at most 63 bytes (one DNS label, RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NodeName(String);

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl NodeName {
    /// No node, where a node should be named: no node can be called so.
    pub fn nobody() -> Self {
        Self("none".to_owned())
    }

    /// A node that is not known. As [`Self::nobody`], it is no node's name.
    pub(super) fn unknown() -> Self {
        Self("?".to_owned())
    }

    /// As an answer has it, which may also name no node.
    pub fn told<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let nobody = [Self::nobody(), Self::unknown()].into_iter().find(|nobody| nobody.0 == text);
        nobody.map_or_else(|| text.parse().map_err(D::Error::custom), Ok)
    }

    /// Whether this names no node.
    pub fn is_nobody(&self) -> bool {
        self.0 == "none"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The node's number: the last number in its name (`pvc-hv12` is 12), as `by-id` addresses use it.
    pub fn number(&self) -> Option<u32> {
        let end = self.0.rfind(|c: char| c.is_ascii_digit())? + 1;
        let start = self.0[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
        self.0[start..end].parse().ok()
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let edges_ok = !text.starts_with('-') && !text.ends_with('-');
        // `none` is the word for "no node" in `/primary_node`, so it can never be a node's name.
        let reserved = text.eq_ignore_ascii_case("none");
        if inner_ok && edges_ok && !reserved && (1..=63).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "node name",
            found: text.to_owned(),
            allowed: "a short host name of letters, digits and inner hyphens, at most 63 characters, not \"none\"",
        })
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A virtual machine's name: letters, digits, `.`, `_`, `+`, `-`, beginning with a letter or digit, at most 128 bytes.
/// It becomes a file name (`<console_log_directory>/<name>.log`) and a libvirt domain name, hence the narrow alphabet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct VmName(String);

impl TryFrom<String> for VmName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl VmName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
        if first_ok && rest_ok && text.len() <= 128 {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "VM name",
            found: text.to_owned(),
            allowed: "letters, digits, '.', '_', '+' and '-', beginning with a letter or digit, at most 128 characters",
        })
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_number_is_the_last_number_in_its_name() {
        for (name, number) in [
            ("node1", Some(1)),
            ("pvc-hv12", Some(12)),
            ("rack2-hv03", Some(3)),
            ("hv7a", Some(7)),
            ("alpha", None),
        ] {
            assert_eq!(name.parse::<NodeName>().unwrap().number(), number, "{name}");
        }
        assert_eq!("n99999999999".parse::<NodeName>().unwrap().number(), None, "too large for an address");
    }

    #[test]
    fn names_that_could_leave_their_directory_or_confuse_a_list_are_refused() {
        for bad in ["", "../x", "a/b", "a b", ".hidden", "-x", "a\n", "ä"] {
            assert!(bad.parse::<VmName>().is_err(), "{bad:?}");
        }
        for bad in ["", "none", "None", "a b", "a.b", "-a", "a-", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        assert!("web-1.example_x+y".parse::<VmName>().is_ok());
    }
}
