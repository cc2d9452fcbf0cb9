//! The nodes that may be executing a VM. See protocols.md section 2: this set is what keeps a VM from running twice.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::name::{NameError, NodeName};

/// A set of node names; in the state tree space-separated, empty = none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim(BTreeSet<NodeName>);

impl Claim {
    /// Nobody may be executing the VM.
    pub fn none() -> Self {
        Self::default()
    }

    /// Exactly one node may be executing the VM.
    pub fn only(node: &NodeName) -> Self {
        Self(BTreeSet::from([node.clone()]))
    }

    /// Whether nobody claims the VM.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `node` is among the claimants.
    pub fn names(&self, node: &NodeName) -> bool {
        self.0.contains(node)
    }

    /// Whether `node` is the only claimant.
    pub fn is_only(&self, node: &NodeName) -> bool {
        self.0.len() == 1 && self.names(node)
    }

    /// The claimants, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &NodeName> {
        self.0.iter()
    }

    /// The claim with `node` added.
    #[must_use]
    pub fn with(&self, node: &NodeName) -> Self {
        let mut set = self.0.clone();
        set.insert(node.clone());
        Self(set)
    }

    /// The claim with `node` removed.
    #[must_use]
    pub fn without(&self, node: &NodeName) -> Self {
        let mut set = self.0.clone();
        set.remove(node);
        Self(set)
    }
}

impl FromStr for Claim {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(node.as_str())?;
        }
        Ok(())
    }
}
