//! The pauses between attempts: each twice as long as the last, up to a longest, none exactly as long as another client's.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

#[derive(Debug)]
pub(in crate::zookeeper) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Option<Duration>,
}

impl Backoff {
    pub(in crate::zookeeper) fn new([first, longest]: [Duration; 2]) -> Self {
        Self { first, longest, next: None }
    }

    /// All is well again.
    pub(in crate::zookeeper) fn reset(&mut self) {
        self.next = None;
    }

    /// Whether something was attempted since all was well.
    pub(in crate::zookeeper) fn began(&self) -> bool {
        self.next.is_some()
    }

    /// Something is attempted for the first time.
    pub(in crate::zookeeper) fn begin(&mut self) {
        self.next.get_or_insert(self.first);
    }

    /// How long to wait now: from half of the pause to all of it, so that the clients of a server that fails come back one by one.
    pub(in crate::zookeeper) fn pause(&mut self) -> Duration {
        let pause = self.next.unwrap_or(self.first);
        self.next = Some((pause * 2).min(self.longest));
        let rng = RandomState::new().hash_one(pause) % 256;
        pause / 2 + pause / 2 * u32::try_from(rng).unwrap_or(0) / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new([first, longest]);
        assert!(!backoff.began());
        let mut whole = first;
        for _ in 0..8 {
            let pause = backoff.pause();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(longest);
        }
        assert!(backoff.began());
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
