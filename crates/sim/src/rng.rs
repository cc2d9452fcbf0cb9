//! All chance there is in a simulated world, from one seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).

use std::time::Duration;

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream, for one purpose: what one purpose draws does not move what another one does.
    #[must_use]
    pub fn fork(&self, purpose: &str) -> Self {
        // FNV-1a
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut fork = Self(self.0 ^ hash);
        fork.next();
        fork
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        let number = if n == 0 { 0 } else { self.next() % n };
        usize::try_from(number).unwrap_or(0)
    }

    /// A number from 0 to, but not including, 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are kept, as many as an f64 has")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with that probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// The time between two events of which there is one in a unit of time.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// A time from `shortest` to `longest`, in whole milliseconds.
    pub fn time(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let span = longest.saturating_sub(shortest).as_millis();
        let span = usize::try_from(span).unwrap_or(usize::MAX - 1);
        shortest + Duration::from_millis(u64::try_from(self.below(span + 1)).unwrap_or(0))
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, some: &'a [T]) -> Option<&'a T> {
        some.get(self.below(some.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_stream_and_forks_are_others() {
        let draw = |mut rng: Rng| -> Vec<usize> { (0..20).map(|_| rng.below(1000)).collect() };
        assert_eq!(draw(Rng::new(1)), draw(Rng::new(1)));
        assert_ne!(draw(Rng::new(1)), draw(Rng::new(2)));
        assert_ne!(draw(Rng::new(1).fork("a")), draw(Rng::new(1).fork("b")));
    }

    #[test]
    fn times_are_within_their_bounds_and_reach_them() {
        let (shortest, longest) = (Duration::from_millis(3), Duration::from_millis(5));
        let mut rng = Rng::new(1);
        let times: std::collections::BTreeSet<_> = (0..100).map(|_| rng.time(shortest, longest)).collect();
        assert_eq!(times, (3..=5).map(Duration::from_millis).collect());
    }
}
