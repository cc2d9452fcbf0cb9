//! Tokens of the HTTP API that are in the state tree, and what a token is good for. The token itself is nowhere: its hash is.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use super::{NameError, VmName};

/// So many VMs one token may be limited to.
pub const MOST_VMS: usize = 64;

/// What somebody may; each may also what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Have what there is run, and where.
    Operate,
    /// Define, change and remove what there is.
    Admin,
}

impl Role {
    /// As the configuration has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let all = [Self::Read, Self::Operate, Self::Admin];
        all.into_iter().find(|role| role.word() == text).ok_or_else(|| NameError {
            what: "role",
            found: text.to_owned(),
            allowed: "read, operate or admin",
        })
    }
}

/// What a token is called: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64 bytes. It is a key of the tree and a part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenName(String);

impl TokenName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TokenName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl FromStr for TokenName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if first_ok && rest_ok && text.len() <= 64 {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "token name",
            found: text.to_owned(),
            allowed: "letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 64 characters",
        })
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The SHA-256 of a token, in text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        let digits = hash.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const NOT: &str = "a hash is 64 hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NOT);
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte =
                text.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or(NOT)?;
        }
        Ok(Self(hash))
    }
}

/// A token, without what it is sent as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessToken {
    /// Its hash.
    pub sha256: TokenHash,
    /// What it is good for.
    pub role: Role,
    /// The only VMs that it is good for; absent: it is limited to none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub vms: Option<BTreeSet<VmName>>,
    /// Its last four characters, for whoever looks which one it is.
    #[serde(default)]
    pub ends: String,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// From when on it is good for nothing, in seconds since 1970.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub expires_unix_s: Option<u64>,
}

/// A bound of a token that is given: whoever writes `null` for one may have lost it, and gets no token without bounds for that.
pub fn given<'d, D: Deserializer<'d>, T: Deserialize<'d>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl AccessToken {
    /// What is wrong with it, if anything is: such a token is nobody's.
    pub fn flaw(&self) -> Option<&'static str> {
        let vms = self.vms.as_ref();
        if vms.is_some() && self.role == Role::Admin {
            return Some("a token with the role admin cannot be limited to VMs");
        }
        if vms.is_some_and(|vms| vms.is_empty() || vms.len() > MOST_VMS) {
            return Some("a token is limited to at least one VM, and to 64 at most");
        }
        if self.ends.len() > 4 || !self.ends.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Some("of a token no more than its last four characters are kept");
        }
        None
    }

    /// Whether it is good for anything at that time.
    pub fn is_valid_at(&self, now_unix_s: u64) -> bool {
        self.expires_unix_s.is_none_or(|end| now_unix_s < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_called_what_can_be_a_key() {
        for bad in ["", "a/b", "..", ".a", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<TokenName>().is_err(), "{bad:?}");
        }
        assert!("ci.web-1_x".parse::<TokenName>().is_ok());
    }

    #[test]
    fn a_token_ends_when_its_time_has_come() {
        let token = |expires_unix_s| AccessToken {
            sha256: TokenHash([0; 32]),
            role: Role::Read,
            vms: None,
            ends: String::new(),
            created_unix_s: 1,
            expires_unix_s,
        };
        assert!(token(None).is_valid_at(u64::MAX) && token(Some(5)).is_valid_at(4));
        assert!(!token(Some(5)).is_valid_at(5));
    }
}
