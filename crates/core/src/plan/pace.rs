//! How often guests may change what the state tree has of them.
//!
//! A guest decides by itself how often it takes an address and gives it back, and each time is a write of all coordinators' disks. So each card has a budget,
//! and each network two for all its cards, since a guest may pretend to be many: one for those that have no lease yet, and one for those that have, which
//! newcomers do not keep from having theirs for longer.

use std::collections::BTreeMap;

use crate::model::Mac;

/// So many changes at once, and then one every so many milliseconds.
#[derive(Debug, Clone, Copy)]
struct Budget {
    at_once: u64,
    every_ms: u64,
}

/// A machine that boots asks a few times, each time as somebody else: its firmware, its boot loader, its system.
const CARD: Budget = Budget { at_once: 16, every_ms: 10_000 };

/// All guests of a large network, when they boot at once.
const NETWORK: Budget = Budget { at_once: 4096, every_ms: 20 };

/// So many cards are remembered that have changed something lately.
const MOST_CARDS: usize = 8192;

/// What a budget was used for, as the time at which it is whole again.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    whole_at_ms: u64,
}

impl Used {
    fn may(self, budget: Budget, now_ms: u64) -> bool {
        self.whole_at_ms.saturating_sub(now_ms) <= (budget.at_once - 1) * budget.every_ms
    }

    fn spend(&mut self, budget: Budget, now_ms: u64) {
        self.whole_at_ms = self.whole_at_ms.max(now_ms) + budget.every_ms;
    }
}

/// A card that would have something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// It has a lease.
    Known(Mac),
    /// It has none.
    New(Mac),
}

impl Who {
    fn mac(self) -> Mac {
        let (Self::Known(mac) | Self::New(mac)) = self;
        mac
    }
}

/// What the cards of a network have changed lately. Times are of any clock that never goes back.
#[derive(Debug, Default)]
pub struct Pace {
    cards: BTreeMap<Mac, Used>,
    known: Used,
    new: Used,
}

impl Pace {
    /// Whether a card may change something.
    pub fn may(&self, who: Who, now_ms: u64) -> bool {
        let card = self.cards.get(&who.mac()).copied().unwrap_or_default();
        let all = match who {
            Who::Known(_) => self.known,
            Who::New(_) => self.new,
        };
        card.may(CARD, now_ms) && all.may(NETWORK, now_ms)
    }

    /// Takes note that it has.
    pub fn spend(&mut self, who: Who, now_ms: u64) {
        let all = match who {
            Who::Known(_) => &mut self.known,
            Who::New(_) => &mut self.new,
        };
        all.spend(NETWORK, now_ms);
        let mac = who.mac();
        if self.cards.len() >= MOST_CARDS && !self.cards.contains_key(&mac) {
            self.cards.retain(|_, used| used.whole_at_ms > now_ms);
        }
        // The network's budgets hold for those that are not remembered.
        if self.cards.len() < MOST_CARDS || self.cards.contains_key(&mac) {
            self.cards.entry(mac).or_default().spend(CARD, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u64) -> Mac {
        let [_, _, bytes @ ..] = number.to_be_bytes();
        Mac(bytes)
    }

    fn card(number: u64) -> Who {
        Who::New(mac(number))
    }

    /// How many changes a card makes that tries every millisecond.
    fn changes(pace: &mut Pace, who: impl Fn(u64) -> Who, times_ms: std::ops::Range<u64>) -> u64 {
        let mut count = 0;
        for now_ms in times_ms {
            if pace.may(who(now_ms), now_ms) {
                pace.spend(who(now_ms), now_ms);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_card_that_never_stops_changes_something_every_ten_seconds() {
        let mut pace = Pace::default();
        assert_eq!(changes(&mut pace, |_| card(1), 0..100), 16);
        assert_eq!(changes(&mut pace, |_| card(1), 100..100_100), 10);
        assert!(pace.may(card(2), 100_100), "others are not hindered");
        assert_eq!(changes(&mut pace, |_| card(1), 1_000_000..1_000_100), 16, "a pause is made good");
    }

    #[test]
    fn a_guest_that_pretends_to_be_many_changes_fifty_things_a_second() {
        let mut pace = Pace::default();
        let at_once = changes(&mut pace, card, 0..4096);
        assert_eq!(at_once, 4096);
        let after = changes(&mut pace, card, 4096..64_096);
        assert!((3000..=3300).contains(&after), "{after}");
        assert!(pace.cards.len() <= MOST_CARDS);
        assert!(!pace.may(card(99_999), 64_096), "newcomers wait");
        assert!(pace.may(Who::Known(mac(99_999)), 64_096), "who has a lease does not");
    }

    #[test]
    fn no_more_cards_are_remembered_than_have_room() {
        let mut pace = Pace::default();
        (0..20_000).for_each(|number| pace.spend(card(number), 0));
        assert_eq!(pace.cards.len(), MOST_CARDS);
        pace.spend(card(30_000), 60_000);
        assert_eq!(pace.cards.len(), 1, "who has its whole budget again need not be remembered");
    }
}
