//! What was read of one key or one object: its value and version, or what is wrong with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value with the version of the key it was read from; `None` if the key does not exist (then the value is its default).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field<T> {
    /// The typed value.
    pub value: T,
    /// The key's data version, for compare-and-set.
    pub version: Option<i32>,
    /// The transaction that last wrote the key (ZooKeeper's mzxid): tells which of two keys was written later. 0 if absent.
    pub zxid: i64,
}

/// Why a key's content cannot be used. Shown to operators; never stops the other objects from being used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The key, as a path.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// An object, or why it is unreadable.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<T> {
    /// All keys are well-formed.
    Good(T),
    /// Some are not: nothing is done with the object but to say so.
    Bad(Vec<Problem>),
}

impl<T> Entry<T> {
    /// The object, if it is readable.
    pub fn good(&self) -> Option<&T> {
        match self {
            Self::Good(t) => Some(t),
            Self::Bad(_) => None,
        }
    }
}
