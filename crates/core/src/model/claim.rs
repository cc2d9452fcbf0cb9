//! The nodes that may be executing a VM. See protocols.md section 2: this set is what keeps a VM from running twice.

use std::{fmt, str::FromStr};

use super::name::{NameError, NodeName};

/// The longest claim that is read. More than two names are a mistake already.
const MOST: usize = 16;

/// Node names, no two the same; in the state tree space-separated, empty = none.
///
/// More than one only while a live migration is under way, and then the first is the one that it comes from: that node
/// decides where the VM is in the end, the others leave it alone until then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim(Vec<NodeName>);

impl Claim {
    /// Nobody may be executing the VM.
    pub fn none() -> Self {
        Self::default()
    }

    /// Exactly one node may be executing the VM.
    pub fn only(node: &NodeName) -> Self {
        Self(vec![node.clone()])
    }

    /// What is claimed cannot be read: somebody may be executing the VM, and nobody is known to.
    pub fn unknown() -> Self {
        Self(vec![NodeName::unknown()])
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

    /// The first claimant and the others, if there are several: where a migration comes from, and where it goes.
    pub fn between(&self) -> Option<(&NodeName, &[NodeName])> {
        match &self.0[..] {
            [] | [_] => None,
            [from, to @ ..] => Some((from, to)),
        }
    }

    /// The claimants, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &NodeName> {
        self.0.iter()
    }

    /// The claim with `node` added at the end.
    #[must_use]
    pub fn with(&self, node: &NodeName) -> Self {
        let mut claim = self.clone();
        if !claim.names(node) {
            claim.0.push(node.clone());
        }
        claim
    }

    /// The claim with `node` removed.
    #[must_use]
    pub fn without(&self, node: &NodeName) -> Self {
        Self(self.0.iter().filter(|n| *n != node).cloned().collect())
    }
}

impl Claim {
    /// The claim once the VM has ended on `node`, or with it. Of several claimants only the first may have been executing it; the
    /// others have a copy at most, which is too old from then on, so nobody is left.
    #[must_use]
    pub fn after_the_end_on(&self, node: &NodeName) -> Self {
        match self.between() {
            Some((from, _)) if from == node => Self::none(),
            _ => self.without(node),
        }
    }
}

impl FromStr for Claim {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut claim = Self::none();
        for name in text.split_ascii_whitespace() {
            claim = claim.with(&name.parse()?);
            if claim.0.len() > MOST {
                return Err(NameError {
                    what: "claim",
                    found: text.to_owned(),
                    allowed: "at most 16 node names",
                });
            }
        }
        Ok(claim)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_keeps_its_order_and_says_nobody_twice() {
        let claim: Claim = " b a  b ".parse().unwrap();
        assert_eq!(claim.to_string(), "b a");
        let a: NodeName = "a".parse().unwrap();
        let (from, to) = claim.between().unwrap();
        assert_eq!((from.as_str(), to), ("b", &[a.clone()][..]));
        assert_eq!(claim.without(from), Claim::only(&a));
        assert_eq!(Claim::only(&a).between(), None);
        assert_eq!(claim.after_the_end_on(from), Claim::none());
        assert_eq!(claim.after_the_end_on(&a), Claim::only(from));
        assert!("a _".parse::<Claim>().is_err());
        let names = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>().join(" ");
        assert!(names(MOST).parse::<Claim>().is_ok() && names(MOST + 1).parse::<Claim>().is_err());
    }
}
