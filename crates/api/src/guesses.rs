//! Wrong tokens, by where they come from. Of whoever has sent many, no token that could be guessed is looked at for a while, a right one neither: that would
//! tell which it is. Long tokens and sessions go on: nobody guesses those.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

/// How long wrong tokens are counted, from the first on.
const WINDOW: Duration = Duration::from_mins(1);

/// So many addresses are known at once; of more the oldest is forgotten.
const MOST_PLACES: usize = 4096;

pub(crate) struct Guesses {
    most: u32,
    places: Mutex<BTreeMap<IpAddr, Place>>,
}

struct Place {
    since: Instant,
    wrong: u32,
}

impl Guesses {
    /// `most` wrong tokens are taken from one address within the window.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, places: Mutex::default() }
    }

    /// Whether nobody there is to be listened to.
    pub(crate) fn are_too_many(&self, from: IpAddr, now: Instant) -> bool {
        let places = self.places();
        let place = places.get(&whose(from)).filter(|place| place.is_counted(now));
        place.is_some_and(|place| place.wrong >= self.most)
    }

    /// Counts a wrong token.
    pub(crate) fn count(&self, from: IpAddr, now: Instant) {
        let mut places = self.places();
        let from = whose(from);
        if places.len() >= MOST_PLACES && !places.contains_key(&from) {
            let oldest = places.iter().min_by_key(|(_, place)| place.since).map(|(from, _)| *from);
            oldest.and_then(|oldest| places.remove(&oldest));
        }
        let place = places.entry(from).or_insert(Place { since: now, wrong: 0 });
        if !place.is_counted(now) {
            *place = Place { since: now, wrong: 0 };
        }
        place.wrong = place.wrong.saturating_add(1);
        if place.wrong == self.most {
            warn!(
                "{} refusals of {from}: no short token from there is looked at for up to {} s, and no more of them are logged",
                self.most,
                WINDOW.as_secs()
            );
        }
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn is_counted(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < WINDOW
    }
}

/// Whoever has an IPv6 address has its /64.
pub(crate) fn whose(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_guesses_too_often_is_not_listened_to_until_the_window_ends() {
        let (guesses, start) = (Guesses::new(3), Instant::now());
        let from = address("10.0.0.1");
        for _ in 0..3 {
            assert!(!guesses.are_too_many(from, start));
            guesses.count(from, start);
        }
        assert!(guesses.are_too_many(from, start + WINDOW / 2));
        assert!(guesses.are_too_many(address("::ffff:10.0.0.1"), start), "the same, otherwise written");
        assert!(!guesses.are_too_many(address("10.0.0.2"), start), "others are not held liable");
        assert!(!guesses.are_too_many(from, start + WINDOW));
        guesses.count(from, start + WINDOW);
        assert!(!guesses.are_too_many(from, start + WINDOW), "it is counted anew");
    }

    #[test]
    fn a_whole_ipv6_network_is_one_who_guesses() {
        let (guesses, now) = (Guesses::new(2), Instant::now());
        guesses.count(address("2001:db8::1"), now);
        guesses.count(address("2001:db8::2"), now);
        assert!(guesses.are_too_many(address("2001:db8::3"), now));
        assert!(!guesses.are_too_many(address("2001:db8:0:1::3"), now));
    }

    #[test]
    fn many_addresses_fill_no_memory_and_the_newest_are_known() {
        let (guesses, start) = (Guesses::new(1), Instant::now());
        for n in 0..2 * u32::try_from(MOST_PLACES).unwrap() {
            guesses.count(std::net::Ipv4Addr::from_bits(n).into(), start + Duration::from_micros(n.into()));
        }
        assert_eq!(guesses.places().len(), MOST_PLACES);
        let last = std::net::Ipv4Addr::from_bits(2 * u32::try_from(MOST_PLACES).unwrap() - 1);
        assert!(guesses.are_too_many(last.into(), start + WINDOW / 2));
    }
}
