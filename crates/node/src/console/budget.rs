//! How many bytes of consoles may be written: an account each for a VM and for the node, which fills evenly and holds a minute's worth. So the more a log
//! weighs the less often it is written, and one that was quiet is written at once. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// What was not spent is kept for so long.
const SAVED: Duration = Duration::from_mins(1);

/// Bytes a second, averaged over a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of each VM.
    pub vm: u64,
    /// Of all VMs of the node together.
    pub node: u64,
}

/// Bytes that may be written, one account.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    per_second: u64,
    /// Negative: more was written than there was.
    bytes: i64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1);
        Self { per_second, bytes: whole(per_second), at: now }
    }

    /// When so many bytes may be written. What is more than a minute's worth may when the account is full.
    pub(super) fn admits_at(&self, bytes: usize, now: Instant) -> Instant {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX).min(whole(self.per_second));
        let missing = wanted.saturating_sub(self.filled(now)).max(0).unsigned_abs();
        // Rounded up: at that moment it is enough.
        now + Duration::from_micros(missing.saturating_mul(1_000_000).div_ceil(self.per_second))
    }

    /// So many are written.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let spent = i64::try_from(bytes).unwrap_or(i64::MAX);
        (self.bytes, self.at) = (self.filled(now).saturating_sub(spent), now);
    }

    /// So many of those were not written after all.
    pub(super) fn give_back(&mut self, bytes: usize, now: Instant) {
        let back = i64::try_from(bytes).unwrap_or(i64::MAX);
        (self.bytes, self.at) = (self.filled(now).saturating_add(back).min(whole(self.per_second)), now);
    }

    fn filled(&self, now: Instant) -> i64 {
        let us = now.saturating_duration_since(self.at).as_micros();
        let since = us.saturating_mul(self.per_second.into()) / 1_000_000;
        let since = i64::try_from(since).unwrap_or(i64::MAX);
        self.bytes.saturating_add(since).min(whole(self.per_second))
    }
}

fn whole(per_second: u64) -> i64 {
    i64::try_from(per_second.saturating_mul(SAVED.as_secs())).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u64 = 64 * 1024;

    #[tokio::test(start_paused = true)]
    async fn who_was_quiet_is_written_at_once_and_who_is_not_as_often_as_its_weight_permits() {
        let begin = Instant::now();
        let mut budget = Budget::new(RATE, begin);
        let (mut now, mut times) = (begin, Vec::new());
        for _ in 0..10 {
            now = budget.admits_at(900 * 1024, now);
            budget.spend(900 * 1024, now);
            times.push(now.duration_since(begin).as_secs());
        }
        assert_eq!(times, [0, 0, 0, 0, 10, 24, 38, 52, 66, 80], "four were saved up, then one in 14 s");
        assert_eq!(budget.admits_at(80, now + Duration::from_secs(1)), now + Duration::from_secs(1));
    }

    proptest! {
        /// Whatever is written when it is admitted: in any time, the rate and what was saved in a minute.
        #[test]
        fn no_time_sees_more_than_its_rate_and_a_minutes_worth(
            writes in prop::collection::vec((0u64..30_000, 0usize..900 * 1024), 1..60),
            rate in 1024u64..1024 * 1024,
        ) {
            let begin = Instant::now();
            let (mut budget, mut now, mut written) = (Budget::new(rate, begin), begin, Vec::new());
            for (pause_ms, bytes) in writes {
                now = budget.admits_at(bytes, now + Duration::from_millis(pause_ms));
                budget.spend(bytes, now);
                written.push((now, bytes as u64));
            }
            // One that is larger than a minute's worth is written when the account is full.
            let largest = written.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
            for from in 0..written.len() {
                let mut sum = 0;
                for (at, bytes) in &written[from..] {
                    sum += bytes;
                    let us = at.duration_since(written[from].0).as_micros();
                    let filled = u64::try_from(us * u128::from(rate) / 1_000_000).unwrap();
                    prop_assert!(sum <= filled + largest.max(rate * 60) + 2, "{sum} in {us} us");
                }
            }
        }
    }
}
