//! For state that is a set (addresses, links, rules, records): what differs, to be applied in one batch. A plan of steps is for what is
//! dangerous, and is decided anew after each.

use std::collections::BTreeSet;

/// What leads from one set to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff<T> {
    /// Desired, and not there.
    pub add: Vec<T>,
    /// There, and not desired.
    pub remove: Vec<T>,
    /// Both.
    pub keep: Vec<T>,
}

impl<T: Ord> Diff<T> {
    /// What makes `observed` as `desired`; each in order, nothing twice.
    pub fn between(desired: impl IntoIterator<Item = T>, observed: impl IntoIterator<Item = T>) -> Self {
        let observed: BTreeSet<T> = observed.into_iter().collect();
        let desired: BTreeSet<T> = desired.into_iter().collect();
        let (keep, add): (Vec<T>, Vec<T>) = desired.into_iter().partition(|item| observed.contains(item));
        let remove = observed.into_iter().filter(|item| keep.binary_search(item).is_err()).collect();
        Self { add, remove, keep }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn added_and_removed_it_is_as_desired(desired in vec(0u8..20, 0..20), observed in vec(0u8..20, 0..20)) {
            let diff = Diff::between(desired.clone(), observed.clone());
            let mut now: BTreeSet<u8> = observed.iter().copied().collect();
            for item in &diff.remove {
                prop_assert!(now.remove(item) && !desired.contains(item));
            }
            prop_assert_eq!(now.iter().copied().collect::<Vec<u8>>(), diff.keep.clone());
            for item in &diff.add {
                prop_assert!(now.insert(*item));
            }
            prop_assert_eq!(now, desired.into_iter().collect::<BTreeSet<u8>>());
        }
    }
}
