//! The names that guests call themselves. A guest may say anything.

use std::{fmt, str::FromStr};

use super::name::NameError;

/// The longest name, all its labels together (RFC 1035, section 2.3.4).
pub const LONGEST: usize = 253;

/// One label of letters, digits and hyphens, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(String);

/// It is no host name that can be in its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host name is one label of letters, digits and hyphens, alone or followed by its network's domain")]
pub struct HostNameError;

impl HostName {
    /// The host that a guest says it is, in this domain.
    ///
    /// # Errors
    /// If it is no host name (RFC 1123, section 2.1), or one of another domain.
    pub fn of(said: &str, domain: &str) -> Result<Self, HostNameError> {
        // Whatever is longer is no name: not to be changed or copied before that is known.
        if said.len() > LONGEST + 1 {
            return Err(HostNameError);
        }
        let said = said.to_ascii_lowercase();
        let said = said.strip_suffix('.').unwrap_or(&said);
        let label = said.strip_suffix(domain).and_then(|before| before.strip_suffix('.')).unwrap_or(said);
        let is_label = (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !is_label || label.len() + 1 + domain.len() > LONGEST {
            return Err(HostNameError);
        }
        Ok(Self(label.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As a lease or a reservation has it. Old clients' dnsmasq takes a hyphen at the end, too: such a lease is one, though no zone has its name.
impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fine = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text.starts_with('-');
        let found = || text.chars().take(80).collect();
        let allowed = "at most 63 letters, digits and '-'";
        fine.then(|| Self(text.to_ascii_lowercase())).ok_or_else(|| NameError {
            what: "host name",
            found: found(),
            allowed,
        })
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_call_themselves_is_bounded() {
        for (said, name) in [("web1", "web1"), ("WEB-1", "web-1"), ("1", "1")] {
            assert_eq!(said.parse::<HostName>().unwrap().as_str(), name);
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a b", "a.b", "a\n", "a,b", "é", "*", long.as_str()] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
    }
}
