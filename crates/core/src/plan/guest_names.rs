//! Whose each name is of a network's guests, in both families.
//!
//! A name is one card's: it is never given to addresses of two.

use std::collections::BTreeMap;

use crate::model::{HostName, Mac};

/// The names of a network's guests.
#[derive(Debug, Default)]
pub struct Names<'a> {
    holders: BTreeMap<&'a HostName, Mac>,
    names: BTreeMap<Mac, &'a HostName>,
}

impl<'a> Names<'a> {
    /// Of these the first that wants a name has it, and a card is called by the first that it has.
    pub fn new(wanted: impl IntoIterator<Item = (Mac, &'a HostName)>) -> Self {
        let mut all = Self::default();
        for (mac, name) in wanted {
            if *all.holders.entry(name).or_insert(mac) == mac {
                all.names.entry(mac).or_insert(name);
            }
        }
        all
    }

    /// The card whose guest has that name.
    pub fn holder(&self, name: &HostName) -> Option<Mac> {
        self.holders.get(name).copied()
    }

    /// What the guest at a card is called.
    pub fn of(&self, mac: Mac) -> Option<&'a HostName> {
        self.names.get(&mac).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_cards_and_the_next_has_another_of_its_own_or_none() {
        let [web, db, log]: [HostName; 3] = ["web", "db", "log"].map(|name| name.parse().unwrap());
        let [a, b, c] = [1, 2, 3].map(|number| Mac([0x52, 0x54, 0, 0, 0, number]));
        let names = Names::new([(a, &db), (b, &db), (a, &web), (b, &log), (c, &web)]);
        assert_eq!((names.of(a), names.of(b), names.of(c)), (Some(&db), Some(&log), None));
        assert_eq!((names.holder(&db), names.holder(&web), names.holder(&log)), (Some(a), Some(a), Some(b)));
    }
}
